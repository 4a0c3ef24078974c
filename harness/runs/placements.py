"""Sweeps over placements of a model: every count in turn, or the best one found from few."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.host.rpc import CountingProxy, Traffic
from harness.memory.fit import Placement, check_placement
from harness.memory.forecast import list_rules
from harness.records.cells import Device, Record, is_same_model
from harness.records.native_errors import MEMORY
from harness.records.placements import LayerRow, make_row, skipped_row
from harness.records.statistics import mean, median, summarize
from harness.runs.cells import Bench, Plan, Step, run_cells
from harness.spec import CellKey, RunSpec, cell_key, find_varied
from harness.speed.offload import (
    NOISE,
    TOLERANCE,
    Blocks,
    Choice,
    Point,
    choose_next,
    estimate_total,
)
from harness.units import NS_PER_S, format_mib

#: What a search may cost of the full sweep's time, once the ends and the middle are known, all starts included. The goal is a quarter;
#: the rest is for the estimate's error and for ending.
COST_LIMIT = 0.23

#: What of it may go into finding candidates; the rest confirms them.
EXPLORE_LIMIT = 0.16

#: A search in which so many counts failed before one was measured is given up.
HOPELESS = 3

#: A bound on what an untried count may win is told up to this: a weaker one says nothing.
_TOLD_GAIN = 0.5

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

    @property
    def text(self) -> str:
        if self.n_prompt + self.n_gen == 1:
            return self.name
        parts = [f"{self.n_prompt} prompt tokens"] * (self.n_prompt > 0) + [f"{self.n_gen} answer tokens"] * (
            self.n_gen > 0
        )
        return f"{self.name} ({' and '.join(parts)})"


#: Mixes of prompt and answer, in tokens: a turn of a conversation, an answer from retrieved pages, a document to classify.
GOALS = {
    "tg": Goal("text generation", 0, 1),
    "pp": Goal("prompt processing", 1, 0),
    "chat": Goal("chat", 512, 256),
    "rag": Goal("rag", 4096, 256),
    "batch": Goal("batch", 2048, 32),
}


@dataclass
class Sweeper:
    """Measures cells in one worker, takes over what an earlier run left, and leaves out what cannot fit.

    known maps `look_key` to records of an earlier run; devices are those that layers can go to; compute_bytes is what a dry run
    planned for computing, by device.
    """

    plan: Plan
    keep: Callable[[Record], None]
    watch: Callable[[Step], None]
    blocks: Blocks | None = None
    devices: Sequence[Device] = ()
    known: Mapping[Any, list[Record]] = field(default_factory=dict)
    try_anyway: bool = False
    compute_bytes: Mapping[str, int] = field(default_factory=dict)
    #: Free memory of the host, where devices may share it.
    host_bytes: int | None = None
    #: Seconds that the known records which were handed out took when they were measured, as far as they say.
    reused_s: float = 0.0

    def __post_init__(self) -> None:
        self._bench = Bench(self.plan)
        self._n_done = 0

    def close(self) -> None:
        self._bench.close()

    def predict(self, spec: RunSpec) -> Placement:
        """Whether a placement can fit; yes where nothing is known of the model."""
        if self.blocks is None:
            return Placement(True, None, {})
        return check_placement(self.blocks.header, spec, list_rules(self.devices), self.compute_bytes, self.host_bytes)

    @property
    def start_s(self) -> float:
        """Seconds that starting workers has taken so far."""
        return self._bench.start_s

    def measure(self, cells: Sequence[RunSpec]) -> Iterator[Record]:
        """Measure cells in order; those that are known already are handed out again, each record once, and not kept twice."""
        for cell in cells:
            known = self.known.get(look_key(cell))
            if known:
                record = known.pop(0)
                self.reused_s += measured_s(record)
                yield record
            else:
                for record in run_cells([cell], self.plan, on_step=self._pass_on, bench=self._bench):
                    self.keep(record)
                    yield record
            self._n_done += 1

    def _pass_on(self, step: Step) -> None:
        self.watch(dataclasses.replace(step, cell=self._n_done))

    def sweep(self, cells: Sequence[RunSpec]) -> Iterator[LayerRow]:
        """Measure all cells, a row for each placement as soon as it is done; what cannot fit comes last or not at all."""
        varied = find_columns(cells)
        groups = [list(group) for _, group in itertools.groupby(cells, key=_placement)]
        fits = [(group, self._judge(group)) for group in groups]
        for group, fit in sorted(fits, key=lambda item: not item[1].fits):
            if fit.fits or self.try_anyway:
                yield make_row(list(self.measure(group)), varied)
            else:
                yield skipped_row(group[0], varied, fit.reason or "cannot fit")

    def _judge(self, group: Sequence[RunSpec]) -> Placement:
        """The worst of a placement's tests: the one with the longest context."""
        return self.predict(max(group, key=lambda cell: cell.n_ctx))


def _placement(cell: RunSpec) -> CellKey:
    """What two cells of one row share: everything but the test."""
    return cell_key(cell, but=("n_prompt", "n_gen"))


def find_columns(cells: Iterable[RunSpec]) -> list[str]:
    """The parameters that differ between cells, layers first and always."""
    return list(dict.fromkeys(("n_gpu_layers", *find_varied(cells))))


def look_key(cell: RunSpec) -> tuple[Any, ...]:
    """A key by which a look at a cell and the record of an earlier run are the same: the cell, and how it was repeated."""
    return (cell_key(cell), cell.repetitions, cell.warmup, cell.seed)


def recall(records: Sequence[Record], n_threads: int) -> dict[Any, list[Record]]:
    """Records of an earlier run that need not be repeated, by `look_key`, in order: measured ones, and those that memory refused.

    A cell that was interrupted, or lost to a dead server, is measured again. A search measures one cell several times, so each record
    stands for one measurement; a list may be known by two names.
    """
    known: dict[Any, list[Record]] = {}
    for record in records:
        if record.failure is None or record.failure.trouble == MEMORY:
            same = known.setdefault(look_key(record.asked), [])
            same.append(record)
            if record.threads_source != "asked":
                known[look_key(dataclasses.replace(record.asked, n_threads=None))] = same
    return known


def measured_s(record: Record) -> float:
    """Seconds that a record says it took: load, context and all its samples. Starting a worker is in none."""
    load_ns = record.load.load_duration_ns + record.load.context_duration_ns if record.load else 0
    return (load_ns + sum(sample.duration_ns for sample in record.samples)) / NS_PER_S


def collect_rows(records: Sequence[Record]) -> list[LayerRow]:
    """The rows of a sweep's journal: a placement each, whatever a search or a resumed sweep measured in several goes.

    A failure counts only where the cell was not measured after it. Records of other models than the last one are left out.
    """
    own = [record for record in records if is_same_model(record, records[-1])]
    cells: dict[CellKey, Record] = {}
    for record in own:
        key = cell_key(record.asked, but=("model",))  # looks of one cell differ in how often and how it was prepared
        before = cells.get(key)
        if before is None or before.failure or not before.timed:
            cells[key] = record
        elif record.timed and not record.failure:
            cells[key] = _join(before, record)
    varied = find_columns(record.asked for record in cells.values())
    placements: dict[CellKey, list[Record]] = {}
    for record in cells.values():
        placements.setdefault(_placement(record.asked), []).append(record)
    rows = [make_row(group, varied) for group in placements.values()]
    return sorted(rows, key=lambda row: row.n_gpu_layers)


# Search.


@dataclass(frozen=True, slots=True)
class Best:
    """What a search found. cost_s is seconds of the goal's work at the best count; cost_share the time spent as a share of the full
    sweep's, which is estimated from the measured counts by straight lines between them. Both times begin with the process.

    is_proven says that no untried count can win by more than `TOLERANCE`; else it is the best of those that were measured.
    looks says how often each count was measured, a load each; confirmed holds the finalists' costs in s where they were measured
    again in turn. reused_s is the part of spent_s that an earlier run spent, by its records: a lower bound, as starts are not in them.
    """

    best_n_gpu_layers: int
    goal: Goal
    cost_s: float
    measured: tuple[int, ...]
    quick: tuple[int, ...]
    skipped: Mapping[int, str]
    failed: Mapping[int, str]
    n_counts: int
    spent_s: float
    full_sweep_s: float
    stopped: str
    rows: tuple[LayerRow, ...]
    is_proven: bool = True
    looks: Mapping[int, int] = field(default_factory=dict)
    confirmed: Mapping[int, float] = field(default_factory=dict)
    reused_s: float = 0.0

    @property
    def cost_share(self) -> float:
        return self.spent_s / self.full_sweep_s


@dataclass
class _Count:
    """All looks at one count: the goal's cost of each in s, the records by test, and what they took."""

    costs_s: list[float] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    spent_s: list[float] = field(default_factory=list)
    setup_s: list[float] = field(default_factory=list)
    n_per_look: int = 1

    def add(self, cost_s: float, records: Sequence[Record], spent_s: float) -> None:
        timed_s = sum(sample.duration_ns for record in records for sample in record.timed) / NS_PER_S
        self.costs_s.append(cost_s)
        self.spent_s.append(spent_s)
        self.setup_s.append(max(spent_s - timed_s, 0.0))
        self.n_per_look = len(records[0].timed)
        joined = (
            [_join(first, second) for first, second in zip(self.records, records, strict=True)]
            if self.records
            else records
        )
        self.records = list(joined)

    @property
    def cost_s(self) -> float:
        return median(self.costs_s)

    def full_s(self, repetitions: int) -> float:
        """What a full sweep would take here: loading and warming up once, and all repetitions."""
        timed_s = sum(sample.duration_ns for record in self.records for sample in record.timed) / NS_PER_S
        return median(self.setup_s) + repetitions * timed_s / max(len(self.records[0].timed), 1)


class Search:
    """Finds the best count of layers for a goal by measuring few.

    cells_of gives the cells of a count (a test for each token kind that the goal weighs); counts are those that may be measured, and
    work is what each moves. clock is in s; before_s is what the process took until now, which a full sweep pays too.

    Each count is first looked at once: a load and a few repetitions, one where it is clearly losing. The best ones are then
    looked at again in turn, a load each time, because two loads of one placement differ by more than the repetitions after one.
    """

    def __init__(
        self,
        sweeper: Sweeper,
        goal: Goal,
        counts: Sequence[int],
        cells_of: Callable[[int], Sequence[RunSpec]],
        work: Mapping[int, float],
        clock: Callable[[], float] = time.monotonic,
        before_s: float = 0.0,
    ) -> None:
        self._sweeper, self._goal, self._cells_of, self._work, self._clock = sweeper, goal, cells_of, work, clock
        self._all = list(counts)
        self._found: dict[int, _Count] = {}
        self._rows: dict[int, LayerRow] = {}
        self._skipped: dict[int, str] = {}
        self._failed: dict[int, str] = {}
        self._tried_twice: set[int] = set()
        self._last: int | None = None
        self._n_neighbours = 0
        self._spent_s = self._shared_s = before_s

    @property
    def rows(self) -> list[LayerRow]:
        """What was measured so far, by count."""
        return [self._rows[count] for count in sorted(self._rows)]

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
        return [count for count in self._all if count not in self._skipped and count not in self._failed]

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
        repetitions = self._cells_of(self._all[0])[0].repetitions
        wall_s = {count: found.full_s(repetitions) for count, found in self._found.items()}
        counts = [count for count in self._left() if count not in self._failed]
        return self._shared_s + estimate_total(wall_s, counts, self._work)

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
        start, start_s, reused_s = self._clock(), self._sweeper.start_s, self._sweeper.reused_s
        records = self._measure(count)
        self._last = count
        started_s = self._sweeper.start_s - start_s
        took_s = self._clock() - start - started_s + self._sweeper.reused_s - reused_s
        self._shared_s += started_s if not self._spent_on_start else 0.0
        self._spent_s += took_s + started_s
        if any(record.failure for record in records):
            self._fail(count, records)
            return
        found = self._found.setdefault(count, _Count())
        found.add(self._cost(records), records, took_s)
        self._rows[count] = make_row(found.records, ["n_gpu_layers"])

    @property
    def _spent_on_start(self) -> bool:
        """Whether a worker was started before: a full sweep starts one as well, but not those that replace the dead."""
        return bool(self._found or self._failed or self._tried_twice)

    def _measure(self, count: int) -> list[Record]:
        """The records of one look, joined by test; the failed ones if any failed."""
        cells = self._cells_of(count)
        most = cells[0].repetitions
        if count in self._found:
            n_first = min(max(self._found[count].n_per_look, 2), most)
        else:
            n_first = 1
        start, start_s, reused_s = self._clock(), self._sweeper.start_s, self._sweeper.reused_s
        first = list(self._sweeper.measure([dataclasses.replace(cell, repetitions=n_first) for cell in cells]))
        took_s = self._clock() - start - (self._sweeper.start_s - start_s) + self._sweeper.reused_s - reused_s
        if count in self._found or any(record.failure for record in first):
            return first
        best = min((point.cost_s for point in self._points()), default=None)
        timed_s = sum(sample.duration_ns for record in first for sample in record.timed) / NS_PER_S
        n_more = min(most - 1, max(1, round((took_s - timed_s) / max(timed_s, 1e-9))))
        if not n_more or (best is not None and self._cost(first) > LOSING * best):
            return first
        more = list(
            self._sweeper.measure([dataclasses.replace(cell, repetitions=n_more, warmup=False) for cell in cells])
        )
        if any(record.failure for record in more):
            return more
        return [_join(one, other) for one, other in zip(first, more, strict=True)]

    def _fail(self, count: int, records: Sequence[Record]) -> None:
        row = make_row(records, ["n_gpu_layers"])
        is_memory = any(record.failure and record.failure.trouble == MEMORY for record in records)
        if not is_memory and count not in self._tried_twice:
            self._tried_twice.add(count)  # a server that died may be back
            return
        self._rows[count] = row
        self._failed[count] = row.failure or "failed"
        if is_memory:
            for more in self._all:
                if more > count and more not in self._found and more not in self._failed:
                    self._skipped[more] = f"{count} layers ran out of memory already"

    def _cost(self, records: Sequence[Record]) -> float:
        """Seconds of the goal's work, from the measured tests."""
        total = 0.0
        for record in records:
            weight = self._goal.n_gen if record.asked.n_gen else self._goal.n_prompt
            total += weight / summarize(record).rate_tok_per_s
        return total

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
        stopped = choice.why
        cost_s = self._found[count].cost_s
        if choice.next_count is not None:
            gain = max(1 - choice.bound_s / cost_s, 0)
            told = f"might still win by up to {gain:.0%}" if gain <= _TOLD_GAIN else "were not ruled out"
            stopped = f"the time for a search was used up; {choice.next_count} layers {told}"
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
            stopped=stopped,
            rows=tuple(self.rows),
            is_proven=choice.next_count is None,
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
    average = sum(values) / len(values)
    spread = (sum((value - average) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return max(least, 1.25 * spread / average / len(values) ** 0.5)


def _join(first: Record, second: Record) -> Record:
    """One record of two runs of the same cell."""
    telemetry = second.telemetry or first.telemetry
    return dataclasses.replace(
        second,
        samples=(*first.samples, *second.samples),
        load=first.load,
        telemetry=telemetry,
        asked=dataclasses.replace(first.asked, repetitions=first.asked.repetitions + second.asked.repetitions),
    )


def explain_best(best: Best, blocks: Blocks, devices: Sequence[Device], crossing_s: float | None) -> list[str]:
    """Why this count is the best: against its neighbours and the ends, what lies where, what spilled, what is left, what it cost."""
    reasons = [_compare(best), _tell_place(best, blocks)]
    if crossing_s is not None and crossing_s > 0 and best.best_n_gpu_layers:
        reasons.append(
            f"crossing to the devices and back costs {crossing_s * 1e3:.2f} ms a token, however many layers move"
        )
    reasons += _tell_memory(best, devices)
    for text, counts in _group_reasons({**best.skipped, **best.failed}).items():
        reasons.append(f"{_spell_counts(counts)} layers were left out: {text}")
    if len(best.confirmed) > 1 and best.best_n_gpu_layers in best.confirmed:
        reasons.append(
            "the best counts were loaded and measured again in turn, and there it is the fastest: "
            + ", ".join(
                f"{count} +{cost / best.confirmed[best.best_n_gpu_layers] - 1:.1%}"
                for count, cost in best.confirmed.items()
                if count != best.best_n_gpu_layers
            )
            + " time"
        )
    reasons.append(
        f"measured {len(best.measured)} of {best.n_counts} counts in {best.spent_s:.0f} s"
        + (
            f", {best.cost_share:.0%} of the {best.full_sweep_s:.0f} s that all would take (estimated by straight lines between the "
            "measured counts)"
            if len(best.measured) < best.n_counts
            else ""
        )
        + (
            f"; {best.reused_s:.0f} s of it were spent in the earlier run, by what its records say, so the share is a lower bound"
            if best.reused_s
            else ""
        )
    )
    reasons += _tell_looks(best)
    reasons.append(f"stopped because {best.stopped}")
    return reasons


def _tell_looks(best: Best) -> list[str]:
    """Which counts were measured, and how often."""
    again: dict[int, list[int]] = {}
    for count, n in best.looks.items():
        if n > 1:
            again.setdefault(n, []).append(count)
    told = [f"measured were {', '.join(map(str, best.measured))}"] if len(best.measured) > 1 else []
    told += [f"loaded {n} times: {', '.join(map(str, sorted(counts)))}" for n, counts in sorted(again.items())]
    told += [f"by one repetition, clearly slower: {', '.join(map(str, best.quick))}"] if best.quick else []
    return ["; ".join(told)] if told else []


def _compare(best: Best) -> str:
    """Best against the slowest and the ends, by the goal's cost."""
    rows = {row.n_gpu_layers: row for row in best.rows if row.speeds}
    here = _goal_cost(best.goal, rows[best.best_n_gpu_layers])
    ends = [count for count in (min(rows), max(rows)) if count != best.best_n_gpu_layers]
    parts = [f"{_goal_cost(best.goal, rows[count]) / here:.2f} times as fast as {count}" for count in ends]
    return (
        f"{best.best_n_gpu_layers} layers are {' and '.join(parts)}"
        if parts
        else "it is the only count that was measured"
    )


def _goal_cost(goal: Goal, row: LayerRow) -> float:
    costs = ((goal.n_prompt, row.find("pp")), (goal.n_gen, row.find("tg")))
    return sum(weight * speed.token_s for weight, speed in costs if weight and speed)


def _tell_place(best: Best, blocks: Blocks) -> str:
    count = best.best_n_gpu_layers
    if count == 0 and not any(row.n_gpu_layers for row in best.rows if row.speeds):
        return "everything stays on the CPU: no count with layers on a device was measured"
    if count == 0:
        return (
            "everything stays on the CPU: what a device saves on a layer is less than what getting there and back costs"
        )
    if count == blocks.max_gpu_layers:
        return f"all {blocks.n_layers} layers and the output layer are on the device"
    return (
        f"the output layer and the last {count - 1} of {blocks.n_layers} layers are on the device, the rest on the CPU"
    )


def _tell_memory(best: Best, devices: Sequence[Device]) -> list[str]:
    row = next(row for row in best.rows if row.n_gpu_layers == best.best_n_gpu_layers)
    texts = []
    for device in devices:
        used = sum((row.memory or {}).get(device.name, {}).values())
        if device.kind != "cpu" and used and device.memory_free_bytes is not None:
            left = device.memory_free_bytes - used
            texts.append(
                f"{device.name} holds {format_mib(used)}; {format_mib(max(left, 0))} of what was free are left"
            )
    return texts


def _group_reasons(reasons: Mapping[int, str]) -> dict[str, list[int]]:
    """Counts by the words of their reason, figures aside."""
    groups: dict[str, list[int]] = {}
    for count, text in sorted(reasons.items()):
        groups.setdefault(text, []).append(count)
    if len(groups) > 3:
        first, last = min(reasons), max(reasons)
        return {f"{reasons[first]} (the others likewise)": [first, last]}
    return groups


def _spell_counts(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


# Network.


@dataclass(frozen=True, slots=True)
class Wire:
    """What one generated token sends to an RPC server and waits for, counted in a run of its own that nothing is timed in."""

    endpoint: str
    n_gpu_layers: int
    sent_bytes_per_token: float
    received_bytes_per_token: float
    round_trips_per_token: float


#: Tokens by which two runs differ that are compared to count what a token sends.
WIRE_TOKENS = 16


def measure_wire(spec: RunSpec, plan: Plan) -> tuple[list[Wire], str | None]:
    """Generate tokens through counting proxies; (what each server saw a token, why there is nothing to see).

    Two cells that differ by `WIRE_TOKENS` tokens and in nothing else send everything else alike: context, warm-up and depth cancel out.
    A cell before them takes the load.
    """
    proxies = [CountingProxy(endpoint) for endpoint in spec.rpc]
    counts: list[list[Traffic]] = []
    cells = [
        dataclasses.replace(
            spec, rpc=tuple(proxy.endpoint for proxy in proxies), n_prompt=0, n_gen=n_gen, repetitions=1
        )
        for n_gen in (1, WIRE_TOKENS, 2 * WIRE_TOKENS)
    ]
    try:
        records = []
        for record in run_cells(cells, dataclasses.replace(plan, observe=None), on_step=lambda _step: None):
            records.append(record)
            counts.append([proxy.read() for proxy in proxies])
    finally:
        for proxy in proxies:
            proxy.close()
    failure = next((record.failure for record in records if record.failure), None)
    if failure is not None:
        return [], failure.message
    found = []
    for endpoint, before, between, after in zip(spec.rpc, *counts, strict=True):
        passed = (after - between) - (between - before)
        found.append(
            Wire(
                endpoint,
                spec.n_gpu_layers,
                passed.sent_bytes / WIRE_TOKENS,
                passed.received_bytes / WIRE_TOKENS,
                passed.round_trips / WIRE_TOKENS,
            )
        )
    return found, None


def estimate_crossing(rows: Sequence[LayerRow], work: Mapping[int, float]) -> float | None:
    """Seconds a token that crossing to the devices costs, whatever the number of layers; None where the rows cannot tell.

    A straight line over the work moved, through the rows with layers on a device, is drawn back to none; what it is above the
    measured time without layers is the price of the crossing. Needs that row and three others, and says nothing where the line does not
    carry it: within twice its standard error, or more than a token with layers was measured to take.
    """
    times = {row.n_gpu_layers: speed.token_s for row in rows if (speed := row.find("tg")) and not row.failure}
    beyond = {count: value for count, value in times.items() if count > 0}
    if 0 not in times or len(beyond) < 3:
        return None
    xs, ys = [work[count] for count in beyond], list(beyond.values())
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum((x - mean_x) ** 2 for x in xs)
    crossing = mean_y - slope * mean_x - times[0]
    squares = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in zip(xs, ys, strict=True))
    spread = sum((x - mean_x) ** 2 for x in xs)
    error = math.sqrt(squares / (len(xs) - 2) * (1 / len(xs) + mean_x**2 / spread))
    return crossing if 2 * error < crossing < min(ys) else None
