"""Stacked bars, with what their pieces come to written into them and their sums behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.views.figures.style import PALETTE, THEMES, ink_on


def draw_stack(
    axis: Any, stacks: Sequence[Mapping[str, float]], names: Sequence[str], theme: str, *, is_upright: bool = False,
    write: Callable[[float, float], str | None], write_sum: Callable[[float], str],
) -> None:  # fmt: skip
    """Draw one bar a stack, its pieces by name in the order of `names`; a name has its colour also where it has no piece.

    Parameters
    ----------
    write : what is written into a piece of a size, in a stack of a sum; None where there is no room
    """
    ends = [0.0] * len(stacks)
    sums = [sum(stack.values()) for stack in stacks]
    for number, name in enumerate(names):
        colour, sizes = PALETTE[number % len(PALETTE)], [stack.get(name, 0.0) for stack in stacks]
        if not any(sizes):
            continue
        draw, start = (axis.bar, "bottom") if is_upright else (axis.barh, "left")
        look = {"color": colour, "label": name, "edgecolor": THEMES[theme].background, "linewidth": 1.0}
        draw(range(len(stacks)), sizes, 0.62, **{start: ends}, **look)
        for place, (end, size, total) in enumerate(zip(ends, sizes, sums, strict=True)):
            if text := write(size, total):
                at = (place, end + size / 2) if is_upright else (end + size / 2, place)
                axis.text(*at, text, ha="center", va="center", fontsize=9.5, color=ink_on(colour))
        ends = [end + size for end, size in zip(ends, sizes, strict=True)]
    for place, end in enumerate(ends):
        at, shift, sides = (
            ((place, end), (0, 3), ("center", "bottom")) if is_upright else ((end, place), (5, 0), ("left", "center"))
        )
        axis.annotate(
            write_sum(end), at, shift, textcoords="offset points", ha=sides[0], va=sides[1], fontsize=10,
            color=THEMES[theme].ink,
        )  # fmt: skip
    if not is_upright:
        axis.invert_yaxis()
    axis.grid(False, axis="x" if is_upright else "y")
