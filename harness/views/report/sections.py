"""Sections of cells, texts and comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.records.cells import Record, record_key
from harness.records.statistics import Digest, Summary, speaking
from harness.spec import find_varied
from harness.units import format_mib, format_rate
from harness.views.document import Bar, Bars
from harness.views.figures.style import PALETTE, new_figure
from harness.views.report.frame import layers_that_ran
from harness.views.report.material import Material
from harness.views.report.parts import Cell, Chart, Footnotes, Part, Table, text_cell
from harness.views.settings import format_settings
from harness.views.values import RATE

#: More bars than this in one picture cannot be read; the table has all of them.
MAX_BARS = 24


# --- speeds -----------------------------------------------------------------------------------------------------------


def show_speeds(material: Material) -> Sequence[Part]:
    """Every measured cell but those of sweeps, which have a section of their own, with its interval."""
    cells = [cell for cell in material.cells if cell.record.command != "sweep"]
    if not cells:
        return []
    footnotes = Footnotes()
    several = len(material.machines) > 1
    settings = _find_settings([cell.record for cell in cells], "n_threads", "n_gpu_layers", "n_depth")
    rows = [_speed_row(material, cell, footnotes, several, settings) for cell in cells]
    headers = ["model", "size", "test", "threads", "layers", "t/s", "95 % interval", "reps", "when"]
    if settings:
        headers.insert(5, "settings")
    table = Table(["machine", *headers] if several else headers, rows, footnotes.texts())
    charts: list[Part] = []
    for kind, title in (("pp", "Prompt processing"), ("tg", "Text generation")):
        pure = [cell for cell in cells if cell.record.asked.kind == kind]
        chosen = _speaking(pure)
        if chosen:
            charts.append(_speed_chart(material, chosen[-MAX_BARS:], title))
    return [*charts, table]


def _find_settings(records: Sequence[Record], *shown: str) -> list[str]:
    """The parameters that tell records apart and have no column of their own."""
    return [name for name in find_varied(record.asked for record in records) if name not in shown]


def _speaking(cells: Sequence[Digest]) -> list[Digest]:
    """One of each cell that was measured again, for a picture: the table has them all."""
    same: dict[Any, list[Digest]] = {}
    for cell in cells:
        same.setdefault(record_key(cell.record), []).append(cell)
    return [best for group in same.values() if (best := speaking(group)) is not None]


def _speed_row(
    material: Material, cell: Digest, footnotes: Footnotes, several: bool, settings: Sequence[str]
) -> list[Cell | str]:
    record, summary = cell.record, cell.summary
    size = record.model.size_bytes if record.model else None
    row: list[Cell | str] = [
        material.model_name(record),
        text_cell(format_mib(size), size) if size else "—",
        record.asked.test,
        text_cell(str(record.asked.n_threads), record.asked.n_threads),
        text_cell(layers_that_ran(record), record.asked.n_gpu_layers),
        text_cell(
            format_rate(summary.rate_tok_per_s) + footnotes.mark([caution.text for caution in summary.cautions]),
            summary.rate_tok_per_s,
        ),
        _interval(summary),
        text_cell(str(summary.n_samples), summary.n_samples),
        _minute(record.time_utc),
    ]
    if settings:
        row.insert(5, format_settings(record.asked, settings))
    return [material.machine_name(record.machine), *row] if several else row


def _speed_chart(material: Material, cells: Sequence[Digest], title: str) -> Part:
    labels = _bar_labels(material, [cell.record for cell in cells])
    bars = [
        Bar(label, cell.summary.rate_tok_per_s, _ends(cell.summary)) for label, cell in zip(labels, cells, strict=True)
    ]
    caption = "The orange line is the 95 % interval of the median." if any(bar.interval for bar in bars) else ""
    return Bars(title, RATE, bars, caption)


def _ends(summary: Summary) -> tuple[float, float] | None:
    return None if summary.rate_low is None or summary.rate_high is None else (summary.rate_low, summary.rate_high)


def _bar_labels(material: Material, records: Sequence[Record]) -> list[str]:
    """What tells each bar from the others: model, test, and what else differs."""
    settings = _find_settings(records, "n_threads", "n_gpu_layers", "n_depth")
    threads_differ = len({record.asked.n_threads for record in records}) > 1
    layers_differ = len({layers_that_ran(record) for record in records}) > 1
    labels = []
    for record in records:
        parts = [_shorten(material.model_name(record), 34), record.asked.test]
        parts += [f"{record.asked.n_threads} threads"] * threads_differ
        parts += [layers_that_ran(record)] * layers_differ
        parts += [format_settings(record.asked, settings)] * bool(settings)
        parts += [_shorten(material.machine_name(record.machine), 24)] * (len(material.machines) > 1)
        labels.append(" · ".join(parts))
    return labels


# --- layers on the GPU ------------------------------------------------------------------------------------------------


def show_layers(material: Material) -> Sequence[Part]:
    """Every placement that a sweep measured, and what else differs in nothing but the layers on the GPU; as one line each."""
    groups: dict[tuple[Any, ...], dict[int, list[Digest]]] = {}
    for cell in material.cells:
        asked, key = cell.record.asked, record_key(cell.record, but=("n_gpu_layers",))
        groups.setdefault(key, {}).setdefault(asked.n_gpu_layers, []).append(cell)
    curves = [
        [best for count in sorted(counts) if (best := speaking(counts[count])) is not None]
        for counts in groups.values()
        if len(counts) > 1 or any(cell.record.command == "sweep" for cells in counts.values() for cell in cells)
    ]
    if not curves:
        return []
    settings = _find_settings([cell.record for curve in curves for cell in curve], "n_gpu_layers", "n_depth")
    several = len(material.machines) > 1
    rows = [_layer_row(material, cell, settings, several) for curve in curves for cell in curve]
    headers = ["model", "test", "-ngl", *["settings"] * bool(settings), "t/s", "95 % interval", "what ran"]
    charts = _layer_charts(material, curves, settings)
    return [*charts, Table(["machine", *headers] if several else headers, rows)]


def _layer_row(material: Material, cell: Digest, settings: Sequence[str], several: bool) -> list[Cell | str]:
    record, summary, layers = cell.record, cell.summary, cell.record.asked.n_gpu_layers
    return [
        *[material.machine_name(record.machine)] * several,
        material.model_name(record),
        record.asked.test,
        text_cell("all" if layers < 0 else str(layers), 1e9 if layers < 0 else layers),
        *[format_settings(record.asked, settings)] * bool(settings),
        text_cell(format_rate(summary.rate_tok_per_s), summary.rate_tok_per_s),
        _interval(summary),
        layers_that_ran(record),
    ]


def _layer_charts(material: Material, curves: Sequence[Sequence[Digest]], settings: Sequence[str]) -> list[Part]:
    charts: list[Part] = []
    for kind, title in (("pp", "Prompt processing"), ("tg", "Text generation")):
        chosen = [curve for curve in curves if len(curve) > 1 and curve[0].record.asked.kind == kind]
        if chosen:
            charts.append(_layer_chart(material, chosen, title, settings))
    return charts


def _layer_chart(material: Material, curves: Sequence[Sequence[Digest]], title: str, settings: Sequence[str]) -> Part:
    def draw(theme: str) -> Any:
        from harness.views.figures.style import add_legend

        figure, axis = new_figure(theme=theme)
        for at, curve in enumerate(curves):
            known = [(place, cell.summary) for cell in curve if (place := _offloaded(cell.record)) is not None]
            points = sorted(known, key=lambda point: point[0])
            first = curve[0].record
            parts = (f"{material.model_name(first)} {first.asked.test}", format_settings(first.asked, settings))
            axis.plot(
                [place for place, _ in points], [summary.rate_tok_per_s for _, summary in points], marker="o",
                color=PALETTE[at % len(PALETTE)], label=" · ".join(_shorten(part, 50) for part in parts if part),
            )  # fmt: skip
        axis.set_xlabel("layers that ran on a GPU or another machine")
        axis.set_ylabel(f"{title}, tokens/s")
        axis.set_ylim(bottom=0)
        add_legend(axis, theme=theme)
        return figure

    return Chart(draw, f"{title} by layers on the GPU; the table below has the figures")


def _offloaded(record: Record) -> int | None:
    """Layers that really ran on something else than the CPU."""
    if record.resolved is None:
        return None if record.asked.n_gpu_layers < 0 else record.asked.n_gpu_layers
    return sum(count for device, count in record.resolved.layers_by_device.items() if not device.startswith("CPU"))


def _interval(summary: Summary) -> str:
    if summary.rate_low is None or summary.rate_high is None:
        return "—"
    return f"{format_rate(summary.rate_low)} – {format_rate(summary.rate_high)}"


def _minute(time_utc: str) -> str:
    return time_utc[:16].replace("T", " ")


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
