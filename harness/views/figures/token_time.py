"""The time ledger as a picture: a generated token stacked from its operations, one bar a depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.records.time_ledger import SETUP, DepthLedger, TimeLedger
from harness.views.figures.stack import draw_stack
from harness.views.figures.style import add_legend, new_figure, set_title, shorten
from harness.views.values import ROUND_SHARE, format_value

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
    draw_stack(
        axis, [{name: ns / 1e6 for name, ns in stack_token(depth).items()} for depth in depths], [name for name, _ in GROUPS],
        theme, is_upright=True,
        write=lambda size, total: format_value(size / total, ROUND_SHARE) if size > _LABELLED_SHARE * total else None,
        write_sum=lambda total: f"{total:.3g} ms",
    )  # fmt: skip
    axis.set_xticks(range(len(depths)), [f"{depth.depth:,}" for depth in depths])
    title = f"Where a token's time goes: {shorten(label, 40)}, {ledger.cache_type} cache"
    set_title(axis, title, theme, x="tokens in the cache", y="ms a generated token")
    axis.margins(y=0.1)
    handles, names = axis.get_legend_handles_labels()
    add_legend(
        axis, theme=theme, handles=handles[::-1], labels=names[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5)
    )
    return figure
