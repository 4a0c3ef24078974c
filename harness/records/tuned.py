"""Settings that were found fastest for one model, and what they were found with: they hold for no other build, file or machine."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.codec import UtcTime
from harness.records.cells import Build, Machine, machine_key
from harness.spec import RunSpec, Settings, defaults, parameters

#: Raised when a field changes its meaning.
SCHEMA = 1


class Change(str, enum.Enum):
    """What is not as it was when the settings were found."""

    BUILD = "build"
    FILE = "file"
    MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class Tuned:
    """What is kept of a tuning. file_sha256 is None of a file that is too large to be hashed: its size has to do.

    goal is what they are for (``chat``), n_ctx the context in tokens that fitted with them, cpu, n_cores_physical and memory_gib the
    machine's `records.cells.machine_key`.
    """

    spec: RunSpec
    goal: str
    n_ctx: int
    commit: str  #: of llama.cpp
    file_sha256: str | None
    file_size_bytes: int | None
    cpu: str
    n_cores_physical: int
    memory_gib: int
    time_utc: UtcTime
    schema: int = field(default=SCHEMA)

    @property
    def settings(self) -> Settings:
        """The fields of a run that are not as usual, and always the number of threads: what decides how fast a model is, and not what
        is asked of it."""
        usual = defaults()
        found = {name: getattr(self.spec, name) for name in parameters("load", "context") if name not in _OF_QUESTIONS}
        return {name: value for name, value in found.items() if value != usual[name]}

    def changes(self, build: Build, machine: Machine, sha256: str | None, size_bytes: int | None) -> Iterator[Change]:
        """What has changed since."""
        if build.commit != self.commit:
            yield Change.BUILD
        is_same = sha256 == self.file_sha256 if sha256 or self.file_sha256 else size_bytes == self.file_size_bytes
        if not is_same:
            yield Change.FILE
        if machine_key(machine) != (self.cpu, self.n_cores_physical, self.memory_gib):
            yield Change.MACHINE


#: Fields of loads and contexts that say what is asked and not how it is done.
_OF_QUESTIONS = frozenset({"embeddings", "kv_unified", "swa_full"})


def make_tuned(
    spec: RunSpec, goal: str, n_ctx: int, time_utc: str, *, build: Build, machine: Machine, sha256: str | None, size_bytes: int | None
) -> Tuned:  # fmt: skip
    """What is kept of settings that were found now."""
    cpu, n_cores_physical, memory_gib = machine_key(machine)
    return Tuned(
        spec, goal, n_ctx, build.commit, sha256, size_bytes, cpu=cpu, n_cores_physical=n_cores_physical, memory_gib=memory_gib,
        time_utc=time_utc,
    )  # fmt: skip
