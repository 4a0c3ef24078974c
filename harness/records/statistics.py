"""What the samples of a record come to: rates with their intervals, energy, latency of single tokens."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.evidence.medians import median, quantile, samples_needed
from harness.evidence.stopping import as_rates
from harness.records.cautions import Caution, CautionCause
from harness.records.cell_verdict import find_own_crowd, judge_cell, mark, undisturbed
from harness.records.cells import Power, Record, Sample, without_samples
from harness.records.fallbacks import find_fallbacks
from harness.records.spread import bound, half_width
from harness.records.trust import QUIET, Trust, Verdict
from harness.units import NS_PER_S


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """Latency of single generated tokens over all timed repetitions, in ns; first is the median time to the first token."""

    p50_ns: float
    p95_ns: float
    p99_ns: float
    first_ns: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One measured cell in numbers: median duration, its interval, and the same as tokens per second; energy of a token.

    Rates are of all sequences together; sequence_rate_tok_per_s is that of one of them.
    """

    n_samples: int
    median_ns: float
    rate_tok_per_s: float
    rate_low: float | None
    rate_high: float | None
    cautions: tuple[Caution, ...]  #: what qualifies it, the verdict's reasons among them
    joules_per_token: float | None = None
    verdict: Verdict = QUIET
    n_undisturbed: int | None = None  #: None where nothing is known of what disturbed
    undisturbed_rate_tok_per_s: float | None = None  #: over those alone, where it differs noticeably

    half_width: float | None = None  #: of the rate's interval, as a share of the rate
    n_seen_warmups: int = 0  #: first repetitions that were left out
    sequence_rate_tok_per_s: float | None = None
    has_lost_prefix: bool = False  #: whether a prompt was read whole although the cache had its beginning

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends of the rate's interval."""
        return None if self.rate_low is None or self.rate_high is None else (self.rate_low, self.rate_high)

    @property
    def is_distrusted(self) -> bool:
        """Whether the number is not to be trusted."""
        return self.verdict.trust is Trust.NOT_TRUSTED


def summarize(record: Record) -> Summary:
    """Derive the summary of a record that has at least one timed sample.

    The rate is tokens divided by the median duration (llama-bench prints the mean of the rates).

    Raises
    ------
    ValueError : the record has no timed sample.
    """
    marked = mark(record)
    timed = [one.sample for one in marked]
    durations = [sample.duration_ns for sample in timed]
    middle, interval = median(durations), bound(record, durations)
    rate = record.asked.n_tokens * NS_PER_S
    verdict = judge_cell(record, marked) or QUIET
    cautions = (*record.warnings, *(reason for reason in verdict.reasons if reason not in record.warnings))
    if interval is None:
        cautions = (*cautions, _few_samples())
    width = half_width(record, as_rates(durations))
    cautions = _miss_precision(record, durations, width, cautions)
    cautions = (*cautions, *find_fallbacks(record))
    if (crowd := find_own_crowd(record, timed)) is not None:
        cautions = (*cautions, crowd)
    has_lost = 0 in [sample.n_reused for sample in timed]
    if has_lost:
        cautions = (Caution(CautionCause.PREFIX_LOST, n_ctx=record.asked.n_depth + record.asked.n_prefix), *cautions)
    quiet = undisturbed(marked)
    is_known = any(sample.conditions for sample in timed)
    return Summary(
        n_samples=len(durations),
        median_ns=middle,
        rate_tok_per_s=rate / middle,
        has_lost_prefix=has_lost,
        sequence_rate_tok_per_s=record.asked.n_tokens_seq * NS_PER_S / middle,
        rate_low=rate / interval.high if interval else None,
        rate_high=rate / interval.low if interval else None,
        cautions=cautions,
        joules_per_token=joules_per_token(record, timed),
        verdict=verdict,
        half_width=width,
        n_seen_warmups=[sample.is_warmup for sample in record.samples].count(False) - len(timed),
        n_undisturbed=len(quiet) if is_known else None,
        undisturbed_rate_tok_per_s=None
        if len(quiet) == len(timed)
        else _other_rate(rate, middle, [sample.duration_ns for sample in quiet]),
    )


@functools.cache
def _few_samples() -> Caution:
    return Caution(CautionCause.FEW_SAMPLES, n_wanted=samples_needed())


def _miss_precision(
    record: Record, durations_ns: Sequence[int], width: float | None, cautions: tuple[Caution, ...]
) -> tuple[Caution, ...]:
    """Say where repeating ended before the median was known as precisely as was wanted; it is then why the interval is wide, too."""
    asked = record.asked
    if asked.repetitions is not None or record.failure is not None or width is None or width <= asked.precision:
        return cautions
    missed = Caution(
        CautionCause.PRECISION_MISSED, lost_share=width, wanted_share=asked.precision, n_done=len(durations_ns),
        limit_s=asked.max_time_s, timed_s=sum(durations_ns) / NS_PER_S,
    )  # fmt: skip
    return (*(caution for caution in cautions if caution.cause is not CautionCause.WIDE_INTERVAL), missed)


#: The median over undisturbed repetitions is told where it differs by more than half of the ± 2 % within which medians are wanted. The
#: interval of all would hide it: disturbance is what makes it wide.
TOLD_SHARE = 0.01

#: A median of fewer says less than the one over all.
MIN_UNDISTURBED = 3


def _other_rate(rate: float, middle: float, quiet: Sequence[int]) -> float | None:
    """The rate by the undisturbed repetitions' median, where there are enough of them and it differs."""
    if len(quiet) < MIN_UNDISTURBED:
        return None
    other = median(quiet)
    return rate / other if abs(other / middle - 1) > TOLD_SHARE else None


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
    return Digest(without_samples(record), summarize(record))


def joules_per_token(record: Record, timed: Sequence[Sample] | None = None) -> float | None:
    """Energy of one token over all sources that told; None where none did.

    Each source's mean power is taken times the timed duration, so that the few ms around a repetition do not count.
    """
    power: tuple[Power, ...] = record.telemetry.power if record.telemetry else ()
    if not power or not (timed := record.timed if timed is None else timed):
        return None
    timed_s = sum(sample.duration_ns for sample in timed) / NS_PER_S
    watts = sum(item.joules / item.window_s for item in power)
    return watts * timed_s / (record.asked.n_tokens * len(timed))


def token_times(record: Record) -> TokenTimes | None:
    """The latency of single tokens; None where none was timed by itself."""
    timed = [sample for sample in record.timed if sample.token_ns]
    if not timed:
        return None
    every = sorted(duration for sample in timed for duration in sample.token_ns)
    first = median([(sample.prompt_ns or 0) + sample.token_ns[0] for sample in timed])
    return TokenTimes(quantile(every, 0.50), quantile(every, 0.95), quantile(every, 0.99), first)
