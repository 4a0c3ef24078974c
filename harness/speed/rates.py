"""Measured rates by machine and model: which model of the catalog a record is about, and which of many records speaks for a machine."""

from __future__ import annotations

import contextlib
import functools
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.catalog import Catalog, Entry
from harness.codec import decode
from harness.errors import HarnessError
from harness.gguf.cost import Cost, cost_of_shape
from harness.host.rpc import has_loopback
from harness.records.cells import Build, Machine, Model, Record, Resolved, has_died, is_measured
from harness.records.shared_parts import OncePerParts
from harness.records.statistics import Digest, Summary, digest
from harness.spec import RunSpec, defaults
from harness.speed.model_names import find_file_entry, name_stem, read_quantization

#: What `harness pp-tg` measures unless it is told otherwise.
USUAL_TESTS = ("pp512", "tg128")

#: n_params of a file may exceed the published count by llama3's rope_freqs (half a head).
ROPE_PARAMS = 256

#: Parameters that may differ from their defaults in a record that speaks for its machine: where layers lie makes a row of its own.
_FREE = {"n_threads", "n_gpu_layers", "load_mode", "main_gpu", "tensor_split"}


@dataclass(frozen=True, slots=True)
class Measured:
    """One record that has a number, with what it is about.

    machine_label names the host, or the device that held the layers; model is a name of the catalog where the file is known, else the
    file's own. quantization is llama.cpp's short name, None where the description does not say. is_default tells whether it ran as
    `pp-tg` does without options.
    """

    record: Record
    summary: Summary
    machine_label: str
    kind: str  # cpu or gpu
    model: str
    entry: Entry | None
    quantization: str | None
    is_default: bool

    @property
    def is_synthetic(self) -> bool:
        return bool(self.record.model and self.record.model.is_synthetic)

    @property
    def test_kind(self) -> str:
        """tg, pp, or both in one test."""
        return self.record.asked.kind

    @property
    def mean_depth(self) -> float:
        """Tokens that lay before the average token of the test."""
        asked = self.record.asked
        return asked.n_depth + (asked.n_prompt + asked.n_gen) / 2

    def cost(self) -> Cost | None:
        """What a token costs in this model: as the record has it of the file's own header, for a cache of f16, unless a version that
        counted other things wrote it; else by the catalog's shape; None where neither is there."""
        asked, model = self.record.asked, self.record.model
        if model and model.cost is not None and (asked.type_k, asked.type_v) == ("f16", "f16"):
            with contextlib.suppress(ValueError, HarnessError):
                return decode(Cost, {**model.cost, "name": self.model, "quantization": self.quantization or ""})
        if self.entry is not None and self.quantization is not None:
            with contextlib.suppress(HarnessError):
                return cost_of_shape(self.entry.shape, self.quantization, self.model, asked.type_k, asked.type_v)
        return None


def collect(records: Iterable[Record], catalog: Catalog) -> list[Measured]:
    """The records that have a number, each with its machine and model, in their order; their samples are let go one by one."""
    return collect_cells((digest(record) for record in records if is_measured(record)), catalog)


def collect_cells(cells: Iterable[Digest], catalog: Catalog) -> list[Measured]:
    """As `collect`, of what is summed up already; a failed cell has no number.

    A device behind a loopback RPC server is a stand-in for one, on the same machine; its figures speak for no machine.
    """
    found = []
    about = OncePerParts(functools.partial(_name_model, catalog=catalog))
    for cell in cells:
        record = cell.record
        if record.model is None or has_died(record) or has_loopback(record.asked.rpc):
            continue
        machine, kind = name_machine(record)
        name, entry, quantization = about(record.model)
        found.append(Measured(record, cell.summary, machine, kind, name, entry, quantization, is_default(record)))
    return found


def _name_model(model: Model, catalog: Catalog) -> tuple[str, Entry | None, str | None]:
    entry = find_entry(model, catalog)
    return entry.name if entry else name_stem(model.file_name), entry, read_quantization(model.description)


def speaks_for(measured: Sequence[Measured]) -> Measured | None:
    """The record that speaks for a machine and a model: trusted, then with default settings and of the usual length, then most
    repeated, then the latest; measured is in order of time."""
    return max(reversed(measured), key=_voice, default=None)


def _voice(item: Measured) -> tuple[bool, bool, bool, int]:
    is_usual = item.record.asked.test in USUAL_TESTS
    return (not item.summary.is_distrusted, item.is_default, is_usual, item.summary.n_samples)


def is_default(record: Record) -> bool:
    """Whether a record ran as `harness pp-tg` does without options, with an empty cache."""
    return _is_usual(record.asked) and record.threads_source != "asked" and record.failure is None


def _is_standard(asked: RunSpec) -> bool:
    values, usual = _standard()
    return asked.n_depth == 0 and values(asked) == usual


_is_usual = OncePerParts(_is_standard)


@functools.cache
def _standard() -> tuple[Callable[[RunSpec], Any], tuple[Any, ...]]:
    """What takes the parameters that have to be as they are by default, and what that is."""
    usual = {name: value for name, value in defaults().items() if name not in _FREE | {"n_depth"}}
    return operator.attrgetter(*usual), tuple(usual.values())


def find_entry(model: Model, catalog: Catalog) -> Entry | None:
    """The model of the catalog that a loaded one is.

    By the file's hash, where the catalog has it; by the name in the file's name, since several models share a shape; then by the
    number of parameters, which says that at least the shape is that one's.
    """
    if found := find_file_entry(model.file_name, model.file_sha256, catalog):
        return found
    for entry in catalog.entries.values():
        if entry.parameters and 0 <= model.n_params - entry.parameters <= ROPE_PARAMS:
            return entry
    return None


def name_machine(record: Record) -> tuple[str, str]:
    """(label, kind) of what ran: the GPUs that held layers, with the CPU's name where it held some too; else the host."""
    return _names(record.machine, record.build, record.resolved)


def _name(machine: Machine, build: Build | None, resolved: Resolved | None) -> tuple[str, str]:
    said = {device.name: device.description for device in build.devices} if build else {}
    on_cpu, names = _count(resolved)
    cards = dict.fromkeys(said.get(name, name) for name in names)
    if not cards:
        return name_host(machine), "cpu"
    return " + ".join(cards) + (" + CPU" if on_cpu > 1 else ""), "gpu"


_names = OncePerParts(_name)


def is_shared(record: Record) -> bool:
    """Whether the CPU held layers beside a GPU; one is llama.cpp's input, which always lies there."""
    on_cpu, cards = count_layers(record)
    return on_cpu > 1 and bool(cards)


def count_layers(record: Record) -> tuple[int, list[str]]:
    """(layers on the CPU, ggml's names of the devices that held others)."""
    return _count(record.resolved)


def _count(resolved: Resolved | None) -> tuple[int, list[str]]:
    layers = resolved.layers_by_device if resolved else {}
    cards = [name for name, count in layers.items() if count and not name.upper().startswith("CPU")]
    return sum(count for name, count in layers.items() if name.upper().startswith("CPU")), cards


@functools.lru_cache(maxsize=256)
def name_host(machine: Machine) -> str:
    """A short name of a host: its CPU without trade marks, its cores and memory."""
    cpu = re.sub(r"\((?:R|TM|r|tm)\)|\bCPU\b|@.*|\bProcessor\b", " ", machine.cpu)
    cpu = " ".join(cpu.split()).removeprefix("Intel ").removeprefix("Core ").removeprefix("Xeon ")
    return f"{cpu} ({machine.n_cores_physical}c, {round(machine.memory_bytes / 1024**3)}G)"
