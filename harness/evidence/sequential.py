"""A test that may be looked at while it runs: pairs of blocks come in, and it ends as soon as the answer is known.

Pairs are measured one after the other, in random order within each pair, so that what drifts slowly cancels and a pair's log ratio is
symmetric about the true one. At planned looks the ratio gets an interval without assuming more than that symmetry: the order statistics
of the Walsh averages that Wilcoxon's signed-rank distribution names, counted exactly. Each look spends a part of alpha, what its
discrete distribution leaves over goes to later looks, and all parts together come to no more than alpha: so the intervals of all looks
hold the true ratio together with 1 - alpha (Bonferroni), at whichever look one stops and for whatever reason.

Sources: Wilcoxon's intervals: Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, section 3.3. Spending: Lan and DeMets
1983, in the family of Kim and DeMets 1987: alpha * share of pairs ** SPENDING. Repeated confidence intervals: Jennison and Turnbull
1989. Inside a margin: two one-sided tests, Schuirmann 1987. Error rates and power: scripts/trust_simulation.py.
"""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.evidence.medians import median
from harness.evidence.two_samples import Ratio

#: Pairs at which the test looks. Eight are the fewest whose signed ranks are rare enough for a first look; the last one ends it.
LOOKS = (8, 10, 12, 16, 20, 28, 40, 56, 80, 112, 160, 224, 320)

#: Below 1, so that early looks get much. With 0.4 the looks at 8 and 10 pairs both get what their coarse distributions need.
SPENDING = 0.4


class Decision(enum.Enum):
    """What is known about B against A."""

    UNDECIDED = "undecided"
    FASTER = "faster"  # B takes less time than A
    SLOWER = "slower"
    NO_DIFFERENCE = "no_difference"  # none larger than the margin


@dataclass(slots=True)
class SequentialTest:
    """Pairs in, a decision out.

    margin        : a share > 0, as 0.01: with the whole interval inside 1 / (1 + margin) … 1 + margin no difference counts
    alpha         : in (0, 1): how often at most a decision is false, looks and all
    beyond_margin : FASTER and SLOWER only with the whole interval beyond the margin, for who asks whether the two are equal within
                    it; otherwise a proven difference of any size is one

    Raises
    ------
    ValueError : margin or alpha is out of its range.
    """

    margin: float
    alpha: float = 0.05
    beyond_margin: bool = False
    log_ratios: list[float] = field(default_factory=list)
    decision: Decision = Decision.UNDECIDED
    ratio: Ratio | None = None
    n_at_look: int = 0
    _spent: float = 0.0
    _spent_last: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.margin < math.inf and 0 < self.alpha < 1):
            raise ValueError("a sequential test needs a margin above 0 and an alpha between 0 and 1")

    @property
    def is_over(self) -> bool:
        """Whether more pairs would be for nothing: it is decided, or the last look is past."""
        return self.decision is not Decision.UNDECIDED or self.n_at_look >= LOOKS[-1]

    @property
    def next_look(self) -> int | None:
        """How many pairs the next planned look waits for; None: the last one is past."""
        return next((look for look in LOOKS if look > len(self.log_ratios)), None)

    def add(self, log_ratio: float) -> Decision:
        """Take in log(B's duration / A's duration) of one pair, and decide if a look was planned here.

        Raises
        ------
        ValueError   : log_ratio is not finite.
        RuntimeError : the test is over.
        """
        if not math.isfinite(log_ratio):
            raise ValueError("a log ratio of two durations is a finite number")
        if self.is_over:
            raise RuntimeError("the test is over: its answer may not change any more")
        self.log_ratios.append(log_ratio)
        if len(self.log_ratios) in LOOKS:
            self._look(_share_spent(len(self.log_ratios)) * self.alpha)
        return self.decision

    def finish(self) -> Decision:
        """Look a last time, with half of what is left of alpha, where pairs end before the last planned look (the time was up).

        Half: who always runs out of time would else be wrong as often as alpha allows, and real pairs are a little alike (a machine's
        moods last longer than a pair), which costs what theory has not counted.
        A planned look at the same pairs is taken back: its interval holds whatever the narrower one does, so that only this one counts.
        The reason must not lie in what was measured: whoever ends when he likes the ratio spends more than alpha.
        """
        if not self.is_over and self.log_ratios:
            if len(self.log_ratios) == self.n_at_look:
                self._spent -= self._spent_last
            self._look(self._spent + (self.alpha - self._spent) / 2)
        return self.decision

    def replay(self, log_ratios: Iterable[float], *, is_last: bool) -> None:
        """Take in what pairs came to, as far as the test needs them; is_last: no pair follows them, for which the test did not ask.

        Raises
        ------
        ValueError : a log ratio is not finite.
        """
        for log_ratio in log_ratios:
            if self.is_over:
                break
            self.add(log_ratio)
        if is_last:
            self.finish()

    def _look(self, spendable: float) -> None:
        n = self.n_at_look = len(self.log_ratios)
        rank, spent = rank_of_interval(n, spendable - self._spent)
        averages = walsh_averages(self.log_ratios)
        middle = median(averages)
        if not rank:
            self._spent_last = 0.0
            if self.ratio is None or self.ratio.low is None:  # an interval of an earlier look holds on
                self.ratio = Ratio(math.exp(middle))
            return
        self._spent, self._spent_last = self._spent + spent, spent
        low, high, reach = averages[rank - 1], averages[-rank], math.log1p(self.margin)
        self.ratio = Ratio(math.exp(middle), math.exp(low), math.exp(high), 1 - self.alpha)
        least = reach if self.beyond_margin else 0.0
        if high < -least:
            self.decision = Decision.FASTER
        elif low > least:
            self.decision = Decision.SLOWER
        elif -reach <= low and high <= reach:
            self.decision = Decision.NO_DIFFERENCE


def walsh_averages(values: list[float]) -> list[float]:
    """The means of all pairs of values, each value with itself too, ascending: n (n + 1) / 2; their median is Hodges-Lehmann's."""
    return sorted((one + other) / 2 for place, one in enumerate(values) for other in values[place:])


def signed_rank_p(n: int, rank_sum: int) -> float:
    """The two-sided p of Wilcoxon's signed-rank test: n values without ties or zeros, the smaller of the two rank sums."""
    return min(1.0, 2 * sum(_chances_of_rank_sums(n)[: rank_sum + 1]))


def _share_spent(n: int) -> float:
    """Which share of alpha may be spent by the look at n pairs: early looks, by which large differences end soon, get much of it."""
    return float((n / LOOKS[-1]) ** SPENDING)


@functools.cache
def _chances_of_rank_sums(n: int) -> tuple[float, ...]:
    """How often each sum of the positive ranks of 1 … n occurs, from 0 to n (n + 1) / 2, where all 2^n signs are equally likely."""
    import numpy

    chances = numpy.zeros(n * (n + 1) // 2 + 1)
    chances[0] = 1
    for rank in range(1, n + 1):  # halved at each step: exact for n <= 53, and no overflow beyond
        chances[rank:] += chances[:-rank].copy()
        chances /= 2
    return tuple(chances.tolist())


def rank_of_interval(n: int, spendable: float) -> tuple[int, float]:
    """(which Walsh average, from 1, is the interval's low end, how often that interval misses); rank 0: none is wide enough."""
    below, rank = 0.0, 0
    for chance in _chances_of_rank_sums(n):
        if 2 * (below + chance) > spendable:
            break
        below, rank = below + chance, rank + 1
    return rank, 2 * below
