"""What Ollama of October 2024 read of a model, and its formulas for llama.cpp's compute buffer, architecture by architecture.

In unsigned integers and with the quirks of ollama v0.3.14 (f2890a449): llm/ggml.go, llm/memory.go. See `harness.memory.ollama_2024`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass

from harness.errors import HarnessError
from harness.gguf.header import ArrayValue, Header, Tensor
from harness.gguf.roles import TOKEN_EMBEDDING
from harness.gguf.settings import read_count
from harness.gguf.types import TENSOR_TYPES, extent, tensor_type

#: Source: api/types.go DefaultOptions.
NUM_BATCH = 512

#: The newest tensor type that these versions can size; later ones count nothing. Source: ggml.go Tensor.typeSize.
_LAST_KNOWN_TYPE = 30

_BLOCK = re.compile(r"blk\.([0-9]+)\.(.+)")


@dataclass(frozen=True, slots=True)
class Figures:
    """What the estimate takes from a model.

    block_bytes has one size a block; output_bytes is the output norm with the output matrix, or with the token embeddings where
    there is none. gate_experts_bytes, gate_expert_rows and qkv_bias_elements are None where blk.0 has no such tensor.
    """

    architecture: str
    n_embd: int
    n_heads: int
    n_heads_kv: int
    head_k: int
    head_v: int
    n_vocab: int
    n_ff: int
    block_bytes: tuple[int, ...]
    output_bytes: int
    gate_experts_bytes: int | None = None
    gate_expert_rows: int | None = None
    qkv_bias_elements: int | None = None
    is_embedder: bool = False
    unsized_types: tuple[str, ...] = ()

    @property
    def n_layers(self) -> int:
        return len(self.block_bytes)

    @property
    def head_dim(self) -> int:
        """EmbeddingHeadCount(): the width of a head where the header states none."""
        return self.n_embd // self.n_heads

    def kv_bytes(self, n_cells: int) -> int:
        """The cache for so many cells, always in F16. Source: memory.go:120-121."""
        return 2 * n_cells * self.n_layers * (self.head_k + self.head_v) * self.n_heads_kv


def read_figures(header: Header) -> Figures:
    """Take from a header what the estimate needs.

    Raises
    ------
    HarnessError : the header lacks a count without which Ollama's own arithmetic stops (blocks, embedding, heads).

    Source: ggml.go type KV; images.go CheckCapabilities (pooling_type marks an embedding model).
    """

    def count(key: str) -> int:
        # A list of one number a layer, which these versions read as 0.
        value = header.hparam(key)
        return 0 if isinstance(value, ArrayValue) else read_count(header, key) or 0

    n_layers, n_embd, n_heads = (count(key) for key in ("block_count", "embedding_length", "attention.head_count"))
    needed = {"block_count": n_layers, "embedding_length": n_embd, "attention.head_count": n_heads}
    if missing := [name for name, value in needed.items() if not value]:
        raise HarnessError(
            f"Ollama's account needs one number for {' and '.join(missing)}, which this header does not state; "
            "those versions of Ollama could not load it either"
        )
    if n_layers > 4096:
        raise HarnessError(f"the header states {n_layers} layers, which no model has; download it again")
    named = {tensor.name: tensor for tensor in header.tensors}
    sizes: dict[str, int] = {}
    for name, tensor in named.items():
        match = _BLOCK.fullmatch(name)
        key = match[1] if match else name.split(".")[0]
        sizes[key] = sizes.get(key, 0) + size_tensor(tensor)
    names = ("ffn_gate_exps.weight", "ffn_gate.0.weight", "attn_qkv.bias")
    gate, gate0, bias = (named.get(f"blk.0.{name}") for name in names)
    tokens, embedding = header.metadata.get("tokenizer.ggml.tokens"), named.get(TOKEN_EMBEDDING)
    rows = extent(embedding.shape, 1) if embedding else 0
    return Figures(
        architecture=header.architecture,
        n_embd=n_embd,
        n_heads=n_heads,
        n_heads_kv=count("attention.head_count_kv") or 1,
        head_k=count("attention.key_length") or n_embd // n_heads,
        head_v=count("attention.value_length") or n_embd // n_heads,
        n_vocab=tokens.length if isinstance(tokens, ArrayValue) else rows,
        n_ff=count("feed_forward_length"),
        block_bytes=_block_sizes(sizes, n_layers),
        output_bytes=sizes.get("output_norm", 0) + sizes.get("output", sizes.get("token_embd", 0)),
        gate_experts_bytes=None if gate is None else size_tensor(gate),
        gate_expert_rows=None if gate0 is None else extent(gate0.shape, 1),
        qkv_bias_elements=None if bias is None else extent(bias.shape, 0),
        is_embedder=header.hparam("pooling_type") is not None,
        unsized_types=tuple(sorted({t.type_name for t in named.values() if not _is_sized(t)})),
    )


def _block_sizes(sizes: dict[str, int], n_layers: int) -> tuple[int, ...]:
    """One size a block; a block without tensors counts as the one before it (memory.go:198: layerSize stays)."""
    blocks = itertools.accumulate(range(n_layers), lambda last, index: sizes.get(str(index), last), initial=0)
    return tuple(blocks)[1:]


def _is_sized(tensor: Tensor) -> bool:
    return tensor_type(tensor.type_name).type_id <= _LAST_KNOWN_TYPE


def size_tensor(tensor: Tensor) -> int:
    """Bytes as Ollama counts them: nothing for a type that it does not know. Source: ggml.go Tensor.Size."""
    kind = TENSOR_TYPES[tensor_type(tensor.type_name).type_id]
    return tensor.n_elements * kind.block_bytes // kind.block_elements if _is_sized(tensor) else 0


@dataclass(frozen=True, slots=True)
class GraphSize:
    """Bytes that Ollama expects of llama.cpp's compute buffer on the device, with some layers on the CPU and with none."""

    partial_bytes: int
    full_bytes: int
    has_formula: bool


def size_graph(figures: Figures, n_cells: int, *, library: str = "cuda") -> GraphSize:
    """Estimate the compute buffer for a context of n_cells (num_ctx × parallel).

    Architectures without a formula of their own get a sixth of the cache times the heads that share one key. Flash attention is
    not considered: the matrix of scores is charged in any case.

    Source: ggml.go GraphSize; memory.go:123-137.
    """
    batch = min(n_cells, NUM_BATCH)
    formula = _GRAPHS.get(figures.architecture)
    partial, full = formula(figures, n_cells, batch) if formula else (0, 0)
    if partial == 0:
        partial = figures.n_heads // figures.n_heads_kv * figures.kv_bytes(n_cells) // 6
    if full == 0:
        full = partial
    return GraphSize(full if library == "metal" else partial, full, formula is not None)


def _graph_llama(f: Figures, c: int, b: int) -> tuple[int, int]:
    """(partial, full) in bytes for a context of c cells and a batch of b tokens. Source: ggml.go:365-399."""
    e, h, kv, v = f.n_embd, f.n_heads, f.n_heads_kv, f.n_vocab
    full = max(4 * b * (1 + 4 * e + c * (1 + h)), 4 * b * (e + v))
    attention = 4 * b * (1 + e + max(c, e)) + e * e * 9 // 16 + 4 * c * (b * h + f.head_dim * kv)
    partial = 4 * b * e + max(attention, 4 * b * (e + v) + e * v * 105 // 128)
    if f.gate_experts_bytes is not None:
        partial = max(
            3 * f.gate_experts_bytes + 4 * b * (2 * f.n_ff + kv + e + c + f.head_dim * kv),
            4 * (c * b * h + c * f.head_dim * kv + b * 1024 + f.head_dim * kv * b),
        )
    elif f.gate_expert_rows is not None:
        rows = f.gate_expert_rows
        full = 4 * b * (2 + 3 * e + c * (1 + h) + 2 * kv + rows)
        partial = max(
            4 * b * (3 + f.head_dim * kv + e + c * (1 + h) + rows) + (e * e + 3 * e * kv * rows) * 9 // 16,
            4 * b * (1 + 2 * e + c * (1 + h)) + e * (6 * c * kv // h + e * 9 // 16),
        )
    return partial, full


def _graph_gemma(f: Figures, c: int, b: int) -> tuple[int, int]:
    e, h, heads = f.n_embd, f.n_heads, f.head_k * f.n_heads
    attention = 4 * b * (2 * e + 1 + 2 * heads + c + c * h) + 4 * f.head_k * c * 8 + e * heads * 9 // 16
    return _or_output(f, b, attention, 4 * b * (2 + c + c * h + 2 * e + 2 * heads))


def _graph_command_r(f: Figures, c: int, b: int) -> tuple[int, int]:
    e, h = f.n_embd, f.n_heads
    attention = 4 * b * (1 + 2 * e + c * (1 + h)) + 4 * e * c + e * e * 9 // 16
    return _or_output(f, b, attention, 4 * b * (2 + 4 * e + c * (1 + h)))


def _graph_qwen2(f: Figures, c: int, b: int) -> tuple[int, int]:
    e, h = f.n_embd, f.n_heads
    attention = 4 * (b * (1 + 2 * e + c * (1 + h)) + e * (1 + c))
    return _or_output(f, b, attention, 4 * b * (1 + 2 * e + c + c * h))


def _graph_phi2(f: Figures, c: int, b: int) -> tuple[int, int]:
    e, scores = f.n_embd, c + c * f.n_heads
    partial, _ = _or_output(f, b, 4 * b * (2 + 3 * e + scores), 0, rows=2)
    return partial, _or_output(f, b, 0, 4 * b * (1 + 4 * e + scores))[1]


def _graph_stablelm(f: Figures, c: int, b: int) -> tuple[int, int]:
    full = 4 * b * (c * (1 + f.n_heads) + 3 * f.n_embd + 2)
    return max(4 * b * (f.n_vocab + 2 * f.n_embd), full), full


def _graph_deepseek2(f: Figures, c: int, b: int) -> tuple[int, int]:
    e, kv, heads = f.n_embd, f.n_heads_kv, f.head_k * f.n_heads_kv
    attention = 4 * b * (2 * e + 1 + 2 * heads + c + c * kv) + 4 * f.head_k * c * kv + e * heads * 9 // 16
    return _or_output(f, b, attention, 4 * b * (3 * e + 2 + c * (1 + kv) + 2 * heads), rows=3)


def _graph_chatglm(f: Figures, c: int, b: int) -> tuple[int, int]:
    e, h, heads, bias = f.n_embd, f.n_heads, f.head_k * f.n_heads, f.qkv_bias_elements
    if bias is None:
        return _or_output(f, b, 0, 0)
    attention = 4 * b * (1 + 2 * e + heads + c + c * h) + 4 * f.head_k * c + 4 * c * f.head_k + 4 * bias
    return _or_output(f, b, attention, 4 * b * (2 + 2 * e + c + c * h + heads + bias))


def _or_output(f: Figures, b: int, partial: int, full: int, *, rows: int = 1) -> tuple[int, int]:
    """Both sizes, or what the output takes where that is more: the logits beside so many rows of activations, and the converted matrix
    where it lies on the CPU."""
    output = 4 * b * (rows * f.n_embd + f.n_vocab)
    return max(partial, output + f.n_embd * f.n_vocab * 105 // 128), max(full, output)


#: The architectures with a formula. Source: ggml.go GraphSize's cases.
_GRAPHS: dict[str, Callable[[Figures, int, int], tuple[int, int]]] = {
    "llama": _graph_llama,
    "gemma": _graph_gemma,
    "gemma2": _graph_gemma,
    "command-r": _graph_command_r,
    "qwen2": _graph_qwen2,
    "phi2": _graph_phi2,
    "stablelm": _graph_stablelm,
    "deepseek2": _graph_deepseek2,
    "chatglm": _graph_chatglm,
}
