"""What drafts bring: from the steps that were timed, and from how often a guess is right and what a step costs.

A step that drafts γ tokens, each right with the same chance α whatever came before, writes (1 - α^(γ+1)) / (1 - α) tokens. Times what a
token takes without a draft, over what such a step takes, this is the speed-up.
Source: Leviathan, Kalman and Matias, Fast Inference from Transformers via Speculative Decoding, ICML 2023: equation (1), theorem 3.8.
That theorem counts a batch of γ + 1 tokens as one token; a processor whose arithmetic is busy takes longer for it, so steps are timed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.evidence.medians import Interval, median, median_interval
from harness.records.speculation import Passage, Speculation, round_ratios, token_times, whole_rounds
from harness.units import NS_PER_S

#: Halvings of the range of a chance: closer than any chance is measured.
_HALVINGS = 40

#: Chances for which the table of what would pay is made.
CHANCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def expected_tokens(alpha: float, n_draft: int) -> float:
    """Tokens of a step, the target's own one too: 1 … n_draft + 1.

    Raises
    ------
    ValueError : alpha is no chance, or n_draft is below 0.
    """
    if not 0 <= alpha <= 1 or n_draft < 0:
        raise ValueError("a chance lies between 0 and 1, and a draft has no fewer than 0 tokens")
    return sum(alpha**place for place in range(n_draft + 1))


def chance_that_pays(step_cost: float, n_draft: int) -> float | None:
    """The least alpha with which steps are no slower than single tokens; step_cost is a step's time over a single token's.

    0 where even steps without a right guess pay, None where none would.
    """
    if step_cost > n_draft + 1:
        return None
    low, high = 0.0, 1.0
    if step_cost <= 1:
        return low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if expected_tokens(middle, n_draft) >= step_cost else (middle, high)
    return high


@dataclass(frozen=True, slots=True)
class LengthResult:
    """What drafts of one length came to; n_draft 0 is without. What there was no step or round for is None.

    speedup is the median of the rounds' ratios to the same round without a draft. Costs are medians of steps with a whole draft.
    """

    n_draft: int
    n_rounds: int
    rate_tok_per_s: float | None = None
    rate_interval: Interval | None = None
    speedup: float | None = None
    speedup_interval: Interval | None = None
    acceptance: float | None = None  #: of drafted tokens, as llama.cpp counts
    tokens_per_step: float | None = None
    draft_ns: float | None = None  #: of the whole draft
    verify_ns: float | None = None  #: of the target's batch
    follow_ns: float | None = None  #: of the draft model's reading of it
    n_differing: int = 0  #: texts of the first round that are others than without a draft

    @property
    def step_ns(self) -> float | None:
        """What a step costs."""
        if self.draft_ns is None or self.verify_ns is None or self.follow_ns is None:
            return None
        return self.draft_ns + self.verify_ns + self.follow_ns


@dataclass(frozen=True, slots=True)
class Payoff:
    """What a draft model of the same cost would bring that is right with a chance: the best length and its speed-up."""

    alpha: float
    n_draft: int
    speedup: float


@dataclass(frozen=True, slots=True)
class SpeculationResult:
    """What a record comes to; alpha is the chance that a guess is right where those before it were, over all lengths.

    has_whole_drafts: a step drafts as many tokens as it may. A lookup that finds nothing, or a model that is not sure (p_min), drafts
    fewer or none, so that nothing follows from what a whole draft costs for the text.
    """

    alone: LengthResult
    lengths: tuple[LengthResult, ...]
    alpha: float | None
    has_whole_drafts: bool = True

    def predict(self, length: LengthResult, alpha: float | None = None) -> float | None:
        """The speed-up that follows from a chance (the measured one unless told) and what steps with a whole draft cost."""
        if alpha is None and self.has_whole_drafts:
            alpha = self.alpha
        if alpha is None or length.step_ns is None or not self.alone.step_ns:
            return None
        return expected_tokens(alpha, length.n_draft) * self.alone.step_ns / length.step_ns

    def chance_that_pays(self, length: LengthResult) -> float | None:
        """The least alpha with which drafts of a length would cost no time; None where none would, or nothing is known."""
        if length.step_ns is None or not self.alone.step_ns:
            return None
        return chance_that_pays(length.step_ns / self.alone.step_ns, length.n_draft)

    @property
    def best(self) -> LengthResult | None:
        """The fastest length."""
        return max((one for one in self.lengths if one.speedup), key=lambda one: one.speedup or 0.0, default=None)

    def payoffs(self, chances: Iterable[float] = CHANCES) -> list[Payoff]:
        """For each chance the length that would pay most, by what its steps cost here."""
        found = []
        for alpha in chances:
            tried = [(speedup, one.n_draft) for one in self.lengths if (speedup := self.predict(one, alpha))]
            found += [Payoff(alpha, n_draft, speedup) for speedup, n_draft in [max(tried)]] if tried else []
        return found


def summarize_speculation(record: Speculation) -> SpeculationResult:
    """What the steps of a record come to, length by length in ascending order."""
    alone = _summarize(record, 0)
    lengths = tuple(_summarize(record, length) for length in sorted(set(record.manner.lengths)))
    is_whole = record.draft is not None and not record.manner.p_min
    return SpeculationResult(
        alone, tuple(one for one in lengths if one.n_rounds), find_alpha(record.passages), is_whole
    )


def find_alpha(passages: Sequence[Passage]) -> float | None:
    """The chance that a guess is right where those before it were: right ones among those that were looked at.

    Behind a wrong guess none is looked at. It is the estimate of greatest likelihood where chances are alike. Texts that were written
    again and again would count again and again: those of the first round do.
    """
    steps = [
        (right, tried)
        for passage in passages
        if passage.round == 0
        for right, tried in zip(passage.n_accepted, passage.n_drafted, strict=True)
    ]
    n_looked_at = sum(right + (right < tried) for right, tried in steps)
    return sum(right for right, _ in steps) / n_looked_at if n_looked_at else None


def _summarize(record: Speculation, n_draft: int) -> LengthResult:
    passages, times = record.passages, token_times(record.passages, n_draft)
    if not times:
        return LengthResult(n_draft, 0)
    rates = [NS_PER_S / time_ns for time_ns in times.values()]
    ratios = round_ratios(passages, 0, n_draft)
    found = [passage for one in whole_rounds(passages, n_draft).values() for passage in one]
    first = [passage for passage in found if passage.round == 0]
    n_drafted, n_steps = sum(sum(one.n_drafted) for one in first), sum(len(one.n_drafted) for one in first)
    whole = [
        costs
        for one in found
        for tried, *costs in zip(one.n_drafted, one.draft_ns, one.verify_ns, one.follow_ns, strict=True)
        if tried == n_draft
    ]
    draft_ns, verify_ns, follow_ns = (median(one) for one in zip(*whole, strict=True)) if whole else (None,) * 3
    return LengthResult(
        n_draft, len(times), median(rates), median_interval(rates),
        median(ratios) if ratios else None, median_interval(ratios) if ratios else None,
        sum(sum(one.n_accepted) for one in first) / n_drafted if n_drafted else None,
        sum(one.n_written for one in first) / n_steps if n_steps else None,
        draft_ns, verify_ns, follow_ns,
        n_differing=sum(one.differs_at is not None for one in first),
    )  # fmt: skip


def rivals_of(record: Speculation, best: int) -> list[int]:
    """The other lengths of which it is not proved that they are slower than the best: the interval of the rounds' ratio holds 1.

    Those that the first round left behind, where lengths are screened, are none.
    """
    n_ours = len(whole_rounds(record.passages, best))
    found = []
    for length in sorted(set(record.manner.lengths) - {best}):
        ratios = round_ratios(record.passages, length, best)
        if not ratios or (record.manner.is_screened and len(ratios) < n_ours):
            continue
        interval = median_interval(ratios)
        if interval is None or interval.low <= 1:
            found.append(length)
    return found
