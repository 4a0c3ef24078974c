"""The table of machines and models: published figures and measured ones side by side, sorted and marked."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.records.statistics import median
from harness.speed.published import ARTICLE_MODELS, CAUTIONS, FIGURE_CAUTIONS, PublishedMachine
from harness.speed.rates import Measured, speaks_for
from harness.untrusted import harmless
from harness.views import page


@dataclass(frozen=True, slots=True)
class Cell:
    """One rate. quantization is None where it is not known; time_utc is None for a published one, which has no interval either."""

    rate_tok_per_s: float
    quantization: str | None
    is_synthetic: bool = False
    low_tok_per_s: float | None = None
    high_tok_per_s: float | None = None
    test: str | None = None
    time_utc: str | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One machine: published, or measured here."""

    machine: str
    kind: str
    is_published: bool
    cells: Mapping[str, Cell] = field(default_factory=dict)


def published_rows(machines: Sequence[PublishedMachine], quantizations: Mapping[str, str]) -> list[Row]:
    """The article's rows, in its order; quantizations says what each bare name stood for."""
    rows = []
    for machine in machines:
        cells = {}
        for model, rate in machine.rates_tok_per_s.items():
            if rate is not None:
                caution = FIGURE_CAUTIONS.get((machine.name, model))
                cells[model] = Cell(rate, quantizations.get(model), remarks=(caution,) if caution else ())
        rows.append(Row(machine.name, machine.kind, True, cells))
    return rows


def measured_rows(measured: Sequence[Measured], test_kind: str) -> list[Row]:
    """A row for each machine (each set of devices) in the records; its cell is the record that speaks for it (`speaks_for`).

    Where there is none, the latest with an empty cache and other settings, which a remark says. test_kind is tg or pp.
    """
    groups: dict[tuple[str, str], dict[str, list[Measured]]] = {}
    for item in measured:
        if item.test_kind == test_kind and item.record.asked.n_depth == 0:
            groups.setdefault((item.machine_label, item.kind), {}).setdefault(item.model, []).append(item)
    rows = []
    for (label, kind), models in groups.items():
        cells = {model: _cell(found) for model, items in models.items() if (found := speaks_for(items)) is not None}
        rows.append(Row(label, kind, False, cells))
    return rows


def _cell(item: Measured) -> Cell:
    remarks = [caution.text for caution in item.summary.cautions if caution.code != "few-samples"]
    if not item.is_default:
        remarks.append("not with default settings")
    return Cell(
        rate_tok_per_s=item.summary.rate_tok_per_s,
        quantization=item.quantization,
        is_synthetic=item.is_synthetic,
        low_tok_per_s=item.summary.rate_low,
        high_tok_per_s=item.summary.rate_high,
        test=item.record.asked.test,
        time_utc=item.record.time_utc,
        remarks=tuple(remarks),
    )


def sort_rows(rows: Sequence[Row], by: str = "speed") -> list[Row]:
    """Sort: ``speed`` (fastest first: a machine's mean distance from each model's median, in the logarithm), ``given`` or a model's
    name."""
    if by == "given":
        return list(rows)
    if by != "speed":
        return sorted(rows, key=lambda row: -row.cells[by].rate_tok_per_s if by in row.cells else 0.0)
    from math import log

    rates: dict[str, list[float]] = {}
    for row in rows:
        for model, cell in row.cells.items():
            rates.setdefault(model, []).append(cell.rate_tok_per_s)
    middle = {model: median(values) for model, values in rates.items()}

    def score(row: Row) -> float:
        shared = [(model, cell) for model, cell in row.cells.items() if len(rates[model]) > 1]
        logs = [log(cell.rate_tok_per_s / middle[model]) for model, cell in shared]
        return -sum(logs) / len(logs) if logs else float("-inf")  # nothing to compare it by: it comes first

    return sorted(rows, key=score)


def list_models(rows: Sequence[Row]) -> list[str]:
    """The article's models first, then whatever else was measured; only those with a figure."""
    found = dict.fromkeys(model for row in rows for model in row.cells)
    return [model for model in ARTICLE_MODELS if model in found] + [m for m in found if m not in ARTICLE_MODELS]


def _without_one(models: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Leave out the last model that is not all that some row has."""
    for model in reversed(models):
        rest = [other for other in models if other != model]
        if all(any(other in row.cells for other in rest) for row in rows if model in row.cells):
            return rest
    return list(models[:-1])


def render_machines(rows: Sequence[Row], test_kind: str) -> str:
    """A plain table of 80 columns; what does not fit is said and is in the other formats."""
    models = list_models(rows)
    shown = list(models)
    while True:
        notes = _Notes()
        text = _table(rows, shown, notes, "simple")
        if max(map(len, text.splitlines())) <= page.width() or len(shown) <= 1:
            break
        shown = _without_one(shown, rows)
    left_out = [model for model in models if model not in shown]
    remarks = _remarks(rows, test_kind)
    if left_out:
        remarks.append(f"left out for width: {', '.join(left_out)} (-o csv and -o json have them)")
    lines = [text, "", *(page.fill(note) for note in (*notes.lines(), *remarks))]
    return "\n".join(lines) + "\n"


def render_machines_md(rows: Sequence[Row], test_kind: str) -> str:
    notes = _Notes()
    text = _table(rows, list_models(rows), notes, "github")
    told = [f"- {harmless.markdown(note)}" for note in (*notes.lines(), *_remarks(rows, test_kind))]
    return "\n".join([text, "", *told]) + "\n"


class _Notes:
    """Numbers remarks in the order in which they appear."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, texts: Sequence[str]) -> str:
        return "".join(f"[{self._numbers.setdefault(text, len(self._numbers) + 1)}]" for text in dict.fromkeys(texts))

    def lines(self) -> list[str]:
        return [f"[{number}] {text}" for text, number in self._numbers.items()]


def _table(rows: Sequence[Row], models: Sequence[str], notes: _Notes, style: str) -> str:
    table = []
    for row in rows:
        caution = CAUTIONS.get(row.machine) if row.is_published else None
        name = page.cut(row.machine, 24) if style == "simple" else row.machine
        name = (name if row.is_published else f"» {name}") + (" " + notes.mark([caution]) if caution else "")
        cells = [_show_cell(row.cells.get(model), notes) for model in models]
        table.append([name, *cells])
    heads = ["machine", *models]
    if style == "simple":
        return _align(
            [["", *(_head(model)[0] for model in models)], ["machine", *(_head(m)[1] for m in models)]], table
        )
    return page.table([dict(zip(heads, row, strict=True)) for row in table], "lr", style=style)


def _head(model: str) -> tuple[str, str]:
    """A model's name in two short lines."""
    family, _, size = model.partition(":")
    return (page.cut(family, 12), page.cut(size, 12)) if size else ("", page.cut(family, 12))


def _align(heads: Sequence[Sequence[str]], rows: Sequence[Sequence[str]]) -> str:
    """Columns two spaces apart, the first to the left, under headings of two lines, so that six models fit 80 columns."""
    widths = [max(len(line[i]) for line in (*heads, *rows)) for i in range(len(heads[0]))]

    def lay(line: Sequence[str]) -> str:
        cells = [
            line[0].ljust(widths[0]),
            *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)),
        ]
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([*map(lay, heads), rule, *map(lay, rows)])


def _show_cell(cell: Cell | None, notes: _Notes) -> str:
    if cell is None:
        return "—"
    rate = cell.rate_tok_per_s
    # A published figure keeps the digits that it has.
    text = f"{rate:g}" if cell.time_utc is None else f"{rate:.{2 if rate < 2 else 1}f}"
    return text + ("*" if cell.is_synthetic else "") + notes.mark(cell.remarks)


def _remarks(rows: Sequence[Row], test_kind: str) -> list[str]:
    """What the figures are: what was generated, in which quantization, what is marked."""
    remarks = []
    quantizations: dict[bool, dict[str, dict[str, None]]] = {True: {}, False: {}}
    for model in list_models(rows):
        for row in rows:
            if cell := row.cells.get(model):
                quantizations[row.is_published].setdefault(model, {})[cell.quantization or "?"] = None
    what = "generated" if test_kind == "tg" else "prompt"
    if quantizations[True]:
        remarks.append(
            f"{what} tokens a second; published figures: an article of autumn 2024, with Ollama's default files "
            f"({_spell(quantizations[True])})"
        )
    if quantizations[False]:
        tests = dict.fromkeys(c.test for row in rows if not row.is_published for c in row.cells.values() if c.test)
        remarks.append(f"» measured by harness: {', '.join(tests)}; {_spell(quantizations[False])}")
    if any(cell.is_synthetic for row in rows for cell in row.cells.values()):
        remarks.append("* random weights in this model's shape (synthetic)")
    return remarks


def _spell(found: Mapping[str, Mapping[str, None]]) -> str:
    return ", ".join(f"{model} {'/'.join(kinds)}" for model, kinds in found.items())


def render_machines_csv(rows: Sequence[Row], test_kind: str) -> str:
    """One line a figure."""
    text = io.StringIO()
    names = ("machine", "kind", "is_published", "model", "test_kind", *Cell.__dataclass_fields__)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        for model, cell in row.cells.items():
            values = [row.machine, row.kind, row.is_published, model, test_kind]
            values += {**asdict(cell), "remarks": "; ".join(cell.remarks)}.values()
            writer.writerow(map(_csv_value, values))
    return text.getvalue()


def _csv_value(value: Any) -> Any:
    if isinstance(value, str):
        return harmless.csv_cell(value)
    return int(value) if isinstance(value, bool) else value


def render_machines_json(rows: Sequence[Row], test_kind: str) -> str:
    values = [
        {**asdict(row), "test_kind": test_kind, "caution": CAUTIONS.get(row.machine) if row.is_published else None}
        for row in rows
    ]
    return harmless.json_text(values) + "\n"


FORMATS = {
    "table": render_machines,
    "md": render_machines_md,
    "csv": render_machines_csv,
    "json": render_machines_json,
}
