"""The look that all pictures share: two themes, colours that colour-blind readers tell apart, bytes out.

matplotlib's object interface is used without pyplot, so that no display and no global state is needed.
"""

from __future__ import annotations

import collections
import io
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.untrusted import harmless

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, distinct for the common kinds of colour blindness, in the order in which series take them.
#: Source: M. Okabe, K. Ito, Color Universal Design (2008).
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of the page: background, text and lines, and the faint grid. Backgrounds are opaque, so a picture reads on any page."""

    background: str
    ink: str
    grid: str


THEMES = {
    "light": Theme("#ffffff", "#1f2328", "#d8dee4"),
    "dark": Theme("#0d1117", "#e6edf3", "#30363d"),
    # Colours that nothing else has, for a page to put its own in their places (`drawing`).
    "page": Theme("#010203", "#010204", "#010205"),
}

#: The themes of a picture in a file.
THEME_NAMES = ("light", "dark")

#: Characters of a text in a picture at the most.
_LONGEST_TEXT = 300

#: What a picture's name may end in.
FORMATS = ("png", "svg")


def new_figure(
    width_in: float = 8.0, height_in: float = 4.5, *, theme: str = "light", **subplots: Any
) -> tuple[Figure, Any]:
    """Make a figure and its axes (one, or what `Figure.subplots` gives) in a theme; sizes in inches, legible at README width."""
    from matplotlib.figure import Figure

    colours = THEMES[theme]
    figure = Figure(figsize=(width_in, height_in), facecolor=colours.background, layout="constrained")
    axes = figure.subplots(**subplots)
    for axis in getattr(axes, "flat", [axes]):
        axis.set_facecolor(colours.background)
        axis.tick_params(colors=colours.ink, labelsize=10)
        axis.grid(True, color=colours.grid, linewidth=0.8)
        axis.set_axisbelow(True)
        for name, spine in axis.spines.items():
            spine.set_color(colours.grid)
            spine.set_visible(name in ("left", "bottom"))
        for text in (axis.xaxis.label, axis.yaxis.label, axis.title):
            text.set_color(colours.ink)
    return figure, axes


def add_legend(axis: Any, *, theme: str = "light", **options: Any) -> None:
    """Add a legend without a frame, in the theme's ink, where there is something to name: matplotlib warns of an empty one."""
    if options.get("handles") or axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, labelcolor=THEMES[theme].ink, fontsize=10, **options)


def set_title(axis: Any, text: str, theme: str, *, x: str = "", y: str = "") -> None:
    """Say above a panel what it shows, and along its axes what they are."""
    axis.set_title(text, loc="left", fontsize=12, color=THEMES[theme].ink)
    axis.set(xlabel=x or axis.get_xlabel(), ylabel=y or axis.get_ylabel())


def add_legend_below(figure: Figure, axes: Any, theme: str, columns: int = 1) -> None:
    """Add one legend for several axes, below the whole, each name once."""
    pairs: dict[str, Any] = {}
    for axis in axes:
        handles, names = axis.get_legend_handles_labels()
        pairs |= dict(zip(names, handles, strict=True))
    if pairs:
        figure.legend(
            pairs.values(), pairs.keys(), loc="outside lower center", ncols=columns, frameon=False, fontsize=10,
            labelcolor=THEMES[theme].ink,
        )  # fmt: skip


def set_log(axis: Any, *names: str, subs: tuple[float, ...] = (1.0, 2.0, 5.0)) -> None:
    """Make axes logarithmic with plain numbers at these multiples of each power of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for name in names:
        getattr(axis, f"set_{name}scale")("log")
        ticks = getattr(axis, f"{name}axis")
        ticks.set_major_locator(LogLocator(subs=subs))
        ticks.set_major_formatter(lambda value, _: f"{value:,.10g}".replace(",", " "))
        ticks.set_minor_formatter(NullFormatter())
        ticks.set_tick_params(which="minor", length=0)


def ink_on(colour: str) -> str:
    """Black or white, whichever is easier to read on a colour (relative luminance as in WCAG 2)."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    return "#000000" if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.18 else "#ffffff"


def shorten(text: str, length: int) -> str:
    """A label that leaves the picture room."""
    return text if len(text) <= length else text[: length - 1] + "…"


def number_alike(names: Iterable[str]) -> list[str]:
    """Names of series, none of which is another's: the second that is called the same is told by its number, as ``name #2``."""
    seen: collections.Counter[str] = collections.Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(f"{name} #{seen[name]}" if seen[name] > 1 else name)
    return found


def to_bytes(figure: Figure, form: str) -> bytes:
    """Draw a figure as ``png`` (160 dots an inch) or ``svg`` (text kept as text, no date, the same bytes each time)."""
    import matplotlib

    _make_harmless(figure)
    stream = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else {}
    settings = {"svg.fonttype": "none", "svg.hashsalt": "harness", "text.parse_math": False}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # A letter that no font has is drawn as a box, and a picture with too little room as it can be: nobody can do anything about it.
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(stream, format=form, dpi=160, metadata=metadata)
    return stream.getvalue()


def _make_harmless(figure: Figure) -> None:
    """Take out of every text what would make the drawing none: a control character, half a surrogate pair, a dollar's formula."""
    from matplotlib.text import Text
    from matplotlib.ticker import FuncFormatter

    for text in figure.findobj(Text):
        text.set_text(_shown(text.get_text()))
        text.set_parse_math(False)
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        formatter = axis.get_major_formatter()
        if isinstance(formatter, FuncFormatter):  # writes its labels anew whenever the figure is drawn
            formatter.func = _write_harmless(formatter.func)


def _write_harmless(write: Callable[[float, int | None], str]) -> Callable[[float, int | None], str]:
    return lambda value, place: _shown(write(value, place))


def _shown(text: str) -> str:
    """A text that does no harm and is no longer than a picture is wide, which would take all memory to be measured."""
    return harmless.lines(shorten(text, _LONGEST_TEXT))
