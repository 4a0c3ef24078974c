"""How long each token of a text took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.records.text import TextRun
from harness.views.figures.style import PALETTE, new_figure, set_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_token_times(run: TextRun, theme: str = "light") -> Figure:
    """Draw the time between one token and the next, in ms, in their order."""
    figure, axis = new_figure(8.0, 3.6, theme=theme)
    times = run.token_ns[1:]  # the first one is the prompt's
    axis.plot(range(2, len(times) + 2), [ns / 1e6 for ns in times], ".", color=PALETTE[0], markersize=4)
    axis.set_ylim(bottom=0)
    set_title(axis, "Time of each token", theme, x="token", y="ms")
    return figure
