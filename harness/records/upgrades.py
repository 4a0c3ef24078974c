"""What older lines lack: each kind's steps from one schema to the next. Journals of every edition are read for ever."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Upgrade = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def _parity_1(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The number of tokens was in the test's name alone."""
    return {**values, "n_tokens": int(values["test"].lstrip("pgt"))}


#: By kind, in order: the first step makes schema 2 of schema 1. A kind that is not here is of schema 1 still. A step gets a whole
#: line of which nothing is checked yet; what it makes is checked by the fields of the kind's class. A field that was added needs no
#: step if it has a default, and one that went away none either: what a class does not know is not read.
UPGRADES: dict[str, tuple[Upgrade, ...]] = {"parity": (_parity_1,)}
