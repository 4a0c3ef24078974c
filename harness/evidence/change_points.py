"""Where a series of medians over time changes its level: without assuming a distribution, and with false alarms that are counted.

A stretch of a series stands out by how far its ranks lie from those of the rest: the standardised rank sum of Mann and Whitney. The one
that stands out most, among all beginnings and all stretches within (circular binary segmentation, Olshen et al. 2004, for a level that
comes and goes; Pettitt 1979 for ranks), counts where few random orders of the same values have one as good: a permutation test, as in
E-divisive (Matteson and James 2014), by which MongoDB finds regressions (Daly et al. 2020) and after which Hunter is made (Fleming et
al. 2023). The parts are then searched in turn (binary segmentation, Scott and Knott 1974; Vostrikova 1981).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

#: A level is made of at least so many values.
MIN_SEGMENT = 3

#: Random orders of a segment; their seed is fixed, so that the same series always has the same answer.
PERMUTATIONS = 999

#: Lengths of stretches within grow by this factor: all of them would take as many steps as there are pairs of values.
GROWTH = 1.25


#: Of the false alarms that are allowed, how many may be beginnings, that is single changes; the rest may be stretches within.
SHARE_OF_BEGINNINGS = 0.8


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
    chance = _Chance()
    found: set[int] = set()
    waiting = [(0, len(series))]
    while waiting:
        start, end = waiting.pop()
        # A part of the series may use that part of alpha: so the parts together use what the whole did.
        ends = _find_stretch(series[start:end], alpha * (end - start) / len(series), chance)
        found |= {start + place for place in ends}
        places = [start, *(start + place for place in ends), end]
        waiting += list(zip(places, places[1:], strict=False)) if ends else []
    return _without_weak(series, sorted(found), alpha)


def _find_stretch(values: Any, alpha: float, chance: Any) -> tuple[int, ...]:
    """Where the stretch that stands out most begins and ends, its ends at those of the segment left out; none: chance does as much."""
    n = len(values)
    ranks = _centred_ranks(values)
    if n < 2 * MIN_SEGMENT or not ranks.any():
        return ()
    sums = _sum_up(ranks[None, :])
    of_beginnings, of_within = chance.scores(ranks)
    beginning, within = (
        _score_beginnings(sums)[0].max(),
        [(scores[0].max(), length) for length, scores in _score_within(sums)],
    )
    # There are far more stretches within than beginnings: tested as one they would hide a change of the last few values.
    found = [(beginning, 0)] if _is_rare(beginning, of_beginnings, alpha * SHARE_OF_BEGINNINGS) else []
    if within and _is_rare(max(within)[0], of_within, alpha * (1 - SHARE_OF_BEGINNINGS)):
        found.append(max(within))
    return _place_ends(values, sums[0], max(found)[1]) if found else ()


class _Chance:
    """What random orders come to; of long series the same for all of a length, where no two values are equal."""

    def __init__(self) -> None:
        import numpy

        self._random = numpy.random.default_rng(0)

    def scores(self, ranks: Any) -> tuple[Any, Any]:
        """Of each random order the best score of a beginning, and of a stretch within (None where there is room for none)."""
        import numpy

        if len(ranks) > LONG and len(numpy.unique(ranks)) == len(ranks):
            return _score_orders(len(ranks))
        return _score_permuted(ranks, self._random)


#: Random orders of more values than these take a tenth of a second, and a journal may hold hundreds of such series.
LONG = 64


@functools.lru_cache(64)
def _score_orders(n: int) -> tuple[Any, Any]:
    """Of n values no two of which are equal."""
    import numpy

    return _score_permuted(numpy.arange(n) - (n - 1) / 2, numpy.random.default_rng(0))


def _score_permuted(ranks: Any, random: Any) -> tuple[Any, Any]:
    import numpy

    orders = _sum_up(random.permuted(numpy.tile(ranks, (PERMUTATIONS, 1)), axis=1))
    within = [scores.max(axis=1) for _, scores in _score_within(orders)]
    return _score_beginnings(orders).max(axis=1), numpy.max(within, axis=0) if within else None


def _is_rare(score: float, by_chance: Any, alpha: float) -> bool:
    """Whether at most a share alpha of orders, this one among them, score as high."""
    return (int((by_chance >= score * (1 - 1e-12)).sum()) + 1) / (len(by_chance) + 1) <= alpha


def _centred_ranks(values: Any) -> Any:
    """Ranks around 0, ties share the mean of theirs."""
    import numpy

    ordered = numpy.sort(values)
    # As many ranks lie below the first of equal values as smaller values do; scipy.stats would take half a second to import.
    below, up_to = numpy.searchsorted(ordered, values, "left"), numpy.searchsorted(ordered, values, "right")
    return (below + up_to + 1) / 2 - (len(values) + 1) / 2


def _sum_up(ranks: Any) -> Any:
    """Sums of the first 0 … n ranks of each order: shape (orders, n + 1)."""
    import numpy

    return numpy.concatenate((numpy.zeros((len(ranks), 1)), numpy.cumsum(ranks, axis=1)), axis=1)


def _score_beginnings(sums: Any) -> Any:
    """Scores of the first values, of every length: shape (orders, lengths)."""
    import numpy

    n = sums.shape[1] - 1
    lengths = numpy.arange(MIN_SEGMENT, n - MIN_SEGMENT + 1)
    return numpy.abs(sums[:, lengths]) / numpy.sqrt(lengths * (n - lengths))


def _score_within(sums: Any) -> Iterator[tuple[int, Any]]:
    """(length, scores of all stretches of that length which leave a level before and behind them: shape (orders, places))."""
    import numpy

    n, length = sums.shape[1] - 1, MIN_SEGMENT
    while length <= n - 2 * MIN_SEGMENT:
        differences = (
            sums[:, MIN_SEGMENT + length : n - MIN_SEGMENT + 1] - sums[:, MIN_SEGMENT : n - MIN_SEGMENT - length + 1]
        )
        yield length, numpy.abs(differences) / math.sqrt(length * (n - length))
        length = max(length + 1, int(length * GROWTH))


def _place_ends(values: Any, sums: Any, length: int) -> tuple[int, ...]:
    """The ends of the best stretch of a length (0: the best beginning), each moved to where it divides its two sides best."""
    import numpy

    n = len(values)
    if not length:
        return (_split(values),)
    starts = numpy.arange(MIN_SEGMENT, n - MIN_SEGMENT - length + 1)
    start = int(starts[numpy.argmax(numpy.abs(sums[starts + length] - sums[starts]))])
    start = _split(values[: start + length])
    end = start + _split(values[start:])
    return _split(values[:end]), end


def _split(values: Any) -> int:
    """Where a segment of at least 2 * MIN_SEGMENT values divides best into two levels: by least absolute deviations (Bai 1995).

    Ranks say surely whether there is a change, but are a little off in saying where: they favour halves.
    """
    import numpy

    def deviate(part: Any) -> float:
        return float(numpy.abs(part - numpy.median(part)).sum())

    return min(
        range(MIN_SEGMENT, len(values) - MIN_SEGMENT + 1),
        key=lambda place: deviate(values[:place]) + deviate(values[place:]),
    )


def _without_weak(series: Any, places: list[int], alpha: float) -> list[int]:
    """Drop, weakest first, the places between whose two sides no difference is left: one end of a stretch may be there for nothing."""
    if not places:
        return places
    from scipy.stats import mannwhitneyu

    while places:
        bounds = [0, *places, len(series)]
        ps = [
            float(mannwhitneyu(series[before:place], series[place:after]).pvalue)
            for before, place, after in zip(bounds, bounds[1:], bounds[2:], strict=False)
        ]
        weakest = max(range(len(ps)), key=lambda one: ps[one])
        if ps[weakest] <= alpha:
            break
        places = places[:weakest] + places[weakest + 1 :]
    return places
