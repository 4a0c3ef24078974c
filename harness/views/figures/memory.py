"""The memory ledger as a picture: one stacked bar for what was predicted, one for what was measured, and one for any other account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.memory.causes import HOST, Part
from harness.memory.ledger import Row, make_ledger
from harness.records.memory import MemoryRecord
from harness.units import GIB, MIB
from harness.views.figures.stack import draw_stack
from harness.views.figures.style import THEMES, add_legend_below, new_figure, set_title, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The parts of a bar from left to right.
PARTS = tuple(part for part in Part if part.legend)


def draw_ledger(
    record: MemoryRecord, *, theme: str = "light", others: Mapping[str, Mapping[str, int]] | None = None
) -> Figure:
    """Draw the first context's ledger, or one bar a context where several were asked for.

    Parameters
    ----------
    others : further bars, by name: bytes by part (the legends of `PARTS`, or others that are then added to the legend)
    """
    bars: dict[str, Mapping[str, int]] = {**_make_bars(record), **(others or {})}
    legends = (part.legend for part in PARTS)
    names = list(dict.fromkeys((*legends, *(name for parts in bars.values() for name in parts))))
    figure, axis = new_figure(8.0, 2.0 + 0.6 * len(bars), theme=theme)
    largest = max(sum(parts.values()) for parts in bars.values())
    unit, scale = ("GiB", GIB) if largest >= 10 * GIB else ("MiB", MIB)
    digits = 0 if largest >= 100 * scale else 1
    draw_stack(
        axis, [{name: size / scale for name, size in parts.items()} for parts in bars.values()], names, theme,
        write=lambda size, _: f"{size:.{digits}f}" if size * scale > 0.075 * largest else None,
        write_sum=lambda total: f"{total:.{digits}f}",
    )  # fmt: skip
    axis.set_yticks(range(len(bars)), list(bars), fontsize=11, color=THEMES[theme].ink)
    axis.set_xlim(0, largest / scale * 1.1 or 1)
    axis.xaxis.label.set_fontsize(11)
    synthetic = " (synthetic)" if record.model.is_synthetic else ""
    several = f"{record.asked.n_parallel} × " if record.asked.n_parallel > 1 else ""
    context = f", context {several}{record.n_ctx_seq(record.forecast)}" if len(record.forecasts) == 1 else ""
    title = f"Where the memory goes\n{shorten(record.model.label, 40)}{synthetic}{context}"
    set_title(axis, title, theme, x=f"{unit} of memory")
    add_legend_below(figure, [axis], theme, 3)
    return figure


def _make_bars(record: MemoryRecord) -> dict[str, dict[str, int]]:
    """One bar for the prediction of each context, and two for the measurement where there is one."""
    if len(record.forecasts) > 1:
        return {
            f"context {record.n_ctx_seq(f)}": _by_part(make_ledger(f, None), "predicted_bytes")
            for f in record.forecasts
        }
    rows = record.ledger
    bars = {"predicted": _by_part(rows, "predicted_bytes")}
    if record.measurement:
        bars["measured"] = _by_part(rows, "measured_bytes")
        bars["in memory now"] = _by_part(rows, "resident_bytes")
        bars["in memory now"][Part.UNEXPLAINED.legend] = record.measurement.account.unexplained_bytes or 0
    return bars


def _by_part(rows: Sequence[Row], field: str) -> dict[str, int]:
    sizes = {part.legend: 0 for part in PARTS}
    for row in rows:
        size = getattr(row, field)
        if field == "resident_bytes" and size is None and row.device != HOST:
            size = row.measured_bytes  # a device has no pages that wait to be touched
        if row.cause.part in PARTS:
            sizes[row.cause.part.legend] += max(size or 0, 0)
    return sizes
