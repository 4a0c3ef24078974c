"""What a model is made of, by its header alone: parameters and bytes by type and by part, cache, context, tokenizer."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from harness.gguf.attention import describe_attention
from harness.gguf.blocks import loaded_tensors
from harness.gguf.caches import Attention, Context
from harness.gguf.cost import read_weights
from harness.gguf.header import ArrayValue, Header, Tensor
from harness.gguf.model_kinds import KNOWN_ARCHITECTURES, FileKind, find_kind
from harness.gguf.roles import OUTPUT, PARTS, TOKEN_EMBEDDING, find_role
from harness.gguf.settings import read_count, read_per_layer
from harness.gguf.types import FILE_TYPES
from harness.spec import CACHE_TYPES

#: llama.cpp's old default, and what longer conversations and documents take.
COMMON_CONTEXTS = (4096, 32768)


@dataclass(frozen=True, slots=True)
class Share:
    """Some of a model's tensors, counted: how many, their elements and bytes."""

    n_tensors: int = 0
    n_params: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class LayerSize:
    """Bytes of one layer by part (the keys are from `PARTS`)."""

    layer: int
    size_bytes: int
    by_part: dict[str, int]


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What `harness inspect` tells about a model; None is what the header does not say.

    n_params counts every element of every tensor in the file, as llama_model_n_params does: an output that shares the
    token embeddings (tied_output) counts once. n_params_active leaves out the experts that a token does not visit, and blocks that
    are not loaded. cache_bytes has keys, values and states for each of cache_contexts, by type.
    """

    kind: FileKind
    architecture: str
    architecture_known: bool
    name: str | None
    file_type: str | None
    n_params: int
    n_params_active: int | None
    weights_bytes: int
    file_bytes: int
    bits_per_weight: float | None
    n_layers: int | None
    n_embd: int | None
    n_heads: tuple[int, ...] | None
    n_heads_kv: tuple[int, ...] | None
    n_experts: int | None
    n_experts_used: tuple[int, ...] | None
    context_length: int | None
    tied_output: bool
    by_type: dict[str, Share]
    by_part: dict[str, Share]
    layers: tuple[LayerSize, ...]
    attention: Attention
    kv_bytes_per_token: dict[str, int | None]
    cache_contexts: tuple[int, ...]
    cache_bytes: dict[str, tuple[int | None, ...]]
    tokenizer: str | None
    tokenizer_pre: str | None
    vocab_size: int | None
    has_chat_template: bool
    synthetic: bool
    n_parts: int


def describe_model(header: Header) -> Anatomy:
    """Take a model apart by its header.

    Raises
    ------
    HarnessError : a setting has a value that llama.cpp would refuse too.

    Source: src/llama-model-loader.cpp (n_elements, n_bytes, bits per weight), src/llama-model.cpp load_hparams.
    """
    n_params = sum(tensor.n_elements for tensor in header.tensors)
    weights_bytes = sum(tensor.size_bytes for tensor in header.tensors)
    by_part = _group((find_role(tensor.name).part, tensor) for tensor in header.tensors)
    n_layers = read_count(header, "block_count")
    attention = describe_attention(header)
    contexts = choose_contexts(read_count(header, "context_length"))
    n_experts = read_count(header, "expert_count")
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    active = None
    if n_experts and "experts" in by_part:  # what one token visits, and the tables of which it reads a row
        unread = sum((1 - read.share) * read.tensor.n_elements for read in read_weights(header) if read.share < 1)
        active = round(sum(tensor.n_elements for tensor in loaded_tensors(header)) - unread)
    return Anatomy(
        kind=find_kind(header),
        architecture=header.architecture,
        architecture_known=header.architecture in KNOWN_ARCHITECTURES,
        name=_text(header, "general.name"),
        file_type=name_file_type(header),
        n_params=n_params,
        n_params_active=active,
        weights_bytes=weights_bytes,
        file_bytes=header.size_bytes,
        bits_per_weight=8 * weights_bytes / n_params if n_params else None,
        n_layers=n_layers,
        n_embd=read_count(header, "embedding_length"),
        n_heads=_read_layers(header, "attention.head_count", n_layers),
        n_heads_kv=_read_layers(header, "attention.head_count_kv", n_layers),
        n_experts=n_experts,
        n_experts_used=_read_layers(header, "expert_used_count", n_layers),
        context_length=read_count(header, "context_length"),
        tied_output=header.find_tensor(TOKEN_EMBEDDING) is not None and header.find_tensor(OUTPUT) is None,
        by_type=_group((tensor.type_name, tensor) for tensor in header.tensors),
        by_part={part: by_part[part] for part in PARTS if part in by_part},
        layers=_measure_layers(header.tensors),
        attention=attention,
        kv_bytes_per_token={kind.upper(): attention.bytes_per_token(kind) for kind in CACHE_TYPES},
        cache_contexts=contexts,
        cache_bytes={
            kind.upper(): tuple(attention.size_bytes(Context(n_ctx, kind, kind)) for n_ctx in contexts)
            for kind in CACHE_TYPES
        },
        tokenizer=_text(header, "tokenizer.ggml.model"),
        tokenizer_pre=_text(header, "tokenizer.ggml.pre"),
        vocab_size=tokens.length if isinstance(tokens, ArrayValue) else read_count(header, "vocab_size"),
        has_chat_template=any(key.startswith("tokenizer.chat_template") for key in header.metadata),
        synthetic=header.is_synthetic,
        n_parts=max(len(header.parts), 1),
    )


def choose_contexts(n_ctx_train: int | None) -> tuple[int, ...]:
    """The contexts for which a cache's size is worth telling: common ones, up to what the model was trained for, and that."""
    most = n_ctx_train or 0
    return (*(n_ctx for n_ctx in COMMON_CONTEXTS if n_ctx < most), *([most] if most else []))


def name_file_type(header: Header) -> str | None:
    """Name the file's quantization as llama.cpp prints it; guessed by the most frequent tensor type if not stated."""
    stated = header.metadata.get("general.file_type")
    if isinstance(stated, int) and not isinstance(stated, bool):
        known = FILE_TYPES.get(stated & ~1024)
        return known.title if known else f"unknown file type {stated}"
    if not header.tensors:
        return None
    most_frequent, _ = Counter(tensor.type_name for tensor in header.tensors).most_common(1)[0]
    return f"(guessed) {most_frequent}"


def _group(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Share]:
    """Count tensors by label, the largest label first."""
    shares: dict[str, Share] = {}
    for label, tensor in tensors:
        old = shares.get(label, Share())
        shares[label] = Share(old.n_tensors + 1, old.n_params + tensor.n_elements, old.size_bytes + tensor.size_bytes)
    return dict(sorted(shares.items(), key=lambda item: -item[1].size_bytes))


def _measure_layers(tensors: Iterable[Tensor]) -> tuple[LayerSize, ...]:
    """Add up each layer's bytes by part; a model with encoder and decoder has both under one number."""
    layers: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for tensor in tensors:
        if (role := find_role(tensor.name)).block is not None:
            layers[role.block][role.part] += tensor.size_bytes
    return tuple(
        LayerSize(index, sum(by_part.values()), {part: by_part[part] for part in PARTS if part in by_part})
        for index, by_part in sorted(layers.items())
    )


def _read_layers(header: Header, key: str, n_layers: int | None) -> tuple[int, ...] | None:
    if n_layers is None:
        return None
    value: Any = header.hparam(key)
    # One number stands for all layers; it is not repeated here, for block_count may be a lie of 2^32.
    n_items = n_layers if isinstance(value, ArrayValue) else 1
    return tuple(read_per_layer(header, key, n_items) or ()) or None


def _text(header: Header, key: str) -> str | None:
    value = header.metadata.get(key)
    return value if isinstance(value, str) else None
