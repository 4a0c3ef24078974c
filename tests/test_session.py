"""A session owns the worker, the journal, Ctrl-C and what became of a command; the gravest of that is its exit code."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from harness.errors import NativeError, Outcome
from harness.events import Remark
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Failure
from harness.records.journal import read_records
from harness.runs.session import Session

from .bad_storage import fill

#: A worker that greets, says something, and then does as it is told.
WORKER = """
import json, os, sys
build = {"llama_cpp_python": "0", "ggml_version": "0", "ggml_commit": "0", "system_info": "", "backends": [], "devices": []}
print(json.dumps({"event": "hello", "build": build}), flush=True)
for line in sys.stdin:
    command = json.loads(line)
    if not command:
        break
    print(json.dumps({"event": "half"}), flush=True)
    if command["job"] == "die":
        os._exit(3)
    print(json.dumps({"event": "done"}), flush=True)
"""


def session(**options):
    return Session("test", worker_command=(sys.executable, "-c", WORKER), **options)


def test_the_gravest_decides():
    outcomes = [Outcome.OK, Outcome.NOT_TRUSTED, Outcome.NATIVE, Outcome.STORE, Outcome.INTERRUPTED]
    seen = Session("test")
    for outcome in (*outcomes, *reversed(outcomes)):
        seen.add(outcome)
        assert seen.outcome is (
            outcome if outcome is not Outcome.INTERRUPTED and not seen.is_interrupted else Outcome.INTERRUPTED
        )
    assert [int(outcome) for outcome in outcomes] == [0, 5, 3, 4, 130]


def test_a_job_is_done_by_a_worker_that_ends_with_it():
    with session() as one:
        assert [event["event"] for event in one.ask("job", "live")] == ["half", "done"]
        assert one.build is not None
        assert one.outcome is Outcome.OK


def test_a_worker_that_dies_leaves_what_it_said_and_a_failure():
    with session() as one:
        assert [event["event"] for event in one.ask("job", "die")] == ["half"]
        assert (one.failure.exit_code, one.outcome) == (3, Outcome.NATIVE)


def test_a_worker_that_never_greets_is_an_error():
    with (
        Session("test", worker_command=(sys.executable, "-c", "")) as one,
        pytest.raises(NativeError, match="exit code 0"),
    ):
        list(one.ask("job", "live"))


def test_ctrl_c_ends_the_worker_and_what_was_measured_goes_on():
    heard = []
    with session() as one:
        with one.until_interrupted():
            for event in one.ask("job", "live"):
                heard.append(event["event"])
                raise KeyboardInterrupt
        assert (heard, one.is_interrupted, one.outcome) == (["half"], True, Outcome.INTERRUPTED)


def test_what_is_kept_says_what_became_of_it(tmp_path, recorded):
    with session(results=tmp_path) as one:
        one.keep(recorded[0])
        assert one.outcome is Outcome.OK
        one.keep(
            dataclasses.replace(
                recorded[0], warnings=(Caution(CautionCause.BUSY_MACHINE, "a busy machine", distrust=True),)
            )
        )
        assert one.outcome is Outcome.NOT_TRUSTED
        one.keep(dataclasses.replace(recorded[0], failure=Failure("load", "no", "refused")))
        assert one.outcome is Outcome.NATIVE
    assert len(read_records(one.journals, pytest.fail)) == 3


def test_ctrl_c_while_the_disk_is_waited_for_leaves_the_record_and_its_place(tmp_path, recorded, monkeypatch):
    def interrupt(_descriptor):
        raise KeyboardInterrupt

    with session(results=tmp_path) as one:
        with one.until_interrupted():
            monkeypatch.setattr("os.fsync", interrupt)
            one.keep(recorded[0])
        assert one.is_interrupted
        assert one.journals
    assert len(read_records(one.journals, pytest.fail)) == 1


def test_a_full_disk_costs_no_record_and_is_told_once(tmp_path, recorded, monkeypatch):
    told = []
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    with session(results=tmp_path / "results", on_event=told.append) as one:
        one.keep(recorded[0])
        fill(monkeypatch, tmp_path / "results")
        one.keep(recorded[1])
        one.keep(recorded[0])
    assert one.outcome is Outcome.STORE
    assert [type(event) for event in told] == [Remark]
    assert "No space left on device); from here on records are kept in" in told[0].text
    first, second = one.journals
    assert first.is_relative_to(tmp_path / "results")
    assert second.is_relative_to(tmp_path / "cache")
    assert read_records([first], pytest.fail) == [recorded[0]]
    assert read_records([second], pytest.fail) == [recorded[1], recorded[0]]


def test_without_a_folder_nothing_is_kept(recorded):
    with session() as one:
        one.keep(recorded[0])
        assert (one.journals, one.outcome) == ([], Outcome.OK)


def test_whoever_took_the_processors_is_named_on_the_terminal_and_nowhere_else(tmp_path, recorded, machine_it_runs_on):
    told = []
    crowded = Caution(CautionCause.OTHER_PROGRAMS, cpus_lost=0.6, n_cpus=2, n_disturbed=9, n_timed=10)
    machine_it_runs_on.programs = {(7, "fire\u202efox"): 5.0, (8, "cron"): 9.0}
    with Session("test", tmp_path, on_event=told.append) as one:
        one.keep(dataclasses.replace(recorded[0], warnings=(dataclasses.replace(crowded, distrust=True),)))
        one._begun_s -= 10
        machine_it_runs_on.programs = {(7, "fire\u202efox"): 12.0, (8, "cron"): 9.1}
    (remark,) = told
    assert isinstance(remark, Remark)
    assert remark.text.startswith("fire\ufffdfox used 0.7 CPUs meanwhile"), "harmless, and the one that took most"
    assert "fox" not in one.journals[0].read_text(encoding="utf-8")


def test_nobody_is_named_on_a_quiet_machine(tmp_path, recorded, machine_it_runs_on):
    told = []
    with Session("test", tmp_path, on_event=told.append) as one:
        one.keep(recorded[0])
        machine_it_runs_on.programs = {(7, "firefox"): 900.0}
    assert told == []
