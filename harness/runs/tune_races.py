"""The way of a search for fast settings, on any machine that can measure a block: short tests are found, each factor is raced, and the
result is held against the defaults.

Nothing here knows a clock, a worker or a file: `Measures` is whoever has a block measured, so that recorded and simulated machines can
stand in.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from harness.evidence.racing import EARLY_LOOKS, Race
from harness.evidence.sequential import SequentialTest
from harness.records.cells import Sample
from harness.records.failures import Failure
from harness.records.tuning import (
    LeftOut,
    Part,
    Quality,
    ShortTests,
    Stop,
    TuneBlock,
    TuneCandidate,
    TuneRace,
    TuneRecord,
    Why,
    Work,
    short_test,
    work_ns,
)
from harness.runs.bench import process_nature
from harness.runs.tune_space import Factor, Room, lay_out
from harness.spec import RunSpec
from harness.units import NS_PER_S

#: Shares of the whole time that a prompt, an answer, and filling the cache before them may take in a short test.
PROMPT_SHARE, GENERATION_SHARE, DEPTH_SHARE = 0.006, 0.002, 0.004

#: The same of a long prompt, by which it is seen how prompts are cut into batches.
LONG_PROMPT_SHARE = 0.015

#: Tokens by which it is found out how long a token takes; and the fewest of a short test.
PROBE_PROMPT, PROBE_GEN, LEAST_PROMPT, LEAST_GEN = 64, 8, 64, 4

#: Blocks of each part by which the defaults are known before anything is raced.
BASELINE_BLOCKS = 3

#: A disturbed baseline is measured once more where no more of the time than this is gone.
AGAIN_SHARE = 0.2

#: Of the whole time at least so much, and at most so much, is kept for holding the result against the defaults; what is wanted is
#: time for so many pairs.
LEAST_RESERVE, MOST_RESERVE, WANTED_PAIRS = 0.2, 0.4, 12

#: The same where each change between the two is a load: no more pairs than a decision takes, and up to so much of the time.
LEAST_PAIRS, MOST_RESERVE_WITH_LOADS = 10, 0.6

#: Of the time that is left to the races one may take so much, unless even its first look takes more.
RACE_SHARE = 0.35

#: What the time cut short is raced once more when all others have been, if there is time then.
PASSES = 2


class BlockFailed(Exception):
    """llama.cpp failed in a block, or refused it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Measures(Protocol):
    """Whoever has blocks measured."""

    def measure_block(self, spec: RunSpec) -> Sequence[Sample]:
        """The timed repetitions of one cell, as many as it says, warmed up where it is new.

        Raises
        ------
        BlockFailed : it has no result.
        """


@dataclass(slots=True)
class _Heat:
    """A race while it is run: what the record will have."""

    settings: tuple[str, ...]
    specs: tuple[RunSpec, ...]
    rest_ns: float
    most_rounds: int
    tests: ShortTests
    blocks: list[TuneBlock] = field(default_factory=list)
    failures: dict[int, Failure] = field(default_factory=dict)

    def record(self) -> TuneRace:
        candidates = tuple(TuneCandidate(spec, self.failures.get(place)) for place, spec in enumerate(self.specs))
        return TuneRace(self.settings, candidates, tuple(self.blocks), self.rest_ns, self.most_rounds, self.tests)


@dataclass(slots=True)
class Tuner:
    """One search. base is the defaults, of the whole work; is_noisy is asked when the defaults were measured, and once more when they
    were measured again, whether the machine is too noisy to go on; given are settings that are not free; clock is in s, on_progress is
    told what is done.

    Whatever ends `run`, an interrupt too, what was measured until then is here.
    """

    base: RunSpec
    work: Work
    room: Room
    machine: Measures
    clock: Callable[[], float]
    factors: Sequence[Factor]
    quality: Quality = Quality.KEEP
    max_time_s: float = 300.0
    margin: float = 0.01
    alpha: float = 0.05
    seed: int = 0
    given: frozenset[str] = frozenset()
    is_noisy: Callable[[Tuner], bool] = lambda _tuner: False
    on_progress: Callable[[str, float], None] = lambda _task, _done_s: None
    tests: ShortTests | None = None
    long_tests: ShortTests | None = None
    final_tests: ShortTests | None = None
    baseline: list[TuneBlock] = field(default_factory=list)
    confirmation: list[TuneBlock] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    stop: Stop = Stop.INTERRUPTED
    failure: Failure | None = None
    _heats: list[_Heat] = field(default_factory=list)
    _begun_s: float = 0.0
    _block_s: dict[Part, float] = field(default_factory=dict)
    _load_s: float = 0.0
    _seen_change_s: float | None = None
    _part_ns: dict[Part, float] = field(default_factory=dict)
    _random: random.Random = field(default_factory=random.Random)

    @property
    def races(self) -> tuple[TuneRace, ...]:
        """The races so far, the running one too."""
        return tuple(heat.record() for heat in self._heats)

    @property
    def _tests(self) -> ShortTests:
        assert self.tests is not None, "short tests are found before anything is measured by them"
        return self.tests

    @property
    def spent_s(self) -> float:
        """Seconds since it began."""
        return self.clock() - self._begun_s

    def fill(self, record: TuneRecord) -> TuneRecord:
        """A record of the same question with what was measured until now."""
        return replace(
            record, base=self.base, work=self.work, tests=self.tests, final_tests=self.final_tests, quality=self.quality,
            max_time_s=self.max_time_s, margin=self.margin, alpha=self.alpha, seed=self.seed, baseline=tuple(self.baseline),
            races=self.races, confirmation=tuple(self.confirmation), left_out=tuple(self.left_out), stop=self.stop,
            elapsed_ns=round(self.spent_s * NS_PER_S), failure=self.failure,
        )  # fmt: skip

    def run(self) -> None:
        """Search until it is done, or the time is up, and say why it ended in `stop`."""
        self._begun_s, self._random = self.clock(), random.Random(self.seed)
        try:
            self._find_tests()
            self._measure_baseline()
            is_noisy = self.is_noisy(self)
            if is_noisy and self.spent_s < AGAIN_SHARE * self.max_time_s:  # a moment's disturbance is over by now
                self._measure_baseline()
                is_noisy = self.is_noisy(self)
            if is_noisy:
                self.stop = Stop.NOISY
                return
            self._confirm(self._race_all())
        except BlockFailed as error:
            self.stop, self.failure = Stop.FAILED, error.failure

    def _measure(
        self, spec: RunSpec, part: Part, candidate: int, into: list[TuneBlock], tests: ShortTests, *, watched: bool = False
    ) -> float:  # fmt: skip
        """Have a block of a candidate measured; returns the work's time of this part in ns."""
        measured = self.machine.measure_block(short_test(spec, part, tests))
        samples = [sample for sample in measured if not sample.is_warmup]
        seen = tuple(sample.conditions for sample in samples if sample.conditions is not None)
        durations = tuple(sample.duration_ns for sample in samples)
        into.append(TuneBlock(candidate, part, durations, seen if watched and len(seen) == len(durations) else ()))
        return work_ns(durations, part, self.work, tests)

    # --- before the races --------------------------------------------------------------------------------------------

    def _find_tests(self) -> None:
        """Cut the work so short that a block takes its share of the time."""
        self.on_progress("trying the defaults", self.spent_s)
        prompt_s = self._time_token(Part.PROMPT, min(PROBE_PROMPT, self.work.n_prompt))
        token_s = self._time_token(Part.GENERATION, min(PROBE_GEN, self.work.n_gen))
        n_gen, n_depth = LEAST_GEN, self.work.n_depth
        while 2 * n_gen <= self.work.n_gen and 2 * n_gen * token_s <= GENERATION_SHARE * self.max_time_s:
            n_gen *= 2
        while n_depth and n_depth * prompt_s > DEPTH_SHARE * self.max_time_s:
            n_depth = n_depth // 2 if n_depth >= 2 * LEAST_PROMPT else 0
        n_gen = min(n_gen, self.work.n_gen)
        self.tests, self.long_tests = (
            ShortTests(self._cut_prompt(prompt_s, share), n_gen, n_depth) for share in (PROMPT_SHARE, LONG_PROMPT_SHARE)
        )

    def _cut_prompt(self, token_s: float, share: float) -> int:
        """Tokens of a prompt that takes no more than a share of the time."""
        n_prompt = self.work.n_prompt
        while n_prompt > LEAST_PROMPT and n_prompt * token_s > share * self.max_time_s:
            n_prompt = max(n_prompt // 2, LEAST_PROMPT)
        return n_prompt

    def _time_token(self, part: Part, n_tokens: int) -> float:
        """Seconds of a token, by a few of them."""
        tests, begun_s = ShortTests(n_tokens, n_tokens, 0), self.clock()
        samples = self.machine.measure_block(short_test(self.base, part, tests, repetitions=2))
        best_s = min(sample.duration_ns for sample in samples if not sample.is_warmup) / NS_PER_S
        self._load_s = max(self._load_s, self.clock() - begun_s - 3 * best_s)
        return best_s / n_tokens

    def _measure_baseline(self) -> None:
        costs: dict[Part, list[float]] = {part: [] for part in Part}
        self.baseline.clear()
        self._block_s.clear()
        for number in range(BASELINE_BLOCKS):
            for part in Part:
                self.on_progress("measuring the defaults", self.spent_s)
                begun_s = self.clock()
                costs[part].append(self._measure(self.base, part, 0, self.baseline, self._tests, watched=True))
                if number:  # the first has a warm-up
                    self._block_s[part] = max(self._block_s.get(part, 0.0), self.clock() - begun_s)
        self._part_ns = {part: sorted(values)[len(values) // 2] for part, values in costs.items()}

    # --- races -------------------------------------------------------------------------------------------------------

    def _reserve_s(self, incumbent: RunSpec) -> float:
        """What is kept for the end: pairs of the defaults and of what is best so far, with what it takes to change between them."""
        block_s, n_pairs, most = sum(self._block_s.values()), WANTED_PAIRS, MOST_RESERVE
        if _nature(incumbent) != _nature(self.base):
            block_s, n_pairs, most = (
                block_s + self._change_s([incumbent, self.base]),
                LEAST_PAIRS,
                MOST_RESERVE_WITH_LOADS,
            )
        return min(max(2 * n_pairs * block_s, LEAST_RESERVE * self.max_time_s), most * self.max_time_s)

    def _change_s(self, specs: Sequence[RunSpec]) -> float:
        """What it takes to measure another one of some settings, beside the measuring, once each was ready: a load, where they are
        not in memory together."""
        if len(set(map(_nature, specs))) < 2:
            return 0.0
        if self._seen_change_s is not None:
            return self._seen_change_s
        are_alone = self.room.devices or len(set(map(process_nature, specs))) > 1
        return self._load_s if are_alone else 0.0

    def _race_all(self) -> RunSpec:
        """Race every factor that the time allows, and those again that it cut short; returns what they came to."""
        incumbent, todo = self.base, list(self.factors)
        for number in range(PASSES):
            cut_short = []
            for factor in todo:
                candidates = self._lay_out(factor, incumbent, is_first=not number)
                if len(candidates) < 2:
                    continue
                left_s = self.max_time_s - self._reserve_s(incumbent) - self.spent_s
                is_settled = False
                if self._least_s(factor, candidates) <= left_s:
                    incumbent, is_settled = self._race(factor, candidates, left_s)
                cut_short += [] if is_settled else [factor]
            todo = cut_short
        raced = {heat.settings for heat in self._heats}
        self.left_out += [LeftOut(factor.settings, Why.NO_TIME) for factor in todo if factor.settings not in raced]
        return incumbent

    def _lay_out(self, factor: Factor, incumbent: RunSpec, *, is_first: bool) -> tuple[RunSpec, ...]:
        """A factor's candidates; what is left out of it is noted once."""
        if set(factor.settings) <= self.given:
            self.left_out += [LeftOut(factor.settings, Why.GIVEN)] if is_first else []
            return (incumbent,)
        laid = lay_out(
            factor, replace(self.room, longest_prompt=self._tests_of(factor).n_prompt), incumbent, self.quality
        )
        self.left_out += laid.left_out if is_first else ()
        return laid.candidates

    def _tests_of(self, factor: Factor) -> ShortTests:
        return self.long_tests if factor.is_of_batches and self.long_tests else self._tests

    def _round_s(self, factor: Factor, n_candidates: int) -> float:
        times = {Part.PROMPT: self._tests_of(factor).n_prompt / self._tests.n_prompt}
        return n_candidates * sum(self._block_s[part] * times.get(part, 1.0) for part in factor.parts)

    def _least_s(self, factor: Factor, candidates: Sequence[RunSpec]) -> float:
        """What a race takes until its first look: each candidate gets ready once, with a warm-up, and is measured twice."""
        change_s = self._change_s(candidates)
        n_loads = len(set(map(_nature, candidates))) - 1
        ready_s = self._round_s(factor, len(candidates)) + (0.0 if change_s else n_loads * self._load_s)
        return ready_s + EARLY_LOOKS[0] * (self._round_s(factor, len(candidates)) + len(candidates) * change_s)

    def _race(self, factor: Factor, specs: tuple[RunSpec, ...], left_s: float) -> tuple[RunSpec, bool]:
        """(the winner of a race, whether more time would have been for nothing)."""
        parts = [part for part in Part if part in factor.parts]
        rest_ns = sum(ns for part, ns in self._part_ns.items() if part not in factor.parts)
        heat = _Heat(factor.settings, specs, rest_ns, factor.most_rounds, self._tests_of(factor))
        self._heats.append(heat)
        race = Race(len(specs), self.margin, self.alpha, factor.most_rounds)
        until_s = self.spent_s + max(RACE_SHARE * left_s, self._least_s(factor, specs))
        by_part: dict[int, dict[Part, list[float]]] = {place: {part: [] for part in parts} for place in race.alive}
        while not race.is_over:
            self.on_progress(f"{', '.join(factor.settings)}: {len(race.alive)} left", self.spent_s)
            begun_s, n_alive = self.spent_s, len(race.alive)
            self._run_round(heat, race, parts, by_part)
            if (
                race.n_rounds and len(set(map(_nature, specs))) > 1
            ):  # the first round's loads would be there in any case
                beside_s = (self.spent_s - begun_s - self._round_s(factor, n_alive)) / n_alive
                self._seen_change_s = max(beside_s, 0.0)
            whole = [place for place in race.alive if all(len(by_part[place][part]) > race.n_rounds for part in parts)]
            if len(race.alive) < 2 or len(whole) < len(race.alive):
                break
            race.add({one: rest_ns + sum(by_part[one][part][-1] for part in parts) for one in race.alive})
            round_s = self._round_s(factor, len(race.alive)) + len(race.alive) * self._change_s(specs)
            limit_s = until_s if race.n_rounds >= EARLY_LOOKS[0] else self.max_time_s  # one round alone says nothing
            if self.spent_s + round_s > limit_s:
                break
        winner = race.winner
        if winner is None:
            raise BlockFailed(next(iter(heat.failures.values())))
        for part in parts:
            if values := by_part[winner][part]:
                self._part_ns[part] = sorted(values)[len(values) // 2]
        return specs[winner], race.is_over

    def _run_round(
        self, heat: _Heat, race: Race, parts: Sequence[Part], by_part: dict[int, dict[Part, list[float]]]
    ) -> None:
        """Measure every candidate that is alive once, in random order; one that fails is out."""
        for place in self._random.sample(race.alive, len(race.alive)):
            try:
                for part in parts:
                    by_part[place][part].append(self._measure(heat.specs[place], part, place, heat.blocks, heat.tests))
            except BlockFailed as error:
                heat.failures[place] = error.failure
                race.fail(place)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _confirm(self, found: RunSpec) -> None:
        """Hold what was found against the defaults, by turns, until a sequential test knows or the time is up."""
        if found == self.base:
            self.stop = Stop.DONE
            return
        are_batches_others = (found.n_batch, found.n_ubatch) != (self.base.n_batch, self.base.n_ubatch)
        self.final_tests = self.long_tests if are_batches_others and self.long_tests else self._tests
        test = SequentialTest(self.margin, self.alpha)
        while not test.is_over:
            costs = {}
            for arm in self._random.sample((0, 1), 2):
                self.on_progress("holding the result against the defaults", self.spent_s)
                spec = (self.base, found)[arm]
                costs[arm] = sum(
                    self._measure(spec, part, arm, self.confirmation, self.final_tests, watched=True) for part in Part
                )
            test.add(math.log(costs[1] / costs[0]))
            if not test.is_over and self.spent_s >= self.max_time_s:
                self.stop = Stop.TIME
                return
        self.stop = Stop.DONE


def _nature(spec: RunSpec) -> object:
    """Settings that differ in this cannot be measured with one loaded model."""
    return spec.load_key(), process_nature(spec)
