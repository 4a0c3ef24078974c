"""How many bytes a token reads and how many operations it takes, and how fast that could go at best.

Generating one token reads every active weight once, and what its layers keep of all tokens before it; so a machine that reads B bytes a
second cannot generate more than B / (bytes a token) tokens. A prompt's tokens share the reading, so there arithmetic sets the limit.

Source: S. Williams, A. Waterman, D. Patterson, Roofline, Communications of the ACM 52 (2009) 4.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import log

from harness.catalog import Shape
from harness.errors import UsageError
from harness.gguf.attention import describe_attention
from harness.gguf.blocks import count_layers, count_loops, loaded_tensors
from harness.gguf.caches import CacheCost, CacheRows, Context
from harness.gguf.header import Header, Tensor
from harness.gguf.roles import OUTPUT, TABLES, TOKEN_EMBEDDING, find_role
from harness.gguf.settings import read_count, read_per_layer
from harness.gguf.shapes import compute_header
from harness.gguf.types import extent, find_quantization
from harness.spec import MAX_LAYERS


@dataclass(frozen=True, slots=True)
class Cost:
    """What one token costs in a model.

    size_bytes is all tensors of the file, memory_bytes those that llama.cpp loads, and input_bytes the tables among them of which a
    token reads one row; read_bytes is what one token reads (of an embedding that is not the output too nothing, of experts those that
    it visits), block_bytes one layer's part of that, output_bytes the output matrix's. n_multiplied counts the weights in matrix
    products. cache is None where what the layers keep is not known, and cache_unknown then says why; skipped are blocks of the file
    that llama.cpp does not load. has_experts says that a token visits only some of the weights, is_estimate that the cost was guessed
    from a size alone.

    Raises
    ------
    UsageError : a token reads nothing or is multiplied with nothing, so that there is no speed.
    """

    name: str
    quantization: str
    size_bytes: int
    memory_bytes: int
    input_bytes: int
    read_bytes: int
    block_bytes: float
    output_bytes: int
    n_layers: int
    n_params: int
    n_multiplied: int
    n_embd: int
    n_vocab: int
    cache: CacheCost | None
    cache_unknown: str | None = None
    n_ctx_train: int | None = None
    skipped: tuple[int, ...] = ()
    has_experts: bool = False
    is_estimate: bool = False

    def __post_init__(self) -> None:
        if self.read_bytes < 1 or self.n_multiplied < 1:
            raise UsageError(
                f"{self.name or 'the model'} has no matrices that a token is multiplied with, so no speed follows from it; "
                "name a file that holds a whole model"
            )

    @property
    def kv_bytes_per_token(self) -> int | None:
        """What each token adds to the cache, below the window; None where that is not known."""
        return None if self.cache is None else self.cache.bytes_per_token

    def cache_bytes(self, n_ctx: int) -> int | None:
        """What keys, values and states take in a context of n_ctx tokens."""
        return None if self.cache is None else self.cache.size_bytes(Context(n_ctx))

    def bytes_per_token(self, depth: float = 0.0) -> float:
        """Bytes that generating one token moves with `depth` tokens before it: weights, their cache, and states read and written."""
        return self.read_bytes + (self.cache.read_bytes(depth) if self.cache else 0.0)

    def flops_per_token(self, depth: float = 0.0) -> float:
        """Operations of one token: two for each multiplied weight, and what attention and states take at `depth`."""
        return 2.0 * self.n_multiplied + (self.cache.flops(depth) if self.cache else 0.0)

    def flops_per_prompt_token(self, n_prompt: int) -> float:
        """Operations of an average token of a prompt, each looking back on those before it."""
        return 2.0 * self.n_multiplied + (self.cache.prompt_flops(n_prompt) if self.cache else 0.0)


def roof_tok_per_s(cost: Cost, bandwidth_bytes_per_s: float, depth: float = 0.0) -> float:
    """The most tokens a second that a bandwidth allows."""
    return bandwidth_bytes_per_s / cost.bytes_per_token(depth)


def prompt_roof_tok_per_s(cost: Cost, flops_per_s: float, n_prompt: int = 0) -> float:
    """The most prompt tokens a second that an arithmetic rate allows."""
    return flops_per_s / cost.flops_per_prompt_token(n_prompt)


@functools.lru_cache(maxsize=256)
def cost_of_shape(shape: Shape, quantization: str, name: str = "", type_k: str = "f16", type_v: str = "f16") -> Cost:
    """The cost of a model that llama-quantize would make of this shape.

    Raises
    ------
    UsageError : the architecture or quantization is not known here.
    """
    quantization = find_quantization(quantization)
    return cost_of_header(compute_header(shape, quantization, name), quantization, name, type_k, type_v)


def cost_of_header(header: Header, quantization: str, name: str, type_k: str = "f16", type_v: str = "f16") -> Cost:
    """The cost of a model by its file's header.

    Raises
    ------
    HarnessError : a setting has a value that llama.cpp would refuse too.
    """
    n_layers = count_layers(header)
    attention = describe_attention(header)
    cache = attention.cost(type_k, type_v)
    unknown = attention.reason or f"llama.cpp has no cache of {type_k}/{type_v} for heads of this size"
    tensors = loaded_tensors(header)
    reads = {read.tensor.name: read for read in read_weights(header)}
    embedding = header.find_tensor(TOKEN_EMBEDDING)
    in_blocks = sum(read.size_bytes for read in reads.values() if read.block is not None)
    output = reads.get(OUTPUT) or reads.get(TOKEN_EMBEDDING)
    return Cost(
        name=name,
        quantization=quantization,
        size_bytes=sum(tensor.size_bytes for tensor in header.tensors),
        memory_bytes=sum(tensor.size_bytes for tensor in tensors),
        input_bytes=sum(tensor.size_bytes for tensor in tensors if tensor.name not in reads),
        read_bytes=round(sum(read.size_bytes for read in reads.values())),
        block_bytes=float(in_blocks) / n_layers,
        output_bytes=round(output.size_bytes) if output else 0,
        n_layers=n_layers,
        n_params=sum(tensor.n_elements for tensor in header.tensors),
        n_multiplied=round(sum(read.share * read.tensor.n_elements for read in reads.values() if read.is_multiplied)),
        n_embd=read_count(header, "embedding_length") or 0,
        n_vocab=extent(embedding.shape, 1) if embedding else 0,
        cache=cache,
        cache_unknown=None if cache else unknown,
        n_ctx_train=read_count(header, "context_length"),
        skipped=attention.skipped,
        has_experts=bool(read_count(header, "expert_count")),
    )


@dataclass(frozen=True, slots=True)
class WeightRead:
    """A tensor, its block, and how much of it one token reads: 1 is all of it once, less the experts that it visits, more a block
    that loops."""

    tensor: Tensor
    share: Fraction
    block: int | None = None

    @property
    def size_bytes(self) -> Fraction:
        return self.share * self.tensor.size_bytes

    @property
    def is_multiplied(self) -> bool:
        """Whether it is in a matrix product; of a tied output the token embeddings are, which are a table otherwise."""
        name = self.tensor.name
        return name == TOKEN_EMBEDDING or (find_role(name).is_multiplied and len(self.tensor.shape) > 1)


def read_weights(header: Header) -> Iterator[WeightRead]:
    """List the tensors that one token reads, the one account of it: of experts those that it visits, no block that is not loaded.

    Raises
    ------
    HarnessError : a setting has a value that llama.cpp would refuse too.

    Source: llama.cpp's graphs: get_rows of token_embd, mul_mat of matrices, mul_mat_id of used experts.
    """
    n_experts = read_count(header, "expert_count") or 0
    used = read_per_layer(header, "expert_used_count", read_count(header, "block_count") or MAX_LAYERS) or []
    is_tied = header.find_tensor(OUTPUT) is None
    for tensor in loaded_tensors(header):
        if tensor.name in TABLES and not (is_tied and tensor.name == TOKEN_EMBEDDING):
            continue
        role = find_role(tensor.name)
        if (block := role.block) is None:
            yield WeightRead(tensor, Fraction(1))
            continue
        stacked = tensor.shape[-1] if tensor.shape else 0
        count = stacked if role.is_stack else n_experts if role.is_expert else 0
        visited = used[block] if block < len(used) else 0
        share = Fraction(min(visited, count), count) if count and visited else Fraction(1)
        yield WeightRead(tensor, share * _count_rounds(header, block), block)


def _count_rounds(header: Header, block: int) -> int:
    """How often a token passes a block. Source: src/models/hrm-text.cpp."""
    if header.architecture == "hrm_text":
        high, low = read_count(header, "hrm.h_cycles") or 1, read_count(header, "hrm.l_cycles") or 1
        is_low = block < (read_count(header, "hrm.layers_per_stack") or 0)
        return high * low if is_low else high
    return count_loops(header)


def cost_of_size(size_bytes: int, like: Iterable[Cost]) -> Cost:
    """Guess the cost of a dense model of which only the size is known, from models of the same kind of quantization.

    Layers, widths and cache are interpolated between the two models of `like` whose sizes enclose it, in the logarithm; outside they
    are the nearest one's, with the layers in proportion to the cube root of the size (shapes of a family grow in width and in depth).
    """
    known = sorted(like, key=lambda cost: cost.size_bytes)
    below = [cost for cost in known if cost.size_bytes <= size_bytes]
    above = [cost for cost in known if cost.size_bytes > size_bytes]
    if below and above:
        low, high = below[-1], above[0]
        share = log(size_bytes / low.size_bytes) / log(high.size_bytes / low.size_bytes)
        layers = low.n_layers ** (1 - share) * high.n_layers**share
        cache = (low.kv_bytes_per_token or 1) ** (1 - share) * (high.kv_bytes_per_token or 1) ** share
        near = high if share > 0.5 else low
    else:
        near = below[-1] if below else above[0]
        layers = near.n_layers * (size_bytes / near.size_bytes) ** (1 / 3)
        cache = float(near.kv_bytes_per_token or 0)
    scale = size_bytes / near.size_bytes
    n_scored = sum(row.n_scored for row in near.cache.rows) if near.cache else 0
    return replace(
        near,
        name="",
        quantization="",
        size_bytes=size_bytes,
        memory_bytes=size_bytes,
        input_bytes=0,
        read_bytes=size_bytes,
        block_bytes=size_bytes * near.block_bytes / near.size_bytes * near.n_layers / layers,
        output_bytes=round(near.output_bytes * scale),
        n_layers=max(round(layers), 1),
        n_params=round(near.n_params * scale),
        n_multiplied=round(near.n_multiplied * scale),
        n_ctx_train=None,
        has_experts=False,
        cache=CacheCost((CacheRows(round(cache), round(n_scored * layers / near.n_layers)),)),
        is_estimate=True,
    )
