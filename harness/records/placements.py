"""One row of a sweep: what its cells say together about a placement of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.memory.resident import device_of_buffer
from harness.records.cells import Buffer, Caution, Device, Record, group_servers
from harness.records.statistics import joules_per_token, summarize
from harness.spec import RunSpec


@dataclass(frozen=True, slots=True)
class Speed:
    """A measured test: its name without a depth that the row states, its kind (pp, tg, pp+tg), tokens per second with the 95 %
    interval, joules per token."""

    test: str
    kind: str
    rate_tok_per_s: float
    rate_low: float | None
    rate_high: float | None
    n_samples: int
    joules_per_token: float | None
    cautions: tuple[Caution, ...] = ()

    @property
    def token_s(self) -> float:
        return 1 / self.rate_tok_per_s


@dataclass(frozen=True, slots=True)
class LayerRow:
    """A placement with its speeds by test, memory in bytes by device and cause, and what went wrong or was left out.

    varied holds the swept parameters by field name; layers_by_device is what llama.cpp says, memory what it allocated.
    """

    n_gpu_layers: int
    varied: Mapping[str, Any]
    speeds: tuple[Speed, ...] = ()
    memory: Mapping[str, Mapping[str, int]] | None = None
    layers_by_device: Mapping[str, int] | None = None
    load_duration_ns: int | None = None
    failure: str | None = None
    skipped: str | None = None
    power_sources: tuple[str, ...] = ()
    sampler_share: float | None = None

    def find(self, kind: str) -> Speed | None:
        """The first speed of pure prompts (``pp``) or pure generation (``tg``)."""
        return next((speed for speed in self.speeds if speed.kind == kind), None)


def make_row(records: Sequence[Record], varied: Sequence[str]) -> LayerRow:
    """Put the records of one placement together; the first failure is the row's.

    Raises
    ------
    ValueError : there is no record.
    """
    if not records:
        raise ValueError("a row needs a record")
    spec = records[0].asked
    good = [record for record in records if record.timed and record.failure is None]
    resolved = next((record.resolved for record in good if record.resolved), None)
    telemetry = [record.telemetry for record in good if record.telemetry]
    return LayerRow(
        n_gpu_layers=spec.n_gpu_layers,
        varied={name: getattr(spec, name) for name in varied},
        speeds=tuple(_speed(record, is_depth_varied="n_depth" in varied) for record in good),
        memory=_largest_memory(good),
        layers_by_device=resolved.layers_by_device if resolved else None,
        load_duration_ns=next((record.load.load_duration_ns for record in good if record.load), None),
        failure=next((tell_failure(record) for record in records if record.failure), None),
        power_sources=tuple(dict.fromkeys(power.source for item in telemetry for power in item.power)),
        sampler_share=max((item.sampler_share or 0 for item in telemetry), default=None),
    )


def skipped_row(spec: RunSpec, varied: Sequence[str], reason: str) -> LayerRow:
    """A placement that was not tried, with the reason."""
    return LayerRow(spec.n_gpu_layers, {name: getattr(spec, name) for name in varied}, skipped=reason)


def _largest_memory(records: Sequence[Record]) -> dict[str, dict[str, int]] | None:
    """Memory of the test that took most: a longer context has a larger cache."""
    found = [
        group_memory(record.resolved.buffers, record.build.devices if record.build else ())
        for record in records
        if record.resolved
    ]
    return max(found, key=lambda memory: sum(sum(causes.values()) for causes in memory.values()), default=None)


def _speed(record: Record, *, is_depth_varied: bool) -> Speed:
    summary = summarize(record)
    return Speed(
        record.asked.test_without_depth if is_depth_varied else record.asked.test,
        record.asked.kind,
        summary.rate_tok_per_s,
        summary.rate_low,
        summary.rate_high,
        summary.n_samples,
        joules_per_token(record),
        summary.cautions,
    )


def group_memory(buffers: Sequence[Buffer], devices: Sequence[Device] = ()) -> dict[str, dict[str, int]]:
    """Bytes by device and cause; everything in host memory is CPU."""
    found: dict[str, dict[str, int]] = {}
    servers = group_servers(devices)
    for buffer in buffers:
        device = "CPU" if buffer.is_host else device_of_buffer(buffer.buffer, servers)
        causes = found.setdefault(device, {})
        causes[buffer.cause] = causes.get(buffer.cause, 0) + buffer.size_bytes
    return dict(sorted(found.items(), key=lambda item: item[0] == "CPU"))


def tell_failure(record: Record) -> str:
    """A failure in a few words: why, without what was tried, which the row says, and nothing of the log."""
    assert record.failure is not None
    return (record.failure.reason or record.failure.message).rstrip(".")
