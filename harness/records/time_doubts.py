"""What of a time ledger cannot be: costs below zero, sums that do not add up, the same work timed twice and found different.

Every rule says what it looks at and why its limits are where they are; each was met in ledgers taken beside busy loops, and none is met
in those that were taken on a quiet machine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

from harness.evidence.medians import median
from harness.records.cautions import Caution, CautionCause
from harness.records.doubts import ROUNDS, Limits, doubt, doubt_rounds, doubt_same
from harness.records.time_ledger import DepthLedger, Gap, LoadTime, TimeLedger, make_time_ledger
from harness.records.token_time import WARMUP_TOKENS, TimeRecord

#: Steps of the application below zero, as a share of the bench's token: 2 % is noise on a quiet machine.
BELOW_ZERO = Limits(0.05, 0.15)

#: A watched token that is cheaper than one that nobody watched.
WATCHED_CHEAPER = Limits(0.0, 0.05)

#: What watching may add to a token: 7 to 30 % on two cores. Where it is most of what was seen, the shares are the watching's. On a
#: graphics card each node is waited for, which is dear on the quietest machine.
WATCHING_ON_CPU, WATCHING_ELSEWHERE = Limits(0.5, 1.0), Limits(1.0)

#: What the operations' times are multiplied with to fit the token that nobody watched: 0.87 to 0.97 on a quiet machine.
SCALED_UP, SCALED_DOWN = Limits(1.10, 1.25), Limits(1 / 0.7, 1 / 0.4)

#: A token without the observer and one with an observer that looks away: what it takes less. (On a card it may well take more.)
LOOKED_AWAY = Limits(0.10, 0.25)

#: A token with more in its cache that is cheaper than one with less.
DEEPER_CHEAPER = Limits(0.10, 0.25)

#: Times the memory's roof. Caches may hold a small model, and the roof may have been measured in a worse hour; nothing of a GiB and
#: more is read from caches three times as fast.
ABOVE_ROOF, ABOVE_ROOF_IN_CACHE, BEYOND_CACHES_BYTES = Limits(1.5, 3.0), Limits(1.5), 1 << 30

#: Times the time of a token: the second token after a load from memory.
SECOND_TOKEN = Limits(3.0, 10.0)

#: Times the time of a load from the disk: one from memory.
WARM_SLOWER = Limits(1.25, 2.0)

#: Operations that read as many bytes in as many matrices: a wide and a high matrix differ by 1.3 times, two of one shape by 1.03.
SAME_BYTES = Limits(1.6, 2.5)

#: An operation below this share of the token is too short to be compared with another.
WORTH_COMPARING = 0.03


def find_time_doubts(record: TimeRecord, ledger: TimeLedger | None = None) -> list[Caution]:
    """Every doubt about a time ledger; `part` and `depth` say about which of its figures."""
    ledger = ledger or make_time_ledger(record)
    is_on_cpu = record.resolved is not None and not set(record.resolved.layers_by_device) - {"CPU"}
    doubts = [*_doubt_blocks(record), *_doubt_depths(ledger.depths)]
    for depth in ledger.depths:
        doubts += [*_doubt_sums(depth), *_doubt_watching(depth, is_on_cpu=is_on_cpu), *_doubt_operations(depth)]
    doubts += _doubt_fits(ledger)
    token_ns = ledger.depths[0].bare.median_ns if ledger.depths and ledger.depths[0].depth == 0 else None
    doubts += _doubt_loads(ledger.loads, token_ns)
    if ledger.gap:
        doubts += _doubt_application(ledger.gap, token_ns)
    return doubts


def _doubt_blocks(record: TimeRecord) -> Iterator[Caution]:
    """Rounds that do not agree on a token: each block by its median, as the ledger takes it."""
    main, blocks = record.asked.cache_types[0], defaultdict(list)
    for block in record.blocks:
        if block.cache == main:
            blocks[block.variant, block.depth].append(median(block.token_ns[WARMUP_TOKENS:]))
    for (variant, depth), medians in blocks.items():
        yield from doubt_rounds(medians, part=variant, depth=depth)


def _doubt_depths(depths: Sequence[DepthLedger]) -> Iterator[Caution]:
    for less, more in zip(depths, depths[1:], strict=False):
        saved = 1 - more.bare.median_ns / less.bare.median_ns
        yield from doubt(CautionCause.DEEPER_IS_CHEAPER, saved, DEEPER_CHEAPER, share=saved, depth=more.depth)


def _doubt_fits(ledger: TimeLedger) -> Iterator[Caution]:
    """Slopes on which rounds do not agree, by what that comes to at the greatest depth: a slope of nothing has no share."""
    if not ledger.depths:
        return
    deepest = ledger.depths[-1]
    for fit in ledger.fits:
        if fit.low_ns is not None and fit.high_ns is not None:
            width_ns = max(fit.high_ns - fit.slope_ns, fit.slope_ns - fit.low_ns)
            share = width_ns * deepest.depth / deepest.bare.median_ns
            yield from doubt(CautionCause.ROUNDS_DISAGREE, share, ROUNDS, share=share, part=f"slope {fit.cache_type}")


def _doubt_sums(depth: DepthLedger) -> Iterator[Caution]:
    """A whole token's decoding is the bench's token, timed in another loop."""
    for whole in depth.whole:
        decoding = whole.parts_ns["decode"] + whole.parts_ns["wait"]
        yield from doubt_same(decoding, depth.bare.median_ns, part=whole.sampler, other_part="bare", depth=depth.depth)


def _doubt_watching(depth: DepthLedger, *, is_on_cpu: bool) -> Iterator[Caution]:
    if depth.observer is None:
        return
    seen, at = depth.observer, {"depth": depth.depth}
    cost = seen.cost_ns / seen.absent.median_ns
    yield from doubt(CautionCause.WATCHING_CHEAP, -cost, WATCHED_CHEAPER, share=-cost, **at)
    limits = WATCHING_ON_CPU if is_on_cpu else WATCHING_ELSEWHERE
    yield from doubt(CautionCause.WATCHING_DEAR, cost, limits, share=cost, **at)
    saved = 1 - seen.declining.median_ns / seen.absent.median_ns
    yield from doubt(CautionCause.WATCHING_CHEAP, saved, LOOKED_AWAY, share=saved, **at)
    if seen.scale > 0:
        size, limits = (seen.scale, SCALED_UP) if seen.scale > 1 else (1 / seen.scale, SCALED_DOWN)
        yield from doubt(CautionCause.PARTS_MISS_WHOLE, size, limits, times=seen.scale, **at)


def _doubt_operations(depth: DepthLedger) -> Iterator[Caution]:
    """Operations that read the same: q beside the output of attention, k beside v, gate beside up; and the memory's roof."""
    worth = [one for one in depth.operations if one.touched_bytes and one.share >= WORTH_COMPARING]
    for one, other in combinations(worth, 2):
        if (one.touched_bytes, one.n_nodes) == (other.touched_bytes, other.n_nodes):
            times = one.duration_ns, other.duration_ns
            yield from doubt_same(*times, SAME_BYTES, part=one.role, other_part=other.role, depth=depth.depth)
    read_bytes = sum(one.touched_bytes or 0 for one in depth.operations)
    limits = ABOVE_ROOF if read_bytes >= BEYOND_CACHES_BYTES else ABOVE_ROOF_IN_CACHE
    for one in worth:
        share = one.roof_share or 0.0
        yield from doubt(CautionCause.ABOVE_ROOF, share, limits, times=share, part=one.role, depth=depth.depth)


def _doubt_loads(loads: Sequence[LoadTime], token_ns: float | None) -> Iterator[Caution]:
    ways = {(load.state, load.mmap): load for load in loads}
    for (state, mmap), load in ways.items():
        if state != "warm":
            continue
        if token_ns is not None:
            yield from doubt_same(
                load.second_token_ns, token_ns, SECOND_TOKEN, part=f"second mmap {mmap}", other_part="bare"
            )
        if cold := ways.get(("cold", mmap)):
            times = load.load_ns / cold.load_ns
            yield from doubt(CautionCause.WARM_SLOWER, times, WARM_SLOWER, times=times)


def _doubt_application(gap: Gap, token_ns: float | None) -> Iterator[Caution]:
    for name, step_ns in gap.steps_ns.items():
        below = -step_ns / gap.bench_ns
        yield from doubt(CautionCause.BELOW_ZERO, below, BELOW_ZERO, share=below, part=f"step {name}")
    if token_ns is not None:
        yield from doubt_same(gap.bench_ns, token_ns, part="application bench", other_part="bare")
