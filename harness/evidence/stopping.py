"""How many repetitions are enough: looked at seldom, with an interval that stays true when one stops as soon as it is narrow.

Who stops at the first narrow interval chooses, among several looks, the one at which luck made it narrow: the plain 95 % interval then
holds the median less often (93 % of normal samples, 84 % where a processor has two clock states). So one looks seldom, at twice as many
repetitions each time, and by order statistics that lie further out than 95 % would ask for; scripts/trust_simulation.py shows that the
whole then keeps its 95 %. This is sequential estimation with an interval of fixed width (Chow and Robbins 1965), here for a median.

Pure Python and cheap: it is called between the blocks of a measurement.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.evidence.drift import is_falling
from harness.evidence.medians import CONFIDENCE, Interval, find_ranks, median, relative_width, samples_needed

#: Below six samples no pair of order statistics bounds a median with 95 %. The first look: smallest to largest, 96.9 %.
MIN_REPETITIONS = samples_needed()

#: What each further look's interval holds by itself, so that all looks together hold 95 %: found by simulation.
LOOK_CONFIDENCE = 0.9935


def bound_median(durations: Sequence[float]) -> Interval | None:
    """The median's 95 % interval where it was the samples that said when to stop; for a number fixed beforehand: `median_interval`.

    Parameters
    ----------
    durations : shape (n,), any order, any unit

    Returns
    -------
    An interval in that unit, whose level is what is left of its confidence after all looks; None below six samples.
    """
    n = len(durations)
    if n < MIN_REPETITIONS:
        return None
    # Between six and eight samples even the extremes hold less than LOOK_CONFIDENCE: no more can be had.
    rank, _ = find_ranks(n, LOOK_CONFIDENCE) or (0, CONFIDENCE)
    ordered = sorted(durations)
    return Interval(ordered[rank], ordered[n - 1 - rank], CONFIDENCE)


def as_rates(durations: Sequence[float]) -> list[float]:
    """What is shown, and so what is to be precise, is a rate: a duration that is 42 % longer is a rate that is 30 % lower."""
    return [1 / duration for duration in durations]


def relative_half_width(durations: Sequence[float]) -> float | None:
    """How far the ends of `bound_median` lie from the median at most, as a share of it, >= 0; None below six samples.

    Parameters
    ----------
    durations : shape (n,), positive, any unit
    """
    interval = bound_median(durations)
    return relative_width(durations, *interval.ends) if interval else None


def is_precise(durations: Sequence[float], precision: float) -> bool:
    """Whether one may stop: the 95 % interval of the median rate lies within ± precision (a share, as 0.02) of it, and durations do
    not fall any more by as much as would matter.

    Parameters
    ----------
    durations : shape (n,), in the order of time, without those that `drift.count_warmups` leaves out
    """
    width = relative_half_width(as_rates(durations))
    if width is None or width > precision:
        return False
    last = durations[-(len(durations) // 3) :]
    return median(last) > (1 - precision / 8) * median(durations) or not is_falling(durations)


def next_look(n: int) -> int:
    """How many repetitions there should be before one looks again, after n of them: 6, 12, 24, 48 … and always more than n."""
    look = MIN_REPETITIONS
    while look <= n:
        look *= 2
    return look
