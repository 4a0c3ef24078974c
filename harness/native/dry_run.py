"""What llama.cpp would allocate, found by letting it plan and allocate nothing: no weights are needed, only a header.

The file is a sparse one (`harness.sparse_model`). Compute and output buffers come out exactly as in a real run; so do the sizes of
the cache and of a recurrent state, which architectures that `harness.theory` cannot price then have too.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.errors import NativeError
from harness.native.engine import LoadedModel, Session
from harness.native.log import read_buffers, read_cache_bytes, read_flash_attention, read_layers
from harness.native.memory_steps import early_readings, take_reading
from harness.spec import RunSpec

# enum llama_load_mode of llama.h: any other mode asserts that memory may be allocated.
_LOAD_MODE_NONE = 0


class DryModel(LoadedModel):
    """A model of which only the header was read.

    Raises
    ------
    NativeError : llama.cpp refuses the header, with its reason.
    """

    def _parameters(self, spec: RunSpec) -> Any:
        parameters = super()._parameters(spec)
        parameters.no_alloc = True
        parameters.load_mode = _LOAD_MODE_NONE
        return parameters


def run(runtime: Any, request: dict[str, Any], emit: Any) -> None:
    """Plan ``request["specs"]``, which share a model and its load parameters.

    Emits ``planned`` for each: its index, the buffers and the cache's size, or why llama.cpp refused; and ``done`` last, with the
    memory that the process itself took (a real one takes the same for its libraries, vocabulary and tables).

    Raises
    ------
    NativeError : llama.cpp refused the header.
    """
    specs = [RunSpec.from_dict(spec) for spec in request["specs"]]
    model = DryModel(runtime, specs[0])
    readings = []
    for index, spec in enumerate(specs):
        emit("planned", {"index": index, **_plan(model, spec)})
        if not readings:
            readings = [*early_readings(runtime), take_reading("context")]
    done = {"layers_by_device": read_layers(model.log), "description": model.describe().description}
    model.close()
    emit("done", {**done, "readings": [dataclasses.asdict(reading) for reading in readings]})


def _plan(model: DryModel, spec: RunSpec) -> dict[str, Any]:
    try:
        session = Session(model, spec)
    except NativeError as error:
        return {"refused": str(error)}
    buffers = read_buffers(session.log)
    plan = {
        "buffers": [dataclasses.asdict(item) for item in buffers if item.cause != "kv"],
        "cache_bytes": read_cache_bytes(session.log),
        "flash_attn": read_flash_attention(session.log),
    }
    session.close()
    return plan
