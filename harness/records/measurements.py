"""One cell, measured once by whichever program: what a comparison needs of a record, and nothing more of it.

A record of harness and a row of llama-bench's files (`bench_rows`) both become a `Measurement`; thousands are held at once.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.evidence.medians import mean, median, standard_deviation
from harness.evidence.two_samples import Summary
from harness.records.cell_verdict import judge_cell, mark
from harness.records.cells import Machine, Record, machine_key, model_key, name_devices
from harness.records.trust import QUIET, Trust, Verdict
from harness.spec import RunSpec, cell_key
from harness.units import NS_PER_S

#: What a comparison may be by besides the parameters of `RunSpec`.
MACHINE, BUILD, MODEL = "machine", "build", "model"

#: What tells measurements apart, by name.
Facets = Mapping[str, Any]


class Evidence(enum.Enum):
    """What is known of the repetitions."""

    SAMPLES = "samples"  # each one
    SUMMARY = "summary"  # their mean and deviation, as llama-bench's CSV and SQL have them


@dataclass(frozen=True, slots=True)
class Subject:
    """What was measured; of many measurements one and the same object.

    hardware is what llama-bench's files know of a machine, its processor and cards; others are llama-bench's settings that harness has
    none for and leaves as they usually are, where they were not. machine and model_sha256 are None where the file does not say.
    """

    spec: RunSpec
    hardware: str
    commit: str  #: llama.cpp's, empty where it is not known
    model_sha256: str | None
    model_bytes: int | None
    model_description: str
    machine: Machine | None = None
    others: tuple[tuple[str, str], ...] = ()

    def facets(self, *, is_coarse: bool) -> Facets:
        """Everything by which two measurements may be unlike, by name: those with equal facets repeat each other.

        Parameters
        ----------
        is_coarse : machine and model are told by what llama-bench's files know of them
        """
        machine: Any = self.hardware if is_coarse or self.machine is None else machine_key(self.machine)
        file: Any = self.model_sha256 or self.spec.file_name
        model: Any = (self.spec.file_name, self.model_bytes) if is_coarse else file
        settings = dict(cell_key(self.spec, but={"model"}))
        return {MACHINE: machine, MODEL: model, BUILD: self.commit, **settings, **dict(self.others)}


@dataclass(frozen=True, slots=True)
class Measurement:
    """What it came to: durations of the repetitions that count, in ns, or the mean and deviation of the rates where these are all.

    n is how many repetitions there were; None: the file does not say. verdict says how far it may be believed, label is what its user
    calls it.
    """

    subject: Subject
    time_utc: str
    durations_ns: tuple[int, ...] = ()
    mean_tok_per_s: float | None = None
    deviation_tok_per_s: float | None = None
    n: int | None = None
    verdict: Verdict = QUIET
    label: str = ""

    @property
    def evidence(self) -> Evidence:
        """What is known of its repetitions."""
        return Evidence.SAMPLES if self.durations_ns else Evidence.SUMMARY

    @property
    def is_distrusted(self) -> bool:
        """Whether it is not to be believed."""
        return self.verdict.trust is Trust.NOT_TRUSTED

    @property
    def centre_ns(self) -> float:
        """The median duration, or the one that the mean rate comes to."""
        if self.durations_ns:
            return median(self.durations_ns)
        return self.subject.spec.n_tokens * NS_PER_S / (self.mean_tok_per_s or math.inf)

    def summarize(self, assumed_n: int) -> Summary:
        """Mean, deviation and number of its durations, in ns.

        A duration's relative deviation is taken for the rate's (the delta method's first term).
        """
        if self.durations_ns:
            return Summary(mean(self.durations_ns), standard_deviation(self.durations_ns), len(self.durations_ns))
        share = (self.deviation_tok_per_s or 0.0) / (self.mean_tok_per_s or math.inf)
        return Summary(self.centre_ns, share * self.centre_ns, self.n or assumed_n)


class Subjects:
    """Makes one `Subject` of all records that have the same one."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], tuple[tuple[Any, ...], Subject]] = {}

    def of(self, record: Record) -> Subject:
        """What a record is of. Equal parts of lines are read as one object (`codec.Shared`), which is what makes this quick."""
        parts = (record.asked, record.machine, record.build, record.model)
        key = tuple(map(id, parts))
        if key not in self._known:
            self._known[key] = (parts, _subject_of(record))  # with the parts, so that their ids stay theirs
        return self._known[key][1]


def _subject_of(record: Record) -> Subject:
    build, model = record.build, record.model
    cpu, gpu = name_devices(build.devices) if build else (record.machine.cpu, "")
    return Subject(
        record.asked,
        name_hardware(cpu, gpu),
        build.commit if build else "",
        model.file_sha256 if model else None,
        model.size_bytes if model else None,
        model.description if model else model_key(record),
        record.machine,
    )


def name_hardware(cpu: str, gpu: str) -> str:
    """What a machine computes on in one line."""
    return " · ".join(filter(None, (cpu.strip(), gpu.strip())))


def measurement_of(record: Record, subjects: Subjects, label: str | None = None) -> Measurement:
    """A measured record, as far as comparing needs it."""
    marked = mark(record)
    durations = tuple([one.sample.duration_ns for one in marked])
    verdict = judge_cell(record, marked) or QUIET
    return Measurement(
        subjects.of(record), record.time_utc, durations, n=len(durations), verdict=verdict, label=label or ""
    )
