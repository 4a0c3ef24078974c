"""What runs and sources tell while they work: one type of event a thing that can be told, and one kind of callback for them all.

Nothing below `cli/` prints. Whoever starts something that may take long hands over an `OnEvent`, which is called in the thread that
asked, between timed regions and never inside one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a task stands: `done` of `total`, counted in `unit` (``B`` for bytes, empty for steps).

    A total of None is not known. Events with the same unit and total are one course, whose time that is left can be told.
    """

    task: str
    done: int = 0
    total: int | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that whoever asked should know and that no record holds; a sentence."""

    text: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A record or a row is there: what it is says its type."""

    content: object


@dataclass(frozen=True, slots=True)
class Unkept:
    """A record that could be written nowhere, as the line of JSON that a journal would hold: its last way out."""

    line: str


Event = Progress | Remark | Measured | Unkept
OnEvent = Callable[[Event], None]
#: Called with (bytes done, bytes in all).
OnBytes = Callable[[int, int], None]


def ignore(event: Event) -> None:
    """For whoever does not want to be told."""


def count_bytes(on_event: OnEvent, task: str) -> OnBytes:
    """A function to call while a task goes on."""
    return lambda done, total: on_event(Progress(task, done, total, "B"))


def pass_remarks(on_event: OnEvent) -> Callable[[str], None]:
    """A function to call with a sentence."""
    return lambda text: on_event(Remark(text))
