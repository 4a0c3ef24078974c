"""The table of machines and models: published figures and measured ones side by side, sorted and marked."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from harness.speed.standings import MachineRow, Standing, list_models, order_least
from harness.views.document import Cell, Column, Document, Line, Picture, Section, Table, for_programs
from harness.views.figures.speed import draw_machines
from harness.views.values import BESIDE_GIVEN_RATE, GIVEN_RATE, RATE

#: So many files are named in a note.
_NAMED = 4


def describe_machines(rows: Sequence[MachineRow], test_kind: str) -> Document:
    """A row a machine for people, a row a figure for programs. test_kind is tg or pp."""
    models = list_models(rows)
    places = {model: place for place, model in enumerate(reversed(order_least(rows)), start=1)}
    columns = [
        Column(model, "\n".join(model.rsplit(":", 1)), GIVEN_RATE, align="r", left_out=places[model])
        for model in models
    ]
    what = f"{'generated' if test_kind == 'tg' else 'prompt'} tokens a second"
    lines = [_line(row, models) for row in rows]
    table = Table("machines", [Column("machine"), *columns], lines, list(_notes(rows, what)), is_for_people=True)
    draw = functools.partial(draw_machines, rows, test_kind)
    picture = Picture(draw, f"{what.capitalize()} by machine and model; the table has the figures")
    return Document("machines", 1, "", [Section("", [table, _figures(rows, test_kind), picture])], main="figures")


def _line(row: MachineRow, models: Sequence[str]) -> Line:
    name = row.machine if row.is_published else f"{'›' if row.shared_in else '»'} {row.machine}"
    return [Cell(name, notes=(row.caution,) if row.caution else ()), *(_cell(row.cells.get(model)) for model in models)]


def _cell(found: Standing | None) -> Cell:
    if found is None:
        return Cell()
    unit = None if found.time_utc is None else BESIDE_GIVEN_RATE
    return Cell(found.rate_tok_per_s, unit, notes=found.remarks, mark="*" if found.is_synthetic else "")


def _figures(rows: Sequence[MachineRow], test_kind: str) -> Table:
    columns = for_programs(
        "machine",
        "machine_kind",
        "is_published",
        "model",
        "quantization",
        "test_kind",
        "test",
        "is_synthetic",
        "time_utc",
    )
    lines: list[Line] = []
    for row in rows:
        for model, c in row.cells.items():
            rate = Cell(c.rate_tok_per_s, interval=c.interval, notes=[*c.remarks, *filter(None, [row.caution])])
            about = (row.machine, row.kind, row.is_published, model, c.quantization, test_kind, c.test, c.is_synthetic)
            lines.append([*about, c.time_utc, rate, row.shared_in])
    rate_column = Column("rate", unit=RATE, interval="interval", is_shown=False)
    return Table("figures", [*columns, rate_column, *for_programs("shared_in")], lines)


def _notes(rows: Sequence[MachineRow], what: str) -> Iterator[str]:
    """What the figures are: what was generated, in which quantization, what is marked."""
    yield what
    published, shared = [row for row in rows if row.is_published], [row for row in rows if row.shared_in]
    own = [row for row in rows if not row.is_published and not row.shared_in]
    if published:
        yield f"published figures: an article of autumn 2024, with Ollama's default files ({_list_quantizations(published)})"
    if own:
        tests = dict.fromkeys(cell.test for row in own for cell in row.cells.values() if cell.test)
        yield f"» measured by harness: {', '.join(tests)}; {_list_quantizations(own)}"
    if shared:
        files = list(dict.fromkeys(row.shared_in for row in shared if row.shared_in))
        named = (
            f"{', '.join(files[:_NAMED])} and {len(files) - _NAMED} more" if len(files) > _NAMED else ", ".join(files)
        )
        yield f"› shared by others, unchecked: {named}; {_list_quantizations(shared)}"
    if any(cell.is_synthetic for row in rows for cell in row.cells.values()):
        yield "* random weights in this model's shape (synthetic)"


def _list_quantizations(rows: Sequence[MachineRow]) -> str:
    found = {
        model: dict.fromkeys(row.cells[model].quantization or "?" for row in rows if model in row.cells)
        for model in list_models(rows)
    }
    # Where a model has several columns, each but one has its quantization in its name already.
    return ", ".join(
        " ".join((model.removesuffix(f" {'/'.join(kinds)}"), "/".join(kinds))) for model, kinds in found.items()
    )
