"""Does a model fit into a memory, and if not, how many of its layers do?

The parts are the weights, the cache of the whole context, the working memory of the largest step, and what a GPU's driver takes.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.theory.ollama import MINIMUM_BYTES
from harness.theory.roofline import Cost
from harness.units import MIB

#: What a CUDA context with its libraries takes: as Ollama counted it for every CUDA card in 2024.
DEVICE_BYTES = MINIMUM_BYTES["cuda"]

#: llama.cpp's default micro-batch: so many rows of logits and activations are worked on at once.
N_UBATCH = 512

#: The share of a Mac's memory that its GPU may hold unless told otherwise: Metal's recommendedMaxWorkingSetSize in llama.cpp's log,
#: 38654.71 MB of 48 GiB and 49152.00 MiB of 64 GiB, but 21845.34 MiB of 32 GiB and 10922.67 MiB of 16 GiB.
#: Source: logs in llama.cpp's issue 1870, ollama's issue 434, llama-cpp-python's issue 687. Where between 32 and 48 it changes was
#: not seen.
METAL_SHARE_LARGE, METAL_SHARE_SMALL = 3 / 4, 2 / 3
METAL_LARGE_BYTES = 36 * 1024 * MIB


@dataclass(frozen=True, slots=True)
class Need:
    """What a model needs in bytes, by cause. cache is None where its kind is not known (and not in the total)."""

    weights_bytes: int
    cache_bytes: int | None
    compute_bytes: int
    device_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + (self.cache_bytes or 0) + self.compute_bytes + self.device_bytes


def work_out_need(cost: Cost, n_ctx: int, *, on_gpu: bool) -> Need:
    """Add up what a model needs with a context of n_ctx tokens.

    On a GPU the token embeddings stay on the CPU where they are not the output too. The working memory is an estimate: one float for
    each logit and two rows of activations of a micro-batch. llama.cpp 0c1e570 reserves 258.5 MiB for a llama3.2:1b; this says 258.5.
    """
    rows = min(n_ctx, N_UBATCH)
    return Need(
        weights_bytes=cost.memory_bytes - (cost.input_bytes if on_gpu and not cost.is_estimate else 0),
        cache_bytes=cost.cache_bytes(n_ctx),
        compute_bytes=4 * rows * (cost.n_vocab + 2 * cost.n_embd),
        device_bytes=DEVICE_BYTES if on_gpu else 0,
    )


def metal_limit_bytes(memory_bytes: int) -> int:
    """The memory that a Mac of this size gives its GPU by default."""
    share = METAL_SHARE_LARGE if memory_bytes >= METAL_LARGE_BYTES else METAL_SHARE_SMALL
    return round(memory_bytes * share)


def count_layers_that_fit(cost: Cost, n_ctx: int, vram_bytes: int) -> int:
    """Count the layers that a card can take: 0 … n_layers, and n_layers + 1 where the output matrix fits too.

    Layers go onto the card from the last one up to as many as fit, each with its part of the cache; the output matrix is one more.
    """
    need = work_out_need(cost, n_ctx, on_gpu=True)
    if need.total_bytes <= vram_bytes:
        return cost.n_layers + 1
    room = vram_bytes - need.device_bytes - need.compute_bytes
    in_blocks = cost.memory_bytes - cost.input_bytes - cost.output_bytes
    per_layer = (in_blocks + (need.cache_bytes or 0)) / cost.n_layers
    return max(min(int(room / per_layer), cost.n_layers), 0)
