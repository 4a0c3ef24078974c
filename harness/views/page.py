"""How wide a page is, and how text and tables keep within it: the one place that measures, wraps and cuts.

The width is a setting of the page, as digits are of a decimal context: the command line sets it once, from the terminal, and everything
that is laid out inside keeps to it. Whatever comes in is made harmless on the way.
"""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from harness.untrusted import harmless

#: Columns of a page: the fewest that tables are made for, what is usual where nobody says, the most that are still read with ease.
NARROWEST, USUAL, WIDEST = 60, 80, 120

#: No column of names is cut below this, as long as anything else helps.
_SHORTEST = 16

_GAP = "  "

_width: ContextVar[int] = ContextVar("page_width", default=USUAL)


def width() -> int:
    """Columns of the page at hand."""
    return _width.get()


@contextlib.contextmanager
def of_width(columns: int) -> Iterator[None]:
    """Lay pages out in so many columns, at least `NARROWEST` and at most `WIDEST`."""
    token = _width.set(min(max(columns, NARROWEST), WIDEST))
    try:
        yield
    finally:
        _width.reset(token)


def columns_of(text: str) -> int:
    """Columns that a terminal takes for a line: two for East Asian wide characters, none for combining ones (Unicode annex 11)."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    import wcwidth  # where it is used: most pages have no such text, and --help waits for no library

    return max(wcwidth.wcwidth(character), 0)


def cut(text: str, columns: int) -> str:
    """One harmless line of so many columns at the most; what is too much is cut off its end."""
    text = harmless.line(text)
    return text if columns_of(text) <= columns else _take(text, columns - 1) + "…"


def cut_start(text: str, columns: int) -> str:
    """As `cut`, for what matters most at its end, such as a path."""
    text = harmless.line(text)
    return text if columns_of(text) <= columns else "…" + _take(text[::-1], columns - 1)[::-1]


def cut_middle(text: str, columns: int) -> str:
    """As `cut`, for names: their beginning says what they are, and their end which one (a quantization, a size)."""
    text = harmless.line(text)
    if columns_of(text) <= columns:
        return text
    end = (columns - 1) // 3
    return _take(text, columns - 1 - end) + "…" + _take(text[::-1], end)[::-1]


def _take(text: str, columns: int) -> str:
    taken = 0
    for index, character in enumerate(text):
        taken += _columns_of(character)
        if taken > columns:
            return text[:index]
    return text


def fill(text: str, *, first: str = "", rest: str = "  ") -> str:
    """A sentence wrapped to the page: `first` stands before its first line, `rest` before the others."""
    # A wide character counts twice while lines are broken, for which something that is nowhere else follows it; a line that is
    # broken between the two is one column too long.
    counted = "".join(c + "\0" * (_columns_of(c) == 2) for c in harmless.line(text))
    for columns in (width(), width() - 1):
        broken = textwrap.fill(
            counted, columns, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
        ).replace("\0", "")
        if all(columns_of(line) <= width() for line in broken.split("\n")):
            break
    return broken


def wrap(text: str, columns: int) -> str:
    """A sentence in lines of so many columns, for a cell."""
    return "\n".join(textwrap.wrap(harmless.line(text), columns, break_on_hyphens=False))


def heading(parts: Sequence[str]) -> str:
    """Facts that everything below shares, joined by dots; a long one is wrapped."""
    return fill(" · ".join(part for part in parts if part))


# --- tables -----------------------------------------------------------------------------------------------------------


def table(
    rows: Sequence[Mapping[str, Any]],
    align: str | Sequence[str],
    *,
    style: str = "simple",
    rule: bool = True,
    air: int = 2,
) -> str:
    """Rows of equal keys, which are the headings, as a table of the page's width.

    Cells and headings may have several lines. What does not fit is made to fit, in this order: the air around headings goes, headings
    break at blanks, names lose their middle, and at last the table is taken apart, with its first column repeated.

    Parameters
    ----------
    align : ``l`` or ``r`` for each column (or words that begin so); the last one holds for all that follow
    style : ``simple`` for a terminal, ``github`` for Markdown, whose width nobody limits
    rule  : draw a line under the headings
    air   : columns that a heading has more than it needs, where there is room
    """
    if not rows:
        return ""
    heads = [str(head) for head in rows[0]]
    cells = [["" if value is None else str(value) for value in row.values()] for row in rows]
    sides = [align[min(index, len(align) - 1)][0] for index in range(len(heads))]
    if style == "github":
        return _markdown(heads, cells, sides)
    return "\n\n".join(_simple(*part, rule, air) for part in _split(heads, cells, sides))


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]], sides: Sequence[str]) -> str:
    body = [[harmless.markdown(text) for text in row] for row in rows]
    return _draw([harmless.markdown(text) for text in heads], body, sides, "github", 2)


def _draw(heads: Sequence[str], rows: Sequence[Sequence[str]], sides: Sequence[str], form: str, air: int) -> str:
    """Have tabulate draw it; cells are text already, and numbers in them are not to be shaped again."""
    import tabulate  # where it is used: --help has no table

    before = tabulate.MIN_PADDING
    tabulate.MIN_PADDING = air  # the library takes the air around headings from its own module only
    try:
        aligned = ["left" if side == "l" else "right" for side in sides]
        return tabulate.tabulate(
            rows, heads, tablefmt=form, colalign=aligned, headersalign=aligned, disable_numparse=True
        )
    finally:
        tabulate.MIN_PADDING = before


_Table = tuple[list[str], list[list[str]], list[str]]


def _split(heads: list[str], rows: list[list[str]], sides: list[str]) -> list[_Table]:
    """The table as few tables that fit: its columns shortened, or dealt out with the first one in each."""
    whole = _fit(heads, rows, sides)
    if _total(_widths(*whole[:2], air=0)) <= width() or len(heads) < 3:
        return [whole]
    parts, kept = [], [0]
    for column in range(1, len(heads)):
        trial = _pick(heads, rows, sides, [*kept, column])
        if len(kept) > 1 and _total(_widths(*_fit(*trial)[:2], air=0)) > width():
            parts.append(kept)
            kept = [0]
        kept = [*kept, column]
    return [_fit(*_pick(heads, rows, sides, part)) for part in (*parts, kept)]


def _pick(heads: list[str], rows: list[list[str]], sides: list[str], columns: Sequence[int]) -> _Table:
    return [heads[i] for i in columns], [[row[i] for i in columns] for row in rows], [sides[i] for i in columns]


def _fit(heads: list[str], rows: list[list[str]], sides: list[str]) -> _Table:
    """Break headings and shorten names until the table fits, or nothing more can be done."""
    widths = _widths(heads, rows, air=0)
    if _total(widths) <= width():
        return heads, rows, sides
    bodies = _widths([""] * len(heads), rows, air=0)
    heads = [
        "\n".join(textwrap.wrap(harmless.line(head), max(bodies[i], 1), break_long_words=False))
        if "\n" not in head
        else head
        for i, head in enumerate(heads)
    ]
    widths = _widths(heads, rows, air=0)
    for shortest in (_SHORTEST, _SHORTEST // 2):
        while _total(widths) > width():
            names = [i for i, side in enumerate(sides) if side == "l" and widths[i] > shortest]
            if not names:
                break
            widths[max(names, key=lambda i: widths[i])] -= 1
    shortened = [
        [_cut_cell(text, widths[i]) if sides[i] == "l" else text for i, text in enumerate(row)] for row in rows
    ]
    heads = [_cut_cell(head, widths[i]) if sides[i] == "l" else head for i, head in enumerate(heads)]
    return heads, shortened, sides


def _cut_cell(text: str, columns: int) -> str:
    return "\n".join(cut_middle(line, columns) for line in text.split("\n"))


def _widths(heads: Sequence[str], rows: Sequence[Sequence[str]], *, air: int) -> list[int]:
    return [max(_width_of(head) + air, *(_width_of(row[index]) for row in rows)) for index, head in enumerate(heads)]


def _width_of(cell: str) -> int:
    return max(columns_of(harmless.line(line)) for line in cell.split("\n"))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _simple(heads: Sequence[str], rows: Sequence[Sequence[str]], sides: Sequence[str], rule: bool, air: int) -> str:
    if _total(_widths(heads, rows, air=air)) > width():
        air = 0
    shown = [[_harmless_cell(text) for text in row] for row in rows]
    drawn = _draw([_harmless_cell(head) for head in heads], shown, sides, "simple" if rule else "plain", air)
    # Only a file that lies about its sizes has a number that is too wide by itself.
    return "\n".join(cut(line.rstrip(), width()) for line in drawn.split("\n"))


def _harmless_cell(cell: str) -> str:
    return "\n".join(harmless.line(line) for line in cell.split("\n"))
