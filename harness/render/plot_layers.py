"""Both speeds and the memory over the number of layers on the device, in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.layer_row import LayerRow
from harness.render.figure import PALETTE, THEMES, add_legend, new_figure
from harness.units import GIB, MIB

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_layers(rows: Sequence[LayerRow], title: str, *, best: int | None = None, theme: str = "light") -> Figure:
    """Draw a panel for each kind of test and one for memory by device; failed and skipped counts are marked on the axis."""
    tests = list(dict.fromkeys(speed.test for row in rows for speed in row.speeds))
    figure, axes = new_figure(
        8.0, 2.3 * (len(tests) + 1) + 0.4, theme=theme, nrows=len(tests) + 1, sharex=True, squeeze=False
    )
    panels = list(axes.flat)
    ink = THEMES[theme].ink
    for index, test in enumerate(tests):
        _draw_speed(panels[index], rows, test, PALETTE[index], theme)
    _draw_memory(panels[-1], rows, theme)
    lost = [row.n_gpu_layers for row in rows if row.failure or row.skipped]
    for panel in panels:
        if lost:
            panel.plot(lost, [0] * len(lost), "x", color=PALETTE[5], clip_on=False, zorder=5, label="failed or skipped")
        if best is not None:
            panel.axvline(best, color=ink, linewidth=1, linestyle=":", label=f"best: {best}")
        handles, _ = panel.get_legend_handles_labels()
        if len(handles) > 1 or panel is panels[-1]:
            add_legend(panel, theme=theme, ncols=2)
    panels[0].set_title(title, loc="left", fontsize=11, color=ink)
    panels[-1].set_xlabel("layers on the device (-ngl)", color=ink)
    return figure


def _draw_speed(panel: object, rows: Sequence[LayerRow], test: str, colour: str, theme: str) -> None:
    from matplotlib.axes import Axes

    assert isinstance(panel, Axes)
    found = [(row.n_gpu_layers, speed) for row in rows for speed in row.speeds if speed.test == test]
    found.sort(key=lambda item: item[0])
    panel.plot([n for n, _ in found], [speed.rate_tok_per_s for _, speed in found], "o-", color=colour, label=test)
    for n_gpu_layers, speed in found:
        if speed.rate_low is not None and speed.rate_high is not None:
            panel.vlines(n_gpu_layers, speed.rate_low, speed.rate_high, color=colour)
    panel.set_ylim(0, 1.1 * max((speed.rate_high or speed.rate_tok_per_s for _, speed in found), default=1))
    panel.set_ylabel(f"{test}, tokens/s", color=THEMES[theme].ink)


def _draw_memory(panel: object, rows: Sequence[LayerRow], theme: str) -> None:
    from matplotlib.axes import Axes

    assert isinstance(panel, Axes)
    known = sorted((row for row in rows if row.memory), key=lambda row: row.n_gpu_layers)
    devices = list(dict.fromkeys(device for row in known for device in (row.memory or {})))
    largest = max((sum(causes.values()) for row in known for causes in (row.memory or {}).values()), default=0)
    unit, name = (GIB, "GiB") if largest >= GIB else (MIB, "MiB")
    for index, device in enumerate(sorted(devices, key=lambda text: text == "CPU")):
        values = [sum((row.memory or {}).get(device, {}).values()) / unit for row in known]
        colour = PALETTE[(index + 2) % len(PALETTE)]
        panel.plot([row.n_gpu_layers for row in known], values, "o-", color=colour, label=device)
    panel.set_ylim(0, 1.1 * (largest / unit or 1))
    panel.set_ylabel(f"memory, {name}", color=THEMES[theme].ink)
