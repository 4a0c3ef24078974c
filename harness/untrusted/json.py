"""JSON from outside, read within bounds: whoever reads it calls this, so that no text of a stranger ends the process."""

from __future__ import annotations

import json
from typing import Any, TypeGuard

#: Nothing that this project reads is nested more than ten deep; Python's own reader gives up somewhere near a thousand.
MAX_DEPTH = 100

_NESTED = frozenset({dict, list})


def read_json(text: str | bytes | bytearray, decoder: json.JSONDecoder | None = None) -> Any:
    """Read one JSON value.

    Parameters
    ----------
    decoder : reads texts with rules of its own, such as numbers that are finite

    Raises
    ------
    ValueError : it is no JSON, is not UTF-8, or is nested more than `MAX_DEPTH` deep.
    """
    try:
        value = json.loads(text) if decoder is None else decoder.decode(str(text))
    except RecursionError:
        raise ValueError("nested too deep") from None
    if count_brackets(text) <= MAX_DEPTH:  # of most texts that says enough
        return value
    level = [[value]]
    for _ in range(MAX_DEPTH + 1):
        level = [item for group in level for item in _items(group)]
        if not level:
            return value
    raise ValueError("nested too deep")


def is_count(value: Any, below: int = 2**63) -> TypeGuard[int]:
    """Whether a value of JSON, or of a header, is a whole number of something, such as bytes, from 0 on and below a bound."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below


def count_brackets(text: str | bytes | bytearray) -> int:
    """How many lists and objects a text begins, those in its strings too: it is nested no deeper than that."""
    return text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")


def _items(value: Any) -> list[Any]:
    """The values in a list or an object that may hold others."""
    inner = value.values() if isinstance(value, dict) else value
    if _NESTED.isdisjoint(map(type, inner)):  # thousands of numbers take no step each
        return []
    return [item for item in inner if type(item) in _NESTED]
