"""Every command that measures ends alike: one place chooses the exit code, and a busy machine is 5 everywhere."""

import dataclasses
import pathlib
import re

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.codec import encode
from harness.errors import HarnessError, Outcome
from harness.records.cautions import Caution, CautionCause
from harness.records.text import Figures, TextRun, TextSettings

from .gguf_bytes import llama_like

PACKAGE = pathlib.Path(__file__).parent.parent / "harness"

BUSY = Caution(CautionCause.CPU_THROTTLED, "a CPU quota held this back 90 times", distrust=True)


def test_no_command_chooses_by_itself():
    for path in (PACKAGE / "cli").glob("*.py"):
        if path.name not in ("__init__.py", "terminal.py", "rpc_server.py", "manual.py"):
            assert not re.search(r"Exit\(\d|Outcome\.(NATIVE|STORE|NOT_TRUSTED)", path.read_text(encoding="utf-8")), (
                path
            )


@pytest.fixture
def text_run(recorded):
    return TextRun(
        "run", "2026-11-24T10:59:57Z", recorded[0].machine, "0", TextSettings(n_ctx=512), "hash", Figures(10**9), "stop",
        model=recorded[0].model,
    )  # fmt: skip


def end(*arguments):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result


@pytest.mark.parametrize("cautions", [(), (BUSY,), (dataclasses.replace(BUSY, distrust=False),)])
@pytest.mark.parametrize("output", [[], ["-o", "json"], ["--verbose-json"], ["--no-verbose"]])
def test_a_text_on_a_busy_machine_is_not_to_be_trusted(results, monkeypatch, model, text_run, cautions, output):
    run = dataclasses.replace(text_run, warnings=cautions)
    monkeypatch.setattr("harness.runs.text.write_text", lambda *_, **__: run)
    result = end("run", "-m", model, *output, "x")
    distrusted = any(caution.distrust for caution in cautions)
    assert result.exit_code == (5 if distrusted else 0)
    if distrusted:
        assert BUSY.text in result.stderr, "and why is said, whatever the output"


def test_a_reference_on_a_busy_machine(results, monkeypatch, text_run):
    run = dataclasses.replace(text_run, warnings=(BUSY,))
    monkeypatch.setattr("harness.runs.reference.write_text", lambda *_, **__: run)
    assert end("reference", "-m", "smollm2:135m").exit_code == 5


def test_cells_on_a_busy_machine(results, monkeypatch, model, recorded):
    busy = dataclasses.replace(recorded[0], warnings=(BUSY,))
    monkeypatch.setattr("harness.runs.cells.run_in_turns", lambda *_, **__: iter([(0, busy)]))
    result = end("pp-tg", "-m", model, "-p", "64", "-n", "0")
    assert result.exit_code == 5
    assert BUSY.text in " ".join(result.output.split())


def test_a_cell_that_failed_without_a_sample_is_worse_than_a_busy_machine(results, monkeypatch, model, recorded):
    failed = next(record for record in recorded if record.failure is not None)
    assert not failed.timed
    busy = dataclasses.replace(recorded[0], warnings=(BUSY,))
    monkeypatch.setattr("harness.runs.cells.run_in_turns", lambda *_, **__: iter([(0, busy), (1, failed)]))
    assert end("pp-tg", "-m", model, "-p", "64", "-n", "0").exit_code == 3


def test_a_roofline_on_a_busy_machine(results, monkeypatch, recorded):
    from .test_bandwidth import made
    from .test_disturbed import OTHERS, S, seen

    def ask(session, *_):
        session.build = recorded[0].build
        yield {"event": "test", "test": encode(wrong or busy)}
        yield {"event": "done"}

    monkeypatch.setattr("harness.runs.session.Session.ask", ask)
    wrong, busy = None, made(durations_ns=(S,) * 10, n_bytes=10**10, n_threads=2, conditions=(seen(**OTHERS),) * 10)
    assert end("roofline").exit_code == 5
    wrong = made(max_error=1.0)
    assert end("roofline").exit_code == 3, "a wrong result is graver"


def test_a_comparison_keeps_the_gravest_of_each_caution(text_run):
    from harness.records.ollama import DirectText, Round
    from harness.runs.ollama import _judge

    mild = dataclasses.replace(BUSY, distrust=False)
    turns = [Round(DirectText(text_run.figures, warnings=(caution,))) for caution in (mild, BUSY, mild)]
    assert _judge(turns) == (BUSY,)


@pytest.mark.parametrize("size", [200, -1])
@pytest.mark.parametrize("words", [["run"], ["token-time"], ["overhead"], ["inspect"]], ids=" ".join)
def test_a_file_that_was_cut_off_ends_alike(results, tmp_path, words, size):
    (tmp_path / "cut.gguf").write_bytes(llama_like(layers=2, vocab=300).build(data=True)[:size])
    result = CliRunner().invoke(cli, [*words, "-m", str(tmp_path / "cut.gguf")])
    assert isinstance(result.exception, HarnessError)
    assert result.exception.outcome is Outcome.QUESTION
    assert "download it again" in str(result.exception)
