"""A cell over time: a point a record with its interval, a line a stretch, and where another build of llama.cpp came in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.records.history import Series
from harness.views.figures.style import PALETTE, THEMES, add_legend_below, new_figure, set_title, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Times that are written along the axis, at the most; and builds that are named above the points.
_MOST_TIMES, _MOST_BUILDS = 6, 12


def draw_history(series: Series, title: str, theme: str = "light") -> Figure:
    """Draw the records in their order, equally far apart: runs come in bursts, and a clock may be set back. Times are written below."""
    figure, axis = new_figure(8.0, 4.6, theme=theme)
    for is_trusted, look, colour, name in (
        (True, "o", PALETTE[0], "a record, with its interval"),
        (False, "x", THEMES[theme].ink, "not to be trusted"),
    ):
        places = [place for place, point in enumerate(series.points) if point.is_trusted is is_trusted]
        if places:
            _plot_points(axis, series, places, look, colour, name)
    for number, stretch in enumerate(series.stretches):
        height = series.rate(stretch.median_ns)
        axis.plot(
            [stretch.first - 0.45, stretch.last + 0.45], [height, height], color=PALETTE[1], linewidth=2.5, zorder=4,
            label="median between changes" if not number else None,
        )  # fmt: skip
    _mark_builds(axis, series, theme)
    _write_times(axis, series)
    axis.margins(y=0.08)
    low, high = axis.get_ylim()
    axis.set_ylim(low, high + 0.2 * (high - low))  # for the builds' names
    set_title(
        axis, shorten(title, 90), theme, x="measured (UTC), in the order in which it was kept", y="tokens a second"
    )
    add_legend_below(figure, [axis], theme, 3)
    return figure


def _plot_points(axis: Any, series: Series, places: list[int], look: str, colour: str, name: str) -> None:
    points = [series.points[place] for place in places]
    rates = [series.rate(point.median_ns) for point in points]
    intervals_ns = [point.interval_ns or (point.median_ns, point.median_ns) for point in points]
    below = [max(rate - series.rate(high), 0) for rate, (_, high) in zip(rates, intervals_ns, strict=True)]
    above = [max(series.rate(low) - rate, 0) for rate, (low, _) in zip(rates, intervals_ns, strict=True)]
    size = 6 if len(series.points) <= 100 else 3
    axis.errorbar(
        places, rates, yerr=[below, above], fmt=look, color=colour, markersize=size, linewidth=1, capsize=2, zorder=3,
        label=name,
    )  # fmt: skip


def _mark_builds(axis: Any, series: Series, theme: str) -> None:
    """A line before each record of another build, with its commit on top; of too many builds the lines alone."""
    commits = [point.commit for point in series.points]
    places = [place for place in range(1, len(commits)) if commits[place] != commits[place - 1]]
    for place in places:
        axis.axvline(place - 0.5, color=THEMES[theme].ink, linewidth=1, linestyle=":", zorder=1)
    if 0 < len(places) <= _MOST_BUILDS:
        for place in (0, *places):
            axis.annotate(
                commits[place] or "?", (place - 0.5, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -3),
                textcoords="offset points", rotation=90, va="top", fontsize=8, color=THEMES[theme].ink,
            )  # fmt: skip


def _write_times(axis: Any, series: Series) -> None:
    """Some of the times, with the hour where all are of one day."""
    last = len(series.points) - 1
    places = sorted({round(last * step / (_MOST_TIMES - 1)) for step in range(_MOST_TIMES)})
    times = [series.points[place].time_utc for place in places]
    is_one_day = len({time[:10] for time in times}) == 1
    axis.set_xticks(places, [time[11:16] if is_one_day else time[:16].replace("T", "\n") for time in times])
    axis.set_xlim(-0.7, last + 0.7)
