"""A job of the worker: how many bytes a second a device reads and how many operations a second it does, by ggml's own kernels.

A matrix times a vector reads the matrix once, as generating a token reads the weights; a matrix times a matrix does arithmetic, as a
prompt does. Nothing can be left out: every row of the result is compared with what numpy makes of the same numbers. The matrix of
the reading consists of a few hundred random rows again and again, each in memory of its own, so that the comparison takes no time
and the reading does.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from harness.codec import decode, encode
from harness.errors import NativeError
from harness.gguf.types import tensor_size_bytes, tensor_type
from harness.host.memory import available_memory_bytes
from harness.host.noise import Watcher
from harness.host.rpc import has_loopback
from harness.native import bindings
from harness.native.jobs import Emit
from harness.native.watching import watched
from harness.records.cells import Conditions, Device
from harness.records.roofline import ARITHMETIC, READING, SECOND_METHOD, RoofRequest, RoofTest

#: Elements of a row: that of llama3.1:8b.
N_IN = 4096

#: Random rows that a large matrix repeats.
N_RANDOM_ROWS = 256

#: Columns of the second matrix of a product: llama.cpp's micro-batch.
N_COLUMNS = 512

#: What a work is called while it is done.
_VERBS = {READING: "reading", ARITHMETIC: "multiplying"}

#: What rounding may come to, relative to the lengths of both vectors: of the weights' type, and of the other side, which ggml's CPU
#: kernels turn into the type's partner first (F16, or blocks of 8 bits). The products of a GPU are rounded likewise.
TOLERANCES = {"F32": 1e-4, "F16": 5e-4, "Q8_0": 3e-3, "Q4_0": 3e-3}


def run(runtime: Any, request: dict[str, Any], emit: Emit) -> None:
    """Measure every device, as a `RoofRequest` asks; each test leaves as an event ``test`` when it is done.

    Raises
    ------
    NativeError : there is not enough memory, or a device refuses the work.
    """
    asked = decode(RoofRequest, request)
    if 2 * asked.size_bytes > available_memory_bytes():
        raise NativeError(
            f"{available_memory_bytes() / 1e9:.1f} GB of memory are free, too little for a matrix of {asked.size_bytes / 1e9:.1f} GB "
            "and its copy; choose a smaller --size."
        )
    if asked.rpc:
        runtime.attach_rpc(asked.rpc)
        emit("build", {"build": encode(runtime.describe())})  # the devices are others now than at the greeting
    watcher = Watcher(max(asked.threads), is_server_here=has_loopback(asked.rpc))
    devices = [found for found in runtime.list_devices() if found[1].kind != "accel"]  # BLAS and AMX work for the CPU
    kinds = len(asked.reading) + len(asked.multiplying)
    steps = itertools.count()

    def report(phase: str) -> None:
        emit("phase", {"phase": phase, "index": next(steps), "count": len(devices) * kinds + 1})

    for pointer, device in devices:
        threads = asked.threads if device.kind == "cpu" else (None,)
        for name, types in ((READING, asked.reading), (ARITHMETIC, asked.multiplying)):
            for type_name in types:
                report(f"{device.name}: {_VERBS[name]} {type_name}")
                work = _plan_work(asked, name, type_name)
                for test in measure_device(runtime.lib, pointer, device, work, threads, watcher):
                    emit("test", {"test": encode(test)})
    report("CPU: the same by numpy")
    for test in measure_numpy(asked.size_bytes, asked.threads, asked.repetitions, watcher):
        emit("test", {"test": encode(test)})
    emit("done", {})


def _plan_work(asked: RoofRequest, name: str, type_name: str) -> Work:
    if name == ARITHMETIC:
        return Work(name, type_name, asked.n_rows, N_COLUMNS, asked.repetitions)
    row_bytes = tensor_size_bytes((N_IN,), tensor_type(type_name).type_id)
    n_rows = max(asked.size_bytes // row_bytes // N_RANDOM_ROWS, 1) * N_RANDOM_ROWS
    return Work(name, type_name, n_rows, 1, asked.repetitions)


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """What to multiply: a matrix of n_rows rows of N_IN elements of a type, with n_columns columns of floats."""

    name: str
    type_name: str
    n_rows: int
    n_columns: int
    repetitions: int


def measure_device(
    lib: Any, pointer: int, device: Device, work: Work, threads: Sequence[int | None], watcher: Watcher | None = None
) -> Iterator[RoofTest]:
    """Time one work on one device (pointer is its handle) with each number of threads, in turn, so that a disturbance hits all of them.

    watcher reads the conditions of each timed run.

    Raises
    ------
    NativeError : the device has no memory for it or does not know the type.
    """
    with _Product(lib, pointer, device.name, work) as product:
        durations: dict[int | None, list[int]] = {n_threads: [] for n_threads in threads}
        conditions: dict[int | None, list[Conditions]] = {n_threads: [] for n_threads in threads}
        for round_ in range(work.repetitions + 1):
            for n_threads in threads:
                product.set_threads(n_threads)
                duration, seen = watched(product.time, watcher)
                if round_:  # the first is a warm-up
                    durations[n_threads].append(duration)
                    conditions[n_threads] += seen
        error = product.check()
    n_bytes = tensor_size_bytes((N_IN, work.n_rows), tensor_type(work.type_name).type_id)
    for n_threads in threads:
        yield RoofTest(
            work=work.name,
            device=device.name,
            description=device.description,
            kind=device.kind,
            type_name=work.type_name,
            n_threads=n_threads,
            n_bytes=n_bytes,
            n_flops=2 * N_IN * work.n_rows * work.n_columns,
            durations_ns=tuple(durations[n_threads]),
            max_error=error if math.isfinite(error) else None,
            tolerance=TOLERANCES[work.type_name],
            is_repacked=product.is_repacked,
            conditions=tuple(conditions[n_threads]),
        )


class _Product(contextlib.ExitStack):
    """A matrix and some columns in a device's memory, and the graph that multiplies them; leaving it frees what it got."""

    def __init__(self, lib: Any, device: int, name: str, work: Work) -> None:
        super().__init__()
        self._lib, self._device, self._name, self._work = lib, device, name, work
        self.is_repacked = False
        try:
            self._build()
            self._fill()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        lib, work = self._lib, self._work
        self._backend = self._own(lib.ggml_backend_dev_init(self._device, None), lib.ggml_backend_free, "be started")
        overhead = 8 * lib.ggml_tensor_overhead() + lib.ggml_graph_overhead()
        # The weights have a context of their own, since they may lie in another kind of buffer.
        weights, rest = (
            self._own(lib.ggml_init(bindings.InitParams(overhead, None, True)), lib.ggml_free, "be described")
            for _ in range(2)
        )
        type_id = tensor_type(work.type_name).type_id
        self._matrix = lib.ggml_new_tensor_2d(weights, type_id, N_IN, work.n_rows)
        self._columns = lib.ggml_new_tensor_2d(rest, 0, N_IN, work.n_columns)
        self._result = lib.ggml_mul_mat(rest, self._matrix, self._columns)
        self._graph = lib.ggml_new_graph(rest)
        lib.ggml_build_forward_expand(self._graph, self._result)
        standard = lib.ggml_backend_dev_buffer_type(self._device)
        kind = self._find_repacking()
        self.is_repacked = kind is not None
        for context, buffer_type in ((weights, kind or standard), (rest, standard)):
            buffer = lib.ggml_backend_alloc_ctx_tensors_from_buft(context, buffer_type)
            self._own(buffer, lib.ggml_backend_buffer_free, "hold the matrix")
        if not lib.ggml_backend_dev_supports_op(self._device, self._result):
            raise NativeError(f"{self._name} cannot multiply {work.type_name}; leave that type out.")

    def _own(self, pointer: Any, free: Callable[[Any], None], what: str) -> Any:
        if not pointer:
            raise NativeError(f"{self._name} cannot {what} (out of memory?); choose a smaller --size.")
        self.callback(free, pointer)
        return pointer

    def _find_repacking(self) -> Any:
        """The kind of buffer in which llama.cpp keeps such weights repacked for this CPU; None where it keeps them as they are.

        Source: llama-model-loader / llama-model.cpp make_cpu_buft_list and weight_buft_supported: the first extra kind of buffer
        with which the device supports the operation; it is asked with an empty buffer of that kind.
        """
        lib = self._lib
        address = self._find_function(b"ggml_backend_dev_get_extra_bufts")
        kinds = bindings.GET_EXTRA_BUFTS(address)(self._device) if address else None
        slot = ctypes.c_void_p.from_address(self._matrix + bindings.Tensor.buffer.offset)
        for kind in itertools.takewhile(bool, kinds or ()):  # NULL-terminated
            empty = lib.ggml_backend_buft_alloc_buffer(kind, 0)
            slot.value = empty
            supported = lib.ggml_backend_dev_supports_op(self._device, self._result)
            slot.value = None
            lib.ggml_backend_buffer_free(empty)
            if supported:
                return kind
        return None

    def _fill(self) -> None:
        """Random rows, quantized as a model's are, again and again; random columns."""
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize, quantize

        lib, work = self._lib, self._work
        random = np.random.default_rng(1)
        n_rows = min(N_RANDOM_ROWS, work.n_rows)
        kind = GGMLQuantizationType[work.type_name]
        rows = np.ascontiguousarray(quantize(random.standard_normal((n_rows, N_IN), dtype=np.float32), kind))
        self._rows = dequantize(rows, kind).astype(np.float32)
        self._values = random.standard_normal((work.n_columns, N_IN), dtype=np.float32)
        if self.is_repacked:  # it is repacked as a whole
            rows = np.ascontiguousarray(np.tile(rows, (work.n_rows // n_rows, 1)))
        size = rows.nbytes
        for offset in range(0, lib.ggml_nbytes(self._matrix), size):
            lib.ggml_backend_tensor_set(self._matrix, rows.ctypes.data, offset, size)
        lib.ggml_backend_tensor_set(self._columns, self._values.ctypes.data, 0, self._values.nbytes)

    def set_threads(self, n_threads: int | None) -> None:
        """Choose the threads of a CPU; a device that knows no threads keeps its own."""
        address = self._find_function(b"ggml_backend_set_n_threads") if n_threads else None
        if address:
            bindings.SET_N_THREADS(address)(self._backend, n_threads)

    def _find_function(self, name: bytes) -> Any:
        registry = self._lib.ggml_backend_dev_backend_reg(self._device)
        return self._lib.ggml_backend_reg_get_proc_address(registry, name)

    def time(self) -> int:
        """Multiply once, in nanoseconds."""
        compute, backend, graph = self._lib.ggml_backend_graph_compute, self._backend, self._graph
        synchronize = self._lib.ggml_backend_synchronize
        start = time.perf_counter_ns()
        status = compute(backend, graph)
        synchronize(backend)
        duration = time.perf_counter_ns() - start
        if status != 0:
            raise NativeError(f"{self._name} failed to multiply {self._work.type_name} (status {status}); try again.")
        return duration

    def check(self) -> float:
        """The largest difference from numpy, of all rows, relative to the lengths of the vectors."""
        work = self._work
        result = np.empty((work.n_columns, work.n_rows), dtype=np.float32)
        self._lib.ggml_backend_tensor_get(self._result, result.ctypes.data, 0, result.nbytes)
        expected = self._values @ self._rows.T  # (columns, random rows)
        lengths = np.linalg.norm(self._values, axis=1)[:, None] * np.linalg.norm(self._rows, axis=1)[None, :]
        parts = result.reshape(work.n_columns, -1, len(self._rows))
        return float(np.max(np.abs(parts - expected[:, None, :]) / lengths[:, None, :]))


def measure_numpy(
    size_bytes: int, threads: Sequence[int], repetitions: int, watcher: Watcher | None = None
) -> Iterator[RoofTest]:
    """The second method: numpy finds the largest of many floats, each thread in its own part (numpy lets go of the interpreter's lock).

    One element is larger than all others, at another place each time: the result proves that everything was looked at.
    """
    data = np.zeros(size_bytes // 4, dtype=np.float32)
    data[:] = 1.0  # touched, so that it is memory and not a promise
    for n_threads in threads:
        parts, durations, right = np.array_split(data, n_threads), [], True
        conditions: list[Conditions] = []
        with ThreadPoolExecutor(n_threads) as pool:
            for round_ in range(repetitions + 1):
                place = (round_ * 7919 + 13) % len(data)
                data[place] = 2.0
                (found, duration), seen = watched(functools.partial(_time_numpy, pool, parts), watcher)
                right, data[place] = right and bool(found == 2.0), 1.0
                if round_:
                    durations.append(duration)
                    conditions += seen
        yield RoofTest(
            work=SECOND_METHOD,
            device="CPU",
            description="numpy.max of float32",
            kind="cpu",
            type_name="F32",
            n_threads=n_threads,
            n_bytes=data.nbytes,
            n_flops=0,
            durations_ns=tuple(durations),
            max_error=0.0 if right else 1.0,
            tolerance=0.0,
            conditions=tuple(conditions),
        )


def _time_numpy(pool: ThreadPoolExecutor, parts: Sequence[Any]) -> tuple[Any, int]:
    """(the largest number, nanoseconds)."""
    start = time.perf_counter_ns()
    found = max(pool.map(np.max, parts))
    return found, time.perf_counter_ns() - start
