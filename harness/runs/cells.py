"""Run cells one after the other: one worker as long as it lives, each record stored at once, a failed cell is a record too."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import pathlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import harness
from harness.codec import decode
from harness.errors import HarnessError, Outcome
from harness.events import Measured, Progress
from harness.evidence.medians import samples_needed
from harness.host.cpu import choose_threads
from harness.host.memory import available_memory_bytes
from harness.host.rpc import check_servers, wait_for_servers
from harness.host.telemetry import POWER_CAP, Station, Watch
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import (
    Build,
    Failure,
    Load,
    Machine,
    Model,
    Record,
    Resolved,
    Sample,
    Telemetry,
)
from harness.records.failures import Cause
from harness.records.journal import utc_now
from harness.runs.asking import blame_file
from harness.runs.session import Session
from harness.runs.worker import Worker
from harness.sources.model_file import FileFacts, describe_file, model_size_bytes
from harness.spec import RunSpec
from harness.units import format_gb

#: How long a cell waits for an RPC server that the cell before it lost.
RPC_RETURN_S = 10.0

#: How long a cell with RPC servers may be without any event where no --cell-timeout says otherwise: a machine that lost its power
#: never answers, and ggml waits for ever. Long enough for 70 GB of weights over 100 Mbit/s.
RPC_SILENCE_S = 7200.0


@dataclass(frozen=True, slots=True)
class Step:
    """Where a run stands: cell `cell` of `n_cells` (from 0) is in `phase`, repetition `index` of `count`."""

    cell: int
    n_cells: int
    spec: RunSpec
    phase: str
    index: int
    count: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a run needs beside its cells.

    cell_timeout_s bounds one cell with its load; model_facts adds what the parent knows of a file (hash, synthetic or not), asked
    for each file before the first cell: while a worker measures, the parent does nothing;
    worker_command replaces the worker in tests; isolate=False measures in this process, for debuggers and profilers; observe makes
    what watches the hardware while a cell runs.
    """

    command: str
    machine: Machine
    cell_timeout_s: float | None = None
    model_facts: Callable[[pathlib.Path], FileFacts] = lambda _path: FileFacts()
    worker_command: Sequence[str] | None = None
    isolate: bool = True
    observe: Callable[[], Watch] | None = None


@dataclass(frozen=True, slots=True)
class CellsRequest:
    """Cells to measure one after the other; cell_timeout_s bounds each with its load, isolate=False measures in this process."""

    cells: tuple[RunSpec, ...]
    cell_timeout_s: float | None = None
    isolate: bool = True


def measure_cells(request: CellsRequest, session: Session) -> list[Record]:
    """Measure every cell and keep its record; after Ctrl-C the records until then. A cell that failed is a record too.

    Raises
    ------
    NativeError : an RPC server does not answer as one.
    """
    cells = request.cells
    check_servers(list(dict.fromkeys(endpoint for cell in cells for endpoint in cell.rpc)))
    remark_on_size({cell.model for cell in cells}, session)
    course, records = Course(cells), []
    with session.until_interrupted(), contextlib.closing(Station()) as station:
        plan = plan_in(session, station, request.cell_timeout_s, request.isolate)
        for record in run_cells(cells, plan, on_step=lambda step: session.on_event(course.at(step))):
            records.append(record)
            keep_cell(record, session)
    return records


def plan_in(session: Session, station: Station, cell_timeout_s: float | None, isolate: bool = True) -> Plan:
    """What a run of cells needs, in a session and watched by a station."""
    facts = functools.cache(functools.partial(describe_file, on_event=session.on_event))  # a sweep asks for each cell
    return Plan(session.command, session.machine, cell_timeout_s, facts, session.worker_command, isolate, station.watch)


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
    """Where a run of cells stands in all, counted in repetitions."""

    def __init__(self, cells: Sequence[RunSpec]) -> None:
        self._ends = list(
            itertools.accumulate(((cell.repetitions or samples_needed()) + 1 for cell in cells), initial=0)
        )

    def at(self, step: Step, name: str = "") -> Progress:
        """The progress of a step; `name` says which of several placements it is of."""
        task = f"{name}{step.spec.test}: {step.phase}"
        if step.phase == "repetition":
            task += f" {step.index + 1}/{step.count}"
        cell = min(step.cell, len(self._ends) - 2)  # a search may measure a cell more than once
        done = self._ends[cell] + (1 + step.index if step.phase in ("repetition", "depth") else 0)
        return Progress(task, min(done, self._ends[-1]), self._ends[-1])


def run_cells(
    cells: Sequence[RunSpec],
    plan: Plan,
    *,
    on_step: Callable[[Step], None],
    bench: Bench | None = None,
) -> Iterator[Record]:
    """Measure every cell and yield its record.

    A `bench` that is handed in keeps its worker and model for the next call, and is closed by whoever made it.

    After Ctrl-C the samples of the unfinished cell are yielded as an interrupted record, then KeyboardInterrupt goes on.
    """
    facts = {path: plan.model_facts(pathlib.Path(path)) for path in dict.fromkeys(spec.model for spec in cells)}
    with contextlib.closing(Bench(plan)) if bench is None else contextlib.nullcontext(bench) as bench:
        for index, spec in enumerate(cells):
            cell = _Cell(spec, plan, facts[spec.model])
            interrupted = None
            try:
                for event in bench.run(cell.spec):
                    cell.on_event(event)
                    if isinstance(event, dict) and event["event"] == "phase":
                        on_step(Step(index, len(cells), spec, event["phase"], event["index"], event["count"]))
            except KeyboardInterrupt as interrupt:
                interrupted = interrupt
                bench.kill()
                cell.interrupt()
            finally:
                cell.stop_observer()
            if not interrupted or cell.timed:
                yield cell.record(bench.build)
            if interrupted:
                raise interrupted


class Bench:
    """Keeps a worker alive and replaces a dead one."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._worker: Worker | _InProcess | None = None
        self._rpc: tuple[str, ...] = ()
        self.build: Build | None = None
        self.start_s = 0.0  # what starting workers took, in all

    def run(self, spec: RunSpec) -> Iterator[dict[str, Any] | Failure]:
        if self._worker is not None and not self._worker.is_alive:
            self._drop()
            # The worker dies with its server; one that its supervisor starts again is there in a moment.
            wait_for_servers(spec.rpc, RPC_RETURN_S)
        if self._worker is not None and self._rpc not in ((), spec.rpc):
            self._drop()  # ggml cannot forget a server's devices
        if self._worker is None:
            self._rpc = ()
            begun = time.monotonic()
            self._worker = Worker(self._plan.worker_command) if self._plan.isolate else _InProcess()
            greeting = self._worker.hello()
            self.start_s += time.monotonic() - begun
            if isinstance(greeting, Failure):
                self._drop()
                yield greeting
                return
            self.build = decode(Build, greeting["build"])
        self._rpc = self._rpc or spec.rpc
        self._worker.send({"measure": spec.to_dict()})
        timeout_s = self._plan.cell_timeout_s
        silence_s = RPC_SILENCE_S if spec.rpc and timeout_s is None else None
        for event in self._worker.events(timeout_s, is_cell_limit=timeout_s is not None, silence_s=silence_s):
            if isinstance(event, dict) and event["event"] == "build":
                self.build = decode(Build, event["build"])
            else:
                yield event

    def _drop(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def kill(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._drop()

    close = _drop


def _known(facts: FileFacts) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(facts).items() if value is not None}


class _Cell:
    """Collects what is heard of one cell until it can be filed."""

    def __init__(self, spec: RunSpec, plan: Plan, file_facts: FileFacts) -> None:
        threads = choose_threads()
        self._file_facts = file_facts
        self._observer = plan.observe() if plan.observe else None
        self._record = Record(
            plan.command, utc_now(), spec.with_threads(threads.count), plan.machine, harness.__version__,
            threads_source="asked" if spec.n_threads is not None else threads.source,
            file_sha256=file_facts.file_sha256, file_size_bytes=file_facts.file_size_bytes,
        )  # fmt: skip

    @property
    def spec(self) -> RunSpec:
        return self._record.asked

    @property
    def timed(self) -> int:
        return len(self._record.timed)

    def _learn(self, **facts: Any) -> None:
        self._record = dataclasses.replace(self._record, **facts)

    def on_event(self, event: dict[str, Any] | Failure) -> None:
        if self._observer is not None:
            self._observer.on_event(event)
        if isinstance(event, Failure):
            self._learn(failure=blame_file(event, self.spec.model) if event.phase == "load" else event)
        elif event["event"] == "loaded":
            self._learn(model=dataclasses.replace(decode(Model, event["model"]), **_known(self._file_facts)))
        elif event["event"] == "sample":
            self._learn(samples=(*self._record.samples, decode(Sample, event)))
        elif event["event"] == "done":
            self._learn(
                resolved=decode(Resolved, event["resolved"]), load=decode(Load, event["load"]),
                dispatch_ns_per_token=event["dispatch_ns_per_token"],
                warnings=(*self._record.warnings, *(decode(Caution, caution) for caution in event["cautions"])),
            )  # fmt: skip

    def interrupt(self) -> None:
        done = Caution(CautionCause.INTERRUPTED, n_done=self.timed, n_wanted=self.spec.repetitions or samples_needed())
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


def _cause_of(error: HarnessError) -> Cause:
    return Cause.QUESTION if error.outcome is Outcome.QUESTION else Cause.REFUSED


@dataclass
class _InProcess:
    """The worker's code without the child: for debuggers and profilers, at the risk of the process."""

    is_alive: bool = True
    _bench: Any = None
    _command: dict[str, Any] | None = None

    def hello(self) -> dict[str, Any] | Failure:
        from harness.native.engine import Runtime
        from harness.native.worker import Bench

        self._bench = Bench(Runtime(log_to_stderr=False))
        return {"build": self._bench.describe()}

    def send(self, command: dict[str, Any]) -> None:
        self._command = command

    def events(self, _timeout_s: float | None, **_limits: Any) -> Iterator[dict[str, Any] | Failure]:
        heard: list[dict[str, Any] | Failure] = []
        from harness.native.worker import BlockRequest

        try:
            self._bench.run(
                decode(BlockRequest, self._command), lambda event, body: heard.append({"event": event, **body})
            )
        except HarnessError as error:
            reason, trouble = getattr(error, "reason", None), getattr(error, "trouble", None)
            heard.append(Failure("measure", str(error), _cause_of(error), reason=reason, trouble=trouble))
        yield from heard

    def kill(self) -> None:
        self.is_alive = False

    def close(self) -> None:
        if self._bench is not None:
            self._bench.close()
