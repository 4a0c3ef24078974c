"""What the operating system counts around a repetition, told by made-up files of each system."""

import dataclasses

import pytest

from harness.host import system as host_os
from harness.host.noise import Watcher
from harness.host.system import CpuTime
from harness.records.cells import Sample
from harness.records.disturbances import Disturbance, find_disturbances

from . import machines

TASKS = "/proc/self/task"
CPU = "/sys/devices/system/cpu"


class Repetition:
    """A machine that ran one repetition of a second on two threads; what else happened is up to a test."""

    def __init__(self, identity):
        self.os = identity
        self.files = identity.files
        self.files |= {
            f"{TASKS}/10/schedstat": "5000000000 1000000 70\n",
            f"{TASKS}/11/schedstat": "4000000000 2000000 70\n",
            f"{TASKS}/10/stat": f"10 (a )( thread) R {' '.join(map(str, range(4, 39)))} 1 0\n",
            f"{TASKS}/11/stat": f"11 (b) R {' '.join(map(str, range(4, 39)))} 0 0\n",
            "/proc/1/task/1/schedstat": "1000000000 0 5\n",
            "/proc/vmstat": "nr_free_pages 5\npswpin 100\npswpout 50\noom_kill 0\n",
        }

    def work(self, **more):
        self.files[f"{TASKS}/10/schedstat"] = f"6000000000 {1000000 + more.get('waited_ns', 0)} 90\n"
        self.files[f"{TASKS}/11/schedstat"] = "5000000000 2000000 90\n"
        self.os.own_s += 2.0
        others, stolen = more.get("others_s", 0.0), more.get("stolen_s", 0.0)
        self.os.times = [
            CpuTime(one.busy_s + 1 + others / len(self.os.times), one.stolen_s + stolen / len(self.os.times))
            for one in self.os.times
        ]


@pytest.fixture
def machine(monkeypatch):
    identity = machines.Identity("epyc-vm")
    monkeypatch.setattr(host_os, "_system", identity)
    return Repetition(identity)


def watch(machine, happen=lambda: None, n_threads=2, **more):
    """The conditions of a repetition of a second, and what disturbed it."""
    watcher = Watcher(n_threads)
    watcher.begin()
    machine.work(**more)
    happen()
    conditions = dataclasses.replace(watcher.end(), wall_ns=1_010_000_000)
    sample = Sample(1_000_000_000, 1_000_000_000, (), is_warmup=False, conditions=conditions)
    return conditions, find_disturbances(sample, n_threads)


def test_a_quiet_repetition_has_no_disturbance(machine):
    conditions, found = watch(machine)
    assert found == ()
    assert (conditions.n_cpus, conditions.n_cores) == (2, 2)
    assert (conditions.busy_s, conditions.own_s, conditions.waited_ns) == (2.0, 2.0, 0)
    assert (conditions.stolen_s, conditions.n_swapped_pages, conditions.n_major_faults) == (0.0, 0, 0)


@pytest.mark.parametrize(
    ("more", "disturbance"),
    [
        ({"waited_ns": 30_000_000}, Disturbance.OTHERS),
        ({"others_s": 0.2}, Disturbance.OTHERS),
        ({"stolen_s": 0.05}, Disturbance.STEAL),
    ],
)
def test_time_that_others_had_is_told_apart(machine, more, disturbance):
    assert watch(machine, **more)[1] == (disturbance,)


@pytest.mark.parametrize("more", [{"waited_ns": 15_000_000}, {"others_s": 0.1}, {"stolen_s": 0.005}])
def test_what_does_not_matter_is_no_disturbance(machine, more):
    assert watch(machine, **more)[1] == ()


def test_work_of_the_process_that_asked_is_ours(machine):
    def work():
        machine.files["/proc/1/task/1/schedstat"] = "1500000000 0 9\n"

    conditions, found = watch(machine, work, others_s=0.5)
    assert conditions.own_s == pytest.approx(2.5)
    assert found == ()


def test_pages_from_disk_and_swap(machine):
    def read_pages():
        machine.os.counts["n_major_faults"] += 900
        machine.files["/proc/vmstat"] = "pswpin 600\npswpout 550\n"

    conditions, found = watch(machine, read_pages)
    assert (conditions.n_major_faults, conditions.n_swapped_pages) == (900, 1000)
    assert found == (Disturbance.PAGE_INS, Disturbance.SWAP)


def test_a_quota_that_held_us_back(monkeypatch):
    identity = machines.Identity("container-2.5-cpus")
    monkeypatch.setattr(host_os, "_system", identity)
    stat = "/sys/fs/cgroup/cpu.stat"

    def hold():
        identity.files[stat] = identity.files[stat].replace("nr_throttled 12", "nr_throttled 15")

    conditions, found = watch(Repetition(identity), hold)
    assert (conditions.n_held, conditions.held_s) == (3, 0.0)
    assert found == (Disturbance.QUOTA,)


def test_heat_is_counted_by_cores_and_seen_in_what_cools_them(machine):
    counter = f"{CPU}/cpu1/thermal_throttle/core_throttle_count"
    cooling = "/sys/class/thermal/cooling_device0"
    machine.files |= {counter: "5\n", f"{cooling}/type": "Processor\n", f"{cooling}/cur_state": "0\n"}
    machine.files |= {
        "/sys/class/thermal/cooling_device1/type": "Fan\n",
        "/sys/class/thermal/cooling_device1/cur_state": "9\n",
    }
    assert watch(machine)[0].n_thermal == 0

    def slow():
        machine.files |= {counter: "8\n", f"{cooling}/cur_state": "2\n"}

    conditions, found = watch(machine, slow)
    assert conditions.n_thermal == 4
    assert found == (Disturbance.HEAT,)


def test_the_clock_is_that_of_the_cpus_on_which_threads_were(machine):
    for number, khz in enumerate((2_000_000, 3_000_000)):
        machine.files[f"{CPU}/cpu{number}/cpufreq/scaling_cur_freq"] = f"{khz}\n"
        machine.files[f"{CPU}/cpu{number}/cpufreq/cpuinfo_max_freq"] = "4000000\n"
    assert watch(machine)[0].clock_mhz == 2500
    # The thread on CPU 1 worked more than the other one: its name with a parenthesis is read past.
    conditions = watch(
        machine, lambda: machine.files.update({f"{TASKS}/10/schedstat": "9000000000 0 9\n"}), n_threads=1
    )[0]
    assert (conditions.clock_mhz, conditions.clock_limit_mhz) == (3000, 4000)


def test_a_clock_below_its_usual_one_is_a_disturbance(machine):
    conditions = dataclasses.replace(watch(machine)[0], clock_mhz=2300.0)
    sample = Sample(1_000_000_000, None, (), is_warmup=False, conditions=conditions)
    assert find_disturbances(sample, 2, usual_mhz=2500.0) == (Disturbance.CLOCK,)
    assert find_disturbances(sample, 2, usual_mhz=2400.0) == ()


def test_threads_that_came_count_and_threads_that_went_do_not(machine):
    def change():
        del machine.files[f"{TASKS}/11/schedstat"]
        machine.files[f"{TASKS}/12/schedstat"] = "1000 40000000 3\n"

    assert watch(machine, change)[0].waited_ns == 40_000_000


def test_more_threads_than_cpus_wait_for_each_other(machine):
    assert watch(machine, waited_ns=900_000_000, n_threads=8)[1] == ()


def test_idle_cores_are_room_for_others_and_second_threads_of_a_core_are_not(machine):
    conditions = dataclasses.replace(watch(machine, others_s=3.0)[0], n_cpus=16, n_cores=8)
    sample = Sample(1_000_000_000, None, (), is_warmup=False, conditions=conditions)
    assert find_disturbances(sample, 4) == ()
    assert find_disturbances(sample, 8) == (Disturbance.OTHERS,)


@pytest.mark.parametrize(
    "name", ["m2-max", "windows-desktop", "container-cgroup-v1", "snapdragon-x-wsl", "xeon-one-core"]
)
def test_what_a_system_does_not_tell_is_not_known(monkeypatch, name):
    identity = machines.Identity(name)
    if name == "windows-desktop":
        identity.counts = {}
        identity.parent_s = None
    monkeypatch.setattr(host_os, "_system", identity)
    watcher = Watcher(2)
    watcher.begin()
    conditions = watcher.end()
    assert (conditions.waited_ns, conditions.clock_mhz, conditions.n_swapped_pages) == (None, None, None)
    assert (conditions.n_switched is None) == (name == "windows-desktop")
    sample = Sample(1_000_000, None, (), is_warmup=False, conditions=conditions)
    assert find_disturbances(sample, 2) == ()


def test_cpus_of_the_threads_are_not_those_of_the_thread_that_looks(machine):
    """ggml binds the thread that looks to one CPU of a strict mask, and it stays there for the blocks that follow."""
    machine.os.allowed = frozenset({0})
    assert watch(machine)[0].n_cpus == 1
    watcher = Watcher(2, cpus={0, 1})
    watcher.begin()
    machine.work()
    conditions = watcher.end()
    assert (conditions.n_cpus, conditions.n_cores) == (2, 2)


def test_an_end_without_a_beginning_says_nothing(machine):
    assert Watcher(2).end() is None


def test_switches_tell_of_others_where_nothing_else_does(machine):
    conditions = dataclasses.replace(watch(machine)[0], waited_ns=None, busy_s=None, n_switched=900)
    sample = Sample(1_000_000_000, None, (), is_warmup=False, conditions=conditions)
    assert find_disturbances(sample, 2) == (Disturbance.SWITCHES,)
    assert find_disturbances(sample, 4) == (), "more threads than CPUs: our own doing"
