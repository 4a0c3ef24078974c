"""A small model of every architecture that llama.cpp can load goes through inspect, predict, overhead and pp-tg."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner

from harness import overhead
from harness.child import Worker
from harness.cli.inspect import command as inspect_command
from harness.cli.predict import command as predict_command
from harness.errors import UsageError
from harness.overhead import find_model, forecast, make_spec
from harness.record import Failure
from harness.spec import RunSpec
from harness.theory.gguf import BytesSource, Header, read_header
from harness.theory.kinds import Question, may_be_asked, refuse, suit_cells
from harness.theory.memory import predict_memory
from harness.theory.resident import cause_of_log, device_of_buffer
from harness.units import MIB
from tests.architectures import describe_header, load_architectures
from tests.architectures.exceptions import BEGIN, DOCUMENT, END, EXCEPTIONS, Step, describe_exceptions

NAMES = list(load_architectures())
ALL_NAMES = sorted({*NAMES, *EXCEPTIONS})

#: llama.cpp's log rounds each buffer to 0.01 MiB, and a dry run's figures are from a log too.
LOG_STEP = 2 * 0.0051 * MIB

WORKER = (sys.executable, "-m", "tests.architectures.worker")


def write_model(name: str, folder: pathlib.Path) -> str:
    """Write a model's header, and zeros for its weights."""
    made = describe_header(load_architectures()[name])
    path = folder / f"{name}.gguf"
    with open(path, "wb") as file:
        file.write(made.build())
        file.truncate(file.tell() + made.offset)
    return str(path)


def test_the_table_in_the_document_is_the_one_that_is_tested():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text.partition(BEGIN)[2].partition(END)[0] == describe_exceptions(ALL_NAMES), (
        "write it anew: python -m tests.architectures.exceptions"
    )


@pytest.mark.parametrize("name", NAMES)
def test_inspect_and_predict_answer(name, tmp_path):
    """No traceback, and every line fits the page."""
    path = write_model(name, tmp_path)
    shown = CliRunner().invoke(inspect_command, ["-m", path])
    assert shown.exit_code == 0, shown.output
    assert name in shown.output
    assert all(len(line) <= 80 for line in shown.output.splitlines())
    inspected = CliRunner().invoke(inspect_command, ["-m", path, "-o", "json"])
    assert json.loads(inspected.output)["architecture"] == name
    predicted = CliRunner().invoke(predict_command, ["-m", path, "--bandwidth", "50GB/s"])
    if may_be_asked(read_header(BytesSource(pathlib.Path(path).read_bytes())), Question.SPEED):
        assert predicted.exit_code == 0, predicted.output
    else:
        assert isinstance(predicted.exception, UsageError), predicted.output


# --- with the engine --------------------------------------------------------------------------------------------------


@pytest.mark.engine
def test_every_architecture_is_here():
    from tests.architectures.derive import list_architectures

    assert sorted(list_architectures()) == ALL_NAMES


class _Lab:
    """One worker for all models: what kills it is that model's failure, and the next one gets another."""

    def __init__(self) -> None:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="harness-architectures-"))
        self._worker: Worker | None = None
        self._greeting: dict[str, Any] | Failure = {}

    # What `harness.overhead` asks of a worker of its own.

    def hello(self) -> dict[str, Any] | Failure:
        if self._worker is None or not self._worker.is_alive:
            self._worker = Worker(WORKER)
            self._greeting = self._worker.hello()
        return self._greeting

    def ask(
        self, job: str, request: dict[str, Any], timeout_s: float | None = 60.0
    ) -> Iterator[dict[str, Any] | Failure]:
        self.hello()
        assert self._worker is not None
        return self._worker.ask(job, request, timeout_s)

    def close(self) -> None:
        """Stay for the next one."""

    def end(self) -> None:
        if self._worker is not None:
            self._worker.close()

    # What is tried with a model.

    @functools.cache  # noqa: B019 (one lab a module)
    def examine(self, name: str) -> Outcome:
        path = write_model(name, self.folder)
        model = find_model(path, weights=True)
        spec = make_spec(model, 2048, {"n_threads": 1})
        (item,), host = forecast(model, [spec])
        gaps = tuple(gap.reason for gap in predict_memory(model.header, spec, host).gaps)
        predicted: Counter[tuple[str, str]] = Counter()
        for line in item.lines:
            predicted[line.cause, line.device] += line.size_bytes
        logged, n_logged, trouble = self._allocate(spec)
        failures: dict[Step, Failure | str | None] = {Step.CONTEXT: trouble}
        for step, n_prompt, n_gen in ((Step.PROMPT, 32, 0), (Step.TOKENS, 0, 2)):
            cell = dataclasses.replace(spec, n_prompt=n_prompt, n_gen=n_gen, n_depth=0, repetitions=1)
            failures[step] = trouble or self._run(model.header, cell)
        pathlib.Path(path).unlink()
        return Outcome(predicted, logged, n_logged, gaps, item.remarks, failures)

    def _allocate(self, spec: RunSpec) -> tuple[Counter, Counter, Failure | None]:
        sizes: Counter = Counter()
        counts: Counter = Counter()
        for event in self.ask("buffers", {"spec": spec.to_dict()}):
            if isinstance(event, Failure):
                return sizes, counts, event
            for item in event.get("buffers", ()):
                key = cause_of_log(item["cause"], item["buffer"]), device_of_buffer(item["buffer"], None)
                sizes[key] += item["size_bytes"]
                counts[key] += 1
        return sizes, counts, None

    def _run(self, header: Header, cell: RunSpec) -> Failure | str | None:
        """Measure a cell as pp-tg would, with what suits the kind of model; why nothing came of it, or None."""
        try:
            refuse(header, Question.MEASURE, "it")
            (suited,) = suit_cells(header, [cell], (), "it").cells
        except UsageError as error:
            return str(error)
        events = list(self.ask("measure", suited.to_dict()))
        last = events[-1]
        assert isinstance(last, Failure) or any(event["event"] == "sample" for event in events)
        return last if isinstance(last, Failure) else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one model: bytes by cause and device as predicted and as logged, what the header alone does not tell, remarks on
    where a dry run says otherwise, and why a step could not be done.
    """

    predicted: Counter
    logged: Counter
    n_logged: Counter
    gaps: tuple[str, ...]
    remarks: tuple[str, ...]
    failures: dict[Step, Failure | str | None]


@pytest.fixture(scope="module")
def lab() -> Iterator[_Lab]:
    made = _Lab()
    yield made
    made.end()


@pytest.mark.engine
@pytest.mark.parametrize("name", NAMES)
def test_predicted_is_what_llama_cpp_allocates(name, lab, monkeypatch):
    """Cause by cause, to the log's rounding."""
    monkeypatch.setattr(overhead, "Worker", lambda _command: lab)
    outcome = lab.examine(name)
    if outcome.failures[Step.CONTEXT]:
        pytest.skip(f"no context: {EXCEPTIONS[name][1]}")
    apart = {
        key: (outcome.predicted[key], outcome.logged[key])
        for key in outcome.predicted.keys() | outcome.logged.keys()
        if abs(outcome.predicted[key] - outcome.logged[key]) > LOG_STEP * outcome.n_logged[key]
    }
    assert not apart
    assert outcome.remarks == ()
    assert outcome.gaps == (), "the header alone tells it, without a dry run"


@pytest.mark.engine
@pytest.mark.parametrize("name", NAMES)
def test_it_reads_and_writes_but_for_named_exceptions(name, lab, monkeypatch):
    """The table of exceptions is true in both ways: what it names cannot be done, and what it does not name can."""
    monkeypatch.setattr(overhead, "Worker", lambda _command: lab)
    failures = lab.examine(name).failures
    first = next((step for step in (Step.CONTEXT, Step.PROMPT, Step.TOKENS) if failures[step]), None)
    expected = EXCEPTIONS[name][0] if name in EXCEPTIONS else None
    assert first is expected, failures
