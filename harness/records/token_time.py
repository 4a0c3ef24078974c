"""Where a generated token's time goes, from raw times: parts, operations, what a cached token costs, loading, an application's gap.

The unit of evidence is a block: some tokens of one variant, timed without a break. Its median stands for it, for neighbouring tokens
share their luck; medians over the blocks' medians are what is told, with the order-statistics interval of a median.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.gguf.attention import describe_attention
from harness.gguf.cost import read_weights
from harness.gguf.header import Header
from harness.gguf.roles import find_role
from harness.spec import RunSpec

#: History of the line format of kind "time-ledger". 1 (2026-11): first.
SCHEMA = 1

#: The first tokens of a block find another variant's data in the caches and are left out.
WARMUP_TOKENS = 1

#: What a whole token consists of, in the order in which it happens; dispatch is all that is between the calls.
PARTS = ("decode", "wait", "logits", "sampling", "text")
DISPATCH = "dispatch"

#: Separates operation, node, first and second source in the name of a kind of node.
NAME_SEPARATOR = "\t"

#: What the operations of a graph are for, in the order in which a token meets them.
ROLES = (
    "attn q", "attn k", "attn v", "attn qkv", "attention", "cache write", "attn out", "ffn gate", "ffn up", "ffn down", "output head",
    "other matrices", "norms", "rope", "rest",
)  # fmt: skip
SETUP = "set-up"
#: Roles that read so few bytes from memory that a bandwidth would say nothing.
_WITHOUT_BYTES = frozenset({"norms", "rope", "rest", "cache write"})

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class TimePlan:
    """What the worker is to time.

    depths in tokens; n_tokens timed in a block, rounds blocks of each variant; the first of cache_types is taken apart, the others
    are only fitted. load_rounds and application_tokens of 0 leave those out; files are all parts of the model.
    """

    spec: RunSpec
    depths: tuple[int, ...]
    files: tuple[str, ...]
    rounds: int = 7
    n_tokens: int = 8
    cache_types: tuple[str, ...] = ("f16", "q8_0")
    load_rounds: int = 3
    application_tokens: int = 32

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        names = ("depths", "files", "rounds", "n_tokens", "cache_types", "load_rounds", "application_tokens")
        values = {name: getattr(self, name) for name in names}
        return {"spec": self.spec.to_dict()} | {
            name: list(value) if isinstance(value, tuple) else value for name, value in values.items()
        }


# Names of nodes and tensors.

_NUMBERED = re.compile(r"(?<=blk\.)\d+|(?<=-)\d+|(?<=_l)\d+|(?<=node_)\d+|(?<=leaf_)\d+")


def anonymize(name: str) -> str:
    """Take the layer out of a node's or tensor's name: ``blk.3.ffn_up.weight`` → ``blk.#.ffn_up.weight``, ``Qcur-3`` → ``Qcur-#``."""
    return _NUMBERED.sub("#", name)


#: Matrices that a graph names only by their product. Source: src/models/*.cpp, src/llama-graph.cpp cb() calls.
_PRODUCTS = {
    "Qcur": "attn q", "Kcur": "attn k", "Vcur": "attn v", "wqkv": "attn qkv", "attn_out": "attn out", "ffn_gate": "ffn gate",
    "ffn_up": "ffn up", "ffn_out": "ffn down", "ffn_down": "ffn down", "result_output": "output head",
    "ffn_moe_gate": "ffn gate", "ffn_moe_up": "ffn up", "ffn_moe_down": "ffn down",
}  # fmt: skip
_PRODUCT_OPS = frozenset({"MUL_MAT", "MUL_MAT_ID"})
_NORM_OPS = frozenset({"RMS_NORM", "NORM", "L2_NORM", "GROUP_NORM"})
_CACHE = re.compile(r"cache_[kvr](_|\b)")


def classify_node(name: str) -> str:
    """The role of a kind of node: operation, node and, where known, its two sources, joined by `NAME_SEPARATOR`."""
    op, node, source, second = [*name.split(NAME_SEPARATOR), "", "", ""][:4]
    base = node.split("-")[0].split(" ")[0]
    if op == "ROPE":
        return "rope"
    if op in ("FLASH_ATTN_EXT",) or (op == "SOFT_MAX" and node.startswith("kq")) or base in ("kq", "kqv", "kqv_out"):
        return "attention"
    if op in ("SET_ROWS", "CPY") and _CACHE.search(f"{node} {source} {second}"):
        return "cache write"
    if op in _PRODUCT_OPS:
        return _classify_product(base, source)
    return "norms" if op in _NORM_OPS or _scales_norm(op, base, second) else "rest"


def _scales_norm(op: str, base: str, second: str) -> bool:
    """Tell a norm's own factor or bias from the weights of experts, which are normed too."""
    if op not in ("MUL", "ADD"):
        return False
    if second:
        return "norm" in second and second.endswith((".weight", ".bias"))
    return base.endswith("norm") and "moe" not in base


def _classify_product(base: str, source: str) -> str:
    if _CACHE.search(source) or base.startswith("kq"):
        return "attention"
    if (weight := source.removesuffix(" (reshaped)")).endswith(".weight"):
        # The token embeddings as a matrix: a tied output.
        return find_role(weight).work or "output head"
    return _PRODUCTS.get(base, "other matrices" if source.startswith("blk.") else "rest")


# Bytes.


def weights_by_role(header: Header) -> dict[str, int]:
    """Bytes of matrices that one token reads, by role: of experts only those that it visits; a tied output reads the embeddings."""
    found: dict[str, int] = defaultdict(int)
    for read in read_weights(header):
        # What is looked up has no role, and of it only a tied output is read.
        role = find_role(read.tensor.name).work or "output head"
        if role not in _WITHOUT_BYTES:
            found[role] += int(read.size_bytes)
    return dict(found)


@dataclass(frozen=True, slots=True)
class TokenReads:
    """What a token reads from memory, by the model's header: bytes of matrices by role, and of a cached token by cache type.

    A cached token's bytes are None where they are not known; windowed_bytes are those of the layers that look back window_tokens only
    (empty in records of before, where beyond the window nothing is known).
    """

    weights_bytes: Mapping[str, int]
    cache_bytes: Mapping[str, int | None]
    window_tokens: int | None = None
    windowed_bytes: Mapping[str, int | None] = field(default_factory=dict)

    def attention_bytes(self, n_cells: int, cache_type: str) -> int | None:
        """Bytes that one token's attention reads with n_cells tokens in the cache; None where it is not known."""
        per_token, window = self.cache_bytes.get(cache_type), self.window_tokens
        if per_token is None:
            return None
        if window is None or n_cells <= window:
            return per_token * n_cells
        windowed = self.windowed_bytes.get(cache_type)
        return None if windowed is None else (per_token - windowed) * n_cells + windowed * window

    def touched_bytes(self, n_cells: int, cache_type: str) -> dict[str, int | None]:
        """Bytes that one token must read from memory, by role: weights, and for the attention the n_cells tokens in the cache.

        Activations are left out: they stay in the CPU's caches.
        """
        return {**self.weights_bytes, "attention": self.attention_bytes(n_cells, cache_type)}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "weights_bytes": dict(self.weights_bytes),
            "cache_bytes": dict(self.cache_bytes),
            "window_tokens": self.window_tokens,
            "windowed_bytes": dict(self.windowed_bytes),
        }


def count_reads(header: Header, cache_types: Iterable[str]) -> TokenReads:
    """What a token of a model reads, with caches of these types."""
    attention = describe_attention(header)
    costs = {kind: attention.cost(kind) for kind in cache_types}
    return TokenReads(
        weights_by_role(header),
        {kind: attention.bytes_per_token(kind) for kind in costs},
        attention.window_tokens,
        {kind: None if cost is None else cost.windowed_bytes_per_token for kind, cost in costs.items()},
    )


def touched_bytes(header: Header, n_cells: int, cache_type: str) -> dict[str, int | None]:
    """As `TokenReads.touched_bytes`, from a header."""
    return count_reads(header, (cache_type,)).touched_bytes(n_cells, cache_type)


# Medians and fits.


@dataclass(frozen=True, slots=True)
class Figure:
    """A median over blocks in ns, with its interval (None where there are too few blocks for one)."""

    median_ns: float
    low_ns: float | None
    high_ns: float | None
    n_blocks: int
    n_tokens: int


def summarize_blocks(blocks: Sequence[Sequence[int]]) -> Figure:
    """The median of the blocks' medians, each without its first tokens.

    Raises
    ------
    ValueError : no block has a token beyond those.
    """
    kept = [block for block in (list(values)[WARMUP_TOKENS:] for values in blocks) if block]
    medians = [statistics.median(block) for block in kept]
    low, high = bound_median(medians)
    return Figure(statistics.median(medians), low, high, len(kept), sum(map(len, kept)))


def bound_median(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float | None, float | None]:
    """The order-statistics interval of a median; (None, None) where there are too few values (fewer than 6 at 0.95).

    Source: scipy.stats.quantile_test (W. J. Conover, Practical Nonparametric Statistics, 3.2).
    """
    from scipy.stats import quantile_test

    if len(values) < 2:
        return None, None
    low, high = quantile_test(list(values), p=0.5).confidence_interval(confidence)
    return (None, None) if math.isnan(low) or math.isnan(high) else (float(low), float(high))


@dataclass(frozen=True, slots=True)
class DepthFit:
    """What a token in the cache adds to each token: ns per cached token, with the interval of the median over the rounds' slopes.

    intercept_ns is the token at depth 0 by the same lines. bytes_per_token is what a cached token takes, None where unknown.
    """

    cache_type: str
    slope_ns: float
    low_ns: float | None
    high_ns: float | None
    intercept_ns: float
    n_rounds: int
    bytes_per_token: int | None

    @property
    def bandwidth_bytes_per_s(self) -> float | None:
        """The speed at which the cache is read, if reading it is all that depth costs."""
        if self.bytes_per_token is None or self.slope_ns <= 0:
            return None
        return self.bytes_per_token / self.slope_ns * 1e9


def fit_depth(
    rounds: Iterable[Sequence[tuple[int, float]]], cache_type: str, bytes_per_token: int | None = None
) -> DepthFit | None:
    """Fit a straight line through each round's (depth, ns) and take the median of the slopes.

    A round's depths were timed one after the other, so what slows the machine for longer than a round moves a line and does not
    turn it; that is why the lines are fitted one by one. None where no round has two depths.
    """
    lines = [
        statistics.linear_regression([float(depth) for depth, _ in points], [ns for _, ns in points])
        for points in rounds
        if len({depth for depth, _ in points}) > 1
    ]
    if not lines:
        return None
    slopes = [line.slope for line in lines]
    low, high = bound_median(slopes)
    intercept = statistics.median(line.intercept for line in lines)
    return DepthFit(cache_type, statistics.median(slopes), low, high, intercept, len(lines), bytes_per_token)


# One depth.


@dataclass(frozen=True, slots=True)
class WholeToken:
    """A token with everything that an application does to it; parts_ns by name, and they add up to total_ns."""

    sampler: str
    parts_ns: Mapping[str, float]
    n_blocks: int

    @property
    def total_ns(self) -> float:
        return sum(self.parts_ns.values())


@dataclass(frozen=True, slots=True)
class Operation:
    """What one role of operations takes in an unobserved token.

    share is of the unobserved token; observed_ns what the observer saw; n_nodes how many nodes a token has of it. touched_bytes and
    what follows from it are None where nothing but activations is read, or where it is not known.
    """

    role: str
    duration_ns: float
    share: float
    observed_ns: float
    n_nodes: int
    touched_bytes: int | None = None
    bandwidth_bytes_per_s: float | None = None
    roof_share: float | None = None


@dataclass(frozen=True, slots=True)
class ObserverCost:
    """A token without the observer, with one that declines, and with one that watches; in ns.

    inside_ns is what was taken off each node for being watched; scale what the rest was multiplied with to fit the unobserved token.
    """

    absent: Figure
    declining: Figure
    observing: Figure
    n_nodes: int
    inside_ns: float
    scale: float

    @property
    def cost_ns(self) -> float:
        return self.observing.median_ns - self.absent.median_ns


@dataclass(frozen=True, slots=True)
class DepthLedger:
    """One depth: the bench's token, whole tokens by sampler, operations (adding up to the bench's token), the observer's cost."""

    depth: int
    bare: Figure
    whole: tuple[WholeToken, ...]
    operations: tuple[Operation, ...]
    observer: ObserverCost | None


def divide_token(
    unobserved_ns: float, outside_ns: float, node_ns: Mapping[str, float], node_count: Mapping[str, int]
) -> tuple[dict[str, float], float, float]:
    """Bring the observed times of nodes down to the token that nobody watched.

    Watching adds the same to each node: a call back and forth, waking the threads, waiting for them. That much is taken off each,
    but never more than the cheapest kind of node took; what is still too much (or too little) is shared out in proportion.

    Parameters
    ----------
    outside_ns : the part of the token before the first node and after the last one
    node_ns    : by kind of node, all of a token's nodes of that kind together
    node_count : by kind of node

    Returns
    -------
    The nodes' times, adding up to unobserved_ns - outside_ns (at least 0); what was taken off each node; the scale.
    """
    inside_ns = max(unobserved_ns - outside_ns, 0.0)
    seen, n_nodes = sum(node_ns.values()), sum(node_count[name] for name in node_ns)
    if not seen or not n_nodes:
        return {}, 0.0, 1.0
    cheapest = min(ns / node_count[name] for name, ns in node_ns.items())
    each = min(max((seen - inside_ns) / n_nodes, 0.0), cheapest)
    held = {name: ns - each * node_count[name] for name, ns in node_ns.items()}
    left = sum(held.values())
    if left <= 0:  # every node is as cheap as the cheapest
        held, left, each = dict(node_ns), seen, 0.0
    scale = inside_ns / left
    return {name: ns * scale for name, ns in held.items()}, each, scale


# The whole.


@dataclass(frozen=True, slots=True)
class LoadTime:
    """One way of loading, medians in ns; resident_share is what of the file was in memory before (None: not known)."""

    state: str
    mmap: str
    load_ns: float
    context_ns: float
    first_token_ns: float
    second_token_ns: float
    resident_share: float | None
    n: int

    @property
    def ready_ns(self) -> float:
        """From nothing to the first token."""
        return self.load_ns + self.context_ns + self.first_token_ns


@dataclass(frozen=True, slots=True)
class Gap:
    """Why an application is slower than the bench: steps_ns add up from bench_ns to completion_ns.

    A step below zero is noise, or a token that was cheaper in the application. text_first_ns and text_last_ns are what turning
    tokens into text takes per token in the first and the last quarter of the completion: the binding spells all of it anew each time.
    """

    bench_ns: float
    completion_ns: float
    generate_ns: float
    steps_ns: Mapping[str, float]
    text_first_ns: float | None
    text_last_ns: float | None
    text_calls_per_token: float | None
    n_tokens: int


@dataclass(frozen=True, slots=True)
class TimeLedger:
    """Everything that `harness overhead --time` tells; None and empty where it was not measured."""

    depths: tuple[DepthLedger, ...]
    fits: tuple[DepthFit, ...]
    loads: tuple[LoadTime, ...]
    gap: Gap | None
    logits_copy_ns: float | None
    call_ns: float | None
    dispatch_ns: int | None
    cache_type: str
    roof_bytes_per_s: float | None


def build_ledger(
    raw: Mapping[str, Any], header: Header | None = None, roof_bytes_per_s: float | None = None
) -> TimeLedger:
    """Derive the ledger from a line of kind "time-ledger" and the model's header.

    Parameters
    ----------
    raw              : what `collect_events` made of the worker's events; any part may be missing
    header           : of the model; without it the line's own ``reads`` are taken, and where it has none no bytes are told
    roof_bytes_per_s : the memory bandwidth that was measured on this machine
    """
    blocks = raw.get("blocks", [])
    caches = raw["asked"]["cache_types"]
    main = caches[0]
    kept = raw.get("reads")
    reads = count_reads(header, caches) if header else TokenReads(**kept) if kept else TokenReads({}, {})
    by_key: dict[tuple[int, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for block in blocks:
        by_key[block["depth"], block["cache"], block["variant"]].append(block)
    depths = sorted({depth for depth, cache, variant in by_key if cache == main and variant == "bare"})
    copies = raw.get("copies") or {}
    return TimeLedger(
        depths=tuple(_build_depth(depth, by_key, main, reads, roof_bytes_per_s) for depth in depths),
        fits=tuple(_fit_caches(blocks, reads)),
        loads=tuple(_summarize_loads(raw.get("loads", []))),
        gap=_explain_gap(raw.get("applications", [])),
        logits_copy_ns=_median_or_none(copies.get("logits_copy_ns")),
        call_ns=_median_or_none(copies.get("call_ns")),
        dispatch_ns=copies.get("dispatch_ns"),
        cache_type=main,
        roof_bytes_per_s=roof_bytes_per_s,
    )


def _median_or_none(values: Sequence[float] | None) -> float | None:
    return statistics.median(values) if values else None


def _build_depth(
    depth: int, by_key: Mapping[tuple[int, str, str], list[Any]], main: str, reads: TokenReads, roof: float | None
) -> DepthLedger:
    bare_blocks = by_key[depth, main, "bare"]
    bare = summarize_blocks([block["token_ns"] for block in bare_blocks])
    whole = [_add_up(name, by_key[depth, main, name]) for name in ("greedy", "chain") if (depth, main, name) in by_key]
    watched = by_key.get((depth, main, "observing"), [])
    declining = by_key.get((depth, main, "declining"), [])
    if not watched or not declining:
        return DepthLedger(depth, bare, tuple(whole), (), None)
    n_tokens = len(bare_blocks[0]["token_ns"]) - WARMUP_TOKENS
    touched = reads.touched_bytes(depth + WARMUP_TOKENS + (n_tokens + 1) // 2, main)
    operations, observer = _take_apart(bare, watched, declining, touched, roof)
    return DepthLedger(depth, bare, tuple(whole), operations, observer)


def _add_up(sampler: str, blocks: Sequence[Mapping[str, Any]]) -> WholeToken:
    parts = {name: summarize_blocks([block["parts_ns"][name] for block in blocks]).median_ns for name in PARTS}
    rests = [
        [total - sum(block["parts_ns"][name][i] for name in PARTS) for i, total in enumerate(block["token_ns"])]
        for block in blocks
    ]
    return WholeToken(sampler, parts | {DISPATCH: summarize_blocks(rests).median_ns}, len(blocks))


def _take_apart(
    bare: Figure,
    watched: Sequence[Mapping[str, Any]],
    declining: Sequence[Mapping[str, Any]],
    touched: Mapping[str, int | None],
    roof: float | None,
) -> tuple[tuple[Operation, ...], ObserverCost]:
    """The operations of the unobserved token, adding up to it, and what observing cost."""
    # A kind of node that only some blocks have (a graph that was split otherwise) is no part of the usual token.
    names = set.intersection(*(set(block["node_ns"]) for block in watched))
    node_ns = {name: summarize_blocks([block["node_ns"][name] for block in watched]).median_ns for name in names}
    node_count = {name: watched[-1]["node_count"].get(name, 1) for name in names}
    outside_ns = min(summarize_blocks([block["outside_ns"] for block in watched]).median_ns, bare.median_ns)
    held, each, scale = divide_token(bare.median_ns, outside_ns, node_ns, node_count)
    durations: dict[str, float] = defaultdict(float)
    observed: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for name in names:
        role = classify_node(name)
        durations[role] += held.get(name, 0.0)
        observed[role] += node_ns[name]
        counts[role] += node_count[name]
    rows = []
    for role in (*ROLES, SETUP):
        if role == SETUP:
            rows.append(Operation(SETUP, outside_ns, outside_ns / bare.median_ns, outside_ns, 0))
        elif counts.get(role):
            rows.append(
                _weigh(role, durations[role], bare.median_ns, observed[role], counts[role], touched.get(role), roof)
            )
    cost = ObserverCost(
        absent=bare,
        declining=summarize_blocks([block["token_ns"] for block in declining]),
        observing=summarize_blocks([block["token_ns"] for block in watched]),
        n_nodes=sum(node_count.values()),
        inside_ns=each,
        scale=scale,
    )
    return tuple(rows), cost


def _weigh(
    role: str,
    duration_ns: float,
    token_ns: float,
    observed_ns: float,
    n_nodes: int,
    size: int | None,
    roof: float | None,
) -> Operation:
    """Put bytes and time together."""
    bandwidth = size / duration_ns * 1e9 if size and duration_ns > 0 else None
    share = bandwidth / roof if bandwidth is not None and roof else None
    return Operation(role, duration_ns, duration_ns / token_ns, observed_ns, n_nodes, size, bandwidth, share)


def _fit_caches(blocks: Sequence[Mapping[str, Any]], reads: TokenReads) -> Iterable[DepthFit]:
    """One fit a cache type, from the bench's tokens."""
    rounds: dict[str, dict[int, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for block in blocks:
        kept = block["token_ns"][WARMUP_TOKENS:]
        if block["variant"] == "bare" and kept:
            rounds[block["cache"]][block["round"]].append((block["depth"], statistics.median(kept)))
    for cache_type, found in rounds.items():
        depths = [depth for points in found.values() for depth, _ in points]
        fit = fit_depth(found.values(), cache_type, _count_growth(reads, cache_type, min(depths), max(depths)))
        if fit is not None:
            yield fit


def _count_growth(reads: TokenReads, cache_type: str, low: int, high: int) -> int | None:
    """Bytes that a cached token adds to each token's reading, on average between two depths; None where it is not known."""
    if low == high or reads.window_tokens is None or high <= reads.window_tokens:
        return reads.cache_bytes.get(cache_type)
    first, last = (reads.attention_bytes(depth, cache_type) for depth in (low, high))
    return None if first is None or last is None else round((last - first) / (high - low))


def _summarize_loads(events: Sequence[Mapping[str, Any]]) -> Iterable[LoadTime]:
    ways: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        ways[event["state"], event["mmap"]].append(event)
    for (state, mapped), found in ways.items():
        shares = [event["resident_share"] for event in found]
        figures = {
            name: statistics.median(event[name] for event in found)
            for name in ("load_ns", "context_ns", "first_token_ns", "second_token_ns")
        }
        share = None if any(value is None for value in shares) else statistics.median(shares)
        yield LoadTime(state, mapped, resident_share=share, n=len(found), **figures)


def _explain_gap(events: Sequence[Mapping[str, Any]]) -> Gap | None:
    """Go from the bench's token to the application's, step by step."""
    blocks: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        if len(event["token_ns"]) > WARMUP_TOKENS:
            blocks[event["variant"]].append(event)
    if any(not blocks.get(name) for name in ("bench", "no pool", "generate", "completion")):
        return None
    medians = {
        name: summarize_blocks([block["token_ns"] for block in found]).median_ns for name, found in blocks.items()
    }
    parts = {
        name: summarize_blocks([block["parts_ns"][name] for block in blocks["completion"]]).median_ns
        for name in ("decode", "sampling", "text")
    }
    completion = medians["completion"]
    steps = {
        "threads": medians["no pool"] - medians["bench"],
        "decode": parts["decode"] - medians["no pool"],
        "sampling": parts["sampling"],
        "text": parts["text"],
        "python": completion - sum(parts.values()),
    }
    first, last, calls = _measure_text(blocks["completion"])
    return Gap(
        medians["bench"], completion, medians["generate"], steps, first, last, calls,
        sum(len(block["token_ns"]) - WARMUP_TOKENS for block in blocks["completion"]),
    )  # fmt: skip


def _measure_text(blocks: Sequence[Mapping[str, Any]]) -> tuple[float | None, float | None, float | None]:
    """Median time in text per token in the first and last quarter of the longest completions, and calls per token."""
    longest = max(len(block["token_ns"]) for block in blocks)
    long = [block for block in blocks if len(block["token_ns"]) == longest]
    quarter = (longest - WARMUP_TOKENS) // 4
    calls = statistics.median(
        block["calls"].get("text", 0) / max(block["calls"].get("sampling", 1), 1) for block in long
    )
    if quarter < 1:
        return None, None, calls
    first = [ns for block in long for ns in block["parts_ns"]["text"][WARMUP_TOKENS : WARMUP_TOKENS + quarter]]
    last = [ns for block in long for ns in block["parts_ns"]["text"][-quarter:]]
    return statistics.median(first), statistics.median(last), calls
