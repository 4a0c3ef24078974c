"""What the cells of a sweep say together about each placement of the model, and when two of them are the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.memory.causes import HOST
from harness.memory.resident import device_of_buffer
from harness.records.cells import Buffer, Device, Failure, Record, group_servers
from harness.records.native_errors import MEMORY
from harness.records.statistics import Digest, Summary, summarize
from harness.spec import CellKey, RunSpec, cell_key, find_varied
from harness.units import NS_PER_S


@dataclass(frozen=True, slots=True)
class Speed(Summary):
    """A measured test: its name without a depth that the row states, its kind (pp, tg, pp+tg), and what it came to."""

    test: str = ""
    kind: str = ""

    @property
    def token_s(self) -> float:
        return 1 / self.rate_tok_per_s


@dataclass(frozen=True, slots=True)
class PlacementResult:
    """A placement with its speeds by test, memory in bytes by device and cause, and what went wrong or was left out.

    varied holds the swept parameters by field name; layers_by_device is what llama.cpp says, memory_bytes what it allocated.
    """

    n_gpu_layers: int
    varied: Mapping[str, Any]
    speeds: tuple[Speed, ...] = ()
    memory_bytes: Mapping[str, Mapping[str, int]] | None = None
    layers_by_device: Mapping[str, int] | None = None
    load_duration_ns: int | None = None
    failure: Failure | None = None
    skipped: str | None = None
    power_sources: tuple[str, ...] = ()
    sampler_share: float | None = None

    def find(self, kind: str) -> Speed | None:
        """The first speed of pure prompts (``pp``) or pure generation (``tg``)."""
        return next((speed for speed in self.speeds if speed.kind == kind), None)


def make_result(cells: Sequence[Record | Digest], varied: Sequence[str]) -> PlacementResult:
    """Put the records of one placement together; the first failure is the row's.

    Raises
    ------
    ValueError : there is no record.
    """
    if not cells:
        raise ValueError("a row needs a record")
    records = [cell.record if isinstance(cell, Digest) else cell for cell in cells]
    spec = records[0].asked
    summaries = [
        (record, cell.summary if isinstance(cell, Digest) else summarize(cell))
        for record, cell in zip(records, cells, strict=True)
        if record.failure is None and (isinstance(cell, Digest) or cell.timed)
    ]
    good = [record for record, _ in summaries]
    resolved = next((record.resolved for record in good if record.resolved), None)
    telemetry = [record.telemetry for record in good if record.telemetry]
    return PlacementResult(
        n_gpu_layers=spec.n_gpu_layers,
        varied={name: getattr(spec, name) for name in varied},
        speeds=tuple(_speed(*item, is_depth_varied="n_depth" in varied) for item in summaries),
        memory_bytes=_largest_memory(good),
        layers_by_device=resolved.layers_by_device if resolved else None,
        load_duration_ns=next((record.load.load_duration_ns for record in good if record.load), None),
        failure=next((record.failure for record in records if record.failure), None),
        power_sources=tuple(dict.fromkeys(power.source for item in telemetry for power in item.power)),
        sampler_share=max((item.sampler_share or 0 for item in telemetry), default=None),
    )


def skipped_result(spec: RunSpec, varied: Sequence[str], reason: str) -> PlacementResult:
    """A placement that was not tried, with the reason."""
    return PlacementResult(spec.n_gpu_layers, {name: getattr(spec, name) for name in varied}, skipped=reason)


def _largest_memory(records: Sequence[Record]) -> dict[str, dict[str, int]] | None:
    """Memory of the test that took most: a longer context has a larger cache."""
    found = [
        group_memory(record.resolved.buffers, record.build.devices if record.build else ())
        for record in records
        if record.resolved
    ]
    return max(found, key=lambda memory: sum(sum(causes.values()) for causes in memory.values()), default=None)


def _speed(record: Record, summary: Summary, *, is_depth_varied: bool) -> Speed:
    test = record.asked.test_without_depth if is_depth_varied else record.asked.test
    found = {item.name: getattr(summary, item.name) for item in dataclasses.fields(summary)}
    return Speed(**found, test=test, kind=record.asked.kind)


def group_memory(buffers: Sequence[Buffer], devices: Sequence[Device] = ()) -> dict[str, dict[str, int]]:
    """Bytes by device and cause; everything in host memory is CPU."""
    found: dict[str, dict[str, int]] = {}
    servers = group_servers(devices)
    for buffer in buffers:
        device = device_of_buffer(buffer.buffer, servers)
        causes = found.setdefault(device, {})
        causes[buffer.cause] = causes.get(buffer.cause, 0) + buffer.size_bytes
    return dict(sorted(found.items(), key=lambda item: item[0] == HOST))


def placement_key(cell: RunSpec) -> CellKey:
    """What two cells of one placement share: everything but the test."""
    return cell_key(cell, but=("n_prompt", "n_gen"))


def find_columns(cells: Iterable[RunSpec]) -> list[str]:
    """The parameters that differ between cells, layers first and always."""
    return list(dict.fromkeys(("n_gpu_layers", *find_varied(cells))))


def look_key(cell: RunSpec) -> tuple[Any, ...]:
    """A key by which a look at a cell and the record of an earlier run are the same: the cell, and how it was repeated."""
    return (cell_key(cell), cell.repetitions, cell.warmup, cell.seed)


def index_records(records: Sequence[Record], n_threads: int) -> dict[Any, list[Record]]:
    """Records of an earlier run that need not be repeated, by `look_key`, in order: measured ones, and those that memory refused.

    A cell that was interrupted, or lost to a dead server, is measured again. A search measures one cell several times, so each record
    stands for one measurement; a list may be known by two names.
    """
    known: dict[Any, list[Record]] = {}
    for record in records:
        if record.failure is None or record.failure.trouble == MEMORY:
            same = known.setdefault(look_key(record.asked), [])
            same.append(record)
            if record.threads_source != "asked":
                known[look_key(dataclasses.replace(record.asked, n_threads=None))] = same
    return known


def measured_s(record: Record) -> float:
    """Seconds that a record says it took: load, context and all its samples. Starting a worker is in none."""
    load_ns = record.load.load_duration_ns + record.load.context_duration_ns if record.load else 0
    return (load_ns + sum(sample.duration_ns for sample in record.samples)) / NS_PER_S


def _add(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second


def join_records(first: Record, second: Record) -> Record:
    """One record of two runs of the same cell."""
    return dataclasses.replace(
        second,
        samples=(*first.samples, *second.samples),
        load=first.load,
        telemetry=second.telemetry or first.telemetry,
        asked=dataclasses.replace(first.asked, repetitions=_add(first.asked.repetitions, second.asked.repetitions)),
    )
