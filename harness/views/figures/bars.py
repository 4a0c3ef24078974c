"""A Document's pictures; bars for one that has none of its own."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from harness.views.document import Bar, Bars, Document, Picture
from harness.views.figures.style import PALETTE, THEMES, new_figure, set_title
from harness.views.grid import title_of, write_cell
from harness.views.values import BYTES, COUNT, PARAMS, format_value

#: More bars than this in one picture cannot be read.
MAX_BARS = 40


def pictures_of(document: Document) -> list[Picture]:
    """What can be drawn of a document: its bars as one picture, its pictures, else its main table as bars; none without figures."""
    pictures = list(document.blocks(Picture))
    bars = list(document.blocks(Bars)) or ([] if pictures else _bars_of(document))
    drawn = (
        [Picture(functools.partial(draw_bars, bars), "; ".join(map(describe_bars, bars)), name="bars")] if bars else []
    )
    return [*drawn, *pictures]


def describe_bars(block: Bars) -> str:
    """The bars in words, for who does not see them."""
    return f"{block.title}: " + "; ".join(f"{bar.label} {format_value(bar.value, block.unit)}" for bar in block.bars)


def draw_bars(blocks: Sequence[Bars], theme: str = "light") -> Any:
    """A panel for each block: one bar a line, the first on top, its value behind it, its interval as a line across its end."""
    heights = [1.0 + 0.3 * len(block.bars) for block in blocks]
    figure, axes = new_figure(8.0, sum(heights), theme=theme, nrows=len(blocks), squeeze=False, height_ratios=heights)
    for axis, block in zip(axes[:, 0], blocks, strict=True):
        _draw_block(axis, block, theme)
    return figure


def _draw_block(axis: Any, block: Bars, theme: str) -> None:
    for place, bar in enumerate(block.bars):
        axis.barh(place, bar.value, height=0.62, color=PALETTE[0])
        end = bar.value
        if bar.interval:
            axis.plot(bar.interval, [place, place], color=PALETTE[1], linewidth=3, solid_capstyle="butt")
            end = max(end, bar.interval[1])
        text = format_value(bar.value, block.unit, with_sign=False)
        axis.annotate(
            text, (end, place), (4, 0), textcoords="offset points", va="center", fontsize=9, color=THEMES[theme].ink
        )
    axis.set_yticks(range(len(block.bars)), [bar.label for bar in block.bars])
    axis.grid(False, axis="y")
    axis.set_xlim(min(0, *(bar.value for bar in block.bars)), max(axis.get_xlim()[1], 1e-9) * 1.08)
    if block.unit is BYTES:  # ticks at powers of two, not at 95.37 MiB
        from matplotlib.ticker import MultipleLocator

        axis.xaxis.set_major_locator(MultipleLocator(2.0 ** math.ceil(math.log2(axis.get_xlim()[1] / 6))))
    axis.set_ylim(len(block.bars) - 0.5, -0.5)
    axis.xaxis.set_major_formatter(lambda value, _: format_value(value, block.unit, with_sign=False))
    set_title(axis, block.title, theme, x=block.unit.sign)


def _bars_of(document: Document) -> list[Bars]:
    """The main table's first measured column, else its first with a unit, under the names in the columns without one before it."""
    for table in document.main_tables():
        lines = [cells for row, cells in table.lines() if not row.is_total]
        columns = [(at, column) for at, column in enumerate(table.columns) if column.is_shown and column.unit]
        for at, column in sorted(columns, key=lambda item: not item[1].interval):
            names = [
                i
                for i, other in enumerate(table.columns[:at])
                if other.is_shown and other.unit not in (COUNT, PARAMS) and not (other.unit and other.unit.suffix)
            ]
            bars = [
                Bar(
                    " ".join(write_cell(cells[i], table.columns[i], "") for i in names),
                    float(value),
                    cells[at].interval,
                )
                for cells in lines
                if isinstance(value := cells[at].value, int | float) and not isinstance(value, bool)
            ]
            if bars and column.unit and column.unit.suffix:
                cut = f"the first {MAX_BARS} of {len(bars)}" if len(bars) > MAX_BARS else ""
                title = " · ".join(filter(None, [document.title, " ".join(title_of(column).split()), cut]))
                return [Bars(title, column.unit, bars[:MAX_BARS])]
    return []
