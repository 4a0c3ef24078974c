"""Which of two settings is faster: blocks of both by turns, in random order, until a sequential test knows."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import pathlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import harness
from harness.errors import NativeError, UsageError
from harness.events import Measured, OnEvent, Remark
from harness.evidence.sequential import Decision, SequentialTest
from harness.grid import Grid
from harness.host.cpu import choose_threads
from harness.native.slowdown import VARIABLE, read_share
from harness.records.ab import Ab, Arm, Block, Side, Stop, find_pairs, log_ratio
from harness.records.cells import Build, Load, Resolved, Sample
from harness.records.failures import Cause, Failure
from harness.records.journal import utc_now
from harness.runs.asking import blame_file, plan_cells
from harness.runs.bench import block_events, process_nature
from harness.runs.cells import check_cells, facts_in, model_of
from harness.runs.session import Session
from harness.runs.worker import Garbled, Worker, understand
from harness.sources.model_file import FileFacts
from harness.spec import RunSpec, Settings
from harness.units import NS_PER_S

#: A block has no more repetitions than this, however short they are.
MOST_REPETITIONS = 9


#: Environment variables by which tests make one arm slower (`harness.native.slowdown`).
SLOWDOWNS = {Arm.A: f"{VARIABLE}_A", Arm.B: f"{VARIABLE}_B"}


@dataclass(frozen=True, slots=True)
class ArmQuestion:
    """What is asked of an arm: a model (None: the embedded one), fields of `RunSpec`, and the Python whose llama_cpp is to run."""

    reference: str | None = None
    settings: Settings = dataclasses.field(default_factory=dict)
    python: str | None = None


@dataclass(frozen=True, slots=True)
class ArmRequest:
    """One arm: a cell for each test, the Python whose llama_cpp runs it (None: ours), and a slow-down for tests."""

    specs: tuple[RunSpec, ...]
    python: str | None = None
    slowdown: float = 0.0


@dataclass(frozen=True, slots=True)
class AbRequest:
    """Two arms with the same tests, each of which is decided by itself.

    margin : a difference within it does not count, as a share
    alpha  : how often at most a decision is false; tests share it evenly
    max_time_s : for the pairs of each test
    repetitions : of a block; None: by what a block costs beside them

    Raises
    ------
    UsageError : the arms have no test in common, or margin and alpha are no shares.
    """

    a: ArmRequest
    b: ArmRequest
    margin: float = 0.01
    alpha: float = 0.05
    max_time_s: float = 60.0
    repetitions: int | None = None
    seed: int = 0
    cell_timeout_s: float | None = None

    def __post_init__(self) -> None:
        if not self.a.specs or _list_tests(self.a) != _list_tests(self.b):
            raise UsageError("A and B have no test in common; give both a -p or an -n that both can run.")
        if not (0 < self.margin < 1 and 0 < self.alpha < 1):
            raise UsageError("A margin and an alpha are shares between 0 and 100 %, such as 1 % and 5 %.")

    def arm(self, arm: Arm) -> ArmRequest:
        """What is asked of an arm."""
        return self.a if arm is Arm.A else self.b

    @property
    def is_same(self) -> bool:
        """Whether both arms are the same, so that whatever is found is chance."""
        return self.a == self.b


def _list_tests(arm: ArmRequest) -> list[str]:
    return [spec.test_without_depth for spec in arm.specs]


def _differ_in_users(a: Sequence[RunSpec], b: Sequence[RunSpec]) -> bool:
    return bool({cell.n_parallel for cell in a} ^ {cell.n_parallel for cell in b})


def plan_ab(
    arms: tuple[ArmQuestion, ArmQuestion],
    on_event: OnEvent,
    *,
    n_prompt: Sequence[int] | None = None,
    n_gen: Sequence[int] | None = None,
    **manner: Any,
) -> AbRequest:
    """A request from two questions, with files found and held against what is asked of them.

    n_prompt and n_gen are lengths of separate tests, 512 and 128 unless told; what only one arm's model can run is left out. manner is
    the other fields of `AbRequest`.

    Raises
    ------
    UsageError : settings contradict each other, a file is no model, no test is left.
    """
    lengths = (512,) if n_prompt is None else n_prompt, (128,) if n_gen is None else n_gen
    asked = {name for name, given in (("n_prompt", n_prompt), ("n_gen", n_gen)) if given is not None}
    cells = {}
    for arm, question in zip(Arm, arms, strict=True):
        axes = {name: (value,) for name, value in question.settings.items()}
        grid = Grid([question.reference] if question.reference else [], axes, *lengths, seed=manner.get("seed", 0))
        cells[arm] = plan_cells(grid, asked | set(axes), on_event)
    common = {cell.test_without_depth for cell in cells[Arm.A]} & {cell.test_without_depth for cell in cells[Arm.B]}
    if not common and _differ_in_users(cells[Arm.A], cells[Arm.B]):
        raise UsageError(
            "A and B are of another number of users, which is other work; measure both by `harness pp-tg -np 1,4` and hold them "
            "against each other by `harness compare last --by np`."
        )
    a, b = (
        ArmRequest(
            tuple(cell for cell in cells[arm] if cell.test_without_depth in common),
            question.python,
            read_share(SLOWDOWNS[arm]),
        )
        for arm, question in zip(Arm, arms, strict=True)
    )
    request = AbRequest(a, b, **manner)
    if request.is_same:
        on_event(Remark("note: A and B are the same, so that a difference would be a false alarm."))
    return request


def measure_ab(request: AbRequest, session: Session, *, clock: Callable[[], float] = time.monotonic) -> list[Ab]:
    """Decide each test and keep its record; after Ctrl-C what was measured until then.

    Raises
    ------
    NativeError : a worker cannot be started, such as that of another environment; an RPC server does not answer as one.
    """
    specs = (*request.a.specs, *request.b.specs)
    check_cells(specs, session)
    facts = facts_in(session)
    records: list[Ab] = []
    with session.until_interrupted(), _Workers(request, session) as workers:
        for index in range(len(request.a.specs)):
            duel = _Duel(request, index, session, workers, clock)
            duel.learn_files(facts)
            try:
                duel.fight()
            finally:
                if duel.stop is not Stop.INTERRUPTED or duel.blocks:
                    records.append(record := duel.record())
                    session.keep(record)
                    session.on_event(Measured(record))
    return records


class _Workers:
    """A worker for both arms, or one for each where they cannot share it: another Python, other RPC servers, another priority."""

    def __init__(self, request: AbRequest, session: Session) -> None:
        self._request, self._session = request, session
        self._stack = contextlib.ExitStack()
        self._found: dict[Any, Worker] = {}
        self._builds: dict[Any, Build | None] = {}

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)  # an exception ends them at once

    def of(self, arm: Arm, spec: RunSpec) -> Worker:
        """The worker that measures an arm, started anew where it has died.

        Raises
        ------
        NativeError : it cannot be started, with the arm and the Python that were meant.
        """
        key = self._key(arm, spec)
        worker = self._found.get(key)
        if worker is None or not worker.is_alive:
            self._found[key] = worker = self._start(arm)
            self._builds[key] = self._session.build
        return worker

    def build_of(self, arm: Arm, spec: RunSpec) -> Build | None:
        """The engine that measures an arm, where it has been started."""
        return self._builds.get(self._key(arm, spec))

    def learn_build(self, arm: Arm, spec: RunSpec, build: Build) -> None:
        """Take note that the engine's devices are others now."""
        self._builds[self._key(arm, spec)] = build

    def _key(self, arm: Arm, spec: RunSpec) -> Any:
        return self._request.arm(arm).python, spec.rpc, process_nature(spec)

    def _start(self, arm: Arm) -> Worker:
        python = self._request.arm(arm).python
        try:
            return self._stack.enter_context(self._session.worker(guest=python))
        except NativeError as error:
            if python is None:
                raise
            why = str(error).rstrip(".")
            raise NativeError(
                f"--python {python} cannot measure arm {arm.value}: {why}.", reason=error.reason
            ) from None


class _Failed(Exception):
    """llama.cpp failed in a block."""

    def __init__(self, failure: Failure, arm: Arm) -> None:
        super().__init__(failure.message)
        self.failure, self.arm = failure, arm


class _Duel:
    """One test: trial blocks, then pairs until it is over. Whatever ends it, `record` has what was measured."""

    def __init__(
        self, request: AbRequest, index: int, session: Session, workers: _Workers, clock: Callable[[], float]
    ) -> None:
        self._request, self._session, self._workers, self._clock = request, session, workers, clock
        self._n_tests = len(request.a.specs)
        self._threads = choose_threads()
        self._sides = {arm: self._make_side(request.arm(arm), index) for arm in Arm}
        self._facts: dict[Arm, FileFacts] = {}
        self._random = random.Random(f"{request.seed} {index}")
        self._test = SequentialTest(request.margin, request.alpha / self._n_tests)
        self._time_utc = utc_now()
        self._begun_s: float | None = None
        self._ended_s = 0.0
        self._failure: Failure | None = None
        self._failed_arm: Arm | None = None
        self.blocks: list[Block] = []
        self.stop = Stop.INTERRUPTED

    def _make_side(self, arm: ArmRequest, index: int) -> Side:
        # A context of its own for every block is cold: each is warmed up by a whole repetition.
        spec = dataclasses.replace(arm.specs[index].with_threads(self._threads.count), warmup=True)
        return Side(spec, has_python=arm.python is not None, slowdown=arm.slowdown)

    def learn_files(self, describe: Callable[[pathlib.Path], FileFacts]) -> None:
        """Hash both files, before anything is timed."""
        self._facts = {arm: describe(pathlib.Path(side.asked.model)) for arm, side in self._sides.items()}

    def fight(self) -> None:
        """Measure until it is over, and say why in `stop`; KeyboardInterrupt goes on."""
        try:
            self._fight()
        except _Failed as error:
            self.stop, self._failure, self._failed_arm = Stop.FAILED, error.failure, error.arm

    def _fight(self) -> None:
        order, repetitions = self._draw_order(), self._request.repetitions or 1
        costs = [self._measure(arm, repetitions, is_trial=True) for arm in order]
        if self._request.repetitions is None:
            repetitions = max(map(choose_repetitions, *zip(*costs, strict=True)))
        self._begun_s = self._ended_s = self._clock()
        for number in itertools.count(1):
            for arm in self._draw_order():
                self._measure(arm, repetitions)
            self._ended_s = self._clock()
            self._test.add(log_ratio(find_pairs(self.blocks)[-1]))
            self._show(number)
            if self._test.is_over:
                self.stop = Stop.DECIDED if self._test.decision is not Decision.UNDECIDED else Stop.PAIRS
                return
            if self._ended_s - self._begun_s >= self._request.max_time_s:
                self.stop = Stop.TIME
                return

    def _draw_order(self) -> list[Arm]:
        return self._random.sample([Arm.A, Arm.B], 2)

    def _show(self, n_pairs: int) -> None:
        assert self._begun_s is not None
        ratio, limit_s = self._test.ratio, self._request.max_time_s
        task = f"{self._sides[Arm.A].asked.test}: pair {n_pairs}"
        if ratio is not None and (ends := ratio.ends) is not None:
            low, high = ends
            task += f", B {100 / high - 100:+.1f} … {100 / low - 100:+.1f} %"
        self._session.show(task, min(math.ceil(self._ended_s - self._begun_s), math.ceil(limit_s)), math.ceil(limit_s))

    def _measure(self, arm: Arm, repetitions: int, *, is_trial: bool = False) -> tuple[float, float]:
        """Measure a block; returns what it took beside its repetitions and what one repetition took, in s."""
        side = self._sides[arm]
        spec = dataclasses.replace(side.asked, repetitions=repetitions)
        worker, begun_s = self._workers.of(arm, spec), self._clock()
        samples: list[Sample] = []
        try:
            for event in block_events(worker, spec, self._request.cell_timeout_s, slowdown=side.slowdown or None):
                if isinstance(event, Failure):
                    raise _Failed(blame_file(event, spec.model), arm)
                if event["event"] == "sample":
                    samples.append(understand(Sample, event))
                else:
                    self._learn(arm, spec, event)
        except Garbled as error:
            raise _Failed(worker.give_up(error), arm) from None
        finally:
            if any(not sample.is_warmup for sample in samples):
                self.blocks.append(Block(arm, tuple(samples), is_trial))
        wall_s, repetition_s = self._clock() - begun_s, self.blocks[-1].median_ns / NS_PER_S
        return max(wall_s - repetitions * repetition_s, 0.0), repetition_s

    def _learn(self, arm: Arm, spec: RunSpec, event: dict[str, Any]) -> None:
        side = self._sides[arm]
        if event["event"] == "build":
            self._workers.learn_build(arm, spec, understand(Build, event["build"]))
        elif event["event"] == "loaded" and side.model is None:
            model = model_of(event, self._facts[arm])
            self._sides[arm] = dataclasses.replace(side, model=model, build=self._workers.build_of(arm, spec))
        elif event["event"] == "done":
            if side.resolved is None:
                resolved, load = understand(Resolved, event["resolved"]), understand(Load, event["load"])
                self._sides[arm] = dataclasses.replace(side, resolved=resolved, load=load)

    def record(self) -> Ab:
        """What was measured so far."""
        request, failure = self._request, self._failure
        if self.stop is Stop.INTERRUPTED:
            failure = Failure("pairs", None, Cause.INTERRUPTED)
        elapsed_s = 0.0 if self._begun_s is None else self._ended_s - self._begun_s
        return Ab(
            self._session.command, self._time_utc, self._session.machine, harness.__version__,
            self._sides[Arm.A], self._sides[Arm.B], self.stop, tuple(self.blocks), request.margin, request.alpha, self._n_tests,
            request.max_time_s, round(elapsed_s * NS_PER_S), request.seed, failure, self._failed_arm,
            threads_source=self._threads.source_of(request.a.specs[0].n_threads),
        )  # fmt: skip


def choose_repetitions(overhead_s: float, repetition_s: float) -> int:
    """How many repetitions make a block of which the most is learnt in a given time, by what it takes beside them.

    Where a block's repetitions scatter about as much among themselves as blocks do, the variance of a mean over the time spent is least
    at the root of the quotient of both costs. Source: Cochran, Sampling Techniques, 3rd edition, section 10.6 (subsampling).
    """
    return min(max(round(math.sqrt(overhead_s / repetition_s)), 1), MOST_REPETITIONS)
