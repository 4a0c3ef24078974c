"""Both speeds and the memory over the number of layers on the device, in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.records.placements import PlacementResult
from harness.spec import parameters
from harness.units import GIB, MIB
from harness.views.figures.style import PALETTE, THEMES, add_legend, new_figure, set_title, shorten
from harness.views.settings import format_setting, heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_STYLES = ("-", "--", ":", "-.")


def draw_layers(
    rows: Sequence[PlacementResult], title: str, *, best: int | None = None, theme: str = "light"
) -> Figure:
    """Draw a panel for each test and one for memory by device, over what was swept; failed and skipped rows are marked on the axis.

    The axis is the number of layers, or another swept number where the layers stay; each combination of the rest is a line of its own.
    """
    tests = list(dict.fromkeys(speed.test for row in rows for speed in row.speeds))
    height = 2.3 * (len(tests) + 1) + 0.4
    figure, axes = new_figure(8.0, height, theme=theme, nrows=len(tests) + 1, sharex=True, squeeze=False)
    panels: list[Axes] = list(axes.flat)
    axis = find_axis(rows)
    series = _split_series(rows, axis)
    for index, test in enumerate(tests):
        _draw_speed(panels[index], series, axis, test, index)
    _draw_memory(panels[-1], series, axis)
    lost = [row.varied[axis] for row in rows if row.failure or row.skipped]
    for panel in panels:
        if lost:
            panel.plot(lost, [0] * len(lost), "x", color=PALETTE[5], clip_on=False, zorder=5, label="failed or skipped")
        if best is not None:
            panel.axvline(best, color=THEMES[theme].ink, linewidth=1, linestyle=":", label=f"best: {best}")
        panel.yaxis.label.set_color(THEMES[theme].ink)
        if len(panel.get_legend_handles_labels()[0]) > 1 or panel is panels[-1]:
            add_legend(panel, theme=theme, ncols=2)
    set_title(panels[0], shorten(title, 72), theme)
    name = (
        "layers on the device (-ngl)" if axis == "n_gpu_layers" else f"{heading(axis)} ({parameters()[axis].flags[0]})"
    )
    panels[-1].set_xlabel(name, color=THEMES[theme].ink)
    panels[-1].locator_params(axis="x", integer=True)
    return figure


def _name(row: PlacementResult) -> dict[str, str]:
    return {heading(name): format_setting(value) for name, value in row.varied.items()}


def find_axis(rows: Sequence[PlacementResult]) -> str:
    """The swept number to draw over: the layers, unless only another one varies."""

    def values(name: str) -> set[Any]:
        return {row.varied[name] for row in rows}

    numbers = [name for name in rows[0].varied if all(type(value) in (int, float) for value in values(name))]
    return next((name for name in numbers if len(values(name)) > 1), "n_gpu_layers")


def _split_series(rows: Sequence[PlacementResult], axis: str) -> dict[str, list[PlacementResult]]:
    """Rows by what else varies, each sorted along the axis; one series without a name where nothing else does."""
    own = heading(axis)
    varying = {key for row in rows for key, value in _name(row).items() if key != own and value != _name(rows[0])[key]}
    series: dict[str, list[PlacementResult]] = {}
    for row in sorted(rows, key=lambda item: item.varied[axis]):
        label = ", ".join(f"{key} {value}" for key, value in _name(row).items() if key in varying)
        series.setdefault(label, []).append(row)
    return series


def _draw_speed(panel: Axes, series: dict[str, list[PlacementResult]], axis: str, test: str, index: int) -> None:
    tops = [1.0]
    for place, (label, rows) in enumerate(series.items()):
        found = [(row.varied[axis], speed) for row in rows for speed in row.speeds if speed.test == test]
        colour = PALETTE[(place if len(series) > 1 else index) % len(PALETTE)]
        panel.plot(
            [x for x, _ in found], [speed.rate_tok_per_s for _, speed in found], "o-", color=colour, label=label or test
        )
        for x, speed in found:
            if speed.interval:
                panel.vlines(x, *speed.interval, color=colour)
        tops += [speed.rate_high or speed.rate_tok_per_s for _, speed in found]
    panel.set_ylim(0, 1.1 * max(tops[1:] or tops))
    panel.set_ylabel(f"{test}, tokens/s")


def _draw_memory(panel: Axes, series: dict[str, list[PlacementResult]], axis: str) -> None:
    known = {label: [row for row in rows if row.memory_bytes] for label, rows in series.items()}
    devices = dict.fromkeys(device for rows in known.values() for row in rows for device in (row.memory_bytes or {}))
    largest = max(
        (sum(c.values()) for rows in known.values() for row in rows for c in (row.memory_bytes or {}).values()),
        default=0,
    )
    unit, name = (GIB, "GiB") if largest >= GIB else (MIB, "MiB")
    for index, device in enumerate(sorted(devices, key=lambda text: (text == "CPU", text))):
        for place, rows in enumerate(known.values()):
            values = [sum((row.memory_bytes or {}).get(device, {}).values()) / unit for row in rows]
            # With several series their colours are those of the panels above, and a device is a kind of line.
            colour = PALETTE[place % len(PALETTE)] if len(known) > 1 else PALETTE[(index + 2) % len(PALETTE)]
            style = _STYLES[index % len(_STYLES)] if len(known) > 1 else "-"
            label = device if place == 0 else "_"  # matplotlib leaves such a label out of the legend
            panel.plot([row.varied[axis] for row in rows], values, style, marker="o", color=colour, label=label)
    panel.set_ylim(0, 1.1 * (largest / unit or 1))
    panel.set_ylabel(f"memory, {name}")
