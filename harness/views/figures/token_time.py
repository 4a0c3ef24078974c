"""The time ledger as a picture: a generated token stacked from its operations, one bar a depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.speed.token_time import SETUP, DepthLedger, TimeLedger
from harness.views.figures.style import PALETTE, THEMES, add_legend, ink_on, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What is drawn as one piece, from the bottom up: name and the roles in it. The last is everything else.
GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("FFN matrices", ("ffn gate", "ffn up", "ffn down")),
    ("attention matrices", ("attn q", "attn k", "attn v", "attn qkv", "attn out")),
    ("output head", ("output head",)),
    ("attention over the cache", ("attention", "cache write")),
    ("norms, rope, other operations", ("other matrices", "norms", "rope", "rest", SETUP)),
    ("sampling, logits, text, Python", ()),
)

#: Enough of a bar to write a number into.
_LABELLED_SHARE = 0.08


def stack_token(depth: DepthLedger) -> dict[str, float]:
    """The pieces of one bar in ns: the operations add up to the bench's token, on top of it what an application adds."""
    durations = {operation.role: operation.duration_ns for operation in depth.operations}
    pieces = {name: sum(durations.get(role, 0.0) for role in roles) for name, roles in GROUPS[:-1]}
    chain = next((whole for whole in depth.whole if whole.sampler == "chain"), None)
    around = 0.0 if chain is None else sum(ns for part, ns in chain.parts_ns.items() if part not in ("decode", "wait"))
    return pieces | {GROUPS[-1][0]: around}


def draw_token_time(ledger: TimeLedger, label: str, *, theme: str = "light") -> Figure:
    """Draw the stacked token time against depth, in ms; the figures inside are shares of the bar."""
    depths = [depth for depth in ledger.depths if depth.operations]
    figure, axis = new_figure(8.0, 4.8, theme=theme)
    positions = range(len(depths))
    bottoms = [0.0] * len(depths)
    stacks: list[Mapping[str, float]] = [stack_token(depth) for depth in depths]
    totals = [sum(stack.values()) for stack in stacks]
    for colour, (name, _) in zip(PALETTE, GROUPS, strict=False):
        heights = [stack[name] / 1e6 for stack in stacks]
        axis.bar(
            positions,
            heights,
            0.62,
            bottom=bottoms,
            color=colour,
            label=name,
            edgecolor=THEMES[theme].background,
            linewidth=0.8,
        )
        for x, (height, bottom, total) in enumerate(zip(heights, bottoms, totals, strict=True)):
            if height * 1e6 > _LABELLED_SHARE * total:
                axis.text(
                    x,
                    bottom + height / 2,
                    f"{height * 1e6 / total:.0%}",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color=ink_on(colour),
                )
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    for x, total in enumerate(totals):
        axis.annotate(
            f"{total / 1e6:.3g} ms", (x, bottoms[x]), (0, 3), textcoords="offset points", ha="center",
            fontsize=10, color=THEMES[theme].ink,
        )  # fmt: skip
    axis.set_xticks(list(positions), [f"{depth.depth:,}" for depth in depths])
    axis.set_xlabel("tokens in the cache")
    axis.set_ylabel("ms a generated token")
    title = f"Where a token's time goes: {label}, {ledger.cache_type} cache"
    axis.set_title(title, loc="left", fontsize=11, color=THEMES[theme].ink, parse_math=False)
    axis.grid(False, axis="x")
    axis.margins(y=0.1)
    handles, names = axis.get_legend_handles_labels()
    add_legend(
        axis,
        theme=theme,
        handles=handles[::-1],
        labels=names[::-1],
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
    )
    return figure
