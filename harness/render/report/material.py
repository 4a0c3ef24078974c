"""What a report is made from: the lines of journals, read as far as their kind is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.answers.prediction import Answer
from harness.answers.published import PublishedMachine
from harness.answers.rates import Measured
from harness.errors import StoreError
from harness.record import Machine, Record, from_json, machine_key, read
from harness.text_run import KIND as TEXT_KIND
from harness.text_run import TextRun, text_run_from_json


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a journal: its kind, its machine, its raw values, and the value of its kind where there is a class for that."""

    kind: str
    machine: Machine
    values: Mapping[str, Any]
    parsed: Record | TextRun | None = None


def read_line(values: Mapping[str, Any]) -> Line:
    """Read one line of any kind.

    Raises
    ------
    StoreError : it names no machine, so that nothing could be said about where its figures come from.
    KeyError, TypeError, ValueError : it is not what its kind says.
    """
    if not isinstance(values.get("machine"), Mapping):
        raise StoreError("it names no machine")
    kind = str(values["kind"])
    parsed: Record | TextRun | None = None
    if kind in ("result", "failure"):
        parsed = from_json(values)
    elif kind == TEXT_KIND:
        parsed = text_run_from_json(values)
    return Line(kind, read(Machine, values["machine"]), values, parsed)


@dataclass(frozen=True, slots=True)
class Material:
    """All lines of a report; troubles are sentences about lines that could not be read; made_utc is when the page was made.

    The rest comes from elsewhere and may be missing: measured is what the records say of models of the catalog, published the article's
    figures, ollama_2024 the quantization that each bare name stood for, answers are predictions for the machine that makes the page.
    """

    lines: Sequence[Line]
    troubles: Sequence[str]
    files: Sequence[str]
    made_utc: str
    harness_version: str
    measured: Sequence[Measured] = ()
    published: Sequence[PublishedMachine] = ()
    ollama_2024: Mapping[str, str] = field(default_factory=dict)
    answers: Sequence[Answer] = ()

    @property
    def records(self) -> list[Record]:
        """Measured cells, with at least one timed sample, in the order of the files."""
        cells = [line.parsed for line in self.lines if isinstance(line.parsed, Record)]
        return [
            record for record in cells if record.timed and (not record.failure or record.failure.cause == "interrupted")
        ]

    @property
    def failures(self) -> list[Record]:
        cells = [line.parsed for line in self.lines if isinstance(line.parsed, Record)]
        return [record for record in cells if record.failure and record.failure.cause != "interrupted"]

    @property
    def texts(self) -> list[TextRun]:
        """Texts that models wrote."""
        return [line.parsed for line in self.lines if isinstance(line.parsed, TextRun)]

    def of(self, *kinds: str) -> list[Line]:
        """The lines of some kinds."""
        return [line for line in self.lines if line.kind in kinds]

    @property
    def machines(self) -> list[Machine]:
        """Each machine once, whatever was updated on it meanwhile."""
        return list({machine_key(line.machine): line.machine for line in reversed(self.lines)}.values())[::-1]

    def machine_name(self, machine: Machine) -> str:
        """The CPU; with cores and memory where that alone is not clear."""
        cpu, cores, memory_gib = machine_key(machine)
        same = [other for other in self.machines if other.cpu == cpu]
        return cpu if len(same) < 2 else f"{cpu}, {cores} cores, {memory_gib} GiB"
