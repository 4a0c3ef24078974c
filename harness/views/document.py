"""What an answer consists of before anybody decides how it looks: a Document, made once for each kind of record.

A view turns records into a Document; `formats` renders any Document as text, Markdown, HTML, JSON, CSV. Cells hold a value and its
unit, never written text, so that each renderer writes what its readers want, and the same thing has the same name everywhere.

    Document("speeds", 1, "llama3.2:1b", [
        Section("", [
            KeyFigures([Figure("load", "loaded in", load_ns, DURATION)], in_line=True),
            Table("tests", [
                Column("test"),
                Column("rate", "t/s", RATE, interval=INTERVAL),       # JSON: rate_tok_per_s, rate_low_tok_per_s, rate_high_…
                Column("n_threads", "threads", shared="{} threads"),  # goes into the line above where all rows agree
            ], [
                ["pp512", Cell(338.4, interval=(335.1, 339.0)), 2],
                ["tg128", Cell(None, instead="failed", notes=("decode: out of memory",)), 2],
            ]),
            Picture(lambda theme: draw_speeds(tests, theme), "Speeds; the table has the figures"),
        ]),
    ], warnings=["The machine was busy."])
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from harness.views.values import Unit, Value, full_name

BlockKind = TypeVar("BlockKind")


@dataclass(frozen=True, slots=True)
class Cell:
    """One value of a table or a key figure.

    value          : in its base unit; None where there is none
    unit           : None: the column's
    interval       : both ends, in the same unit
    notes          : footnotes; the same text has the same number
    instead        : a word that stands where there is no value, such as ``failed``
    mark           : stands behind the value and is explained by a note of the table, such as ``*``
    is_approximate : the value is an estimate, shown with ``~``
    """

    value: Value = None
    unit: Unit | None = None
    interval: tuple[float, float] | None = None
    notes: Sequence[str] = ()
    instead: str = ""
    mark: str = ""
    is_approximate: bool = False


#: The cells of a row.
Line = Sequence[Cell | Value]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: what its values are.

    name       : in JSON and CSV, without the unit, which is added (``rate`` in `RATE` becomes ``rate_tok_per_s``)
    title      : its heading for people, which says the unit's sign where cells hold bare numbers; empty: the name in words
    align      : ``l`` or ``r``; empty: numbers to the right
    interval   : heading of a column of its own for the cells' intervals; empty: they stand in brackets behind the values
    shared     : how it reads in the line above the table, ``{} threads``, into which it goes where all rows agree; empty: it stays
    is_shown   : False: for programs only
    wraps      : what is too long goes on in the next line; otherwise it loses its middle
    is_merged  : written once for rows one below the other that agree in all such columns
    left_out   : how early it is left out where the page is too narrow for all; 0: never
    of         : what it shows of an object (`Table.of`); None: the object's attribute of the name in JSON
    """

    name: str
    title: str = ""
    unit: Unit | None = None
    align: str = ""
    interval: str = ""
    shared: str = ""
    is_shown: bool = True
    wraps: bool = False
    is_merged: bool = False
    left_out: int = 0
    of: Callable[[Any], Any] | None = None

    def find(self, item: Any) -> Cell | Value:
        """What it shows of an object."""
        found: Cell | Value = self.of(item) if self.of else getattr(item, full_name(self.name, self.unit))
        return found


def for_programs(*names: str, unit: Unit | None = None) -> list[Column]:
    """Columns that are not shown, of the attributes of these names in JSON."""
    return [Column(name, unit=unit, is_shown=False) for name in names]


@dataclass(frozen=True, slots=True)
class Row:
    """A row that is not like the others: a total of those above, which lists for programs do not have, or a part (depth 1, 2, …) of the
    one above it."""

    cells: Line
    is_total: bool = False
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one kind; plain values are cells without notes. Columns that are empty throughout are shown to programs only.

    name    : in JSON: a list of rows; tables of the same name are one list
    notes   : sentences under it: how to read it, what its marks mean
    missing : stands where a cell has no value
    is_for_people : programs get another table of the same values
    """

    name: str
    columns: Sequence[Column]
    rows: Sequence[Row | Line]
    notes: Sequence[str] = ()
    missing: str = "—"
    is_for_people: bool = False

    @classmethod
    def of(
        cls, name: str, items: Iterable[Any], columns: Sequence[Column], notes: Sequence[str] = (), missing: str = "—",
        totals: Sequence[Row] = (),
    ) -> Table:  # fmt: skip
        """A table with a row for each item, of what each column shows of it, and totals below."""
        return cls(
            name, columns, [*([column.find(item) for column in columns] for item in items), *totals], notes, missing
        )

    def lines(self) -> list[tuple[Row, list[Cell]]]:
        """Each row with its cells.

        Raises
        ------
        ValueError : a row has more or fewer cells than there are columns.
        """
        rows = [row if isinstance(row, Row) else Row(row) for row in self.rows]
        lines = [(row, [cell if isinstance(cell, Cell) else Cell(cell) for cell in row.cells]) for row in rows]
        if any(len(cells) != len(self.columns) for _, cells in lines):
            raise ValueError(f"a row of table {self.name} has not as many cells as there are columns")
        return lines


class RowsWhenAsked(Sequence[Row | Line]):
    """Rows that are made when somebody looks at them: those for programs, of a document that is shown to people."""

    def __init__(self, make: Callable[[], Sequence[Row | Line]]) -> None:
        self._make = functools.cache(make)

    def __len__(self) -> int:
        return len(self._make())

    def __getitem__(self, place: Any) -> Any:
        return self._make()[place]


@dataclass(frozen=True, slots=True)
class Figure:
    """A named value. phrase is how it reads in a line with others, ``{} layers``; empty: title and value."""

    name: str
    title: str
    value: Cell | Value
    unit: Unit | None = None
    phrase: str = ""
    is_shown: bool = True

    @property
    def cell(self) -> Cell:
        """The value with its unit."""
        cell = self.value if isinstance(self.value, Cell) else Cell(self.value)
        return cell if cell.unit else dataclasses.replace(cell, unit=self.unit)


@dataclass(frozen=True, slots=True)
class KeyFigures:
    """Names and values: one below the other, or in one line with dots between. What has no value is shown to programs only.

    name : in JSON an object of its own; empty: beside the document's other names
    """

    figures: Sequence[Figure]
    in_line: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Prose:
    """Sentences for people, a paragraph each, or points of a list."""

    paragraphs: Sequence[str]
    is_list: bool = False


@dataclass(frozen=True, slots=True)
class Code:
    """Lines to be copied, such as commands: shown as they are, never wrapped."""

    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: `draw` makes the figure in a theme of `figures.style`; alt says what it shows, caption how to read it.

    name tells it from the document's other pictures, in their files' names.
    """

    draw: Callable[[str], Any]
    alt: str
    caption: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its name, its value in the base unit, and both ends of its interval where there is one."""

    label: str
    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Bars:
    """A picture of bars, which a page draws in its own width: values in a unit, the first on top."""

    title: str
    unit: Unit
    bars: Sequence[Bar]
    caption: str = ""
    name: str = ""


Block = Table | KeyFigures | Prose | Code | Picture | Bars


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks under a heading, which may be empty."""

    heading: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Document:
    """One answer.

    kind, schema : what it is, for programs; schema changes when names do
    warnings     : sentences about what makes it doubtful, or what to do about it
    data         : what programs get besides, by name: plain values, or dataclasses of them
    main         : name of the table that CSV and JSON lines are made of; empty: the first
    """

    kind: str
    schema: int
    title: str
    sections: Sequence[Section]
    warnings: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    main: str = ""

    def blocks(self, kind: type[BlockKind]) -> Iterator[BlockKind]:
        """The blocks of a class, in their order."""
        return (block for section in self.sections for block in section.blocks if isinstance(block, kind))

    def main_tables(self) -> list[Table]:
        """The tables of the main name: one, or several that are one list for programs."""
        tables = list(self.blocks(Table))
        name = self.main or (tables[0].name if tables else "")
        return [table for table in tables if table.name == name]


class Footnotes:
    """Numbers notes in the order in which they appear, but for some; the same note keeps its number."""

    def __init__(self, but: Sequence[str] = ()) -> None:
        self._numbers: dict[str, int] = {}
        self._but = but

    def mark(self, texts: Sequence[str]) -> str:
        """What stands behind a value with these notes: `` [1,3]``."""
        marked = [text for text in texts if text not in self._but]
        numbers = sorted({self._numbers.setdefault(text, len(self._numbers) + 1) for text in marked})
        return f" [{','.join(map(str, numbers))}]" if numbers else ""

    def texts(self) -> list[str]:
        return list(self._numbers)
