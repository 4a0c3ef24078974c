"""How noisy a machine was for half a minute, as it was timed: blocks of repetitions of small tests, and how the system is set.

Nothing is derived here: `harness.evidence.detectable` says which difference such durations show, `harness.records.advice` what
would help.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.codec import PositiveNumber, Shared, UtcTime
from harness.records.cautions import Caution
from harness.records.cells import Build, Machine, Model, Record, Resolved, Sample
from harness.records.failures import Failure
from harness.spec import RunSpec

#: History of the line format of kind "noise".
#: 1 (2026-11): first.
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Tuning:
    """How the operating system sets what makes a machine steady; None (or empty) is what it does not say.

    governors and preferences are those of the CPUs that are ours, each once; core_cpus is one CPU of each core of ours that llama.cpp
    would use, and n_siblings how many of ours share a core with another one of ours.
    """

    governors: tuple[str, ...] = ()  #: of the clock: performance, powersave, schedutil, …
    preferences: tuple[str, ...] = ()  #: energy against performance, where the processor itself chooses the clock
    driver: str | None = None  #: of the clock
    is_turbo_on: bool | None = None  #: whether clocks beyond the nominal one are allowed
    profile: str | None = None  #: the platform's: low-power, balanced, performance, …
    is_plugged_in: bool | None = None  #: whether the mains feed it; None: there is no battery, or it does not say
    quota: PositiveNumber | None = None  #: of a control group, in CPUs' worth of time
    is_virtual: bool | None = None  #: whether a hypervisor is below
    n_siblings: int = 0  #: of our CPUs, those that share their core with another of ours
    core_cpus: tuple[int, ...] = ()  #: one CPU of each core


@dataclass(frozen=True, slots=True)
class NoiseBlock:
    """Repetitions of one test without a break, in a context of their own; begun_ns is when, since the first block began."""

    asked: Shared[RunSpec]
    begun_ns: int
    samples: tuple[Sample, ...]  #: in the order of time, the warm-up first

    @property
    def timed(self) -> tuple[Sample, ...]:
        """The repetitions that count."""
        return tuple(sample for sample in self.samples if not sample.is_warmup)


@dataclass(frozen=True, slots=True)
class NoiseRecord:
    """All repetitions of half a minute."""

    time_utc: UtcTime
    machine: Shared[Machine]
    harness_version: str
    wanted_s: PositiveNumber  #: how long it was to take
    blocks: tuple[NoiseBlock, ...] = ()  #: in the order of time
    tuning: Tuning | None = None  #: how the system was set when it ended
    build: Shared[Build] | None = None
    model: Shared[Model] | None = None
    resolved: Shared[Resolved] | None = None
    failure: Failure | None = None
    warnings: tuple[Caution, ...] = ()
    command: str = "noise"
    schema: int = SCHEMA


def each_test(record: NoiseRecord) -> list[Record]:
    """The repetitions of each test as a cell, in the order of time: what a cell is judged by goes for them too."""
    tests: dict[RunSpec, list[Sample]] = {}
    for block in record.blocks:
        tests.setdefault(block.asked, []).extend(block.samples)
    return [
        Record(
            record.command, record.time_utc, asked, record.machine, record.harness_version, tuple(samples), record.build,
            record.model, record.resolved,
        )
        for asked, samples in tests.items()
    ]  # fmt: skip
