"""Two settings measured by turns until it is known which is faster: the raw samples of every block, and the decision that they lead to.

The decision is not kept: `replay` makes the test again from the samples.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from harness.codec import NOT_EMPTY, Positive, PositiveNumber, Shared, UtcTime
from harness.evidence.medians import Interval, median, median_interval
from harness.evidence.sequential import SequentialTest
from harness.records.cautions import Caution
from harness.records.cells import Build, Load, Machine, Model, Resolved, Sample
from harness.records.failures import Failure
from harness.spec import RunSpec
from harness.units import NS_PER_S

#: History of the line format of kind "ab". 1 (2026-11): first.
SCHEMA = 1


class Arm(str, enum.Enum):
    """Which of the two settings."""

    A = "A"
    B = "B"

    @property
    def other(self) -> Arm:
        """The one that it is measured against."""
        return Arm.B if self is Arm.A else Arm.A


class Stop(str, enum.Enum):
    """Why no more pairs were measured. pairs: as many as the test ever looks at; time: --max-time was over."""

    DECIDED = "decided"
    PAIRS = "pairs"
    TIME = "time"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Block:
    """Some repetitions of one arm in a context of their own. A trial block came before the pairs, to see how long blocks are."""

    arm: Arm  #: whose
    samples: Annotated[tuple[Sample, ...], NOT_EMPTY]  #: in their order, warm-up first
    is_trial: bool = False  #: before the pairs

    def __post_init__(self) -> None:
        if not self.timed:
            raise ValueError("a block of warm-ups alone")

    @property
    def timed(self) -> tuple[Sample, ...]:
        """The samples that count: all but warm-ups."""
        return tuple(sample for sample in self.samples if not sample.is_warmup)

    @property
    def median_ns(self) -> float:
        """The median duration of its repetitions."""
        return median([sample.duration_ns for sample in self.timed])


@dataclass(frozen=True, slots=True)
class Side:
    """What one arm asked for, and what really ran. has_python: the engine is that of another environment (--python)."""

    asked: Shared[RunSpec]
    model: Shared[Model] | None = None
    build: Shared[Build] | None = None
    resolved: Shared[Resolved] | None = None
    load: Load | None = None
    has_python: bool = False
    slowdown: float = 0.0  #: share by which a test made every decode longer


@dataclass(frozen=True, slots=True)
class Ab:
    """One test of two settings. Blocks are in the order in which they were measured; those that are no trial make pairs, two by two."""

    command: str
    time_utc: UtcTime
    machine: Shared[Machine]
    harness_version: str
    a: Side
    b: Side
    stop: Stop  #: why it ended
    blocks: tuple[Block, ...] = ()  #: in the order in which they were measured
    margin: PositiveNumber = 0.01  #: a difference within it does not count, as a share
    alpha: PositiveNumber = 0.05  #: how often at most a decision of the command is false
    n_tests: Positive = 1  #: tests among which alpha was shared out evenly
    max_time_s: float = 60.0  #: that was given to the pairs
    elapsed_ns: int = 0  #: that the pairs took
    seed: int = 0  #: of the order within pairs
    failure: Failure | None = None
    failed_arm: Arm | None = None  #: whose block failed
    warnings: tuple[Caution, ...] = ()
    threads_source: str = "asked"  #: what decided the number of threads, as of a cell
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if not (self.margin < 1 and self.alpha < 1):
            raise ValueError("margin and alpha are shares below 1")
        if self.a.asked.test_without_depth != self.b.asked.test_without_depth:
            raise ValueError("the arms are of different tests")

    def side(self, arm: Arm) -> Side:
        """What an arm asked for and what ran."""
        return self.a if arm is Arm.A else self.b

    @property
    def pairs(self) -> list[tuple[Block, Block]]:
        """(A's block, B's block) of every pair that is whole."""
        return find_pairs(self.blocks)

    def rates(self, arm: Arm) -> list[float]:
        """Tokens a second of each of an arm's blocks that count, by its median repetition."""
        n_tokens, place = self.side(arm).asked.n_tokens, (Arm.A, Arm.B).index(arm)
        return [n_tokens * NS_PER_S / pair[place].median_ns for pair in self.pairs]

    def rate(self, arm: Arm) -> float | None:
        """The median of these; None without a pair."""
        rates = self.rates(arm)
        return median(rates) if rates else None

    def interval(self, arm: Arm) -> Interval | None:
        """The 95 % interval of that median; None for fewer than six pairs."""
        rates = self.rates(arm)
        return median_interval(rates) if rates else None


def find_pairs(blocks: Sequence[Block]) -> list[tuple[Block, Block]]:
    """(A's block, B's block) of every pair that is whole, in their order."""
    counted = [block for block in blocks if not block.is_trial]
    pairs = zip(counted[::2], counted[1::2], strict=False)
    return [(one, other) if one.arm is Arm.A else (other, one) for one, other in pairs if one.arm is not other.arm]


def log_ratio(pair: tuple[Block, Block]) -> float:
    """The logarithm of B's duration over A's."""
    a, b = pair
    return math.log(b.median_ns / a.median_ns)


def replay(ab: Ab) -> SequentialTest:
    """The test as it stood when the measuring ended, from the samples."""
    test = SequentialTest(ab.margin, ab.alpha / ab.n_tests)
    test.replay(map(log_ratio, ab.pairs), is_last=ab.stop is Stop.TIME)
    return test
