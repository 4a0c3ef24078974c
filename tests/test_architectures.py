"""A small model of every architecture that llama.cpp can load goes through inspect, predict, overhead and pp-tg."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner

from harness.cli.inspect import command as inspect_command
from harness.cli.predict import command as predict_command
from harness.errors import UsageError
from harness.gguf.header import BytesSource, Header, read_header
from harness.gguf.model_kinds import Question, find_kind, may_be_asked, refuse, suit_cells
from harness.memory.causes import CACHE_CAUSES, HOST, Cause, Note
from harness.memory.forecast import Host, Line, predict_memory
from harness.memory.resident import NativeBuffer
from harness.records.cells import Failure
from harness.runs.dry_run import WORKER
from harness.runs.memory import Model, find_model, forecast, make_spec, measure
from harness.runs.session import Session
from harness.runs.worker import Worker
from harness.spec import RunSpec
from harness.units import MIB
from tests.architectures import Architecture, describe_header, load_architectures
from tests.architectures.exceptions import BEGIN, DOCUMENT, END, EXCEPTIONS, Step, describe_exceptions
from tests.rpc_server import rpc_server

NAMES = list(load_architectures())
ALL_NAMES = sorted({*(model.architecture for model in load_architectures().values()), *EXCEPTIONS})

#: llama.cpp's log rounds each buffer to 0.01 MiB, and a dry run's figures are from a log too.
LOG_STEP = 2 * 0.0051 * MIB

#: The usual run, and one in which all that can differ does: no flash attention, small batches, nothing mapped, nothing repacked.
OPTIONS: dict[Step, dict[str, Any]] = {
    Step.LEDGER: {"n_threads": 1},
    Step.SEVERAL: {
        "n_threads": 1, "flash_attn": "off", "n_batch": 256, "n_ubatch": 96, "load_mode": "none", "repack": False,
    },
}  # fmt: skip


def write_model(model: Architecture, folder: pathlib.Path) -> str:
    """Write a model's header, and zeros for its weights."""
    made = describe_header(model)
    path = folder / f"{model.name}.gguf"
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
    path = write_model(load_architectures()[name], tmp_path)
    shown = CliRunner().invoke(inspect_command, ["-m", path])
    assert shown.exit_code == 0, shown.output
    assert load_architectures()[name].architecture in shown.output
    assert all(len(line) <= 80 for line in shown.output.splitlines())
    inspected = json.loads(CliRunner().invoke(inspect_command, ["-m", path, "-o", "json"]).output)
    assert inspected["architecture"] == load_architectures()[name].architecture
    predicted = CliRunner().invoke(predict_command, ["-m", path, "--bandwidth", "50GB/s"])
    header = read_header(BytesSource(pathlib.Path(path).read_bytes()))
    for context in inspected["cache_bytes"]:
        priced = predict_memory(header, RunSpec(path, n_gen=context["n_ctx"], n_threads=1), Host(None))
        # llama.cpp pads each tensor to 32 bytes, where overhead counts them one by one.
        apart = (context["f16"] or 0) - sum(priced.of(cause) for cause in CACHE_CAUSES.values())
        assert abs(apart) <= 32 * 4 * inspected["n_layers"], "inspect and overhead say another cache"
    if may_be_asked(header, Question.SPEED):
        assert predicted.exit_code == 0, predicted.output
    else:
        assert isinstance(predicted.exception, UsageError), predicted.output


# --- with the engine --------------------------------------------------------------------------------------------------


@pytest.mark.engine
def test_every_architecture_is_here():
    from tests.architectures.derive import list_architectures

    assert sorted(list_architectures()) == ALL_NAMES


def hand_over(lab: _Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it for the worker of dry runs and of sessions."""
    for module in ("dry_run", "session"):
        monkeypatch.setattr(f"harness.runs.{module}.Worker", lambda _command, **_: lab)


class _Lab:
    """One worker for all models: what kills it is that model's failure, and the next one gets another."""

    def __init__(self) -> None:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="harness-architectures-"))
        self._worker: Worker | None = None
        self._greeting: dict[str, Any] | Failure = {}

    # What `harness.runs.memory` asks of a worker of its own.

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

    kill = close

    def end(self) -> None:
        if self._worker is not None:
            self._worker.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # What is tried with a model.

    @functools.cache  # noqa: B019 (one lab a module)
    def examine(self, name: str) -> Outcome:
        path = write_model(load_architectures()[name], self.folder)
        model = find_model(path, weights=True)
        ledgers: list[Ledger] = []
        failures: dict[Step, Failure | str | None] = dict.fromkeys(Step)
        for step, options in OPTIONS.items():
            made = self.measure(model, options)
            if isinstance(made, Ledger):
                ledgers.append(made)
            else:
                failures[step] = made
        spec = make_spec(model, 64, {"n_threads": 1})
        for step, n_prompt, n_gen in ((Step.PROMPT, 32, 0), (Step.TOKENS, 0, 2)):
            cell = dataclasses.replace(spec, n_prompt=n_prompt, n_gen=n_gen, n_depth=0, repetitions=1)
            failures[step] = failures[Step.LEDGER] or self._run(model.header, cell)
        pathlib.Path(path).unlink()
        return Outcome(tuple(ledgers), failures)

    def measure(self, model: Model, options: dict[str, Any]) -> Ledger | Failure | str:
        """Predict and measure as overhead would, but with a prompt that is quick."""
        kind = find_kind(model.header)
        if Question.MEMORY not in kind.answers:
            return kind.describe("it")
        if kind.reads_at_once:
            options = {key: value for key, value in options.items() if key not in ("n_batch", "n_ubatch")}
        spec = make_spec(model, 600 if kind.reads_at_once else 2048, options)
        (item,), host = forecast(model, [spec])
        if not kind.reads_at_once:
            n_prompt = min(spec.n_ubatch // 2 * 3, 200)
            spec = dataclasses.replace(spec, n_prompt=n_prompt, n_depth=spec.n_ctx - n_prompt - spec.n_gen)
        session = Session("overhead")
        measured, _ = measure(model, spec, session) or (None, None)
        if measured is None:
            assert session.failure is not None
            return session.failure
        gaps = predict_memory(model.header, spec, host).notes
        real = measured.buffers
        return Ledger(add_up(item.lines), add_up(real), add_up(real, count=True), item.notes, gaps)

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


def add_up(lines: Iterable[Line | NativeBuffer], *, count: bool = False) -> Counter[tuple[str, str]]:
    """Bytes by cause and device, or how many lines make them."""
    found: Counter[tuple[str, str]] = Counter()
    for line in lines:
        found[line.cause, line.device] += 1 if count else line.size_bytes
    return found


@dataclass(frozen=True, slots=True)
class Ledger:
    """Bytes by cause and device as predicted and as measured, of how many buffers; notes on the prediction, and what the header
    alone does not tell.
    """

    predicted: Counter[tuple[str, str]]
    measured: Counter[tuple[str, str]]
    n_buffers: Counter[tuple[str, str]]
    notes: tuple[Note, ...]
    gaps: tuple[Note, ...]

    @property
    def apart(self) -> dict[tuple[str, str], tuple[int, int]]:
        """What differs by more than the log's rounding: predicted and measured bytes."""
        return {
            key: (self.predicted[key], self.measured[key])
            for key in self.predicted.keys() | self.measured.keys()
            if abs(self.predicted[key] - self.measured[key]) > LOG_STEP * max(self.n_buffers[key], 1)
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one model: a ledger for each of `OPTIONS`, and why a step could not be done."""

    ledgers: tuple[Ledger, ...]
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
    hand_over(lab, monkeypatch)
    outcome = lab.examine(name)
    if outcome.failures[Step.LEDGER]:
        pytest.skip(EXCEPTIONS[name][1])
    for ledger in outcome.ledgers:
        assert ledger.apart == {}
        assert ledger.notes == ()
        assert ledger.gaps == ()


@pytest.mark.engine
@pytest.mark.parametrize("name", NAMES)
def test_it_reads_and_writes_but_for_named_exceptions(name, lab, monkeypatch):
    """The table of exceptions is true in both ways: what it names cannot be done, and what it does not name can."""
    hand_over(lab, monkeypatch)
    failures = lab.examine(name).failures
    first = next((step for step in Step if failures[step]), None)
    expected = EXCEPTIONS[name][0] if name in EXCEPTIONS else None
    assert first is expected, failures


@pytest.mark.engine
@pytest.mark.parametrize("name", [name for name, (step, _) in EXCEPTIONS.items() if step is Step.LOAD])
def test_what_cannot_be_loaded_is_refused_and_not_a_crash(name, lab, tmp_path):
    """Its tensors are another architecture's: llama.cpp does not come so far as to look."""
    path = write_model(dataclasses.replace(load_architectures()["llama"], name=name), tmp_path)
    spec = RunSpec(path, n_gen=1, n_threads=1)
    *_, last = lab.ask("measure", spec.to_dict())
    assert isinstance(last, Failure)
    assert last.cause == "refused"


@pytest.mark.engine
@pytest.mark.parametrize("name", ["gemma3n", "gemma4+experts", "deepseek4", "cohere2", "gpt-oss"])
def test_windowed_layers_that_keep_everything_are_predicted_too(name, lab, monkeypatch):
    hand_over(lab, monkeypatch)
    model = find_model(write_model(load_architectures()[name], lab.folder), weights=True)
    short, full = (lab.measure(model, {"n_threads": 1, "swa_full": is_full}) for is_full in (False, True))
    assert isinstance(short, Ledger), short
    assert isinstance(full, Ledger), full
    assert full.apart == {}
    assert full.measured[Cause.KV, HOST] > short.measured[Cause.KV, HOST]


#: One of each way in which layers, caches and states may lie: encoders, hybrids, windows, shared and looped layers, compressed rows, …
PLACED = [
    "llama",
    "t5",
    "t5encoder",
    "jamba",
    "nemotron_h",
    "falcon-h1",
    "rwkv6",
    "kimi-linear",
    "qwen35",
    "gemma3n",
    "gemma4+experts",
    "nanbeige",
    "graniteswitch",
    "deepseek4",
    "glm-dsa",
    "minimax-m3+ahead",
    "deci+skipping",
]


@pytest.mark.engine
def test_half_of_the_layers_on_a_device_are_predicted_too(monkeypatch):
    """A loopback server is the device; a worker keeps it, so this one is not the others'."""
    lab = _Lab()
    hand_over(lab, monkeypatch)
    found = {}
    with rpc_server() as served:
        for name in PLACED:
            model = find_model(write_model(load_architectures()[name], lab.folder), weights=True)
            n_layers = load_architectures()[name].settings["block_count"]
            options = {
                "n_threads": 1,
                "n_gpu_layers": max(n_layers // 2, 1),
                "rpc": (served.endpoint,),
                "devices": ("RPC0",),
            }
            ledger = lab.measure(model, options)
            assert isinstance(ledger, Ledger), (name, ledger)
            assert any(device == "RPC0" for _, device in ledger.measured), name
            found[name] = ledger.apart, ledger.notes
    lab.end()
    assert found == dict.fromkeys(PLACED, ({}, ()))
