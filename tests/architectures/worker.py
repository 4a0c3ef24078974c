"""A worker like `harness.native.memory_steps`, with one job more: what llama.cpp really allocates for a spec, by its log."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from harness.native import memory_steps
from harness.native import worker as native_worker
from harness.spec import RunSpec


def run(runtime: Any, request: dict[str, Any], emit: Callable[[str, dict[str, Any]], None]) -> None:
    """Load the model of ``request["spec"]`` with its weights, make a context, and emit its buffers."""
    spec = RunSpec.from_dict(request["spec"])
    model = runtime.load(spec)
    try:
        session = model.open(spec)
        buffers = [dataclasses.asdict(buffer) for buffer in session.describe().buffers]
        session.close()
    finally:
        model.close()
    emit("done", {"buffers": buffers})


if __name__ == "__main__":
    native_worker.JOBS["buffers"] = "tests.architectures.worker"
    memory_steps.main()
