"""What a section of the report is made of. A section is data; the page's template (`page.py`) decides how it looks, and escapes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table: what is shown, and the number that it is sorted by (None: by its text)."""

    text: str
    key: float | None = None

    @property
    def is_number(self) -> bool:
        return self.key is not None

    @property
    def is_short(self) -> bool:
        """Whether it may stand on one line in any table."""
        return len(self.text) <= 28


@dataclass(frozen=True, slots=True)
class Table:
    """A table that sorts by click. rows hold cells or plain text, as many as there are headers.

    notes are numbered footnotes, remarks say how to read the whole.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    notes: Sequence[str] = ()
    remarks: Sequence[str] = ()

    def cells(self) -> list[list[Cell]]:
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture: `draw` makes the figure in a theme of `views.figures.style`; alt says what it shows, caption how to read it."""

    draw: Callable[[str], Any]
    alt: str
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Prose:
    """Paragraphs of plain text."""

    paragraphs: Sequence[str]


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values, such as those of a machine."""

    pairs: Sequence[tuple[str, str]]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Points:
    """A list of sentences."""

    items: Sequence[str]


Part = Table | Chart | Prose | Facts | Points


class Footnotes:
    """Numbers remarks in the order in which they appear; the same remark keeps its number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, texts: Sequence[str]) -> str:
        numbers = [self._numbers.setdefault(text, len(self._numbers) + 1) for text in texts]
        return "".join(f" [{number}]" for number in dict.fromkeys(numbers))

    def texts(self) -> list[str]:
        return list(self._numbers)


@dataclass(frozen=True, slots=True)
class Section:
    """A titled part of the page; one without parts is left out."""

    title: str
    parts: Sequence[Part]
