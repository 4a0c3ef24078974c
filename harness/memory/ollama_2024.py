"""What Ollama said a model takes, as of October 2024: the estimate behind `ollama ps`, from a GGUF header alone.

SIZE was never measured: before it loaded a model, Ollama v0.3.12 to v0.3.14 added up what it expected and printed that. The three
versions do the same arithmetic. All of it is here for one device, in unsigned 64-bit integers as there, with its rounding and its
quirks, because they are what people saw. Later versions do otherwise (v0.5.0 quantizes the cache, v0.11.5 replaces the estimate).

Source, everywhere: ollama v0.3.14 (f2890a449), llm/memory.go EstimateGPULayers and PredictServerFit, llm/ggml.go, server/sched.go.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

from harness.errors import UsageError
from harness.memory.ollama_graph import Figures, GraphSize, size_graph
from harness.units import MIB

VERSIONS = "v0.3.12 to v0.3.14"

#: Source: api/types.go DefaultOptions.
DEFAULT_NUM_CTX = 2048
#: Slots that are tried in turn where the user says nothing. Source: sched.go defaultParallel, pickBestFullFitByLibrary.
PARALLEL_TO_TRY = (4, 1)
#: Below this many tokens Ollama takes this many. Source: sched.go GetRunner.
MIN_NUM_CTX = 4
#: "As many layers as fit". Source: api/types.go DefaultOptions.
AUTOMATIC = -1

#: What Ollama sets aside for each library's own context. Source: discover/gpu.go cudaMinimumMemory, rocmMinimumMemory,
#: discover/gpu_darwin.go metalMinimumMemory; none for the CPU.
MINIMUM_BYTES = {"cuda": 457 * MIB, "rocm": 457 * MIB, "metal": 512 * MIB, "cpu": 0}

_UINT64 = 2**64


@dataclass(frozen=True, slots=True)
class Request:
    """What the user and the machine bring to it.

    free_vram_bytes None is "enough"; parallel None is Ollama's own choice (4, then 1); num_gpu is -1 for "as many as fit".
    projector_bytes are all tensors of a vision model's second file; gpu_overhead_bytes is OLLAMA_GPU_OVERHEAD, which is taken
    from the free memory but not counted into SIZE.
    """

    free_vram_bytes: int | None = None
    num_ctx: int = DEFAULT_NUM_CTX
    parallel: int | None = None
    num_gpu: int = AUTOMATIC
    library: str = "cuda"
    projector_bytes: int = 0
    gpu_overhead_bytes: int = 0

    def __post_init__(self) -> None:
        if self.library not in MINIMUM_BYTES:
            raise UsageError(f"{self.library!r} is not a library of Ollama's; use one of {', '.join(MINIMUM_BYTES)}")
        if self.num_ctx < 1 or (self.parallel is not None and self.parallel < 1) or self.num_gpu < AUTOMATIC:
            raise UsageError("num_ctx and parallel must be at least 1, and num_gpu at least 0 (or -1 for automatic)")


@dataclass(frozen=True, slots=True)
class Terms:
    """What SIZE is the sum of, in bytes; a term is 0 where Ollama left it out.

    uneven_bytes: layers left to the CPU are all counted as large as the last one, which is wrong where blocks differ.
    """

    minimum_bytes: int
    buffer_layer_bytes: int
    projector_bytes: int
    block_bytes: int
    kv_bytes: int
    output_bytes: int
    graph_bytes: int
    uneven_bytes: int

    @property
    def total_bytes(self) -> int:
        return sum(astuple(self))


@dataclass(frozen=True, slots=True)
class Estimate:
    """One answer of EstimateGPULayers: layers counts the output layer too; n_cells is num_ctx × parallel."""

    n_cells: int
    parallel: int
    library: str
    layers: int
    n_layers_model: int
    graph: GraphSize
    terms: Terms
    size_vram_bytes: int

    @property
    def size_bytes(self) -> int:
        return self.terms.total_bytes

    @property
    def size(self) -> str:
        return format_ollama(self.size_bytes)

    @property
    def processor(self) -> str:
        return name_processor(self.size_bytes, self.size_vram_bytes)

    @property
    def is_complete(self) -> bool:
        """Whether all layers and the output went to the device."""
        return self.layers == self.n_layers_model


def estimate(figures: Figures, request: Request) -> Estimate:
    """Say what Ollama would have printed: the first number of slots that fits entirely, else whatever fits at one.

    Source: sched.go processPending, pickBestFullFitByLibrary, pickBestPartialFitByLibrary; llm/server.go NewLlamaServer.
    """
    if request.num_gpu == 0 or request.library == "cpu":
        # On the CPU nothing has to fit: the slots are what they are.
        slots = _slots(figures, request)[0]
        return _estimate_one(figures, request, slots, "cpu")
    for slots in _slots(figures, request):
        found = _estimate_one(figures, request, slots, request.library)
        wanted = figures.n_layers + 1 if request.num_gpu < 0 else request.num_gpu
        if found.layers and found.layers >= wanted:
            return found
    # The last of the slots that were tried is the one Ollama is left with.
    return found


def _slots(figures: Figures, request: Request) -> tuple[int, ...]:
    """The numbers of slots to try. Source: sched.go:132-175."""
    if request.projector_bytes or figures.is_embedder:
        return (1,)
    return PARALLEL_TO_TRY if request.parallel is None else (request.parallel,)


def _estimate_one(figures: Figures, request: Request, slots: int, library: str) -> Estimate:
    """Pack layers onto one device until the first does not fit. Source: memory.go:70-274."""
    n_cells = max(request.num_ctx, MIN_NUM_CTX) * slots
    if request.projector_bytes:
        n_cells = max(n_cells, 2048)
    graph = size_graph(figures, n_cells, library=library)
    kv_per_layer = figures.kv_bytes(n_cells) // figures.n_layers
    layers = [size + kv_per_layer for size in figures.block_bytes]
    minimum, buffer, reserve = MINIMUM_BYTES[library], layers[0], max(graph.partial_bytes, graph.full_bytes)
    free = _UINT64 - 1 if request.free_vram_bytes is None or library == "cpu" else request.free_vram_bytes
    # Unsigned as in Go: an overhead above the free memory wraps around to "plenty" (fixed in a later version).
    free = (free - request.gpu_overhead_bytes) % _UINT64
    admitted = free >= request.projector_bytes + reserve + minimum + 2 * buffer
    held = minimum + buffer + request.projector_bytes if admitted else 0
    limit, placed = min(request.num_gpu, figures.n_layers) if request.num_gpu >= 0 else figures.n_layers, 0
    while admitted and placed < limit and free > held + reserve + layers[placed]:
        held += layers[placed]
        placed += 1
    has_room = admitted and placed == limit
    is_full = placed == figures.n_layers
    output, n_placed = 0, placed
    wants_output = figures.output_bytes > 0 and (request.num_gpu < 0 or placed < request.num_gpu)
    if wants_output:
        output = figures.output_bytes
        if has_room and free > held + reserve + output:
            held += output
            n_placed += 1
        is_full = n_placed == figures.n_layers + 1
    graph_bytes = 0 if n_placed == 0 else graph.full_bytes if is_full else graph.partial_bytes
    left = layers[placed:]
    terms = Terms(
        minimum_bytes=minimum if admitted else 0,
        buffer_layer_bytes=buffer if admitted else 0,
        projector_bytes=request.projector_bytes if admitted else 0,
        block_bytes=sum(figures.block_bytes),
        kv_bytes=kv_per_layer * figures.n_layers,
        output_bytes=output,
        graph_bytes=graph_bytes,
        uneven_bytes=len(left) * layers[-1] - sum(left),
    )
    on_device = n_placed > 0 and library != "cpu"
    return Estimate(
        n_cells=n_cells,
        parallel=slots,
        library=library,
        layers=n_placed if on_device else 0,
        n_layers_model=figures.n_layers + 1,
        graph=graph,
        terms=terms,
        size_vram_bytes=held + graph_bytes if on_device else 0,
    )


def needed_free_bytes(figures: Figures, request: Request, slots: int) -> int:
    """The free memory that the device must exceed for everything to fit at so many slots.

    A little more than SIZE, because room for the larger of the two compute buffers is reserved while packing.
    """
    complete = _estimate_one(figures, request, slots, request.library)
    kv, graph = complete.terms.kv_bytes, max(complete.graph.partial_bytes, complete.graph.full_bytes)
    model = sum(figures.block_bytes) + figures.output_bytes + request.projector_bytes
    margin = MINIMUM_BYTES[request.library] + figures.block_bytes[0] + kv // figures.n_layers
    return model + kv + graph + margin + request.gpu_overhead_bytes


def format_ollama(size_bytes: int) -> str:
    """Print a size as `ollama ps` does: powers of 1000; from 10 on truncated, below with one decimal unless it is whole.

    Source: format/bytes.go HumanBytes.
    """
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size_bytes >= factor:
            value = size_bytes / factor
            return f"{int(value)} {unit}" if value >= 10 or value == int(value) else f"{value:.1f} {unit}"
    return f"{size_bytes} B"


def name_processor(size_bytes: int, size_vram_bytes: int) -> str:
    """The PROCESSOR column: a share of expected bytes, not of work. Source: cmd/cmd.go:639-650 ListRunningHandler."""
    if size_vram_bytes == 0:
        return "100% CPU"
    if size_vram_bytes == size_bytes:
        return "100% GPU"
    if size_vram_bytes > size_bytes:
        return "Unknown"
    on_cpu = int((size_bytes - size_vram_bytes) / size_bytes * 100 + 0.5)  # Go's math.Round: halves away from zero
    return f"{on_cpu}%/{100 - on_cpu}% CPU/GPU"


@dataclass(frozen=True, slots=True)
class Account:
    """What Ollama would have said, and what it would have said with one slot; needed_free_bytes is by number of slots."""

    figures: Figures
    request: Request
    chosen: Estimate
    one_slot: Estimate
    needed_free_bytes: dict[int, int]


def give_account(figures: Figures, request: Request) -> Account:
    """Put the estimate beside the one-slot figure and the free memory at which the outcome changes."""
    slots = sorted({*_slots(figures, request), 1}, reverse=True)
    on_device = request.library != "cpu" and request.num_gpu != 0
    return Account(
        figures=figures,
        request=request,
        chosen=estimate(figures, request),
        one_slot=estimate(figures, replace(request, parallel=1)),
        needed_free_bytes={n: needed_free_bytes(figures, request, n) for n in slots} if on_device else {},
    )
