"""One test by harness and by a program of llama.cpp's, run alternately: raw samples of every pair of runs.

scripts/parity measures it beside llama-bench, and scripts/batched-parity beside llama-batched-bench.
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
from harness.records.cells import Machine
from harness.units import NS_PER_S

#: History of the line format.
#: 1 (2026-11): first, with rates and ratios. 2 (2026-11): raw samples alone.
SCHEMA = 2

#: How often at most a comparison is to be wrong, looks and all.
ALPHA = 0.05


class Equality(enum.Enum):
    """What the pairs show of harness beside llama-bench."""

    EQUAL = "equal"  #: the whole interval lies within the margin
    FASTER = "faster"  #: the whole interval lies above 1, and not all of it within the margin
    SLOWER = "slower"
    UNDECIDED = "undecided"


Runs = Annotated[tuple[Annotated[tuple[Positive, ...], NOT_EMPTY], ...], NOT_EMPTY]


@dataclass(frozen=True, slots=True)
class Parity:
    """One test by both tools, pair by pair: each run was a process of its own, and those of a pair followed each other. Who went first
    was drawn; it alternated where no margin is named, and the number of pairs was fixed."""

    time_utc: UtcTime
    machine: Shared[Machine]
    model: str  #: the file's name
    test: str  #: as llama-bench names it: pp512, tg128
    n_tokens: Positive  #: tokens of one repetition
    harness_samples_ns: Runs  #: of each pair the repetitions
    llama_bench_samples_ns: Runs  #: of each pair the repetitions; llama-batched-bench's where that is the reference
    model_type: str | None = None  #: llama.cpp's description
    n_threads: int | None = None  #: threads of both
    build_commit: str | None = None  #: llama.cpp's, of both
    n_depth: int = 0  #: tokens in the cache before
    margin: PositiveNumber | None = (
        None  #: the share within which both count as equal, for which pairs were measured until it was known
    )
    harness_first: tuple[bool, ...] = ()  #: of each pair whether harness went first; empty: they took turns
    reference: str = "llama-bench"  #: the other program
    n_parallel: Positive = 1  #: sequences at once
    is_prompt_shared: bool = False  #: one prompt was read, and copied to all of them
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if len(self.harness_samples_ns) != len(self.llama_bench_samples_ns):
            raise ValueError("not as many runs of llama-bench as of harness")

    @property
    def harness_tok_per_s(self) -> float:
        """The median over the pairs, each by its median repetition."""
        return median([self._rate(run) for run in self.harness_samples_ns])

    @property
    def llama_bench_tok_per_s(self) -> float:
        """The same of llama-bench."""
        return median([self._rate(run) for run in self.llama_bench_samples_ns])

    @property
    def ratios(self) -> tuple[float, ...]:
        """Of each pair how much faster harness was; above 1 it was."""
        pairs = zip(self.harness_samples_ns, self.llama_bench_samples_ns, strict=True)
        return tuple(self._rate(ours) / self._rate(theirs) for ours, theirs in pairs)

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval of the median ratio; None for fewer than six pairs."""
        return median_interval(self.ratios)

    @property
    def weighed(self) -> SequentialTest | None:
        """The sequential test that decided when to stop, as it stood then; None where none did."""
        return None if self.margin is None else weigh(self.ratios, self.margin)

    @property
    def equality(self) -> Equality | None:
        """What the pairs show; None for a fixed number of pairs, of which no margin was named."""
        if self.margin is None:
            return None
        found = weigh(self.ratios, self.margin).ratio
        if found is None or (ends := found.ends) is None:
            return Equality.UNDECIDED
        low, high = ends
        if 1 / (1 + self.margin) <= low and high <= 1 + self.margin:
            return Equality.EQUAL
        return Equality.FASTER if low > 1 else Equality.SLOWER if high < 1 else Equality.UNDECIDED

    def _rate(self, samples_ns: tuple[int, ...]) -> float:
        return self.n_tokens * NS_PER_S / median(samples_ns)


def open_test(margin: float) -> SequentialTest:
    """The test that pairs are measured for: it ends when both are known to be equal within the margin, or not to be."""
    return SequentialTest(margin, ALPHA, beyond_margin=True)


def weigh(ratios: Sequence[float], margin: float) -> SequentialTest:
    """The test as it stands after pairs that are not to be followed by others."""
    test = open_test(margin)
    test.replay(map(math.log, ratios), is_last=True)
    return test
