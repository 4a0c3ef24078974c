"""Where a process's resident memory went: readings of the OS set against what llama.cpp and the allocators say they hold.

Each byte is named by an independent fact: the file that a page belongs to, the address range of one of llama.cpp's buffers, or an
allocator's own books. What no fact names is left over as a line of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.memory.forecast import COMPUTE, COPIED, HOST, KV, MAPPED, OUTPUT, RECURRENT, REPACKED


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

    name: str
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
    devices: tuple[DeviceReading, ...] = ()
    maps: tuple[MapShare, ...] = ()


@dataclass(frozen=True, slots=True)
class NativeBuffer:
    """A buffer of llama.cpp: its cause (see `harness.memory.forecast`), name and size by the log, what of it is in memory if known."""

    cause: str
    device: str
    buffer: str
    size_bytes: int
    resident_bytes: int | None = None


#: Causes of resident memory that are not llama.cpp's buffers.
LIBRARIES, LLAMA_LIBRARIES, DRIVERS, PYTHON_HEAP, TABLES, WORK = (
    "Python, system libraries", "llama.cpp's libraries", "GPU driver's libraries", "Python's objects",
    "vocabulary and graph", "work buffers",
)  # fmt: skip
RUNTIME_CAUSES = (LIBRARIES, LLAMA_LIBRARIES, DRIVERS, PYTHON_HEAP, TABLES, WORK)
UNREAD, UNTOUCHED, UNEXPLAINED = "file pages not read in", "not touched yet", "unexplained"

_LLAMA_LIBRARIES = ("libllama", "libggml", "libmtmd", "llama.", "ggml", "mtmd.")
_DRIVERS = (
    "libcuda",
    "libnvidia",
    "libnvrtc",
    "libcublas",
    "libnccl",
    "libvulkan",
    "libamd",
    "libroc",
    "libhip",
    "libhsa",
)


def group_of(path: str) -> str:
    """Name the group of libraries that a mapped file belongs to."""
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    if name.startswith(_LLAMA_LIBRARIES):
        return LLAMA_LIBRARIES
    return DRIVERS if name.startswith(_DRIVERS) or path.startswith("/dev/") else LIBRARIES


@dataclass(frozen=True, slots=True)
class Share:
    """What one cause contributes to resident memory, in bytes; negative where it takes back what another line counts too much."""

    cause: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Account:
    """The growth of resident memory between two readings and what explains it.

    runtime are lines beside llama.cpp's buffers; corrections are negative lines for what is allocated but not in memory. Buffers'
    sizes, runtime, corrections and the unexplained rest add up to growth_bytes. unexplained_bytes is None where single mappings
    cannot be read, so that nothing can be told apart.
    """

    growth_bytes: int
    runtime: tuple[Share, ...]
    corrections: tuple[Share, ...]
    unexplained_bytes: int | None

    @property
    def explained_bytes(self) -> int | None:
        return None if self.unexplained_bytes is None else self.growth_bytes - abs(self.unexplained_bytes)

    @property
    def explained_share(self) -> float | None:
        if self.explained_bytes is None or self.growth_bytes <= 0:
            return None
        return self.explained_bytes / self.growth_bytes


def account_growth(
    readings: Sequence[MemoryReading], buffers: Sequence[NativeBuffer], model_files: Sequence[str]
) -> Account:
    """Explain how the first reading became the last.

    Parameters
    ----------
    readings    : in order, of one process; those named ``backend`` and ``context`` tell Python's heap, llama.cpp's tables and the
                  work buffers of decoding apart
    buffers     : those in host memory
    model_files : paths as the OS writes them, symbolic links followed

    Resident memory of no file is heap where malloc's own headers say so, and Python's as far as its allocator says that it holds any;
    the rest is unexplained.
    """
    first, last = readings[0], readings[-1]
    growth = last.rss_bytes - first.rss_bytes
    if not last.maps or not first.maps:
        return Account(growth, (), (), None)
    files = _by_group(last, model_files)
    for group, size in _by_group(first, model_files).items():
        files[group] = files.get(group, 0) - size
    weights_resident = files.pop(MAPPED, 0)
    host = [buffer for buffer in buffers if buffer.device == HOST]
    heap = _split_heap(readings, sum(_resident(buffer) for buffer in host if buffer.cause != MAPPED))
    runtime = [Share(cause, size) for cause, size in {**files, **heap}.items() if size]
    corrections = list(_correct(host, weights_resident))
    counted = sum(buffer.size_bytes for buffer in host) + sum(share.size_bytes for share in (*runtime, *corrections))
    order = RUNTIME_CAUSES.index
    return Account(
        growth,
        tuple(sorted(runtime, key=lambda share: order(share.cause))),
        tuple(corrections),
        growth - counted,
    )


def _by_group(reading: MemoryReading, model_files: Sequence[str]) -> dict[str, int]:
    """Resident bytes of mapped files by group, with the pages of them that were written to."""
    sizes: dict[str, int] = {}
    for item in reading.maps:
        if item.is_file:
            group = MAPPED if item.path in model_files else group_of(item.path)
            sizes[group] = sizes.get(group, 0) + item.rss_bytes
    return sizes


def _nameless(reading: MemoryReading) -> int:
    """Resident memory of no file: heap, stacks, buffers."""
    return sum(item.rss_bytes for item in reading.maps if not item.is_file)


def _resident(buffer: NativeBuffer) -> int:
    return buffer.size_bytes if buffer.resident_bytes is None else buffer.resident_bytes


def _python_resident(reading: MemoryReading, buffers_resident: int) -> int:
    """What Python's small objects take: no more than their allocator holds, and no more than nobody else has."""
    left = _nameless(reading) - (reading.heap_bytes or 0) - buffers_resident
    return max(min(left, reading.python_bytes or 0), 0)


def _split_heap(readings: Sequence[MemoryReading], buffers_resident: int) -> dict[str, int]:
    """Divide what the allocators hold into Python's objects, llama.cpp's tables and the work of decoding, by when it came."""
    by_step = {reading.step: reading for reading in readings}
    first, last = readings[0], readings[-1]
    backend = by_step.get("backend", last)
    context = by_step.get("context", last)
    heap = [reading.heap_bytes or 0 for reading in (first, backend, context, last)]
    python = _python_resident(last, buffers_resident) - _python_resident(first, 0)
    return {PYTHON_HEAP: heap[1] - heap[0] + python, TABLES: heap[2] - heap[1], WORK: heap[3] - heap[2]}


def _correct(buffers: Sequence[NativeBuffer], weights_resident: int) -> list[Share]:
    """Take back what is allocated but not in memory: pages of the file that nobody read, and pages that nobody wrote to."""
    corrections = []
    mapped = sum(buffer.size_bytes for buffer in buffers if buffer.cause == MAPPED)
    if mapped or weights_resident:
        corrections.append(Share(UNREAD, weights_resident - mapped))
    untouched = sum(buffer.size_bytes - _resident(buffer) for buffer in buffers if buffer.cause != MAPPED)
    corrections.append(Share(UNTOUCHED, -untouched))
    return [share for share in corrections if share.size_bytes]


def cause_of_log(cause: str, buffer: str) -> str:
    """Translate a buffer of `harness.native.log` into a cause of the ledger."""
    if cause == "model":
        if buffer.endswith("_Mapped"):
            return MAPPED
        return REPACKED if buffer.endswith("_REPACK") or buffer == "AMX" else COPIED
    return {"kv": KV, "recurrent": RECURRENT, "compute": COMPUTE, "output": OUTPUT}[cause]


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
