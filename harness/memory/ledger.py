"""A memory ledger: what was predicted beside what was measured, cause by cause, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass

from harness.codec import Signed
from harness.memory.fit import CardFit, Fit
from harness.memory.forecast import BUFFER_CAUSES, COMPUTE, HOST, MAPPED, Line
from harness.memory.resident import (
    RUNTIME_CAUSES,
    UNEXPLAINED,
    UNREAD,
    UNTOUCHED,
    Account,
    DeviceReading,
    MemoryReading,
    NativeBuffer,
    Share,
)
from harness.spec import RunSpec

#: What a device's driver keeps for a process beside llama.cpp's buffers.
DRIVER_CONTEXT = "driver's context"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the ledger; None is what was not predicted, not measured or not told by the OS.

    measured_bytes is what llama.cpp allocated, or what the OS says of causes that llama.cpp does not know; resident_bytes what of
    it is in memory.
    """

    cause: str
    device: str
    predicted_bytes: Signed | None = None
    measured_bytes: Signed | None = None
    resident_bytes: Signed | None = None

    @property
    def error(self) -> float | None:
        """The prediction's relative error."""
        if self.predicted_bytes is None or not self.measured_bytes:
            return None
        return self.predicted_bytes / self.measured_bytes - 1


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one context would take: llama.cpp's buffers, and the process around them (empty where no dry run could be made).

    unknown names the causes that are not known, or only in part; remarks say why.
    """

    spec: RunSpec
    lines: tuple[Line, ...]
    runtime: tuple[Share, ...] = ()
    interpreter_bytes: int | None = None
    flash_attn: bool | None = None
    remarks: tuple[str, ...] = ()
    unknown: frozenset[str] = frozenset()

    @property
    def n_ctx(self) -> int:
        return self.spec.n_ctx

    def on(self, device: str) -> int:
        """All bytes on a device; in host memory with the process itself."""
        size = sum(line.size_bytes for line in self.lines if line.device == device)
        return size + self.runtime_bytes if device == HOST else size

    @property
    def runtime_bytes(self) -> int:
        """The process around llama.cpp's buffers."""
        return sum(share.size_bytes for share in self.runtime) + (self.interpreter_bytes or 0)

    @property
    def is_whole(self) -> bool:
        """Whether weights, cache and compute buffers are all known; a model without a cache has none to know."""
        return any(line.cause == COMPUTE for line in self.lines) and not self.unknown

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((HOST, *(line.device for line in self.lines))))


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a fresh process took step by step, llama.cpp's buffers in it, and how its growth is explained."""

    readings: tuple[MemoryReading, ...]
    buffers: tuple[NativeBuffer, ...]
    account: Account
    n_ctx: int
    flash_attn: bool | None
    load_mode: str | None
    layers_by_device: dict[str, int]

    @property
    def grown(self) -> tuple[MemoryReading, ...]:
        """The readings up to the first token, without what is left after everything was freed."""
        return tuple(reading for reading in self.readings if reading.step != "after")

    @property
    def interpreter_bytes(self) -> int:
        return self.readings[0].rss_bytes

    @property
    def resident_bytes(self) -> int:
        return self.grown[-1].rss_bytes


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that a ledger is about, by its header.

    origin is ``file``, ``server`` (only the header was fetched) or ``shape`` (a header made up from the catalog).
    """

    label: str
    origin: str
    architecture: str
    file_bytes: int
    n_layers: int
    n_ctx_train: int | None
    is_synthetic: bool = False
    file_type: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to one `harness overhead`: forecasts for one context or many, and a measurement of the first where one was made."""

    subject: Subject
    forecasts: tuple[Forecast, ...]
    fits: tuple[Fit, ...]
    cards: tuple[CardFit, ...] = ()
    measurement: Measurement | None = None
    failure: str | None = None
    remarks: tuple[str, ...] = ()

    @property
    def forecast(self) -> Forecast:
        return self.forecasts[0]

    @property
    def context_slope(self) -> float | None:
        """Bytes that one more token of context takes, over the range that was asked for; None for a single context."""
        if len(self.forecasts) < 2 or self.forecasts[0].n_ctx == self.forecasts[-1].n_ctx:
            return None
        first, last = self.forecasts[0], self.forecasts[-1]
        grown = sum(last.on(device) - first.on(device) for device in last.devices)
        return grown / (last.n_ctx - first.n_ctx)


def make_ledger(forecast: Forecast, measurement: Measurement | None) -> tuple[Row, ...]:
    """Set measured beside predicted, cause by cause and device by device.

    Measured host lines add up to the growth of resident memory: what is allocated but not in memory is taken back by lines of its own,
    and what nothing explains is the last one.
    """
    measured: dict[tuple[str, str], int] = {}
    resident: dict[tuple[str, str], int | None] = {}
    for buffer in measurement.buffers if measurement else ():
        key = (buffer.cause, buffer.device)
        measured[key] = measured.get(key, 0) + buffer.size_bytes
        before = resident.get(key, 0)
        resident[key] = None if before is None or buffer.resident_bytes is None else before + buffer.resident_bytes
    predicted: dict[tuple[str, str], int] = {}
    for line in forecast.lines:
        predicted[line.cause, line.device] = predicted.get((line.cause, line.device), 0) + line.size_bytes
    for share in forecast.runtime:
        predicted[share.cause, HOST] = share.size_bytes
    if measurement:
        account = measurement.account
        for share in (*account.runtime, *account.corrections):
            measured[share.cause, HOST] = share.size_bytes
        for share in account.runtime:
            resident[share.cause, HOST] = share.size_bytes
        if (mapped := measured.get((MAPPED, HOST))) is not None and account.unexplained_bytes is not None:
            resident[MAPPED, HOST] = mapped + measured.get((UNREAD, HOST), 0)
        if account.unexplained_bytes is not None:
            measured[UNEXPLAINED, HOST] = account.unexplained_bytes
        for reading in measurement.grown[-1].devices:
            if (left := _driver_bytes(measurement, reading)) is not None:
                measured[DRIVER_CONTEXT, reading.name] = left
    keys = sorted({*predicted, *measured}, key=_rank)
    return tuple(Row(*key, predicted.get(key), measured.get(key), resident.get(key)) for key in keys)


_ORDER = (*BUFFER_CAUSES, *RUNTIME_CAUSES, DRIVER_CONTEXT, UNREAD, UNTOUCHED, UNEXPLAINED)


def _rank(key: tuple[str, str]) -> tuple[bool, int, str]:
    cause, device = key
    return device == HOST and cause in RUNTIME_CAUSES + _ORDER[-3:], _ORDER.index(cause), device


def _driver_bytes(measurement: Measurement, now: DeviceReading) -> int | None:
    """What a device's use grew by beyond llama.cpp's buffers: by NVML for this process, else by what the device has less free.

    None for a device behind RPC: what is free there is a whole machine's memory, which others use too.
    """
    if now.name.startswith("RPC"):
        return None
    allocated = sum(buffer.size_bytes for buffer in measurement.buffers if buffer.device == now.name)
    if now.process_bytes is not None:
        return now.process_bytes - allocated
    first = next((item for reading in measurement.readings for item in reading.devices if item.name == now.name), None)
    if first is None or first.free_bytes is None or now.free_bytes is None or first is now:
        return None
    return first.free_bytes - now.free_bytes - allocated
