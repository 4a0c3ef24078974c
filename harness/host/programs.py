"""Which programs take CPU time meanwhile. Names of programs are for the terminal alone: no record and no file ever holds one."""

from __future__ import annotations

from dataclasses import dataclass

from harness.host.system import the_os


@dataclass(frozen=True, slots=True)
class ProgramTime:
    """A program, all its processes together, and the CPU seconds that they took."""

    name: str
    cpu_s: float


class ProgramWatch:
    """Takes note of what has run so far; `busiest` says what ran since. Both take some milliseconds: never beside a timed region."""

    def __init__(self) -> None:
        self._before = the_os().program_times()

    def busiest(self, least_s: float, most: int = 5) -> list[ProgramTime]:
        """The programs of others that took at least so many CPU seconds since, those that took most first."""
        taken: dict[str, float] = {}
        for key, cpu_s in the_os().program_times().items():
            taken[key[1]] = taken.get(key[1], 0.0) + cpu_s - self._before.get(key, 0.0)
        found = [ProgramTime(name, cpu_s) for name, cpu_s in taken.items() if cpu_s >= least_s]
        return sorted(found, key=lambda one: -one.cpu_s)[:most]
