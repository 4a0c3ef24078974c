"""What a machine can do at best, as measured: bytes read and operations done a second, by device, threads and type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from harness.codec import NOT_EMPTY, Positive, UtcTime
from harness.evidence.medians import Interval, median, median_interval
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Build, Conditions, Machine
from harness.records.failures import Failure
from harness.units import NS_PER_S

#: History of the line format.
#: 1 (2026-11): first. 2 (2026-11): cautions are causes and figures.
SCHEMA = 2

#: What a test's work is: reading a matrix once (matrix times vector), arithmetic (matrix times matrix), the second method.
READING, ARITHMETIC, SECOND_METHOD = "read", "multiply", "numpy"

#: Types to read: large ones show the memory's limit, small ones what unpacking costs on this CPU; and those that prompts are
#: multiplied in.
READING_TYPES, MULTIPLYING_TYPES = ("F32", "F16", "Q8_0", "Q4_0"), ("F16", "Q4_0")

#: A matrix below so many times all last-level caches together is partly read from them.
CACHE_FACTOR = 2


@dataclass(frozen=True, slots=True)
class RoofRequest:
    """What the worker is to measure.

    size_bytes of the matrix that is read, n_rows of the one that is multiplied (4096 x 4096 is an attention matrix of llama3.1:8b);
    threads of the CPU; rpc are servers whose devices are measured too.
    """

    size_bytes: int
    threads: Annotated[tuple[int, ...], NOT_EMPTY]
    n_rows: int = 4096
    repetitions: int = 10
    rpc: tuple[str, ...] = ()
    reading: tuple[str, ...] = READING_TYPES
    multiplying: tuple[str, ...] = MULTIPLYING_TYPES


@dataclass(frozen=True, slots=True)
class RoofTest:
    """One piece of work, done again and again.

    work is read, multiply or numpy; n_threads is None on a device that has none to choose; n_bytes is what one run reads, n_flops
    what it calculates; durations_ns are the timed runs. max_error is the largest difference from what numpy makes of the same
    numbers, relative to the product of the vectors' lengths, over all rows; tolerance is what the type's rounding may come to.
    """

    work: str
    device: str
    description: str  #: the device's own name
    kind: str  #: cpu, gpu, igpu or accel
    type_name: str  #: the matrix's type: F32, F16, Q4_0, …
    n_threads: int | None
    n_bytes: Positive
    n_flops: int
    durations_ns: Annotated[tuple[Positive, ...], NOT_EMPTY]
    max_error: float | None
    tolerance: float
    is_repacked: bool = False  #: whether in the CPU's own layout
    conditions: tuple[Conditions, ...] = ()  #: of each timed run, what the operating system says

    def __post_init__(self) -> None:
        if self._amount <= 0:
            raise ValueError(f"a test of {self.work} that did nothing")

    @property
    def rate_per_s(self) -> float:
        """Bytes a second of reading, operations a second of arithmetic, at the median duration."""
        return self._amount * NS_PER_S / median(self.durations_ns)

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval of that rate; None for fewer than six runs."""
        found = median_interval(self.durations_ns)
        if found is None:
            return None
        return Interval(self._amount * NS_PER_S / found.high, self._amount * NS_PER_S / found.low, found.level)

    @property
    def _amount(self) -> int:
        return self.n_flops if self.work == ARITHMETIC else self.n_bytes

    @property
    def is_right(self) -> bool:
        return self.max_error is not None and self.max_error <= self.tolerance


@dataclass(frozen=True, slots=True)
class Roof:
    """All tests of one run, on one machine."""

    time_utc: UtcTime
    machine: Machine
    harness_version: str
    build: Build
    tests: tuple[RoofTest, ...]  #: each piece of work
    warnings: tuple[Caution, ...] = ()
    failure: Failure | None = None
    command: str = "roofline"
    schema: int = SCHEMA

    @property
    def is_of_cache(self) -> bool:
        """Whether the matrix was so small that the processor's caches held part of it: nothing about memory follows from such a run."""
        return any(caution.cause is CautionCause.SIZE_IN_CACHE for caution in self.warnings)

    def devices(self) -> list[str]:
        return list(dict.fromkeys(test.device for test in self.tests))

    def best(self, work: str, device: str) -> RoofTest | None:
        """The quickest test of a work on a device."""
        found = [test for test in self.tests if (test.work, test.device) == (work, device)]
        return max(found, key=lambda test: test.rate_per_s, default=None)


def reading_for(roof: Roof, device: str, quantization: str) -> RoofTest | None:
    """The quickest reading of the type that is nearest to a quantization: unpacking small types costs a CPU more than reading them
    does.

    4 bits and fewer are Q4_0's kind, 5 to 8 bits Q8_0's; else the quickest of all.
    """
    bits = next((int(letter) for letter in quantization if letter.isdigit()), 0) if "Q" in quantization else 0
    name = ("Q4_0" if bits <= 4 else "Q8_0") if bits else quantization
    found = [t for t in roof.tests if (t.work, t.device, t.type_name) == (READING, device, name)]
    return max(found, key=lambda test: test.rate_per_s, default=roof.best(READING, device))


def latest(roofs: Sequence[Roof]) -> Roof | None:
    """The last one that was measured, if one of memory is there the last of those; roofs are in the order of their journals."""
    return next((roof for roof in reversed(roofs) if not roof.is_of_cache), roofs[-1] if roofs else None)
