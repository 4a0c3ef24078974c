"""Every way for a worker to end or misbehave, at every stage: one failure of the right cause, and all the rest is measured."""

from __future__ import annotations

import os
import pathlib
import queue
import sys
import time
import types

import psutil
import pytest

from harness.grid import Grid
from harness.host.machine import describe_machine
from harness.native import jobs
from harness.records.failures import Cause, describe_end, describe_reason
from harness.runs import child as children
from harness.runs import worker as workers
from harness.runs.cells import Plan, run_in_turns
from harness.runs.session import Session
from harness.runs.worker import Worker

from .wrong_worker import DEADLY_PROMPT, FAULTS, STAGES

pytestmark = pytest.mark.skipif(os.name == "nt", reason="these deaths are POSIX ones")

#: What each fault is: its cause, or None where it does no harm.
CAUSES = {
    **dict.fromkeys(FAULTS, Cause.GARBLED),
    **dict.fromkeys(("exit 0", "exit 1", "exception", "half a message", "leaves a child"), Cause.EXIT),
    **dict.fromkeys(
        ("abort", "uncaught C++ exception", "bad_alloc", "half a message, then abort", "leaves a child, aborts", "flood, then abort"),
        Cause.ABORT,
    ),
    **dict.fromkeys(("hang", "stopped", "spin", "answers late", "half a message, then nothing"), Cause.TIMEOUT),
    **dict.fromkeys(("flood", "flood of events", "slow")),
    **dict.fromkeys(("killed", "ended"), Cause.KILLED),
    "segfault": Cause.SEGFAULT, "bus error": Cause.BUS_ERROR, "illegal instruction": Cause.ILLEGAL,
}  # fmt: skip

#: Faults that are tried at every stage; all are tried at the start and while it measures.
EVERYWHERE = (
    "abort",
    "exit 0",
    "hang",
    "stdout closed",
    "both closed",
    "no JSON",
    "half a message",
    "leaves a child",
    "flood",
)
#: A worker that is deaf is noticed with the next command, and an event before the greeting is nonsense.
NOT_THERE = {("stdin closed", "repetition"), ("flood of events", "start")}
CASES = [
    (fault, stage)
    for stage in STAGES
    for fault in FAULTS
    if (stage in ("start", "repetition") or fault in EVERYWHERE) and (fault, stage) not in NOT_THERE
] + [("stdin closed", "between")]


@pytest.fixture(autouse=True)
def _clock_of_whoever_waits(monkeypatch, tmp_path):
    """Time runs out as soon as the worker says that it hangs, and never before; so no case takes long, or fails where all is slow."""
    hangs, leap_s = tmp_path / "hangs", [0.0]
    late: set[int] = set()

    def get(self, timeout_s):
        while True:
            try:
                return get_really(self, 0.02)
            except queue.Empty:
                if timeout_s is not None and hangs.exists():
                    hangs.unlink()
                    leap_s[0] += 1e6
                    late.add(id(self))
                if id(self) in late:
                    raise

    get_really = children.Lines.get
    monkeypatch.setattr(children.Lines, "get", get)
    monkeypatch.setattr(workers, "time", types.SimpleNamespace(monotonic=lambda: time.monotonic() + leap_s[0]))
    monkeypatch.setattr(workers, "DEATH_S", 0.2)
    monkeypatch.setattr(children, "_PIPES_S", 0.2)


@pytest.fixture
def short_goodbye(monkeypatch):
    monkeypatch.setattr(workers, "GOODBYE_S", 0.2)


def wrong(fault, stage, folder):
    script = pathlib.Path(__file__).parent / "wrong_worker.py"
    return (sys.executable, "-S", "-E", str(script), fault, stage, str(folder))


def measure(model, fault, stage, folder, **plan):
    first, deadly, last = Grid([model], {}, n_prompt=(8, DEADLY_PROMPT, 9), n_gen=(), repetitions=3).cells()
    assert deadly.n_prompt == DEADLY_PROMPT
    plan = Plan(
        "test", describe_machine(), worker_command=wrong(fault, stage, folder), **{"cell_timeout_s": 1e3, **plan}
    )
    found = dict(run_in_turns([first, deadly, last], plan, on_step=lambda _step: None))
    return [found[place] for place in range(3)]


def no_process_is_left(folder):
    left = [process for process in psutil.Process().children() if str(folder) in " ".join(process.cmdline())]
    if (grandchild := folder / "grandchild").exists():
        pid = int(grandchild.read_text())
        deadline = time.monotonic() + 10
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
    return not left


@pytest.mark.usefixtures("short_goodbye")
@pytest.mark.parametrize(("fault", "stage"), CASES)
def test_one_failure_and_the_rest_is_measured(model, fault, stage, tmp_path):
    records = measure(model, fault, stage, tmp_path, interleave=False)
    assert (tmp_path / "done").exists() or stage == "ending", "it was tried"
    failed = [record for record in records if record.failure]
    for record in records:
        if not record.failure:
            assert len(record.timed) == 3
    if stage in ("between", "ending"):  # what is dead when the next cell begins is replaced, what is deaf fails
        assert len(failed) <= 1
        assert [record.failure for record in records[:2]] == [None, None], "finished results are kept"
    else:
        place = 0 if stage == "start" else 1
        assert [record.failure is not None for record in records] == [
            i == place and CAUSES[fault] is not None for i in range(3)
        ]
    for record in failed:
        if stage not in ("between", "ending"):
            assert record.failure.cause is CAUSES[fault]
            assert record.failure.phase == stage.replace("ending", "start")
            assert len(record.timed) == (1 if stage == "repetition" else 0), "repetitions before it are kept"
        sentence = describe_end(record.failure)
        assert "\n" not in sentence
        assert len(sentence) < 800
        assert all(len(line) <= workers.LOG_LINE_CHARS for line in record.failure.log)
    assert no_process_is_left(tmp_path)


@pytest.mark.parametrize(
    "job", sorted({"quality", "speculate", "text", "bandwidth", "token_time", "memory_steps", "devices", "dry_run"})
)
@pytest.mark.parametrize(
    "fault", ["abort", "exit 0", "hang", "stopped", "stdout closed", "no JSON", "no end of a line", "leaves a child"]
)
def test_every_job_ends_with_one_failure(job, fault, tmp_path):
    assert (pathlib.Path(jobs.__file__).parent / f"{job}.py").exists()
    with Session("test", worker_command=wrong(fault, "repetition", tmp_path)) as session:
        heard = list(session.ask(job, {}))
    assert [event["event"] for event in heard] == ["phase"]
    assert session.failure.cause is CAUSES[fault]
    assert session.failure.phase == "repetition"
    assert no_process_is_left(tmp_path)


def test_nonsense_is_a_failure_of_whoever_hears_it(tmp_path):
    with (
        Session("test", worker_command=wrong("wrong fields", "repetition", tmp_path)) as session,
        session.until_interrupted(),
    ):
        for event in session.ask("quality", {}):
            assert event["index"] == 0
            event["cell"]
    assert (session.failure.cause, session.failure.reason) == (Cause.GARBLED, "phase has no cell")
    assert "cannot be read (phase has no cell)" in describe_end(session.failure)
    assert "cannot be read" in describe_reason(session.failure), "in a table too"


def test_what_a_worker_still_says_is_not_taken_for_the_next_answer(tmp_path):
    """A second ``done``, or an answer after its time."""
    code = (
        "import sys\nhello = '{\"event\": \"hello\", \"build\": {\"llama_cpp_python\": \"0\", \"ggml_version\": \"0\", "
        "\"ggml_commit\": \"0\", \"system_info\": \"\", \"backends\": [], \"devices\": []}}'\nprint(hello, flush=True)\n"
        "for number, line in enumerate(sys.stdin):\n"
        "    print('{\"event\": \"answer\", \"number\": %d}' % number)\n"
        "    print('{\"event\": \"done\"}\\n{\"event\": \"done\"}', flush=True)\n"
    )  # fmt: skip
    worker = Worker((sys.executable, "-c", code))
    try:
        worker.hello()
        for number in range(3):
            (answer, _) = worker.ask("job", {})
            assert answer["number"] == number
            time.sleep(0.05)
    finally:
        worker.kill()


def test_a_worker_that_computes_may_be_silent_and_one_that_does_not_hangs(monkeypatch, tmp_path):
    cpu_s = iter([0.0, 5.0, 10.0, 10.2])
    monkeypatch.setattr(Worker, "_cpu_s", lambda _self: next(cpu_s))
    monkeypatch.setattr(children.Lines, "get", lambda _self, timeout_s: (_ for _ in ()).throw(queue.Empty))
    worker = Worker(wrong("slow", "ending", tmp_path))
    (failure,) = worker.events(None)
    worker.close()
    assert (failure.cause, failure.limit_s) == (Cause.TIMEOUT, 2 * workers.STILL_S)
    assert next(cpu_s, None) is None


def test_a_command_to_a_worker_that_reads_nothing_does_not_make_us_wait(tmp_path):
    worker = Worker(wrong("stopped", "start", tmp_path))
    begun = time.monotonic()
    worker.send({"text": "x" * 10_000_000})
    assert time.monotonic() - begun < 5
    worker.kill()
    worker.close()


def test_memory_stays_bounded_whatever_a_worker_says(tmp_path):
    """Lines that nobody takes wait in the pipe, and not here."""
    lines = children.Lines(most_bytes=1000)
    taken = []

    def say():
        import threading

        def put():
            while lines.put(b"x" * 100):
                taken.append(1)

        thread = threading.Thread(target=put, daemon=True)
        thread.start()
        return thread

    thread = say()
    deadline = time.monotonic() + 5
    while len(taken) < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(taken) == 10
    lines.end()
    thread.join(5)
    assert not thread.is_alive()
