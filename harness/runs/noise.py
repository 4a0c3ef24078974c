"""How noisy this machine is: small tests of a model, by turns in short blocks, for half a minute."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import harness
from harness.errors import UsageError
from harness.host.programs import ProgramTime, ProgramWatch
from harness.host.telemetry import Station
from harness.host.tuning import read_tuning
from harness.records.cells import Record, is_measured
from harness.records.journal import utc_now
from harness.records.noise import NoiseBlock, NoiseRecord
from harness.runs.cells import Bench, plan_in, run_cells
from harness.runs.session import Session
from harness.spec import RunSpec, Settings
from harness.units import NS_PER_S

#: What a repetition and a block should take: long enough for the system's counters, short enough for many.
REPETITION_S, BLOCK_S = 0.2, 1.2

#: Tokens of the first block, which finds out how long a token takes; and at the least and at the most of the others.
PROBE_PROMPT, PROBE_GEN, LEAST_TOKENS, MOST_TOKENS = 32, 8, 4, 512

#: Repetitions of a block: at least and at most.
LEAST, MOST = 2, 12

#: CPU time from which on a program is named, as a share of what was measured.
NAMED_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class NoiseRequest:
    """What is to be repeated, for how long: one test of generation and one of prompts unless told; seed draws their order."""

    model: str
    settings: Settings = dataclasses.field(default_factory=dict)
    duration_s: float = 30.0
    seed: int = 0

    def probes(self) -> list[RunSpec]:
        """The tests by which lengths are found."""
        usual = {"repetitions": 2, "warmup": True, **self.settings}
        return [
            RunSpec(self.model, n_prompt=n_prompt, n_gen=n_gen, **usual)
            for n_prompt, n_gen in ((0, PROBE_GEN), (PROBE_PROMPT, 0))
        ]


@dataclass(frozen=True, slots=True)
class Noise:
    """The record, and what no record holds: the names of programs that took CPU time meanwhile."""

    record: NoiseRecord
    programs: tuple[ProgramTime, ...] = ()


class _Measuring:
    """Blocks, one after the other, and the clock by which they end: the real one, or what was timed where that is more."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._begun_s = clock, clock()
        self._timed_ns = 0
        self.blocks: list[NoiseBlock] = []
        self.cells: list[Record] = []

    @property
    def spent_s(self) -> float:
        return max(self._clock() - self._begun_s, self._timed_ns / NS_PER_S)

    def measure(self, spec: RunSpec, run: Callable[[RunSpec], Record | None]) -> Record | None:
        """Measure a block; None where it failed, which is the end."""
        begun_ns = round(self.spent_s * NS_PER_S)
        record = run(spec)
        if record is None:
            return None
        self.cells.append(record)
        self._timed_ns += sum(sample.duration_ns for sample in record.samples)
        if not is_measured(record):
            return None
        self.blocks.append(NoiseBlock(record.asked, begun_ns, record.samples))
        return record


def measure_noise(
    request: NoiseRequest, session: Session, *, clock: Callable[[], float] = time.monotonic
) -> Noise | None:
    """Repeat two small tests by turns until the time is over, and keep everything; None where nothing was measured.

    Raises
    ------
    UsageError : the time is too short for anything.
    """
    if request.duration_s < 1:
        raise UsageError(f"--time {request.duration_s:g} is too short to see any noise; give at least 1 (30 is usual).")
    watch, measuring = ProgramWatch(), _Measuring(clock)
    with session.until_interrupted(), contextlib.closing(Station()) as station:
        plan = plan_in(session, station, None)
        with contextlib.closing(Bench(plan)) as bench:

            def run(spec: RunSpec) -> Record | None:
                done = min(measuring.spent_s, request.duration_s)
                session.show(f"{spec.test}", round(done), round(request.duration_s), "s")
                return next(iter(run_cells([spec], plan, on_step=lambda _step: None, bench=bench)), None)

            _repeat(request, measuring, run)
    if not measuring.cells:
        return None
    programs = watch.busiest(NAMED_SHARE * measuring.spent_s)
    first = next((cell for cell in measuring.cells if cell.model), measuring.cells[0])
    last = measuring.cells[-1]
    record = NoiseRecord(
        utc_now(), session.machine, harness.__version__, request.duration_s, tuple(measuring.blocks), read_tuning(),
        first.build, first.model, last.resolved or first.resolved, last.failure,
    )  # fmt: skip
    session.keep(record)
    return Noise(record, tuple(programs))


def _repeat(request: NoiseRequest, measuring: _Measuring, run: Callable[[RunSpec], Record | None]) -> None:
    """Find lengths, then measure both tests by turns, in an order that is drawn for each pair."""
    specs = []
    for probe in request.probes():
        record = measuring.measure(probe, run)
        if record is None:
            return
        specs.append(_suit(probe, record))
    if measuring.spent_s >= request.duration_s:  # so busy that these are all: they say so
        return
    measuring.blocks.clear()  # they were short, and came first
    chance = random.Random(request.seed)
    while measuring.spent_s < request.duration_s:
        for spec in chance.sample(specs, len(specs)):
            if measuring.measure(spec, run) is None:
                return


def _suit(probe: RunSpec, record: Record) -> RunSpec:
    """The test with as many tokens as take `REPETITION_S`, a power of two, and as many repetitions as take `BLOCK_S`."""
    shortest_ns = min(sample.duration_ns for sample in record.timed) / probe.n_tokens
    shortest_ns = min(
        [shortest_ns, *(ns for sample in record.timed for ns in sample.token_ns)]
    )  # of a busy machine the quiet moment
    token_s = shortest_ns / NS_PER_S
    tokens = LEAST_TOKENS
    while tokens < MOST_TOKENS and tokens * token_s * 1.5 < REPETITION_S:
        tokens *= 2
    repetitions = min(max(round(BLOCK_S / (tokens * token_s)), LEAST), MOST)
    if probe.n_gen:
        return dataclasses.replace(probe, n_gen=tokens, repetitions=repetitions)
    return dataclasses.replace(probe, n_prompt=tokens, repetitions=repetitions)
