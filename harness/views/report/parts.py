"""What sections that have no Document of their own yet are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.views.document import Block, Column, Figure, Footnotes, KeyFigures, Picture, Section
from harness.views.document import Cell as ValueCell
from harness.views.document import Prose as Prose
from harness.views.document import Table as ValueTable
from harness.views.values import Unit

Cell = ValueCell
Part = Block | Section
__all__ = ["Cell", "Chart", "Facts", "Footnotes", "Part", "Points", "Prose", "Table", "text_cell"]


def text_cell(text: str, key: float | None) -> Cell:
    return ValueCell(key, Unit("", lambda _: text))


def Table(
    headers: Sequence[str], rows: Sequence[Sequence[Cell | str]], notes: Sequence[str] = (), remarks: Sequence[str] = ()
) -> Block:
    numbered = [f"[{number}] {text}" for number, text in enumerate(notes, 1)]
    return ValueTable(
        "rows", [Column(f"c{n}", head or " ") for n, head in enumerate(headers)], rows, [*remarks, *numbered]
    )


def Chart(draw: Callable[[str], Any], alt: str, caption: str = "") -> Block:
    return Picture(draw, alt, caption)


def Facts(pairs: Sequence[tuple[str, str]], title: str = "") -> Section:
    return Section(title, [KeyFigures([Figure(name, name, value) for name, value in pairs])])


def Points(items: Sequence[str]) -> Block:
    return Prose(items, is_list=True)
