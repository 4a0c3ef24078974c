"""All that harness does with a header, without a worker: what a spoilt one may end in is a HarnessError and nothing else."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from harness.errors import HarnessError
from harness.gguf.anatomy import describe_model
from harness.gguf.cost import cost_of_header
from harness.gguf.header import ArrayValue, BytesSource, Header, check_complete, read_header
from harness.gguf.model_kinds import Question, find_kind, refuse, suit_cells
from harness.gguf.reads import count_reads
from harness.gguf.split import split_count
from harness.grid import Grid
from harness.memory.fit import check_placement, fit_layers, price_layers
from harness.memory.forecast import Host, device_rules, predict_memory, work_bytes
from harness.memory.ollama_2024 import Request, give_account
from harness.memory.ollama_graph import read_figures
from harness.memory.repack import CpuFeatures, find_repacked_types
from harness.runs.inspection import Inspection
from harness.sources.user_catalog import load_catalog
from harness.speed.machines import known_machines
from harness.speed.offload import describe_blocks
from harness.speed.prediction import Prediction, predict_by_bandwidth
from harness.speed.prediction import Question as Asked
from harness.views.formats import render
from harness.views.inspect import describe_inspection
from harness.views.ollama_2024 import describe_account
from harness.views.predict import describe_prediction

GB = 10**9

#: CPUs that repack by different rules, and a card.
FEATURES = tuple(
    CpuFeatures(frozenset({"REPACK", *names}))
    for names in (("AVX2", "AVX512", "AMX_INT8"), ("NEON", "DOTPROD", "MATMUL_INT8"))
)
HOST = Host(FEATURES[0], (device_rules("CUDA0", memory_bytes=8 * GB),))


def inspect(header: Header) -> None:
    anatomy = describe_model(header)
    document = describe_inspection(Inspection("model", anatomy))
    render(document, "json")
    assert all(len(line) <= 80 for line in render(document, "table").splitlines())
    for features in FEATURES:
        find_repacked_types(header, features)


@functools.cache
def _machines() -> Any:
    return known_machines(load_catalog())


def predict(header: Header) -> None:
    refuse(header, Question.SPEED, "model")
    cost = cost_of_header(header, "Q4_0", "model", "f16", "q8_0")
    asked = Asked(cost, n_ctx=8192, n_depth=100, vram_bytes=8 * GB, memory_bytes=16 * GB, flops_per_s=1e12)
    answers = [predict_by_bandwidth("cpu", 50e9, asked, _machines())]
    document = describe_prediction(Prediction(tuple(answers)))
    render(document, "table")
    render(document, "json")


def remember(header: Header) -> None:
    """The memory ledger's arithmetic, on the CPU and on a card."""
    refuse(header, Question.MEMORY, "model")
    for n_gpu_layers in (0, 3, -1):
        (spec,) = Grid(["m"], {"n_gpu_layers": [n_gpu_layers], "n_threads": [2]}, n_prompt=(512,), n_gen=()).cells()
        predict_memory(header, spec, HOST)
        work_bytes(header, spec, n_cells=512)
    prices = price_layers(header, spec, HOST.devices[0])
    fit_layers(prices, "a card", 8 * GB, 0)


def sweep(header: Header) -> None:
    refuse(header, Question.MEASURE, "model")
    cells = Grid(["m"], {"n_gpu_layers": [0, 5, -1]}).cells()
    blocks = describe_blocks(header)
    for cell in suit_cells(header, cells, (), "model").cells:
        check_placement(blocks.header, cell, [device_rules("CUDA0", memory_bytes=8 * GB)])
        blocks.work(cell.n_gpu_layers)


def tell_ollama(header: Header) -> None:
    refuse(header, Question.MEMORY, "model")
    for request in (Request(), Request(free_vram_bytes=4 * GB, num_ctx=512, parallel=2), Request(num_gpu=1)):
        account = give_account(read_figures(header), request)
        render(describe_account(account, "model", file_bytes=header.size_bytes), "json")


def take_time_apart(header: Header) -> None:
    refuse(header, Question.TIME, "model")
    count_reads(header, ("f16", "q8_0")).touched_bytes(512, "f16")


ACTS: tuple[Callable[[Header], object], ...] = (
    inspect, split_count, lambda header: find_kind(header).describe("model"), predict, remember, sweep, tell_ollama, take_time_apart,
)  # fmt: skip


def act_on(header: Header) -> None:
    """Ask everything of a header that was read; anything but HarnessError escapes."""
    for act in ACTS:
        with contextlib.suppress(HarnessError):
            act(header)


def examine(data: bytes, chunk_bytes: int, *, deeply: bool = True) -> bool:
    """Read a header and, deeply, do with it all that harness does; say whether it was a model. Anything but HarnessError escapes."""
    source = BytesSource(data, size_known=chunk_bytes % 2 == 0)
    refusal = ""
    try:
        header = read_header(source, chunk_bytes=chunk_bytes)
    except HarnessError as error:
        refusal = str(error)
    if refusal:
        assert "at byte " in refusal, f"an error that names no byte: {refusal}"
        return False
    with contextlib.suppress(HarnessError):
        check_complete(header, len(data))
    if deeply:
        act_on(header)
    for value in header.metadata.values():
        try:
            if isinstance(value, ArrayValue):
                assert len(value.read(source)) == value.length
        except HarnessError:
            continue
    return True
