"""Small shapes of several architectures, and headers made from shapes without any weights."""

from __future__ import annotations

import dataclasses
import functools

from harness.catalog import Shape
from harness.gguf.header import BytesSource, Header, read_header
from harness.sources.synthetic import make_header_bytes
from harness.sources.user_catalog import load_catalog

_SMALL = Shape("llama", 4, 256, 512, 4, 2, 64, 512, 4096, True, 10000.0)

SMALL_SHAPES = {
    "llama": _SMALL,
    "untied": dataclasses.replace(_SMALL, tied_embeddings=False),
    "qwen2": dataclasses.replace(_SMALL, architecture="qwen2", attention_bias=True),
    "qwen3": dataclasses.replace(_SMALL, architecture="qwen3"),
    "mixtral": dataclasses.replace(_SMALL, expert_count=8, expert_used_count=2),
    "qwen3moe": dataclasses.replace(_SMALL, architecture="qwen3moe", expert_count=16, expert_used_count=4),
    "gemma2": dataclasses.replace(_SMALL, architecture="gemma2", sliding_window=512),
    "gemma3": dataclasses.replace(_SMALL, architecture="gemma3", sliding_window=512, block_count=6),
}

#: The smallest that llama.cpp decodes, as a start for others.
TINY = Shape("llama", 2, 256, 512, 4, 2, 64, 320, 512, False, 1e4)
#: The dimensions of a recurrent block's state.
STATE = {
    "ssm_conv_kernel": 4, "ssm_state_size": 64, "ssm_group_count": 2, "ssm_time_step_rank": 4, "ssm_inner_size": 256,
}  # fmt: skip
#: Hybrids, and what else came after 2024.
MODERN = {
    "qwen35": dataclasses.replace(TINY, architecture="qwen35", block_count=8, full_attention_interval=4, **STATE),
    "qwen35moe": dataclasses.replace(
        TINY, architecture="qwen35moe", block_count=8, full_attention_interval=4, expert_count=16, expert_used_count=4,
        expert_shared_feed_forward_length=256, **STATE,
    ),
    "gpt-oss": dataclasses.replace(
        TINY, architecture="gpt-oss", attention_bias=True, expert_count=8, expert_used_count=4, sliding_window=32
    ),
    "smollm3": dataclasses.replace(TINY, architecture="smollm3", tied_embeddings=True, block_count=9),
    "phi3": dataclasses.replace(TINY, architecture="phi3", block_count=9),
    "mistral3": dataclasses.replace(TINY, architecture="mistral3"),
    "granite": dataclasses.replace(TINY, architecture="granite", tied_embeddings=True),
    "granitehybrid": dataclasses.replace(
        TINY, architecture="granitehybrid", tied_embeddings=True, block_count=8, attention_blocks=(3, 7),
        expert_count=16, expert_used_count=4, expert_shared_feed_forward_length=256, **{**STATE, "ssm_inner_size": 512},
    ),
}  # fmt: skip


@functools.cache
def catalog_header(name: str) -> Header:
    """The header of a catalog model in a quantization: ``llama3.2:1b:q4_0``."""
    entry, quantization = load_catalog().split(name)
    data, _ = make_header_bytes(entry.shape, quantization or "Q4_0", name=entry.name)
    return read_header(BytesSource(data))


@functools.cache
def small_header(name: str, quantization: str = "Q4_0") -> Header:
    data, _ = make_header_bytes(SMALL_SHAPES[name], quantization, name=name)
    return read_header(BytesSource(data))


def count_parameters(tensors) -> int:
    """As published: every element but those of rope_freqs, which no one trained."""
    return sum(tensor.n_elements for tensor in tensors if tensor.name != "rope_freqs.weight")
