"""What the operating system answers about processors and memory: the one place that asks it.

Whoever wants such a fact takes it from `harness.host.cpu`, `harness.host.memory` or `harness.host.machine`, and those ask here; so a
test that
puts another machine's answers in this place has put them everywhere.
"""

from __future__ import annotations

import os
import pathlib
import platform
import subprocess
import sys
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class CpuTime:
    """CPU seconds since the machine's start, of one CPU or of several: busy with anything, and stolen by the hypervisor."""

    busy_s: float
    stolen_s: float


@dataclass(frozen=True, slots=True)
class OwnCounts:
    """Of this process so far, with threads that have ended; None is what the OS does not tell."""

    cpu_s: float
    n_major_faults: int | None = None  #: pages that had to be read from disk
    n_switched: int | None = None  #: switches to another thread that ours did not ask for


class OperatingSystem:
    """The questions; None or an empty text is "it does not say", and no question raises."""

    @property
    def platform(self) -> str:
        """As `sys.platform`: linux, darwin, win32."""
        return sys.platform

    @property
    def name(self) -> str:
        return f"{platform.system()} {platform.release()}"

    @property
    def arch(self) -> str:
        return platform.machine()

    def read(self, path: str) -> str | None:
        """The text of a file of the kernel's; None where it is not there or may not be read."""
        try:
            return pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
        except (OSError, ValueError):
            return None

    def sysctl(self, name: str) -> str:
        """One answer of macOS's sysctl."""
        try:
            done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5)
        except (OSError, subprocess.SubprocessError):
            return ""
        return done.stdout.strip()

    def processor(self) -> str:
        """What Python's `platform` calls the processor; on Windows the registry's name of it, which says more."""
        if sys.platform == "win32":
            import winreg

            try:
                with winreg.OpenKey(
                    winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
                ) as key:
                    return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
            except OSError:
                pass
        return platform.processor()

    def count_cpus(self, *, logical: bool) -> int | None:
        return psutil.cpu_count(logical=logical)

    def affinity(self) -> frozenset[int] | None:
        """Numbers of the CPUs on which this process may run, a cpuset's bounds included; None where the OS keeps no such set."""
        if hasattr(os, "sched_getaffinity"):
            return frozenset(os.sched_getaffinity(0))
        if sys.platform == "win32" and (psutil.cpu_count() or 1) <= 64:  # beyond, one group of 64 is all that is told
            return frozenset(psutil.Process().cpu_affinity())
        return None

    def memory_bytes(self) -> tuple[int, int]:
        """(all of the machine's memory, what can be taken without swapping as the OS estimates it)."""
        memory = psutil.virtual_memory()
        return memory.total, memory.available

    def cpu_times(self) -> tuple[CpuTime, ...]:
        """Of each CPU that is online, in the order of their numbers."""
        found = []
        for times in psutil.cpu_times(percpu=True):
            idle = times.idle + getattr(times, "iowait", 0.0)
            stolen = getattr(times, "steal", 0.0)
            # On Linux guest time is already in user time.
            total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
            found.append(CpuTime(total - idle - stolen, stolen))
        return tuple(found)

    def names(self, path: str) -> list[str]:
        """What is in a folder of the kernel's; empty where it is not there or may not be read."""
        try:
            return os.listdir(path)
        except OSError:
            return []

    def own_counts(self) -> OwnCounts:
        """By getrusage(2), to the microsecond; Windows tells CPU time alone, in ticks."""
        if sys.platform == "win32":
            return OwnCounts(self.own_cpu_s())
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        return OwnCounts(used.ru_utime + used.ru_stime, used.ru_majflt, used.ru_nivcsw)

    def parent_id(self) -> int:
        """The process that started this one."""
        return os.getppid()

    def parent_cpu_s(self) -> float | None:
        """CPU seconds of the process that started this one; None where it is gone or may not be asked."""
        try:
            times = psutil.Process(os.getppid()).cpu_times()
        except (psutil.Error, OSError):
            return None
        return times.user + times.system

    def own_cpu_s(self) -> float:
        """CPU seconds of this process."""
        times = psutil.Process().cpu_times()
        return times.user + times.system

    def cpu_mhz(self) -> float | None:
        """The mean clock of all CPUs in MHz; reads a file a CPU, so that it costs milliseconds on a large machine."""
        try:
            return self.read_clock_mhz()
        except Exception:  # psutil lets through what it meets: FileNotFoundError, NotImplementedError, ValueError
            return None

    def read_clock_mhz(self) -> float | None:
        """As `cpu_mhz`, but raises whatever psutil raises on a machine whose files it does not know."""
        frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
        return frequency.current if frequency is not None and frequency.current else None

    def is_plugged_in(self) -> bool | None:
        """Whether the mains feed the machine; None where it has no battery, or does not say."""
        try:
            battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
        except Exception:  # as `cpu_mhz`
            return None
        return None if battery is None else battery.power_plugged

    def program_times(self) -> dict[tuple[int, str], float]:
        """CPU seconds so far by (number, name) of each process that may be seen, but this one and those that it started."""
        found = {}
        try:
            own = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
            for process in psutil.process_iter(["name", "cpu_times"]):
                times, name = process.info["cpu_times"], process.info["name"]
                if times and name and process.pid not in own:
                    found[process.pid, name] = times.user + times.system
        except (psutil.Error, OSError):
            return {}
        return found


_system = OperatingSystem()


def the_os() -> OperatingSystem:
    """The operating system that is asked."""
    return _system
