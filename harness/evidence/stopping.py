"""How many repetitions are enough: looked at seldom, with an interval that stays true when one stops as soon as it is narrow.

Pure Python and cheap: it is called between the blocks of a measurement.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.evidence.medians import median, median_interval

#: Below six samples no pair of order statistics bounds a median with 95 %.
MIN_REPETITIONS = 6

#: Repetitions at which one looks; further ones grow by half each time.
LOOKS = (6, 9, 15, 23, 35)


def relative_half_width(durations: Sequence[float]) -> float | None:
    """How far the ends of the median's 95 % interval lie from the median at most, as a share of it.

    Parameters
    ----------
    durations : shape (n,), positive, any unit

    Returns
    -------
    A share, >= 0; None below six samples.
    """
    interval = median_interval(durations) if durations else None
    if interval is None:
        return None
    middle = median(durations)
    return max(middle - interval.low, interval.high - middle) / middle


def is_precise(durations: Sequence[float], precision: float) -> bool:
    """Whether one may stop: the 95 % interval of the median lies within ± precision (a share, as 0.02) of it."""
    width = relative_half_width(durations)
    return width is not None and width <= precision


def next_look(n: int) -> int:
    """How many repetitions there should be before one looks again, after n of them: more than n.

    Every look is a chance to stop on a sample that is narrow by luck, so that looks are few and lie further and further apart.
    """
    looks = list(LOOKS)
    while looks[-1] <= n:
        looks.append(looks[-1] * 3 // 2)
    return next(look for look in looks if look > n)
