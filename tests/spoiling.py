"""Records whose every text is a stranger's, found by walking their dataclasses, so that a new field is among them by being one."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from harness.errors import HarnessError


def spoil(value: Any, text: str) -> Any:
    """A dataclass with a text in the place of every other, also of those that are not known, wherever its own rules allow it."""
    for name, hint in _spoilable(type(value)):
        for put in _tries(getattr(value, name), hint, text):
            try:
                value = dataclasses.replace(value, **{name: put})
                break
            except (HarnessError, ValueError, KeyError, TypeError):
                continue
    return value


def places(kind: type, seen: tuple[type, ...] = ()) -> Iterator[str]:
    """Where a class can hold texts that are anybody's, by the names of its fields."""
    for name, hint in _spoilable(kind):
        yield name
        for inner in _classes(hint):
            if inner not in seen:
                yield from (f"{name}.{place}" for place in places(inner, (*seen, inner)))


@functools.cache
def _spoilable(kind: Any) -> tuple[tuple[str, Any], ...]:
    if not dataclasses.is_dataclass(kind):
        return ()
    hints = typing.get_type_hints(kind, include_extras=True)
    return tuple(
        (field.name, hints[field.name]) for field in dataclasses.fields(kind) if field.init and _holds_text(hints[field.name], (kind,))
    )  # fmt: skip


def _holds_text(hint: Any, seen: tuple[Any, ...]) -> bool:
    if typing.get_origin(hint) is Annotated:
        return "utc-time" not in hint.__metadata__ and _holds_text(typing.get_args(hint)[0], seen)
    if hint is str:
        return True
    if dataclasses.is_dataclass(hint):
        return hint not in seen and any(
            _holds_text(inner, (*seen, hint)) for inner in typing.get_type_hints(hint, include_extras=True).values()
        )
    return typing.get_origin(hint) is not typing.Literal and any(
        _holds_text(inner, seen) for inner in typing.get_args(hint)
    )


def _classes(hint: Any) -> Iterator[Any]:
    if dataclasses.is_dataclass(hint):
        yield hint
    for inner in typing.get_args(hint):
        yield from _classes(inner)


def _tries(value: Any, hint: Any, text: str) -> Iterator[Any]:
    """What may stand there, the worst first."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        yield from _tries(value, inside[0], text)
    elif origin in (typing.Union, types.UnionType):
        (other,) = [item for item in inside if item is not type(None)]
        if value is not None or other is str:
            yield from _tries(value, other, text)
    elif hint is str:
        yield text
    elif dataclasses.is_dataclass(hint):
        yield spoil(value, text)
    elif origin in (tuple, frozenset) and value:
        yield origin(next(_tries(item, inside[0], text), item) for item in value)
    elif origin is not None and isinstance(value, Mapping) and value:
        items = [next(_tries(item, inside[1], text), item) for item in value.values()]
        if len(items) == 1:
            yield {text: items[0]}
        yield {**dict(zip(list(value)[1:], items[1:], strict=True)), text: items[0]}
