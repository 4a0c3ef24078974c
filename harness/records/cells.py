"""What was measured: raw samples, what was asked and what really ran, as one JSON object a line.

Nothing here is derived: means, medians, rates and intervals are computed by `harness.records.statistics` when a record is read.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.codec import Positive, PositiveNumber, Shared, UtcTime
from harness.evidence.drift import count_warmups
from harness.records.cautions import Caution
from harness.records.failures import Failure as Failure
from harness.records.shared_parts import OncePerParts
from harness.spec import RunSpec, cell_values

#: History of the line format.
#: 1 (2026-11): first. 2 (2026-11): what a failure's cause says is not a sentence beside it any more.
#: 3 (2026-11): a caution is a cause and figures; a sentence only in what was said before.
SCHEMA = 3


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the operating system counted around one repetition; None is what it does not say.

    The two readings lie outside the timed region, the first before the rest that goes before it: wall_ns is from one to the other.
    busy_s and stolen_s are of all CPUs that are ours, own_s of the process that measures and of the one that started it; swapped pages
    and what a quota held back are of the whole system and the whole control group. `harness.records.disturbances` says what follows.
    """

    wall_ns: Positive  #: between the two readings
    n_cpus: Positive  #: CPUs that are ours
    n_cores: Positive  #: physical cores that those are of
    busy_s: float | None = None  #: CPU time of everybody on them
    own_s: float | None = None  #: CPU time of ours
    waited_ns: int | None = None  #: time in which our threads could have run and had no CPU, all threads together
    stolen_s: float | None = None  #: CPU time that the hypervisor took
    n_held: int | None = None  #: how often a control group's quota held it back
    held_s: float | None = None  #: CPU time of that
    n_major_faults: int | None = None  #: pages that had to be read from disk, ours
    n_swapped_pages: int | None = None  #: pages swapped in and out, everybody's
    n_switched: int | None = None  #: how often one of our threads had to leave a CPU to another
    n_thermal: int | None = None  #: how often a core or its processor was slowed for its heat
    clock_mhz: float | None = None  #: of the cores that computed, on average, when the repetition ended
    clock_limit_mhz: float | None = None  #: the highest that such a core can have
    is_server_here: bool = False  #: an RPC server on this machine computed too, and counts as others do


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of a test. Durations in ns; token_ns holds one duration a generated token, or a step in which each of several sequences
    got one; prompt_ns is None where there is no prompt."""

    duration_ns: Positive
    prompt_ns: int | None  #: until the last token of the prompt
    token_ns: tuple[int, ...]  #: each generated token
    is_warmup: bool  #: before the clock that counts
    conditions: Conditions | None = None  #: what the operating system says of it
    n_reused: int | None = None  #: tokens before the prompt that the cache still had; None where none were to be reused
    turn: int | None = None  #: place of its block in the order of the whole run, from 0; None in older records


@dataclass(frozen=True, slots=True)
class Buffer:
    """One buffer of llama.cpp: cause is model, kv, compute, output or recurrent; buffer its name (CPU_Mapped, CPU_REPACK, CUDA0)."""

    cause: str  #: model, kv, compute, output or recurrent
    buffer: str  #: llama.cpp's name: CPU_Mapped, CPU_REPACK, CUDA0
    size_bytes: int

    @property
    def is_host(self) -> bool:
        """Whether it lies in host memory: the CPU's own kinds and the pinned ones that GPU backends call ``CUDA_Host`` and the like."""
        return self.buffer.startswith(("CPU", "AMX")) or self.buffer.endswith("_Host")


@dataclass(frozen=True, slots=True)
class Device:
    """One device that ggml sees. kind is cpu, gpu, igpu or accel; memory in bytes, None where the backend does not say."""

    name: str  #: ggml's name: CPU, CUDA0, RPC0
    description: str  #: the device's own name, or its server's address
    kind: str  #: cpu, gpu, igpu or accel
    memory_free_bytes: int | None
    memory_total_bytes: int | None

    @property
    def is_gpu(self) -> bool:
        """Whether it is a graphics card, or shares the host's memory as one."""
        return self.kind in ("gpu", "igpu")


def name_devices(devices: Sequence[Device]) -> tuple[str, str]:
    """What a machine computes on, as llama-bench's files have it: processors with their accelerators, and cards."""
    return tuple(  # type: ignore[return-value]
        ", ".join(device.description for device in devices if device.kind in kinds)
        for kinds in (("cpu", "accel"), ("gpu", "igpu"))
    )


def group_servers(devices: Sequence[Device]) -> dict[str, list[str]]:
    """Names of the devices of each RPC server by its ``host:port``, which is what ggml describes them by."""
    servers: dict[str, list[str]] = {}
    for device in devices:
        if device.name.startswith("RPC"):
            servers.setdefault(device.description, []).append(device.name)
    return servers


@dataclass(frozen=True, slots=True)
class Build:
    """The engine that ran: version of llama-cpp-python, ggml and the commit it was built from, CPU features compiled in.

    wheel_tag is the platform that its wheel was made for (``py3-none-manylinux_2_28_x86_64``), empty where that is not known and in
    records of before; is_prebuilt says that the wheel was compiled by a build service for many machines, is_untried that harness was
    tried with other versions.
    """

    llama_cpp_python: str  #: version
    ggml_version: str  #: version
    ggml_commit: str  #: commit of llama.cpp
    system_info: str  #: CPU features, as llama.cpp's log has them
    backends: tuple[str, ...]  #: ggml's backends that were loaded
    devices: tuple[Device, ...]  #: every device that ggml sees
    wheel_tag: str = ""  #: as Python's packages spell it
    is_prebuilt: bool = False
    is_untried: bool = False

    @property
    def commit(self) -> str:
        """llama.cpp's commit, without what was changed on top."""
        return self.ggml_commit.split("-")[0]


@dataclass(frozen=True, slots=True)
class Model:
    """The file that ran, all parts of a split one.

    size_bytes is what llama.cpp counts (tensors only), file_size_bytes what the disk holds. cost is what a token costs by the file's
    header (`harness.gguf.cost.Cost`, with a cache of f16), so that a file which no catalog knows can be compared; older records
    have none.
    file_sha256 of a split model is over its parts' own (`sources.model_file.hash_file`); file_name is the first part's.
    """

    file_name: str
    description: str  #: llama.cpp's: architecture, size, type
    size_bytes: int  #: tensors only
    n_params: int  #: parameters
    file_size_bytes: int  #: of all parts on the disk
    file_sha256: str | None = None
    is_synthetic: bool = False
    cost: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """The host, without names of people or paths.

    n_cores_physical counts the cores that were ours, the other figures are the whole machine's. cpus_bound says what kept CPUs from
    us (``affinity``, ``cpuset``, ``cgroup quota``), cpu_quota is a control group's in CPUs' worth of time and memory_limit_bytes its
    limit; None where the whole machine was ours, and in records of before. cpu_features are those vector instructions of the CPU
    that an llama.cpp may be compiled for, by llama.cpp's names; empty where the system does not tell, and in records of before.
    """

    cpu: str
    n_cores_physical: int  #: cores that were ours
    n_cores_logical: int  #: hardware threads of the whole machine
    memory_bytes: int
    os: str  #: name and release
    arch: str  #: as the kernel calls it
    python: str  #: version
    cpus_bound: str | None = None
    cpu_quota: float | None = None
    memory_limit_bytes: int | None = None
    cpu_features: tuple[str, ...] = ()  #: AVX2, AVX512, NEON, …


@dataclass(frozen=True, slots=True)
class Stray:
    """Operations of one kind that a token needs for layers of a device, and that ran elsewhere.

    copied_bytes is what is carried between devices for them, both ways, for each token.
    """

    operation: str  #: ggml's name: FLASH_ATTN_EXT
    device: str  #: where they ran
    n_layers: Positive  #: layers of which they are
    copied_bytes: int


@dataclass(frozen=True, slots=True)
class MissingKernel:
    """An operation that llama.cpp did without, since it would have run on another device than its layer."""

    operation: str  #: llama.cpp's name: Flash Attention
    device: str  #: the layer's
    other_device: str  #: where it would have run


@dataclass(frozen=True, slots=True)
class Resolved:
    """What really ran, beside what was asked.

    layers_by_device counts the layers (the output layer is one) that llama.cpp assigned to each device; offload itself is proved by
    the model buffers. flash_attn and load_mode are None where the log did not say.
    """

    n_ctx: int  #: cells of the cache that llama.cpp made
    n_batch: int  #: tokens handed to one decode
    n_ubatch: int  #: tokens computed at once
    n_threads: int  #: threads that computed
    flash_attn: bool | None
    load_mode: str | None
    layers_by_device: Mapping[str, int]
    repacked_bytes: int
    buffers: tuple[Buffer, ...]
    n_threads_batch: int | None = None  #: threads that computed prompts; None in older records
    n_graph_splits: int | None = None  #: pieces that a token's work is cut into, by device
    n_graph_splits_batch: int | None = None  #: the same of a whole micro-batch
    #: Operations that ran elsewhere than their layer; looked for where there are more pieces than there should be.
    strays: tuple[Stray, ...] = ()
    #: What llama.cpp did without, as a layer's device has no kernel for it.
    missing_kernels: tuple[MissingKernel, ...] = ()
    is_unlocked: bool = False  #: weights that were to be locked in memory could not be, or not all of them


@dataclass(frozen=True, slots=True)
class Load:
    """What it took to get ready, in ns and in bytes of the worker's resident memory (None where the OS does not say)."""

    load_duration_ns: int
    context_duration_ns: int
    rss_before_bytes: int | None
    rss_loaded_bytes: int | None
    rss_after_bytes: int | None


@dataclass(frozen=True, slots=True)
class Power:
    """One source of energy readings (``nvml:0 NVIDIA …``, ``rapl:package-0``) over the timed repetitions of a cell.

    joules is what the source counted, window_s the time that it counted over; both cover the repetitions and the few ms around each.
    """

    source: str
    joules: float
    window_s: PositiveNumber


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What the hardware did while a cell was timed; None or empty is what this machine does not tell.

    Clocks in MHz, temperature in °C, memory in bytes: the lowest clock and the highest of the others. throttled names the reasons that
    the card's driver gave; sampler_share is the CPU time that watching took, as a share of the time watched.
    """

    power: tuple[Power, ...] = ()  #: energy by source
    gpu_clock_min_mhz: int | None = None
    gpu_temperature_max_c: int | None = None
    gpu_memory_max_bytes: int | None = None
    throttled: tuple[str, ...] = ()
    cpu_clock_min_mhz: float | None = None
    cpu_clock_mean_mhz: float | None = None
    n_samples: int = 0  #: how often a card was asked
    sampler_share: float | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One cell: asked, ran, measured, or failed. A failure may still have samples: those that were done before it.

    threads_source says what decided the number of threads: ``asked``, or a source of `harness.host.cpu.Threads`. file_sha256 and
    file_size_bytes are of the file that was asked for, so that a cell which failed before its model was loaded is known again.
    """

    command: str
    time_utc: UtcTime
    asked: Shared[RunSpec]
    machine: Shared[Machine]
    harness_version: str
    samples: tuple[Sample, ...] = ()
    build: Shared[Build] | None = None
    model: Shared[Model] | None = None
    resolved: Shared[Resolved] | None = None
    load: Load | None = None
    dispatch_ns_per_token: int | None = None
    telemetry: Telemetry | None = None
    failure: Failure | None = None
    warnings: tuple[Caution, ...] = ()
    threads_source: str = "asked"
    file_sha256: str | None = None
    file_size_bytes: int | None = None
    schema: int = field(default=SCHEMA)

    @property
    def timed(self) -> tuple[Sample, ...]:
        """The samples that count: all but warm-ups, those that are seen to be among them where nobody asked for one."""
        after = self._after_warmup
        return after[self._count_seen(after) :]

    @property
    def n_seen_warmups(self) -> int:
        """How many of the first repetitions belong to a warm-up, by their durations; 0 where nobody looks for any."""
        return self._count_seen(self._after_warmup)

    def _count_seen(self, samples: Sequence[Sample]) -> int:
        if not self.asked.seeks_warmups:
            return 0
        return count_warmups([sample.duration_ns for sample in samples])

    @property
    def _after_warmup(self) -> tuple[Sample, ...]:
        return tuple([sample for sample in self.samples if not sample.is_warmup])


_SAMPLES = list(Record.__dataclass_fields__).index("samples")
_values = operator.attrgetter(*Record.__dataclass_fields__)


def without_samples(record: Record) -> Record:
    """The same cell without its samples: a hundred thousand are held at once."""
    values = list(_values(record))
    values[_SAMPLES] = ()
    return Record(*values)


def is_measured(record: Record) -> bool:
    """Whether it has a number to show. A warm-up that is seen is never all that there is."""
    return False in [sample.is_warmup for sample in record.samples] and not has_died(record)


def has_died(record: Record) -> bool:
    """Whether a cell has no number: one that Ctrl-C cut short has the samples until then."""
    return record.failure is not None and record.failure.is_fatal


def machine_key(machine: Machine) -> tuple[str, int, int]:
    """What makes a machine the same one: CPU, physical cores, memory in GiB, as its folder's name has it."""
    return (machine.cpu, machine.n_cores_physical, round(machine.memory_bytes / 1024**3))


def is_of(record: Record, machine: Machine, sha256: str | None, size_bytes: int | None) -> bool:
    """Whether a record is of this machine and of a file with this hash; of a file too large to be hashed its size has to do."""
    model = record.model
    known_hash = record.file_sha256 or (model.file_sha256 if model else None)
    known_size = record.file_size_bytes or (model.file_size_bytes if model else None)
    same_file = known_hash == sha256 if sha256 or known_hash else known_size == size_bytes is not None
    return same_file and machine_key(record.machine) == machine_key(machine)


def model_key(record: Record) -> str:
    """What makes a model the same one: its file's hash, or the file's name where that is not known."""
    return _model_key(record.model, record.asked)


def _model_key(model: Model | None, asked: RunSpec) -> str:
    return (model.file_sha256 if model else None) or asked.file_name


def record_key(record: Record, *, but: Collection[str] = ()) -> tuple[Any, ...]:
    """The key by which records of several machines and models are the same: machine, model, and `cell_key` without `but`."""
    return _keys(frozenset(but))(record.machine, record.model, record.asked)


class _Key(tuple[Any, ...]):
    """A long tuple that is hashed once: many records are grouped by the same."""

    _hash: int

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            self._hash = super().__hash__()
            return self._hash


@functools.cache
def _keys(but: frozenset[str]) -> OncePerParts[_Key]:
    values = cell_values(*but)

    def make(machine: Machine, model: Model | None, asked: RunSpec) -> _Key:
        return _Key((machine_key(machine), _model_key(model, asked), *values(asked)))

    return OncePerParts(make)
