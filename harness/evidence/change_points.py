"""Where a series of medians over time changes its level: without assuming a distribution, and with false alarms that are counted.

A split is as good as the ranks before it differ from those behind it (the standardised rank sum, Pettitt 1979 after Mann and Whitney);
the best one counts where few random orders of the same values have one as good (a permutation test, as in E-divisive, Matteson and
James 2014, by which MongoDB finds regressions, Daly et al. 2020, and Hunter, Fleming et al. 2023). Both sides are then searched in turn
(binary segmentation, Scott and Knott 1974; Vostrikova 1981).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

#: A level is made of at least so many values.
MIN_SEGMENT = 3

#: Random orders of a segment; its seed is fixed, so that the same series always has the same answer.
PERMUTATIONS = 1999


def find_change_points(values: Sequence[float], alpha: float = 0.05) -> list[int]:
    """The places (from 0) of the first values of new levels, ascending.

    Parameters
    ----------
    values : shape (n,), in the order of time, any unit
    alpha  : how often at most a series without any change is said to have one

    Raises
    ------
    ValueError : a value is not finite, or alpha is outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError("how often a false alarm is allowed lies between 0 and 1")
    if not all(math.isfinite(value) for value in values):
        raise ValueError("a series that is searched for changes holds finite numbers")
    if len(values) < 2 * MIN_SEGMENT:
        return []
    import numpy

    series = numpy.asarray(values, dtype=float)
    chance = numpy.random.default_rng(0)
    found, waiting = [], [(0, len(series))]
    while waiting:
        start, end = waiting.pop()
        # A part of the series may use a part of alpha: all segments of one depth together use what the whole would.
        split = _find_split(series[start:end], alpha * (end - start) / len(series), chance)
        if split is not None:
            found.append(start + split)
            waiting += [(start, start + split), (start + split, end)]
    return sorted(found)


def _find_split(values: Any, alpha: float, chance: Any) -> int | None:
    """The best split of a segment (length of its first part); None: chance makes one as good too often."""
    if len(values) < 2 * MIN_SEGMENT:
        return None
    import numpy
    from scipy.stats import rankdata

    ranks = rankdata(values) - (len(values) + 1) / 2
    if not ranks.any():
        return None
    scores = _score_splits(ranks[None, :])[0]
    best = float(scores.max())
    orders = chance.permuted(numpy.tile(ranks, (PERMUTATIONS, 1)), axis=1)
    as_good = int((_score_splits(orders).max(axis=1) >= best * (1 - 1e-12)).sum())
    return int(scores.argmax()) + MIN_SEGMENT if (as_good + 1) / (PERMUTATIONS + 1) <= alpha else None


def _score_splits(ranks: Any) -> Any:
    """Standardised distance of the rank sum before each split from what chance expects: shape (orders, splits)."""
    import numpy

    n = ranks.shape[1]
    lengths = numpy.arange(MIN_SEGMENT, n - MIN_SEGMENT + 1)
    sums = numpy.cumsum(ranks, axis=1)[:, lengths - 1]
    return numpy.abs(sums) / numpy.sqrt(lengths * (n - lengths))
