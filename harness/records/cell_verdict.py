"""How far a measured cell may be believed: by what disturbed its repetitions, how much they differ, and what its cautions say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.evidence.medians import median
from harness.evidence.stopping import relative_half_width
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Conditions, Record, Sample
from harness.records.disturbances import (
    CROWDED_CPUS,
    PAGE_READ_S,
    TICK_S,
    Disturbance,
    excess_s,
    find_disturbances,
    is_own_crowd,
    lost_wait_s,
)
from harness.records.trust import Verdict
from harness.units import NS_PER_S

#: A median does not feel a repetition in ten that is off.
RARE_SHARE = 0.10

#: CPUs' worth of time that make a number worthless if others or the hypervisor had them, and the share of the time that does if threads
#: waited so long for a CPU or pages came from disk.
HOPELESS_CPUS, HOPELESS_SHARE = 0.50, 0.25

#: Relative half width of the median's interval: beyond the first a number says less than its digits, beyond the second too little to
#: decide anything by.
WIDE, HOPELESSLY_WIDE = 0.05, 0.20

#: Cautions of a record that speak of noise; the others qualify what was asked for.
NOISE = {
    CautionCause.BUSY_MACHINE,
    CautionCause.CPU_STOLEN,
    CautionCause.CPU_THROTTLED,
    CautionCause.THROTTLED,
}


@dataclass(frozen=True, slots=True)
class Marked:
    """A repetition that counts, and what disturbed it."""

    sample: Sample
    disturbances: tuple[Disturbance, ...]


def mark(record: Record) -> tuple[Marked, ...]:
    """Every timed repetition of a cell with what disturbed it, in the order in which they were run."""
    n_threads, usual_mhz = record.asked.n_threads or 1, _usual_clock(record)
    return tuple(Marked(sample, find_disturbances(sample, n_threads, usual_mhz)) for sample in record.timed)


def _usual_clock(record: Record) -> float | None:
    clocks = [one.conditions.clock_mhz for one in record.timed if one.conditions and one.conditions.clock_mhz]
    return median(clocks) if clocks else None


def undisturbed(record: Record) -> tuple[Sample, ...]:
    """The settled repetitions that nothing disturbed."""
    n_warmups = len(record.timed) - len(record.settled)
    return tuple(one.sample for one in mark(record)[n_warmups:] if not one.disturbances)


def judge_cell(record: Record) -> Verdict | None:
    """Judge a cell; None where nothing was measured."""
    if not record.timed or (record.failure is not None and record.failure.is_fatal):
        return None
    reasons = [caution for caution in record.warnings if caution.distrust or caution.cause in NOISE]
    return Verdict.of([*reasons, *_judge_conditions(record), *_judge_spread(record)])


def _judge_conditions(record: Record) -> Iterator[Caution]:
    marked = mark(record)
    if all(one.sample.conditions is None for one in marked):
        return
    yield from _judge_others(record, marked)
    for disturbance in Disturbance:
        hit = [one.sample for one in marked if disturbance in one.disturbances]
        if disturbance is not Disturbance.OTHERS and len(hit) > RARE_SHARE * len(marked):
            yield _explain(disturbance, hit, len(marked), _usual_clock(record))


def _judge_others(record: Record, marked: Sequence[Marked]) -> Iterator[Caution]:
    """Other programs: by the repetitions that they disturbed, and by the sum of all, for ticks say little of a short repetition.

    The warm-up counts into the sum: others seldom come and go with it.
    """
    seen = [sample.conditions for sample in record.samples if sample.conditions is not None]
    n_threads = record.asked.n_threads or 1
    if any(one.is_server_here for one in seen):
        return
    hit = [one.sample for one in marked if Disturbance.OTHERS in one.disturbances]
    wall_s = sum(one.wall_ns for one in seen) / NS_PER_S
    excess = sum(excess_s(one, n_threads) for one in seen)
    is_crowded = excess > CROWDED_CPUS * wall_s + 2 * TICK_S
    if not is_crowded and len(hit) <= RARE_SHARE * len(marked):
        return
    is_most = 2 * len(hit) > len(marked) or wall_s < len(seen) * 10 * TICK_S
    waited = sum(lost_wait_s(s.conditions, n_threads) for s in record.timed if s.conditions)
    waited_share = waited * NS_PER_S / sum(sample.duration_ns for sample in record.timed)
    cpus = sum((one.busy_s or 0) - (one.own_s or 0) for one in seen) / wall_s
    figures: dict[str, Any] = {"n_disturbed": len(hit), "n_timed": len(marked), "n_cpus": seen[0].n_cpus}
    is_grave = excess > HOPELESS_CPUS * wall_s + 2 * TICK_S or waited_share > HOPELESS_SHARE
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


def _judge_spread(record: Record) -> Iterator[Caution]:
    """The interval of the median over undisturbed repetitions where they suffice for one, else over all."""
    # Of rates, as they are shown: a duration that is 42 % longer is a rate that is 30 % lower.
    quiet = [1 / sample.duration_ns for sample in undisturbed(record)]
    every = [1 / sample.duration_ns for sample in record.settled]
    width = relative_half_width(quiet)
    width = relative_half_width(every) if width is None else width
    if width is not None and width > WIDE:
        yield Caution(CautionCause.WIDE_INTERVAL, distrust=width > HOPELESSLY_WIDE, lost_share=width)


def crowd_of(record: Record) -> Conditions | None:
    """The conditions of a cell that ran more threads than it had CPUs; None where it did not."""
    seen = next((sample.conditions for sample in record.timed if sample.conditions), None)
    return seen if seen is not None and is_own_crowd(seen, record.asked.n_threads or 1) else None
