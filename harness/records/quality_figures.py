"""What the sums of a text's windows come to: perplexity, KL divergence and what they are worth.

Every ± is llama-perplexity's: one standard error, by its formula, as if tokens were independent. They are not: a hard sentence has
several hard tokens. So the 95 % intervals are by windows, by Student's t over their means, which assumes that windows are.

Source of the formulas: perplexity and kl_divergence in tools/perplexity/perplexity.cpp of llama.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.records.quality import Divergence, QualityRecord, Window, middle_of

#: Windows that an interval needs at least.
LEAST_WINDOWS = 6

#: Level of the intervals.
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, its ± (one standard error; None: it has none), and both ends of its 95 % interval where there are windows enough."""

    value: float
    error: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Departure:
    """How far a model is from its base. ratio: of perplexities; log_ratio: its logarithm. kld in nats, shares between 0 and 1."""

    base_perplexity: Estimate
    log_ratio: Estimate
    ratio: Estimate
    kld: Estimate
    same_top: Estimate
    p_diff: Estimate  #: mean of the differences of probability
    p_diff_rms: Estimate
    kld_max: float
    kld_min: float
    kld_percentiles: tuple[tuple[float, float], ...]  #: (share, value) as `PERCENTILES` has them
    correlation: float | None  #: of both log-likelihoods


@dataclass(frozen=True, slots=True)
class QualityFigures:
    """All figures of one record: of so many windows and scored tokens."""

    n_windows: int
    n_scored: int
    perplexity: Estimate
    departure: Departure | None = None


#: Shares of tokens at which KL divergences are told. Source: kl_divergence, the median and the percentiles that it prints.
PERCENTILES = (0.001, 0.01, 0.05, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999)


def find_figures(record: QualityRecord) -> QualityFigures | None:
    """What a record's windows come to; None where none has a figure."""
    windows = [window for window in record.windows if window.nll is not None]
    if not windows:
        return None
    count = sum(window.n_scored for window in windows)
    nll = _mean(sum(window.nll or 0.0 for window in windows), sum(window.nll2 or 0.0 for window in windows), count)
    perplexity = _exponentiate(nll, _interval([(window.nll or 0.0) / window.n_scored for window in windows]))
    pairs = [(window, window.divergence) for window in windows if window.divergence is not None]
    departure = _Sums(pairs).departure(record.kld_counts) if pairs else None
    return QualityFigures(len(windows), count, perplexity, departure)


class _Sums:
    """The sums of windows that have a base beside them."""

    def __init__(self, pairs: Sequence[tuple[Window, Divergence]]) -> None:
        self._pairs = pairs
        self._count = sum(window.n_scored for window, _ in pairs)

    def _sum(self, name: str) -> float:
        return sum(getattr(divergence, name) for _, divergence in self._pairs)

    def _by_window(self, name: str) -> list[float]:
        return [getattr(divergence, name) / window.n_scored for window, divergence in self._pairs]

    def departure(self, counts: Mapping[str, int]) -> Departure:
        nll = _mean(sum(w.nll or 0.0 for w, _ in self._pairs), sum(w.nll2 or 0.0 for w, _ in self._pairs), self._count)
        base = _mean(self._sum("nll_base"), self._sum("nll2_base"), self._count)
        covariance = _covariance(
            nll.value * self._count, base.value * self._count, self._sum("nll_nll_base"), self._count
        )
        log_ratio = self._log_ratio(nll, base, covariance)
        kld = _mean(self._sum("kld"), self._sum("kld2"), self._count)
        squares = _mean(self._sum("p_diff2"), self._sum("p_diff4"), self._count)
        rms = math.sqrt(max(squares.value, 0.0))
        same = self._sum("n_same_top") / self._count
        of_top = math.sqrt(same * (1 - same) / (self._count - 1)) if self._count > 1 else None
        both = (nll.error or 0.0) * (base.error or 0.0)
        return Departure(
            _exponentiate(base, _interval(self._by_window("nll_base"))), log_ratio, _exponentiate(log_ratio, log_ratio.interval),
            Estimate(kld.value, kld.error, _interval(self._by_window("kld"))),
            Estimate(same, of_top, _interval(self._by_window("n_same_top"))),
            Estimate(*_pair(_mean(self._sum("p_diff"), self._sum("p_diff2"), self._count)), _interval(self._by_window("p_diff"))),
            Estimate(rms, 0.5 / rms * (squares.error or 0.0) if rms else None),
            max(divergence.kld_max for _, divergence in self._pairs), min(divergence.kld_min for _, divergence in self._pairs),
            tuple((share, _percentile(counts, share)) for share in PERCENTILES), covariance / both if both else None,
        )  # fmt: skip

    def _log_ratio(self, nll: Estimate, base: Estimate, covariance: float) -> Estimate:
        """ln(PPL(Q)/PPL(base)); what both have in common cancels."""
        variance = (nll.error or 0.0) ** 2 + (base.error or 0.0) ** 2 - 2 * covariance
        differences = [((w.nll or 0.0) - d.nll_base) / w.n_scored for w, d in self._pairs]
        return Estimate(nll.value - base.value, math.sqrt(max(variance, 0.0)), _interval(differences))


def _pair(estimate: Estimate) -> tuple[float, float | None]:
    return estimate.value, estimate.error


def _mean(total: float, squares: float, count: int) -> Estimate:
    """A mean with its standard error. Source: the end of perplexity; mean_and_uncertainty in kl_divergence."""
    mean = total / count
    variance = squares / count - mean * mean
    return Estimate(mean, math.sqrt(variance / (count - 1)) if variance > 0 and count > 1 else 0.0)


def _covariance(total: float, other: float, product: float, count: int) -> float:
    """The covariance of two means. Source: covariance in kl_divergence."""
    return (product / count - (total / count) * (other / count)) / (count - 1) if count > 1 else 0.0


def _exponentiate(mean: Estimate, interval: tuple[float, float] | None) -> Estimate:
    """e to the power of a mean; its ± by the derivative, its interval by both ends. An exponent beyond float64 is infinite."""
    value = _exp(mean.value)
    return Estimate(value, value * (mean.error or 0.0), interval and (_exp(interval[0]), _exp(interval[1])))


def _exp(power: float) -> float:
    return math.exp(power) if power < 709 else math.inf


def _interval(means: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean of windows' means."""
    n = len(means)
    if n < LEAST_WINDOWS:
        return None
    from scipy.special import stdtrit

    mean = math.fsum(means) / n
    deviation = math.sqrt(math.fsum((one - mean) ** 2 for one in means) / (n - 1))
    reach = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * deviation / math.sqrt(n)
    return mean - reach, mean + reach


def _percentile(counts: Mapping[str, int], share: float) -> float:
    """The KL divergence that a share of all tokens does not exceed, within half a bin."""
    wanted, passed = share * (sum(counts.values()) - 1), 0
    for number, count in sorted((int(number), count) for number, count in counts.items()):
        passed += count
        if passed > wanted:
            return middle_of(number)
    return 0.0
