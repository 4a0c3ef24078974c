"""Each repetition over time: how long it took against the median of its test, and whether something disturbed it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.records.advice import Test
from harness.records.noise import NoiseRecord
from harness.units import NS_PER_S
from harness.views.figures.style import PALETTE, THEMES, add_legend_below, new_figure, set_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure


#: Beyond so many percent of the median the rest would be a line: the scale is logarithmic there.
_WIDE = 50.0


def draw_noise(record: NoiseRecord, tests: Sequence[Test], theme: str = "light") -> Figure:
    """A panel for each test; what was disturbed is crossed out, the quartiles lie in a band."""
    import numpy

    figure, axes = new_figure(8.0, 1.0 + 2.1 * len(tests), theme=theme, nrows=len(tests), squeeze=False, sharex=True)
    ink = THEMES[theme].ink
    for number, (test, axis) in enumerate(zip(tests, axes[:, 0], strict=True)):
        durations = [one.sample.duration_ns for one in test.marked]
        middle = float(numpy.median(durations))
        shares = [100 * (duration / middle - 1) for duration in durations]
        times = _times(record, test)
        is_disturbed = [bool(one.disturbances) for one in test.marked]
        axis.axhspan(*numpy.quantile(shares, (0.25, 0.75)), color=PALETTE[number], alpha=0.18, linewidth=0)
        axis.axhline(0, color=ink, linewidth=0.8)
        for wanted, look, colour, name in (
            (False, "o", PALETTE[number], f"{test.cell.asked.test}; band: quartiles"),
            (True, "x", PALETTE[5], "disturbed"),
        ):
            points = [
                (time, share) for time, share, found in zip(times, shares, is_disturbed, strict=True) if found is wanted
            ]
            if points:
                axis.plot(*zip(*points, strict=True), look, color=colour, markersize=5, label=name)
        if max(shares) > _WIDE:
            axis.set_yscale("symlog", linthresh=_WIDE / 5)
        is_last = number == len(tests) - 1
        title = f"{test.cell.asked.test}: {middle / 1e6:.0f} ms a repetition"
        set_title(axis, title, theme, x="s" if is_last else "", y="% longer")
    add_legend_below(figure, axes[:, 0], theme, 3)
    return figure


def _times(record: NoiseRecord, test: Test) -> list[float]:
    """When each repetition of a test ended, in s since the first block."""
    times = []
    for block in record.blocks:
        at_ns = block.begun_ns
        for sample in block.samples:
            at_ns += max(sample.duration_ns, sample.conditions.wall_ns if sample.conditions else 0)
            if block.asked == test.cell.asked and not sample.is_warmup:
                times.append(at_ns / NS_PER_S)
    return times
