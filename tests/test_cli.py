"""The command line as a user meets it: real processes, real model, one sentence for each trouble."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import click
import pytest
from click.testing import CliRunner

from harness.cli import COMMANDS, GROUPS, cli
from harness.records.journal import read_records

ROOT = pathlib.Path(__file__).parent.parent


def harness(*arguments, cwd=None, **extra):
    """Run harness as a child and return (exit code, stdout, stderr)."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-m", "harness", *map(str, arguments)],
        capture_output=True, text=True, encoding="utf-8", cwd=cwd, env=environment, timeout=120, **extra,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_json_has_every_field_of_llama_bench(results):
    code, out, _ = harness("pp-tg", "-p", "64", "-n", "16", "-r", "6", "-o", "json")
    assert code in (0, 5)  # 5 if somebody else is busy here
    rows = json.loads(out)
    theirs = json.loads((ROOT / "tests" / "golden" / "llama-bench.json").read_text(encoding="utf-8"))[0]
    for row in rows:
        assert list(row)[: len(theirs)] == list(theirs)
        assert len(row["samples_ns"]) == 6
    assert [(row["n_prompt"], row["n_gen"]) for row in rows] == [(64, 0), (0, 16)]
    tg = rows[1]
    assert [len(tokens) for tokens in tg["samples_token_ns"]] == [16] * 6
    assert 0 < tg["token_p50_ns"] <= tg["token_p95_ns"] <= tg["token_p99_ns"]
    assert tg["time_to_first_token_ns"] > 0
    assert tg["dispatch_ns_per_token"] > 0
    (journal,) = results.rglob("*.jsonl")
    assert {record.asked.test for record in read_records([journal], pytest.fail)} == {"pp64", "tg16"}


def test_the_sentence_of_the_readme(tmp_path, model):
    (tmp_path / "llama-3.2-1b-q4_0.gguf").symlink_to(model)
    code, out, err = harness(
        "pp-tg", "--gguf", "llama-3.2-1b-q4_0.gguf", "--gpu-layers", "0", "-p", "8", "-n", "2", "-r", "1", cwd=tmp_path
    )
    assert code in (0, 5)
    assert "pp8" in out
    assert "tg2" in out
    assert "need >= 6 samples for a 95 % interval" in out
    assert "kept in bench_results" in err


def test_no_save_writes_nothing_and_another_format_goes_to_stderr(results):
    code, out, err = harness("pp-tg", "-p", "8", "-n", "0", "-r", "1", "--no-save", "-o", "jsonl", "-oe", "md")
    assert code in (0, 5)
    assert json.loads(out)["n_prompt"] == 8
    assert "| pp8 " in err
    assert not results.exists()


def test_one_option_or_a_list_or_several_mean_the_same(results):
    _, listed, _ = harness("pp-tg", "-p", "8,16", "-n", "0", "-r", "1", "--no-save", "-o", "jsonl", "-t", "1")
    _, several, _ = harness("pp-tg", "-p", "8", "-p", "16", "-n", "0", "-r", "1", "--no-save", "-o", "jsonl", "-t", "1")
    tests = [[json.loads(line)["n_prompt"] for line in out.splitlines()] for out in (listed, several)]
    assert tests == [[8, 16], [8, 16]]


def one_sentence(err):
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("harness: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-ngl", "-5"], "-5 is out of range; it must be from -1 to 1000000"),
        (["-p", "0", "-n", "0"], "Nothing to measure"),
        (["-ctk", "nonsense"], "'nonsense' is not one of f32, f16"),
        (["-t", "0"], "0 is out of range; it must be from 1 to 512"),
        (["-fa", "off", "-ctv", "q8_0"], "needs flash attention"),
        (["-r", "0"], "0 is out of range; it must be from 1 to"),
        (["-ts", "0/0"], "does not add up"),
        (["-p", "8-4"], "runs backwards"),
        (["-pg", "5"], "is not a pair of token counts"),
        (["-p", "20000000"], "it must be from 0 to 10000000"),
        (["-p", "6000000", "-d", "6000000"], "beyond reason; -p, -n and -d together may be 10000000"),
        (["-p", "6000000", "-np", "2"], "together, times -np, may be"),
        (["--nonsense"], "No such option"),
        (["-o", "xml"], "is not one of"),
    ],
)
def test_a_wrong_option_is_one_sentence_and_exit_2(arguments, words, results):
    code, out, err = harness("pp-tg", *arguments)
    assert (code, out) == (2, "")
    assert words in one_sentence(err)
    assert not results.exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.gguf", None, "There is no file"),
        ("folder", "folder", "is a folder"),
        ("empty.gguf", b"", "is empty"),
        ("text.gguf", b"hello, this is a text file", "not a GGUF file"),
        ("page.gguf", b"<!DOCTYPE html><html>", "a web page"),
        ("pointer.gguf", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_what_is_no_model_is_one_sentence_and_exit_2(tmp_path, results, name, content, words):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    code, out, err = harness("pp-tg", "-m", path)
    assert (code, out) == (2, "")
    assert words in one_sentence(err)


def test_a_truncated_model_is_a_failure_and_the_other_one_is_measured(tmp_path, results, model):
    cut = tmp_path / "cut.gguf"
    with open(model, "rb") as file:
        cut.write_bytes(file.read(5_000_000))
    code, out, err = harness("pp-tg", "-m", cut, "-m", model, "-p", "8", "-n", "0", "-r", "1")
    assert code == 2, "a damaged file is the question's fault, as in every command"
    assert "cut.gguf is cut off" in err
    assert "failed [1]" in out
    (journal,) = results.rglob("*.jsonl")
    assert [record.failure is None for record in read_records([journal], pytest.fail)] == [False, True]


def test_a_context_that_cannot_be_allocated_is_a_failure(results):
    code, _, err = harness("pp-tg", "-p", "8", "-n", "0", "-d", "0,9000000", "-r", "1")
    assert code == 3
    assert "cannot make a context of 9000008 tokens" in err


def test_a_device_that_is_not_there_is_the_questions_fault(results):
    code, _, err = harness("pp-tg", "-p", "8", "-n", "0", "-r", "1", "-dev", "xyz")
    assert code == 2
    assert "There is no device xyz to use" in err


def test_a_model_larger_than_memory_is_warned_of_before_it_is_loaded(tmp_path, results):
    huge = tmp_path / "huge.gguf"
    huge.write_bytes(b"GGUF")
    os.truncate(huge, 1 << 43)
    code, _, err = harness("pp-tg", "-m", huge, "-p", "8", "-n", "0", "-r", "1")
    assert code == 2
    assert "warning: huge.gguf has 8.8 TB and only" in err.splitlines()[0]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user who may not write everywhere (not root)")
def test_an_unwritable_folder_is_exit_4(tmp_path):
    tmp_path.chmod(0o500)
    code, out, err = harness("pp-tg", "--results", tmp_path / "results")
    assert (code, out) == (4, "")
    assert "--no-save" in one_sentence(err)


def test_results_that_cannot_be_a_folder_are_exit_4(tmp_path):
    (tmp_path / "results").write_text("a file")
    code, out, err = harness("pp-tg", "--results", tmp_path / "results" / "below")
    assert (code, out) == (4, "")
    assert "Cannot write records into" in one_sentence(err)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_disk_that_fills_up_loses_nothing_that_was_measured(results):
    code, out, err = harness_with_full_journal()
    assert code == 4
    assert "pp8" in out
    assert "tg2" in out
    assert "No space left on device" in err


def harness_with_full_journal():
    """harness whose journal is a device that is always full: the real writes fail for real."""
    code = (
        "import harness.records.journal as s; original = s.Journal.__init__\n"
        "def init(self, *a):\n    original(self, *a); self._file.close(); self._file = open('/dev/full', 'ab')\n"
        "s.Journal.__init__ = init\nfrom harness.cli import main; main()"
    )
    arguments = [sys.executable, "-c", code, "pp-tg", "-p", "8", "-n", "2", "-r", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=120)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def running(results):
    """harness with a short cell and a long one (half a minute), caught in the second."""
    if os.name == "nt":
        pytest.skip("needs POSIX signals")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "pp-tg", "-p", "8,256", "-n", "0", "-r", "40", "--no-interleave"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
        # A shell that runs the tests in the background has Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not any(path.stat().st_size for path in results.rglob("*.jsonl")):
        time.sleep(0.05)
    yield process
    if process.poll() is None:
        process.kill()
    process.wait()


def children_of(pid):
    import psutil

    return psutil.Process(pid).children()


def test_ctrl_c_shows_what_is_measured_and_exits_130(running, results):
    time.sleep(1)
    (worker,) = children_of(running.pid)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does it: to everybody in the foreground
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "pp8" in out
    assert "Traceback" not in err
    assert not worker.is_running(), "the worker does not outlive the command"
    (journal,) = results.rglob("*.jsonl")
    records = read_records([journal], pytest.fail)
    assert records[0].failure is None
    assert len([sample for sample in records[0].samples if not sample.is_warmup]) == 40
    assert [record.failure.cause for record in records[1:]] in ([], ["interrupted"]), "kept if a repetition was done"


def test_kill_of_the_worker_leaves_finished_cells_and_a_failure_record(running, results):
    (worker,) = children_of(running.pid)
    worker.kill()
    deadline = time.monotonic() + 60
    (journal,) = results.rglob("*.jsonl")
    while time.monotonic() < deadline and len(read_records([journal], pytest.fail)) < 2:
        time.sleep(0.05)
    records = read_records([journal], pytest.fail)
    assert records[0].failure is None
    assert records[1].failure.cause == "killed"
    assert records[1].failure.signal == 9


def test_a_killed_parent_takes_its_worker_along(running):
    (worker,) = children_of(running.pid)
    running.kill()
    running.wait()
    worker.wait(timeout=30)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(name):
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"harness {name}" in result.output.split("Examples:")[1]
    assert max(map(len, result.output.splitlines())) <= 80


@pytest.mark.parametrize("words", [["--help"], ["-h"], []], ids=["help", "h", "bare"])
def test_help_groups_every_command_and_says_what_to_type_first(words):
    result = CliRunner().invoke(cli, words, env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    titles = [lines.index(f"{title}:") for title in GROUPS]
    assert titles == sorted(titles)
    for start, commands in zip(titles, GROUPS.values(), strict=True):
        assert [line.split()[0] for line in lines[start + 1 : start + 1 + len(commands)]] == list(commands)
    first = result.stdout.split("Three things to type first:")[1].split("Help on")[0]
    assert max(map(len, first.splitlines())) <= 60
    typed = re.findall(r"^ *harness (.+?)(?:  |$)", first, re.MULTILINE)
    assert len(typed) == 3
    for words in map(shlex.split, typed):
        assert cli.get_command(click.Context(cli, **cli.context_settings), words[0]).make_context(words[0], words[1:])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pptg"], "There is no command 'pptg'; did you mean pp-tg?"),
        (["tabel"], "did you mean table?"),
        (["xyzzy"], "There is no command 'xyzzy'. Try"),
        (["table", "--tset", "pp"], "'--test'"),
        (["pp-tg", "--treads", "1"], "'--threads'"),
    ],
)
def test_what_is_mistyped_gets_one_sentence_with_a_suggestion(words, told):
    code, out, err = harness(*words)
    assert code == 2
    assert out == ""
    assert told in one_sentence(err)


def test_a_closed_pipe_is_no_error(results):
    command = f"{shlex.quote(sys.executable)} -m harness pp-tg --help | head -1"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.stderr == ""
