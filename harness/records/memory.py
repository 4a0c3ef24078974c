"""A memory ledger as it is kept: what was predicted, what a fresh process took, and what there was of memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from harness.codec import NOT_EMPTY, Shared, UtcTime
from harness.memory.causes import Note
from harness.memory.fit import CardFit, Fit
from harness.memory.ledger import Forecast, Measurement, Row, Totals, add_up, make_ledger
from harness.records.cells import Conditions, Failure, Machine
from harness.spec import RunSpec

#: History of the line format.
#: 1 (2026-11): what `-o json` printed: rows of the ledger, sums, sentences.
#: 2 (2026-11): readings, buffers and forecasts of which the ledger is made; remarks and a failure by their fields.
SCHEMA = 2


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that a ledger is about, by its header.

    label is how it was called; origin is ``file``, ``server`` (only the header was fetched) or ``shape`` (a header made up from the
    catalog). n_ctx_train is the context that it was trained for; file_type its quantization, as in ``Q4_K - Medium``. file_name and
    file_sha256 are of the file that was measured.
    """

    label: str
    origin: str | None = None
    architecture: str | None = None
    file_bytes: int | None = None
    n_layers: int | None = None
    n_ctx_train: int | None = None
    is_synthetic: bool = False
    file_type: str | None = None
    file_name: str | None = None
    file_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """The answer to one `harness overhead`.

    forecasts are for the contexts that were asked for, and asked, fits, cards and measurement of the first of them. notes qualify all.
    one_more is what the first context would take with another sequence besides; None where one alone was asked for.
    """

    asked: RunSpec
    model: Subject
    machine: Shared[Machine]
    forecasts: Annotated[tuple[Forecast, ...], NOT_EMPTY]
    fits: tuple[Fit, ...] = ()
    cards: tuple[CardFit, ...] = ()
    notes: tuple[Note, ...] = ()
    measurement: Measurement | None = None
    failure: Failure | None = None
    time_utc: UtcTime | None = None
    harness_version: str | None = None
    conditions: Conditions | None = None  #: what the operating system says of all steps
    one_more: Forecast | None = None  #: the same with one more sequence
    schema: int = SCHEMA

    @property
    def forecast(self) -> Forecast:
        return self.forecasts[0]

    def n_ctx_seq(self, forecast: Forecast) -> int:
        """The context of each sequence, in tokens."""
        return forecast.n_ctx // self.asked.n_parallel

    @property
    def ledger(self) -> tuple[Row, ...]:
        return make_ledger(self.forecast, self.measurement)

    @property
    def totals(self) -> Totals:
        return add_up(self.forecast, self.measurement)

    @property
    def flash_attn(self) -> bool | None:
        """Whether it was on, or would be; None where nobody said."""
        return self.measurement.flash_attn if self.measurement else self.forecast.flash_attn

    @property
    def all_notes(self) -> tuple[Note, ...]:
        """Every remark once."""
        return tuple(dict.fromkeys((*self.notes, *(note for item in self.forecasts for note in item.notes))))

    @property
    def context_slope(self) -> float | None:
        """Bytes that one more token of context takes, over the range that was asked for; None for a single context."""
        first, last = self.forecasts[0], self.forecasts[-1]
        if first.n_ctx == last.n_ctx:
            return None
        return (last.total_bytes - first.total_bytes) / (last.n_ctx - first.n_ctx)
