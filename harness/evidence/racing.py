"""A race: candidates measured by turns, of which those that cannot win are dropped as soon as that is known.

In each round every candidate that is still in the race is measured once, in random order, so that what drifts slowly cancels in the
difference of two of them. At planned looks each is held against the best one so far (and that one against the incumbent, which is what
one has anyway): who is proven slower is dropped, and so is who cannot be faster by more than the margin. The incumbent is dropped only
where it is proven slower, so that a race that finds nothing changes nothing.

Two intervals of the ratio are used, and each has half of alpha. Before eight rounds the signs of differences can prove nothing, and a
candidate that takes twice as long need not be measured eight times: there the differences of logarithms are taken to be normal, with
the variance that all candidates have beside their means and the rounds' (or the pair's own where that is larger), by Student's t. From
eight rounds on it is the interval of `harness.evidence.sequential`, which assumes no more than symmetry. All pairs of candidates and
all looks share alpha (Bonferroni), so that with 1 - alpha no candidate is dropped that would have won by more than twice the margin:
once for who is no better than the best one, once for that one against the incumbent.

Sources: races with blocks: Moore and Lee 1994, Efficient Algorithms for Minimizing Cross Validation Error (BRACE); Maron and Moore
1994, Hoeffding Races; racing with signed ranks: Birattari et al. 2002, A Racing Algorithm for Configuring Metaheuristics (F-Race).
Residual variance of a two-way layout: Scheffé 1959, The Analysis of Variance, section 4.2.
"""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.evidence.medians import mean, median
from harness.evidence.sequential import LOOKS, SPENDING, rank_of_interval, walsh_averages
from harness.evidence.two_samples import Ratio

#: Rounds after which one looks by Student's t, for differences that are gross.
EARLY_LOOKS = (2, 3, 4, 6)

#: No difference of two measurements scatters less than this, relatively: a few that agree by chance are no proof.
LEAST_SCATTER = 0.002


#: With fewer degrees of freedom Student's interval is so wide that it says nothing.
LEAST_FREE = 2


#: A leader that is not proven to be faster than the incumbent wins only if it was in so many of the rounds.
MOST_OF_ROUNDS = 0.75


class Fate(str, enum.Enum):
    """What became of a candidate."""

    KEPT = "kept"
    SLOWER = "slower"  # proven to take longer than another one
    NO_BETTER = "no_better"  # it cannot be faster than another one by more than the margin
    FAILED = "failed"  # it could not be measured


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a candidate stands: its cost over that of candidate `than`, after so many rounds. ratio is None before it was measured."""

    candidate: int
    fate: Fate
    ratio: Ratio | None
    than: int | None
    n_rounds: int


@dataclass(slots=True)
class Race:
    """Rounds of costs in, who is left out.

    Parameters
    ----------
    n_candidates : from 1 on; they are called 0, 1, 2, …
    margin       : a share > 0, as 0.01: who can win by no more than this is no better
    alpha        : in (0, 1): how often at most one is dropped that should not have been
    most_rounds  : after so many it is over, whoever is left
    incumbent    : the candidate that is kept unless another one is better

    Raises
    ------
    ValueError : a number is out of its range.
    """

    n_candidates: int
    margin: float = 0.01
    alpha: float = 0.05
    most_rounds: int = 20
    incumbent: int = 0
    dropped: dict[int, Standing] = field(default_factory=dict)
    _rounds: list[dict[int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not (self.n_candidates > 0 and 0 <= self.incumbent < self.n_candidates and self.most_rounds > 0):
            raise ValueError("a race needs candidates, one of which is the incumbent, and rounds")
        if not (0 < self.margin < math.inf and 0 < self.alpha < 1):
            raise ValueError("a race needs a margin above 0 and an alpha between 0 and 1")

    @property
    def alive(self) -> tuple[int, ...]:
        """The candidates that are still in the race."""
        return tuple(candidate for candidate in range(self.n_candidates) if candidate not in self.dropped)

    @property
    def n_rounds(self) -> int:
        """Rounds that are whole."""
        return len(self._rounds)

    @property
    def is_over(self) -> bool:
        """Whether more rounds would be for nothing."""
        return len(self.alive) < 2 or self.n_rounds >= self.most_rounds

    def add(self, costs: Mapping[int, float]) -> None:
        """Take in a round: the cost of each candidate that is alive, in one unit; drop who cannot win if a look was planned here.

        Raises
        ------
        ValueError   : a candidate is missing, or a cost is not positive and finite.
        RuntimeError : the race is over.
        """
        if self.is_over:
            raise RuntimeError("the race is over")
        if set(self.alive) - set(costs) or not all(0 < cost < math.inf for cost in costs.values()):
            raise ValueError("a round is a positive, finite cost of every candidate that is alive")
        self._rounds.append({candidate: math.log(costs[candidate]) for candidate in self.alive})
        if self.n_rounds in EARLY_LOOKS or (self.n_rounds in LOOKS and self.n_rounds >= LOOKS[0]):
            self._look()

    def fail(self, candidate: int) -> None:
        """Take a candidate out that cannot be measured; the incumbent too."""
        if candidate not in self.dropped:
            self.dropped[candidate] = Standing(candidate, Fate.FAILED, None, None, self.n_rounds)

    @property
    def leader(self) -> int | None:
        """Of those alive the one with the least cost so far, the incumbent before the first round; None where nobody is left."""
        alive = self.alive
        if not self._rounds or not alive:
            return self.incumbent if self.incumbent in alive else alive[0] if alive else None
        return min(alive, key=lambda candidate: (self._level(candidate), candidate != self.incumbent))

    @property
    def winner(self) -> int | None:
        """The leader where it is better than the incumbent by more than the margin, and in most rounds, or where that one is out; else
        the incumbent."""
        leader = self.leader
        if leader is None or leader == self.incumbent or self.incumbent in self.dropped:
            return leader
        differences = self._differences(leader, self.incumbent)
        is_often = sum(value < 0 for value in differences) >= MOST_OF_ROUNDS * max(len(differences), EARLY_LOOKS[0])
        return leader if is_often and median(differences) < -math.log1p(self.margin) else self.incumbent

    def standings(self) -> list[Standing]:
        """All candidates: the winner, then the others that were kept by their costs, then the dropped ones, the last dropped first."""
        winner = self.winner
        kept = [
            Standing(one, Fate.KEPT, self.ratio_of(one, winner), winner, self.n_rounds)
            for one in sorted(self.alive, key=lambda one: (one != winner, self._level(one)))
            if winner is not None
        ]
        return kept + sorted(self.dropped.values(), key=lambda one: -one.n_rounds)

    def _level(self, candidate: int) -> float:
        """Its logarithm over the rounds, each round's middle taken off."""
        alive = self.alive
        return median([costs[candidate] - median([costs[one] for one in alive]) for costs in self._rounds] or [0.0])

    def ratio_of(self, one: int, other: int) -> Ratio | None:
        """One candidate's cost over another's, in the rounds that both have; None without one."""
        if not self._differences(one, other):
            return None
        middle, ends = self._bound(one, other)
        if ends is None:
            return Ratio(math.exp(middle))
        return Ratio(math.exp(middle), math.exp(ends[0]), math.exp(ends[1]), 1 - self.alpha)

    def _differences(self, one: int, other: int) -> list[float]:
        return [costs[one] - costs[other] for costs in self._rounds if one in costs and other in costs]

    def _look(self) -> None:
        leader = self.leader
        assert leader is not None, "a look has candidates"
        if leader != self.incumbent and self.incumbent in self.alive:
            self._hold(leader, self.incumbent)
        for candidate in self.alive:
            if leader in self.dropped:
                leader = self.leader
                assert leader is not None, "the incumbent, by which it was dropped, is alive"
            if candidate != leader:
                self._hold(candidate, leader)

    def _hold(self, one: int, other: int) -> None:
        """Drop one candidate if by the other it cannot win; the incumbent only if it is slower."""
        _, ends = self._bound(one, other)
        if ends is None:
            return
        if ends[0] > 0:
            fate = Fate.SLOWER
        elif ends[0] > -math.log1p(self.margin) and one != self.incumbent:
            fate = Fate.NO_BETTER
        else:
            return
        self.dropped[one] = Standing(one, fate, self.ratio_of(one, other), other, self.n_rounds)

    def _bound(self, one: int, other: int) -> tuple[float, tuple[float, float] | None]:
        """(the logarithm of one's cost over the other's, its interval or None where there are too few rounds)."""
        differences = self._differences(one, other)
        n, n_pairs = len(differences), self.n_candidates * (self.n_candidates - 1) // 2
        each = self.alpha / 2 / max(n_pairs, 1)
        if n < LOOKS[0]:
            return self._bound_early(differences, each)
        averages = walsh_averages(differences)
        rank = _rank_at(n, self.most_rounds, each)
        return median(averages), (averages[rank - 1], averages[-rank]) if rank else None

    def _bound_early(self, differences: Sequence[float], alpha: float) -> tuple[float, tuple[float, float] | None]:
        n, middle = len(differences), mean(differences)
        together = tuple(self._rounds[n - 1])
        n_free = (len(together) - 1) * (n - 1)
        if n < EARLY_LOOKS[0] or n_free < LEAST_FREE:
            return middle, None
        own = sum((value - middle) ** 2 for value in differences) / (n - 1)
        scatter = max(own, 2 * self._residual_variance(together, n), LEAST_SCATTER**2)
        reach = _student(n_free, alpha / len(EARLY_LOOKS)) * math.sqrt(scatter / n)
        return middle, (middle - reach, middle + reach)

    def _residual_variance(self, together: Sequence[int], n: int) -> float:
        """What the costs of the first n rounds scatter beside their candidates' means and their rounds' means."""
        rounds = self._rounds[:n]
        means = {one: mean([costs[one] for costs in rounds]) for one in together}
        whole = mean(list(means.values()))
        squares = 0.0
        for costs in rounds:
            of_round = mean([costs[one] for one in together])
            squares += sum((costs[one] - means[one] - of_round + whole) ** 2 for one in together)
        return squares / ((len(together) - 1) * (n - 1))


@functools.lru_cache(maxsize=256)
def _student(n_free: int, alpha: float) -> float:
    """How many standard errors a two-sided interval reaches."""
    from scipy.special import stdtrit  # scipy.stats takes half a second to import, in the middle of a race

    return float(stdtrit(n_free, 1 - alpha / 2))


@functools.lru_cache(maxsize=256)
def _rank_at(n: int, most_rounds: int, alpha: float) -> int:
    """Which Walsh average is the interval's low end at the look at n rounds, with all looks before it paid from alpha; 0: none."""
    spent, rank = 0.0, 0
    for look in (*(look for look in LOOKS if look < n), n):
        share = min((look / most_rounds) ** SPENDING, 1.0)
        rank, used = rank_of_interval(look, share * alpha - spent)
        spent += used
    return rank
