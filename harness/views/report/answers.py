"""Sections that answer from more than the records: the roof, published machines, predictions."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records.cells import machine_key
from harness.records.roofline import ARITHMETIC, READING, Roof, RoofTest
from harness.speed.published import CAUTIONS
from harness.units import format_rate
from harness.views.figures.speed import draw_machines
from harness.views.machines import Row, list_models, measured_rows, published_rows, sort_rows
from harness.views.predict import list_doubts, prediction_blocks
from harness.views.report.material import Material
from harness.views.report.parts import Cell, Chart, Footnotes, Part, Prose, Table, text_cell
from harness.views.roofline import TOO_MUCH, UnderRoof, draw_roofline, hold_against

_ABOVE = "above the roof: the roof was measured too low (a busy machine?), or the model fits into a cache"


def show_roofline(material: Material) -> Sequence[Part]:
    """What each machine reads and calculates at best, and the records under it; the latest measurement of each machine."""
    latest = {machine_key(roof.machine): roof for roof in material.contents(Roof)}
    if not latest:
        return []
    parts: list[Part] = [
        Prose(
            [
                "Generating a token reads every weight once, so reading limits it; a prompt shares the reading among its tokens, so "
                "arithmetic limits it. Both were measured by ggml itself, with large matrices."
            ]
        )
    ]
    for roof in latest.values():
        parts += _show_roof(roof, hold_against(material.measured, roof))
    return parts


def _show_roof(roof: Roof, under: Sequence[UnderRoof]) -> list[Part]:
    footnotes = Footnotes()
    remarks = footnotes.mark([caution.text for caution in roof.warnings])
    headers = ("device", "work", "type", "threads", "at best", "95 % interval")
    parts: list[Part] = [
        Chart(
            lambda theme: draw_roofline(roof, under, theme),
            f"Roofline of {roof.machine.cpu}; the tables have its figures",
        ),
        Table(headers, _roof_rows(roof, remarks), footnotes.texts()),
    ]
    above = Footnotes()
    rows: list[list[Cell | str]] = [
        [
            f"{item.model} {item.quantization}{' (synthetic)' if item.is_synthetic else ''}",
            ", ".join((item.test, *item.settings)),
            text_cell(format_rate(item.rate_tok_per_s), item.rate_tok_per_s),
            text_cell(format_rate(item.roof_tok_per_s), item.roof_tok_per_s),
            text_cell(f"{item.share:.0%}" + above.mark([_ABOVE] if item.share > TOO_MUCH else []), item.share),
        ]
        for item in under
    ]
    if rows:
        parts.append(Table(("model", "test", "t/s", "roof t/s", "of the roof"), rows, above.texts()))
    return parts


def _roof_rows(roof: Roof, remarks: str) -> list[list[Cell | str]]:
    rows: list[list[Cell | str]] = []
    for device in roof.devices():
        for work, name in ((READING, "reading"), (ARITHMETIC, "multiplying")):
            best = roof.best(work, device)
            if best is not None:
                threads: Cell | str = text_cell(str(best.n_threads), best.n_threads) if best.n_threads else "—"
                rate = text_cell(_amount(best, best.rate_per_s) + remarks, best.rate_per_s)
                interval = best.interval
                between = f"{_amount(best, interval.low)} – {_amount(best, interval.high)}" if interval else "—"
                rows.append([device, name, best.type_name, threads, rate, between])
    return rows


def _amount(test: RoofTest, per_s: float) -> str:
    return f"{per_s / 1e9:.1f} {'GFLOP/s' if test.work == ARITHMETIC else 'GB/s'}"


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
