"""How many bytes a token reads and how many operations it takes, and how fast that could go at best.

Generating one token reads every active weight once, and the cache of all tokens before it; so a machine that reads B bytes a second
cannot generate more than B / (bytes a token) tokens. A prompt's tokens share the reading, so there arithmetic sets the limit.

Source: S. Williams, A. Waterman, D. Patterson, Roofline, Communications of the ACM 52 (2009) 4.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from harness.catalog import Shape
from harness.theory.gguf import Header
from harness.theory.kv_cache import describe_kv_cache, read_count
from harness.theory.layout import find_quantization, tensor_table
from harness.theory.tensor_types import tensor_type


class Weight(Protocol):
    """A row of a tensor table: of a file's header, or of a layout that was worked out."""

    @property
    def name(self) -> str: ...
    @property
    def n_elements(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Cost:
    """What one token costs in a model.

    size_bytes is all tensors; read_bytes those that one token reads (one row of an embedding that is not the output too, and the
    share of the experts that it visits); block_bytes one layer's part of them, output_bytes the output matrix's. n_multiplied counts
    the weights in matrix products. n_embd_q is the width of all queries. kv_bytes_per_token is None where the cache is not of the
    common kind. is_estimate marks a cost that was guessed from a size alone.
    """

    name: str
    quantization: str
    size_bytes: int
    read_bytes: int
    block_bytes: float
    output_bytes: int
    n_layers: int
    n_params: int
    n_multiplied: int
    n_embd: int
    n_embd_q: int
    n_vocab: int
    kv_bytes_per_token: int | None
    is_estimate: bool = False

    def bytes_per_token(self, depth: float = 0.0) -> float:
        """Bytes that generating one token reads with `depth` tokens in the cache."""
        return self.read_bytes + depth * (self.kv_bytes_per_token or 0)

    def flops_per_token(self, depth: float = 0.0) -> float:
        """Operations of one token: two for each multiplied weight, and queries times keys and weights times values at `depth`."""
        return 2.0 * self.n_multiplied + 4.0 * self.n_embd_q * self.n_layers * depth


def roof_tok_per_s(cost: Cost, bandwidth_bytes_per_s: float, depth: float = 0.0) -> float:
    """The most tokens a second that a bandwidth allows."""
    return bandwidth_bytes_per_s / cost.bytes_per_token(depth)


def prompt_roof_tok_per_s(cost: Cost, flops_per_s: float, n_prompt: int = 0) -> float:
    """The most prompt tokens a second that an arithmetic rate allows; a prompt's tokens look back on half of it on average."""
    return flops_per_s / cost.flops_per_token(n_prompt / 2)


def cost_of_shape(shape: Shape, quantization: str, name: str = "", type_k: str = "f16", type_v: str = "f16") -> Cost:
    """The cost of a model that llama-quantize would make of this shape.

    Raises
    ------
    UsageError : the architecture or quantization is not known here.
    """
    tensors = tensor_table(shape, quantization)
    per_head = [shape.head_dim // kind.block_elements * kind.block_bytes for kind in map(tensor_type, (type_k, type_v))]
    return _add_up(
        tensors,
        name=name,
        quantization=find_quantization(quantization),
        n_layers=shape.block_count,
        n_embd=shape.embedding_length,
        n_embd_q=shape.head_count * shape.head_dim,
        n_vocab=shape.vocab_size,
        expert_share=shape.expert_used_count / shape.expert_count if shape.expert_count else 1.0,
        kv_bytes_per_token=sum(per_head) * shape.head_count_kv * shape.block_count,
    )


def cost_of_header(header: Header, quantization: str, name: str, type_k: str = "f16", type_v: str = "f16") -> Cost:
    """The cost of a model by its file's header.

    Raises
    ------
    HarnessError : a setting has a value that llama.cpp would refuse too.
    """
    experts, used = read_count(header, "expert_count") or 0, read_count(header, "expert_used_count") or 0
    n_embd = read_count(header, "embedding_length") or 0
    embedding = next((tensor for tensor in header.tensors if tensor.name == "token_embd.weight"), None)
    queries = next((tensor for tensor in header.tensors if tensor.name == "blk.0.attn_q.weight"), None)
    return _add_up(
        header.tensors,
        name=name,
        quantization=quantization,
        n_layers=read_count(header, "block_count") or 1,
        n_embd=n_embd,
        n_embd_q=queries.shape[1] if queries and len(queries.shape) > 1 else n_embd,
        n_vocab=embedding.shape[1] if embedding and len(embedding.shape) > 1 else 0,
        expert_share=min(used / experts, 1.0) if experts and used else 1.0,
        kv_bytes_per_token=describe_kv_cache(header).bytes_per_token(type_k, type_v),
    )


def cost_of_size(size_bytes: int, like: Iterable[Cost]) -> Cost:
    """Guess the cost of a dense model of which only the size is known, from models of the same kind of quantization.

    Layers, widths and cache are interpolated between the two models of `like` whose sizes enclose it, in the logarithm; outside they
    are the nearest one's, with the layers in proportion to the cube root of the size (shapes of a family grow in width and in depth).
    """
    from math import log

    known = sorted(like, key=lambda cost: cost.size_bytes)
    below = [cost for cost in known if cost.size_bytes <= size_bytes]
    above = [cost for cost in known if cost.size_bytes > size_bytes]
    if below and above:
        low, high = below[-1], above[0]
        share = log(size_bytes / low.size_bytes) / log(high.size_bytes / low.size_bytes)
        layers = low.n_layers * (high.n_layers / low.n_layers) ** share
        cache = (low.kv_bytes_per_token or 1) * (
            (high.kv_bytes_per_token or 1) / (low.kv_bytes_per_token or 1)
        ) ** share
        near = high if share > 0.5 else low
    else:
        near = below[-1] if below else above[0]
        layers = near.n_layers * (size_bytes / near.size_bytes) ** (1 / 3)
        cache = float(near.kv_bytes_per_token or 0)
    scale = size_bytes / near.size_bytes
    return replace(
        near,
        name="",
        quantization="",
        size_bytes=size_bytes,
        read_bytes=size_bytes,
        block_bytes=size_bytes * near.block_bytes / near.size_bytes * near.n_layers / layers,
        output_bytes=round(near.output_bytes * scale),
        n_layers=max(round(layers), 1),
        n_params=round(near.n_params * scale),
        n_multiplied=round(near.n_multiplied * scale),
        kv_bytes_per_token=round(cache),
        is_estimate=True,
    )


def _add_up(tensors: Iterable[Weight], *, expert_share: float, n_layers: int, **facts: object) -> Cost:
    """Add a tensor table up. Source: llama.cpp's graphs: get_rows of token_embd, mul_mat of 2D weights, mul_mat_id of used experts."""
    rows = list(tensors)
    has_output = any(row.name == "output.weight" for row in rows)
    read = block = 0.0
    output = multiplied = 0
    for row in rows:
        share = expert_share if "_exps" in row.name else 1.0
        if row.name.startswith(("token_embd", "per_layer_token_embd")) and (has_output or row.name[0] == "p"):
            continue  # one row of it is read, which is nothing
        read += row.size_bytes * share
        is_output = row.name in ("output.weight", "token_embd.weight")
        if is_output:
            output += row.size_bytes
        if row.name.startswith("blk."):
            block += row.size_bytes * share
        if row.name.endswith(".weight") and "norm" not in row.name and row.name != "rope_freqs.weight":
            multiplied += round(row.n_elements * share)
    return Cost(
        size_bytes=sum(row.size_bytes for row in rows),
        read_bytes=round(read),
        block_bytes=block / n_layers,
        output_bytes=output,
        n_layers=n_layers,
        n_params=sum(row.n_elements for row in rows),
        n_multiplied=multiplied,
        **facts,  # type: ignore[arg-type]
    )
