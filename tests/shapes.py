"""Small shapes of several architectures, and headers made from shapes without any weights."""

from __future__ import annotations

import dataclasses
import functools

from harness.catalog import Shape
from harness.sources.references import load_catalog
from harness.sources.synth import make_header_bytes
from harness.theory.gguf import BytesSource, Header, read_header

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
