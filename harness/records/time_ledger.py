"""What a token's time consists of, from raw times: parts, operations, what a cached token costs, loading, an application's gap.

A block's median stands for it, for neighbouring tokens share their luck; medians over the blocks' medians are what is said, with the
order-statistics interval of a median.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.evidence.medians import median, median_interval
from harness.gguf.nodes import ROLES, classify_node
from harness.gguf.reads import TokenReads
from harness.records.token_time import (
    APPLICATION_PARTS,
    APPLICATION_STEPS,
    PARTS,
    WARMUP_TOKENS,
    ApplicationTokens,
    Block,
    TimedLoad,
    TimeRecord,
)
from harness.units import NS_PER_S

#: What is between the calls of a whole token, and what of a token is before the graph's first node and after its last.
DISPATCH, SETUP = "dispatch", "set-up"


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
    kept = [block[WARMUP_TOKENS:] for block in blocks if len(block) > WARMUP_TOKENS]
    medians = [median(block) for block in kept]
    return Figure(median(medians), *_bound(medians), len(kept), sum(map(len, kept)))


def _bound(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Both ends of the median's interval, as fractions like the median itself; none of fewer than 6."""
    found = median_interval(values)
    return (float(found.low), float(found.high)) if found else (None, None)


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
        return self.bytes_per_token / self.slope_ns * NS_PER_S


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
    intercept = median([line.intercept for line in lines])
    return DepthFit(cache_type, median(slopes), *_bound(slopes), intercept, len(lines), bytes_per_token)


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
    roof_bytes_per_s: float | None = None

    @property
    def bandwidth_bytes_per_s(self) -> float | None:
        return self.touched_bytes / self.duration_ns * NS_PER_S if self.touched_bytes and self.duration_ns > 0 else None

    @property
    def roof_share(self) -> float | None:
        speed = self.bandwidth_bytes_per_s
        return speed / self.roof_bytes_per_s if speed is not None and self.roof_bytes_per_s else None


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
    """Everything that `harness token-time` tells; None and empty where it was not measured."""

    depths: tuple[DepthLedger, ...]
    fits: tuple[DepthFit, ...]
    loads: tuple[LoadTime, ...]
    gap: Gap | None
    logits_copy_ns: float | None
    call_ns: float | None
    dispatch_ns: int | None
    cache_type: str
    roof_bytes_per_s: float | None


def make_time_ledger(record: TimeRecord) -> TimeLedger:
    """Derive everything that follows from the times of one model; whatever is missing, the rest stands."""
    main, roof = record.asked.cache_types[0], record.roof_bytes_per_s
    reads = record.reads or TokenReads({}, {})
    by_depth: dict[int, dict[str, list[Block]]] = defaultdict(lambda: defaultdict(list))
    for block in record.blocks:
        if block.cache == main:
            by_depth[block.depth][block.variant].append(block)
    copies = record.copies
    return TimeLedger(
        depths=tuple(
            _account_depth(depth, variants, main, reads, roof)
            for depth, variants in sorted(by_depth.items())
            if "bare" in variants
        ),
        fits=tuple(_fit_caches(record.blocks, reads)),
        loads=tuple(_summarize_loads(record.loads)),
        gap=_explain_gap(record.applications),
        logits_copy_ns=median(copies.logits_copy_ns) if copies and copies.logits_copy_ns else None,
        call_ns=median(copies.call_ns) if copies and copies.call_ns else None,
        dispatch_ns=copies.dispatch_ns if copies else None,
        cache_type=main,
        roof_bytes_per_s=roof,
    )


def _account_depth(
    depth: int, blocks: Mapping[str, Sequence[Block]], main: str, reads: TokenReads, roof: float | None
) -> DepthLedger:
    bare = _median_of(blocks["bare"])
    whole = tuple(_add_up(sampler, blocks[sampler]) for sampler in ("greedy", "chain") if sampler in blocks)
    if "observing" not in blocks or "declining" not in blocks:
        return DepthLedger(depth, bare, whole, (), None)
    n_tokens = len(blocks["bare"][0].token_ns) - WARMUP_TOKENS
    touched = reads.touched_bytes(depth + WARMUP_TOKENS + (n_tokens + 1) // 2, main)
    operations, observer = _take_apart(bare, blocks["observing"], _median_of(blocks["declining"]), touched, roof)
    return DepthLedger(depth, bare, whole, operations, observer)


def _median_of(blocks: Iterable[Block | ApplicationTokens]) -> Figure:
    return summarize_blocks([block.token_ns for block in blocks])


def _add_up(sampler: str, blocks: Sequence[Block]) -> WholeToken:
    parts = {name: summarize_blocks([block.parts_ns[name] for block in blocks]).median_ns for name in PARTS}
    rests = [
        [
            total - sum(spent)
            for total, *spent in zip(block.token_ns, *(block.parts_ns[name] for name in PARTS), strict=True)
        ]
        for block in blocks
    ]
    return WholeToken(sampler, parts | {DISPATCH: summarize_blocks(rests).median_ns}, len(blocks))


def _take_apart(
    bare: Figure, watched: Sequence[Block], declining: Figure, touched: Mapping[str, int | None], roof: float | None
) -> tuple[tuple[Operation, ...], ObserverCost]:
    """The operations of the unobserved token, adding up to it, and what observing cost."""
    # A kind of node that only some blocks have (a graph that was split otherwise) is no part of the usual token.
    names = set.intersection(*(set(block.node_ns) for block in watched))
    node_ns = {name: summarize_blocks([block.node_ns[name] for block in watched]).median_ns for name in names}
    node_count = {name: watched[-1].node_count.get(name, 1) for name in names}
    outside_ns = min(summarize_blocks([block.outside_ns for block in watched]).median_ns, bare.median_ns)
    held, each, scale = divide_token(bare.median_ns, outside_ns, node_ns, node_count)
    by_role: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        by_role[classify_node(name)].append(name)
    operations = [
        Operation(
            role,
            duration_ns := sum(held.get(name, 0.0) for name in by_role[role]),
            duration_ns / bare.median_ns,
            sum(node_ns[name] for name in by_role[role]),
            sum(node_count[name] for name in by_role[role]),
            touched.get(role),
            roof,
        )
        for role in ROLES
        if by_role[role]
    ]
    operations.append(Operation(SETUP, outside_ns, outside_ns / bare.median_ns, outside_ns, 0))
    n_nodes = sum(node_count.values())
    return tuple(operations), ObserverCost(bare, declining, _median_of(watched), n_nodes, each, scale)


def _fit_caches(blocks: Sequence[Block], reads: TokenReads) -> Iterator[DepthFit]:
    """One fit a cache type, from the bench's tokens."""
    rounds: dict[str, dict[int, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for block in blocks:
        if block.variant == "bare":
            rounds[block.cache][block.round].append((block.depth, median(block.token_ns[WARMUP_TOKENS:])))
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


def _summarize_loads(loads: Sequence[TimedLoad]) -> Iterator[LoadTime]:
    ways: dict[tuple[str, str], list[TimedLoad]] = defaultdict(list)
    for load in loads:
        ways[load.state, load.mmap].append(load)
    for (state, mapped), found in ways.items():
        shares = [load.resident_share for load in found if load.resident_share is not None]
        steps = zip(*((i.load_ns, i.context_ns, i.first_token_ns, i.second_token_ns) for i in found), strict=True)
        load_ns, context_ns, first_ns, second_ns = map(median, steps)
        share = median(shares) if len(shares) == len(found) else None
        yield LoadTime(state, mapped, load_ns, context_ns, first_ns, second_ns, share, len(found))


def _explain_gap(tokens: Sequence[ApplicationTokens]) -> Gap | None:
    """Go from the bench's token to the application's, step by step."""
    blocks: dict[str, list[ApplicationTokens]] = defaultdict(list)
    for some in tokens:
        if len(some.token_ns) > WARMUP_TOKENS:
            blocks[some.variant].append(some)
    if any(name not in blocks for name in APPLICATION_STEPS):
        return None
    bench, no_pool, generate, completion = (_median_of(blocks[name]).median_ns for name in APPLICATION_STEPS)
    texts = blocks["completion"]
    decode, sampling, text = (
        summarize_blocks([block.parts_ns[name] for block in texts]).median_ns for name in APPLICATION_PARTS
    )
    steps = {
        "threads": no_pool - bench,
        "decode": decode - no_pool,
        "sampling": sampling,
        "text": text,
        "python": completion - decode - sampling - text,
    }
    n_tokens = sum(len(block.token_ns) - WARMUP_TOKENS for block in texts)
    return Gap(bench, completion, generate, steps, *_measure_text(texts), n_tokens)


def _measure_text(blocks: Sequence[ApplicationTokens]) -> tuple[float | None, float | None, float | None]:
    """Median time in text per token in the first and last quarter of the longest completions, and calls per token."""
    longest = max(len(block.token_ns) for block in blocks)
    long = [block for block in blocks if len(block.token_ns) == longest]
    quarter = (longest - WARMUP_TOKENS) // 4
    calls = median([block.calls.get("text", 0) / max(block.calls.get("sampling", 1), 1) for block in long])
    if quarter < 1:
        return None, None, calls
    texts = [block.parts_ns["text"][WARMUP_TOKENS:] for block in long]
    first = [ns for times in texts for ns in times[:quarter]]
    last = [ns for times in texts for ns in times[-quarter:]]
    return median(first), median(last), calls
