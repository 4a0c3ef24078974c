"""What Linux's control groups leave to this process: CPU time, CPUs and memory, by both generations of them.

A limit holds for a group and all below it, so the smallest on the way up to the root counts. Inside a container the way ends at the
container's own folder; what lies above cannot be seen.

Sources: cgroups(7); Linux Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/{memory,cpusets}.rst, scheduler/sched-bwc.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.host.system import the_os


@dataclass(frozen=True, slots=True)
class Throttling:
    """How often groups were held back for their CPU quota so far, and for how many seconds of CPU time in all."""

    count: int = 0
    held_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Room:
    """One group's memory in bytes: its limit, and what of it is taken by more than file pages that can be given back at once."""

    limit_bytes: int
    used_bytes: int


def read_cpu_quota() -> float | None:
    """CPUs' worth of time that may be used in each period (2.5 by ``cpu.max`` of ``250000 100000``); None without a limit."""
    found = []
    for folder, generation in _folders("cpu"):
        if generation == 2:
            words = _words(f"{folder}/cpu.max")
        else:
            words = [*_words(f"{folder}/cpu.cfs_quota_us"), *_words(f"{folder}/cpu.cfs_period_us")]
        # Without a limit the quota is "max" or -1.
        if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]) > 0:
            found.append(int(words[0]) / int(words[1]))
    return min(found, default=None)


def read_cpuset() -> frozenset[int] | None:
    """The CPUs of the nearest cpuset that has any; None where there is none."""
    for folder, generation in _folders("cpuset"):
        for name in ("cpuset.cpus.effective",) if generation == 2 else ("cpuset.effective_cpus", "cpuset.cpus"):
            if found := parse_cpu_list(the_os().read(f"{folder}/{name}")):
                return found
    return None


def find_throttling_files() -> tuple[str, ...]:
    """Where the groups on the way up count how they are held back."""
    return tuple(path for folder, _ in _folders("cpu") if the_os().read(path := f"{folder}/cpu.stat") is not None)


def read_throttling(files: Sequence[str] | None = None) -> Throttling:
    """What the groups on the way up have been held back so far; zeros where nothing is counted. Finding their files takes longest."""
    count, held_s = 0, 0.0
    for path in find_throttling_files() if files is None else files:
        counted = _table(path)
        count += counted.get("nr_throttled", 0)
        held_s += counted.get("throttled_usec", 0) / 1e6 + counted.get("throttled_time", 0) / 1e9
    return Throttling(count, held_s)


def read_memory_rooms() -> list[Room]:
    """Each group on the way up that has a limit of memory, the nearest first."""
    rooms = []
    for folder, generation in _folders("memory"):
        counted = _table(f"{folder}/memory.stat")
        if generation == 2:
            limit, used = _number(f"{folder}/memory.max"), _number(f"{folder}/memory.current")
            files = counted.get("inactive_file", 0) + counted.get("active_file", 0)
        else:
            # The limit of a parent that is not mounted here stands in memory.stat too.
            limits = [_number(f"{folder}/memory.limit_in_bytes"), counted.get("hierarchical_memory_limit")]
            limit, used = min((one for one in limits if one), default=None), _number(f"{folder}/memory.usage_in_bytes")
            files = counted.get("total_inactive_file", 0) + counted.get("total_active_file", 0)
        if limit:
            rooms.append(Room(limit, max((used or 0) - files, 0)))
    return rooms


def read_oom_kills(pid: int) -> tuple[str, int] | None:
    """A process's group of memory, and how often the kernel killed in it for memory; None where either is not told.

    Only of version 2: version 1 does not tell the group of a process that has ended. Source: cgroup-v2.rst, memory.events (oom_kill);
    proc_cgroup_show in linux/kernel/cgroup/cgroup.c; __oom_kill_process in linux/mm/oom_kill.c counts it to the victim's group.
    """
    for folder, generation in _folders("memory", pid):
        counted = _table(f"{folder}/memory.events") if generation == 2 else {}
        return (folder, counted["oom_kill"]) if "oom_kill" in counted else None
    return None


def parse_cpu_list(text: str | None) -> frozenset[int]:
    """CPU numbers of a list as the kernel writes it, ``0-3,8``; empty where there is none. Source: cpuset(7), "List format"."""
    found: set[int] = set()
    for part in (text or "").strip().split(","):
        if match := re.fullmatch(r"(\d+)(?:-(\d+))?", part):
            found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return frozenset(found)


def _folders(controller: str, pid: int | None = None) -> Iterator[tuple[str, int]]:
    """(folder, generation) of a process's group for a controller, then of each above it up to where the hierarchy is mounted."""
    path, generation = _path_of(controller, "self" if pid is None else str(pid))
    if path is None:
        return
    for root, mount in _mounts(controller, generation):
        below = path if root == "/" else path.removeprefix(root) if f"{path}/".startswith(f"{root}/") else ""
        parts = [part for part in below.split("/") if part]
        if ".." in parts:  # the process was moved out of what its namespace shows
            parts = []
        for length in range(len(parts), -1, -1):
            yield "/".join([mount.rstrip("/"), *parts[:length]]), generation
        return


def _path_of(controller: str, process: str) -> tuple[str | None, int]:
    """A process's group in the hierarchy that has the controller, and its generation: the first where it is mounted there."""
    unified = None
    for line in (the_os().read(f"/proc/{process}/cgroup") or "").splitlines():
        if match := re.fullmatch(r"\d+:([^:]*):(.*)", line):
            if controller in match[1].split(","):
                return match[2], 1
            unified = unified if match[1] else match[2]
    return unified, 2


def _mounts(controller: str, generation: int) -> Iterator[tuple[str, str]]:
    """(folder of the hierarchy, where it is mounted). Source: proc(5), /proc/pid/mountinfo."""
    for line in (the_os().read("/proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2" if generation == 2 else kind[0] == "cgroup" and controller in kind[2].split(","):
            root, mount = (re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), field) for field in fields[3:5])
            yield root, mount


def _words(path: str) -> list[str]:
    return (the_os().read(path) or "").split()


def _number(path: str) -> int | None:
    words = _words(path)
    return int(words[0]) if words and words[0].isdecimal() else None


def _table(path: str) -> dict[str, int]:
    """A flat keyed file: a name and a number a line."""
    pairs = (line.split() for line in (the_os().read(path) or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
