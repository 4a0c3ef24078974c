"""A model's settings as counts: one number for the whole model, or one for each layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.errors import HarnessError
from harness.gguf.header import ArrayValue, Header
from harness.spec import MAX_LAYERS
from harness.untrusted.json import is_count


def name_set(text: str) -> frozenset[str]:
    """Make a set of the names in a text that separates them by spaces."""
    return frozenset(text.split())


def read_count(header: Header, key: str) -> int | None:
    """Read one number among the model's settings; None where it is not stated.

    Raises
    ------
    HarnessError : the value is not a number from 0 to 2^32 - 1.
    """
    return None if (value := header.hparam(key)) is None else _as_count(header, key, value)


def read_count_or(header: Header, key: str, default: int) -> int:
    """As `read_count`, with what llama.cpp takes where the header states nothing."""
    value = read_count(header, key)
    return default if value is None else value


def read_per_layer(header: Header, key: str, n_layers: int) -> list[int] | None:
    """Read a setting that is one number for all layers or an array of one per layer; None where it is not stated.

    Raises
    ------
    HarnessError : an item is not a count, the array is not n_layers long, or those are more than llama.cpp takes.

    Source: src/llama-model-loader.cpp get_key_or_arr.
    """
    value = header.hparam(key)
    if value is None:
        return None
    if n_layers > MAX_LAYERS:
        raise _too_many(header, n_layers)
    if not isinstance(value, ArrayValue):
        return [_as_count(header, key, value)] * n_layers
    if value.length != n_layers:
        raise HarnessError(
            f"{header.architecture}.{key} has {value.length} items for {n_layers} layers; download the model again"
        )
    return [_as_count(header, key, item) for item in value.read()]


def read_array(header: Header, key: str, n_layers: int) -> list[int] | None:
    """Read an array of one number a layer; None where there is none, 0 where the array is too short.

    Source: src/llama-model-loader.cpp get_arr into an array of LLAMA_MAX_LAYERS zeros.
    """
    value = header.hparam(key)
    return (value.read() + [0] * n_layers)[:n_layers] if isinstance(value, ArrayValue) else None


def read_flags(header: Header, key: str, n_layers: int) -> list[bool] | None:
    """As `read_array`, of an array that says yes or no of each layer."""
    numbers = read_array(header, key, n_layers)
    return None if numbers is None else list(map(bool, numbers))


def count_blocks(header: Header) -> int:
    """Count a model's blocks.

    Raises
    ------
    HarnessError : the header does not state block_count, or one that llama.cpp does not take.
    """
    n_blocks = read_count(header, "block_count")
    if n_blocks is None:
        raise HarnessError(f"the header does not state {header.architecture}.block_count; download the model again")
    if not 0 < n_blocks <= MAX_LAYERS:
        raise _too_many(header, n_blocks)
    return n_blocks


def _too_many(header: Header, n_blocks: int | None) -> HarnessError:
    return HarnessError(f"{header.architecture}.block_count is {n_blocks}, outside llama.cpp's 1 to {MAX_LAYERS}")


def describe_untrained(n_ctx_train: int | None, contexts: Iterable[int]) -> str | None:
    """Say that a context is longer than what a model was trained for, as a remark; None where none is."""
    beyond = [n_ctx for n_ctx in contexts if n_ctx_train and n_ctx > n_ctx_train]
    if not beyond:
        return None
    return f"the model was trained for {n_ctx_train} tokens of context, and {max(beyond)} are asked for"


def _as_count(header: Header, key: str, value: Any) -> int:
    if not is_count(value, 2**32):
        shown = f"an array of {value.length}" if isinstance(value, ArrayValue) else repr(value)[:40]
        raise HarnessError(f"{header.architecture}.{key} is {shown}, which is not a count; download the model again")
    return value
