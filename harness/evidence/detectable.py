"""Which difference a machine can show: durations of one thing, repeated for a while, say what equal runs differ by.

Runs that never were are drawn from the durations that were. Two runs made one after the other take neighbouring stretches of the
series, so that what drifts or comes in waves tells them apart as it would tell real ones; two settings measured by turns take pairs of
neighbours. Each drawn comparison ends with an interval of the ratio: a difference would have been seen if it had moved that interval
off 1, so that each says the smallest difference that it would have shown, and the 80th percentile of these is the one that four in five
comparisons show. Where equal runs differ by more than their intervals allow, what they differ by in 95 of 100 cases is the least.

Sources: moving blocks, Kuensch 1989 and Politis and Romano (circular) 1992; power by resampling, Efron and Tibshirani, An Introduction
to the Bootstrap, chapter 25. Two states: Ashman, Bird and Zepf 1994.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.evidence.medians import CONFIDENCE, median
from harness.evidence.sequential import rank_of_interval, walsh_averages
from harness.evidence.stopping import relative_half_width
from harness.evidence.two_samples import bound_ratio

#: Repetitions of which is told what they show.
COUNTS = (6, 10, 30)

#: How often a difference of the size that is told would be seen.
POWER = 0.80

#: Comparisons that are drawn for each count; the seed is fixed, so that the same durations always say the same.
DRAWS = 500

#: Where a series is too short for two neighbouring runs, runs are put together from so many neighbours at a time.
BLOCK = 5

#: Fewer durations than this say nothing of what others would be.
FEWEST = 12

#: The two halves of a normal sample lie 2.65 apart in Ashman's D, of a uniform one 3.46: two states lie clearly further apart.
TWO_STATES_D = 5.0

#: The rarer state has at least this share, and the states differ by at least so much.
STATE_SHARE, STATE_STEP = 0.1, 0.01

#: A drift is a change over the whole series of at least this share, and so unlikely by chance.
DRIFT_SHARE, DRIFT_P = 0.01, 0.001


@dataclass(frozen=True, slots=True)
class Detectable:
    """What n repetitions (of each of two settings) show. All are shares of the duration; None: no such difference can be proved.

    half_width  : how far the ends of the median's 95 % interval lie from it, typically
    apart       : the smallest difference that `compare` would see between two runs, one after the other
    paired      : the smallest that n pairs of neighbours show (Wilcoxon's signed ranks), as `ab` measures them; looking on the way, as
                  it does, takes a few pairs more
    equal_apart : how often two equal runs, one after the other, are told to differ, where 0.05 is the claim
    """

    n: int
    half_width: float | None
    apart: float | None
    paired: float | None
    equal_apart: float | None


@dataclass(frozen=True, slots=True)
class Pattern:
    """What the durations look like in the order of time.

    spread      : half the distance of the quartiles, as a share of the median
    correlation : of each with the next (ranks), -1 to 1
    drift       : how much longer the last third took than the first, as a share; None: nothing that is more than chance
    states      : (median of the quick ones, median of the slow ones, share of the slow ones); None: one state
    """

    n: int
    median_ns: float
    spread: float
    correlation: float
    drift: float | None
    states: tuple[float, float, float] | None


def find_pattern(durations: Sequence[float]) -> Pattern | None:
    """Describe durations (n,), positive, in the order of time; None for fewer than `FEWEST`."""
    if len(durations) < FEWEST:
        return None
    import numpy

    values = numpy.asarray(durations, dtype=float)
    middle = median(durations)
    low, high = numpy.quantile(values, (0.25, 0.75))
    return Pattern(
        len(durations), middle, float(high - low) / 2 / middle, _correlate(values[:-1], values[1:])[0], _find_drift(values),
        _find_states(values),
    )  # fmt: skip


def _correlate(first: Any, second: Any) -> tuple[float, float]:
    """Spearman's rank correlation and its p; 0 and 1 where one of the two never changes."""
    from scipy.stats import spearmanr

    if (first == first[0]).all() or (second == second[0]).all():
        return 0.0, 1.0
    found = spearmanr(first, second)
    return float(found.statistic), float(found.pvalue)


def _find_drift(values: Any) -> float | None:
    import numpy

    p = _correlate(numpy.arange(len(values), dtype=float), values)[1]
    third = len(values) // 3
    change = median(values[-third:].tolist()) / median(values[:third].tolist()) - 1
    return change if p < DRIFT_P and abs(change) >= DRIFT_SHARE else None


def _find_states(values: Any) -> tuple[float, float, float] | None:
    """The cut of the logarithms that leaves the least variance on both sides (Otsu 1979), where both sides are far apart."""
    import numpy

    logs = numpy.sort(numpy.log(values))
    n, least = len(logs), max(3, math.ceil(STATE_SHARE * len(logs)))
    if n < 2 * least:
        return None
    cuts = range(least, n - least + 1)
    cut = min(cuts, key=lambda at: at * logs[:at].var() + (n - at) * logs[at:].var())
    below, above = logs[:cut], logs[cut:]
    step = float(above.mean() - below.mean())
    inside = math.sqrt((float(below.var()) + float(above.var())) / 2)
    if step < math.log1p(STATE_STEP) or step < TWO_STATES_D * inside:
        return None
    return math.exp(float(numpy.median(below))), math.exp(float(numpy.median(above))), (n - cut) / n


def find_detectable(durations: Sequence[float], counts: Sequence[int] = COUNTS) -> list[Detectable]:
    """What each number of repetitions would show.

    Parameters
    ----------
    durations : shape (n,), positive, one unit, in the order of time
    counts    : repetitions, each >= 1

    Returns
    -------
    One a count; none where there are fewer than `FEWEST` durations.
    """
    if len(durations) < FEWEST:
        return []
    import numpy

    values, chance = numpy.asarray(durations, dtype=float), numpy.random.default_rng(0)
    return [_detect(values, count, chance) for count in counts]


def _detect(values: Any, n: int, chance: Any) -> Detectable:
    widths, apart, paired = [], [], []
    for _ in range(DRAWS):
        first, second = _draw_runs(values, n, chance)
        if (width := relative_half_width(first.tolist())) is not None:
            widths.append(width)
        if (found := bound_ratio(first.tolist(), second.tolist())).low and found.high:
            apart.append((found.low, found.value, found.high))
        if (pair := _bound_pairs(_draw_pairs(values, n, chance))) is not None:
            paired.append(pair)
    return Detectable(n, median(widths) if widths else None, _smallest(apart), _smallest(paired), _false_alarms(apart))


def _draw_runs(values: Any, n: int, chance: Any) -> tuple[Any, Any]:
    """Two runs of n, one after the other; the series is taken as a circle."""
    import numpy

    length = len(values)
    if length >= 2 * n:
        start = int(chance.integers(length))
        return values[(start + numpy.arange(n)) % length], values[(start + n + numpy.arange(n)) % length]
    starts = chance.integers(length, size=(2, -(-n // BLOCK), 1))
    places = (starts + numpy.arange(BLOCK)) % length
    first, second = values[places.reshape(2, -1)[:, :n]]
    return first, second


def _draw_pairs(values: Any, n: int, chance: Any) -> list[float]:
    """Log ratios of n pairs of neighbours, each in random order; pairs begin anywhere."""
    import numpy

    starts = chance.integers(len(values) - 1, size=n)
    logs = numpy.log(values[starts + 1] / values[starts]) * chance.choice((-1.0, 1.0), size=n)
    return [float(one) for one in logs]


def _bound_pairs(log_ratios: Sequence[float]) -> tuple[float, float, float] | None:
    """The ratio of pairs with its interval, by their signed ranks; None where they are too few for one."""
    rank = _rank_of_pairs(len(log_ratios))
    if not rank:
        return None
    averages = walsh_averages(list(log_ratios))
    return math.exp(averages[rank - 1]), math.exp(median(averages)), math.exp(averages[-rank])


@functools.cache
def _rank_of_pairs(n: int) -> int:
    """Which Walsh average of n pairs, from 1, is the low end of their interval; 0: they are too few."""
    return rank_of_interval(n, 1 - CONFIDENCE)[0]


def _smallest(found: Sequence[tuple[float, float, float]]) -> float | None:
    """The difference that `POWER` of the comparisons would have seen, and that 95 of 100 equal ones do not have by themselves."""
    if not found:
        return None
    import numpy

    seen = float(numpy.quantile([1 / low - 1 for low, _, _ in found], POWER))
    by_itself = float(numpy.quantile([abs(math.log(value)) for _, value, _ in found], 0.95))
    return max(seen, math.expm1(by_itself))


def _false_alarms(found: Sequence[tuple[float, float, float]]) -> float | None:
    return sum(low > 1 or high < 1 for low, _, high in found) / len(found) if found else None
