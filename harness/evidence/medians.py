"""Medians with distribution-free intervals, quantiles and means of samples.

Pure Python on purpose: a median's interval is a sum of binomial coefficients, exact in integers, and costs no import.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """Both ends in the unit of the samples; level is the confidence that the order statistics really give."""

    low: float
    high: float
    level: float

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends."""
        return self.low, self.high


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two middle ones.

    Raises
    ------
    ValueError : values is empty.
    """
    if not values:
        raise ValueError("the median of no values does not exist")
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0…1) of the values do not exceed (nearest rank: always a value that occurred).

    Raises
    ------
    ValueError : values is empty or share is outside 0…1.
    """
    if not values or not 0 <= share <= 1:
        raise ValueError("a quantile needs values and a share between 0 and 1")
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """Bound the median without assuming a distribution.

    Parameters
    ----------
    values     : shape (n,), n >= 1, any order
    confidence : in (0, 1); the returned level is at least this

    Returns
    -------
    The narrowest symmetric pair of order statistics that reaches the confidence; None where n is too small (n < 6 at 0.95).

    Raises
    ------
    ValueError : values is empty or confidence is outside (0, 1).

    Source: the number of samples below the median is binomial(n, 1/2); e.g. David and Nagaraja, Order Statistics, section 7.1.
    """
    if not values or not 0 < confidence < 1:
        raise ValueError("an interval needs values and a confidence between 0 and 1")
    found = find_ranks(len(values), confidence)
    if found is None:
        return None
    rank, level = found
    ordered = sorted(values)
    return Interval(low=ordered[rank], high=ordered[len(values) - 1 - rank], level=level)


@functools.lru_cache(maxsize=1024)
def find_ranks(n: int, confidence: float) -> tuple[int, float] | None:
    """(how many of n ordered values lie below the interval's low end, the level that this gives); None: no pair reaches it."""
    best, outside = None, 0
    for rank in range(n // 2):
        outside += math.comb(n, rank)
        level = 1 - 2 * outside / 2**n
        if level < confidence:
            break
        best = rank, level
    return best


def relative_width(values: Sequence[float], low: float, high: float) -> float:
    """How far the further of two ends lies from the median of at least one value, as a share of the median."""
    middle = median(values)
    return max(high - middle, middle - low) / middle


@functools.cache
def samples_needed(confidence: float = CONFIDENCE) -> int:
    """The least number of samples for which `median_interval` can reach a confidence (6 at 0.95)."""
    return next(n for n in range(2, 1000) if 1 - 2 / 2**n >= confidence)


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean of at least one value."""
    return sum(values) / len(values)


def standard_deviation(values: Sequence[float]) -> float:
    """Sample standard deviation, 0 for one value as llama-bench prints it (its stdev())."""
    if len(values) < 2:
        return 0.0
    centre = mean(values)
    return math.sqrt(sum((value - centre) ** 2 for value in values) / (len(values) - 1))
