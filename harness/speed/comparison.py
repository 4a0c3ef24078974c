"""Two or more sets of measurements held against each other, cell by cell: like with like, each with its evidence.

Like is what has equal facets (`Subject.facets`): every setting, machine, model and build of llama.cpp, but those that the comparison is
by. What has no like on the other side is not compared, and it is said in what the two differ.

Of a cell that one side measured several times all repetitions count together. They show less than they seem to: repetitions of one run
are more alike than runs are. So where both sides have at least `MIN_REPETITIONS` runs of a cell, the medians of the runs are the samples.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.evidence.medians import CONFIDENCE, mean, median, standard_deviation
from harness.evidence.stopping import MIN_REPETITIONS
from harness.evidence.two_samples import Contrast, Ratio, Summary, compare_samples, compare_summaries, correct_holm
from harness.records.bench_rows import USUAL_REPETITIONS
from harness.records.measurements import Evidence, Measurement, Subject
from harness.spec import RunSpec
from harness.units import NS_PER_S

#: Pairs of cells without a like that are looked through for what they differ in.
MOST_LOOKED_AT = 200

Key = tuple[tuple[str, Any], ...]


class Basis(enum.Enum):
    """What the samples of a pair are."""

    REPETITIONS = "repetitions"
    RUNS = "runs"  # the median of each run
    SUMMARIES = "summaries"  # mean and deviation: weaker evidence


class Standing(enum.Enum):
    """What is proved of a pair: the corrected p is below 5 % and the interval of the ratio does not hold 1, or not."""

    FASTER = "faster"
    SLOWER = "slower"
    NOISE = "noise"
    UNDECIDED = "undecided"  # too few samples for an interval


@dataclass(frozen=True, slots=True)
class Side:
    """One side: its name, and all that was measured."""

    name: str
    measurements: Sequence[Measurement]


@dataclass(frozen=True, slots=True)
class Gathered:
    """What one side has of one cell."""

    measurements: Sequence[Measurement]

    @property
    def spec(self) -> RunSpec:
        return self.measurements[0].subject.spec

    @property
    def evidence(self) -> Evidence:
        """The weakest."""
        weak = any(one.evidence is Evidence.SUMMARY for one in self.measurements)
        return Evidence.SUMMARY if weak else Evidence.SAMPLES

    @property
    def n(self) -> int | None:
        """Repetitions in all; None where a file does not say."""
        counts = [one.n for one in self.measurements]
        return None if None in counts else sum(filter(None, counts))

    def samples_ns(self, basis: Basis) -> list[float]:
        """The durations that are compared."""
        if basis is Basis.RUNS:
            return [one.centre_ns for one in self.measurements]
        return [float(duration) for one in self.measurements for duration in one.durations_ns]

    def summarize(self, assumed_n: int) -> Summary:
        """Mean, deviation and number of all repetitions, of which some are known by their means alone."""
        parts = [one.summarize(assumed_n) for one in self.measurements]
        n = sum(part.n for part in parts)
        middle = sum(part.mean * part.n for part in parts) / n
        squares = sum((part.n - 1) * part.deviation**2 + part.n * (part.mean - middle) ** 2 for part in parts)
        return Summary(middle, math.sqrt(squares / (n - 1)) if n > 1 else 0.0, n)

    def rate_tok_per_s(self, basis: Basis, assumed_n: int) -> float:
        """Tokens by the median duration, or by the mean one where that is what is compared."""
        centre = self.summarize(assumed_n).mean if basis is Basis.SUMMARIES else median(self.samples_ns(basis))
        return self.spec.n_tokens * NS_PER_S / centre

    @property
    def is_distrusted(self) -> bool:
        return any(one.is_distrusted for one in self.measurements)


@dataclass(frozen=True, slots=True)
class Pair:
    """A cell of two sides. ratio is of the rates, above 1 where the other side is faster; p is corrected for all pairs (Holm)."""

    key: Key
    base: Gathered
    other: Gathered
    side: str
    basis: Basis
    base_tok_per_s: float
    other_tok_per_s: float
    contrast: Contrast
    p: float | None

    @property
    def ratio(self) -> Ratio:
        found = self.contrast.ratio
        assert found is not None, "both sides of a pair have samples"
        return found

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends of the ratio's interval; None where there are too few samples."""
        low, high = self.ratio.low, self.ratio.high
        return None if low is None or high is None else (low, high)

    @property
    def standing(self) -> Standing:
        """What is proved."""
        ends = self.interval
        if ends is None or self.p is None:
            return Standing.UNDECIDED
        if self.p >= 1 - CONFIDENCE or ends[0] <= 1 <= ends[1]:
            return Standing.NOISE
        return Standing.FASTER if ends[0] > 1 else Standing.SLOWER

    @property
    def is_distrusted(self) -> bool:
        """Whether it rests on something that is not to be trusted."""
        return self.base.is_distrusted or self.other.is_distrusted


@dataclass(frozen=True, slots=True)
class Difference:
    """A facet in which two cells differ."""

    name: str
    base: Any
    other: Any


@dataclass(frozen=True, slots=True)
class Unlike:
    """Cells of a side without a like in the first one: n of them, and what the nearest differs in; nothing: nothing is there."""

    side: str
    n: int
    differences: tuple[Difference, ...]
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All pairs of some sides, each against the first; means are geometric ones of the ratios of each other side."""

    sides: Sequence[Side]
    by: Sequence[str]
    pairs: Sequence[Pair]
    unlike: Sequence[Unlike]
    assumed_n: int
    is_coarse: bool

    @property
    def means(self) -> Mapping[str, float]:
        """The geometric mean of each other side's ratios."""
        found: dict[str, list[float]] = {}
        for pair in self.pairs:
            found.setdefault(pair.side, []).append(math.log(pair.ratio.value))
        return {side: math.exp(mean(logs)) for side, logs in found.items()}


def is_coarse(measurements: Iterable[Measurement]) -> bool:
    """Whether machines are known as llama-bench's files tell them, because some of these come from there."""
    return any(one.subject.machine is None for one in measurements)


class _Facets:
    """The facets of subjects, worked out once for each."""

    def __init__(self, *, is_coarse: bool) -> None:
        self._is_coarse = is_coarse
        self._known: dict[int, tuple[Subject, Mapping[str, Any]]] = {}

    def of(self, subject: Subject) -> Mapping[str, Any]:
        if id(subject) not in self._known:
            self._known[id(subject)] = (subject, subject.facets(is_coarse=self._is_coarse))
        return self._known[id(subject)][1]


def compare(sides: Sequence[Side], by: Sequence[str] = (), assumed_n: int = USUAL_REPETITIONS) -> Comparison:
    """Hold each side against the first.

    Parameters
    ----------
    by        : facets in which a pair may differ, because the sides are told apart by them
    assumed_n : repetitions behind a mean and deviation of which the file does not say how many there were
    """
    coarse = is_coarse(one for side in sides for one in side.measurements)
    facets = _Facets(is_coarse=coarse)
    groups = [_gather(side, facets, by) for side in sides]
    pairs, unlike = [], []
    for side, cells in zip(sides[1:], groups[1:], strict=True):
        pairs += [_contrast(key, groups[0][key], other, side.name, assumed_n) for key, other in cells.items() if key in groups[0]]
        unlike += _find_unlike(groups[0], cells, side.name)
    corrected = correct_holm([pair.contrast.p for pair in pairs])
    decided = [_with_p(pair, p) for pair, p in zip(pairs, corrected, strict=True)]
    return Comparison(sides, by, decided, unlike, assumed_n, coarse)
