"""What cells take of memory, by their files' headers, and whether several of them have room at once: estimates on the dear side."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence

from harness.errors import HarnessError
from harness.gguf.attention import describe_attention
from harness.gguf.cost import cost_of_header
from harness.gguf.header import Header
from harness.memory.fit import N_UBATCH, estimate_compute_bytes
from harness.native.shelf import RESERVE_BYTES, UNKNOWN_CONTEXT_BYTES, Needs
from harness.records.cells import Build
from harness.runs.bench import process_nature
from harness.sources.gguf_file import read_file_header
from harness.sources.model_file import model_size_bytes
from harness.spec import RunSpec


def estimate_needs(spec: RunSpec) -> Needs | None:
    """What a cell takes; None where its file cannot be read or says what llama.cpp refuses, which loading it will say.

    Weights count twice where they may be repacked, and computing as `estimate_compute_bytes` has it, for the spec's micro-batch.
    """
    try:
        size_bytes, header = _look_at(spec.model)
        cache = describe_attention(header).size_bytes(spec)
        compute = estimate_compute_bytes(cost_of_header(header, "", ""), spec.n_ctx, header)
    except (HarnessError, OSError):
        return None
    context = UNKNOWN_CONTEXT_BYTES if cache is None else cache + compute * max(1, -(-spec.n_ubatch // N_UBATCH))
    return Needs(size_bytes, size_bytes * (2 if spec.repack else 1), context)


@functools.lru_cache(maxsize=16)
def _look_at(model: str) -> tuple[int, Header]:
    return model_size_bytes(pathlib.Path(model)), read_file_header(model, check_size=False)


def fit_together(found: Sequence[tuple[RunSpec, Needs | None]], free_bytes: int, build: Build | None = None) -> bool:
    """Whether the models and contexts of all cells, each with what it takes, have room at once: in free_bytes of host memory, and on
    cards.

    Each model counts once for all cells that share it; what a card takes is counted on the host as well. Cells that need processes of
    their own never fit together: each turn starts one.
    """
    if len({process_nature(cell) for cell, _ in found}) > 1:
        return False
    if any(needs is None for _, needs in found):
        return len({cell.load_key() for cell, _ in found}) == 1
    models = {cell.load_key(): needs.model_bytes for cell, needs in found if needs}
    contexts = sum(needs.context_bytes for _, needs in found if needs)
    if sum(models.values()) + contexts + RESERVE_BYTES > free_bytes:
        return False
    free = [device.memory_free_bytes for device in (build.devices if build else ()) if device.kind != "cpu"]
    on_cards = [(cell, needs) for cell, needs in found if needs and cell.n_gpu_layers]
    if not on_cards or not any(free):
        return True
    weights = {cell.load_key(): needs.file_bytes for cell, needs in on_cards}
    needed = sum(weights.values()) + sum(needs.context_bytes for _, needs in on_cards)
    return needed + RESERVE_BYTES <= sum(size or 0 for size in free)
