"""Facts about the host, and how busy it is."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass

from harness.host.cgroup import read_oom_kills
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


@dataclass(frozen=True, slots=True)
class OomKills:
    """How often the kernel had killed for memory when a process was looked at: anywhere, and in that process's control group.

    None where it does not tell.
    """

    pid: int
    anywhere: int | None
    group: tuple[str, int] | None

    def have_risen(self) -> bool:
        """Whether it has killed since: in the process's own group where that is known, which may be another one now, else anywhere.

        The group is known until the process's end was asked for (wait).
        """
        now = count_oom_kills(self.pid)
        if self.anywhere is not None and now.anywhere is not None and now.anywhere <= self.anywhere:
            return False
        if now.group is None or self.group is None:
            return self.anywhere is not None and now.anywhere is not None
        before = self.group[1] if now.group[0] == self.group[0] else 0
        return now.group[1] > before


def count_oom_kills(pid: int) -> OomKills:
    """What the kernel has counted. Source: proc(5), /proc/vmstat oom_kill; `cgroup.read_oom_kills`."""
    match = re.search(r"^oom_kill (\d+)$", the_os().read("/proc/vmstat") or "", re.MULTILINE)
    return OomKills(pid, int(match[1]) if match else None, read_oom_kills(pid))


def cpu_times_of(ours: Ours) -> tuple[CpuTime, ...]:
    """What the CPUs that are ours have worked so far."""
    times = the_os().cpu_times()
    # One entry a CPU that is online; where they are fewer (a container that shows itself less), all of them are ours.
    if ours.numbers is None or len(times) != len(ours.online):
        return times
    return tuple(one for one, number in zip(times, sorted(ours.online), strict=True) if number in ours.numbers)
