"""Machines as their operating systems tell them: each `.toml` here is one, written after the formats that the kernel's documents, lscpu's
test data and public listings show. `Identity` answers in the place of `harness.host.system.OperatingSystem`.

A block of /proc/cpuinfo stands once for all CPUs that have the same text but for their number.
"""

from __future__ import annotations

import pathlib
import sys
from typing import Any

from harness.host.system import CpuTime, OperatingSystem, OwnCounts

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = pathlib.Path(__file__).parent

#: Every machine by its name.
NAMES = sorted(path.stem for path in HERE.glob("*.toml"))

#: The one that tests run on where nobody says otherwise; that of the recorded runs.
DEFAULT = "epyc-vm"


def read_cpu_list(text: str) -> list[int]:
    """CPU numbers of a list as the kernel writes it: ``0-3,8``."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


class Identity(OperatingSystem):
    """One machine of this folder. `files` may be changed by a test; `times` and `own_s` are what the CPUs have worked so far."""

    def __init__(self, name: str) -> None:
        self.short_name = name
        self.told: dict[str, Any] = tomllib.loads((HERE / f"{name}.toml").read_text(encoding="utf-8"))
        self.files: dict[str, str] = dict(self.told.get("files", {}))
        self._build_cpus(self.told.get("cpus", ()))
        numbers = self.told.get("affinity")
        self.allowed = frozenset(read_cpu_list(numbers)) if numbers else frozenset(self.siblings) or None
        self.times = [CpuTime(100.0, 0.0)] * (self.count_cpus(logical=True) or 1)
        self.own_s = 50.0
        self.programs: dict[tuple[int, str], float] = {}
        self.parent_s: float | None = 1.0
        self.counts: dict[str, int | None] = {"n_major_faults": 7, "n_switched": 30}

    def _build_cpus(self, groups: Any) -> None:
        """Write /proc/cpuinfo, the list of CPUs that are online and each one's topology, as Linux has them."""
        self.siblings: dict[int, tuple[int, ...]] = {}
        text = ""
        for group in groups:
            numbers, n_threads = read_cpu_list(group["numbers"]), group["threads_per_core"]
            n_cores = len(numbers) // n_threads
            for place, number in enumerate(numbers):
                core = place // n_threads if group.get("siblings") == "adjacent" else place % n_cores
                step = 1 if group.get("siblings") == "adjacent" else n_cores
                first = core * n_threads if step == 1 else core
                self.siblings[number] = tuple(numbers[first + step * thread] for thread in range(n_threads))
                text += group["cpuinfo"].format(cpu=number, core=core)
        if self.siblings:
            self.files["/proc/cpuinfo"] = text + self.told.get("cpuinfo_end", "")
            self.files.setdefault("/sys/devices/system/cpu/online", f"0-{max(self.siblings)}\n")
        for number, together in self.siblings.items():
            mask = sum(1 << other for other in together)
            width = -(-(max(self.siblings) + 1) // 4)
            self.files[f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings"] = f"{mask:0{width}x}\n"

    @property
    def platform(self) -> str:
        return self.told["platform"]

    @property
    def name(self) -> str:
        return self.told["os"]

    @property
    def arch(self) -> str:
        return self.told["arch"]

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def sysctl(self, name: str) -> str:
        return self.told.get("sysctl", {}).get(name, "")

    def processor(self) -> str:
        return self.told.get("processor", "")

    def count_cpus(self, *, logical: bool) -> int | None:
        if not self.siblings:
            return self.told.get("n_logical" if logical else "n_physical")
        return len(self.siblings) if logical else len(set(self.siblings.values()))

    def affinity(self) -> frozenset[int] | None:
        return self.allowed

    def memory_bytes(self) -> tuple[int, int]:
        total, available = self.told["memory_bytes"]
        return total, available

    def cpu_times(self) -> tuple[CpuTime, ...]:
        return tuple(self.times)

    def own_cpu_s(self) -> float:
        return self.own_s

    def is_plugged_in(self) -> bool | None:
        return self.told.get("is_plugged_in")

    def program_times(self) -> dict[tuple[int, str], float]:
        return dict(self.programs)

    def names(self, path: str) -> list[str]:
        inside = f"{path.rstrip('/')}/"
        return sorted({name[len(inside) :].split("/")[0] for name in self.files if name.startswith(inside)})

    def own_counts(self) -> OwnCounts:
        return OwnCounts(self.own_s, **self.counts)

    def parent_id(self) -> int:
        return 1

    def parent_cpu_s(self) -> float | None:
        return self.parent_s

    def read_clock_mhz(self) -> float | None:
        told = self.told["cpu_mhz"]
        if told == "raises":
            raise NotImplementedError("can't find current frequency file")
        return None if told == "none" else float(told)
