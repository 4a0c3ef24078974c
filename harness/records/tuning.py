"""How settings were looked for that are fast on a machine: every block that was measured, in the order of the races, and what was not
tried and why.

What was found is not kept: `replay_race` makes each race again from its blocks, and `replay_confirmation` the test that held the result
against llama.cpp's defaults. All costs are of the work that was asked for, in ns: its prompt at the speed of the prompts that were
measured, and its answer at that of the tokens.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from harness.codec import NOT_EMPTY, Positive, PositiveNumber, Shared, UtcTime
from harness.evidence.medians import median
from harness.evidence.racing import Race
from harness.evidence.sequential import Decision, SequentialTest
from harness.records.cautions import Caution
from harness.records.cells import Build, Conditions, Machine, Model, Resolved
from harness.records.failures import Failure
from harness.spec import RunSpec

#: History of the line format of kind "tuning". 1 (2026-11): first.
SCHEMA = 1


class Part(str, enum.Enum):
    """Which part of the work a block measures."""

    PROMPT = "prompt"
    GENERATION = "generation"


class Quality(str, enum.Enum):
    """Whether the model's answers must stay what they are, or may become a little worse (a quantized cache)."""

    KEEP = "keep"
    ALLOW = "allow"


class Stop(str, enum.Enum):
    """Why it ended. done: the result was held against the defaults, or is the defaults; noisy: the machine cannot be tuned on now."""

    DONE = "done"
    TIME = "time"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    NOISY = "noisy"


class Why(str, enum.Enum):
    """Why something was not tried."""

    NO_DEVICE = "no-device"  # layers have nowhere to go but the CPU
    ONE_DEVICE = "one-device"  # there is nothing to share out
    ALL_ON_DEVICES = "all-on-devices"  # nothing is left to the CPU that this would change
    ONE_NODE = "one-node"  # all memory is equally near
    ONE_CPU = "one-cpu"
    SHORT_PROMPT = "short-prompt"  # the work's prompts fit into one batch as it is
    NOTHING_REPACKED = "nothing-repacked"  # no weight has another layout for this processor
    QUALITY = "quality"  # it would change what the model says
    NO_FIT = "no-fit"  # it does not fit into memory
    NO_TIME = "no-time"  # the time was up before
    NO_EFFECT = "no-effect"  # this build of llama.cpp does not heed it
    OTHERS = "others"  # it would take time from other programs, and changes nothing where there are none
    GIVEN = "given"  # whoever asked gave its value


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be fast: n_gen tokens in answer to a prompt of n_prompt, with n_depth in the cache before, in a context of n_ctx."""

    purpose: str  #: chat, rag, batch or coding
    n_prompt: Positive  #: tokens of the prompt
    n_gen: Positive  #: tokens of the answer
    n_depth: int  #: tokens in the cache before
    n_ctx: Positive  #: tokens that have to have room


@dataclass(frozen=True, slots=True)
class ShortTests:
    """What blocks measure in the place of the work: prompts and answers that take no longer than is needed to tell candidates apart."""

    n_prompt: Positive  #: tokens of a prompt
    n_gen: Positive  #: tokens of an answer
    n_depth: int  #: tokens in the cache before each of the two


@dataclass(frozen=True, slots=True)
class TuneBlock:
    """Repetitions of one part by one candidate. conditions are kept where a verdict is to be had of them."""

    candidate: int  #: its place in the race
    part: Part  #: which part of the work
    durations_ns: Annotated[tuple[int, ...], NOT_EMPTY]  #: of each repetition
    conditions: tuple[Conditions, ...] = ()  #: what the operating system says of each

    def __post_init__(self) -> None:
        if not all(self.durations_ns) or (self.conditions and len(self.conditions) != len(self.durations_ns)):
            raise ValueError("every repetition has a duration above 0, and conditions where any has")


@dataclass(frozen=True, slots=True)
class TuneCandidate:
    """Settings that take part in a race; its spec is of the whole work."""

    asked: Shared[RunSpec]  #: all its settings
    failure: Failure | None = None  #: why it could not be measured further


@dataclass(frozen=True, slots=True)
class TuneRace:
    """Candidates that differ by one setting, or by some that belong together; the first is the incumbent.

    rest_ns is the work's time of the part that the race did not measure, as the incumbent had it; 0 where it measured both. tests is
    what its blocks measured where that is not what those of the other races did: how prompts are cut shows in long ones alone.
    """

    settings: tuple[str, ...]  #: fields of `RunSpec` that are raced
    candidates: Annotated[tuple[TuneCandidate, ...], NOT_EMPTY]  #: the incumbent first
    blocks: tuple[TuneBlock, ...] = ()  #: in the order in which they were measured
    rest_ns: float = 0.0  #: of the part that was not measured
    most_rounds: Positive = 20  #: after which it was over in any case
    tests: ShortTests | None = None  #: None: the record's

    def __post_init__(self) -> None:
        if not all(0 <= block.candidate < len(self.candidates) for block in self.blocks):
            raise ValueError("a block of a candidate that is not there")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Settings that were not tried: fields of `RunSpec` with the values that were not, or all of them."""

    settings: tuple[str, ...]  #: fields of `RunSpec`
    why: Why  #: why not
    values: tuple[str, ...] = ()  #: which values, as they are asked for; empty: any


@dataclass(frozen=True, slots=True)
class TuneRecord:
    """One search. Blocks of baseline and confirmation have conditions; in the confirmation candidate 0 is the defaults' and 1 the
    result's."""

    command: str
    time_utc: UtcTime
    machine: Shared[Machine]
    harness_version: str
    base: Shared[RunSpec]  #: llama.cpp's defaults, with as many layers on the devices as fit
    work: Work  #: what was to be fast
    tests: ShortTests | None = None  #: what blocks measured; None: it ended before
    quality: Quality = Quality.KEEP  #: whether a quantized cache was allowed
    vram_bytes: int | None = None  #: of each device, that was to be used at the most
    max_time_s: PositiveNumber = 300.0  #: that was given to all of it
    margin: PositiveNumber = 0.01  #: a difference within it does not count, as a share
    alpha: PositiveNumber = 0.05  #: how often at most each race, and the confirmation, may be wrong
    seed: int = 0  #: of the order within rounds
    baseline: tuple[TuneBlock, ...] = ()  #: of the defaults, before the races
    races: tuple[TuneRace, ...] = ()  #: in their order
    confirmation: tuple[TuneBlock, ...] = ()  #: defaults and result by turns, both parts of each
    left_out: tuple[LeftOut, ...] = ()  #: what was not tried
    stop: Stop = Stop.DONE  #: why it ended
    elapsed_ns: int = 0  #: in all, with loads
    model: Shared[Model] | None = None
    build: Shared[Build] | None = None
    resolved: Shared[Resolved] | None = None  #: what the defaults came to
    failure: Failure | None = None  #: of the defaults, which ended it
    threads_source: str = "asked"  #: what decided the defaults' number of threads, as of a cell
    warnings: tuple[Caution, ...] = ()
    final_tests: ShortTests | None = None  #: what blocks of the confirmation measured; None: the same
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if not (self.margin < 1 and self.alpha < 1):
            raise ValueError("margin and alpha are shares below 1")
        if not all(block.candidate in (0, 1) for block in (*self.baseline, *self.confirmation)):
            raise ValueError("a confirmation is of the defaults and the result")

    @property
    def found(self) -> RunSpec:
        """The settings that the races came to, whether they are proven better than the defaults or not."""
        spec = self.base
        for race in self.races:
            winner = replay_race(race, self).winner
            spec = race.candidates[winner].asked if winner is not None else spec
        return spec

    @property
    def is_proven(self) -> bool:
        """Whether what was found is proven faster than the defaults."""
        return replay_confirmation(self).decision is Decision.FASTER

    @property
    def chosen(self) -> RunSpec:
        """The settings to use: those that were found where they are proven to be faster, else the defaults."""
        return self.found if self.is_proven else self.base


def short_test(spec: RunSpec, part: Part, tests: ShortTests, repetitions: int = 1) -> RunSpec:
    """The cell by which one part of a candidate's work is measured. Each is warmed up by a whole repetition when it is new."""
    is_prompt = part is Part.PROMPT
    return dataclasses.replace(
        spec, n_prompt=tests.n_prompt if is_prompt else 0, n_gen=0 if is_prompt else tests.n_gen, n_depth=tests.n_depth,
        repetitions=repetitions, warmup=True,
    )  # fmt: skip


def work_ns(durations_ns: Sequence[int], part: Part, work: Work, tests: ShortTests) -> float:
    """What one part of the work takes, in ns, by the median duration of its test."""
    if part is Part.PROMPT:
        return median(durations_ns) * work.n_prompt / tests.n_prompt
    return median(durations_ns) * work.n_gen / tests.n_gen


def costs_of(blocks: Sequence[TuneBlock], work: Work, tests: ShortTests | None) -> dict[int, list[float]]:
    """The work's time in ns by candidate, in each round that it has measured all parts that were measured; see `TuneRace.rest_ns`."""
    if tests is None:
        return {}
    parts = {block.part for block in blocks}
    found: dict[int, dict[Part, list[float]]] = {}
    for block in blocks:
        ns = work_ns(block.durations_ns, block.part, work, tests)
        found.setdefault(block.candidate, {part: [] for part in parts})[block.part].append(ns)
    return {candidate: list(map(sum, zip(*by_part.values(), strict=False))) for candidate, by_part in found.items()}


def replay_race(race: TuneRace, record: TuneRecord) -> Race:
    """A race as it stood when the measuring ended, from its blocks."""
    replayed = Race(len(race.candidates), record.margin, record.alpha, race.most_rounds)
    costs = costs_of(race.blocks, record.work, race.tests or record.tests)
    for number in range(race.most_rounds):
        for candidate in replayed.alive:
            if race.candidates[candidate].failure and len(costs.get(candidate, ())) <= number:
                replayed.fail(candidate)
        is_whole = all(len(costs.get(candidate, ())) > number for candidate in replayed.alive)
        if replayed.is_over or not is_whole:
            break
        replayed.add({candidate: costs[candidate][number] + race.rest_ns for candidate in replayed.alive})
    return replayed


def replay_confirmation(record: TuneRecord) -> SequentialTest:
    """The test of the result (B) against the defaults (A) as it stood when the measuring ended; a ratio below 1 is a gain."""
    test = SequentialTest(record.margin, record.alpha)
    costs = costs_of(record.confirmation, record.work, record.final_tests or record.tests)
    pairs = zip(costs.get(0, ()), costs.get(1, ()), strict=False)
    test.replay((math.log(found / defaults) for defaults, found in pairs), is_last=record.stop is Stop.TIME)
    return test
