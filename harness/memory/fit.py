"""Does a model fit into a memory, and if not, how many of its layers do? The one place that sets what is needed against what there is.

What is needed are the weights, what the layers keep of the whole context, and the largest step's working memory. What there is of a
memory is what the driver and other programs leave: what a device says is free, or of a card that is not here its size less what its
driver takes. llama.cpp offloads the output layer first and then the repeating layers from the last one down.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.errors import HarnessError
from harness.gguf.attention import describe_attention
from harness.gguf.caches import round_context, window_cells
from harness.gguf.cost import Cost
from harness.gguf.header import Header
from harness.gguf.settings import name_set, read_count, read_per_layer
from harness.memory.causes import HOST, Cause
from harness.memory.forecast import DeviceRules, Host, Line, WeightPlan, predict_memory, price_cache
from harness.memory.ollama_2024 import MINIMUM_BYTES
from harness.memory.placement import place_layers, shares_host_memory
from harness.spec import RunSpec
from harness.units import MIB

#: What a CUDA context with its libraries takes of a card that is not here to be asked: as Ollama counted it for every card in 2024.
CUDA_CONTEXT_BYTES = MINIMUM_BYTES["cuda"]

#: llama.cpp's default micro-batch: so many rows of logits and activations are worked on at once.
N_UBATCH = 512

#: The share of a Mac's memory that its GPU may hold unless told otherwise: Metal's recommendedMaxWorkingSetSize in llama.cpp's log,
#: 38654.71 MB of 48 GiB and 49152.00 MiB of 64 GiB, but 21845.34 MiB of 32 GiB and 10922.67 MiB of 16 GiB.
#: Source: logs in llama.cpp's issue 1870, ollama's issue 434, llama-cpp-python's issue 687. Where between 32 and 48 it changes was
#: not seen.
METAL_LARGE_BYTES = 36 * 1024 * MIB


def metal_limit_bytes(memory_bytes: int) -> int:
    """The memory that a Mac of this size gives its GPU by default."""
    return round(memory_bytes * (3 / 4 if memory_bytes >= METAL_LARGE_BYTES else 2 / 3))


# --- needed -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Need:
    """What a model needs in bytes, by cause. cache is None where its kind is not known (and not in the total); repacked is the second
    copy of weights that the CPU makes."""

    weights_bytes: int
    cache_bytes: int | None
    compute_bytes: int
    device_bytes: int
    repacked_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        kept = self.weights_bytes + self.repacked_bytes + (self.cache_bytes or 0)
        return kept + self.compute_bytes + self.device_bytes


def need_in_memory(cost: Cost, n_ctx: int, compute_bytes: int | None = None, repacked_bytes: int = 0) -> Need:
    """Add up what a model needs in host memory with a context of n_ctx tokens."""
    compute = compute_bytes or estimate_compute_bytes(cost, n_ctx)
    return Need(cost.memory_bytes, cost.cache_bytes(n_ctx), compute, 0, repacked_bytes)


#: Architectures of which `estimate_compute_bytes` is what llama.cpp plans, to the 0.01 MiB of its log, for a cache of f16 and with
#: the usual flash attention; held by tests/test_fit.py.
_EXACT_COMPUTE = name_set("llama qwen2 qwen3moe smollm3 granite")


def is_compute_known(header: Header, type_k: str, type_v: str) -> bool:
    """Whether the estimate of computing needs no dry run beside it."""
    has_experts = header.architecture != "qwen3moe" and bool(read_count(header, "expert_count"))
    return header.architecture in _EXACT_COMPUTE and not has_experts and {type_k, type_v} == {"f16"}


def estimate_compute_bytes(cost: Cost, n_ctx: int, header: Header | None = None) -> int:
    """Estimate the working memory where no dry run can be made: the larger of the output layer's and a feed-forward network's rows.

    A float for each logit and two rows of activations, or three rows of the network's width, four of activations and the mask, for a
    micro-batch. llama.cpp 0c1e570 reserves 258.5 MiB for a llama3.2:1b and 442 MiB for a llama3.1:405b at 2048 tokens; so says this.
    """
    rows = min(n_ctx, N_UBATCH)
    output = 4 * rows * (cost.n_vocab + 2 * cost.n_embd)
    n_blocks = read_count(header, "block_count") or 0 if header else 0
    widths = (read_per_layer(header, "feed_forward_length", n_blocks) if header else None) or ()
    inner = rows * (4 * (3 * max(widths, default=0) + 4 * cost.n_embd) + 2 * round_context(n_ctx))
    return max(output, inner)


#: Copies of a graph's inputs where several devices work on several micro-batches at once. Source: ggml-backend.cpp
#: GGML_SCHED_MAX_COPIES.
_COPIES = 4
#: Rows of activations that cross between devices then, the copies together: 7 to 8.2 of n_ubatch each were seen.
_CROSSING = 9


def estimate_pipeline_bytes(header: Header, spec: RunSpec) -> int:
    """Estimate what computing on one of several devices may take beyond all that a single one takes, where llama.cpp has them work on
    several micro-batches at once: copies of the masks and of the activations that go from one device to the next.

    Never less than what llama.cpp 0c1e570 planned for two devices behind RPC, of llama, qwen3moe, gemma3, gpt-oss and qwen35, with
    4096, 16384 and 65536 tokens.

    Source: llama-context.cpp (pipeline_parallel), llama-graph.cpp (kq_mask).
    """
    rows = min(spec.n_ctx, spec.n_batch, spec.n_ubatch)
    window = describe_attention(header).window_tokens
    cells = round_context(spec.n_ctx) + (window_cells(spec, window) if window else 0)
    mask = rows * cells * (4 if spec.flash_attn == "off" else 2)
    return _COPIES * mask + _CROSSING * rows * (read_count(header, "embedding_length") or 0) * 4


# --- layers on a card -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LayerPrice:
    """What n_gpu_layers layers take of one device, in bytes; compute buffers are not in it."""

    n_gpu_layers: int
    device_weights_bytes: int
    device_cache_bytes: int

    @property
    def device_bytes(self) -> int:
        return self.device_weights_bytes + self.device_cache_bytes


def price_layers(header: Header, spec: RunSpec, device: DeviceRules) -> tuple[LayerPrice, ...]:
    """Price every number of layers on one device, from none to all with the output layer.

    Raises
    ------
    HarnessError : as `predict_memory`; the cache of this architecture is not known, or it cannot have this type.
    """
    plan, attention = WeightPlan(header, Host(None, (device,)), spec), describe_attention(header)
    if attention.layers is None:
        raise HarnessError(f"the cache of {header.architecture} is not known: {attention.reason}")
    cache = [0] * (plan.n_layers + 2)
    for kept in attention.list_kept(spec):
        if not spec.no_kv_offload:
            cache[plan.n_layers + 1 - kept.layer] += kept.size_bytes(device.alignment)
    weights, cached = plan.grow(spec), itertools.accumulate(cache)
    return tuple(LayerPrice(count, *sizes) for count, sizes in enumerate(zip(weights, cached, strict=True)))


def rough_prices(cost: Cost, n_ctx: int) -> tuple[LayerPrice, ...]:
    """The same for a model of which only its cost is known: alike layers, each with its part of the cache."""
    per_layer = max(cost.memory_bytes - cost.input_bytes - cost.output_bytes, 0) / cost.n_layers
    cached = (cost.cache_bytes(n_ctx) or 0) / cost.n_layers
    counts = range(1, cost.n_layers + 2)
    moved = [LayerPrice(n, round(cost.output_bytes + (n - 1) * per_layer), round((n - 1) * cached)) for n in counts]
    return (LayerPrice(0, 0, 0), *moved)


@dataclass(frozen=True, slots=True)
class CardFit:
    """How many layers go on a card of some size, and what is taken there anyway; layers count the output layer.

    device is None for a card that is not here: memory_bytes is then its size, of which the driver takes context_bytes, and else what
    the device has free.
    compute_bytes is None where it is not known, and then not counted; of a card that is not here it is what all layers together need.
    is_estimated says that it is `estimate_compute_bytes` and not llama.cpp's plan.
    host_bytes is what is left to the host, None where that was not worked out.
    """

    device: str | None
    memory_bytes: int
    n_layers: int
    n_fitting: int  #: layers that fit
    compute_bytes: int | None
    context_bytes: int
    price: LayerPrice  #: what those take
    full: LayerPrice  #: what all would take
    host_bytes: int | None = None
    is_estimated: bool = False

    @property
    def used_bytes(self) -> int:
        return self.price.device_bytes + (self.fixed_bytes if self.n_fitting else 0)

    @property
    def needed_bytes(self) -> int:
        """What all layers would need."""
        return self.full.device_bytes + self.fixed_bytes

    @property
    def fixed_bytes(self) -> int:
        """What is taken as soon as one layer is there."""
        return (self.compute_bytes or 0) + self.context_bytes


def fit_layers(
    prices: Sequence[LayerPrice],
    device: str | None,
    memory_bytes: int,
    compute_bytes: int | None,
    context_bytes: int = 0,
) -> CardFit:
    """Count the layers that fit into a card's memory beside what it needs anyway; everybody who counts layers asks here."""
    fixed = (compute_bytes or 0) + context_bytes
    count = max((price.n_gpu_layers for price in prices if price.device_bytes + fixed <= memory_bytes), default=0)
    return CardFit(
        device, memory_bytes, len(prices) - 1, count, compute_bytes, context_bytes, prices[count], prices[-1]
    )


def left_to_host(header: Header, spec: RunSpec, host: Host, device: DeviceRules, n_gpu_layers: int) -> int:
    """What stays in host memory when so many layers are on one device, in bytes."""
    alone = replace(host, devices=(device,))
    plan = WeightPlan(header, alone, spec)
    placement = place_layers(plan.n_layers, n_gpu_layers, (1.0,))
    lines = [*plan.price(spec, placement), *price_cache(describe_attention(header), spec, placement, alone)]
    return sum(line.size_bytes for line in lines if line.device == HOST)


# --- a placement on this machine --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether something fits a memory: what it needs, what there is in all and what of it is free now."""

    device: str
    needed_bytes: int
    free_bytes: int | None
    total_bytes: int | None

    @property
    def fits(self) -> bool | None:
        """Whether it fits the memory when nothing else is in it."""
        return None if self.total_bytes is None else self.needed_bytes <= self.total_bytes

    @property
    def fits_now(self) -> bool | None:
        return None if self.free_bytes is None else self.needed_bytes <= self.free_bytes


def needed_in_host_memory(lines: Sequence[Line], devices: Sequence[DeviceRules], header: Header) -> int:
    """What lines take of the host's own memory: the host's, and those of devices that compute in it.

    Where such a device maps the file, as the host does, a page that both look at is there once, so it is no more than all tensors.
    """
    shared = {HOST, *(device.name for device in devices if shares_host_memory(device))}
    own = sum(line.size_bytes for line in lines if line.device in shared and line.cause is not Cause.MAPPED)
    mapped = [line.size_bytes for line in lines if line.device in shared and line.cause is Cause.MAPPED]
    whole = sum(tensor.size_bytes for tensor in header.tensors)
    return own + min(sum(mapped), max(whole, *mapped) if len(mapped) > 1 else sum(mapped))


@dataclass(frozen=True, slots=True)
class Placement:
    """Whether a placement can fit on its devices. needed_bytes is by device: weights, cache, and compute buffers where those were
    planned; a lower bound where they were not."""

    fits: bool
    reason: str | None
    needed_bytes: Mapping[str, int]


def check_placement(
    header: Header,
    spec: RunSpec,
    devices: Sequence[DeviceRules],
    compute_bytes: Mapping[str, int] | None = None,
    host_bytes: int | None = None,
) -> Placement:
    """Say whether a spec's layers can fit into the free memory of its devices.

    Parameters
    ----------
    devices       : all that there are; those that llama.cpp would use for the spec are chosen here
    compute_bytes : what a dry run planned for computing, by device, which a device needs as soon as a layer is on it; for a device that
                    is not in it only weights and cache count
    host_bytes    : free memory of the host, for devices that share it

    Raises
    ------
    UsageError   : -mg names no device.
    HarnessError : as `harness.memory.forecast.predict_memory`.
    """
    host, planned = Host(None, tuple(devices)), compute_bytes or {}
    prediction, chosen = predict_memory(header, spec, host), host.chosen(spec).devices
    needed: dict[str, int] = {}

    def refuse(where: str, what: str, needed_bytes: int, free_bytes: int) -> Placement:
        sizes = f"{math.ceil(needed_bytes / MIB)} MiB of {free_bytes // MIB} free"
        return Placement(False, f"cannot fit on {where}: {what} need {sizes}", needed)

    for device in chosen:
        stored = prediction.on(device.name)
        compute = planned.get(device.name, 0) if stored else 0
        needed[device.name] = total = stored + compute
        if device.memory_bytes is not None and total > device.memory_bytes:
            parts = "weights, cache and compute buffer" if compute else "weights and cache"
            return refuse(device.name, parts, total, device.memory_bytes)
    if host_bytes is not None and any(shares_host_memory(device) and needed[device.name] for device in chosen):
        total = needed_in_host_memory(prediction.lines, chosen, header) + sum(planned.values())
        if total > host_bytes:
            return refuse("the memory that it shares with the CPU", "both together", total, host_bytes)
    return Placement(True, None, needed)
