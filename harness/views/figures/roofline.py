"""The roofline itself: operations a second against operations a byte."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.records.roofline import ARITHMETIC, READING, Roof
from harness.speed.roofline import UnderRoof
from harness.views.figures.style import PALETTE, add_legend, new_figure, set_log, set_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_roofline(roof: Roof, under: Sequence[UnderRoof], theme: str = "light") -> Figure:
    """The roofline itself: operations a second against operations a byte, each device's two roofs, and every record under them."""
    figure, axis = new_figure(8.0, 4.8, theme=theme)
    set_log(axis, "x", subs=(1.0,))
    set_log(axis, "y")
    lows = [item.flops_per_token / item.bytes_per_token for item in under if not item.n_prompt]
    x_low = min([*lows, 1.0]) / 3
    ends = []
    for number, device in enumerate(roof.devices()):
        read, done = roof.best(READING, device), roof.best(ARITHMETIC, device)
        if read is None or done is None:
            continue
        ridge = done.rate_per_s / read.rate_per_s
        x_high = max(ridge, 512) * 8
        ends.append(x_high)
        label = f"{device}: {read.rate_per_s / 1e9:.1f} GB/s, {_scale(done.rate_per_s)}FLOP/s"
        axis.plot(
            [x_low, ridge, x_high],
            [x_low * read.rate_per_s, done.rate_per_s, done.rate_per_s],
            color=PALETTE[number % len(PALETTE)],
            linewidth=2,
            label=label,
        )
    _mark_records(axis, under)
    x, y = "operations for each byte of weights read", "operations a second"
    set_title(axis, "What was measured, under the machine's roof", theme, x=x, y=y)
    axis.yaxis.set_major_formatter(lambda value, _: f"{_scale(value)}FLOP/s")
    add_legend(axis, theme=theme, loc="lower right")
    return figure


def _mark_records(axis: Any, under: Sequence[UnderRoof]) -> None:
    """One mark a model and kind of test; prompts share the reading among their tokens."""
    series: dict[tuple[str, bool], list[UnderRoof]] = {}
    for item in under:
        name = f"{item.model} {item.quantization}{'*' if item.is_synthetic else ''}"
        series.setdefault((name, item.n_prompt > 0), []).append(item)
    colours = {
        name: PALETTE[(number + 1) % len(PALETTE)] for number, name in enumerate(dict.fromkeys(k[0] for k in series))
    }
    for (name, is_prompt), items in series.items():
        shared = [max(item.n_prompt, 1) for item in items]
        axis.plot(
            [min(n, 512) * i.flops_per_token / i.bytes_per_token for n, i in zip(shared, items, strict=True)],
            [item.flops_per_token * item.rate_tok_per_s for item in items],
            "s" if is_prompt else "o",
            color=colours[name],
            markersize=7,
            label=f"{name}, {'prompts' if is_prompt else 'generation'}",
        )


def _scale(value: float) -> str:
    for unit, factor in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.3g} "
