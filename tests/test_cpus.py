"""CPUs and memory that are ours, on every machine of tests/machines/, and what their processors are called."""

import pytest

from harness.host import system as host_os
from harness.host.cgroup import parse_cpu_list, read_cpu_quota, read_throttling
from harness.host.cpu import (
    Threads,
    choose_threads,
    count_physical_cores,
    find_our_cpus,
    read_cpu_features,
    read_cpu_name,
)
from harness.host.machine import describe_machine, machine_slug
from harness.host.memory import available_memory_bytes, memory_limit_bytes, total_memory_bytes

from . import machines

#: (name, threads, what decided them, cores that are ours, memory that is ours or None for all)
EXPECTED = {
    "ampere-altra": ("Arm Neoverse-N1", 64, "physical cores", 64, None),
    "ampereone": ("Ampere Ampere-1", 192, "physical cores", 192, None),
    "apple-vm": ("Apple part 0x000", 8, "physical cores", 8, None),
    "container-2.5-cpus": ("AMD EPYC 7763 64-Core Processor", 2, "cgroup quota", 2, 2 * 2**30),
    "container-cgroup-v1": ("AMD EPYC 7763 64-Core Processor", 3, "cgroup quota", 3, 4 * 2**30),
    "cpuset-of-four": ("Intel(R) Xeon(R) Gold 6326 CPU @ 2.90GHz", 2, "cpuset", 2, 16 * 2**30),
    "epyc-vm": ("AMD EPYC", 2, "physical cores", 2, None),
    "gb10": ("Arm Cortex-A725 + Cortex-X925", 20, "physical cores", 20, None),
    "graviton2": ("AWS Graviton2 (Neoverse-N1)", 64, "physical cores", 64, None),
    "graviton3": ("AWS Graviton3 (Neoverse-V1)", 16, "physical cores", 16, None),
    "i9-12900k": ("12th Gen Intel(R) Core(TM) i9-12900K", 8, "performance cores", 16, None),
    "m2-max": ("Apple M2 Max", 8, "performance cores", 12, None),
    "macbook-intel": ("Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz", 6, "physical cores", 6, None),
    "raspberry-pi-5": ("Raspberry Pi 5 Model B Rev 1.0", 4, "physical cores", 4, None),
    "ryzen-7840hs": ("AMD Ryzen 7 7840HS w/ Radeon 780M Graphics", 8, "physical cores", 8, None),
    "snapdragon-x-wsl": ("Qualcomm Oryon", 12, "physical cores", 12, None),
    "threadripper-pro": ("AMD Ryzen Threadripper PRO 5995WX 64-Cores", 64, "physical cores", 64, None),
    "windows-desktop": ("AMD Ryzen 7 5800X3D 8-Core Processor", 8, "physical cores", 8, None),
    "xeon-one-core": ("Intel(R) Xeon(R) Processor @ 2.80GHz", 1, "physical cores", 1, None),
    "xeon-platinum": ("Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz", 16, "physical cores", 16, None),
}


@pytest.fixture
def put(monkeypatch):
    """Makes one machine the one that is asked, after files of it were changed."""

    def put(name, affinity=None, files=()):
        one = machines.Identity(name)
        one.files.update(files)
        if affinity is not None:
            one.allowed = frozenset(affinity)
        monkeypatch.setattr(host_os, "_system", one)
        return one

    return put


def test_every_machine_has_its_line():
    assert sorted(EXPECTED) == machines.NAMES
    assert len(EXPECTED) >= 12


@pytest.mark.parametrize("name", machines.NAMES)
def test_threads_cores_memory_and_name_are_right(put, name):
    put(name)
    cpu, n_threads, source, n_cores, limit = EXPECTED[name]
    assert read_cpu_name() == cpu
    assert choose_threads() == Threads(n_threads, source)
    assert count_physical_cores() == n_cores
    assert memory_limit_bytes() == limit
    machine = describe_machine()
    assert (machine.cpu, machine.n_cores_physical) == (cpu, n_cores)
    assert total_memory_bytes() == (limit or machine.memory_bytes)
    assert 0 < available_memory_bytes() <= total_memory_bytes()


def test_no_two_machines_share_a_folder():
    slugs = {}
    for name in machines.NAMES:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(host_os, "_system", machines.Identity(name))
            slugs.setdefault(machine_slug(describe_machine()), []).append(name)
    assert [names for names in slugs.values() if len(names) > 1] == []


def test_memory_in_a_container_is_its_limit_less_what_it_cannot_give_back(put):
    put("container-2.5-cpus")
    assert available_memory_bytes() == 2 * 2**30 - (300 - 100) * 2**20
    put("container-cgroup-v1")
    assert available_memory_bytes() == 4 * 2**30 - (2**30 - 429496729 - 107374183)


def test_a_full_container_has_nothing_left_and_not_less(put):
    put("container-2.5-cpus", files={"/sys/fs/cgroup/memory.current": str(3 * 2**30)})
    assert available_memory_bytes() == 0


def test_a_limit_above_all_memory_is_none(put):
    put("container-cgroup-v1", files={
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "/sys/fs/cgroup/memory/memory.stat": "hierarchical_memory_limit 9223372036854771712\n",
    })  # fmt: skip
    assert memory_limit_bytes() is None
    assert available_memory_bytes() == 251255586816


def test_a_parent_with_less_bounds_its_children(put):
    """systemd: the session has no limit of its own, its slice has."""
    put("i9-12900k", files={
        "/sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope/cpu.max": "1200000 100000\n",
        "/sys/fs/cgroup/user.slice/cpu.max": "400000 100000\n",
        "/sys/fs/cgroup/user.slice/user-1000.slice/memory.max": "8589934592\n",
        "/sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope/memory.max": "17179869184\n",
    })  # fmt: skip
    assert read_cpu_quota() == 4
    assert choose_threads() == Threads(4, "cgroup quota")
    assert memory_limit_bytes() == 8 * 2**30


def test_a_parent_that_is_not_mounted_bounds_memory_of_the_first_generation(put):
    put("container-cgroup-v1", files={"/sys/fs/cgroup/memory/memory.stat": "hierarchical_memory_limit 1073741824\n"})
    assert memory_limit_bytes() == 2**30


def test_less_than_one_cpu_is_one_thread(put):
    put("container-2.5-cpus", files={"/sys/fs/cgroup/cpu.max": "50000 100000\n"})
    assert choose_threads() == Threads(1, "cgroup quota")
    assert count_physical_cores() == 1


def test_a_quota_larger_than_the_machine_bounds_nothing(put):
    put("container-2.5-cpus", files={"/sys/fs/cgroup/cpu.max": "6400000 100000\n"})
    assert choose_threads() == Threads(64, "physical cores")
    assert find_our_cpus().bound is None


@pytest.mark.parametrize(
    ("affinity", "threads"),
    [
        (range(24), Threads(8, "performance cores")),
        ([0, 1], Threads(1, "affinity")),  # the two threads of one core
        (
            [0, 2, 16, 17],
            Threads(2, "affinity"),
        ),  # two cores of either kind: the efficient ones would hold the others up
        ([16, 17, 18], Threads(3, "affinity")),  # nothing else is ours
        (range(16), Threads(8, "performance cores")),
    ],
)
def test_affinity_counts_cores_and_not_their_threads(put, affinity, threads):
    put("i9-12900k", affinity=affinity)
    assert choose_threads() == threads


def test_affinity_inside_a_cpuset_is_told_apart(put):
    put("cpuset-of-four", affinity=[4])
    assert choose_threads() == Threads(1, "affinity")
    assert find_our_cpus().bound == "affinity"


def test_llama_cpps_count_of_a_hybrid_without_hyper_threads_is_kept(put):
    """cpu_count_math_cpus skips the CPU behind each performance core, also where that is a core of its own (Lunar Lake)."""
    one = put("i9-12900k", files={"/sys/devices/cpu_core/cpus": "0-3\n", "/sys/devices/cpu_atom/cpus": "4-7\n"})
    one.siblings = {number: (number,) for number in range(8)}
    one.allowed, one.files["/sys/devices/system/cpu/online"] = frozenset(range(8)), "0-7\n"
    assert choose_threads() == Threads(2, "performance cores")


@pytest.mark.parametrize(("n_logical", "count"), [(1, 1), (4, 4), (12, 6)])
def test_where_the_os_tells_no_topology_llama_cpps_guess_is_taken(put, n_logical, count):
    one = put("windows-desktop")
    one.told.update(platform="freebsd14", n_logical=n_logical, n_physical=None)
    one.allowed = None
    assert choose_threads().count == count


def test_a_machine_that_tells_nothing_has_a_name_and_one_thread(put):
    one = put("apple-vm")
    one.files, one.siblings, one.allowed = {}, {}, None
    assert read_cpu_name() == "aarch64"
    assert choose_threads().count == 1


def test_unknown_makers_and_cores_keep_their_numbers(put):
    put("graviton3", files={"/proc/cpuinfo": "CPU implementer\t: 0x99\nCPU part\t: 0xabc\n"})
    assert read_cpu_name() == "ARM maker 0x99 part 0xabc"
    put("graviton3", files={
        "/proc/cpuinfo": "CPU implementer\t: 0x41\nCPU part\t: 0xd42\n",
        "/sys/firmware/devicetree/base/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "/sys/devices/virtual/dmi/id/sys_vendor": "NVIDIA\n",
    })  # fmt: skip
    assert read_cpu_name() == "Arm Cortex-A78AE (NVIDIA Jetson AGX Orin Developer Kit)"


def test_throttling_is_counted_in_both_generations(put):
    put("container-2.5-cpus")
    assert (read_throttling().count, read_throttling().held_s) == (12, pytest.approx(0.345678))
    put("container-cgroup-v1")
    assert (read_throttling().count, read_throttling().held_s) == (20, pytest.approx(1.5))
    put("m2-max")
    assert read_throttling().count == 0


@pytest.mark.parametrize(
    "text",
    ["", "garbage", "0::", "0::/../..", "x:y", "0::/a\n4:cpu", "4:cpu:/gone\n0::/gone"],
)
def test_odd_cgroup_files_bound_nothing(put, text):
    put("epyc-vm", files={"/proc/self/cgroup": text, "/proc/self/mountinfo": "nonsense\n1 2 - cgroup2\n" + text})
    assert read_cpu_quota() is None
    assert memory_limit_bytes() is None


def test_cpu_lists_as_the_kernel_writes_them():
    assert parse_cpu_list("0-3,8\n") == {0, 1, 2, 3, 8}
    assert parse_cpu_list("5") == {5}
    assert parse_cpu_list("") == parse_cpu_list(None) == parse_cpu_list("\n") == frozenset()


@pytest.mark.this_machine
def test_this_machine_answers_too():
    machine = describe_machine()
    assert machine.cpu
    assert choose_threads().count >= 1
    assert 1 <= machine.n_cores_physical <= machine.n_cores_logical
    assert 0 < available_memory_bytes() <= total_memory_bytes() <= machine.memory_bytes


_AVX2, _AVX512 = {"AVX", "AVX2", "F16C", "FMA"}, {"AVX512", "AVX512_VNNI"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("threadripper-pro", _AVX2), ("xeon-platinum", _AVX2 | _AVX512), ("ryzen-7840hs", _AVX2 | _AVX512),
        ("ampere-altra", {"NEON", "DOTPROD"}), ("ampereone", {"NEON", "DOTPROD", "MATMUL_INT8"}),
        ("gb10", {"NEON", "DOTPROD", "MATMUL_INT8", "SVE"}), ("m2-max", {"NEON", "DOTPROD", "MATMUL_INT8"}),
        ("macbook-intel", _AVX2), ("windows-desktop", set()),
    ],
)  # fmt: skip
def test_what_a_cpu_has_beyond_its_architecture(put, name, expected):
    put(name)
    found = read_cpu_features()
    assert set(found) - {"AVX512_BF16", "AVX_VNNI", "AMX_INT8"} == expected
    assert list(found) == sorted(found)
    assert describe_machine().cpu_features == found
