"""Whole runs on the real engine in real children, four of which really die."""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import subprocess
import sys

import psutil
import pytest

from harness.grid import Grid
from harness.host.cpu import choose_threads
from harness.host.machine import describe_machine
from harness.records.failures import describe_failure
from harness.runs.cells import Plan, run_cells, run_in_turns
from harness.spec import RunSpec

from .dying_worker import DEADLY_PROMPT

pytestmark = [pytest.mark.engine, pytest.mark.skipif(os.name == "nt", reason="these deaths are POSIX ones")]


def run(cells, **plan):
    found = dict(run_in_turns(cells, Plan("test", describe_machine(), **plan), on_step=lambda step: None))
    return [found[place] for place in sorted(found)]


def deadly_cells(model):
    cells = Grid([model], {}, n_prompt=(DEADLY_PROMPT,), n_gen=(2, 3), repetitions=3).cells()
    return [cells[1], cells[0], cells[2]]  # one before the death, one after


def dying(how):
    return (sys.executable, "-m", "tests.dying_worker", how)


@pytest.fixture(autouse=True)
def _find_tests(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path(__file__).parent.parent))


def check_survival(records, cause, *, has_log=True):
    before, dead, after = records
    assert before.failure is None
    assert len(before.timed) == 3
    assert after.failure is None
    assert len(after.timed) == 3, "the cells after the death are measured by a new worker"
    assert dead.failure.cause == cause
    assert dead.failure.phase == "repetition"
    assert len(dead.timed) == 1, "the repetition that was done before the death is kept"
    assert dead.failure.log or not has_log, "the engine's last words are kept"
    return dead.failure


def test_a_native_abort_is_a_failure_record(model):
    failure = check_survival(run(deadly_cells(model), worker_command=dying("abort")), "abort")
    assert failure.signal == 6
    assert any("GGML_ASSERT(it_lives) failed" in line for line in failure.log)


def test_a_segmentation_fault_is_a_failure_record(model):
    assert check_survival(run(deadly_cells(model), worker_command=dying("segfault")), "segmentation fault").signal == 11


def test_a_hang_is_ended_by_the_cell_timeout(model):
    failure = check_survival(run(deadly_cells(model), worker_command=dying("hang"), cell_timeout_s=15), "timeout")
    assert "--cell-timeout" in describe_failure(failure)


@pytest.mark.parametrize("how", ["hang", "lock"])
def test_a_worker_whose_parent_dies_ends_whatever_it_is_doing(model, how):
    """It hangs without writing anything: the end of its stdin tells it, or where it keeps Python's lock, the kernel alone can end it."""
    if how == "lock" and sys.platform != "linux":
        pytest.skip("needs Linux, whose kernel ends a process with its parent")
    program = (
        "import sys; from tests.test_worker import *\n"
        "tell = lambda step: print(step.index if step.phase == 'repetition' else '', flush=True)\n"
        "plan = Plan('test', describe_machine(), worker_command=dying(sys.argv[2]))\n"
        "list(run_cells([deadly_cells(sys.argv[1])[1]], plan, on_step=tell))"
    )
    command = [sys.executable, "-c", program, model, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert any(line.strip() == "1" for line in parent.stdout), "the deadly repetition has begun"
        (worker,) = psutil.Process(parent.pid).children()
        parent.kill()
    worker.wait(timeout=60)


def test_memory_that_a_limit_refuses_is_said_as_such(model):
    """RLIMIT_AS: no kernel kills, the program is told."""
    failure = check_survival(run(deadly_cells(model), worker_command=dying("limit")), "refused", has_log=False)
    assert failure.trouble == "memory"
    assert "not enough memory" in describe_failure(failure)


def test_a_kill_from_outside_is_told_from_a_lack_of_memory(model):
    failure = check_survival(run(deadly_cells(model), worker_command=dying("kill")), "killed")
    assert failure.signal == 9


@pytest.fixture
def cgroup(monkeypatch):
    """A memory cgroup of 256 MiB, v1 or v2."""
    limits = {"/sys/fs/cgroup/memory": "memory.limit_in_bytes", "/sys/fs/cgroup": "memory.max"}
    for root, limit in limits.items():
        folder = pathlib.Path(root, f"harness-test-{os.getpid()}")
        try:
            folder.mkdir()
            (folder / limit).write_text(str(256 << 20))
        except OSError:
            with contextlib.suppress(OSError):
                folder.rmdir()
            continue
        monkeypatch.setenv("TEST_CGROUP", str(folder))
        yield folder
        folder.rmdir()
        return
    pytest.skip(
        "needs the right to make a memory cgroup (root), so that the kernel kills one process and not the machine"
    )


def test_a_kill_for_memory_by_the_kernel_is_said_as_such(model, cgroup):
    failure = check_survival(run(deadly_cells(model), worker_command=dying("oom")), "out of memory")
    assert failure.signal == 9


def test_a_worker_that_cannot_start_is_a_failure_of_every_cell(model):
    records = run(deadly_cells(model)[:2], worker_command=(sys.executable, "-c", "raise SystemExit('no engine here')"))
    assert [record.failure.cause for record in records] == ["exit", "exit"]
    assert "no engine here" in records[0].failure.log


def test_one_load_serves_all_cells_that_can_share_it(model):
    records = run(Grid([model], {"n_threads": (1, 2), "repack": (True, False)}, (4,), (), repetitions=1).cells())
    loads = [record.load.load_duration_ns for record in records]
    assert [len(list(group)) for _, group in itertools.groupby(loads)] == [2, 2]
    assert [record.resolved.n_threads for record in records] == [1, 2, 1, 2]


def test_ctrl_c_keeps_the_samples_of_the_unfinished_cell(model):
    cells = [RunSpec(model, n_gen=2, repetitions=3), RunSpec(model, n_gen=3, repetitions=1000)]

    def press_ctrl_c(step):
        if step.cell == 1 and step.phase == "repetition" and step.index == 5:
            raise KeyboardInterrupt

    records = []
    run_ = run_cells(cells, Plan("test", describe_machine(), interleave=False), on_step=press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        for record in run_:
            records.append(record)
    assert [len(record.timed) for record in records] == [3, 5]
    assert records[1].failure.cause == "interrupted"


def test_without_isolation_the_same_is_measured(model):
    (record,) = run([RunSpec(model, n_prompt=8, repetitions=2)], isolate=False)
    assert len(record.timed) == 2
    assert record.resolved.n_ctx >= 8


def test_layers_asked_of_a_gpu_that_is_not_there_are_said(model):
    (record,) = run([RunSpec(model, n_gen=1, repetitions=1, n_gpu_layers=99)])
    on_gpu = [device for device in record.build.devices if device.kind in ("gpu", "igpu")]
    if on_gpu:
        pytest.skip("needs a machine without a GPU device")
    assert [caution.cause for caution in record.warnings if caution.cause == "no-offload"] == ["no-offload"]
    assert record.resolved.layers_by_device == {"CPU": 31}


def test_threads_are_llama_cpps_own_and_the_record_says_what_decided(model):
    asked = RunSpec(model, n_gen=1, repetitions=1)
    default, explicit = run([asked, dataclasses.replace(asked, n_threads=1)])
    assert default.asked.n_threads == default.resolved.n_threads == choose_threads().count
    assert default.threads_source == choose_threads().source
    assert explicit.threads_source == "asked"
