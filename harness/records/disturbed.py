"""What disturbances come to over several timed pieces of work: which of them are told, and which make the whole worthless."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from harness.evidence.medians import median
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Sample
from harness.records.disturbances import (
    CROWDED_CPUS,
    PAGE_READ_S,
    TICK_S,
    Disturbance,
    exceeds,
    excess_s,
    find_disturbances,
    lost_wait_s,
)
from harness.units import NS_PER_S

#: A median does not feel a repetition in ten that is off, nor one alone where there are enough for an interval.
RARE_SHARE, ENOUGH_FOR_ONE = 0.10, 6

#: CPUs' worth of time that make a number worthless if others or the hypervisor had them, and the share of the time that does if threads
#: waited so long for a CPU or pages came from disk.
HOPELESS_CPUS, HOPELESS_SHARE = 0.50, 0.25


class Marked(NamedTuple):
    """A piece of work that counts, and what disturbed it."""

    sample: Sample
    disturbances: tuple[Disturbance, ...]


def mark_samples(samples: Sequence[Sample], n_threads: int) -> tuple[Marked, ...]:
    """Each of them with what disturbed it."""
    if not _has_conditions(samples):  # thousands of older records are read at once
        return tuple([Marked(sample, ()) for sample in samples])
    usual_mhz = _usual_clock(samples)
    return tuple([Marked(sample, find_disturbances(sample, n_threads, usual_mhz)) for sample in samples])


def _has_conditions(samples: Sequence[Sample]) -> bool:
    return any(sample.conditions is not None for sample in samples)


def _usual_clock(samples: Sequence[Sample]) -> float | None:
    clocks = [one.conditions.clock_mhz for one in samples if one.conditions and one.conditions.clock_mhz]
    return median(clocks) if clocks else None


def judge_conditions(
    samples: Sequence[Sample], n_threads: int, every: Sequence[Sample] | None = None
) -> Iterator[Caution]:
    """What disturbed timed pieces of work together, where it was not rare: repetitions of a cell, blocks of tokens, runs, texts.

    n_threads are those that computed; every has those that do not count too, warm-ups, where it is about the sum of all.
    """
    return judge_marked(mark_samples(samples, n_threads), n_threads, every)


def judge_marked(marked: Sequence[Marked], n_threads: int, every: Sequence[Sample] | None = None) -> Iterator[Caution]:
    """The same of pieces of which it is known already what disturbed each."""
    samples = [one.sample for one in marked]
    if not _has_conditions(samples):
        return
    yield from _judge_others(samples if every is None else every, marked, n_threads)
    if not any(one.disturbances for one in marked):
        return
    seen = {disturbance for one in marked for disturbance in one.disturbances} - {Disturbance.OTHERS}
    for disturbance in sorted(seen, key=list(Disturbance).index):
        hit = [one.sample for one in marked if disturbance in one.disturbances]
        if not _is_rare(len(hit), len(marked)):
            yield _explain(disturbance, hit, len(marked), _usual_clock([one.sample for one in marked]))


def _is_rare(n_hit: int, n_timed: int) -> bool:
    return n_hit <= max(RARE_SHARE * n_timed, 1 if n_timed >= ENOUGH_FOR_ONE else 0)


def _judge_others(samples: Sequence[Sample], marked: Sequence[Marked], n_threads: int) -> Iterator[Caution]:
    """Other programs: by the repetitions that they disturbed, and by the sum of all, for ticks say little of a short repetition.

    The warm-up counts into the sum: others seldom come and go with it.
    """
    seen = [sample.conditions for sample in samples if sample.conditions is not None]
    if True in [one.is_server_here for one in seen]:
        return
    hit = [one.sample for one in marked if Disturbance.OTHERS in one.disturbances]
    wall_s = sum([one.wall_ns for one in seen]) / NS_PER_S
    excess = sum([excess_s(one, n_threads) for one in seen])
    is_crowded = exceeds(excess, CROWDED_CPUS, wall_s)
    if not is_crowded and _is_rare(len(hit), len(marked)):
        return
    is_most = 2 * len(hit) > len(marked) or wall_s < len(seen) * 10 * TICK_S
    timed = [one.sample for one in marked]
    waited = sum(lost_wait_s(sample.conditions, n_threads) for sample in timed if sample.conditions)
    # Of a piece as short as the readings, what its threads waited lies between those.
    spent = sum(max(one.duration_ns, one.conditions.wall_ns if one.conditions else 0) for one in timed)
    waited_share = waited * NS_PER_S / spent
    # What is told is of those that were disturbed; where only the sum shows it, of all.
    told = [sample.conditions for sample in hit if sample.conditions is not None] or seen
    cpus = sum((one.busy_s or 0) - (one.own_s or 0) for one in told) * NS_PER_S / sum(one.wall_ns for one in told)
    figures: dict[str, Any] = {"n_disturbed": len(hit) or len(marked), "n_timed": len(marked), "n_cpus": seen[0].n_cpus}
    is_grave = exceeds(excess, HOPELESS_CPUS, wall_s) or waited_share > HOPELESS_SHARE
    if cpus >= CROWDED_CPUS:
        yield Caution(CautionCause.OTHER_PROGRAMS, distrust=is_most and is_grave, cpus_lost=cpus, **figures)
    else:
        yield Caution(CautionCause.THREADS_WAITED, distrust=is_most and is_grave, lost_share=waited_share, **figures)


def _explain(disturbance: Disturbance, hit: Sequence[Sample], n_timed: int, usual_mhz: float | None) -> Caution:
    """The caution of a disturbance that is not rare; grave where most repetitions had it and it took much of their time."""
    seen = [sample.conditions for sample in hit if sample.conditions is not None]
    wall_s = sum(one.wall_ns for one in seen) / NS_PER_S
    took_s = sum(sample.duration_ns for sample in hit) / NS_PER_S
    is_most = 2 * len(hit) > n_timed
    figures: dict[str, Any] = {"n_disturbed": len(hit), "n_timed": n_timed}
    if disturbance is Disturbance.STEAL:
        cpus = sum(one.stolen_s or 0 for one in seen) / wall_s
        grave = is_most and cpus > HOPELESS_CPUS
        return Caution(CautionCause.TIME_STOLEN, distrust=grave, cpus_lost=cpus, n_cpus=seen[0].n_cpus, **figures)
    if disturbance is Disturbance.QUOTA:
        held_s, n_held = sum(one.held_s or 0 for one in seen), sum(one.n_held or 0 for one in seen)
        return Caution(
            CautionCause.QUOTA_HELD, distrust=is_most and held_s > HOPELESS_CPUS * wall_s, n_held=n_held, **figures
        )
    if disturbance in (Disturbance.PAGE_INS, Disturbance.SWAP):
        is_swap = disturbance is Disturbance.SWAP
        pages = sum((one.n_swapped_pages if is_swap else one.n_major_faults) or 0 for one in seen)
        cause = CautionCause.PAGES_SWAPPED if is_swap else CautionCause.PAGES_READ
        grave = is_most and pages * PAGE_READ_S > HOPELESS_SHARE * took_s
        return Caution(cause, distrust=grave, n_pages=pages // len(seen), **figures)
    if disturbance is Disturbance.SWITCHES:
        n_switched = sum(one.n_switched or 0 for one in seen) // len(seen)
        return Caution(CautionCause.SWITCHED_AWAY, n_switched=n_switched, **figures)
    if disturbance is Disturbance.CLOCK:
        lowest = min(one.clock_mhz or 0 for one in seen)
        return Caution(CautionCause.CLOCK_FELL, lost_share=1 - lowest / (usual_mhz or lowest), **figures)
    return Caution(CautionCause.HEAT, **figures)
