"""`scripts/fuzz-header`: small runs of it, what it takes for wrong, and that it goes on where it was ended."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import fuzz_batches
import fuzz_headers
import fuzz_workers
import pytest

from harness.errors import UsageError
from harness.records.failures import Cause, Failure

SCRIPT = pathlib.Path(__file__).parent.parent / "scripts" / "fuzz-header"


def fuzz(*words):
    return subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, check=False)


def test_a_small_run_keeps_its_batches_and_its_figures(tmp_path):
    words = ("30", "--seed", "5", "--kept", str(tmp_path / "kept"), "--out", str(tmp_path / "out"))
    done = fuzz(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    kept = json.loads((tmp_path / "out" / "headers.json").read_text())
    assert kept["figures"]["headers.mutations"]["value"] == 30
    assert kept["figures"]["headers.wrong"] == {"value": 0, "low": None, "high": None, "n": 30}
    assert 0 < kept["figures"]["headers.slowest_s"]["value"] < 20
    assert kept["details"]["seed"] == 5
    again = fuzz(*words)
    assert "30 were done before" in again.stdout


class Answers:
    """What stands in the place of `answer`: each spoilt header is answered in a way of its own."""

    def __init__(self, *ways):
        self.ways = list(ways)

    def __call__(self, one, _path, asker):
        if not one.how:
            return True  # those that are asked before anything counts
        way = self.ways.pop(0)
        if isinstance(way, float):
            asker.spent_s["fit"] = way
        elif isinstance(way, BaseException):
            raise way
        return True


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (KeyError("x"), "KeyError"),
        (AssertionError("a line of 90"), "a line of 90"),
        (MemoryError(), "MemoryError"),
        (RecursionError(), "RecursionError"),
        (fuzz_headers.GivenUp(), "given up after 20 s"),
        (1.5, "fit took 1.50 s of CPU time"),
        (0.5, None),
    ],
)
def test_what_is_wrong_is_counted_and_its_file_kept(way, said, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz_headers, "answer", Answers(way, 0.1))
    monkeypatch.setattr(fuzz_headers, "Peak", NoPeak)
    batch = fuzz_headers.run_batch([], 1, 0, 2, tmp_path)
    assert batch.n == 2
    assert [said in item["what"] for item in batch.wrong] == [True] * (said is not None)
    assert len(list(tmp_path.glob("wrong-1-0.gguf"))) == len(batch.wrong)


class NoPeak:
    grown = 0

    def grown_bytes(self):
        return self.grown


def test_too_much_memory_is_wrong_once(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz_headers, "answer", Answers(0.1, 0.1, 0.1))
    monkeypatch.setattr(fuzz_headers, "Peak", type("Grown", (NoPeak,), {"grown": 150 * 2**20}))
    batch = fuzz_headers.run_batch([], 1, 0, 3, tmp_path)
    assert [item["what"] for item in batch.wrong] == ["it took 150 MiB of memory"]
    assert batch.peak_mib == 150


def test_a_number_is_the_same_header_for_ever():
    seeds = fuzz_headers.Seeds([])
    assert fuzz_headers.spoil(seeds, 1, 7) == fuzz_headers.spoil(fuzz_headers.Seeds([]), 1, 7)
    assert fuzz_headers.spoil(seeds, 1, 7) != fuzz_headers.spoil(seeds, 2, 7)


# --- through the worker -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (Failure("load", "llama.cpp cannot load it.", Cause.REFUSED), None),
        (Failure("load", None, Cause.ABORT, signal=6, log=("GGML_ASSERT(x) failed",)), None),
        (Failure("load", None, Cause.SEGFAULT, signal=11), None),
        (Failure("load", None, Cause.TIMEOUT, limit_s=60.0), "a hang"),
        (Failure("load", "no", Cause.REFUSED), "no sentence"),
    ],
)
def test_a_failure_is_right_or_wrong(failure, said):
    found = fuzz_workers.judge_failure(failure)
    assert found is None if said is None else said in found


@pytest.mark.parametrize(
    ("code", "err", "said"),
    [
        (0, "", None),
        (2, "Error: it is damaged.", None),
        (3, "", None),
        (5, "", None),
        (2, "", "without a word"),
        (1, "Error: x", "exit code 1"),
        (-11, "", "exit code -11"),
        (3, "Traceback (most recent call last):", "a traceback"),
    ],
)
def test_a_command_ends_rightly_or_wrongly(code, err, said):
    found = fuzz_workers.judge_command(code, "", err)
    assert found is None if said is None else said in found


def test_files_that_would_cost_each_other_are_wrong(tmp_path, monkeypatch):
    def fail(*_words):
        raise UsageError("one of them is no model; name another.")

    monkeypatch.setattr(fuzz_workers, "measure_cells", fail)
    files = fuzz_workers.Files(1, tmp_path)
    made = fuzz_workers._Batch(fuzz_workers.Batch(0), files, tmp_path, 1)
    made.measure([0, 1, 2, 3])
    assert ["together" in item["what"] for item in made.found.wrong] == [True]


@pytest.mark.engine
def test_a_few_spoilt_files_through_the_real_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz_workers, "_bound_memory", lambda: None)
    monkeypatch.setattr(fuzz_workers, "EVERY", 10)
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))  # the batch sets them anew, and this puts them back
    batch = fuzz_workers.run_batch([], 1, 1, 7, tmp_path)
    assert (batch.n, batch.wrong) == (7, [])
    assert sum(batch.by.values()) == 7


def test_a_batch_that_dies_is_wrong_and_is_done_again(tmp_path, monkeypatch):
    died = subprocess.CompletedProcess([], -11, stdout="", stderr=None)
    monkeypatch.setattr(subprocess, "run", lambda *_words, **_more: died)
    options = fuzz_batches.parse("", ["10", "--seed", "1", "--jobs", "1", "--kept", str(tmp_path)])
    (batch,) = fuzz_batches.run_batches(options, tmp_path)
    assert "the batch itself ended" in batch["wrong"][0]["what"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_header_is_refused_in_a_sentence(capsys):
    found = fuzz_batches.find_unreadable([__file__])
    assert found is not None
    assert "is not a GGUF file" in found
