"""Sections that answer from more than the records: the roof, published machines, predictions."""

from __future__ import annotations

from collections.abc import Sequence

from harness.speed.published import CAUTIONS
from harness.units import format_rate
from harness.views.figures.speed import draw_machines
from harness.views.machines import Row, list_models, measured_rows, published_rows, sort_rows
from harness.views.predict import list_doubts, prediction_blocks
from harness.views.report.material import Material
from harness.views.report.parts import Cell, Chart, Footnotes, Part, Prose, Table, text_cell


def show_published(material: Material) -> Sequence[Part]:
    """Measured generation among the published machines, fastest first."""
    own = measured_rows(material.measured, "tg")
    if not own or not material.published:
        return []
    rows = sort_rows([*published_rows(material.published, material.ollama_2024), *own])
    models = list_models(rows)
    footnotes = Footnotes()
    table = Table(("machine", *models), [_published_row(row, models, footnotes) for row in rows], footnotes.texts())
    means = (
        "Generated tokens a second. » marks what was measured by harness; the other rows are an article of autumn 2024, with Ollama's "
        "default files of that time and nothing said of their spread."
    )
    alt = "Generated tokens a second by machine and model; the table below has the figures"
    return [Prose([means]), Chart(lambda theme: draw_machines(rows, "tg", theme), alt), table]


def _published_row(row: Row, models: Sequence[str], footnotes: Footnotes) -> list[Cell | str]:
    caution = CAUTIONS.get(row.machine) if row.is_published else None
    cells: list[Cell | str] = [
        (row.machine if row.is_published else f"» {row.machine}") + footnotes.mark([caution] if caution else [])
    ]
    for model in models:
        cell = row.cells.get(model)
        if cell is None:
            cells.append("—")
            continue
        mark = "*" if cell.is_synthetic else ""
        remarks = [*cell.remarks, *(["synthetic: random weights in this model's shape"] if cell.is_synthetic else [])]
        cells.append(text_cell(format_rate(cell.rate_tok_per_s) + mark + footnotes.mark(remarks), cell.rate_tok_per_s))
    return cells


def show_predictions(material: Material) -> Sequence[Part]:
    """What the article's models would do on the machine that made the page."""
    if not material.answers:
        return []
    means = "Predicted for the machine that made this page, by harness predict. Nothing here was measured."
    doubts = dict.fromkeys(doubt for answer in material.answers for doubt in list_doubts(answer))
    return [
        Prose([means]),
        *prediction_blocks(material.answers, is_one_model=False),
        *([Prose(list(doubts), is_list=True)] if doubts else []),
    ]
