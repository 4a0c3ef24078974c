"""LocalScore's tests, one after the other in its order, in one worker; with a budget, as many as it allows."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

from harness.events import OnEvent
from harness.grid import Grid
from harness.host.telemetry import Station
from harness.records.cells import Record
from harness.records.score import QUICK, SETTINGS, TESTS, ScoreTest, score_cells
from harness.runs.asking import plan_cells
from harness.runs.bench import Bench
from harness.runs.cells import Course, check_cells, keep_cell, plan_in, run_cells
from harness.runs.session import Session
from harness.spec import RunSpec, Settings

#: As LocalScore has it (cmd.cpp).
USUAL_REPETITIONS: int = 1


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """cells are the tests in their order; budget_s is after which no test is begun that would not end in it."""

    cells: tuple[RunSpec, ...]
    budget_s: float | None = None
    cell_timeout_s: float | None = None


def plan_score(
    reference: str | None,
    settings: Settings,
    on_event: OnEvent,
    *,
    repetitions: int = USUAL_REPETITIONS,
    is_quick: bool = False,
    budget_s: float | None = None,
    cell_timeout_s: float | None = None,
) -> ScoreRequest:
    """The tests as cells of a model: the first with an untimed repetition before it, which is LocalScore's warm-up.

    Raises
    ------
    UsageError : the model cannot generate.
    HarnessError : there is no such model here.
    """
    given = {**SETTINGS, **settings}
    tests: Sequence[ScoreTest] = QUICK if is_quick else TESTS
    grid = Grid(
        [] if reference is None else [reference], {name: (value,) for name, value in given.items()}, (), (),
        [(test.n_prompt, test.n_gen) for test in tests], repetitions, warmup=False,
    )  # fmt: skip
    first, *rest = plan_cells(grid, {"n_pg", *settings}, on_event)
    return ScoreRequest((dataclasses.replace(first, warmup=True), *rest), budget_s, cell_timeout_s)


def measure_score(request: ScoreRequest, session: Session) -> list[Record]:
    """Run the tests and keep each as a cell; after Ctrl-C, or where the budget is used up, those until then.

    Raises
    ------
    NativeError : an RPC server does not answer as one.
    """
    check_cells(request.cells, session)
    course = Course(len(request.cells))
    records: list[Record] = []
    begun_s = time.monotonic()
    with session.until_interrupted(), contextlib.closing(Station()) as station:
        plan = plan_in(session, station, request.cell_timeout_s, interleave=False)
        with contextlib.closing(Bench(plan)) as bench:
            for place, spec in enumerate(request.cells):
                left_s = None if request.budget_s is None else request.budget_s - (time.monotonic() - begun_s)
                if place and left_s is not None and expect_s(spec, records) > left_s:
                    continue
                for record in run_cells(
                    [spec], plan, on_step=lambda step: session.on_event(course.at(step, n_before=place)), bench=bench  # noqa: B023
                ):  # fmt: skip
                    records.append(record)
                    keep_cell(record, session)
    return records


def expect_s(spec: RunSpec, records: Sequence[Record]) -> float:
    """What a test will take in s, by the rates of those before it; 0 before the first, which is always run."""
    score = score_cells(records)
    if score is None:
        return 0.0
    one_s = spec.n_prompt / score.prompt_rate_tok_per_s + spec.n_gen / score.gen_rate_tok_per_s
    return one_s * (spec.repetitions or USUAL_REPETITIONS)
