"""What would make a machine steadier: only what applies, what explains most of what was seen first."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.evidence.detectable import Detectable, Pattern, find_detectable, find_pattern
from harness.records.cell_verdict import Marked, mark
from harness.records.cells import Record
from harness.records.disturbances import Disturbance
from harness.records.noise import NoiseRecord, Tuning, each_test


class Advice(str, enum.Enum):
    """What to do about it."""

    END_PROGRAMS = "end-programs"  # others compute on our CPUs
    LEAVE_NEIGHBOURS = "leave-neighbours"  # the hypervisor gives the CPUs to others
    RAISE_QUOTA = "raise-quota"  # a control group holds us back
    COOL = "cool"  # the processor is slowed for its heat
    FREE_MEMORY = "free-memory"  # pages come from disk or from swap
    PLUG_IN = "plug-in"  # it runs on its battery
    GOVERNOR = "governor"  # the clock is not set to performance
    PREFERENCE = "preference"  # the processor is told to save energy
    PROFILE = "profile"  # the platform is
    TURBO_OFF = "turbo-off"  # clocks beyond the nominal one come and go
    PIN = "pin"  # threads may share a core with one another
    TAKE_TURNS = "take-turns"  # equal runs that are apart in time differ by themselves


#: What is done about a disturbance of repetitions.
_AGAINST = {
    Disturbance.OTHERS: Advice.END_PROGRAMS,
    Disturbance.SWITCHES: Advice.END_PROGRAMS,
    Disturbance.STEAL: Advice.LEAVE_NEIGHBOURS,
    Disturbance.QUOTA: Advice.RAISE_QUOTA,
    Disturbance.HEAT: Advice.COOL,
    Disturbance.PAGE_INS: Advice.FREE_MEMORY,
    Disturbance.SWAP: Advice.FREE_MEMORY,
}

#: Below this half width with ten repetitions a machine is steady, and how its system is set needs no change.
STEADY_SHARE = 0.01

#: Equal runs that are told to differ more often than this, where one in twenty is the claim, are noisy in time.
OFTEN = 0.15


@dataclass(frozen=True, slots=True)
class Advised:
    """A piece of advice with the share of repetitions that speak for it; 0: only how the system is set does."""

    advice: Advice
    share: float


@dataclass(frozen=True, slots=True)
class Test:
    """What was found of one test: by all repetitions, and by those that nothing disturbed; None where they are too few."""

    cell: Record
    marked: Sequence[Marked]
    pattern: Pattern | None
    quiet_pattern: Pattern | None
    detectable: Sequence[Detectable]

    @property
    def is_steady(self) -> bool:
        """Whether ten repetitions say their median closely, and equal runs are told to be equal."""
        ten = next((one for one in self.detectable if one.n == 10), None)
        return ten is not None and ten.half_width is not None and ten.half_width < STEADY_SHARE and not self.is_wavy

    @property
    def is_wavy(self) -> bool:
        """Whether equal runs differ by when they were made."""
        found = self.pattern
        often = any((one.equal_apart or 0) > OFTEN for one in self.detectable)
        return often or (found is not None and (found.drift is not None or found.states is not None))


def find_tests(record: NoiseRecord) -> list[Test]:
    """What the repetitions of each test say. This takes some seconds: thousands of runs are drawn from them."""
    found = []
    for cell in each_test(record):
        durations = [sample.duration_ns for sample in cell.timed]
        if durations:
            marked = mark(cell)
            quiet = [one.sample.duration_ns for one in marked if not one.disturbances]
            found.append(Test(cell, marked, find_pattern(durations), find_pattern(quiet), find_detectable(durations)))
    return found


def count_disturbances(tests: Sequence[Test]) -> dict[Disturbance, float]:
    """The share of all repetitions that each disturbance was seen in, those that were not left out."""
    marked = [one for test in tests for one in test.marked]
    counts = {kind: sum(kind in one.disturbances for one in marked) for kind in Disturbance}
    return {kind: count / len(marked) for kind, count in counts.items() if count}


def advise(tests: Sequence[Test], tuning: Tuning | None) -> list[Advised]:
    """What would help, by what was seen. A steady machine needs none."""
    found: dict[Advice, float] = {}
    for one in (*_by_disturbances(tests), *_by_tuning(tests, tuning or Tuning()), *_by_pattern(tests)):
        found[one.advice] = max(found.get(one.advice, 0.0), one.share)
    return sorted((Advised(*pair) for pair in found.items()), key=lambda one: -one.share)


def _by_disturbances(tests: Sequence[Test]) -> Iterator[Advised]:
    for kind, share in count_disturbances(tests).items():
        if kind in _AGAINST:
            yield Advised(_AGAINST[kind], share)


def _by_tuning(tests: Sequence[Test], tuning: Tuning) -> Iterator[Advised]:
    """How the system is set matters where repetitions differ; most where the clock was seen to move."""
    if all(test.is_steady for test in tests):
        return
    moved = share_of_clock(tests)
    if tuning.is_plugged_in is False:
        yield Advised(Advice.PLUG_IN, moved)
    if any(governor != "performance" for governor in tuning.governors) and not tuning.preferences:
        yield Advised(Advice.GOVERNOR, moved)
    if any(preference != "performance" for preference in tuning.preferences):
        yield Advised(Advice.PREFERENCE, moved)
    if tuning.profile is not None and tuning.profile not in ("performance", "balanced-performance"):
        yield Advised(Advice.PROFILE, moved)
    if tuning.is_turbo_on and moved:
        yield Advised(Advice.TURBO_OFF, moved)
    if tuning.n_siblings and any((test.cell.asked.n_threads or 1) > 1 for test in tests):
        yield Advised(Advice.PIN, 0.0)


def share_of_clock(tests: Sequence[Test]) -> float:
    """The share of repetitions in which the clock was low, or which were in the slower of two states though nothing else was seen."""
    low = count_disturbances(tests).get(Disturbance.CLOCK, 0.0)
    return max([low, *(found.states[2] for test in tests if (found := test.quiet_pattern) and found.states)])


def _by_pattern(tests: Sequence[Test]) -> Iterator[Advised]:
    if any(test.is_wavy for test in tests):
        yield Advised(Advice.TAKE_TURNS, 0.0)
