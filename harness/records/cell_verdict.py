"""How far a measured cell may be believed: by what disturbed its repetitions, how much they differ, and what its cautions say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.evidence.medians import median
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Conditions, Record, Sample
from harness.records.disturbances import is_own_crowd
from harness.records.disturbed import Marked, judge_conditions, mark_samples
from harness.records.spread import half_width
from harness.records.trust import Verdict

#: Relative half width of the median's interval: beyond the first a number says less than its digits, beyond the second too little to
#: decide anything by.
WIDE, HOPELESSLY_WIDE = 0.05, 0.20

#: Cautions of a record that speak of noise. Others qualify what was asked for; a card at its power limit runs as it always will.
NOISE = {
    CautionCause.BUSY_MACHINE,
    CautionCause.CPU_STOLEN,
    CautionCause.CPU_THROTTLED,
}


def mark(record: Record) -> tuple[Marked, ...]:
    """Every timed repetition of a cell with what disturbed it, in the order in which they were run."""
    return mark_samples(record.timed, record.asked.n_threads or 1)


def undisturbed(record: Record) -> tuple[Sample, ...]:
    """The repetitions that nothing disturbed."""
    timed = record.timed
    if all(sample.conditions is None for sample in timed):  # thousands of older records are read at once
        return timed
    marked = mark_samples(timed, record.asked.n_threads or 1)
    return tuple(one.sample for one in marked if not one.disturbances)


def judge_cell(record: Record) -> Verdict | None:
    """Judge a cell; None where nothing was measured."""
    timed = record.timed
    if not timed or (record.failure is not None and record.failure.is_fatal):
        return None
    reasons = [caution for caution in record.warnings if caution.distrust or caution.cause in NOISE]
    return Verdict.of(
        [*reasons, *judge_conditions(timed, record.asked.n_threads or 1, record.samples), *_judge_spread(record)]
    )


def _judge_spread(record: Record) -> Iterator[Caution]:
    """The interval of the median over undisturbed repetitions where they suffice for one, else over all.

    Of rates, as they are shown: a duration that is 42 % longer is a rate that is 30 % lower.
    """
    quiet = [1 / sample.duration_ns for sample in undisturbed(record)]
    rates, width = quiet, half_width(record, quiet)
    if width is None:
        rates = [1 / sample.duration_ns for sample in record.timed]
        width = half_width(record, rates)
    if width is not None and width > WIDE:
        distrust = width > HOPELESSLY_WIDE and not _is_one_alone(rates)
        yield Caution(CautionCause.WIDE_INTERVAL, distrust=distrust, lost_share=width)


def _is_one_alone(values: Sequence[float]) -> bool:
    """Whether all but one value lie together: the interval of few repetitions is their range, and the median does not feel one."""
    middle = median(values)
    distances = sorted(abs(value / middle - 1) for value in values)
    return distances[-2] <= WIDE


def crowd_of(record: Record) -> Conditions | None:
    """The conditions of a cell that ran more threads than it had CPUs; None where it did not."""
    seen = next((sample.conditions for sample in record.timed if sample.conditions), None)
    return seen if seen is not None and is_own_crowd(seen, record.asked.n_threads or 1) else None
