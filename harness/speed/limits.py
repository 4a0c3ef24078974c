"""What a comparison may not show: ``slower:3%``, held against the intervals of its pairs and never against a median alone.

A pair breaks a limit where it is faster or slower by the corrected p, and the whole 95 % interval of its ratio lies beyond the limit. A
true change of exactly the limit is called broken in 2.5 % of comparisons of a cell at the most, a smaller one more seldom. So a change
is found for certain only where it is larger than the limit by what the interval is wide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.speed.comparison import Pair, Standing

_LIMIT = re.compile(r"(?:(?P<test>[^:]+):)?(?P<way>slower|faster)(?::(?P<share>\d+(?:\.\d+)?)\s*%?)?")


@dataclass(frozen=True, slots=True)
class Limit:
    """How much slower or faster is too much, as a share of the first side's rate.

    test is a kind (pp, tg) or a name (pp512); empty: all.
    """

    way: Standing
    share: float
    test: str = ""
    text: str = ""  #: as it was written

    def watches(self, pair: Pair) -> bool:
        """Whether it is about this pair."""
        spec = pair.other.spec
        return self.test in ("", spec.kind, spec.test, pair.base.spec.test)

    def is_broken_by(self, pair: Pair) -> bool:
        """Whether the pair's whole interval lies beyond it."""
        ends = pair.interval
        if not self.watches(pair) or ends is None or pair.standing is not self.way:
            return False
        return ends[1] < 1 - self.share if self.way is Standing.SLOWER else ends[0] > 1 + self.share


@dataclass(frozen=True, slots=True)
class Judgement:
    """What limits say of a comparison: the pairs that broke one, and those of which nothing can be said.

    A pair that rests on a record which is not to be trusted breaks nothing and is undecided. idle: limits that are about none of the
    pairs, so that nothing could ever break them.
    """

    broken: Sequence[Pair]
    undecided: Sequence[Pair]
    idle: Sequence[Limit] = ()


def parse_limit(text: str) -> Limit:
    """Read ``slower:3%``, ``pp:slower:3%``, ``tg128:faster:5%``, or ``slower`` for any amount.

    Raises
    ------
    ValueError : it is none of these, or a share without its sign as small as 0.03, which means 3 % to some and 0.03 % to others.
    """
    match = _LIMIT.fullmatch(text.strip())
    share = float(match["share"] or 0) / 100 if match else 0.0
    is_ambiguous = 0 < share < 0.01 and "%" not in text
    if match is None or is_ambiguous or (match["way"] == "slower" and share >= 1):
        raise ValueError(f"{text!r} is not a limit such as slower:3%, pp:slower:3% or tg128:faster:5%")
    return Limit(Standing(match["way"]), share, (match["test"] or "").strip(), text.strip())


def judge_pairs(limits: Iterable[Limit], pairs: Sequence[Pair]) -> Judgement:
    """Hold limits against the pairs that they watch."""
    found = [*limits]
    watched = [pair for pair in pairs if any(limit.watches(pair) for limit in found)]
    undecided = [pair for pair in watched if _is_undecided(pair)]
    broken = [pair for pair in watched if not _is_undecided(pair) and any(one.is_broken_by(pair) for one in found)]
    return Judgement(broken, undecided, [limit for limit in found if not any(limit.watches(pair) for pair in pairs)])


def _is_undecided(pair: Pair) -> bool:
    return pair.is_distrusted or pair.standing is Standing.UNDECIDED
