"""How closely a cell's repetitions bound its median."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from harness.evidence.medians import Interval, median_interval, relative_width
from harness.evidence.stopping import bound_median
from harness.records.cells import Record


def bound(record: Record, values: Sequence[float]) -> Interval | None:
    """The 95 % interval of a median of values of a cell's repetitions; None where they are too few.

    Where the samples themselves said when to stop, an interval must stay true under looking, and is wider.
    """
    return _bound(values, record.asked.repetitions is None)


def _bound(values: Sequence[float], is_looked_at: bool) -> Interval | None:
    if not values:
        return None
    return bound_median(values) if is_looked_at else median_interval(values)


def half_width(record: Record, values: Sequence[float]) -> float | None:
    """How far the interval's further end lies from the median, as a share of it."""
    return _half_width(tuple(values), record.asked.repetitions is None)


@functools.lru_cache(8)  # a cell's is asked for to judge it and to show it
def _half_width(values: tuple[float, ...], is_looked_at: bool) -> float | None:
    interval = _bound(values, is_looked_at)
    return relative_width(values, *interval.ends) if interval else None
