"""Sweeps over placements of a model: every count in turn, or the best one found from few."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

from harness.errors import HarnessError, Outcome, UsageError
from harness.events import Measured, Progress, ignore
from harness.gguf.model_kinds import Kind, Question, find_kind
from harness.grid import Grid
from harness.host.cpu import choose_threads
from harness.host.memory import available_memory_bytes
from harness.host.telemetry import Station
from harness.memory.fit import Placement, check_placement
from harness.memory.forecast import list_rules
from harness.records.cells import Device, Failure, Record, is_of
from harness.records.journal import read_records
from harness.records.placements import (
    PlacementResult,
    find_columns,
    index_records,
    look_key,
    make_result,
    measured_s,
    placement_key,
    skipped_result,
)
from harness.runs.asking import read_for, suit
from harness.runs.cells import Bench, Course, Plan, Step, plan_in, run_in_turns
from harness.runs.devices import Survey, explain_absence, survey_devices
from harness.runs.memory import find_model, plan_compute
from harness.runs.network import Wire, estimate_crossing, measure_wire
from harness.runs.search import Best, Goal, Search
from harness.runs.session import Session
from harness.sources.model_file import hash_file, model_size_bytes
from harness.spec import RunSpec
from harness.speed.offload import Blocks, clamp_counts, describe_blocks


@dataclass(frozen=True, slots=True)
class SweepRequest:
    """What to measure over placements of one model.

    axes maps fields of `RunSpec` to their values, n_prompt and n_gen are tests as in `Grid` (None: not asked for expressly). Without
    n_gpu_layers every count is measured that differs. goal makes it a search for the best count. What is predicted not to fit is left
    out unless try_anyway; counts_traffic lets a token's traffic be counted where there are RPC servers.
    """

    model: str
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    n_prompt: tuple[int, ...] | None = None
    n_gen: tuple[int, ...] | None = None
    repetitions: int | None = None
    seed: int = 0
    goal: Goal | None = None
    try_anyway: bool = False
    counts_traffic: bool = True
    cell_timeout_s: float | None = None
    precision: float = 0.02
    max_time_s: float = 60.0
    interleave: bool = True

    def grid(self, counts: Sequence[int] | None = None) -> Grid:
        """What is asked of some counts of layers; of those that were asked for where none are named."""
        n_prompt, n_gen = self.n_prompt or (512,), self.n_gen or (128,)
        return Grid(
            models=[self.model],
            axes=self.axes if counts is None else {**self.axes, "n_gpu_layers": counts},
            n_prompt=n_prompt if self.goal is None or self.goal.n_prompt else (),
            n_gen=n_gen if self.goal is None or self.goal.n_gen else (),
            repetitions=self.repetitions,
            precision=self.precision,
            max_time_s=self.max_time_s,
            seed=self.seed,
        )

    def cells(self, counts: Sequence[int] | None = None) -> tuple[RunSpec, ...]:
        """The cells of these counts, as the file suits."""
        return suit(self.grid(counts).cells(), self.asked, ignore)

    @property
    def asked(self) -> set[str]:
        """The fields of `RunSpec` that were asked for expressly."""
        return {*self.axes} | {name for name in ("n_prompt", "n_gen") if getattr(self, name)}

    @property
    def rpc(self) -> tuple[str, ...]:
        """The RPC servers that join in."""
        return next(iter(self.axes.get("rpc", ())), ())


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep or a search found; results are in the order of layers. crossing_s is what crossing to the devices costs a token."""

    file_name: str
    is_synthetic: bool
    blocks: Blocks
    devices: tuple[Device, ...]
    results: tuple[PlacementResult, ...]
    best: Best | None = None
    wires: tuple[Wire, ...] = ()
    wire_failure: Failure | None = None
    crossing_s: float | None = None
    is_interrupted: bool = False


def sweep_placements(request: SweepRequest, session: Session) -> Sweep:
    """Measure the placements that a request asks for and keep each cell; after Ctrl-C what was measured until then.

    Raises
    ------
    UsageError, HarnessError : the file cannot be read or asked this, or the request contradicts what there is.
    """
    header, path = read_for(request.model, Question.MEASURE), pathlib.Path(request.model)
    kind = find_kind(header)
    if request.goal is None:
        suit(request.grid().cells(), request.asked, session.on_event)  # for what it tells
    elif kind.kind is not Kind.TEXT and request.goal.n_gen:
        raise UsageError(f"{kind.describe(path.name)}; look for the best count with --goal pp.")
    blocks = describe_blocks(header)
    session.show("looking for devices")
    survey = survey_devices(request.rpc)
    _refuse_split(request, survey)
    run = _Run(request, session, blocks, survey, _choose_counts(request, blocks, survey, session))
    known = _read_known(path, session)
    with contextlib.closing(Station()) as station:
        plan = plan_in(session, station, request.cell_timeout_s, interleave=request.interleave)
        results, best = run.search(plan, known) if request.goal else run.sweep(plan, known)
        wires, failure = run.count_traffic(plan, results, best)
    _judge(results, session)
    work = blocks.work_by_count()
    return Sweep(
        path.name, header.is_synthetic, blocks, survey.build.devices, tuple(results), best, tuple(wires), failure,
        estimate_crossing(results, work), session.is_interrupted,
    )  # fmt: skip


def _judge(results: Sequence[PlacementResult], session: Session) -> None:
    """Note what became of the whole: what an earlier run left counts as well."""
    for result in results:
        if result.failure:
            session.fail(result.failure)
        if any(speed.is_distrusted for speed in result.speeds):
            session.add(Outcome.NOT_TRUSTED)
    if session.outcome is Outcome.OK and not any(result.speeds for result in results):
        session.add(Outcome.NATIVE)


def _refuse_split(request: SweepRequest, survey: Survey) -> None:
    """More shares than devices to share among would be dropped by llama.cpp without a word."""
    named = [len(names) for names in request.axes.get("devices", ()) if names and names != ("none",)]
    n_devices = max(named, default=len(survey.gpus))
    for split in request.axes.get("tensor_split", ()):
        if 0 < n_devices < len(split):
            raise UsageError(
                f"-ts {'/'.join(f'{share:g}' for share in split)} shares among {len(split)} devices and there "
                f"{'is' if n_devices == 1 else 'are'} {n_devices}; give one share a device."
            )


def _choose_counts(request: SweepRequest, blocks: Blocks, survey: Survey, session: Session) -> tuple[int, ...]:
    """The layer counts to sweep: all, unless asked otherwise; none but 0 where layers have nowhere to go."""
    asked = tuple(request.axes.get("n_gpu_layers", ()))
    if not survey.gpus and ("none",) not in request.axes.get("devices", ()):
        absence = explain_absence(survey)
        change = f" To change that: {absence.command}" if absence and absence.command else ""
        session.remark(f"no layer can go anywhere: {absence.reason if absence else 'there is no device'}.{change}")
    if not asked:
        others = any(len(values) > 1 for name, values in request.axes.items() if name != "n_gpu_layers")
        asked = (-1,) if others else tuple(range(blocks.max_gpu_layers + 1)) if survey.gpus else (0,)
    counts, beyond = clamp_counts(asked, blocks.max_gpu_layers)
    if beyond:
        session.remark(
            f"the model has {blocks.n_layers} layers and the output layer: -ngl {', '.join(map(str, beyond))} "
            f"means {blocks.max_gpu_layers}."
        )
    return counts


Known = dict[Any, list[Record]]


def _read_known(path: pathlib.Path, session: Session) -> Known:
    """The cells of the journal that goes on which need not be repeated: those of this file on this machine."""
    if session.resumed is None:
        return {}
    sha256, size_bytes = hash_file(path, session.on_event), model_size_bytes(path)
    records = read_records([session.resumed], session.remark)
    own = [r for r in records if is_of(r, session.machine, sha256, size_bytes)]
    if others := len(records) - len(own):
        session.remark(f"{others} cells in {session.resumed} are of another file or another machine and do not count.")
    return index_records(own, choose_threads().count)


def _age_s() -> float:
    """Seconds that this process has lived."""
    return max(time.time() - psutil.Process().create_time(), 0.0)


@dataclass(frozen=True, slots=True)
class _Run:
    """The choices of one request, and the ways to carry them out."""

    request: SweepRequest
    session: Session
    blocks: Blocks
    survey: Survey
    counts: tuple[int, ...]

    @contextlib.contextmanager
    def _sweeper(self, plan: Plan, cells: Sequence[RunSpec], known: Known) -> Iterator[Sweeper]:
        self._remark_known(cells, known)
        sweeper = Sweeper(
            plan, self.session.keep, self._follow(cells), self.blocks, self.survey.build.devices, known, self.request.try_anyway,
            self._plan_compute(cells), available_memory_bytes(),
        )  # fmt: skip
        with contextlib.closing(sweeper), self.session.until_interrupted():
            yield sweeper

    def _remark_known(self, cells: Sequence[RunSpec], known: Known) -> None:
        """Count the records that will do for cells of this question, however often a search looked at each."""
        if known:
            asked = {look_key(cell)[0] for cell in cells}
            of_these = {id(record) for key, same in known.items() if key[0] in asked for record in same}
            self.session.remark(
                f"going on with {self.session.resumed}, which has {len(of_these)} of the cells asked for."
            )

    def _follow(self, cells: Sequence[RunSpec]) -> Callable[[Step, int], None]:
        """Tell where a step stands after so many cells; nobody knows how many a search will take."""
        course = Course(len(cells))

        def on_step(step: Step, n_before: int) -> None:
            progress = course.at(step, f"-ngl {step.spec.n_gpu_layers}, ", n_before)
            self.session.on_event(Progress(progress.task) if self.request.goal else progress)

        return on_step

    def _plan_compute(self, cells: Sequence[RunSpec]) -> dict[str, int]:
        """What computing needs on each device, from one dry run with all layers and the longest context.

        It takes as long as a start, so it is left out where nothing of it matters: no device says what it has free, or weights and
        cache of the largest placement take less than half of that.
        """
        largest = max(cells, key=lambda cell: (cell.n_ctx, cell.n_gpu_layers))
        rules = list_rules(self.survey.build.devices)
        half = [dataclasses.replace(item, memory_bytes=item.memory_bytes and item.memory_bytes // 2) for item in rules]
        if check_placement(self.blocks.header, largest, half).fits:
            return {}
        self.session.show("planning what computing needs")
        try:
            sizes, trouble = plan_compute(find_model(self.request.model, weights=False), largest)
        except HarnessError as error:
            sizes, trouble = {}, str(error)
        if trouble:
            self.session.remark(
                f"what computing needs on a device is not known ({trouble.rstrip('.')}): what is said to fit may not; "
                "weights and cache are a lower bound."
            )
        return sizes

    def sweep(self, plan: Plan, known: Known) -> tuple[list[PlacementResult], None]:
        cells, results = self.request.cells(self.counts), []
        with self._sweeper(plan, cells, known) as sweeper:
            for result in sweeper.sweep(cells):
                results.append(result)
                self.session.on_event(Measured(result))
        return sorted(results, key=lambda result: result.n_gpu_layers), None

    def search(self, plan: Plan, known: Known) -> tuple[list[PlacementResult], Best | None]:
        assert self.request.goal is not None
        best = None
        with self._sweeper(plan, self.request.cells(self.counts), known) as sweeper:
            search = Search(
                sweeper, self.request.goal, self.counts, functools.cache(lambda count: self.request.cells((count,))),
                self.blocks.work_by_count(), before_s=_age_s(),
                on_result=lambda result: self.session.on_event(Measured(result)),
            )  # fmt: skip
            best = search.run()
        return search.results, best

    def count_traffic(
        self, plan: Plan, results: Sequence[PlacementResult], best: Best | None
    ) -> tuple[Sequence[Wire], Failure | None]:
        """Count what a token sends at the best count, else at the fastest one."""
        good = [
            result
            for result in results
            if result.n_gpu_layers and (result.n_gpu_layers == best.best_n_gpu_layers if best else result.find("tg"))
        ]
        chosen = max(good, key=lambda result: result.speeds[-1].rate_tok_per_s, default=None)
        if chosen is None or not self.request.rpc or not self.request.counts_traffic or self.session.is_interrupted:
            return (), None
        self.session.show("counting what goes over the network")
        spec = dataclasses.replace(self.request.cells((chosen.n_gpu_layers,))[-1], **dict(chosen.varied))
        return measure_wire(spec, plan)


@dataclass
class Sweeper:
    """Measures cells in one worker, takes over what an earlier run left, and leaves out what cannot fit.

    known maps `look_key` to records of an earlier run; devices are those that layers can go to; compute_bytes is what a dry run
    planned for computing, by device; host_bytes is free memory of the host, where devices may share it. reused_s counts the seconds
    that the known records which were handed out took when they were measured, as far as they say.
    """

    plan: Plan
    keep: Callable[[Record], None]
    on_step: Callable[[Step, int], None]
    blocks: Blocks | None = None
    devices: Sequence[Device] = ()
    known: Mapping[Any, list[Record]] = field(default_factory=dict)
    try_anyway: bool = False
    compute_bytes: Mapping[str, int] = field(default_factory=dict)
    host_bytes: int | None = None
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
            yield from self._measure([cell])

    def _measure(self, cells: Sequence[RunSpec]) -> list[Record]:
        """Measure cells by turns, as the plan has it; those that are known already are handed out again."""
        found: dict[int, Record] = {}
        for place, cell in enumerate(cells):
            if known := self.known.get(look_key(cell)):
                found[place] = known.pop(0)
                self.reused_s += measured_s(found[place])
        self._n_done += len(found)
        left = [place for place in range(len(cells)) if place not in found]
        asked = [cells[place] for place in left]
        for place, record in run_in_turns(asked, self.plan, on_step=self._pass_on, bench=self._bench):
            self.keep(record)
            found[left[place]] = record
        self._n_done += len(left)
        return [found[place] for place in sorted(found)]

    def _pass_on(self, step: Step) -> None:
        self.on_step(step, self._n_done)

    def sweep(self, cells: Sequence[RunSpec]) -> Iterator[PlacementResult]:
        """Measure all cells, a result for each placement as soon as it is there; what cannot fit comes last or not at all."""
        varied = find_columns(cells)
        groups = [list(group) for _, group in itertools.groupby(cells, key=placement_key)]
        fits = [(group, self.predict(max(group, key=lambda cell: cell.n_ctx))) for group in groups]
        for group, fit in sorted(fits, key=lambda item: not item[1].fits):
            if fit.fits or self.try_anyway:
                yield make_result(self._measure(group), varied)
            else:
                yield skipped_result(group[0], varied, fit.reason or "cannot fit")
