"""`harness run` and `harness reference` as a user meets them."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from harness.records.journal import read_lines
from harness.records.text import Skip, Skipped, hash_prompt
from harness.views.formats import render
from harness.views.text import describe_reference

from .test_cli import ROOT, harness, one_sentence

pytestmark = pytest.mark.engine

QUICK = ("--temp", "0", "--ctx", "256", "--max-tokens", "8")


def kept(results: pathlib.Path):
    return [line.content for line in read_lines(results.rglob("*.jsonl"), pytest.fail, ("run",))]


def test_it_writes_and_ends_with_ollamas_figures(results):
    code, out, err = harness("run", *QUICK, stdin=subprocess.DEVNULL)
    assert code in (0, 5), err
    assert out.startswith("Quantum")
    names = [
        line.split(":")[0] for line in err.splitlines() if ":" in line and not line.startswith(("harness", "kept"))
    ]
    assert names == [
        "total duration", "load duration", "prompt eval count", "prompt eval duration", "prompt eval rate",
        "eval count", "eval duration", "eval rate", "time to first token",
    ]  # fmt: skip
    assert "eval count:           8 token(s)" in err
    (run,) = kept(results)
    assert run.prompt_sha256 == hash_prompt("explain quantum entanglement")
    assert run.text is None
    assert run.model.file_sha256
    assert run.asked.n_ctx == 256


def test_a_piped_prompt_and_json(results):
    code, out, err = harness("run", *QUICK, "-o", "json", "--keep-text", input="Say hello.\n")
    answer = json.loads(out)
    assert code in (0, 5), err
    assert (answer["done"], answer["done_reason"]) == (True, "length")
    assert (
        answer["total_duration"] >= answer["load_duration"] + answer["prompt_eval_duration"] + answer["eval_duration"]
    )
    assert "total duration" not in err
    (run,) = kept(results)
    assert (run.prompt, run.text) == ("Say hello.", answer["response"])


def test_figures_as_a_line_of_json(results):
    code, _, err = harness("run", *QUICK, "--verbose-json", "--no-save", "--raw", "one", "two")
    assert code in (0, 5), err
    assert json.loads(err.splitlines()[-1])["eval_count"] == 8
    assert kept(results) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["  "], "prompt is empty"),
        (["-m", "synth:llama3.2:1b", "x"], "random weights"),
        (["-m", "nonexistent.gguf", "x"], "no file nonexistent.gguf"),
        (["--raw", "--system", "s", "x"], "--system needs the chat template"),
        (["-t", "1,2", "x"], "several values"),
        (["--temp", "hot", "x"], "'hot' is not a valid"),
        (["--ctx", "64", "word " * 100], "leaves no room in a context of 64"),
        (["--no-verbose", "--verbose-json", "x"], "exclude each other"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_and_exit_2(results, arguments, words):
    code, out, err = harness("run", *arguments)
    assert (code, out) == (2, "")
    assert words in one_sentence(err)


def test_a_synthetic_file_is_refused_by_what_it_holds(results, tmp_path):
    from gguf import GGUFWriter

    path = tmp_path / "innocent.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_bool("harness.synthetic", True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    code, _, err = harness("run", "-m", path, "x")
    assert code == 2
    assert "innocent.gguf has random weights" in one_sentence(err)


def test_a_prompt_that_is_no_text_is_one_sentence(results):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "harness", "run"], input=b"caf\xe9", capture_output=True, env=environment, timeout=60
    )
    assert done.returncode == 2
    assert b"not UTF-8 text (byte 3)" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c_ends_the_text_and_prints_the_figures(results):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "run", "--temp", "1", "--top-p", "1", "--top-k", "0", "Tell a long story."],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout.read(1), "the text has begun"
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "eval rate:" in err
    assert "Traceback" not in err
    (run,) = kept(results)
    assert run.finish == "interrupted"
    assert run.figures.eval_count >= 1


def test_the_reference_task_runs_what_is_here_and_names_the_rest(results):
    code, out, _ = harness("reference", *QUICK, "-m", "smollm2:135m", "-m", "llama3.2-vision:11b")
    assert code in (0, 5)  # 5 if somebody else is busy here
    assert "smollm2:135m:q4_1" in out
    assert "+ 8  length" in out
    assert "not run" in out
    assert "mllama" in out
    (run,) = kept(results)
    assert run.command == "reference"


def test_a_model_that_does_not_fit_is_left_out_with_the_reason(monkeypatch, model):
    from harness.runs.reference import choose_models
    from harness.sources.user_catalog import load_catalog

    entry = load_catalog().find("smollm2:135m")
    here, (skipped,) = choose_models([entry], 1_000_000)
    assert here == []
    assert (skipped.name, skipped.why, skipped.free_bytes) == ("smollm2:135m:q4_1", Skip.TOO_LARGE, 1_000_000)
    assert "only 0.95 MiB of memory are free" in render(describe_reference([], [skipped]), "table")


def test_what_is_not_here_is_said_once_with_its_number():
    skipped = [Skipped(f"model:{n}b", Skip.NOT_HERE) for n in range(49)]
    document = describe_reference([], skipped)
    assert "49 models of the catalog are not on this disk" in render(document, "table")
    assert len(render(document, "table").splitlines()) <= 3
    assert len(json.loads(render(document, "json"))["not_here"]) == 49
