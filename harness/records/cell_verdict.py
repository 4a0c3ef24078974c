"""How far a measured cell may be believed: by what disturbed its repetitions, how much they differ, and what its cautions say."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator, Sequence

from harness.evidence.medians import median
from harness.evidence.modes import find_two_levels
from harness.evidence.stopping import as_rates
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Record, Sample, has_died
from harness.records.disturbances import is_own_crowd
from harness.records.disturbed import Marked, judge_marked, mark_samples
from harness.records.doubts import gravest
from harness.records.spread import half_width
from harness.records.trust import QUIET, Verdict

#: Relative half width of the median's interval: beyond the first a number says less than its digits, beyond the second too little to
#: decide anything by.
WIDE, HOPELESSLY_WIDE = 0.05, 0.20

#: Two speeds that lie so far apart, as a share of the lower, are told.
APART = 0.04

#: A clock below this share of the highest tells of a battery, a governor or a limit. With every core at work a processor has half of
#: its highest clock and more; only thin laptops come near this for their power.
LOW_CLOCK = 1 / 3

#: Cautions of a record that speak of noise. Others qualify what was asked for; a card at its power limit runs as it always will.
NOISE = {
    CautionCause.BUSY_MACHINE,
    CautionCause.CPU_STOLEN,
    CautionCause.CPU_THROTTLED,
}


def mark(record: Record) -> tuple[Marked, ...]:
    """Every timed repetition of a cell with what disturbed it, in the order in which they were run."""
    return mark_samples(record.timed, record.asked.n_threads_busy or 1)


def undisturbed(marked: Sequence[Marked]) -> tuple[Sample, ...]:
    """The repetitions that nothing disturbed."""
    return tuple([one.sample for one in marked if not one.disturbances])


def own_noise(cautions: Iterable[Caution]) -> list[Caution]:
    """Of a record's own cautions those that speak of noise."""
    return [caution for caution in cautions if caution.distrust or caution.cause in NOISE]


def judge_cell(record: Record, marked: Sequence[Marked] | None = None) -> Verdict | None:
    """Judge a cell, of whose repetitions it may be known already what disturbed them; None where nothing was measured."""
    marked = mark(record) if marked is None else marked
    if not marked or has_died(record):
        return None
    timed, quiet = [one.sample for one in marked], undisturbed(marked)
    disturbed = judge_marked(marked, record.asked.n_threads_busy or 1, record.samples)
    rates = _rates(timed)
    quiet_rates = rates if len(quiet) == len(timed) else _rates(quiet)
    found = (
        *own_noise(record.warnings),
        *disturbed,
        *_judge_spread(record, rates, quiet_rates),
        *_judge_levels(timed, quiet_rates),
    )
    return Verdict.of(found) if found else QUIET


def judge_cells(cells: Iterable[Record], warnings: Sequence[Caution], but: Collection[CautionCause]) -> Verdict | None:
    """Judge what several cells were measured for: of each cause the gravest, once, but those that say nothing here; None where nothing
    was measured. warnings are of all of it."""
    verdicts = [verdict for cell in cells if (verdict := judge_cell(cell))]
    if not verdicts:
        return None
    reasons = [*(reason for verdict in verdicts for reason in verdict.reasons), *warnings]
    return Verdict.of(gravest(reason for reason in reasons if reason.cause not in but))


def _rates(samples: Sequence[Sample]) -> list[float]:
    return as_rates([sample.duration_ns for sample in samples])


def _judge_spread(record: Record, timed: Sequence[float], quiet: Sequence[float]) -> Iterator[Caution]:
    """The interval of the median over undisturbed repetitions where they suffice, else over all. Of rates, as they are shown."""
    rates = quiet
    width = half_width(record, rates)
    if width is None and len(timed) > len(quiet):
        rates = timed
        width = half_width(record, rates)
    if width is not None and width > WIDE:
        distrust = width > HOPELESSLY_WIDE and not _is_one_alone(rates)
        yield Caution(CautionCause.WIDE_INTERVAL, distrust=distrust, lost_share=width)


def _is_one_alone(values: Sequence[float]) -> bool:
    """Whether all but one value lie together: the interval of few repetitions is their range, and the median does not feel one."""
    middle = median(values)
    distances = sorted(abs(value / middle - 1) for value in values)
    return distances[-2] <= WIDE


def _judge_levels(timed: Sequence[Sample], quiet: Sequence[float]) -> Iterator[Caution]:
    """Rates of undisturbed repetitions at two speeds, for which nothing is to blame, and a clock far below what the processor can
    have."""
    levels = find_two_levels(quiet)
    if levels is not None and levels[1] / levels[0] - 1 > APART:
        yield Caution(CautionCause.TWO_SPEEDS, lost_share=levels[1] / levels[0] - 1)
    seen = [sample.conditions for sample in timed if sample.conditions is not None]
    clocks = [(one.clock_mhz, one.clock_limit_mhz) for one in seen if one.clock_mhz and one.clock_limit_mhz]
    if clocks:
        clock, limit = median([clock for clock, _ in clocks]), max(limit for _, limit in clocks)
        if clock < LOW_CLOCK * limit:
            yield Caution(CautionCause.CLOCK_LOW, clock_mhz=clock, clock_limit_mhz=limit)


def find_own_crowd(record: Record, timed: Sequence[Sample]) -> Caution | None:
    """What is to be said of a cell that ran more threads than it had CPUs: our own doing, and no noise. None where it did not."""
    seen = next((one for sample in timed if (one := sample.conditions) is not None), None)
    n_threads = record.asked.n_threads_busy or 1
    if seen is None or not is_own_crowd(seen, n_threads):
        return None
    return _own_crowd(n_threads, seen.n_cpus)


@functools.lru_cache(64)
def _own_crowd(n_threads: int, n_cpus: int) -> Caution:
    return Caution(CautionCause.OWN_CROWD, n_threads=n_threads, n_cpus=n_cpus)
