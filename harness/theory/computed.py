"""A header made from a shape: what a file of this model would say, without there being one."""

from __future__ import annotations

import struct
from types import MappingProxyType
from typing import Any

from harness.catalog import Shape
from harness.theory.gguf import DEFAULT_ALIGNMENT, ArrayValue, Header, Tensor
from harness.theory.layout import QUANTIZATIONS, find_quantization, tensor_table
from harness.theory.tensor_types import tensor_type

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
    metadata = _list_settings(shape, quantization, name)
    return Header(
        version=3,
        byte_order="little",
        metadata=MappingProxyType(metadata),
        tensors=tuple(tensors),
        alignment=DEFAULT_ALIGNMENT,
        data_offset=0,
        metadata_types=MappingProxyType({key: _name_type(value) for key, value in metadata.items()}),
    )


def _list_settings(shape: Shape, quantization: str, name: str) -> dict[str, Any]:
    """List the settings that llama.cpp asks of these architectures; the same that a synthetic file has.

    Source: src/llama-model.cpp load_hparams and src/models/*.cpp load_arch_hparams.
    """
    settings: dict[str, Any] = {
        "block_count": shape.block_count,
        "context_length": shape.context_length,
        "embedding_length": shape.embedding_length,
        "feed_forward_length": shape.feed_forward_length,
        "attention.head_count": shape.head_count,
        "attention.head_count_kv": shape.head_count_kv,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "attention.layer_norm_rms_epsilon": shape.rms_norm_eps,
        "rope.dimension_count": shape.head_dim,
        "rope.freq_base": shape.rope_freq_base,
        "vocab_size": shape.vocab_size,
    }
    if shape.expert_count:
        settings |= {"expert_count": shape.expert_count, "expert_used_count": shape.expert_used_count}
    if shape.architecture == "qwen3moe":
        settings["expert_feed_forward_length"] = shape.feed_forward_length
    if shape.sliding_window:
        settings["attention.sliding_window"] = shape.sliding_window
    if blocks := shape.cross_attention_blocks:
        data = struct.pack(f"<{len(blocks)}i", *blocks)
        settings["attention.cross_attention_layers"] = ArrayValue("i32", len(blocks), 0, len(data), "little", data)
    return {
        "general.architecture": shape.architecture,
        "general.name": name,
        "general.file_type": QUANTIZATIONS[quantization].file_type,
        COMPUTED_KEY: True,
        **{f"{shape.architecture}.{key}": value for key, value in settings.items()},
    }


def _name_type(value: object) -> str:
    if isinstance(value, ArrayValue):
        return "arr"
    return {bool: "bool", int: "u32", float: "f32", str: "str"}[type(value)]
