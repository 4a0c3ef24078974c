"""What a line of a journal may be: every kind with its schema, and the one place where a line is read, checked and written.

Nothing of a line is believed before it went through `read_line`: kind, schema, and every field's type (`harness.codec`). A line of a
kind that is not known here, from a later version, is kept as such if it says whose it is.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any

from harness.codec import Malformed, Positive, Shared, decode, encode
from harness.records.ab import Ab
from harness.records.cells import Machine, Record
from harness.records.memory import MemoryRecord
from harness.records.noise import NoiseRecord
from harness.records.ollama import Comparison
from harness.records.parity import Parity
from harness.records.quality import QualityRecord
from harness.records.roofline import Roof
from harness.records.speculation import Speculation
from harness.records.statistics import Digest
from harness.records.text import TextRun
from harness.records.token_time import TimeRecord
from harness.records.tuning import TuneRecord
from harness.records.upgrades import UPGRADES

#: What is written as a line.
Entry = (
    Record | TextRun | Roof | MemoryRecord | TimeRecord | Comparison | Parity | NoiseRecord | Ab | Speculation
    | TuneRecord
    | QualityRecord
)  # fmt: skip

#: What a line holds once it is read; a measured cell may be condensed to its `Digest`.
Content = Entry | Digest


@dataclass(frozen=True, slots=True)
class _Origin:
    """What every line says of itself; label is what its user calls it."""

    kind: str
    schema: Positive
    machine: Shared[Machine]
    harness_version: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Line(_Origin):
    """One line of a journal: its content (None: a kind that is not known here), and its number in the file, from 1."""

    content: Content | None = None
    number: int = 0


#: Every kind of line. A new one is one line here.
KINDS: dict[str, type[Entry]] = {
    "result": Record,
    "failure": Record,
    "run": TextRun,
    "overhead": MemoryRecord,
    "time-ledger": TimeRecord,
    "roofline": Roof,
    "ollama-comparison": Comparison,
    "parity": Parity,
    "noise": NoiseRecord,
    "ab": Ab,
    "quality": QualityRecord,
    "tuning": TuneRecord,
    "speculation": Speculation,
}
_NAMES = {entry: name for name, entry in KINDS.items()}


def schema_of(kind: str) -> int:
    """The latest schema of a kind that is known here: what a new record has."""
    return typing.cast("int", KINDS[kind].__dataclass_fields__["schema"].default)


def to_json(content: Entry) -> dict[str, Any]:
    """A record as one line of a journal, in plain JSON values; `read_line` reads it. Of a path only the file's name is kept."""
    name = ("failure" if content.failure else "result") if isinstance(content, Record) else _NAMES[type(content)]
    values = encode(content)
    return {"schema": values.pop("schema"), "kind": name, **values}


def read_line(values: Any, number: int = 0) -> Line:
    """Read one line, the so manieth of its file.

    Raises
    ------
    Malformed : it is not what its kind says, or of a later schema than this version knows.
    UsageError : what it says was asked for contradicts itself.
    """
    origin = decode(_Origin, values)
    about = (origin.kind, origin.schema, origin.machine, origin.harness_version, origin.label)
    if origin.kind not in KINDS:
        return Line(*about, number=number)
    latest = schema_of(origin.kind)
    if origin.schema > latest:
        raise Malformed(
            f"it has schema {origin.schema} of kind {origin.kind}, and this harness knows up to {latest}: update harness"
        )
    try:
        for upgrade in UPGRADES.get(origin.kind, ())[origin.schema - 1 :]:
            values = upgrade(values)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise Malformed(f"is not what schema {origin.schema} of kind {origin.kind} holds ({error!r})") from None
    return Line(*about, decode(KINDS[origin.kind], {**values, "schema": latest}), number)
