"""A table as the renderers for people draw it: headings, written cells, what goes above it and below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.views.document import Cell, Column, Footnotes, KeyFigures, Row, Table
from harness.views.values import format_interval, format_value


@dataclass(frozen=True, slots=True)
class Written:
    """A cell as text, and the number that it is sorted by (None: by its text)."""

    text: str
    key: float | None = None


@dataclass(frozen=True, slots=True)
class Grid:
    """heads, sides (``l`` or ``r``) and columns belong together; an interval's column has the same `Column` as its values'."""

    heads: Sequence[str]
    sides: Sequence[str]
    columns: Sequence[Column]
    rows: Sequence[tuple[Row, Sequence[Written]]]
    shared: Sequence[str]
    notes: Sequence[str]
    footnotes: Sequence[str]

    def texts(self) -> list[list[str]]:
        return [[cell.text for cell in cells] for _, cells in self.rows]


def write_table(table: Table, *, share: bool, without: Sequence[Column] = ()) -> Grid:
    """Write a table's cells.

    Parameters
    ----------
    share   : take columns whose rows all agree out, for the line above, where the column allows it
    without : columns that are left out
    """
    if not any(column.is_shown for column in table.columns):  # for programs alone, perhaps with a hundred thousand rows
        return Grid([], [], [], [], [], table.notes, [])
    lines = table.lines()
    columns = [
        (column, [cells[at] for _, cells in lines]) for at, column in enumerate(table.columns) if column.is_shown
    ]
    columns = [(column, cells) for column, cells in columns if column not in without and not _is_empty(cells)]
    shared = [(column, cells[0]) for column, cells in columns if share and column.shared and _agree(column, cells)]
    taken = [column for column, _ in shared]
    columns = [(column, cells) for column, cells in columns if column not in taken]
    common = _find_common([[cells[at] for _, cells in columns] for at in range(len(lines))])
    notes = Footnotes(common)
    for at in range(len(lines)):  # numbered as they are read, row by row
        for _, cells in columns:
            notes.mark(cells[at].notes)
    repeated = _find_repeated(columns, len(lines))
    written = [
        (column, head, side, values)
        for column, cells in columns
        for head, side, values in _write_column(column, cells, table.missing, notes, repeated)
    ]
    return Grid(
        heads=[head for _, head, _, _ in written],
        sides=[side for _, _, side, _ in written],
        columns=[column for column, _, _, _ in written],
        rows=[(row, [values[at] for _, _, _, values in written]) for at, (row, _) in enumerate(lines)],
        shared=[write_phrase(column.shared, write_cell(cell, column, table.missing)) for column, cell in shared],
        notes=[*table.notes, *common],
        footnotes=notes.texts(),
    )


def _find_common(rows: Sequence[Sequence[Cell]]) -> list[str]:
    """Notes that every row of many has: said once below, they need no number."""
    each = [dict.fromkeys(note for cell in row for note in cell.notes) for row in rows]
    return [note for note in each[0] if all(note in notes for notes in each)] if len(each) > 3 else []


def _is_empty(cells: Sequence[Cell]) -> bool:
    return all(cell.value is None and not cell.instead for cell in cells)


def _agree(column: Column, cells: Sequence[Cell]) -> bool:
    return len({write_cell(cell, column, "") for cell in cells}) == 1 and not any(cell.notes for cell in cells)


def _find_repeated(columns: Sequence[tuple[Column, Sequence[Cell]]], n_rows: int) -> list[bool]:
    """Of each row, whether its merged columns say what those of the row above say."""
    merged = [cells for column, cells in columns if column.is_merged]
    return [at > 0 and all(cells[at].value == cells[at - 1].value for cells in merged) for at in range(n_rows)]


def _write_column(
    column: Column, cells: Sequence[Cell], missing: str, notes: Footnotes, repeated: Sequence[bool]
) -> list[tuple[str, str, list[Written]]]:
    """A column's heading, side and cells, and those of its intervals where they have a column."""
    side = column.align[:1] or ("l" if all(isinstance(c.value, str | None) for c in cells) and not column.unit else "r")
    values = [
        Written(
            "" if column.is_merged and is_repeated else write_cell(cell, column, missing) + notes.mark(cell.notes),
            _key(cell),
        )
        for cell, is_repeated in zip(cells, repeated, strict=True)
    ]
    found = [(title_of(column), side, values)]
    if column.interval and any(cell.interval for cell in cells):
        found.append((column.interval, "r", [_write_interval(cell, column, missing) for cell in cells]))
    return found


def title_of(column: Column) -> str:
    """A column's heading."""
    return column.title or column.name.replace("_", " ")


def write_cell(cell: Cell, column: Column | None, missing: str) -> str:
    """A cell without its notes. Its unit's sign is left to the heading where the column has the same unit."""
    unit = cell.unit or (column.unit if column else None)
    with_sign = column is None or unit is not column.unit
    if cell.value is None:
        return cell.instead or missing
    text = ("~" if cell.is_approximate else "") + format_value(cell.value, unit, with_sign=with_sign)
    if cell.interval and not (column and column.interval):
        text += f" [{format_interval(*cell.interval, unit, with_sign=with_sign)}]"
    return text + cell.mark


def _write_interval(cell: Cell, column: Column, missing: str) -> Written:
    if cell.interval is None:
        return Written("" if cell.value is None else missing)
    unit = cell.unit or column.unit
    return Written(format_interval(*cell.interval, unit, with_sign=unit is not column.unit), cell.interval[0])


def _key(cell: Cell) -> float | None:
    return float(cell.value) if isinstance(cell.value, int | float) else None


def write_phrase(phrase: str, text: str) -> str:
    """A figure in its phrase; of one thing as of one (``{} threads``: 1 thread)."""
    said = phrase.format(text)
    return said.removesuffix("s") if text == "1" and "{} " in phrase else said


def write_figures(block: KeyFigures) -> tuple[list[tuple[str, str]], list[str]]:
    """Title and value of each figure that has one, in a line no title and how it reads there; and the footnotes."""
    notes = Footnotes()
    found = []
    for figure in block.figures:
        text = write_cell(figure.cell, None, "") + notes.mark(figure.cell.notes) if figure.is_shown else ""
        if text and block.in_line:
            found.append(("", write_phrase(figure.phrase, text) if figure.phrase else f"{figure.title} {text}".strip()))
        elif text:
            found.append((figure.title, text))
    return found, notes.texts()
