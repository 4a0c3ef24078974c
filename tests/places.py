"""Places in JSON values, and values put there."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

Place = tuple[Any, ...]


def strings_of(values: Any, path: Place = ()) -> Iterator[Place]:
    """Where texts are."""
    if isinstance(values, str):
        yield path
    elif isinstance(values, dict):
        for key, item in values.items():
            yield from strings_of(item, (*path, key))
    elif isinstance(values, list):
        for at, item in enumerate(values):
            yield from strings_of(item, (*path, at))


def with_value(values: Any, path: Place, value: Any) -> Any:
    """The same with another value in one place."""
    changed = copy.deepcopy(values)
    inside = changed
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return changed
