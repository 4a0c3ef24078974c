"""A header made from a shape: what a file of this model would say, without there being one."""

from __future__ import annotations

import struct
from types import MappingProxyType
from typing import Any, TypeAlias

from harness.catalog import Shape
from harness.gguf.header import DEFAULT_ALIGNMENT, ArrayValue, Header, Tensor
from harness.gguf.layout import tensor_table
from harness.gguf.types import FILE_TYPE_NUMBERS, find_quantization, tensor_type

#: Settings by their keys behind ``<architecture>.``; a tuple is an array.
Hyperparameters: TypeAlias = dict[str, int | float | tuple[int, ...]]

#: The key that says that nobody read this header from a file.
COMPUTED_KEY = "harness.computed"


def compute_header(shape: Shape, quantization: str, name: str) -> Header:
    """Lay out a model's header: settings and tensors as a converted and quantized file has them, and no vocabulary.

    data_offset is 0, so `Header.size_bytes` is that of the weights alone; a real file is larger by its vocabulary (some MB).

    Raises
    ------
    UsageError : unknown architecture or quantization, or dimensions that this architecture cannot have.
    """
    quantization = find_quantization(quantization)
    tensors: list[Tensor] = []
    offset = 0
    for spec in tensor_table(shape, quantization):
        type_id = tensor_type(spec.type_name).type_id
        tensors.append(Tensor(spec.name, spec.shape, type_id, spec.type_name, offset, spec.size_bytes))
        offset += -(-spec.size_bytes // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT
    metadata = _list_metadata(shape, quantization, name)
    return Header(
        version=3,
        byte_order="little",
        metadata=MappingProxyType(metadata),
        tensors=tuple(tensors),
        alignment=DEFAULT_ALIGNMENT,
        data_offset=0,
        metadata_types=MappingProxyType({key: _name_type(value) for key, value in metadata.items()}),
    )


def list_hyperparameters(shape: Shape) -> Hyperparameters:
    """List the hyperparameters that llama.cpp asks of these architectures, by their keys behind ``<architecture>.``.

    Source: src/llama-model.cpp load_hparams and src/models/*.cpp load_arch_hparams.
    """
    rotated = shape.rope_dimension_count or shape.head_dim
    settings: Hyperparameters = {
        "block_count": shape.block_count,
        "context_length": shape.context_length,
        "embedding_length": shape.embedding_length,
        "feed_forward_length": shape.feed_forward_length,
        "attention.head_count": shape.head_count,
        "attention.head_count_kv": shape.head_count_kv,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "attention.layer_norm_rms_epsilon": float(shape.rms_norm_eps),
        "rope.dimension_count": rotated,
        "rope.freq_base": float(shape.rope_freq_base),
        "vocab_size": shape.vocab_size,
        **_list_expert_settings(shape),
        **_list_state_settings(shape),
    }
    if shape.architecture == "granite":
        settings["logit_scale"] = 1.0  # asked for; what the logits are multiplied by changes no work
    if shape.sliding_window:
        settings["attention.sliding_window"] = shape.sliding_window
    if shape.architecture in ("qwen35", "qwen35moe"):
        # The rotated pairs are shared out among text and image positions; text has the same in all of them.
        third = rotated // 2 // 3
        settings["rope.dimension_sections"] = (rotated // 2 - 2 * third, third, third, 0)
    if blocks := shape.cross_attention_blocks:
        settings["attention.cross_attention_layers"] = blocks
    return settings


def _list_expert_settings(shape: Shape) -> Hyperparameters:
    if not shape.expert_count:
        return {}
    settings: Hyperparameters = {
        "expert_count": shape.expert_count,
        "expert_used_count": shape.expert_used_count,
    }
    if shape.architecture in ("qwen3moe", "qwen35moe", "gpt-oss"):
        settings["expert_feed_forward_length"] = shape.feed_forward_length
    if shape.expert_shared_feed_forward_length:
        settings["expert_shared_feed_forward_length"] = shape.expert_shared_feed_forward_length
    return settings


def _list_state_settings(shape: Shape) -> Hyperparameters:
    if not shape.ssm_inner_size:
        return {}
    settings: Hyperparameters = {
        "ssm.conv_kernel": shape.ssm_conv_kernel,
        "ssm.inner_size": shape.ssm_inner_size,
        "ssm.state_size": shape.ssm_state_size,
        "ssm.time_step_rank": shape.ssm_time_step_rank,
        "ssm.group_count": shape.ssm_group_count,
    }
    if shape.full_attention_interval:
        settings["full_attention_interval"] = shape.full_attention_interval
    elif shape.attention_blocks:  # granitehybrid: a block without heads for keys and values is recurrent
        blocks = range(shape.block_count)
        heads = tuple(0 if shape.is_recurrent(block) else shape.head_count_kv for block in blocks)
        settings["attention.head_count_kv"] = heads
    return settings


def _list_metadata(shape: Shape, quantization: str, name: str) -> dict[str, Any]:
    return {
        "general.architecture": shape.architecture,
        "general.name": name,
        "general.file_type": FILE_TYPE_NUMBERS[quantization],
        COMPUTED_KEY: True,
        **{f"{shape.architecture}.{key}": _as_read(value) for key, value in list_hyperparameters(shape).items()},
    }


def _as_read(value: int | float | tuple[int, ...]) -> Any:
    """A value as the header reader would give it: arrays are those of i32."""
    if not isinstance(value, tuple):
        return value
    data = struct.pack(f"<{len(value)}i", *value)
    return ArrayValue("i32", len(value), 0, len(data), "little", data)


def _name_type(value: object) -> str:
    if isinstance(value, ArrayValue):
        return "arr"
    return {bool: "bool", int: "u32", float: "f32", str: "str"}[type(value)]
