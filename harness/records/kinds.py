"""What a line of a journal may be: every kind with its schema, and the one place where a line is read, checked and written.

Nothing of a line is believed before it went through `read_line`: kind, schema, and every field's type (`harness.codec`). A line of a
kind that is not known here, from a later version, is kept as such if it says whose it is.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from harness.codec import NOT_EMPTY, Malformed, Positive, PositiveNumber, Shared, UtcTime, decode, encode
from harness.records.cells import Caution, Machine, Record, Resolved
from harness.records.memory import MemoryRecord
from harness.records.parity import Parity
from harness.records.roofline import Roof
from harness.records.statistics import Digest
from harness.records.text import TextRun
from harness.records.token_time import SCHEMA as TIME_SCHEMA
from harness.records.token_time import TimeLedger, TokenReads, build_ledger
from harness.records.upgrades import UPGRADES
from harness.spec import RunSpec

#: Histories of the formats that have no module of their own below this floor.
#: ollama-comparison 1 (2026-11): first.
COMPARISON_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class TimedFile:
    """The model of a time ledger."""

    file_name: str
    file_sha256: str | None = None
    is_synthetic: bool = False


@dataclass(frozen=True, slots=True)
class TimedQuestion:
    """What of a time ledger's plan every reader needs."""

    spec: RunSpec
    cache_types: Annotated[tuple[str, ...], NOT_EMPTY]


@dataclass(frozen=True, slots=True)
class TimedBlock:
    """Some tokens of one variant, timed without a break; of an observed block, the times of each kind of node too."""

    depth: int
    cache: str
    variant: str
    round: int
    token_ns: tuple[int, ...]
    parts_ns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    node_ns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    node_count: Mapping[str, int] = field(default_factory=dict)
    outside_ns: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TimedLoad:
    """One load of the model, cold or warm."""

    state: str
    mmap: str
    load_ns: int
    context_ns: int
    first_token_ns: int
    second_token_ns: int
    resident_share: float | None = None


@dataclass(frozen=True, slots=True)
class TimedApplication:
    """Tokens as an application generates them, on one of the steps from the bench to it."""

    variant: str
    token_ns: tuple[int, ...]
    parts_ns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    calls: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TimedCopies:
    """What small things take."""

    logits_copy_ns: tuple[int, ...] = ()
    call_ns: tuple[int, ...] = ()
    dispatch_ns: int | None = None


@dataclass(frozen=True, slots=True)
class TimeLine:
    """A line of kind ``time-ledger``: raw times and what surrounds them."""

    asked: TimedQuestion
    model: TimedFile
    machine: Shared[Machine]
    time_utc: UtcTime
    resolved: Resolved | None = None
    remarks: tuple[str, ...] = ()
    cautions: tuple[Caution, ...] = ()
    roof_bytes_per_s: PositiveNumber | None = None
    failure: str | None = None
    blocks: tuple[TimedBlock, ...] = ()
    loads: tuple[TimedLoad, ...] = ()
    applications: tuple[TimedApplication, ...] = ()
    copies: TimedCopies | None = None
    reads: TokenReads | None = None
    schema: int = TIME_SCHEMA


@dataclass(frozen=True, slots=True)
class TimeRecord:
    """A time ledger as it is shown again: the line, what follows from its times, and what was asked beside the cell, as one text."""

    line: TimeLine
    ledger: TimeLedger
    plan: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One side's figures of one turn, Ollama's or ours."""

    prompt_eval_count: int | None = None
    prompt_eval_duration_ns: int | None = None
    eval_count: int | None = None
    eval_duration_ns: int | None = None


@dataclass(frozen=True, slots=True)
class DirectTurn:
    figures: Turn


@dataclass(frozen=True, slots=True)
class BothTurns:
    direct: DirectTurn
    ollama: Turn | None = None


@dataclass(frozen=True, slots=True)
class ComparedTask:
    name: str


@dataclass(frozen=True, slots=True)
class ComparisonLine:
    """A line of kind ``ollama-comparison``, as far as it is shown again; see `harness.runs.ollama_task.comparison_to_json`."""

    task: ComparedTask
    rounds: tuple[BothTurns, ...]
    machine: Shared[Machine]
    time_utc: UtcTime
    ollama_version: str | None = None
    schema: int = COMPARISON_SCHEMA


#: What is written as a line.
Entry = Record | TextRun | Roof | MemoryRecord | TimeLine | ComparisonLine | Parity

#: What a line holds once it is read; a measured cell may be condensed to its `Digest`.
Content = Entry | Digest | TimeRecord


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a journal: its kind, whose it is, its content (None: a kind that is not known here), what its user calls it, and
    its number in the file, from 1."""

    kind: str
    machine: Shared[Machine]
    content: Content | None
    harness_version: str | None = None
    label: str | None = None
    number: int = 0


@dataclass(frozen=True, slots=True)
class _Origin:
    """What every line says of itself."""

    kind: str
    schema: Positive
    machine: Shared[Machine]
    harness_version: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of line: the class of its content, and what reads it where that is more than its fields."""

    type: type[Entry]
    read: Callable[[Mapping[str, Any]], Content] | None = None

    @property
    def schema(self) -> int:
        """The latest schema that is known here: what a new record has."""
        return typing.cast("int", self.type.__dataclass_fields__["schema"].default)


def _read_time_record(values: Mapping[str, Any]) -> TimeRecord:
    """Check what surrounds the times, and derive the ledger: what does not add up is no time ledger."""
    line = decode(TimeLine, values)
    try:
        ledger = build_ledger(values, roof_bytes_per_s=line.roof_bytes_per_s)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise Malformed(f"holds times that do not add up to a ledger ({type(error).__name__}: {error})") from None
    line = dataclasses.replace(
        line, blocks=(), loads=(), applications=(), copies=None
    )  # all that is shown of them is in the ledger
    beside = {name: value for name, value in values["asked"].items() if name != "spec"}
    return TimeRecord(line, ledger, json.dumps(beside, sort_keys=True))


#: Every kind of line. A new one is one line here.
KINDS: dict[str, Kind] = {
    "result": Kind(Record),
    "failure": Kind(Record),
    "run": Kind(TextRun),
    "overhead": Kind(MemoryRecord),
    "time-ledger": Kind(TimeLine, _read_time_record),
    "roofline": Kind(Roof),
    "ollama-comparison": Kind(ComparisonLine),
    "parity": Kind(Parity),
}
_NAMES = {kind.type: name for name, kind in KINDS.items()}


def to_json(content: Entry) -> dict[str, Any]:
    """A record as one line of a journal, in plain JSON values; `read_line` reads it. Of a path only the file's name is kept."""
    name = ("failure" if content.failure else "result") if isinstance(content, Record) else _NAMES[type(content)]
    values = encode(content)
    return {"schema": values.pop("schema"), "kind": name, **values}


def read_line(values: Any) -> Line:
    """Read one line.

    Raises
    ------
    Malformed : it is not what its kind says, or of a later schema than this version knows.
    UsageError : what it says was asked for contradicts itself.
    """
    origin = decode(_Origin, values)
    kind = KINDS.get(origin.kind)
    if kind is not None and origin.schema > kind.schema:
        raise Malformed(
            f"it has schema {origin.schema} of kind {origin.kind}, and this harness knows up to {kind.schema}: update harness"
        )
    if kind is None:
        return Line(origin.kind, origin.machine, None, origin.harness_version, origin.label)
    try:
        for upgrade in UPGRADES.get(origin.kind, ())[origin.schema - 1 :]:
            values = upgrade(values)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise Malformed(f"is not what schema {origin.schema} of kind {origin.kind} holds ({error!r})") from None
    content = kind.read(values) if kind.read else decode(kind.type, {**values, "schema": kind.schema})
    return Line(origin.kind, origin.machine, content, origin.harness_version, origin.label)
