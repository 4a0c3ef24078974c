"""Sessions that are killed between the steps of keeping a record: what was told is kept, and what goes on measures the rest.

The real thing, at random moments, is scripts/kill_sweeps.py.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from harness.records.journal import Journal, read_records
from scripts import kill_sweeps

ROOT = pathlib.Path(__file__).parent.parent

#: Keeps three records and tells each; a signal comes at a step of the second one. `how` is a signal's name, `step` where it comes.
CHILD = """
import json, os, pathlib, signal, sys
from harness.host import interrupt
from harness.records import journal
from harness.records.kinds import read_line
from harness.runs.session import Session
folder, how, step = sys.argv[1:]
record = read_line(json.loads(open("tests/recorded/pp-tg.jsonl").readline())).content
interrupt.leave_at_once(); interrupt.raise_in_command()
at, n = [0], getattr(signal, how)
def strike(here):
    if here == step and at[0] == 2:
        at[0] = 99
        os.kill(os.getpid(), n)
write, sync = journal._write_all, os.fsync
def write_all(file, data):
    strike("before writing")
    if step == "half written" and at[0] == 2:
        write(file, data[:100]); strike("half written"); data = data[100:]
    write(file, data); strike("written")
def fsync(number):
    sync(number); strike("on the disk")
journal._write_all, os.fsync = write_all, fsync
with Session("sweep", pathlib.Path(folder)) as one:
    with one.until_interrupted():
        for number in range(3):
            at[0] = number + 1 if at[0] < 99 else 99
            one.keep(record)
            strike("kept")
            print(number, flush=True)
    strike("told")
print(int(one.outcome))
"""

STEPS = ["before writing", "half written", "written", "on the disk", "kept"]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"])
def test_a_kill_at_a_step_of_keeping_a_record(how, step, tmp_path, recorded):
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), how, step], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)] and None,
    )  # fmt: skip
    told = [line for line in done.stdout.split() if line in "012"]
    (path,) = tmp_path.rglob("*.jsonl")
    skipped: list[str] = []
    kept = read_records([path], skipped.append)
    assert len(kept) >= len(told), "what was told is kept"
    if how == "SIGKILL":
        assert done.returncode == -9
        assert len(kept) == (1 if step in ("before writing", "half written") else 2)
        assert len(skipped) == (step == "half written")
    else:
        assert done.stdout.split()[-1] == "130", done.stderr
        assert (len(kept), skipped) == (2, []), "a record that is being written is written"
    with Journal(path.parent, "sweep", resume=path) as journal:
        journal.append(recorded[1])
    assert read_records([path], lambda _: None) == [*kept, recorded[1]]


def made(**changed):
    return kill_sweeps.Kill(
        **{"number": 0, "command": "sweep", "how": "parent SIGKILL", "after_s": 1.0, "n_kept": 3, **changed}
    )


def test_the_figures_count_what_was_wrong():
    figures = kill_sweeps.count(
        [made(), made(n_lost=1, wrong=["told and not kept"]), made(command="ab", n_orphans=2, wrong=["x"])]
    )
    assert {name: figure.value for name, figure in figures.items()} == {
        "kills.sweeps": 2, "kills.cells_lost": 1, "kills.wrong_resumes": 0, "kills.orphans": 2, "kills.wrong": 2,
    }  # fmt: skip


def test_what_was_told_is_read_from_the_lines_that_tell_it():
    text = "harness: a word\nngl 0: pp16 44.39 t/s, tg4 18.44 t/s\nngl 1: cannot fit\nngl 12: pp16 1,045 t/s, tg4 8.598 t/s\n"
    assert kill_sweeps.told_cells(text) == {(0, "pp16"), (0, "tg4"), (12, "pp16"), (12, "tg4")}


def test_half_a_line_at_the_end_is_no_damage():
    assert kill_sweeps.damaged_lines(json.dumps({}).encode() + b"\n{") == 0
    assert kill_sweeps.damaged_lines(b"{\n{}\n") == 1
