"""The section that holds records against the roof."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records.cells import machine_key
from harness.records.roofline import ARITHMETIC, READING, Roof, RoofTest
from harness.units import format_rate
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
