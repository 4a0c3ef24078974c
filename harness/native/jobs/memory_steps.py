"""How a process grows while it loads a model and computes with it, step by step.

Run as a program it is a worker like `harness.native.worker`, which reads its own memory before llama.cpp is there; asked for
``memory_steps`` that worker loads a model, makes a context, processes a prompt and a token, and reads its memory after each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import Any

from harness.codec import encode
from harness.host.noise import Watcher
from harness.host.process_memory import read_maps, read_memory
from harness.host.rpc import has_loopback
from harness.memory.resident import DeviceReading, MemoryReading
from harness.native import allocators
from harness.native.jobs import Emit
from harness.records.cells import Buffer


def run(runtime: Any, request: dict[str, Any], emit: Emit) -> None:
    """Do the steps for ``request["spec"]``: its n_prompt tokens, then one, in a context of its n_ctx.

    Emits ``reading`` after each step and ``done`` with llama.cpp's buffers and what of them is in memory.

    Raises
    ------
    NativeError : llama.cpp refused the file, the context or a batch.
    """
    from harness.native.buffers import WatchedSession
    from harness.native.log import read_buffers
    from harness.spec import RunSpec

    spec = RunSpec.from_dict(request["spec"])
    watcher = Watcher(spec.n_threads or 1, is_server_here=has_loopback(spec.rpc))
    watcher.begin()
    for reading in early_readings(runtime):
        emit("reading", encode(reading))
    emit("phase", {"phase": "model", "index": 0, "count": 1})
    model = runtime.load(spec)
    held = list_malloced(read_buffers(model.log))
    _report("model", runtime, held, emit)
    emit("phase", {"phase": "context", "index": 0, "count": 1})
    session = WatchedSession(model, spec)
    held += list_malloced(read_buffers(session.log))
    _report("context", runtime, held, emit)
    for step, batches in (
        ("first prompt", session.prompt_batches(spec.n_prompt)),
        ("first token", session.token_batches(1)),
    ):
        emit("phase", {"phase": step, "index": 0, "count": 1})
        for batch in batches:
            session.decode(batch)
        session.synchronize()
        _report(step, runtime, held, emit)
    conditions, resolved = watcher.end(), session.describe()
    found = {"model": model.describe(), "resolved": resolved, "buffers": session.locate(resolved.buffers)}
    done = encode({**found, "conditions": conditions})
    session.close()
    model.close()
    _report("after", runtime, [], emit)
    emit("done", done)


def _report(step: str, runtime: Any, held: Sequence[int], emit: Emit) -> None:
    emit("reading", encode(take_reading(step, runtime, held)))


def list_malloced(buffers: Iterable[Buffer]) -> list[int]:
    """Sizes of the buffers that llama.cpp had from malloc. Source: ggml.c ggml_aligned_malloc (posix_memalign, but on macOS)."""
    return [
        item.size_bytes
        for item in buffers
        if item.size_bytes and item.is_host and not item.buffer.endswith(("_Mapped", "_Host"))
    ]


def take_reading(step: str, runtime: Any = None, held: Sequence[int] = ()) -> MemoryReading:
    """Read this process's memory and its devices'; held are sizes of llama.cpp's buffers, which are no part of the heap's line."""
    devices = () if runtime is None else read_devices(runtime)
    python = allocators.python_bytes()
    maps = read_maps()
    heap = None if maps is None else allocators.heap_bytes(maps, held)
    return dataclasses.replace(read_memory(step, maps), heap_bytes=heap, python_bytes=python, devices=devices)


def early_readings(runtime: Any) -> tuple[MemoryReading, ...]:
    """The readings from before the first job, which only a worker started by this module has."""
    return getattr(runtime, "early_readings", ())


def read_devices(runtime: Any) -> tuple[DeviceReading, ...]:
    """Read the memory of every device that is not the CPU."""
    found = []
    for _, device in runtime.list_devices():
        if device.is_gpu:
            used = _nvml_process_bytes(device.name)
            found.append(DeviceReading(device.name, device.memory_free_bytes, device.memory_total_bytes, used))
    return tuple(found)


def _nvml_process_bytes(device_name: str) -> int | None:
    """What this process has of an NVIDIA card, as its driver counts; None where there is none or it does not say.

    Source: nvidia-ml-py, nvmlDeviceGetComputeRunningProcesses.
    """
    if not device_name.startswith("CUDA"):
        return None
    from harness.host.telemetry import Nvml  # only where there is a card: what is imported is measured too

    index, visible = int(device_name.removeprefix("CUDA")), os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    with contextlib.closing(Nvml.open()) as nvml:
        try:
            card = nvml.cards[index if visible == [""] else int(visible[index])]
        except (IndexError, ValueError):  # the environment may name cards by their UUID
            return None
        processes = card.ask("nvmlDeviceGetComputeRunningProcesses") or ()
        return next((item.usedGpuMemory for item in processes if item.pid == os.getpid()), None)


def main() -> None:
    """Run a worker that was read from the start: the interpreter, then the imports, then the backend."""
    readings = [take_reading("interpreter")]
    readings[0] = take_reading("interpreter")  # the first one paid for the reader itself
    from harness.native import worker

    def make_runtime() -> Any:
        from harness.native.engine import Runtime

        readings.append(take_reading("imports"))
        runtime: Any = Runtime()
        readings.append(take_reading("backend", runtime))
        runtime.early_readings = tuple(readings)
        return runtime

    worker.main(make_runtime)


if __name__ == "__main__":
    main()
