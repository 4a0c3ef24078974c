import dataclasses
import re

import pytest

from harness.codec import decode
from harness.host import system as host_os
from harness.host.machine import LoadReading, describe_machine, judge_load, machine_slug, read_load
from harness.host.system import CpuTime
from harness.records.cells import Record
from harness.records.kinds import to_json

from . import machines

IDLE = LoadReading(wall_s=0, busy_s=100, own_s=50, stolen_s=1, n_cpus=2)


def after(others_s=0.0, own_s=0.0, stolen_s=0.0, wall_s=10.0, n_cpus=2, **held):
    return LoadReading(wall_s, 100 + own_s + others_s, 50 + own_s, 1 + stolen_s, n_cpus, **held)


def codes(cautions):
    return [(caution.cause, caution.distrust) for caution in cautions]


def test_a_quiet_machine_gets_no_caution():
    assert judge_load(IDLE, after(own_s=20), n_threads=2) == ()


def test_others_do_no_harm_while_cpus_are_idle():
    assert judge_load(IDLE, after(own_s=20, others_s=20, n_cpus=8), n_threads=2) == ()


def test_others_who_compete_are_named_with_how_many_cpus():
    (caution,) = judge_load(IDLE, after(own_s=18, others_s=3), n_threads=2)
    assert (caution.cause, caution.distrust) == ("busy-machine", False)
    assert "used 0.3 of 2 CPUs while 2 threads ran" in caution.text


def test_much_competition_makes_the_number_worthless():
    assert codes(judge_load(IDLE, after(own_s=10, others_s=10), n_threads=2)) == [("busy-machine", True)]


def test_more_threads_than_cpus_are_nobody_elses_doing():
    assert judge_load(IDLE, after(own_s=20, others_s=0.1), n_threads=8) == ()


def test_stolen_time_is_told_apart():
    assert codes(judge_load(IDLE, after(own_s=18, stolen_s=3), n_threads=2)) == [("cpu-stolen", False)]


def test_too_short_a_time_cannot_be_judged():
    assert judge_load(IDLE, after(others_s=1, wall_s=0.01), n_threads=2) == ()


def test_a_quota_that_held_us_back_is_named_as_the_cause():
    (caution,) = judge_load(IDLE, after(own_s=18, n_held=3, held_s=0.5), n_threads=2)
    assert (caution.cause, caution.distrust) == ("cpu-throttled", False)
    assert "held this back 3 times, 0.5 s of CPU time in all" in caution.text
    assert codes(judge_load(IDLE, after(own_s=10, n_held=90, held_s=9), n_threads=2)) == [("cpu-throttled", True)]


def work(identity, numbers, busy_s, own_s=0.0):
    """Let CPUs of a made-up machine work between two readings 10 s apart; gives what is said of it, with a thread a CPU that is ours."""
    before = read_load(0.0)
    for number in numbers:
        identity.times[number] = CpuTime(identity.times[number].busy_s + busy_s, 0.0)
    identity.own_s += own_s
    return judge_load(before, read_load(10.0), before.n_cpus)


def test_load_is_judged_on_every_machine(identity):
    n_cpus = read_load(0.0).n_cpus
    assert work(identity, [], 0.0) == ()
    ours = sorted(identity.allowed or range(identity.count_cpus(logical=True)))
    assert len(ours) == n_cpus
    (caution,) = work(identity, ours, 5.0)
    assert (caution.cause, caution.distrust) == ("busy-machine", True)
    assert f"{n_cpus / 2:.1f} of {n_cpus} CPUs" in caution.text
    assert work(identity, ours, 5.0, own_s=5.0 * n_cpus) == (), "our own work is no load"


def test_work_on_cpus_that_are_not_ours_is_no_load(monkeypatch):
    identity = machines.Identity("cpuset-of-four")
    monkeypatch.setattr(host_os, "_system", identity)
    assert work(identity, set(range(len(identity.times))) - identity.allowed, 10.0) == ()


def test_throttling_is_read_where_the_machine_counts_it(identity):
    path = next((path for path in identity.files if path.endswith("/cpu.stat")), None)
    before = read_load(0.0)
    if path is None:
        assert before.n_held == 0
        return
    identity.files[path] = "nr_periods 900\nnr_throttled 620\nthrottled_usec 60345678\nthrottled_time 61500000000\n"
    assert codes(judge_load(before, read_load(10.0), 2)) == [("cpu-throttled", True)]


@pytest.mark.this_machine
def test_counters_only_grow():
    first = read_load(0.0)
    sum(range(200_000))
    second = read_load(1.0)
    assert second.own_s >= first.own_s > 0
    assert second.busy_s >= first.busy_s > 0


def test_every_machine_is_described_without_names_of_people(identity):
    machine = describe_machine()
    assert machine.cpu
    assert 1 <= machine.n_cores_physical <= machine.n_cores_logical
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", machine_slug(machine))


def test_slugs_read_well():
    intel = "Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz"
    machine = dataclasses.replace(describe_machine(), cpu=intel, n_cores_physical=6, memory_bytes=16 * 2**30)
    assert machine_slug(machine) == "intel-core-i7-8700-6c-16g"


def test_the_record_says_what_bounds_the_machine(recorded, identity):

    machine = describe_machine()
    record = dataclasses.replace(recorded[0], machine=machine)
    assert decode(Record, to_json(record)).machine == machine
    bounds = {
        "container-2.5-cpus": ("cgroup quota", 2.5, 2 * 2**30),
        "container-cgroup-v1": ("cgroup quota", 3.0, 4 * 2**30),
        "cpuset-of-four": ("cpuset", None, 16 * 2**30),
    }
    assert (machine.cpus_bound, machine.cpu_quota, machine.memory_limit_bytes) == bounds.get(
        identity.short_name, (None, None, None)
    )


def test_a_machine_of_an_older_record_is_read(recorded):
    """The recorded line was written before there were bounds."""
    assert recorded[0].machine.cpu == "AMD EPYC"
    assert recorded[0].machine.cpus_bound is None


def test_memory_that_is_shared_counts_once():
    from harness.records.cells import Device
    from harness.runs.reference import add_up_cards

    shared = [Device("MTL0", "Apple M2 Max", "gpu", 48, 64), Device("CUDA1", "NVIDIA GB10", "igpu", 100, 120)]
    assert add_up_cards([Device("CPU", "x", "cpu", 64, 64), *shared]) == 0
    assert add_up_cards([*shared, Device("CUDA0", "RTX", "gpu", 7, 8), Device("Vulkan0", "y", "gpu", None, None)]) == 7
