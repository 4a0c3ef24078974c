"""What the samples mean: medians with distribution-free intervals, and rates derived from them.

Pure Python on purpose: a median's interval is a sum of binomial coefficients, exact in integers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Power, Record
from harness.units import NS_PER_S

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
    ordered, n = sorted(values), len(values)
    best, outside = None, 0
    for rank in range(n // 2):
        outside += math.comb(n, rank)
        level = 1 - 2 * outside / 2**n
        if level < confidence:
            break
        best = Interval(low=ordered[rank], high=ordered[n - 1 - rank], level=level)
    return best


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


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """Latency of single generated tokens over all timed repetitions, in ns; first is the median time to the first token."""

    p50_ns: float
    p95_ns: float
    p99_ns: float
    first_ns: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One measured cell in numbers: median duration, its interval, and the same as tokens per second; energy of a token."""

    n_samples: int
    median_ns: float
    rate_tok_per_s: float
    rate_low: float | None
    rate_high: float | None
    cautions: tuple[Caution, ...]
    joules_per_token: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends of the rate's interval."""
        return None if self.rate_low is None or self.rate_high is None else (self.rate_low, self.rate_high)

    @property
    def is_distrusted(self) -> bool:
        """Whether a caution says that the number is not to be trusted."""
        return any(caution.distrust for caution in self.cautions)


def summarize(record: Record) -> Summary:
    """Derive the summary of a record that has at least one timed sample.

    The rate is tokens divided by the median duration (llama-bench prints the mean of the rates).

    Raises
    ------
    ValueError : the record has no timed sample.
    """
    durations = [sample.duration_ns for sample in record.timed]
    middle, interval = median(durations), median_interval(durations)
    rate = record.asked.n_tokens * NS_PER_S
    cautions = record.warnings
    if interval is None:
        cautions = (*cautions, Caution(CautionCause.FEW_SAMPLES, n_wanted=samples_needed()))
    return Summary(
        n_samples=len(durations),
        median_ns=middle,
        rate_tok_per_s=rate / middle,
        rate_low=rate / interval.high if interval else None,
        rate_high=rate / interval.low if interval else None,
        cautions=cautions,
        joules_per_token=joules_per_token(record),
    )


@dataclass(frozen=True, slots=True)
class Digest:
    """A measured cell without its raw samples, and what they came to: thousands of these are held at once."""

    record: Record
    summary: Summary


def speaking(found: Iterable[Digest]) -> Digest | None:
    """Of records of one cell the one that speaks for it: trusted, then most repeated, then the latest; found is in order of time."""
    latest_first = reversed([*found])
    return max(latest_first, key=lambda one: (not one.summary.is_distrusted, one.summary.n_samples), default=None)


def digest(record: Record) -> Digest:
    """Sum a record up and let go of its samples.

    Raises
    ------
    ValueError : the record has no timed sample.
    """
    return Digest(dataclasses.replace(record, samples=()), summarize(record))


def joules_per_token(record: Record) -> float | None:
    """Energy of one token over all sources that told; None where none did.

    Each source's mean power is taken times the timed duration, so that the few ms around a repetition do not count.
    """
    power: tuple[Power, ...] = record.telemetry.power if record.telemetry else ()
    if not power or not record.timed:
        return None
    timed_s = sum(sample.duration_ns for sample in record.timed) / NS_PER_S
    watts = sum(item.joules / item.window_s for item in power)
    return watts * timed_s / (record.asked.n_tokens * len(record.timed))


def token_times(record: Record) -> TokenTimes | None:
    """The latency of single tokens; None where none was timed by itself."""
    timed = [sample for sample in record.timed if sample.token_ns]
    if not timed:
        return None
    every = sorted(duration for sample in timed for duration in sample.token_ns)
    first = median([(sample.prompt_ns or 0) + sample.token_ns[0] for sample in timed])
    return TokenTimes(quantile(every, 0.50), quantile(every, 0.95), quantile(every, 0.99), first)
