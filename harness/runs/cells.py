"""Run cells by turns: one worker as long as it lives, each record there as soon as its cell is over, a failed cell is a record too."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import harness
from harness.events import Measured, Progress
from harness.host.cpu import choose_threads
from harness.host.memory import available_memory_bytes
from harness.host.rpc import check_servers
from harness.host.telemetry import POWER_CAP, Station
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import (
    Build,
    Failure,
    Load,
    Model,
    Record,
    Resolved,
    Sample,
    Telemetry,
)
from harness.records.doubts import gravest
from harness.records.failures import Cause
from harness.records.journal import utc_now
from harness.runs.asking import blame_file
from harness.runs.bench import Bench, Plan
from harness.runs.needs import estimate_needs, fit_together
from harness.runs.rounds import Rounds, Visit
from harness.runs.session import Session
from harness.runs.worker import Garbled, understand
from harness.sources.model_file import FileFacts, describe_file, model_size_bytes
from harness.spec import RunSpec
from harness.units import format_gb


@dataclass(frozen=True, slots=True)
class Step:
    """Where a run stands: cell `cell` of `n_cells` (from 0) is in `phase`, repetition `index` (from 0) of `count` until the next look.

    n_done is how many cells' worth is done in all, by estimate.
    """

    cell: int
    n_cells: int
    spec: RunSpec
    phase: str
    index: int
    count: int
    n_done: float


@dataclass(frozen=True, slots=True)
class CellsRequest:
    """Cells to measure: by turns, or one after the other. cell_timeout_s bounds each with its loads, isolate=False measures in this
    process."""

    cells: tuple[RunSpec, ...]
    cell_timeout_s: float | None = None
    isolate: bool = True
    interleave: bool = True


def measure_cells(request: CellsRequest, session: Session) -> list[Record]:
    """Measure every cell and keep its record; after Ctrl-C the records until then. A cell that failed is a record too.

    Records are kept as their cells end, and come in the order in which the cells were asked for.

    Raises
    ------
    NativeError : an RPC server does not answer as one.
    """
    cells = request.cells
    check_cells(cells, session)
    course, records = Course(len(cells)), {}
    with session.until_interrupted(), contextlib.closing(Station()) as station:
        plan = plan_in(session, station, request.cell_timeout_s, request.isolate, request.interleave)
        for place, record in run_in_turns(cells, plan, on_step=lambda step: session.on_event(course.at(step))):
            records[place] = record
            keep_cell(record, session)
    return [records[place] for place in sorted(records)]


def plan_in(
    session: Session,
    station: Station,
    cell_timeout_s: float | None,
    isolate: bool = True,
    interleave: bool = True,
) -> Plan:
    """What a run of cells needs, in a session and watched by a station."""
    watch, facts = station.watch, facts_in(session)
    return Plan(
        session.command, session.machine, cell_timeout_s, facts, session.worker_command, isolate, watch, interleave
    )


def facts_in(session: Session) -> Callable[[pathlib.Path], FileFacts]:
    """What describes a file once: a sweep asks for each cell."""
    return functools.cache(functools.partial(describe_file, on_event=session.on_event))


def check_cells(cells: Sequence[RunSpec], session: Session) -> None:
    """See to it before anything is measured that servers answer, and tell which files are larger than the memory that is free.

    Raises
    ------
    NativeError : an RPC server does not answer as one.
    """
    check_servers(list(dict.fromkeys(endpoint for cell in cells for endpoint in cell.rpc)))
    remark_on_size({cell.model for cell in cells}, session)


def keep_cell(record: Record, session: Session) -> None:
    """File a measured cell, note what became of it, and tell it."""
    session.keep(record)
    session.on_event(Measured(record))


def remark_on_size(models: Collection[str], session: Session) -> None:
    """Tell which files, with all their parts, are larger than the memory that is free."""
    available = available_memory_bytes()
    for path in map(pathlib.Path, sorted(models)):
        if (size := model_size_bytes(path)) > available:
            session.remark(
                f"warning: {path.name} has {format_gb(size)} and only {format_gb(available)} of memory are free; it may be read "
                "from disk again and again, or be killed."
            )


class Course:
    """Where a run of so many cells stands in all, in hundredths of a cell."""

    def __init__(self, n_cells: int) -> None:
        self._total, self._most = 100 * n_cells, 0

    def at(self, step: Step, name: str = "", n_before: int = 0) -> Progress:
        """The progress of a step after n_before cells of other runs; `name` says which of several placements it is of."""
        task = f"{name}{step.spec.test}: {step.phase}"
        if step.phase == "repetition":
            task += f" {step.index + 1}/{step.count}"
        # Noise may ask for more repetitions than were expected: what is done stays done. A search may measure a cell more than once.
        self._most = min(max(self._most, round(100 * (n_before + step.n_done))), self._total)
        return Progress(task, self._most, self._total)


def run_cells(
    cells: Sequence[RunSpec], plan: Plan, *, on_step: Callable[[Step], None], bench: Bench | None = None
) -> Iterator[Record]:
    """As `run_in_turns`, the records alone, in the order in which cells end."""
    return (record for _, record in run_in_turns(cells, plan, on_step=on_step, bench=bench))


def run_in_turns(
    cells: Sequence[RunSpec], plan: Plan, *, on_step: Callable[[Step], None], bench: Bench | None = None
) -> Iterator[tuple[int, Record]]:
    """Measure every cell and yield its place and its record as soon as it is over.

    A `bench` that is handed in keeps its worker and models for the next call, and is closed by whoever made it.

    After Ctrl-C what was measured of unfinished cells is yielded as interrupted records, then KeyboardInterrupt goes on.
    """
    facts = {path: plan.model_facts(pathlib.Path(path)) for path in dict.fromkeys(spec.model for spec in cells)}
    with contextlib.closing(Bench(plan)) if bench is None else contextlib.nullcontext(bench) as bench:
        yield from _Turns(cells, plan, facts, bench, on_step).run()


class _Turns:
    """One run of cells by turns."""

    def __init__(
        self,
        cells: Sequence[RunSpec],
        plan: Plan,
        facts: Mapping[str, FileFacts],
        bench: Bench,
        on_step: Callable[[Step], None],
    ) -> None:
        self._cells, self._plan, self._facts, self._bench, self._on_step = cells, plan, facts, bench, on_step
        self._rounds = Rounds(cells, interleave=plan.interleave, fit_together=self._fit_together)
        self._open: dict[int, _Cell] = {}
        # Asked before the first cell: while a worker measures, the parent does nothing.
        self._needs = {cell: estimate_needs(cell) if len(cells) > 1 else None for cell in cells}

    def _fit_together(self, cells: Sequence[RunSpec]) -> bool:
        self._bench.start(cells[0])
        needs = [(cell, self._needs[cell]) for cell in cells]
        return fit_together(needs, available_memory_bytes(), self._bench.build)

    def run(self) -> Iterator[tuple[int, Record]]:
        try:
            while (visit := self._rounds.next()) is not None:
                cell = self._open.get(visit.cell) or _Cell(
                    self._cells[visit.cell], self._plan, self._facts[self._cells[visit.cell].model]
                )
                self._open[visit.cell] = cell
                self._measure(cell, visit)
                if cell.has_failed:
                    self._rounds.drop(visit.cell)
                if self._rounds.is_over(visit.cell):
                    yield visit.cell, self._open.pop(visit.cell).record(self._bench.build)
        except KeyboardInterrupt:
            self._bench.kill()
            for place, cell in sorted(self._open.items()):
                cell.interrupt(self._rounds.states[place].n_wanted)
                if cell.timed:
                    yield place, cell.record(self._bench.build)
            raise
        finally:
            for cell in self._open.values():
                cell.stop_observer()

    def _measure(self, cell: _Cell, visit: Visit) -> None:
        """One block: what is heard goes to the cell, what it took to the order."""
        state, n_before = self._rounds.states[visit.cell], cell.timed
        begun = ready = time.monotonic()
        limit_s = None if self._plan.cell_timeout_s is None else max(self._plan.cell_timeout_s - cell.spent_s, 0.0)
        # Nothing of these changes within a block, and the time before a repetition is the worker's to settle.
        n_wanted, n_done_before, left = state.n_wanted, self._rounds.n_done, 1 - state.share
        command = {"repetitions": visit.repetitions, "keep": visit.keep, "is_first": visit.is_first}
        for event in self._bench.run(cell.spec, command, self._needs[self._cells[visit.cell]], limit_s):
            try:
                cell.on_event(event, visit.turn)
            except Garbled as error:
                cell.on_event(self._bench.give_up(error), visit.turn)
                break
            if not isinstance(event, dict):
                continue
            if event["event"] == "loaded":
                ready = time.monotonic()
            elif event["event"] == "phase":
                is_block = event["phase"] in ("repetition", "depth")
                index, count = (n_before + event["index"], n_wanted) if is_block else (event["index"], event["count"])
                within = event["index"] / max(n_wanted, 1) if is_block else 0.0
                n_done = n_done_before + min(within, left)
                self._on_step(Step(visit.cell, len(self._cells), cell.spec, event["phase"], index, count, n_done))
        ended = time.monotonic()
        cell.spent_s += ended - begun
        self._rounds.add(visit, cell.durations_ns[n_before:], ended - ready, ready - begun)


def model_of(event: Mapping[str, Any], facts: FileFacts) -> Model:
    """The model that a worker has loaded, with what the parent knows of its file."""
    known = {name: value for name, value in dataclasses.asdict(facts).items() if value is not None}
    return understand(Model, {**event["model"], **known}, is_shared=True)


class _Cell:
    """Collects what is heard of one cell until it can be filed."""

    def __init__(self, spec: RunSpec, plan: Plan, file_facts: FileFacts) -> None:
        threads = choose_threads()
        self._file_facts = file_facts
        self.spent_s = 0.0  # all its blocks, with their loads
        self._observer = plan.observe() if plan.observe else None
        self._record = Record(
            plan.command, utc_now(), spec.with_threads(threads.count), plan.machine, harness.__version__,
            threads_source=threads.source_of(spec.n_threads),
            file_sha256=file_facts.file_sha256, file_size_bytes=file_facts.file_size_bytes,
        )  # fmt: skip

    @property
    def spec(self) -> RunSpec:
        return self._record.asked

    @property
    def timed(self) -> int:
        return len(self.durations_ns)

    def _learn(self, **facts: Any) -> None:
        self._record = dataclasses.replace(self._record, **facts)

    @property
    def durations_ns(self) -> list[int]:
        return [sample.duration_ns for sample in self._record.samples if not sample.is_warmup]

    @property
    def has_failed(self) -> bool:
        return self._record.failure is not None

    def on_event(self, event: dict[str, Any] | Failure, turn: int) -> None:
        if self._observer is not None:
            self._observer.on_event(event)
        if isinstance(event, Failure):
            self._learn(failure=blame_file(event, self.spec.model))
        elif event["event"] == "loaded":
            self._learn(model=model_of(event, self._file_facts))
        elif event["event"] == "sample":
            sample = dataclasses.replace(understand(Sample, event), turn=turn)
            self._learn(samples=(*self._record.samples, sample))
        elif event["event"] == "done":
            self._learn(
                resolved=understand(Resolved, event["resolved"], is_shared=True),
                load=self._record.load or understand(Load, event["load"]),
                dispatch_ns_per_token=event["dispatch_ns_per_token"],
                warnings=gravest((*self._record.warnings, *(understand(Caution, caution) for caution in event["cautions"]))),
            )  # fmt: skip

    def interrupt(self, n_wanted: int) -> None:
        done = Caution(CautionCause.INTERRUPTED, n_done=self.timed, n_wanted=n_wanted)
        failure = Failure("repetition", done.text, Cause.INTERRUPTED)
        self._learn(failure=failure, warnings=(*self._record.warnings, done))

    def stop_observer(self) -> None:
        """The cell is over, whatever became of it."""
        if self._observer is not None:
            self._learn(telemetry=self._observer.finish())
            self._observer = None

    def record(self, build: Build | None) -> Record:
        self.stop_observer()
        found = self._record
        cautions = (*_placement_cautions(self.spec, found.resolved), *_throttle(found.telemetry))
        return dataclasses.replace(found, build=build, warnings=(*found.warnings, *cautions))


def _placement_cautions(spec: RunSpec, resolved: Resolved | None) -> Iterator[Caution]:
    """Say where llama.cpp did something else than was asked, by what it allocated rather than by what it claims."""
    if resolved is None:
        return
    n_layers = sum(resolved.layers_by_device.values())
    offloaded = any(buffer.cause == "model" and not buffer.is_host for buffer in resolved.buffers)
    if spec.n_gpu_layers > 0 and not offloaded:
        yield Caution(CautionCause.NO_OFFLOAD)
    elif spec.n_gpu_layers > n_layers > 0:
        yield Caution(CautionCause.LAYERS_CLAMPED, n_layers=n_layers)


def _throttle(telemetry: Telemetry | None) -> Iterator[Caution]:
    """A card at its power limit runs as it always will; heat and brakes make a number that another day will not repeat."""
    if telemetry is not None and telemetry.throttled:
        distrust = any(reason != POWER_CAP for reason in telemetry.throttled)
        yield Caution(CautionCause.THROTTLED, distrust=distrust, reasons=telemetry.throttled)
