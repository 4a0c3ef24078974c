"""Two samples held against each other: the ratio of their durations, how sure it is, and whether chance alone could have made it.

All ratios are B / A of durations: above 1, B takes longer.
"""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.evidence.medians import CONFIDENCE

#: Beyond this, a sample is stood for by as many evenly spaced of its order statistics: differences of all pairs must fit in memory.
MOST_VALUES = 2000

#: Up to this many pairs the distribution of Mann and Whitney's U is counted, beyond it its normal approximation is as good.
MOST_EXACT_PAIRS = 10_000

#: By how much the rest of a confidence is divided, and p multiplied, where samples said themselves when to stop: what stops at a narrow
#: interval stops at luck, and of equal ones 7.9 % differed even at 1.5; found by simulation (scripts/trust_simulation.py).
LOOKED_FACTOR = 4.0


class Method(enum.Enum):
    """How two samples were held against each other."""

    MANN_WHITNEY = "mann_whitney"  # every repetition is known
    WELCH = "welch"  # only means and deviations are: weaker evidence


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of durations and the interval that holds the true one with at least `level`; None: too little for an interval."""

    value: float
    low: float | None = None
    high: float | None = None
    level: float | None = None

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends of the interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True, slots=True)
class Contrast:
    """B held against A. p is two-sided; None: with so few values even the most extreme outcome could be chance."""

    ratio: Ratio | None
    p: float | None
    method: Method
    n_a: int
    n_b: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What some programs keep of a sample: its mean, its standard deviation (same unit) and how many values there were."""

    mean: float
    deviation: float
    n: int


def compare_samples(
    a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE, *, has_looked: bool = False
) -> Contrast:
    """Hold the durations of B against those of A without assuming a distribution.

    Parameters
    ----------
    a, b       : shape (n_a,) and (n_b,), positive, one unit
    confidence : in (0, 1)
    has_looked : whether either sample ended when it was precise (`-r auto`), and not at a number that was fixed beforehand

    Returns
    -------
    ratio : exp of the Hodges-Lehmann shift of the logarithms: the median of all log b - log a. It is the ratio of the medians where the
            samples differ by a factor alone. Its interval takes the order statistics of those differences that U's distribution names.
    p     : of Mann and Whitney's U, two-sided (scipy), exact for up to MOST_EXACT_PAIRS pairs without ties

    Raises
    ------
    ValueError : a value is not a positive, finite number, or confidence is outside (0, 1).

    Source: Hodges and Lehmann 1963; Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, sections 4.1 to 4.3.
    """
    if not 0 < confidence < 1:
        raise ValueError("a confidence lies between 0 and 1")
    if not all(value > 0 and math.isfinite(value) for value in (*a, *b)):
        raise ValueError("durations that are compared are positive, finite numbers")
    if not a or not b:
        return Contrast(None, None, Method.MANN_WHITNEY, len(a), len(b))
    factor = LOOKED_FACTOR if has_looked else 1.0
    ratio = bound_ratio(a, b, 1 - (1 - confidence) / factor)
    if ratio.level is None:
        return Contrast(ratio, None, Method.MANN_WHITNEY, len(a), len(b))
    ratio = replace(ratio, level=1 - factor * (1 - ratio.level))
    return Contrast(ratio, min(1.0, factor * _mann_whitney(a, b)), Method.MANN_WHITNEY, len(a), len(b))


def bound_ratio(a: Sequence[float], b: Sequence[float], confidence: float = CONFIDENCE) -> Ratio:
    """The ratio and its interval alone, as `compare_samples` has them of samples that are not empty: for whoever draws thousands."""
    import numpy

    logs_a, logs_b = _thinned_logs(a), _thinned_logs(b)
    differences = numpy.sort(numpy.subtract.outer(logs_b, logs_a), axis=None)
    shift = float(numpy.median(differences))
    rank, level = _rank_of_interval(len(logs_a), len(logs_b), confidence)
    if not rank:
        return Ratio(math.exp(shift))
    return Ratio(math.exp(shift), math.exp(differences[rank - 1]), math.exp(differences[-rank]), level)


def compare_summaries(a: Summary, b: Summary, confidence: float = CONFIDENCE) -> Contrast:
    """Hold two means against each other, where nobody kept the values: weaker evidence, for a mean follows every spike.

    Returns
    -------
    The ratio of the means with Welch's interval for unequal variances, on logarithms (the delta method: the deviation of log x is
    deviation / mean). No p and no interval where a sample is a single value, or where neither of them has a deviation.

    Raises
    ------
    ValueError : a mean is not positive, a deviation is negative, either is not finite, or n < 1.

    Source: Welch 1947, with the degrees of freedom of Satterthwaite 1946.
    """
    for one in (a, b):
        if not (0 < one.mean < math.inf and 0 <= one.deviation < math.inf and one.n >= 1):
            raise ValueError("a summary is a positive mean, a deviation of at least 0, and how many values there were")
    ratio = b.mean / a.mean
    parts = [(one.deviation / one.mean) ** 2 / one.n for one in (a, b)]
    if min(a.n, b.n) < 2 or not sum(parts):
        return Contrast(Ratio(ratio), None, Method.WELCH, a.n, b.n)
    from scipy.stats import t

    error = math.sqrt(sum(parts))
    freedom = sum(parts) ** 2 / sum(part**2 / (one.n - 1) for part, one in zip(parts, (a, b), strict=True))
    reach = float(t.ppf((1 + confidence) / 2, freedom)) * error
    p = float(2 * t.sf(abs(math.log(ratio)) / error, freedom))
    found = Ratio(ratio, ratio * math.exp(-reach), ratio * math.exp(reach), confidence)
    return Contrast(found, p, Method.WELCH, a.n, b.n)


def correct_holm(ps: Sequence[float | None]) -> list[float | None]:
    """The p of each of several questions, so corrected that any false alarm among all of them is as rare as one p says.

    None stays None and counts as no question. Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    asked = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    least = 0.0
    for done, (p, place) in enumerate(asked):
        least = max(least, min(1.0, (len(asked) - done) * p))
        corrected[place] = least
    return corrected


def _thinned_logs(values: Sequence[float]) -> Any:
    """Natural logarithms in ascending order, at most MOST_VALUES of them."""
    import numpy

    logs = numpy.sort(numpy.log(numpy.asarray(values, dtype=float)))
    if len(logs) <= MOST_VALUES:
        return logs
    return logs[numpy.linspace(0, len(logs) - 1, MOST_VALUES).round().astype(int)]


@functools.lru_cache(maxsize=256)
def _rank_of_interval(n_a: int, n_b: int, confidence: float) -> tuple[int, float]:
    """(which of the ascending differences, from 1, is the interval's low end, the level that this gives); rank 0: none is wide enough.

    The low end is the largest rank r with P(U < r) <= (1 - confidence) / 2.
    """
    tail = (1 - confidence) / 2
    if n_a * n_b > MOST_EXACT_PAIRS:
        from scipy.stats import norm

        deviation = math.sqrt(n_a * n_b * (n_a + n_b + 1) / 12)
        return max(math.floor(n_a * n_b / 2 + float(norm.ppf(tail)) * deviation), 0), confidence
    counts, every = _count_u(n_a, n_b), math.comb(n_a + n_b, n_a)
    below, rank = 0, 0
    for count in counts:
        if (below + count) / every > tail:
            break
        below, rank = below + count, rank + 1
    return rank, 1 - 2 * below / every


def _count_u(n_a: int, n_b: int) -> list[int]:
    """How many of the orders of n_a + n_b values have each U from 0 to n_a * n_b: the coefficients of the Gaussian binomial."""
    counts = [1]
    for step in range(1, n_a + 1):
        # times (1 - q^(n_b + step)), then divided by (1 - q^step)
        wide = counts + [0] * (n_b + step)
        for place in range(len(wide) - 1, n_b + step - 1, -1):
            wide[place] -= wide[place - n_b - step]
        for place in range(step, len(wide)):
            wide[place] += wide[place - step]
        counts = wide[: step * n_b + 1]
    return counts


def _mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    from scipy.stats import mannwhitneyu

    exact = len(a) * len(b) <= MOST_EXACT_PAIRS and len({*a, *b}) == len(a) + len(b)
    return float(mannwhitneyu(a, b, alternative="two-sided", method="exact" if exact else "asymptotic").pvalue)
