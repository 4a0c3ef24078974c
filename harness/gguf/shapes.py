"""A header made from a shape: what a file of this model would say, without there being one."""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, TypeAlias

from harness.catalog import Shape
from harness.gguf.header import DEFAULT_ALIGNMENT, ArrayValue, Header
from harness.gguf.layout import ONLY_WITH_EXPERTS, tensor_table
from harness.gguf.types import FILE_TYPE_NUMBERS, find_quantization

#: A setting; a tuple is an array.
Value: TypeAlias = int | float | tuple[int, ...]

_TYPE_NAMES = {bool: "bool", int: "u32", float: "f32", str: "str", ArrayValue: "arr"}

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
    metadata = _list_metadata(shape, quantization, name)
    return Header(
        version=3,
        byte_order="little",
        metadata=MappingProxyType(metadata),
        tensors=tensor_table(shape, quantization),
        alignment=DEFAULT_ALIGNMENT,
        data_offset=0,
        metadata_types=MappingProxyType({key: _TYPE_NAMES[type(value)] for key, value in metadata.items()}),
    )


def _list_kv_heads(shape: Shape) -> Value:
    """Heads for keys and values; of granitehybrid by block, for one that has none is recurrent."""
    if not shape.attention_blocks:
        return shape.head_count_kv
    return tuple(0 if shape.is_recurrent(block) else shape.head_count_kv for block in range(shape.block_count))


def _list_rope_sections(shape: Shape) -> Value:
    """The rotated pairs are shared out among text and image positions; text has the same in all of them."""
    pairs = (shape.rope_dimension_count or shape.head_dim) // 2
    third = pairs // 3
    return (pairs - 2 * third, third, third, 0) if shape.architecture in ("qwen35", "qwen35moe") else ()


#: The one description of hyperparameters: a key behind ``<architecture>.``, and a field of a shape or what follows from one. What is 0
#: or empty is not stated. Source: src/llama-model.cpp load_hparams and src/models/*.cpp load_arch_hparams.
_KEYS: dict[str, str | Callable[[Shape], Value]] = {
    "block_count": "block_count",
    "context_length": "context_length",
    "embedding_length": "embedding_length",
    "feed_forward_length": "feed_forward_length",
    "attention.head_count": "head_count",
    "attention.head_count_kv": _list_kv_heads,
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "attention.layer_norm_rms_epsilon": lambda shape: float(shape.rms_norm_eps),
    "rope.dimension_count": lambda shape: shape.rope_dimension_count or shape.head_dim,
    "rope.freq_base": lambda shape: float(shape.rope_freq_base),
    "vocab_size": "vocab_size",
    "expert_count": "expert_count",
    "expert_used_count": "expert_used_count",
    "expert_feed_forward_length": lambda shape: (
        shape.feed_forward_length if shape.architecture in ONLY_WITH_EXPERTS else 0
    ),
    "expert_shared_feed_forward_length": "expert_shared_feed_forward_length",
    "ssm.conv_kernel": "ssm_conv_kernel",
    "ssm.inner_size": "ssm_inner_size",
    "ssm.state_size": "ssm_state_size",
    "ssm.time_step_rank": "ssm_time_step_rank",
    "ssm.group_count": "ssm_group_count",
    "full_attention_interval": "full_attention_interval",
    # asked for; what the logits are multiplied by changes no work
    "logit_scale": lambda shape: 1.0 if shape.architecture == "granite" else 0,
    "attention.sliding_window": "sliding_window",
    "rope.dimension_sections": _list_rope_sections,
    "attention.cross_attention_layers": "cross_attention_blocks",
}


def list_hyperparameters(shape: Shape) -> dict[str, Value]:
    """List the hyperparameters that llama.cpp asks of these architectures, by their keys behind ``<architecture>.``."""
    sources = ((key, getattr(shape, of) if isinstance(of, str) else of(shape)) for key, of in _KEYS.items())
    return {key: value for key, value in sources if value}


def _list_metadata(shape: Shape, quantization: str, name: str) -> dict[str, Any]:
    return {
        "general.architecture": shape.architecture,
        "general.name": name,
        "general.file_type": FILE_TYPE_NUMBERS[quantization],
        COMPUTED_KEY: True,
        **{f"{shape.architecture}.{key}": _as_read(value) for key, value in list_hyperparameters(shape).items()},
    }


def _as_read(value: Value) -> Any:
    """A value as the header reader would give it: arrays are those of i32."""
    if not isinstance(value, tuple):
        return value
    data = struct.pack(f"<{len(value)}i", *value)
    return ArrayValue("i32", len(value), 0, len(data), "little", data)
