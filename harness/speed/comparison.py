"""Two or more sets of measurements held against each other, cell by cell: like with like, each with its evidence.

Like is what has equal facets (`Subject.facets`): every setting, machine, model and build of llama.cpp, but those that the comparison is
by. What has no like on the other side is not compared, and it is said in what the two differ.

Of a cell that one side measured several times all repetitions count together. They show less than they seem to, for repetitions of one
run are more alike than runs are. So where both sides have at least `MIN_REPETITIONS` runs, the medians of the runs are the samples.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError
from harness.evidence.medians import CONFIDENCE, mean, median
from harness.evidence.stopping import MIN_REPETITIONS
from harness.evidence.two_samples import Contrast, Ratio, Summary, compare_samples, compare_summaries, correct_holm
from harness.records.bench_rows import USUAL_REPETITIONS
from harness.records.measurements import BUILD, MACHINE, MODEL, Evidence, Facets, Measurement, Subject
from harness.spec import NAMED_IN_TEST, RunSpec, defaults
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
    """One side and all that was measured there: an input by its name, or the values of the facets that the comparison is by."""

    name: str
    measurements: list[Measurement]
    values: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Gathered:
    """What one side has of one cell. Where any of it is to be trusted, what is not is left out: n_left_out measurements."""

    measurements: Sequence[Measurement]
    n_left_out: int = 0

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
        """What is compared, in ns a token: tests of different lengths are compared by their rates."""
        n_tokens = self.spec.n_tokens
        if basis is Basis.RUNS:
            return [one.centre_ns / n_tokens for one in self.measurements]
        return [duration / n_tokens for one in self.measurements for duration in one.durations_ns]

    def summarize(self, assumed_n: int) -> Summary:
        """Mean and deviation of all repetitions, in ns a token, and how many they are; of some the mean alone may be known."""
        n_tokens = self.spec.n_tokens
        parts = [one.summarize(assumed_n) for one in self.measurements]
        n = sum(part.n for part in parts)
        middle = sum(part.mean * part.n for part in parts) / n
        squares = sum((part.n - 1) * part.deviation**2 + part.n * (part.mean - middle) ** 2 for part in parts)
        return Summary(middle / n_tokens, math.sqrt(squares / (n - 1)) / n_tokens if n > 1 else 0.0, n)

    def rate_tok_per_s(self, basis: Basis, assumed_n: int) -> float:
        """Tokens by the median duration, or by the mean one where that is what is compared."""
        centre = self.summarize(assumed_n).mean if basis is Basis.SUMMARIES else median(self.samples_ns(basis))
        return NS_PER_S / centre

    @property
    def is_distrusted(self) -> bool:
        return any(one.is_distrusted for one in self.measurements)


@dataclass(frozen=True, slots=True)
class Pair:
    """A cell of two sides, the first and `side`.

    contrast is of the rates: a ratio above 1 where `side` is faster. p is corrected for all pairs of the comparison (Holm).
    """

    key: Key
    base: Gathered
    other: Gathered
    side: int
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
        return self.ratio.ends

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
    """n cells of a side without a like in the first one, by their tests, and what the nearest there differs in.

    is_missing: it is the first one that has them, and `side` has nothing that these do not have.
    """

    side: int
    n: int
    tests: tuple[str, ...]
    differences: tuple[Difference, ...] = ()
    is_missing: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """All pairs of some sides, each against the first; means are geometric ones of the ratios of each other side."""

    sides: Sequence[Side]
    by: Sequence[str]
    pairs: Sequence[Pair]
    unlike: Sequence[Unlike]
    assumed_n: int

    @property
    def means(self) -> Mapping[int, float]:
        """The geometric mean of each other side's ratios."""
        found: dict[int, list[float]] = {}
        for pair in self.pairs:
            found.setdefault(pair.side, []).append(math.log(pair.ratio.value))
        return {side: math.exp(mean(logs)) for side, logs in found.items()}


class _Facets:
    """The facets of the sides' subjects, worked out once for each."""

    def __init__(self, sides: Sequence[Side]) -> None:
        # Where some come from llama-bench's files, all machines are told as those do.
        self._is_coarse = any(one.subject.machine is None for side in sides for one in side.measurements)
        self._known: dict[int, tuple[Subject, Facets]] = {}

    def of(self, subject: Subject) -> Facets:
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
    facets = _Facets(sides)
    base, *others = [_gather(side, facets, by) for side in sides]
    pairs: list[Pair] = []
    unlike: list[Unlike] = []
    for side, cells in enumerate(others, start=1):
        common = [key for key in base if key in cells]
        pairs += [_contrast(key, base[key], cells[key], side, assumed_n) for key in _in_order(common)]
        unlike += _find_unlike(base, cells, side)
    corrected = correct_holm([pair.contrast.p for pair in pairs])
    decided = [dataclasses.replace(pair, p=p) for pair, p in zip(pairs, corrected, strict=True)]
    return Comparison(sides, by, decided, unlike, assumed_n)


def _gather(side: Side, facets: _Facets, by: Sequence[str]) -> dict[Key, Gathered]:
    """A side's cells by what they must have in common with another side's."""
    keys: dict[int, Key] = {}
    cells: dict[Key, list[Measurement]] = {}
    for one in side.measurements:
        place = id(one.subject)
        if place not in keys:
            keys[place] = tuple((name, value) for name, value in facets.of(one.subject).items() if name not in by)
        cells.setdefault(keys[place], []).append(one)
    return {key: _believe(found) for key, found in cells.items()}


def _believe(measurements: Sequence[Measurement]) -> Gathered:
    """The measurements that speak."""
    trusted = [one for one in measurements if not one.is_distrusted]
    return Gathered(trusted or measurements, len(measurements) - len(trusted) if trusted else 0)


#: Facets that say what is timed and not with which settings.
_TESTS = ("n_prompt", "n_gen", *NAMED_IN_TEST)


def _in_order(keys: Iterable[Key]) -> list[Key]:
    """Cells of the same settings together, prompts before generation, the short ones first: rounds measure them in any order."""
    places: dict[Key, int] = {}
    order = {}
    for key in keys:
        settings = tuple(item for item in key if item[0] not in _TESTS)
        values = dict(key)
        tests = [values.get(name, 0) for name in _TESTS]
        order[key] = (places.setdefault(settings, len(places)), tests[1] > 0, tests)
    return sorted(order, key=lambda key: order[key])


def _contrast(key: Key, base: Gathered, other: Gathered, side: int, assumed_n: int) -> Pair:
    both = (base, other)
    if min(len(one.measurements) for one in both) >= MIN_REPETITIONS:
        basis = Basis.RUNS
    elif all(one.evidence is Evidence.SAMPLES for one in both):
        basis = Basis.REPETITIONS
    else:
        basis = Basis.SUMMARIES
    # The ratio of durations of base to other is the ratio of rates of other to base.
    if basis is Basis.SUMMARIES:
        found = compare_summaries(other.summarize(assumed_n), base.summarize(assumed_n))
    else:
        specs = (one.subject.spec for gathered in both for one in gathered.measurements)
        has_looked = basis is Basis.REPETITIONS and any(spec.repetitions is None for spec in specs)
        found = compare_samples(other.samples_ns(basis), base.samples_ns(basis), has_looked=has_looked)
    rate, other_rate = (one.rate_tok_per_s(basis, assumed_n) for one in both)
    return Pair(key, base, other, side, basis, rate, other_rate, found, found.p)


def _find_unlike(base: Mapping[Key, Gathered], cells: Mapping[Key, Gathered], side: int) -> list[Unlike]:
    """The cells of a side that the base has none like, by what the nearest one of the base without a like differs in.

    Of a test that the base was not asked nothing is said but that.
    """
    lonely = {key: found for key, found in cells.items() if key not in base}
    left = {key: found for key, found in base.items() if key not in cells}
    if not lonely:
        return [Unlike(side, len(left), _tests(left.values()), is_missing=True)] if left else []
    candidates = [*(left or base)][:MOST_LOOKED_AT]
    alike: dict[tuple[str, ...], tuple[tuple[Difference, ...], list[Gathered]]] = {}
    for number, (key, gathered) in enumerate(lonely.items()):
        names: tuple[str, ...] = ()
        if number < MOST_LOOKED_AT:
            nearest = min(candidates, key=lambda other: _distance(key, other))
            names = () if _distance(key, nearest)[0] else _differing(nearest, key)
        if names not in alike:
            alike[names] = (tuple(_difference(name, base[nearest], gathered) for name in names), [])
        alike[names][1].append(gathered)
    return [Unlike(side, len(found), _tests(found), differences) for differences, found in alike.values()]


def _tests(cells: Iterable[Gathered]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.spec.test for one in cells))


def _differing(base: Key, other: Key) -> tuple[str, ...]:
    """The facets in which two cells differ."""
    first, second = dict(base), dict(other)
    return tuple(name for name in dict.fromkeys((*first, *second)) if first.get(name) != second.get(name))


def _difference(name: str, base: Gathered, other: Gathered) -> Difference:
    return Difference(name, *(show_facet(one.measurements[0].subject, name) for one in (base, other)))


def _distance(base: Key, other: Key) -> tuple[bool, int]:
    """Another test is further away than any other setting."""
    names = _differing(base, other)
    return any(name in _TESTS for name in names), len(names)


def show_facet(subject: Subject, name: str) -> Any:
    """A facet as people know it: a machine by its processor, a model by its file, a setting by its value."""
    if name == MACHINE:
        return subject.machine.cpu if subject.machine else subject.hardware
    shown = {MODEL: subject.spec.file_name, BUILD: subject.commit, **dict(subject.others)}
    return shown[name] if name in shown else getattr(subject.spec, name, None)


def split(inputs: Sequence[Side], by: Sequence[str], base: str | None = None) -> list[Side]:
    """Sides by the values of some facets, whichever inputs they came from.

    Parameters
    ----------
    base : text that the first side's values have in them; unless told it is the one of the first input, of several of these the one
           with the usual settings, then the smallest

    Raises
    ------
    UsageError : no side is called so.
    """
    facets = _Facets(inputs)
    found: dict[tuple[Any, ...], tuple[int, Side]] = {}
    for number, side in enumerate(inputs):
        for one in side.measurements:
            told = facets.of(one.subject)
            values = tuple(told.get(name) for name in by)
            if values not in found:
                shown = tuple((name, show_facet(one.subject, name)) for name in by)
                found[values] = (number, Side("", [], shown))
            found[values][1].measurements.append(one)
    usual = defaults()
    cells = {values: {*_gather(side, facets, by)} for values, (_, side) in found.items()}

    def order(values: tuple[Any, ...]) -> tuple[Any, ...]:
        is_alone = all(cells[values].isdisjoint(others) for other, others in cells.items() if other != values)
        unusual = [value != usual.get(name, value) for name, value in zip(by, values, strict=True)]
        return (found[values][0], is_alone, unusual, [_sortable(value) for value in values])

    sides = [found[values][1] for values in sorted(found, key=order)]
    if base is not None:
        sides.sort(key=lambda side: not _is_called(side, base))
        if sides and not _is_called(sides[0], base):
            raise UsageError(f"Nothing was measured with {', '.join(by)} {base}.")
    return sides


def _is_called(side: Side, text: str) -> bool:
    exact = [str(value).lower() for _, value in side.values]
    switches = {"on": "true", "off": "false", "all": "-1"}
    return (
        text.lower() in exact
        or switches.get(text.lower()) in exact
        or (any(name in (MACHINE, BUILD, MODEL) and text.lower() in str(value).lower() for name, value in side.values))
    )


def _sortable(value: Any) -> tuple[bool, float, str]:
    is_number = isinstance(value, int | float)
    return (not is_number, float(value) if is_number else 0.0, str(value))
