"""What makes reading a hundred thousand lines quick: what follows from parts that many of them have in common is worked out once, and
Python's collector rests meanwhile.

Lines with an equal machine, build, model or request hold one and the same object (`codec.Shared`), so that identity tells, and no
hundred thousand values are hashed.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from harness.codec import MOST_SHARED

Value = TypeVar("Value")

#: So many answers are known again, as many as equal values are one object; then all are forgotten, so that a sweep of any length holds
#: no more.
_KNOWN = MOST_SHARED


class OncePerParts(Generic[Value]):
    """A function whose answer is remembered by the identity of its arguments, none of which may change.

    Parameters
    ----------
    make : the function
    """

    def __init__(self, make: Callable[..., Value]) -> None:
        self._make = make
        self._known: dict[tuple[int, ...], tuple[tuple[Any, ...], Value]] = {}

    def __call__(self, *parts: Any) -> Value:
        """The function's answer."""
        key = tuple(map(id, parts))
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            # With the parts, so that their ids stay theirs.
            found = self._known[key] = parts, self._make(*parts)
        return found[1]


@contextlib.contextmanager
def collector_at_rest() -> Iterator[None]:
    """While many records are read and held, none of which is part of a circle: it would look at all of them again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
