"""Bars with their intervals: the picture of any table that has no picture of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.views.document import Document, Picture
from harness.views.figures.style import PALETTE, THEMES, new_figure
from harness.views.grid import title_of
from harness.views.values import Unit, format_value

#: More bars than this in one picture cannot be read.
MAX_BARS = 40


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its name, its value in a base unit, and both ends of its interval where there is one."""

    label: str
    value: float
    interval: tuple[float, float] | None = None


def draw_bars(bars: Sequence[Bar], title: str, unit: Unit | None, axis_label: str, theme: str = "light") -> Any:
    """One bar a line, the first on top, its value at its end, its interval as a line across its end."""
    figure, axis = new_figure(8.0, 1.0 + 0.3 * len(bars), theme=theme)
    for place, bar in enumerate(bars):
        axis.barh(place, bar.value, height=0.62, color=PALETTE[0])
        end = bar.value
        if bar.interval:
            axis.plot(bar.interval, [place, place], color=PALETTE[1], linewidth=3, solid_capstyle="butt")
            end = max(end, bar.interval[1])
        text = format_value(bar.value, unit, with_sign=False)
        axis.annotate(
            text, (end, place), (4, 0), textcoords="offset points", va="center", fontsize=9, color=THEMES[theme].ink
        )
    axis.set_yticks(range(len(bars)), [bar.label for bar in bars])
    for label in axis.get_yticklabels():
        label.set_parse_math(False)
    axis.invert_yaxis()
    axis.grid(False, axis="y")
    axis.set_xlim(left=min(0, *(bar.value for bar in bars)))
    axis.margins(x=0.12)
    axis.xaxis.set_major_formatter(lambda value, _: format_value(value, unit, with_sign=False))
    axis.set_xlabel(axis_label)
    axis.set_title(title, loc="left", fontsize=12, color=THEMES[theme].ink, parse_math=False)
    return figure


def picture_of(document: Document) -> list[Picture]:
    """The main table's first column with a unit, as bars under the names in its text columns; none where there is no such."""
    for table in document.main_tables():
        lines = table.lines()
        found = [
            at
            for at, column in enumerate(table.columns)
            if column.is_shown
            and column.unit
            and column.unit.suffix
            and any(_is_number(cells[at].value) for _, cells in lines)
        ]
        if not found:
            continue
        at = found[0]
        names = [i for i, column in enumerate(table.columns) if column.is_shown and not column.unit and i < at]
        bars = [
            Bar(
                " ".join(format_value(cells[i].value) for i in names),
                float(cells[at].value),  # type: ignore[arg-type]
                cells[at].interval,
            )
            for row, cells in lines
            if _is_number(cells[at].value) and not row.is_total
        ][:MAX_BARS]
        unit, title = table.columns[at].unit, title_of(table.columns[at]).replace("\n", " ")

        def draw(theme: str) -> Any:
            return draw_bars(bars, document.title, unit, title, theme)  # noqa: B023

        return [Picture(draw, f"{title} as bars; the table has the figures")]
    return []


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
