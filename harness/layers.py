"""Sweeps over placements of a model: every count in turn, or the best one found from few."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.layer_row import LayerRow, make_row, skipped_row
from harness.record import Device, Record
from harness.rpc import CountingProxy, Traffic
from harness.spec import RunSpec, parameters
from harness.stats import summarize
from harness.sweep import Bench, Plan, Step, run_cells
from harness.theory.offload import (
    NOISE,
    Blocks,
    Capacity,
    Choice,
    Fit,
    Point,
    choose_next,
    estimate_total,
    predict_fit,
)
from harness.units import NS_PER_S, format_mib

#: What a search may cost of the full sweep's time, once the ends and the middle are known. The goal is a quarter; the rest is for the
#: start of Python and llama.cpp, which a search pays as a sweep does, and for the estimate's error.
COST_LIMIT = 0.22

#: A search in which so many counts failed before one was measured is given up.
HOPELESS = 3

#: A count whose first repetition is worse than the best one by this factor is not measured further.
LOSING = 1.15


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be fast: seconds of n_prompt prompt tokens and n_gen generated ones, per unit of work."""

    name: str
    n_prompt: int
    n_gen: int

    @property
    def text(self) -> str:
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

    known maps `identify` to records of an earlier run; devices are those that layers can go to.
    """

    plan: Plan
    keep: Callable[[Record], None]
    watch: Callable[[Step], None]
    blocks: Blocks | None = None
    devices: Sequence[Device] = ()
    known: Mapping[Any, Record] = field(default_factory=dict)
    try_anyway: bool = False

    def __post_init__(self) -> None:
        self._bench = Bench(self.plan)

    def close(self) -> None:
        self._bench.close()

    def predict(self, spec: RunSpec) -> Fit:
        """Whether a placement can fit; yes where nothing is known of the model."""
        if self.blocks is None:
            return Fit(True, None, {})
        return predict_fit(self.blocks, spec, find_capacities(spec, self.devices))

    def measure(self, cells: Sequence[RunSpec]) -> Iterator[Record]:
        """Measure cells in order; those that are known already are handed out again and not kept twice."""
        for known, group in itertools.groupby(cells, key=lambda cell: identify(cell) in self.known):
            if known:
                yield from (self.known[identify(cell)] for cell in group)
            else:
                yield from run_cells(list(group), self.plan, keep=self.keep, watch=self.watch, bench=self._bench)

    def sweep(self, cells: Sequence[RunSpec]) -> Iterator[LayerRow]:
        """Measure all cells, a row for each placement as soon as it is done; what cannot fit comes last or not at all."""
        varied = find_varied(cells)
        groups = [list(group) for _, group in itertools.groupby(cells, key=_placement)]
        fits = [(group, self._judge(group)) for group in groups]
        for group, fit in sorted(fits, key=lambda item: not item[1].fits):
            if fit.fits or self.try_anyway:
                yield make_row(list(self.measure(group)), varied)
            else:
                yield skipped_row(group[0], varied, fit.reason or "cannot fit")

    def _judge(self, group: Sequence[RunSpec]) -> Fit:
        """The worst of a placement's tests: the one with the longest context."""
        return self.predict(max(group, key=lambda cell: cell.n_ctx))


def _placement(cell: RunSpec) -> RunSpec:
    """What two cells of one row share: everything but the test."""
    return dataclasses.replace(cell, n_prompt=1, n_gen=0)


def find_varied(cells: Sequence[RunSpec]) -> list[str]:
    """The parameters that differ between cells, layers first and always."""
    names = [name for name in parameters() if len({getattr(cell, name) for cell in cells}) > 1]
    return ["n_gpu_layers", *(name for name in names if name != "n_gpu_layers")]


def identify(cell: RunSpec) -> Any:
    """A key by which a cell and the record of an earlier run are the same: of the model's path only the file name counts."""
    values = dataclasses.replace(cell, model=pathlib.PurePath(cell.model).name, delay_s=0.0)
    return tuple(values.to_dict().items())


def recall(records: Sequence[Record], n_threads: int) -> dict[Any, Record]:
    """Records of an earlier run that need not be repeated, by `identify`: measured ones, and those that memory refused.

    A cell that was interrupted, or lost to a dead server, is measured again.
    """
    known = {}
    for record in records:
        if record.failure is None or "out of memory on" in record.failure.message:
            known[identify(record.asked)] = record
            if record.threads_source != "asked":
                known[identify(dataclasses.replace(record.asked, n_threads=None))] = record
    return known


def find_capacities(spec: RunSpec, devices: Sequence[Device]) -> list[Capacity]:
    """The devices that llama.cpp would give layers to, in its order.

    Source: llama_prepare_model_devices in src/llama.cpp: servers first, then GPUs; integrated ones only where there are no others.
    """
    if spec.devices:
        by_name = {device.name: device for device in devices}
        chosen = [by_name[name] for name in spec.devices if name in by_name]
    else:
        remote = [device for device in devices if device.name.startswith("RPC")]
        local = [device for device in devices if device not in remote]
        gpus = [device for device in local if device.kind == "gpu"]
        chosen = remote + (gpus or [device for device in local if device.kind == "igpu"])
    if spec.split_mode == "none" and len(chosen) > spec.main_gpu:
        chosen = [chosen[spec.main_gpu]]
    return [Capacity(device.name, device.memory_free_bytes) for device in chosen]


# Search.


@dataclass(frozen=True, slots=True)
class Best:
    """What a search found. cost_s is seconds of the goal's work at the best count; cost_share the time spent as a share of the full
    sweep's, which is estimated from the measured counts by straight lines between them."""

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

    @property
    def cost_share(self) -> float:
        return self.spent_s / self.full_sweep_s


class Search:
    """Finds the best count of layers for a goal by measuring few.

    cells_of gives the cells of a count (a test for each token kind that the goal weighs); counts are those that may be measured, and
    work is what each moves. clock is in s.
    """

    def __init__(
        self,
        sweeper: Sweeper,
        goal: Goal,
        counts: Sequence[int],
        cells_of: Callable[[int], Sequence[RunSpec]],
        work: Mapping[int, float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sweeper, self._goal, self._cells_of, self._work, self._clock = sweeper, goal, cells_of, work, clock
        self._all = list(counts)
        self._points: dict[int, Point] = {}
        self._wall_s: dict[int, float] = {}
        self._rows: dict[int, LayerRow] = {}
        self._quick: set[int] = set()
        self._skipped: dict[int, str] = {}
        self._failed: dict[int, str] = {}
        self._tried_twice: set[int] = set()
        self._spent_s = 0.0

    @property
    def rows(self) -> list[LayerRow]:
        """What was measured so far, by count."""
        return [self._rows[count] for count in sorted(self._rows)]

    def run(self) -> Best | None:
        """Search until nothing can win, or the time is used up; None where no count could be measured."""
        for count in self._all:
            fit = self._sweeper.predict(max(self._cells_of(count), key=lambda cell: cell.n_ctx))
            if not fit.fits and not self._sweeper.try_anyway:
                self._skipped[count] = fit.reason or "cannot fit"
        while True:
            left = [count for count in self._all if count not in self._skipped and count not in self._failed]
            if not left or (not self._points and len(self._failed) >= HOPELESS):
                return None
            choice = choose_next(list(self._points.values()), left, self._work)
            if choice.next_count is None or self._is_too_dear(choice):
                return self._conclude(choice)
            self._measure(choice.next_count)

    def _is_too_dear(self, choice: Choice) -> bool:
        if len(self._points) < 3 or choice.next_count is None:
            return False
        counts = [count for count in self._all if count not in self._skipped]
        total = estimate_total(self._wall_s, counts, self._work)
        near = min(self._wall_s, key=lambda count: abs(self._work[count] - self._work[choice.next_count or 0]))
        return self._spent_s + self._wall_s[near] > COST_LIMIT * total

    def _measure(self, count: int) -> None:
        """Measure one count: a first look of one repetition, and the rest unless it is clearly losing."""
        start = self._clock()
        cells = self._cells_of(count)
        quick = [dataclasses.replace(cell, repetitions=1) for cell in cells]
        records = list(self._sweeper.measure(quick))
        looked_s = self._clock() - start
        if any(record.failure for record in records):
            self._fail(count, records)
            self._spent_s += self._clock() - start
            return
        cost = self._cost(records)
        best = min((point.cost_s for point in self._points.values()), default=None)
        n_more = cells[0].repetitions - 1
        is_losing = best is not None and cost > LOSING * best
        if n_more and not is_losing:
            rest = [dataclasses.replace(cell, repetitions=n_more, warmup=False) for cell in cells]
            more = list(self._sweeper.measure(rest))
            if any(record.failure for record in more):
                self._fail(count, more)
                self._spent_s += self._clock() - start
                return
            records = [_join(first, second) for first, second in zip(records, more, strict=True)]
        elif n_more:
            self._quick.add(count)
        self._points[count] = Point(count, self._cost(records), self._noise(records))
        self._rows[count] = make_row(records, ["n_gpu_layers"])
        spent = self._clock() - start
        self._spent_s += spent
        timed_s = sum(sample.duration_ns for record in records for sample in record.timed) / NS_PER_S
        # What a full sweep would have taken here: the first look's loading and warm-up once, and all repetitions.
        self._wall_s[count] = looked_s + n_more * timed_s / max(len(records[0].timed), 1)

    def _fail(self, count: int, records: Sequence[Record]) -> None:
        row = make_row(records, ["n_gpu_layers"])
        is_memory = "out of memory on" in (row.failure or "")
        if not is_memory and count not in self._tried_twice:
            self._tried_twice.add(count)  # a server that died may be back
            return
        self._rows[count] = row
        self._failed[count] = row.failure or "failed"
        if is_memory:
            for more in self._all:
                if more > count and more not in self._points and more not in self._failed:
                    self._skipped[more] = f"{count} layers ran out of memory already"

    def _cost(self, records: Sequence[Record]) -> float:
        """Seconds of the goal's work, from the measured tests."""
        total = 0.0
        for record in records:
            weight = self._goal.n_gen if record.asked.n_gen else self._goal.n_prompt
            total += weight / summarize(record).rate_tok_per_s
        return total

    @staticmethod
    def _noise(records: Sequence[Record]) -> float:
        """Relative standard error of the tests' medians, the worst of them: `NOISE` at the least, half as much again for one sample."""
        return max(_relative_error(record) for record in records)

    def _conclude(self, choice: Choice) -> Best:
        best = min(self._points.values(), key=lambda point: point.cost_s)
        counts = [count for count in self._all if count not in self._skipped and count not in self._failed]
        stopped = choice.why
        if choice.next_count is not None:
            stopped = (
                f"the time for a search was used up; {choice.next_count} layers might still win by up to "
                f"{1 - choice.bound_s / best.cost_s:.0%}"
            )
        return Best(
            best_n_gpu_layers=best.n_gpu_layers,
            goal=self._goal,
            cost_s=best.cost_s,
            measured=tuple(sorted(self._points)),
            quick=tuple(sorted(self._quick)),
            skipped=dict(self._skipped),
            failed=dict(self._failed),
            n_counts=len(counts),
            spent_s=self._spent_s,
            full_sweep_s=estimate_total(self._wall_s, counts, self._work),
            stopped=stopped,
            rows=tuple(self.rows),
        )


def _relative_error(record: Record) -> float:
    """From the spread of the repetitions; of a single one, from that of its tokens. A median's error is 1.25 times a mean's."""
    values: Sequence[int] = [sample.duration_ns for sample in record.timed]
    least = NOISE
    if len(values) < 3:
        values, least = [ns for sample in record.timed for ns in sample.token_ns], 1.5 * NOISE
    if len(values) < 3:
        return 2 * NOISE
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
    reasons.append(
        f"measured {', '.join(map(str, best.measured))}"
        + (f" ({', '.join(map(str, best.quick))} by one repetition: clearly slower)" if best.quick else "")
        + f" of {best.n_counts} counts in {best.spent_s:.0f} s, {best.cost_share:.0%} of the {best.full_sweep_s:.0f} s that all would "
        "take (estimated by straight lines between the measured counts)"
    )
    reasons.append(f"stopped because {best.stopped}")
    return reasons


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
        records = list(
            run_cells(
                cells,
                dataclasses.replace(plan, observe=None),
                keep=lambda _record: counts.append([proxy.read() for proxy in proxies]),
                watch=lambda _step: None,
            )
        )
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
    measured time without layers is the price of the crossing. Needs that row and three others.
    """
    times = {row.n_gpu_layers: speed.token_s for row in rows if (speed := row.find("tg")) and not row.failure}
    beyond = {count: value for count, value in times.items() if count > 0}
    if 0 not in times or len(beyond) < 3:
        return None
    xs, ys = [work[count] for count in beyond], list(beyond.values())
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum((x - mean_x) ** 2 for x in xs)
    return mean_y - slope * mean_x - times[0]
