import dataclasses
import re

import pytest

from harness.codec import decode
from harness.host import system as host_os
from harness.host.cpu import find_our_cpus
from harness.host.machine import cpu_times_of, describe_machine, machine_slug
from harness.host.system import CpuTime
from harness.records.cells import Record
from harness.records.kinds import to_json

from . import machines


def busy_s():
    """What the CPUs that are ours have worked so far."""
    return sum(one.busy_s for one in cpu_times_of(find_our_cpus()))


def work(identity, numbers, seconds):
    """Let CPUs of a made-up machine work."""
    for number in numbers:
        identity.times[number] = CpuTime(identity.times[number].busy_s + seconds, 0.0)


def test_work_on_our_cpus_is_counted_on_every_machine(identity):
    ours = sorted(identity.allowed or range(identity.count_cpus(logical=True)))
    assert len(ours) == find_our_cpus().count
    before = busy_s()
    work(identity, ours, 5.0)
    assert busy_s() - before == pytest.approx(5.0 * len(ours))


def test_work_on_cpus_that_are_not_ours_is_none_of_ours(monkeypatch):
    identity = machines.Identity("cpuset-of-four")
    monkeypatch.setattr(host_os, "_system", identity)
    before = busy_s()
    work(identity, set(range(len(identity.times))) - identity.allowed, 10.0)
    assert busy_s() == before


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
