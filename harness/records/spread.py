"""How closely a cell's repetitions bound its median."""

from __future__ import annotations

from collections.abc import Sequence

from harness.evidence.medians import Interval, median_interval, relative_width
from harness.evidence.stopping import bound_median
from harness.records.cells import Record


def bound(record: Record, values: Sequence[float]) -> Interval | None:
    """The 95 % interval of a median of values of a cell's repetitions; None where they are too few.

    Where the samples themselves said when to stop, an interval must stay true under looking, and is wider.
    """
    if not values:
        return None
    return bound_median(values) if record.asked.repetitions is None else median_interval(values)


def half_width(record: Record, values: Sequence[float]) -> float | None:
    """How far the interval's further end lies from the median, as a share of it."""
    interval = bound(record, values)
    return relative_width(values, *interval.ends) if interval else None
