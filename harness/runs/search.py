"""The best count of layers on a device, found by measuring few of them."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.evidence.medians import mean, median, standard_deviation
from harness.memory.fit import Placement
from harness.records.cells import Failure, Record
from harness.records.native_errors import MEMORY
from harness.records.placements import PlacementResult, join_records, make_result
from harness.records.statistics import summarize
from harness.spec import RunSpec
from harness.speed.offload import NOISE, TOLERANCE, Choice, Point, choose_next, estimate_total
from harness.units import NS_PER_S

#: What a search may cost of the full sweep's time, once the ends and the middle are known, all starts included. The goal is a quarter;
#: the rest is for the estimate's error and for ending.
COST_LIMIT = 0.23

#: What of it may go into finding candidates; the rest confirms them.
EXPLORE_LIMIT = 0.16

#: What a full sweep would repeat each count, where nobody says.
FULL_REPETITIONS = 10

#: A search in which so many counts failed before one was measured is given up.
HOPELESS = 3

#: A count whose first repetition is worse than the best one by this factor is not measured further.
LOSING = 1.15

#: So many counts, the best ones, are measured again in turn at the end, each up to so many times in all.
FINALISTS, MAX_LOOKS = 3, 5

#: Looks that `NOISE` counts for as the scatter between loads, before there are any to learn it from.
_PRIOR_LOOKS = 2


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be fast: seconds of n_prompt prompt tokens and n_gen generated ones, per unit of work."""

    name: str
    n_prompt: int
    n_gen: int


#: Mixes of prompt and answer, in tokens: a turn of a conversation, an answer from retrieved pages, a document to
#: classify, a function to be written beside files that are open.
GOALS = {
    "tg": Goal("text generation", 0, 1),
    "pp": Goal("prompt processing", 1, 0),
    "chat": Goal("chat", 512, 256),
    "rag": Goal("rag", 4096, 256),
    "batch": Goal("batch", 2048, 32),
    "coding": Goal("coding", 2048, 512),
}


@dataclass(frozen=True, slots=True)
class Best:
    """What a search found. cost_s is seconds of the goal's work at the best count; cost_share the time spent as a share of the full
    sweep's, which is estimated from the measured counts by straight lines between them. Both times begin with the process.

    next_count is None where no untried count can win by more than `TOLERANCE`; else the time was used up before that one was looked at,
    which may still win by next_gain (a share of the cost). skipped says why a count cannot fit, failed what became of it; those above
    out_of_memory_from ran out of memory as that one did.
    looks says how often each count was measured, a load each; confirmed holds the finalists' costs in s where they were measured
    again in turn. reused_s is the part of spent_s that an earlier run spent, by its records: a lower bound, as starts are not in them.
    """

    best_n_gpu_layers: int
    goal: Goal
    cost_s: float
    measured: tuple[int, ...]
    quick: tuple[int, ...]
    skipped: Mapping[int, str]
    failed: Mapping[int, Failure]
    n_counts: int
    spent_s: float
    full_sweep_s: float
    results: tuple[PlacementResult, ...]
    counts: tuple[int, ...]
    out_of_memory_from: int | None = None
    next_count: int | None = None
    next_gain: float = 0.0
    looks: Mapping[int, int] = field(default_factory=dict)
    confirmed: Mapping[int, float] = field(default_factory=dict)
    reused_s: float = 0.0

    @property
    def cost_share(self) -> float:
        return self.spent_s / self.full_sweep_s

    @property
    def is_proven(self) -> bool:
        """Whether no untried count can win; else it is the best of those that were measured."""
        return self.next_count is None


@dataclass
class _Count:
    """All looks at one count: the goal's cost of each in s, the records by test, and what they took."""

    costs_s: list[float] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    spent_s: list[float] = field(default_factory=list)
    setup_s: list[float] = field(default_factory=list)
    n_per_look: int = 1

    def add(self, cost_s: float, records: Sequence[Record], spent_s: float) -> None:
        self.costs_s.append(cost_s)
        self.spent_s.append(spent_s)
        self.setup_s.append(max(spent_s - _timed_s(records), 0.0))
        self.n_per_look = len(records[0].timed)
        self.records = _join_all(self.records, records) if self.records else list(records)

    @property
    def cost_s(self) -> float:
        return median(self.costs_s)

    def full_s(self, repetitions: int) -> float:
        """What a full sweep would take here: loading and warming up once, and all repetitions."""
        return median(self.setup_s) + repetitions * _timed_s(self.records) / max(len(self.records[0].timed), 1)


def _timed_s(records: Sequence[Record]) -> float:
    return sum(sample.duration_ns for record in records for sample in record.timed) / NS_PER_S


def _join_all(first: Sequence[Record], second: Sequence[Record]) -> list[Record]:
    return [join_records(one, other) for one, other in zip(first, second, strict=True)]


class Measurer(Protocol):
    """What a search needs of whoever measures; times in s, as `harness.runs.placements.Sweeper` has them."""

    try_anyway: bool
    reused_s: float

    @property
    def start_s(self) -> float: ...

    def predict(self, spec: RunSpec) -> Placement: ...

    def measure(self, cells: Sequence[RunSpec]) -> Iterator[Record]: ...


class Search:
    """Finds the best count of layers for a goal by measuring few.

    cells_of gives the cells of a count (a test for each token kind that the goal weighs); counts are those that may be measured, and
    work is what each moves. clock is in s; before_s is what the process took until now, which a full sweep pays too.

    Each count is first looked at once: a load and a few repetitions, one where it is clearly losing. The best ones are then
    looked at again in turn, a load each time, because two loads of one placement differ by more than the repetitions after one.
    """

    def __init__(
        self,
        sweeper: Measurer,
        goal: Goal,
        counts: Sequence[int],
        cells_of: Callable[[int], Sequence[RunSpec]],
        work: Mapping[int, float],
        clock: Callable[[], float] = time.monotonic,
        before_s: float = 0.0,
        on_result: Callable[[PlacementResult], None] = lambda _result: None,
    ) -> None:
        self._sweeper, self._goal, self._cells_of, self._work, self._clock = sweeper, goal, cells_of, work, clock
        self._on_result = on_result
        self._all = list(counts)
        self._found: dict[int, _Count] = {}
        self._results: dict[int, PlacementResult] = {}
        self._skipped: dict[int, str] = {}
        self._failed: dict[int, Failure] = {}
        self._out_of_memory_from: int | None = None
        self._tried_twice: set[int] = set()
        self._last: int | None = None
        self._n_neighbours = 0
        self._spent_s = self._shared_s = before_s

    @property
    def results(self) -> list[PlacementResult]:
        """What was measured so far, by count."""
        return [self._results[count] for count in sorted(self._results)]

    def run(self) -> Best | None:
        """Search until nothing can win, or the time is used up, and confirm; None where no count could be measured."""
        for count in self._all:
            fit = self._sweeper.predict(max(self._cells_of(count), key=lambda cell: cell.n_ctx))
            if not fit.fits and not self._sweeper.try_anyway:
                self._skipped[count] = fit.reason or "cannot fit"
        while True:
            left = self._left()
            if not left or (not self._found and len(self._failed) >= HOPELESS):
                return None
            choice = choose_next(self._points(), left, self._work)
            if choice.next_count is not None and self._affords(choice.next_count, EXPLORE_LIMIT):
                self._look(choice.next_count)
                continue
            again = self._choose_again()
            if again is None or not self._affords(again, COST_LIMIT):
                return self._conclude(choice)
            self._look(again)

    def _left(self) -> list[int]:
        limit, lost = self._out_of_memory_from, {*self._skipped, *self._failed}
        left = [count for count in self._all if count not in lost]
        return [count for count in left if limit is None or count < limit or count in self._found]

    def _points(self) -> list[Point]:
        """What is known of each count; the scatter between loads is a part of its noise."""
        scatter = self._scatter()
        return [
            Point(
                count,
                found.cost_s,
                max(_relative_error(record, scatter / len(found.costs_s) ** 0.5) for record in found.records),
            )
            for count, found in self._found.items()
            if count not in self._failed
        ]

    def _scatter(self) -> float:
        """Relative standard deviation between loads of one placement, from all counts that were loaded more than once."""
        squares, n_free = _PRIOR_LOOKS * NOISE**2, float(_PRIOR_LOOKS)
        for found in self._found.values():
            average = mean(found.costs_s)
            squares += sum((cost / average - 1) ** 2 for cost in found.costs_s)
            n_free += len(found.costs_s) - 1
        return (squares / n_free) ** 0.5

    def _full_s(self) -> float:
        """What measuring every count would take, with the starts that a search pays too."""
        repetitions = self._cells_of(self._all[0])[0].repetitions or FULL_REPETITIONS
        wall_s = {count: found.full_s(repetitions) for count, found in self._found.items()}
        return self._shared_s + estimate_total(wall_s, self._left(), self._work)

    def _affords(self, count: int, limit: float) -> bool:
        if len(self._found) < 3 and count not in self._found:
            return True
        near = min(self._found, key=lambda known: abs(self._work[known] - self._work[count]))
        return self._spent_s + mean(self._found[near].spent_s) <= limit * self._full_s()

    def _choose_again(self) -> int | None:
        """The finalist to look at again: whoever was looked at least, not the last one if it can be helped; None if all is settled."""
        finalists = self._finalists()
        if not finalists:
            return None
        best = finalists[0]
        if self._n_neighbours < FINALISTS and (neighbour := self._promising_neighbour(best)) is not None:
            self._n_neighbours += 1  # noise promises something at every step: it is not followed for ever
            return neighbour
        open_ = [
            point
            for point in finalists[1:]
            if len(self._found[point.n_gpu_layers].costs_s) < 2
            or point.cost_s / best.cost_s - 1 < 2 * math.hypot(point.noise, best.noise)
        ]
        if not open_ and len(self._found[best.n_gpu_layers].costs_s) > 1:
            return None
        looks = {point.n_gpu_layers: len(self._found[point.n_gpu_layers].costs_s) for point in (best, *open_)}
        least = min(looks, key=lambda count: (looks[count], count == self._last))
        return least if looks[least] < MAX_LOOKS else None

    def _promising_neighbour(self, best: Point) -> int | None:
        """The untried count beside the best one that wins by half of `TOLERANCE` if the line that falls to that one goes on."""
        left, known = self._left(), {point.n_gpu_layers: point for point in self._points()}
        place = left.index(best.n_gpu_layers)
        for step in (1, -1):
            others = left[place + 1 :] if step < 0 else left[:place][::-1]
            beyond = next((known[count] for count in others if count in known), None)
            if beyond is None or not 0 <= place + step < len(left) or left[place + step] in known:
                continue
            slope = (best.cost_s - beyond.cost_s) / (self._work[best.n_gpu_layers] - self._work[beyond.n_gpu_layers])
            gain = -slope * (self._work[left[place + step]] - self._work[best.n_gpu_layers])
            if gain > TOLERANCE / 2 * best.cost_s:  # a line drawn from noisy ends may promise too little
                return left[place + step]
        return None

    def _finalists(self) -> list[Point]:
        """The best counts so far that noise may have put into a wrong order, the best one first."""
        points = sorted(self._points(), key=lambda point: point.cost_s)  # empty where all that ran once failed later
        scatter = self._scatter()

        def could_win(point: Point) -> bool:
            noise = max(scatter, math.hypot(point.noise, points[0].noise))
            return point.cost_s <= (1 + max(TOLERANCE, 2 * noise)) * points[0].cost_s

        return [point for point in points if could_win(point)][:FINALISTS]

    def _look(self, count: int) -> None:
        """Measure one count after a load: one repetition if it is clearly losing, else more, as many as are worth the load."""
        is_first, start_s = not (self._found or self._failed or self._tried_twice), self._sweeper.start_s
        records, took_s = self._measure(count)
        self._last = count
        started_s = self._sweeper.start_s - start_s
        self._shared_s += started_s if is_first else 0.0  # a full sweep starts a worker too, but replaces no dead ones
        self._spent_s += took_s + started_s
        if any(record.failure for record in records):
            self._fail(count, records)
            return
        found = self._found.setdefault(count, _Count())
        found.add(self._cost(records), records, took_s)
        self._file(count, found.records)

    def _take(self, cells: Sequence[RunSpec], **manner: Any) -> tuple[list[Record], float]:
        """(records of some cells, seconds that they took without starting workers)."""
        start, start_s, reused_s = self._clock(), self._sweeper.start_s, self._sweeper.reused_s
        records = list(self._sweeper.measure([dataclasses.replace(cell, **manner) for cell in cells]))
        started_s, reused_s = self._sweeper.start_s - start_s, self._sweeper.reused_s - reused_s
        return records, self._clock() - start - started_s + reused_s

    def _measure(self, count: int) -> tuple[list[Record], float]:
        """The records of one look, joined by test, or the failed ones if any failed; and the seconds that it took."""
        cells = self._cells_of(count)
        most, known = cells[0].repetitions or FULL_REPETITIONS, self._found.get(count)
        first, took_s = self._take(cells, repetitions=min(max(known.n_per_look, 2), most) if known else 1)
        if known or any(record.failure for record in first):
            return first, took_s
        best = min((point.cost_s for point in self._points()), default=None)
        timed_s = _timed_s(first)
        n_more = min(most - 1, max(1, round((took_s - timed_s) / max(timed_s, 1e-9))))
        if not n_more or (best is not None and self._cost(first) > LOSING * best):
            return first, took_s
        more, more_s = self._take(cells, repetitions=n_more, warmup=False)
        return (more if any(record.failure for record in more) else _join_all(first, more)), took_s + more_s

    def _fail(self, count: int, records: Sequence[Record]) -> None:
        is_memory = any(record.failure and record.failure.trouble == MEMORY for record in records)
        if not is_memory and count not in self._tried_twice:
            self._tried_twice.add(count)  # a server that died may be back
            return
        self._failed[count] = next(record.failure for record in records if record.failure)
        self._file(count, records)
        if is_memory:
            self._out_of_memory_from = min(count, self._out_of_memory_from or count)

    def _file(self, count: int, records: Sequence[Record]) -> None:
        self._results[count] = make_result(records, ["n_gpu_layers"])
        self._on_result(self._results[count])

    def _cost(self, records: Sequence[Record]) -> float:
        """Seconds of the goal's work, from the measured tests."""
        weights = [self._goal.n_gen if record.asked.n_gen else self._goal.n_prompt for record in records]
        return sum(weight / summarize(record).rate_tok_per_s for weight, record in zip(weights, records, strict=True))

    def _decide(self) -> tuple[int, dict[int, float]]:
        """(the best count, the finalists' costs in s by the looks that confirmed them, where there were enough).

        First looks lie far apart in time; a machine that slows down in between has them compare times, not counts. Those at the end
        were taken in turn, and decide alone as soon as there are two of each finalist.
        """
        finalists = [point.n_gpu_layers for point in self._finalists()]
        again = {count: self._found[count].costs_s[1:] for count in finalists}
        if len(finalists) > 1 and all(len(costs) > 1 for costs in again.values()):
            costs = {count: median(values) for count, values in again.items()}
            return min(costs, key=lambda count: costs[count]), costs
        confirmed = {count: self._found[count].cost_s for count in finalists if again[count]}
        return finalists[0], confirmed

    def _conclude(self, choice: Choice) -> Best | None:
        if not self._points():
            return None
        count, confirmed = self._decide()
        cost_s = self._found[count].cost_s
        n_most = max(self._found[known].n_per_look for known in self._found)
        return Best(
            best_n_gpu_layers=count,
            goal=self._goal,
            cost_s=cost_s,
            measured=tuple(sorted(self._found)),
            quick=tuple(
                sorted(n for n, found in self._found.items() if len(found.records[0].timed) == 1 and n_most > 1)
            ),
            skipped=dict(self._skipped),
            failed=dict(self._failed),
            n_counts=len(self._left()),
            spent_s=self._spent_s,
            full_sweep_s=self._full_s(),
            results=tuple(self.results),
            counts=tuple(self._all),
            out_of_memory_from=self._out_of_memory_from,
            next_count=choice.next_count,
            next_gain=max(1 - choice.bound_s / cost_s, 0),
            looks={known: len(found.costs_s) for known, found in sorted(self._found.items())},
            confirmed=confirmed,
            reused_s=self._sweeper.reused_s,
        )


def _relative_error(record: Record, least: float = NOISE) -> float:
    """Relative standard error of a record's median, `least` or more.

    From the spread of the repetitions; of a single one, from that of its tokens. A median's error is 1.25 times a mean's."""
    values: Sequence[int] = [sample.duration_ns for sample in record.timed]
    if len(values) == 2:  # a burst of other work hits one of them whole, and shows in neither's tokens
        least = max(least, 1.25 * abs(values[0] - values[1]) / (values[0] + values[1]))
    if len(values) < 3:
        values, least = [ns for sample in record.timed for ns in sample.token_ns], least * (1.5, 1.2)[len(values) - 1]
    if len(values) < 3:
        return 2 * least
    return max(least, 1.25 * standard_deviation(values) / mean(values) / len(values) ** 0.5)
