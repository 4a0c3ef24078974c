"""How wide a page is, and how text and tables keep within it: the one place that measures, wraps and cuts.

The width is a setting of the page, as digits are of a decimal context: the command line sets it once, from the terminal, and everything
that is laid out inside keeps to it. Whatever comes in is made harmless on the way.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import textwrap
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from harness.untrusted import harmless

#: Columns of a page: the fewest that tables are made for, what is usual where nobody says, the most of a table that are used; and the
#: most that a sentence takes, for longer lines are hard to read.
NARROWEST, USUAL, WIDEST, LONGEST_LINE = 60, 80, 200, 100

#: No more columns than this are repeated where a table is taken apart.
_MOST_KEYS = 3

#: No column of names is cut below this, as long as anything else helps.
_SHORTEST = 16

_GAP = "  "

#: As wide as a blank, and not taken off a cell by tabulate.
_BLANK = "\ue000"

#: Columns that a heading has more than it needs, where there is room.
_AIR = 2

#: A blank at which no line is broken.
_UNBROKEN = "\u00a0"

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
    counted, first, rest = (
        "".join(c + "\0" * (_columns_of(c) == 2) for c in part) for part in (harmless.line(text), first, rest)
    )
    longest = min(width(), LONGEST_LINE)
    for columns in (longest, longest - 1):
        broken = textwrap.fill(
            counted, columns, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
        ).replace("\0", "")
        if all(columns_of(line) <= longest for line in broken.split("\n")):
            break
    return broken


def wrap(text: str, columns: int) -> str:
    """A sentence in lines of so many columns, for a cell."""
    return "\n".join(textwrap.wrap(harmless.line(text), columns, break_on_hyphens=False))


def heading(parts: Sequence[str]) -> str:
    """Facts that everything below shares, joined by dots; a long line is broken between facts, where they are short enough."""
    kept = [part.replace(" ", _UNBROKEN) if len(part) < NARROWEST // 2 else part for part in parts if part]
    return fill(f"{_UNBROKEN}· ".join(kept)).replace(_UNBROKEN, " ")


# --- tables -----------------------------------------------------------------------------------------------------------


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], sides: Sequence[str], wraps: Sequence[bool] = ()) -> str:
    """Columns of the page's width, headings above them.

    Cells and headings may have several lines. What does not fit is made to fit, in this order: the air around headings goes, headings
    break at blanks, names lose their middle or go on in the next line, and at last the table is taken apart, with the columns repeated
    that tell its rows apart.

    Parameters
    ----------
    sides : ``l`` or ``r`` for each column
    wraps : of each column whether what is too long goes on in the next line
    """
    whole = _Table(list(heads), [list(row) for row in rows], list(sides), list(wraps) or [False] * len(heads))
    return "\n\n".join(map(_draw, _split(whole))) if rows else ""


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]], sides: Sequence[str]) -> str:
    """The same as a table of Markdown, whose width nobody limits."""
    lines = [[harmless.markdown(text) for text in row] for row in (heads, *rows)]
    return _tabulate(lines[0], lines[1:], sides, "github", _AIR)


def _tabulate(heads: Sequence[str], rows: Sequence[Sequence[str]], sides: Sequence[str], form: str, air: int) -> str:
    """Have tabulate draw it; cells are text already, and numbers in them are not to be shaped again."""
    import tabulate  # where it is used: --help has no table

    before, aligned = tabulate.MIN_PADDING, ["left" if side == "l" else "right" for side in sides]
    tabulate.MIN_PADDING = air  # the library takes the air around headings from its own module only
    try:
        return tabulate.tabulate(rows, heads, form, colalign=aligned, headersalign=aligned, disable_numparse=True)
    finally:
        tabulate.MIN_PADDING = before


def least_width(heads: Sequence[str], rows: Sequence[Sequence[str]], sides: Sequence[str]) -> int:
    """Columns that a table takes at least before it is taken apart."""
    table = _break_heads(_Table(list(heads), [list(row) for row in rows], list(sides), [False] * len(heads)))
    widths = _widths(table.heads, table.rows, air=0)
    return _total([min(each, _SHORTEST) if side == "l" else each for each, side in zip(widths, sides, strict=True)])


@dataclass(frozen=True, slots=True)
class _Table:
    """Headings, rows, sides and whether it wraps: one of each a column."""

    heads: list[str]
    rows: list[list[str]]
    sides: list[str]
    wraps: list[bool]

    def pick(self, columns: Sequence[int]) -> _Table:
        heads, sides, wraps = ([values[i] for i in columns] for values in (self.heads, self.sides, self.wraps))
        return _Table(heads, [[row[i] for i in columns] for row in self.rows], sides, wraps)  # type: ignore[arg-type]

    def width(self) -> int:
        return _total(_widths(self.heads, self.rows, air=0))


def _split(table: _Table) -> list[_Table]:
    """The table as few tables that fit: its columns shortened, or dealt out with those in each that tell the rows apart."""
    whole = _fit(table)
    if whole.width() <= width() or len(table.heads) < 3:
        return [whole]
    keys = _find_keys(table)
    parts, kept = [], keys
    for column in range(len(keys), len(table.heads)):
        if len(kept) > len(keys) and _fit(table.pick([*kept, column])).width() > width():
            parts.append(kept)
            kept = keys
        kept = [*kept, column]
    return [_fit(table.pick(part)) for part in (*parts, kept)]


def _find_keys(table: _Table) -> list[int]:
    """The columns that stand in each part: as many of the first as no two rows share, up to a name; else the first alone."""
    for n in range(2, min(_MOST_KEYS, len(table.heads) - 2) + 1):
        if len({row[0] for row in table.rows}) == len(table.rows):
            break
        has_all = len({tuple(row[:n]) for row in table.rows}) == len(table.rows)
        if has_all and table.sides[n - 1] == "l" and _fit(table.pick(range(n))).width() <= width() // 2:
            return [*range(n)]
    return [0]


def _break_heads(table: _Table) -> _Table:
    bodies = _widths([""] * len(table.heads), table.rows, air=0)
    heads = [
        "\n".join(textwrap.wrap(harmless.line(head), max(bodies[i], 1), break_long_words=False))
        if "\n" not in head
        else head
        for i, head in enumerate(table.heads)
    ]
    return dataclasses.replace(table, heads=heads)


def _fit(table: _Table) -> _Table:
    """Break headings, and wrap or shorten names, until the table fits or nothing more can be done."""
    if table.width() <= width():
        return table
    table = _break_heads(table)
    widths = _widths(table.heads, table.rows, air=0)
    for shortest in (_SHORTEST, _SHORTEST // 2):
        while _total(widths) > width():
            names = [i for i, side in enumerate(table.sides) if side == "l" and widths[i] > shortest]
            if not names:
                break
            widths[max(names, key=lambda i: widths[i])] -= 1

    def shorten(texts: Sequence[str], wrapping: bool) -> list[str]:
        return [
            text if side != "l" else wrap(text, columns) if wraps and wrapping else _cut_cell(text, columns)
            for text, side, columns, wraps in zip(texts, table.sides, widths, table.wraps, strict=True)
        ]

    return dataclasses.replace(
        table, heads=shorten(table.heads, False), rows=[shorten(row, True) for row in table.rows]
    )


def _cut_cell(text: str, columns: int) -> str:
    return "\n".join(cut_middle(line, columns) for line in text.split("\n"))


def _widths(heads: Sequence[str], rows: Sequence[Sequence[str]], *, air: int) -> list[int]:
    return [max(_width_of(head) + air, *(_width_of(row[index]) for row in rows)) for index, head in enumerate(heads)]


# A table of many rows says most of it again and again, and each cell is measured several times.
@functools.lru_cache(4096)
def _width_of(cell: str) -> int:
    return max(columns_of(harmless.line(line)) for line in cell.split("\n"))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _draw(table: _Table) -> str:
    air = _AIR if _total(_widths(table.heads, table.rows, air=_AIR)) <= width() else 0
    height = max(head.count("\n") for head in table.heads)
    heads = ["\n" * (height - head.count("\n")) + _harmless(head) for head in table.heads]
    drawn = _tabulate(heads, [list(map(_harmless, row)) for row in table.rows], table.sides, "simple", air)
    # Only a file that lies about its sizes has a number that is too wide by itself.
    return "\n".join(cut(line.rstrip(), width()) for line in drawn.replace(_BLANK, " ").split("\n"))


def _harmless(cell: str) -> str:
    """The lines of a cell, which keep their indent."""
    indent = len(cell) - len(cell.lstrip(" "))
    return _BLANK * indent + "\n".join(harmless.line(line) for line in cell[indent:].split("\n"))
