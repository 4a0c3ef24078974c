"""What the operating system counts around a repetition: read in the worker, before the rest that precedes it and right after it.

A reading of a process with 2 threads takes 0.1 ms of CPU time (Linux 6.18 on a virtual machine with 2 CPUs), of one with 64 threads
0.7 ms, and finding the files for a block 0.9 ms; all of it lies outside the timed region. Everything is asked of `the_os`, and what a
system does not tell is None: of Linux's files a virtual machine lacks the clock's and a container may show itself less, macOS tells
CPU times, page-ins and switches, Windows CPU times.

Sources: Linux Documentation/scheduler/sched-stats.rst (/proc/<pid>/schedstat: ns on a CPU, ns runnable without one), proc(5) (stat,
vmstat, task/<tid>/stat field 39), Documentation/admin-guide/pm/cpufreq.rst, arch/x86/kernel/cpu/mce/therm_throt.c (thermal_throttle),
Documentation/driver-api/thermal/sysfs-api.rst (cooling_device).
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from harness.host.cgroup import find_throttling_files, read_throttling
from harness.host.cpu import count_cores_of, find_our_cpus
from harness.host.machine import cpu_times_of
from harness.host.system import the_os
from harness.records.cells import Conditions

_CPUS = "/sys/devices/system/cpu"

#: The most files of one sort that are read, a file a CPU: cores of one processor share its fate.
MAX_CPUS = 16

#: The longest that reading the clocks may take. Linux before 5.18 sleeps 10 ms for a clock that it did not just know: there it is not
#: asked again.
CLOCK_READ_S = 0.003

#: What cools a processor by slowing it down, by the names of Linux's drivers.
_COOLING = re.compile(r"Processor|intel_powerclamp|(thermal-)?cpufreq")


@dataclass(frozen=True, slots=True)
class _Task:
    """A thread's ns on a CPU and ns in which it could have run and had none."""

    ran_ns: int
    waited_ns: int


@dataclass(frozen=True, slots=True)
class _Reading:
    """Counters so far; None is what is not told."""

    at_ns: int
    busy_s: float
    stolen_s: float
    own_s: float
    tasks: dict[str, _Task]
    n_held: int
    held_s: float
    n_major_faults: int | None
    n_switched: int | None
    n_swapped_pages: int | None
    n_throttled: int | None


class Watcher:
    """Reads around one repetition after the other: `begin` before the rest that precedes it, `end` when it is done.

    n_threads are those that compute, on `cpus`, or where this thread may run if none are named; is_server_here says that an RPC server
    of ours on this machine computes beside them.
    """

    def __init__(self, n_threads: int, *, is_server_here: bool = False, cpus: Collection[int] = ()) -> None:
        self._n_threads, self._is_server_here = n_threads, is_server_here
        self._ours = find_our_cpus(cpus)
        self._n_cores = count_cores_of(self._ours)
        self._throttling_files = find_throttling_files()
        numbers = sorted(self._ours.numbers or range(self._ours.n_online))[:MAX_CPUS]
        self._heat_files = _find_heat_files(numbers)
        self._cooling_files = _find_cooling_files()
        self._asks_clock = the_os().read(f"{_CPUS}/cpu{numbers[0]}/cpufreq/scaling_cur_freq") is not None
        self._limits_khz: dict[int, int | None] = {}
        self._begun: _Reading | None = None

    def begin(self) -> None:
        """Read everything before a repetition."""
        self._begun = self._read()

    def end(self) -> Conditions | None:
        """What was counted since `begin`; None where it was not called."""
        before, self._begun = self._begun, None
        if before is None:
            return None
        after = self._read()
        held = bool(self._throttling_files)
        clocks = self._read_clocks(before.tasks, after.tasks)
        return Conditions(
            wall_ns=max(after.at_ns - before.at_ns, 1),
            n_cpus=self._ours.count,
            n_cores=self._n_cores,
            busy_s=max(after.busy_s - before.busy_s, 0.0),
            own_s=max(after.own_s - before.own_s, 0.0),
            waited_ns=_sum_waits(before.tasks, after.tasks),
            stolen_s=max(after.stolen_s - before.stolen_s, 0.0),
            n_held=after.n_held - before.n_held if held else None,
            held_s=max(after.held_s - before.held_s, 0.0) if held else None,
            n_major_faults=_difference(before.n_major_faults, after.n_major_faults),
            n_swapped_pages=_difference(before.n_swapped_pages, after.n_swapped_pages),
            n_switched=_difference(before.n_switched, after.n_switched),
            n_thermal=self._count_heat(before.n_throttled, after.n_throttled),
            clock_mhz=clocks[0],
            clock_limit_mhz=clocks[1],
            is_server_here=self._is_server_here,
        )

    def _read(self) -> _Reading:
        system = the_os()
        times, held = cpu_times_of(self._ours), read_throttling(self._throttling_files)
        counts, tasks = system.own_counts(), _read_tasks("self")
        return _Reading(
            at_ns=time.monotonic_ns(),
            busy_s=sum(one.busy_s for one in times),
            stolen_s=sum(one.stolen_s for one in times),
            own_s=counts.cpu_s + _read_parent_s(),
            tasks=tasks,
            n_held=held.count,
            held_s=held.held_s,
            n_major_faults=counts.n_major_faults,
            n_switched=counts.n_switched,
            n_swapped_pages=_read_swapped_pages(),
            n_throttled=_sum_files(self._heat_files) if self._heat_files else None,
        )

    def _count_heat(self, before: int | None, after: int | None) -> int | None:
        """How often a core or its processor was slowed, and how many cooling devices slow it now."""
        if before is None and not self._cooling_files:
            return None
        slowing = sum((_number(path) or 0) > 0 for path in self._cooling_files)
        return (_difference(before, after) or 0) + slowing

    def _read_clocks(self, before: dict[str, _Task], after: dict[str, _Task]) -> tuple[float | None, float | None]:
        """(clock, highest clock) in MHz of the CPUs on which the threads that computed were last, on average."""
        if not self._asks_clock:
            return None, None
        began = time.monotonic()
        ran = {name: task.ran_ns - (before[name].ran_ns if name in before else 0) for name, task in after.items()}
        busiest = sorted(ran, key=lambda name: -ran[name])[: min(self._n_threads, MAX_CPUS)]
        numbers = {cpu for name in busiest if (cpu := _last_cpu(name)) is not None}
        khz = [found for cpu in numbers if (found := _number(f"{_CPUS}/cpu{cpu}/cpufreq/scaling_cur_freq"))]
        for cpu in numbers - set(self._limits_khz):
            self._limits_khz[cpu] = _number(f"{_CPUS}/cpu{cpu}/cpufreq/cpuinfo_max_freq")
        limits = [limit for cpu in numbers if (limit := self._limits_khz[cpu])]
        self._asks_clock = time.monotonic() - began < CLOCK_READ_S
        return (
            sum(khz) / len(khz) / 1e3 if khz else None,
            sum(limits) / len(limits) / 1e3 if limits else None,
        )


def _difference(before: int | None, after: int | None) -> int | None:
    """What was counted meanwhile; a counter that was set back counts nothing."""
    return None if before is None or after is None else max(after - before, 0)


def _sum_waits(before: dict[str, _Task], after: dict[str, _Task]) -> int | None:
    """Over the threads that there are at the end; one that is new began with nothing."""
    if not before or not after:
        return None
    return sum(
        max(task.waited_ns - (before[name].waited_ns if name in before else 0), 0) for name, task in after.items()
    )


def _read_tasks(process: str) -> dict[str, _Task]:
    """By thread; empty where the kernel keeps no such counts (CONFIG_SCHED_INFO)."""
    system, found = the_os(), {}
    for name in system.names(f"/proc/{process}/task"):
        words = (system.read(f"/proc/{process}/task/{name}/schedstat") or "").split()
        if len(words) == 3 and words[0].isdecimal() and words[1].isdecimal():
            found[name] = _Task(int(words[0]), int(words[1]))
    return found


def _read_parent_s() -> float:
    """CPU seconds of the process that asks this one to measure: it is ours, and no other program. To the ns where the kernel tells."""
    system = the_os()
    if tasks := _read_tasks(str(system.parent_id())):
        return sum(task.ran_ns for task in tasks.values()) / 1e9
    return system.parent_cpu_s() or 0.0


def _read_swapped_pages() -> int | None:
    found = re.findall(r"^pswp(?:in|out) (\d+)$", the_os().read("/proc/vmstat") or "", re.MULTILINE)
    return sum(map(int, found)) if found else None


def _last_cpu(task: str) -> int | None:
    """The CPU on which a thread was last. Its name, in parentheses, may have anything in it."""
    words = (the_os().read(f"/proc/self/task/{task}/stat") or "").rpartition(")")[2].split()
    return int(words[36]) if len(words) > 36 and words[36].isdecimal() else None


def _find_heat_files(numbers: Sequence[int]) -> tuple[str, ...]:
    """Counters of Intel's processors: one a core, and the package's of the first of them."""
    names = [f"{_CPUS}/cpu{number}/thermal_throttle/core_throttle_count" for number in numbers]
    names.append(f"{_CPUS}/cpu{numbers[0]}/thermal_throttle/package_throttle_count")
    return tuple(name for name in names if the_os().read(name) is not None)


def _find_cooling_files() -> tuple[str, ...]:
    root = "/sys/class/thermal"
    folders = [name for name in the_os().names(root) if name.startswith("cooling_device")]
    known = [name for name in folders if _COOLING.match(the_os().read(f"{root}/{name}/type") or "")]
    return tuple(f"{root}/{name}/cur_state" for name in known[:MAX_CPUS])


def _sum_files(paths: Sequence[str]) -> int:
    return sum(_number(path) or 0 for path in paths)


def _number(path: str) -> int | None:
    text = (the_os().read(path) or "").strip()
    return int(text) if text.isdecimal() else None
