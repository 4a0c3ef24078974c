"""What drafts bring over their length: the speed-up, measured and predicted, and how many guesses are right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.speed.speculation import SpeculationResult
from harness.views.figures.style import PALETTE, THEMES, add_legend_below, new_figure, set_title, shorten
from harness.views.values import INTERVAL

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_speculation(result: SpeculationResult, title: str, theme: str = "light") -> Figure:
    """Draw the speed-up above, with its intervals and the line of no difference, and acceptance below."""
    figure, (above, below) = new_figure(8.0, 5.6, theme=theme, nrows=2, sharex=True)
    ink = THEMES[theme].ink
    lengths = [one for one in result.lengths if one.speedup is not None]
    places = [one.n_draft for one in lengths]
    above.plot(places, [one.speedup for one in lengths], "o-", color=PALETTE[0], label=f"measured, {INTERVAL}")
    for one in lengths:
        if one.speedup_interval:
            above.vlines(one.n_draft, *one.speedup_interval.ends, color=PALETTE[0], linewidth=2)
    predicted = [(one.n_draft, speedup) for one in result.lengths if (speedup := result.predict(one))]
    if predicted:
        label = "predicted from acceptance and cost"
        above.plot(*zip(*predicted, strict=True), "--", color=PALETTE[1], label=label)
    above.axhline(1.0, color=ink, linewidth=1.0)
    above.set_ylim(bottom=0)
    set_title(above, shorten(title, 72), theme, y="times as fast")
    accepted = [(one.n_draft, 100 * one.acceptance) for one in result.lengths if one.acceptance is not None]
    if accepted:
        below.plot(*zip(*accepted, strict=True), "o-", color=PALETTE[2], label="right guesses")
    below.set_ylim(0, 105)
    set_title(below, "", theme, x="tokens of a draft", y="% of guesses right")
    below.locator_params(axis="x", integer=True)
    add_legend_below(figure, (above, below), theme, 3)
    return figure
