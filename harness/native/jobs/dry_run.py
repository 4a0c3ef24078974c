"""What llama.cpp would allocate, found by letting it plan and allocate nothing: no weights are needed, only a header.

The file is a sparse one (`harness.sources.sparse`). Compute and output buffers come out exactly as in a real run; so do the
sizes of the cache and of a recurrent state, which architectures that `harness.gguf` cannot price then have too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from harness.codec import encode
from harness.errors import NativeError
from harness.native.engine import LoadedModel, Session
from harness.native.jobs.memory_steps import early_readings, list_malloced, take_reading
from harness.native.log import read_buffers, read_caches, read_flash_attention, read_layers
from harness.native.versions import set_load_mode
from harness.records.cells import Buffer
from harness.spec import RunSpec


class DryModel(LoadedModel):
    """A model of which only the header was read.

    Raises
    ------
    NativeError : llama.cpp refuses the header, with its reason.
    """

    def _parameters(self, spec: RunSpec) -> Any:
        parameters = super()._parameters(spec)
        parameters.no_alloc = True
        set_load_mode(parameters, "none")  # any other mode asserts that memory may be allocated
        return parameters


def run(runtime: Any, request: dict[str, Any], emit: Any) -> None:
    """Plan ``request["specs"]``, which share a model and its load parameters.

    Emits ``build`` where servers were attached, ``reading`` for the steps that this process has been through (a real one takes the same
    for its libraries, vocabulary and tables), ``planned`` for each spec with the buffers and the cache's size or why llama.cpp refused,
    and ``done`` last.

    Raises
    ------
    NativeError : llama.cpp refused the header, or a server cannot be had.
    """
    specs = [RunSpec.from_dict(spec) for spec in request["specs"]]
    for reading in early_readings(runtime):
        emit("reading", encode(reading))
    if specs[0].rpc:
        runtime.attach_rpc(specs[0].rpc)
        emit("build", {"build": encode(runtime.describe())})  # the devices are others now
    model = DryModel(runtime, specs[0])
    is_first = True
    for index, (plan, buffers) in enumerate(_plan_all(model, specs)):
        if is_first and buffers is not None:
            emit("reading", encode(take_reading("context", runtime, list_malloced(buffers))))
            is_first = False
        emit("planned", {"index": index, **plan})
    done = {"layers_by_device": read_layers(model.log), "description": model.describe().description}
    model.close()
    emit("done", done)


def _plan_all(model: DryModel, specs: Sequence[RunSpec]) -> Iterator[tuple[dict[str, Any], tuple[Buffer, ...] | None]]:
    """Make a context for each spec and yield what it planned while it is there; None for its buffers if it was refused."""
    for spec in specs:
        try:
            session = Session(model, spec)
        except NativeError as error:
            yield {"refused": str(error)}, None
            continue
        buffers = read_buffers(session.log)
        caches = read_caches(session.log)
        others = [item for item in buffers if item.cause not in {one.cause for one in caches}]
        plan = encode({"buffers": others, "caches": caches, "flash_attn": read_flash_attention(session.log)})
        # A plan's compute buffers are sizes, not memory.
        yield plan, tuple(item for item in buffers if item.cause != "compute")
        session.close()
