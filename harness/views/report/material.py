"""What a report is made from: the lines of journals, condensed to what is shown of them."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness.catalog import Catalog
from harness.records.cells import Build, Machine, Record, has_died, is_measured, machine_key, without_samples
from harness.records.kinds import Entry, Line
from harness.records.memory import MemoryRecord
from harness.records.shared_parts import OncePerParts
from harness.records.statistics import Digest, digest
from harness.records.text import JudgedText, TextRun
from harness.records.token_time import TimeRecord
from harness.records.verdict import Verdict, judge
from harness.speed.model_names import ModelFile, ModelNames, file_of, file_of_parts
from harness.speed.prediction import Answer
from harness.speed.rates import Measured, collect_cells
from harness.speed.standings import MachineRow, measured_rows, published_rows, sort_rows

Content = TypeVar("Content")

#: What is held of a record that is condensed; it knows the verdict, which stands on what is let go.
CONDENSED = {Record: Digest, TextRun: JudgedText}


def condense(line: Line) -> Line:
    """A line without what no page shows: the single samples of a measured cell, the times of a text's tokens."""
    content = line.content
    if isinstance(content, Record):
        shown = digest(content) if is_measured(content) else without_samples(content)
        return Line(line.kind, line.schema, line.machine, line.harness_version, line.label, shown, line.number)
    if isinstance(content, TextRun):
        return dataclasses.replace(line, content=JudgedText.of(content, judge(content)))
    return line


@dataclass(frozen=True)
class Material:
    """All lines of a report; troubles are sentences about lines that could not be read; made_utc is when the page was made.

    The rest comes from elsewhere and may be missing: the catalog, by which models are known, and answers, which are predictions for the
    machine that makes the page. with_published asks for the article's figures beside one's own.
    """

    lines: Sequence[Line]
    troubles: Sequence[str] = ()
    files: Sequence[str] = ()
    made_utc: str = ""
    harness_version: str = ""
    with_published: bool = False
    answers: Sequence[Answer] = ()
    catalog: Catalog | None = None

    @functools.cached_property
    def cells(self) -> list[Digest]:
        """Measured cells, with at least one timed sample, in the order of the files."""
        return self.contents(Digest)

    @functools.cached_property
    def measured(self) -> list[Measured]:
        """What the cells say of models of the catalog."""
        return collect_cells(self.cells, self.catalog) if self.catalog else []

    @functools.cached_property
    def records(self) -> list[Record]:
        """The same cells without what they came to."""
        return [cell.record for cell in self.cells]

    @functools.cached_property
    def failures(self) -> list[Record]:
        """Cells that have no result."""
        return [record for record in self.contents(Record) if has_died(record)]

    @functools.cached_property
    def texts(self) -> list[TextRun]:
        """Texts that models wrote."""
        return self.contents(TextRun)

    @functools.cached_property
    def verdicts(self) -> list[tuple[Entry, Verdict | None]]:
        """The records that are no cells, and how far each may be believed."""
        others = [line.content for line in self.lines if not isinstance(line.content, Record | Digest | None)]
        return [(record, judge(record)) for record in others]

    def contents(self, kind: type[Content]) -> list[Content]:
        """What lines of a class hold, in the order of the files."""
        return [line.content for line in self.lines if isinstance(line.content, kind)]

    def of(self, *kinds: str) -> list[Line]:
        """The lines of some kinds."""
        return [line for line in self.lines if line.kind in kinds]

    @functools.cached_property
    def standings(self) -> list[MachineRow]:
        """Measured generation, among the published machines where they are wanted; fastest first."""
        published = published_rows(self.catalog) if self.catalog and self.with_published else []
        return sort_rows([*published, *measured_rows(self.measured, "tg")])

    @functools.cached_property
    def machines(self) -> list[Machine]:
        """Each machine once, whatever was updated on it meanwhile."""
        first: dict[tuple[str, int, int], Machine] = {}
        for machine in self.every_machine:
            first.setdefault(machine_key(machine), machine)
        latest_first = {id(line.machine): line.machine for line in reversed(self.lines)}.values()
        return [first[key] for key in dict.fromkeys(map(machine_key, latest_first))][::-1]

    @functools.cached_property
    def every_machine(self) -> list[Machine]:
        """Each state of each machine: lines with an equal one hold the same object."""
        return list({id(line.machine): line.machine for line in self.lines}.values())

    @functools.cached_property
    def engines(self) -> list[tuple[Machine, Build]]:
        """Which build ran on which machine, cells first."""
        runs: list[Record | TextRun] = [*self.records, *self.texts]
        found = {(id(run.machine), id(run.build)): (run.machine, run.build) for run in runs}
        return [(machine, build) for machine, build in found.values() if build]

    @functools.cached_property
    def _names(self) -> Mapping[tuple[str, int, int], str]:
        """What each machine is called: the CPU; with cores and memory where that alone is not clear."""
        keys = [machine_key(machine) for machine in self.machines]
        n_same = collections.Counter(cpu for cpu, _, _ in keys)
        return {key: key[0] if n_same[key[0]] < 2 else f"{key[0]}, {key[1]} cores, {key[2]} GiB" for key in keys}

    @functools.cached_property
    def _model_names(self) -> ModelNames:
        cells = {(id(record.model), id(record.asked)): record for record in [*self.records, *self.failures]}
        runs: list[Record | TextRun] = [*cells.values(), *self.texts]
        ledgers: list[MemoryRecord | TimeRecord] = [*self.contents(MemoryRecord), *self.contents(TimeRecord)]
        found = [file for run in runs if (file := file_of(run))]
        return ModelNames([*found, *map(file_of_line, ledgers)], self.catalog)

    def model_name(self, content: Record | TextRun | MemoryRecord | TimeRecord) -> str:
        """What the model of a line is called on this page."""
        if isinstance(content, Record):
            return self._name_of(content.model, content.asked)
        return self._model_names.of(file_of(content) if isinstance(content, TextRun) else file_of_line(content))

    @functools.cached_property
    def _name_of(self) -> OncePerParts[str]:
        return OncePerParts(lambda model, asked: self._model_names.of(file_of_parts(model, asked)))

    def file_label(self, file_name: str) -> str:
        """What a file is called of which only the name is known."""
        return self._model_names.of(ModelFile(file_name))

    def machine_name(self, machine: Machine) -> str:
        """What a machine is called on this page."""
        return self._names[machine_key(machine)]


def file_of_line(content: MemoryRecord | TimeRecord) -> ModelFile:
    """The file that a ledger is of. Lines of old about memory have what the user called it, and nothing else."""
    if isinstance(content, TimeRecord):
        model = content.model
        return ModelFile(model.file_name, model.file_sha256, is_synthetic=model.is_synthetic)
    subject = content.model
    return ModelFile(subject.file_name or subject.label, subject.file_sha256, subject.file_type, subject.is_synthetic)


def read_material(lines: Iterable[Line]) -> list[Line]:
    """Condense lines as they are read, so that no more of them is held than is shown."""
    return [condense(line) for line in lines]
