"""Facts about the host, and how busy it is."""

from __future__ import annotations

import platform
import re

from harness.host.cpu import Ours, count_physical_cores, find_our_cpus, read_cpu_features, read_cpu_name
from harness.host.memory import memory_limit_bytes
from harness.host.system import CpuTime, the_os
from harness.memory.repack import CpuFeatures
from harness.records.cells import Machine


def describe_machine() -> Machine:
    """Collect what identifies the hardware; no host name, user name or path."""
    system, ours = the_os(), find_our_cpus()
    return Machine(
        cpu=read_cpu_name(),
        n_cores_physical=count_physical_cores(),
        n_cores_logical=system.count_cpus(logical=True) or 1,
        memory_bytes=system.memory_bytes()[0],
        os=system.name,
        arch=system.arch,
        python=platform.python_version(),
        cpus_bound=ours.bound,
        cpu_quota=ours.quota,
        memory_limit_bytes=memory_limit_bytes(),
        cpu_features=read_cpu_features(),
    )


def machine_slug(machine: Machine) -> str:
    """A folder name for the machine: its CPU, cores and memory, in lower-case letters, digits and dashes."""
    memory_gib = round(machine.memory_bytes / 1024**3)
    text = f"{machine.cpu}-{machine.n_cores_physical}c-{memory_gib}g".lower()
    text = re.sub(r"\((r|tm)\)|\bcpu\b|@.*?ghz|\bprocessor\b", " ", text)
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


def predict_features() -> CpuFeatures | None:
    """What an llama.cpp that is compiled here would be compiled for, as far as repacking goes; None where the OS does not tell.

    SVE and RISC-V vectors are left out, for their length is not told here.

    Source: ggml-cpu is compiled with -march=native (GGML_NATIVE) and with repacking (GGML_CPU_REPACK) by default.
    """
    names = frozenset(read_cpu_features())
    return CpuFeatures(frozenset({"REPACK", *names})) if names and "SVE" not in names else None


def count_oom_kills() -> int | None:
    """How often the kernel has killed for memory since boot; None where it does not tell. Source: proc(5), /proc/vmstat oom_kill."""
    match = re.search(r"^oom_kill (\d+)$", the_os().read("/proc/vmstat") or "", re.MULTILINE)
    return int(match[1]) if match else None


def cpu_times_of(ours: Ours) -> tuple[CpuTime, ...]:
    """What the CPUs that are ours have worked so far."""
    times = the_os().cpu_times()
    # One entry a CPU that is online; where they are fewer (a container that shows itself less), all of them are ours.
    if ours.numbers is None or len(times) != len(ours.online):
        return times
    return tuple(one for one, number in zip(times, sorted(ours.online), strict=True) if number in ours.numbers)
