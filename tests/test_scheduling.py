"""Threads and processes as a cell asks for them: pools by what they are made of, priorities that a system may refuse, CPUs given back."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from harness.errors import NativeError
from harness.host import scheduling
from harness.native.threads import Threads, check_mask, choose_cpus, list_threads
from harness.runs import bench as bench_module
from harness.runs.bench import Bench, Plan, process_nature
from harness.runs.needs import fit_together
from harness.spec import RunSpec

from .rpc_server import ROOT


def spec(**changes):
    return RunSpec("m", n_prompt=8, n_threads=2, **changes)


def test_a_pool_is_what_its_threads_are_made_of():
    assert list_threads(spec()) == (Threads(2), None)
    assert list_threads(spec(n_threads_batch=2)) == (Threads(2), None), "the same threads are one pool"
    made = Threads(2, "0x3", True, 0, -1)
    asked = spec(n_threads_batch=4, cpu_mask="0x3", cpu_strict=True, poll=0, priority=-1)
    assert list_threads(asked) == (made, dataclasses.replace(made, count=4))
    assert made.cpus == (0, 1)


@pytest.mark.parametrize(
    ("mask", "is_strict", "said"),
    [
        ("0x0", False, None), ("0x1", True, None), ("0xff", False, None), ("0xff", True, "names CPUs that are not ours; there are 0, 1"),
        ("0xf0", False, "The mask -C 0xf0 names no CPU that is ours; there are 0, 1."), ("0xf0", True, "names no CPU that is ours"),
    ],
)  # fmt: skip
def test_a_mask_without_a_cpu_of_ours_is_refused(mask, is_strict, said):
    asked = spec(cpu_mask=mask, cpu_strict=is_strict)
    check_mask(asked, ())
    if said is None:
        check_mask(asked, {0, 1})
        return
    with pytest.raises(NativeError, match=said):
        check_mask(asked, {0, 1})


@pytest.mark.parametrize(("mask", "cpus"), [("0x0", {0, 1, 2}), ("0x3", {0, 1}), ("0xc", {2}), ("0xf0", {0, 1, 2})])
def test_threads_have_those_of_our_cpus_that_a_mask_names(mask, cpus):
    assert choose_cpus(spec(cpu_mask=mask), {0, 1, 2}) == cpus
    assert choose_cpus(spec(cpu_mask=mask), ()) == frozenset()


# ---- the system's word -----------------------------------------------------------------------------------------------


class System:
    """A POSIX system that notes what it is asked, and refuses what it is told to."""

    def __init__(self, monkeypatch, refused=()):
        self.asked, self.refused = [], refused
        monkeypatch.setattr(scheduling.sys, "platform", "linux")
        for name in ("setpriority", "sched_setscheduler"):
            monkeypatch.setattr(scheduling.os, name, self._make(name), raising=False)
        monkeypatch.setattr(scheduling.os, "sched_param", lambda level: level, raising=False)
        monkeypatch.setattr(scheduling.os, "SCHED_FIFO", "fifo", raising=False)

    def _make(self, name):
        def ask(*words):
            self.asked.append((name, words[-1]))
            if name in self.refused:
                raise PermissionError(1, "Operation not permitted")

        return ask


@pytest.mark.parametrize(
    ("level", "asked"),
    [
        (0, []), (-1, [("setpriority", 5)]), (1, [("setpriority", -5), ("sched_setscheduler", 40)]),
        (3, [("setpriority", -20), ("sched_setscheduler", 90)]),
    ],
)  # fmt: skip
def test_priorities_are_llama_cpps(monkeypatch, level, asked):
    system = System(monkeypatch)
    assert scheduling.set_priority(level) is None
    assert system.asked == asked


@pytest.mark.parametrize("refused", ["setpriority", "sched_setscheduler"])
def test_a_priority_that_the_system_does_not_allow_is_a_reason(monkeypatch, refused):
    System(monkeypatch, (refused,))
    assert scheduling.set_priority(2) == "Operation not permitted"


def test_an_engine_says_it_in_a_sentence_and_is_of_one_nature(monkeypatch):
    engine = pytest.importorskip("harness.native.engine")
    runtime = object.__new__(engine.Runtime)
    runtime.nature, started = None, []
    monkeypatch.setattr(engine.llama_cpp, "llama_numa_init", started.append)
    monkeypatch.setattr(engine, "set_priority", lambda level: "Operation not permitted" if level > 0 else None)
    with pytest.raises(
        NativeError, match=r"The system does not allow --prio 2 \(Operation not permitted\); run as somebody who may"
    ):
        runtime.settle(spec(priority=2))
    runtime.settle(spec(numa="distribute"))
    runtime.settle(spec(numa="distribute"))
    assert started == [1], "once a process"
    with pytest.raises(NativeError, match="start a new one"):
        runtime.settle(spec())


# ---- one worker for each nature --------------------------------------------------------------------------------------


def test_natures_are_priorities_and_strategies_and_masks_where_they_stay(monkeypatch):
    usual = process_nature(spec())
    assert process_nature(spec(priority=-1)) != usual
    assert process_nature(spec(numa="isolate")) != usual
    for can_free in (True, False):
        monkeypatch.setattr(bench_module, "CAN_FREE_THREADS", can_free)
        assert (process_nature(spec(cpu_mask="0x1")) == process_nature(spec())) is can_free


def test_a_worker_of_another_nature_is_replaced(monkeypatch):
    started = []

    class Fake:
        is_alive = True

        def __init__(self, *_words, **_more):
            started.append(self)

        def hello(self):
            return {"build": {
                "llama_cpp_python": "1", "ggml_version": "1", "ggml_commit": "c", "system_info": "", "backends": [], "devices": [],
            }}  # fmt: skip

        def send(self, command):
            self.asked = command

        def events(self, *_limits, **_more):
            return iter([{"event": "done"}])

        def close(self):
            self.is_alive = False

    monkeypatch.setattr(bench_module, "Worker", Fake)
    bench = Bench(Plan("pp-tg", None))
    for asked in (
        spec(),
        spec(n_threads_batch=1),
        spec(priority=-1),
        spec(priority=-1, poll=0),
        spec(numa="isolate"),
        spec(),
    ):
        list(bench.run(asked))
    assert len(started) == 4
    assert [worker.is_alive for worker in started] == [False, False, False, True]


def test_cells_of_two_natures_do_not_take_turns_in_small_blocks():
    needs = [(spec(), None), (dataclasses.replace(spec(), priority=-1), None)]
    assert fit_together(needs[:1] * 2, 10**12)
    assert not fit_together(needs, 10**12)


# ---- for real --------------------------------------------------------------------------------------------------------

CHILD = """
import dataclasses, json, os, sys
from harness.native.engine import Runtime
from harness.spec import RunSpec
runtime = Runtime(log_to_stderr=False)
base = RunSpec(sys.argv[1], n_prompt=8, n_gen=4, n_threads=2)
model = runtime.load(base)
def compute(spec):
    runtime.bind(spec)
    session = model.open(spec)
    for batch in (*session.prompt_batches(8), *session.token_batches(2)):
        session.decode(batch)
    session.synchronize()
    found = sorted({tuple(sorted(os.sched_getaffinity(int(task)))) for task in os.listdir("/proc/self/task")})
    told = session.describe()
    session.close()
    return [found, told.n_threads, told.n_threads_batch]
first = min(os.sched_getaffinity(0))
bound = dataclasses.replace(base, cpu_mask=hex(1 << first), n_threads_batch=1)
print(json.dumps([compute(base), compute(bound), compute(base), sorted(os.sched_getaffinity(0))]))
"""


@pytest.mark.skipif(not scheduling.CAN_FREE_THREADS, reason="threads are given back on Linux alone")
def test_threads_are_kept_to_a_mask_and_given_back(model):
    done = subprocess.run(
        [sys.executable, "-c", CHILD, model], capture_output=True, text=True, cwd=ROOT, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    usual, bound, after, ours = json.loads(done.stdout)
    assert usual == [[ours], 2, 2]
    assert [ours[0]] in bound[0], "the one that computes is on the only CPU of the mask"
    assert bound[1:] == [2, 1], "prompts have threads of their own"
    assert after == usual
