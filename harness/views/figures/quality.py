"""Quality over speed: a disc a model, whose area is its size, as people draw it by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.units import GIB, MIB
from harness.views.figures.style import PALETTE, THEMES, new_figure, set_title, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Area of the largest disc, in points squared.
_LARGEST = 1600.0


@dataclass(frozen=True, slots=True)
class Point:
    """One model with its settings: perplexity, size in bytes, tokens a second, KL divergence in nats."""

    name: str
    perplexity: float
    size_bytes: int
    tg: float | None = None
    pp: float | None = None
    kld: float | None = None


def draw_quality(points: Sequence[Point], theme: str = "light") -> Figure:
    """Perplexity over tokens a second (generation where it was timed, else prompts; over the size where nothing was).

    Where a base is there, a second panel has the KL divergence from it. Good is to the right and at the bottom.
    """
    axis_name, along = _choose_axis(points)
    panels = ["perplexity", *(["kld"] if any(point.kld is not None for point in points) else [])]
    figure, axes = new_figure(8.0, 0.6 + 3.4 * len(panels), theme=theme, nrows=len(panels), sharex=True, squeeze=False)
    largest = max(point.size_bytes for point in points) or 1
    for axis, panel in zip(axes[:, 0], panels, strict=True):
        for number, point in enumerate(points):
            height = point.perplexity if panel == "perplexity" else point.kld
            if height is None:
                continue
            colour, x = PALETTE[number % len(PALETTE)], along[number]
            area = max(_LARGEST * point.size_bytes / largest, 20)
            axis.scatter([x], [height], s=area, color=colour, alpha=0.55, zorder=3)
            _name(axis, point, (x, height), area, theme)
        axis.margins(0.22, 0.25)
    set_title(axes[0, 0], f"Quality over {axis_name[0]}; the area is {_describe_area(points)}", theme, y="perplexity")
    if len(panels) > 1:
        set_title(axes[1, 0], "", theme, y="KL divergence, nats")
    axes[-1, 0].set_xlabel(axis_name[1], color=THEMES[theme].ink)
    for axis in axes[:, 0]:
        axis.yaxis.label.set_color(THEMES[theme].ink)
    return figure


def _choose_axis(points: Sequence[Point]) -> tuple[tuple[str, str], list[float]]:
    """((what it is in the title, and along the axis), a value for each point)."""
    for kind, name in (("tg", "speed"), ("pp", "speed of prompts")):
        rates = [getattr(point, kind) for point in points]
        if all(rate is not None for rate in rates):
            what = "generated tokens" if kind == "tg" else "prompt tokens"
            return (name, f"{what} a second"), rates
    unit, sign = _unit(points)
    return ("memory", f"memory, {sign}"), [point.size_bytes / unit for point in points]


def _unit(points: Sequence[Point]) -> tuple[int, str]:
    return (GIB, "GiB") if max(point.size_bytes for point in points) >= GIB else (MIB, "MiB")


def _describe_area(points: Sequence[Point]) -> str:
    unit, sign = _unit(points)
    low, high = (end(point.size_bytes for point in points) / unit for end in (min, max))
    return f"memory, {low:.3g} to {high:.3g} {sign}" if low != high else f"memory, {high:.3g} {sign}"


def _name(axis: Any, point: Point, place: tuple[float, float], area: float, theme: str) -> None:
    """The name above the disc. Source: matplotlib's s is the square of a marker's width in points."""
    axis.annotate(
        shorten(point.name, 34), place, xytext=(0, math.sqrt(area) / 2 + 4), textcoords="offset points", ha="center", fontsize=9,
        color=THEMES[theme].ink, zorder=5,
    )  # fmt: skip
