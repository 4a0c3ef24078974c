"""Which cell is measured next, and how often: pure decisions, so that a whole run can be simulated.

A machine drifts: what is measured in one go is compared with what was measured minutes later. So cells take turns. In each round every
cell that needs more has a block of a few repetitions, in an order that the seed alone decides, until each has as many as it was asked
for or its median is known as precisely as was wanted. No more than `MAX_INTERLEAVED` cells take turns with each other, so that no more
than some minutes of measuring are ever unkept. Cells that do not fit into memory together take turns by model, in larger blocks, so
that loading does not dominate.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from harness.evidence.drift import count_warmups
from harness.evidence.stopping import MIN_REPETITIONS, as_rates, is_precise, next_look, relative_half_width
from harness.spec import RunSpec

#: So many cells take turns at the most.
MAX_INTERLEAVED = 8

#: A block is as many repetitions as take about so long: long beside the untimed token at its beginning, short beside a drift.
BLOCK_S = 1.0

#: What a cell needs until the next look is spread over so many blocks at the least.
MIN_BLOCKS = 3

#: Repetitions of the first block, before anybody knows how long one takes.
FIRST_BLOCK = 2

#: Where each block is preceded by a load, it takes so many times as long as that.
LOADS_PER_BLOCK = 5.0


@dataclass(frozen=True, slots=True)
class Visit:
    """The next block: of cell `cell` (by its place) so many repetitions. It is the turn-th block of the run, from 0."""

    cell: int
    repetitions: int
    turn: int
    is_first: bool  #: of its cell
    keep: bool  #: leave its context open, as there may be another block


@dataclass
class CellState:
    """What is known of a cell so far: durations in ns in the order of time, and seconds that its blocks and its loads took."""

    spec: RunSpec
    durations_ns: list[int] = field(default_factory=list)
    spent_s: float = 0.0
    load_s: float = 0.0
    look_at: int = MIN_REPETITIONS  #: kept repetitions at which one looks again whether they are enough
    is_over: bool = False

    @property
    def n_kept(self) -> int:
        """Repetitions without those that belong to a warm-up."""
        return len(self.kept_ns)

    @property
    def kept_ns(self) -> list[int]:
        """The durations without those; who said how many there are to be, or how to warm up, is believed."""
        durations = self.durations_ns
        return durations[count_warmups(durations) :] if self.spec.seeks_warmups else durations

    @property
    def n_wanted(self) -> int:
        """How many repetitions there should be at the next look, or in all."""
        if self.spec.repetitions is not None:
            return self.spec.repetitions
        return len(self.durations_ns) - self.n_kept + self.look_at

    @property
    def repetition_s(self) -> float | None:
        """What a repetition takes with all that is around it; None before the first."""
        return self.spent_s / len(self.durations_ns) if self.durations_ns else None

    def add(self, durations_ns: Sequence[int], spent_s: float, load_s: float) -> None:
        """Take note of a block, and whether it was the last one."""
        self.durations_ns += durations_ns
        self.spent_s += spent_s
        self.load_s = max(self.load_s, load_s)
        if not durations_ns:
            self.is_over = True  # whoever measures nothing would be asked for ever
            return
        if self.spec.repetitions is not None:
            self.is_over = len(self.durations_ns) >= self.spec.repetitions
            return
        kept = self.kept_ns
        if len(kept) >= self.look_at:
            self.is_over = is_precise(kept, self.spec.precision)
            self.look_at = next_look(len(kept))
        if len(kept) >= MIN_REPETITIONS and self.spent_s + (self.repetition_s or 0) / 2 > self.spec.max_time_s:
            self.is_over = True

    @property
    def n_affordable(self) -> int:
        """How many repetitions the time still allows; there are always enough for an interval."""
        if self.spec.repetitions is not None or not self.repetition_s:
            return self.n_wanted
        in_time = math.floor((self.spec.max_time_s - self.spent_s) / self.repetition_s + 0.5)
        return max(in_time, MIN_REPETITIONS - self.n_kept)

    @property
    def share(self) -> float:
        """How much of it is done, 0…1: of the repetitions, of the time, or of those that its spread lets expect to be needed."""
        n_done = len(self.durations_ns)
        if self.is_over:
            return 1.0
        if self.spec.repetitions is not None:
            return n_done / self.spec.repetitions
        kept = self.kept_ns
        # An interval narrows with the root of the number.
        width = relative_half_width(as_rates(kept)) or 0.0
        needed = max(MIN_REPETITIONS, len(kept) * (width / self.spec.precision) ** 2)
        of_time = min(self.spent_s / self.spec.max_time_s, 1.0) if len(kept) >= MIN_REPETITIONS else 0.0
        return min(max(len(kept) / needed, of_time), 0.99)


class Rounds:
    """The order of a run. Ask for the `next` block, measure it, `add` what it took or `drop` the cell; until there is none.

    Without interleave one cell comes after the other, as in llama-bench. fit_together says whether cells have room in memory at once.
    The seed is the cells'.
    """

    def __init__(
        self,
        cells: Sequence[RunSpec],
        *,
        interleave: bool = True,
        fit_together: Callable[[Sequence[RunSpec]], bool] = lambda _cells: True,
    ) -> None:
        self.states = [CellState(cell) for cell in cells]
        self._fit_together = fit_together
        self._random = random.Random(cells[0].seed if cells else 0)
        size, places = MAX_INTERLEAVED if interleave else 1, range(len(cells))
        self._groups = [list(places[start : start + size]) for start in range(0, len(cells), size)]
        self._queue: list[int] = []
        self._does_fit: bool | None = None
        self._turn = 0

    def next(self) -> Visit | None:
        """The next block; None where every cell is over."""
        while self._groups:
            alive = [place for place in self._groups[0] if not self.states[place].is_over]
            if not alive:
                self._groups.pop(0)
                self._queue, self._does_fit = [], None
                continue
            if not self._queue:
                self._begin_round(self._groups[0])
            place = self._queue.pop(0)
            if place in alive:
                return self._visit(place, is_alone=len(alive) == 1)
        return None

    def add(self, visit: Visit, durations_ns: Sequence[int], spent_s: float, load_s: float = 0.0) -> None:
        """Take note of what a block's repetitions took, in ns, and the block in all without and the load in it, in s."""
        self.states[visit.cell].add(durations_ns, spent_s, load_s)

    def drop(self, place: int) -> None:
        """Give a cell up: it failed."""
        self.states[place].is_over = True

    def is_over(self, place: int) -> bool:
        """Whether a cell is done with."""
        return self.states[place].is_over

    @property
    def n_done(self) -> float:
        """How many cells' worth of measuring is done, of `states`; an estimate."""
        return sum(state.share for state in self.states)

    def _begin_round(self, group: Sequence[int]) -> None:
        """Draw the order of a round. Cells that are over are drawn too, so that the order follows from the seed alone."""
        if self._does_fit is None:
            specs = [self.states[place].spec for place in group]
            self._does_fit = len(group) == 1 or self._fit_together(specs)

        def key(place: int) -> tuple[object, ...]:
            return (place,) if self._does_fit else self.states[place].spec.load_key()

        units = [list(same) for _, same in itertools.groupby(group, key)]
        self._random.shuffle(units)
        for unit in units:
            self._random.shuffle(unit)
        self._queue = [place for unit in units for place in unit]

    def _visit(self, place: int, *, is_alone: bool) -> Visit:
        state = self.states[place]
        n_left = state.n_wanted - len(state.durations_ns)
        n = min(n_left if is_alone else self._size(state), n_left, state.n_affordable)
        visit = Visit(
            place, max(n, 1), self._turn, not state.durations_ns, keep=n < n_left or state.spec.repetitions is None
        )
        self._turn += 1
        return visit

    def _size(self, state: CellState) -> int:
        """Repetitions of a block of a cell that takes turns with others."""
        if state.repetition_s is None:
            return FIRST_BLOCK if self._does_fit else math.ceil(state.n_wanted / 2)
        if not self._does_fit:
            return math.ceil(max(LOADS_PER_BLOCK * state.load_s, BLOCK_S) / max(state.repetition_s, 1e-9))
        most = math.ceil(state.n_wanted / MIN_BLOCKS)
        return max(1, min(most, round(BLOCK_S / max(state.repetition_s, 1e-9))))
