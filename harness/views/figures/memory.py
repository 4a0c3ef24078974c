"""The memory ledger as a picture: one stacked bar for what was predicted, one for what was measured, and one for any other account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.memory.causes import HOST, Part
from harness.memory.ledger import Row, make_ledger
from harness.records.memory import MemoryRecord
from harness.units import GIB, MIB
from harness.views.figures.style import PALETTE, THEMES, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Longer names are cut, so that the title stays in the picture.
_LABEL_WIDTH = 60

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
    return _draw_bars({**_make_bars(record), **(others or {})}, _title(record), theme)


def _draw_bars(bars: Mapping[str, Mapping[str, int]], title: str, theme: str) -> Figure:
    legends = (part.legend for part in PARTS)
    names = list(dict.fromkeys((*legends, *(name for parts in bars.values() for name in parts))))
    figure, axis = new_figure(8.0, 2.0 + 0.6 * len(bars), theme=theme)
    unit, scale = ("GiB", GIB) if max(sum(parts.values()) for parts in bars.values()) >= 10 * GIB else ("MiB", MIB)
    _stack(axis, bars, names, scale, theme)
    axis.set_xlabel(f"{unit} of memory", color=THEMES[theme].ink, fontsize=11)
    axis.set_title(title, color=THEMES[theme].ink, fontsize=12, loc="left", parse_math=False)
    axis.grid(False, axis="y")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, labelcolor=THEMES[theme].ink, fontsize=10)
    return figure


def _title(record: MemoryRecord) -> str:
    model = record.model
    synthetic = " (synthetic)" if model.is_synthetic else ""
    context = f", context {record.forecast.n_ctx}" if len(record.forecasts) == 1 else ""
    label = model.label if len(model.label) <= _LABEL_WIDTH else f"{model.label[: _LABEL_WIDTH - 1]}…"
    return f"Where the memory goes\n{label}{synthetic}{context}"


def _make_bars(record: MemoryRecord) -> dict[str, dict[str, int]]:
    """One bar for the prediction of each context, and two for the measurement where there is one."""
    if len(record.forecasts) > 1:
        return {f"context {f.n_ctx}": _by_part(make_ledger(f, None), "predicted_bytes") for f in record.forecasts}
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


def _stack(axis: Any, bars: Mapping[str, Mapping[str, int]], names: Sequence[str], scale: int, theme: str) -> None:
    colours = THEMES[theme]
    positions = range(len(bars))[::-1]
    lefts = [0.0] * len(bars)
    widest = max(sum(parts.values()) for parts in bars.values()) / scale
    for index, name in enumerate(names):
        widths = [parts.get(name, 0) / scale for parts in bars.values()]
        if not any(widths):
            continue
        axis.barh(
            positions, widths, 0.62, left=lefts, label=name, color=PALETTE[index % len(PALETTE)],
            edgecolor=colours.background, linewidth=1.0, )  # fmt: skip
        for position, left, width in zip(positions, lefts, widths, strict=True):
            if width > 0.075 * widest:
                axis.text(
                    left + width / 2, position, f"{width:.0f}" if widest >= 100 else f"{width:.1f}", ha="center", va="center",
                    fontsize=10, color=_text_colour(PALETTE[index % len(PALETTE)]),
                )  # fmt: skip
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    for position, total in zip(positions, lefts, strict=True):
        text = f"  {total:.0f}" if widest >= 100 else f"  {total:.1f}"
        axis.text(total, position, text, ha="left", va="center", fontsize=10, color=colours.ink)
    axis.set_ylim(-0.6, len(bars) - 0.4)
    axis.set_yticks(list(positions), list(bars), fontsize=11, color=colours.ink)
    axis.set_xlim(0, widest * 1.1)


def _text_colour(background: str) -> str:
    """Black on light colours, white on dark ones. Source: ITU-R BT.601 luma."""
    red, green, blue = (int(background[at : at + 2], 16) for at in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#ffffff"
