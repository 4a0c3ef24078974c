"""A memory ledger: what was predicted beside what was measured, cause by cause, and what follows from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from harness.memory.causes import HOST, Cause, Part
from harness.memory.forecast import Forecast
from harness.memory.resident import Account, DeviceReading, MemoryReading, NativeBuffer, Share, account_growth


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the ledger; None is what was not predicted, not measured or not told by the OS.

    measured_bytes is what llama.cpp allocated, or what the OS says of causes that llama.cpp does not know; resident_bytes what of
    it is in memory.
    """

    cause: Cause
    device: str
    predicted_bytes: int | None = None
    measured_bytes: int | None = None
    resident_bytes: int | None = None

    @property
    def error(self) -> float | None:
        """The prediction's relative error."""
        return Totals(self.predicted_bytes, self.measured_bytes).error


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a fresh process took step by step, and llama.cpp's buffers in it.

    runtime is what grew beside the buffers, weights_resident_bytes what of the model's files was in memory at last; None where the OS
    does not tell mappings apart. readings have no maps: paths name people.
    """

    readings: tuple[MemoryReading, ...]
    buffers: tuple[NativeBuffer, ...] = ()
    runtime: tuple[Share, ...] = ()
    weights_resident_bytes: int | None = None
    flash_attn: bool | None = None
    load_mode: str | None = None
    layers_by_device: Mapping[str, int] | None = None
    is_unlocked: bool = False  #: weights that were to be locked in memory could not be, or not all of them

    @property
    def account(self) -> Account:
        growth = self.resident_bytes - self.interpreter_bytes
        return account_growth(growth, self.buffers, self.runtime, self.weights_resident_bytes)

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
class Totals:
    """The whole process in host memory: predicted, allocated (once every page was touched), and resident; None if unknown."""

    predicted_bytes: int | None
    measured_bytes: int | None = None
    resident_bytes: int | None = None

    @property
    def error(self) -> float | None:
        """The prediction's relative error."""
        if self.predicted_bytes is None or not self.measured_bytes:
            return None
        return self.predicted_bytes / self.measured_bytes - 1


def add_up(forecast: Forecast, measurement: Measurement | None) -> Totals:
    """What the columns of the host's lines come to."""
    predicted = forecast.on(HOST) if forecast.lines else None
    if measurement is None:
        return Totals(predicted)
    rows = make_ledger(forecast, measurement)
    counted = [row for row in rows if row.device == HOST and row.cause.part is not Part.CORRECTION]
    allocated = measurement.interpreter_bytes + sum(row.measured_bytes or 0 for row in counted)
    return Totals(predicted, allocated, measurement.resident_bytes)


def make_ledger(forecast: Forecast, measurement: Measurement | None) -> tuple[Row, ...]:
    """Set measured beside predicted, cause by cause and device by device.

    Measured host lines add up to the growth of resident memory: what is allocated but not in memory is taken back by lines of its own,
    and what nothing explains is the last one.
    """
    predicted: dict[tuple[Cause, str], int] = defaultdict(int)
    measured: dict[tuple[Cause, str], int] = defaultdict(int)
    resident: dict[tuple[Cause, str], int | None] = {}
    for line in forecast.lines:
        predicted[line.cause, line.device] += line.size_bytes
    predicted |= {(share.cause, HOST): share.size_bytes for share in forecast.runtime}
    if measurement:
        for buffer in measurement.buffers:
            key = (buffer.cause, buffer.device)
            measured[key] += buffer.size_bytes
            before = resident.get(key, 0)
            resident[key] = None if before is None or buffer.resident_bytes is None else before + buffer.resident_bytes
        account, shares = measurement.account, {(item.cause, HOST): item.size_bytes for item in measurement.runtime}
        measured |= shares | {(item.cause, HOST): item.size_bytes for item in account.corrections}
        resident |= shares
        if (Cause.MAPPED, HOST) in measured and measurement.weights_resident_bytes is not None:
            resident[Cause.MAPPED, HOST] = measurement.weights_resident_bytes
        if account.unexplained_bytes is not None:
            measured[Cause.UNEXPLAINED, HOST] = account.unexplained_bytes
        for reading in measurement.grown[-1].devices:
            if (left := _driver_bytes(measurement, reading)) is not None:
                measured[Cause.DRIVER_CONTEXT, reading.name] = left
    keys = sorted({*predicted, *measured}, key=_rank)
    return tuple(Row(*key, predicted.get(key), measured.get(key), resident.get(key)) for key in keys)


def _rank(key: tuple[Cause, str]) -> tuple[bool, int, str]:
    """Buffers of all devices, what drivers keep beside them, and then the rest of the host's."""
    cause, device = key
    return not cause.is_buffer and cause is not Cause.DRIVER_CONTEXT, cause.rank, device


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
