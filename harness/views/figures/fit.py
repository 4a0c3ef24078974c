"""Memory over the context: a line for each type of cache, below what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.runs.fit import Fitting
from harness.units import GIB
from harness.views.figures.style import PALETTE, THEMES, add_legend, new_figure, set_title, shorten
from harness.views.settings import format_cache

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_fit(fitting: Fitting, *, theme: str = "light") -> Figure:
    """Draw what each type of cache takes of all cards (of memory, where there are none) over the context, and mark the largest."""
    figure, axis = new_figure(8.0, 4.5, theme=theme)
    cards = fitting.space.devices
    rooms = [card.memory_bytes for card in cards] if cards else [fitting.space.host_bytes]
    for number, item in enumerate(fitting.fits):
        if item.packing is None:
            continue
        colour = PALETTE[number % len(PALETTE)]
        name = format_cache(item.type_k, item.type_v)
        contexts, sizes = [n_ctx for n_ctx, _ in item.curve], [size / GIB for _, size in item.curve]
        layers = f", {item.packing.n_layers_on_cards} layers" if cards else ""
        axis.plot(contexts, sizes, color=colour, linewidth=2, label=f"{name}{layers}")
        if item.fits:
            taken = item.packing.cards or (item.packing.host,)
            axis.plot(
                item.packing.spec.n_ctx_seq,
                sum(one.total_bytes for one in taken) / GIB,
                "o",
                color=colour,
                markersize=8,
            )
    if None not in rooms:
        room = sum(size or 0 for size in rooms) / GIB
        axis.axhline(room, color=THEMES[theme].ink, linewidth=1.2, linestyle="--", label=f"there are {room:.1f} GiB")
    axis.set_ylim(bottom=0)
    where = "on the cards" if len(cards) > 1 else "on the card" if cards else "of memory"
    title = f"What a context takes\n{shorten(fitting.subject.label, 50)}"
    set_title(axis, title, theme, x="tokens of context", y=f"GiB {where}")
    add_legend(axis, theme=theme)
    return figure
