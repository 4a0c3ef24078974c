"""One test by harness and by llama-bench, run alternately, as scripts/parity measures it: raw samples of every pair of runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from harness.codec import NOT_EMPTY, Positive, Shared, UtcTime
from harness.evidence.medians import Interval, median, median_interval
from harness.records.cells import Machine
from harness.units import NS_PER_S

#: History of the line format.
#: 1 (2026-11): first, with rates and ratios. 2 (2026-11): raw samples alone.
SCHEMA = 2

Runs = Annotated[tuple[Annotated[tuple[Positive, ...], NOT_EMPTY], ...], NOT_EMPTY]


@dataclass(frozen=True, slots=True)
class Parity:
    """One test by both tools, pair by pair: the runs of a pair followed each other, and who went first alternated."""

    time_utc: UtcTime
    machine: Shared[Machine]
    model: str  #: the file's name
    test: str  #: as llama-bench names it: pp512, tg128
    n_tokens: Positive  #: tokens of one repetition
    harness_samples_ns: Runs  #: of each pair the repetitions
    llama_bench_samples_ns: Runs  #: of each pair the repetitions
    model_type: str | None = None  #: llama.cpp's description
    n_threads: int | None = None  #: threads of both
    build_commit: str | None = None  #: llama.cpp's, of both
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if len(self.harness_samples_ns) != len(self.llama_bench_samples_ns):
            raise ValueError("not as many runs of llama-bench as of harness")

    @property
    def harness_tok_per_s(self) -> float:
        """The median over the pairs, each by its median repetition."""
        return median([self._rate(run) for run in self.harness_samples_ns])

    @property
    def llama_bench_tok_per_s(self) -> float:
        """The same of llama-bench."""
        return median([self._rate(run) for run in self.llama_bench_samples_ns])

    @property
    def ratios(self) -> tuple[float, ...]:
        """Of each pair how much faster harness was; above 1 it was."""
        pairs = zip(self.harness_samples_ns, self.llama_bench_samples_ns, strict=True)
        return tuple(self._rate(ours) / self._rate(theirs) for ours, theirs in pairs)

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval of the median ratio; None for fewer than six pairs."""
        return median_interval(self.ratios)

    def _rate(self, samples_ns: tuple[int, ...]) -> float:
        return self.n_tokens * NS_PER_S / median(samples_ns)
