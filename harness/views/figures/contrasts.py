"""Pairs of speeds as a forest plot: each ratio with its interval, on a logarithmic axis, beside the line of no difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.speed.comparison import Pair, Standing
from harness.views.figures.style import PALETTE, THEMES, add_legend_below, new_figure, set_title, shorten
from harness.views.values import INTERVAL

#: More rows than this in one picture cannot be read; the table has all of them.
MAX_ROWS = 60

#: How each standing is drawn: what the legend calls it, its colour, and its mark for those who see no colours.
_LOOKS = {
    Standing.FASTER: ("faster", PALETTE[2], ">"),
    Standing.SLOWER: ("slower", PALETTE[5], "<"),
    Standing.NOISE: ("inside the noise", PALETTE[7], "o"),
    Standing.UNDECIDED: ("too few repetitions", PALETTE[7], "x"),
}

#: Steps between ticks as factors, and how many of them are enough.
_STEPS = (1.005, 1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0, 5.0, 10.0)
_MOST_TICKS = 9


def draw_contrasts(pairs: Sequence[Pair], labels: Sequence[str], names: Sequence[str], theme: str = "light") -> Any:
    """Draw a row a pair, in the order of the table, the first on top.

    Parameters
    ----------
    labels : of the pairs
    names  : of the sides; the first is what all are held against
    """
    shown = list(zip(pairs, labels, strict=True))[:MAX_ROWS]
    figure, axis = new_figure(8.0, 1.7 + 0.32 * len(shown), theme=theme)
    axis.set_xscale("log")
    axis.axvline(1.0, color=THEMES[theme].ink, linewidth=1.2, zorder=2)
    named: set[Standing] = set()
    for place, (pair, _) in enumerate(shown):
        name, colour, mark = _LOOKS[pair.standing]
        label = name if pair.standing not in named else None
        named.add(pair.standing)
        if pair.interval:
            axis.plot(pair.interval, [place, place], color=colour, linewidth=2.5, solid_capstyle="butt", zorder=3)
        axis.plot(pair.ratio.value, place, mark, color=colour, markersize=8, linestyle="none", label=label, zorder=4)
    _set_ticks(axis, [end for pair, _ in shown for end in (*(pair.interval or ()), pair.ratio.value)])
    axis.set_yticks(range(len(shown)), [shorten(label, 44) for _, label in shown])
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.grid(False, axis="y")
    others = shorten(names[1], 30) if len(names) == 2 else "the others"
    cut = f" (the first {MAX_ROWS} of {len(pairs)})" if len(pairs) > MAX_ROWS else ""
    title = f"{others} against {shorten(names[0], 30)}{cut}"
    set_title(axis, title, theme, x=f"ratio of tokens a second, {INTERVAL}; right of the line is faster")
    add_legend_below(figure, [axis], theme, len(named))
    return figure


def _set_ticks(axis: Any, values: Sequence[float]) -> None:
    """Ticks around 1 by a factor that gives a handful; a logarithmic axis has none by itself between 0.9 and 1.1."""
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    reach = max((abs(math.log(value)) for value in values), default=0.0) * 1.08 + 0.003
    step = next((step for step in _STEPS if 2 * reach / math.log(step) <= _MOST_TICKS), 10.0)
    half = max(int(reach / math.log(step)), 1)
    # Above 1 by whole steps, below by as many percent: 0.95 and 1.05 rather than 0.952.
    share = step - 1
    up = [1 + share * k for k in range(half + 1)] if step < 1.2 else [step**k for k in range(half + 1)]
    down = (
        [1 - share * k for k in range(1, half + 1) if share * k < 1]
        if step < 1.2
        else [step**-k for k in range(1, half + 1)]
    )
    axis.xaxis.set_major_locator(FixedLocator(sorted({*up, *down})))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    margin = math.exp(0.04 * reach + 0.002)
    axis.set_xlim(min(1.0, *values) / margin, max(1.0, *values) * margin)
