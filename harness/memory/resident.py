"""Where a process's resident memory went: readings of the OS set against what llama.cpp and the allocators say they hold.

Each byte is named by an independent fact: the file that a page belongs to, the address range of one of llama.cpp's buffers, or an
allocator's own books. What no fact names is left over as a line of its own.
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.gguf.caches import Keeping
from harness.memory.causes import CACHE_CAUSES, HOST, Cause
from harness.memory.forecast import Share


@dataclass(frozen=True, slots=True)
class MapShare:
    """What all mappings of one name have in memory, in bytes: of a file by its path, or what the kernel calls ``[heap]``, ``[stack]``.

    path is empty for memory of no file and no name. anonymous_bytes are pages that are no file's, such as those of a file's mapping
    that were written to.
    """

    path: str
    rss_bytes: int
    anonymous_bytes: int

    @property
    def is_file(self) -> bool:
        return self.path.startswith("/") or self.path[1:2] == ":"


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """A device's memory at one moment: what the backend says is free of it, and what NVML says this process uses; None if unknown."""

    name: str  #: the card's
    free_bytes: int | None
    total_bytes: int | None
    process_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """A process's memory after one step, in bytes; None is what this OS or allocator does not tell.

    heap_bytes is what of malloc's memory is resident, without llama.cpp's buffers; python_bytes what Python's own allocator holds.
    maps is empty where mappings cannot be told apart.
    """

    step: str
    rss_bytes: int
    pss_bytes: int | None = None
    uss_bytes: int | None = None
    swap_bytes: int | None = None
    anonymous_bytes: int | None = None
    file_bytes: int | None = None
    heap_bytes: int | None = None
    python_bytes: int | None = None
    devices: tuple[DeviceReading, ...] = ()  #: graphics cards
    maps: tuple[MapShare, ...] = ()


@dataclass(frozen=True, slots=True)
class NativeBuffer:
    """A buffer of llama.cpp: its name and size by the log, what of it is in memory if known."""

    cause: Cause  #: what it is for
    device: str
    buffer: str
    size_bytes: int
    resident_bytes: int | None = None


_LLAMA_LIBRARIES = ("libllama", "libggml", "libmtmd", "llama.", "ggml", "mtmd.")
_DRIVERS = re.compile("lib(cuda|nvidia|nvrtc|cublas|nccl|vulkan|amd|roc|hip|hsa)")


def group_of(path: str) -> Cause:
    """Name the group of libraries that a mapped file belongs to."""
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    if name.startswith(_LLAMA_LIBRARIES):
        return Cause.LLAMA_LIBRARIES
    return Cause.DRIVERS if _DRIVERS.match(name) or path.startswith("/dev/") else Cause.LIBRARIES


def explain_growth(
    readings: Sequence[MemoryReading], buffers: Sequence[NativeBuffer], model_files: Sequence[str]
) -> tuple[tuple[Share, ...], int | None]:
    """Explain how the first reading became the last: (what grew beside llama.cpp's buffers, what of the model's files is resident).

    Parameters
    ----------
    readings    : in order, of one process; those named ``backend`` and ``context`` tell Python's heap, llama.cpp's tables and the
                  work buffers of decoding apart
    buffers     : those in host memory
    model_files : paths as the OS writes them, symbolic links followed

    Resident memory of no file is heap where malloc's own headers say so, and Python's as far as its allocator says that it holds any;
    the rest is unexplained. Where single mappings cannot be read nothing can be told apart: the answer is ((), None).
    """
    first, last = readings[0], readings[-1]
    if not last.maps or not first.maps:
        return (), None
    grown: Counter[Cause] = Counter()
    for sign, reading in ((1, last), (-1, first)):
        for item in filter(operator.attrgetter("is_file"), reading.maps):
            grown[Cause.MAPPED if item.path in model_files else group_of(item.path)] += sign * item.rss_bytes
    weights_resident = grown.pop(Cause.MAPPED, 0)
    grown.update(_split_heap(readings, sum(map(_resident, _not_mapped(buffers)))))
    shares = (Share(cause, size) for cause, size in grown.items() if size)
    return tuple(sorted(shares, key=lambda share: share.cause.rank)), weights_resident


@dataclass(frozen=True, slots=True)
class Account:
    """How far the growth of resident memory is explained.

    corrections are negative, for what is allocated but not in memory. Buffers' sizes, runtime, corrections and the unexplained rest add
    up to growth_bytes. unexplained_bytes is None where nothing could be told apart.
    """

    growth_bytes: int
    corrections: tuple[Share, ...] = ()
    unexplained_bytes: int | None = None

    @property
    def explained_bytes(self) -> int | None:
        return None if self.unexplained_bytes is None else self.growth_bytes - abs(self.unexplained_bytes)

    @property
    def explained_share(self) -> float | None:
        if self.explained_bytes is None or self.growth_bytes <= 0:
            return None
        return self.explained_bytes / self.growth_bytes


def account_growth(
    growth_bytes: int, buffers: Sequence[NativeBuffer], runtime: Sequence[Share], weights_resident_bytes: int | None
) -> Account:
    """Set what `explain_growth` found against the growth: pages of the file that nobody read and pages that nobody wrote to are taken
    back, and what is left is unexplained."""
    if weights_resident_bytes is None:
        return Account(growth_bytes)
    host = [buffer for buffer in buffers if buffer.device == HOST]
    mapped = sum(buffer.size_bytes for buffer in host if buffer.cause == Cause.MAPPED)
    untouched = sum(buffer.size_bytes - _resident(buffer) for buffer in _not_mapped(host))
    taken_back = {Cause.UNREAD: weights_resident_bytes - mapped, Cause.UNTOUCHED: -untouched}
    corrections = tuple(Share(cause, size) for cause, size in taken_back.items() if size)
    counted = sum(item.size_bytes for item in host) + sum(item.size_bytes for item in (*runtime, *corrections))
    return Account(growth_bytes, corrections, growth_bytes - counted)


def _not_mapped(buffers: Sequence[NativeBuffer]) -> list[NativeBuffer]:
    return [buffer for buffer in buffers if buffer.device == HOST and buffer.cause != Cause.MAPPED]


def _resident(buffer: NativeBuffer) -> int:
    return buffer.size_bytes if buffer.resident_bytes is None else buffer.resident_bytes


def _split_heap(readings: Sequence[MemoryReading], buffers_resident: int) -> dict[Cause, int]:
    """Divide what the allocators hold into Python's objects, llama.cpp's tables and the work of decoding, by when it came."""
    by_step, last = {reading.step: reading for reading in readings}, readings[-1]
    steps = (readings[0], by_step.get("backend", last), by_step.get("context", last), last)
    begun, backend, context, ended = (reading.heap_bytes or 0 for reading in steps)
    python = _python_resident(last, buffers_resident) - _python_resident(readings[0], 0)
    return {Cause.PYTHON_HEAP: backend - begun + python, Cause.TABLES: context - backend, Cause.WORK: ended - context}


def _python_resident(reading: MemoryReading, buffers_resident: int) -> int:
    """What Python's small objects take: no more than their allocator holds, and no more than nobody else has of what is no file's."""
    nameless = sum(item.rss_bytes for item in reading.maps if not item.is_file)
    return max(min(nameless - (reading.heap_bytes or 0) - buffers_resident, reading.python_bytes or 0), 0)


def cause_of_log(cause: str, buffer: str) -> Cause:
    """Translate a buffer of `harness.native.log` into a cause of the ledger."""
    if cause == "model":
        if buffer.endswith("_Mapped"):
            return Cause.MAPPED
        return Cause.REPACKED if buffer.endswith("_REPACK") or buffer == "AMX" else Cause.COPIED
    others = {"compute": Cause.COMPUTE, "output": Cause.OUTPUT}
    return others.get(cause) or CACHE_CAUSES[Keeping(cause)]


_REMOTE = re.compile(r"RPC(\d+)\[(.+)\]")


def device_of_buffer(buffer: str, servers: Mapping[str, Sequence[str]] | None = None) -> str:
    """Name the device that a buffer of the log lies on: ``CUDA0`` for ``CUDA0_Mapped``, ``RPC0`` for ``RPC0[host:port]``.

    ``CPU_REPACK`` and ``CUDA_Host`` lie in the host's memory. RPC's buffers count the devices of one server, and its devices those of
    all servers: servers maps ``host:port`` to the names of that server's devices, in order.

    Source: ggml_backend_rpc_buffer_type and ggml_backend_rpc_add_server in ggml-rpc.cpp.
    """
    if buffer.startswith(("CPU", "AMX")) or buffer.endswith("_Host"):
        return HOST
    if match := _REMOTE.fullmatch(buffer):
        names = (servers or {}).get(match[2], ())
        return names[int(match[1])] if int(match[1]) < len(names) else f"RPC{match[1]}"
    return buffer.removesuffix("_Mapped").removesuffix("_Split").removesuffix("_Private")
