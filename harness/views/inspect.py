"""A model's anatomy as a Document."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from harness.gguf.anatomy import Anatomy, LayerSize, Share
from harness.gguf.model_kinds import Kind
from harness.runs.inspection import Inspection
from harness.views.document import Block, Cell, Column, Document, Figure, KeyFigures, Line, Prose, Section, Table
from harness.views.values import BYTES, COUNT, PARAMS, RATIO, SHARE, Unit

#: One number for all layers, or the least and the most.
_RANGE = Unit("", lambda counts: str(min(counts)) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}")
_TOKENS = Unit("", lambda count: f"{count} tokens")
_TIED = Unit("", lambda is_tied: "shares the token embeddings" if is_tied else "has weights of its own")

_LAYER_PARTS = ("attention", "ffn", "experts")

#: Layers of one size that are named before the rest of their numbers is cut off.
_NUMBERS_WIDTH = 16


def describe_inspection(inspection: Inspection) -> Document:
    """All that is known about a model by its header."""
    anatomy = inspection.anatomy
    sections = [
        Section("", list(_facts(inspection))),
        Section("size by tensor type", [_shares("by_type", "type", anatomy.by_type, anatomy)]),
        Section("size by part", [_shares("by_part", "part", anatomy.by_part, anatomy)]),
        Section("size of each layer", [_layers(anatomy.layers)] if anatomy.layers else []),
        Section(_title_of_cache(anatomy), list(_cache(anatomy))),
    ]
    if inspection.repacked is not None:
        sections.append(Section("repacked on this CPU", [_repacked(inspection)]))
    notes = [inspection.note] if inspection.note else []
    return Document("inspect", 2, inspection.label, sections, notes, _data(inspection))


def _facts(inspection: Inspection) -> Iterator[Block]:
    anatomy, fetched = inspection.anatomy, inspection.fetched
    is_text, computed = anatomy.kind.kind is Kind.TEXT, inspection.is_computed
    if not is_text:
        yield Prose([anatomy.kind.describe("this file") + "."])
    unknown = () if anatomy.architecture_known else ("This llama.cpp does not know it.",)
    yield KeyFigures(
        [
            Figure("name", "name", anatomy.name),
            Figure("architecture", "architecture", Cell(anatomy.architecture, notes=unknown)),
            Figure("n_params", "parameters", anatomy.n_params, PARAMS),
            Figure("n_params_active", "visited by a token", anatomy.n_params_active, PARAMS),
            Figure("file_type", "file type", anatomy.file_type or "unknown"),
            Figure("bits_per_weight", "bits per weight", anatomy.bits_per_weight, RATIO),
            Figure("file_bytes", "size", Cell(anatomy.file_bytes, is_approximate=computed), BYTES),
            Figure("n_files", "files", anatomy.n_parts, is_shown=anatomy.n_parts > 1),
            Figure("weights_bytes", "weights", anatomy.weights_bytes, BYTES),
            Figure("context_length", "context length", anatomy.context_length, _TOKENS),
            Figure("n_positions", "learned positions", anatomy.kind.n_positions),
            Figure("n_layers", "layers", anatomy.n_layers),
            Figure("n_embd", "embedding length", anatomy.n_embd),
            Figure("n_heads", "attention heads", anatomy.n_heads, _RANGE),
            Figure("n_heads_kv", "for keys, values", anatomy.n_heads_kv or anatomy.n_heads, _RANGE),
            Figure("n_experts", "experts", anatomy.n_experts or None),
            Figure("n_experts_used", "used by a token", anatomy.n_experts_used or None, _RANGE),
            Figure("tied_output", "output", anatomy.tied_output, _TIED, is_shown=anatomy.tied_output),
            Figure("tokenizer", "tokenizer", anatomy.tokenizer),
            Figure("tokenizer_pre", "splits words as", anatomy.tokenizer_pre),
            Figure("vocab_size", "vocabulary", anatomy.vocab_size, _TOKENS),
            Figure("has_chat_template", "chat template", None if computed else anatomy.has_chat_template),
            Figure("computed", "computed", computed, _WHENCE, is_shown=computed),
            Figure("synthetic", "synthetic", anatomy.synthetic, _RANDOM, is_shown=anatomy.synthetic),
            Figure("fetched", "fetched", fetched.size_bytes if fetched else None, BYTES),
            Figure("n_requests", "in requests", fetched.n_requests if fetched else None),
        ]
    )


_WHENCE = Unit("", lambda _: "from the catalog's shape; no file was read")
_RANDOM = Unit("", lambda _: "yes: random weights, for timing only")


def _shares(name: str, label: str, shares: dict[str, Share], anatomy: Anatomy) -> Table:
    columns = [
        Column(label), Column("n_tensors", "tensors", COUNT), Column("n_params", "parameters", PARAMS),
        Column("size", "size", BYTES), Column("share", "share", SHARE),
    ]  # fmt: skip
    total = anatomy.weights_bytes
    rows = [
        [key, share.n_tensors, share.n_params, share.size_bytes, share.size_bytes / total if total else None]
        for key, share in shares.items()
    ]
    return Table(name, columns, rows)


def _layers(layers: Sequence[LayerSize]) -> Table:
    """One row for all layers that are of the same size in every part; small parts are drawn together."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for layer in layers:
        large = tuple(layer.by_part.get(part, 0) for part in _LAYER_PARTS)
        alike.setdefault((*large, layer.size_bytes - sum(large), layer.size_bytes), []).append(layer.layer)
    names = (*_LAYER_PARTS, "rest", "together")
    columns = [Column("layers", align="l"), *(Column(name, unit=BYTES) for name in names)]
    rows: list[Line] = [[_name_numbers(numbers), *(size or None for size in sizes)] for sizes, numbers in alike.items()]
    return Table("layer_sizes", columns, rows)


def _name_numbers(numbers: Sequence[int]) -> str:
    """Ascending numbers with their runs drawn together, ``0-3,7``, and cut off where they are many."""
    grouped = itertools.groupby(enumerate(numbers), key=lambda item: item[1] - item[0])
    runs = [[number for _, number in run] for _, run in grouped]
    text = ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return text if len(text) <= _NUMBERS_WIDTH else text[: _NUMBERS_WIDTH - 1] + "…"


def _title_of_cache(anatomy: Anatomy) -> str:
    if anatomy.attention.layers == () and not anatomy.attention.states:
        return "KV cache"
    return "cache by type of K and V" if anatomy.attention.states else "KV cache by type of K and V"


def _cache(anatomy: Anatomy) -> Iterator[Block]:
    """The cache's price for each type: a token's, and the whole for several contexts."""
    attention = anatomy.attention
    if attention.layers is None:
        yield Prose([f"not known: {attention.reason}"])
    elif not attention.layers:
        yield Prose(["none"])
    else:
        contexts = anatomy.cache_contexts
        columns = [Column("type"), Column("per_token", "bytes per token", _BARE)]
        columns += [Column(f"at_{n_ctx}", f"at {n_ctx} tokens", BYTES) for n_ctx in contexts]
        sizes = anatomy.kv_bytes_per_token.items()
        rows: list[Line] = [
            [kind.lower(), size, *anatomy.cache_bytes[kind]] for kind, size in sizes if size is not None
        ]
        yield Table("cache", columns, rows)
    if attention.notes:
        yield Prose(attention.notes)


_BARE = Unit("bytes", str)


def _repacked(inspection: Inspection) -> Block:
    columns = [Column("type"), Column("layout"), Column("size", "size", BYTES)]
    rows: list[Line] = [[item.type_name, item.layout, item.size_bytes] for item in inspection.repacked or ()]
    return Table("repacked", columns, rows) if rows else Prose(["nothing"])


def _data(inspection: Inspection) -> dict[str, Any]:
    anatomy = inspection.anatomy
    kind, attention = anatomy.kind, anatomy.attention
    nothing = {} if inspection.repacked else {"repacked": inspection.repacked}  # not asked, or none
    return {
        **nothing,
        "model": inspection.label,
        "model_kind": kind.kind.name.lower().replace("_", " "),
        "architecture_known": anatomy.architecture_known,
        "layers": anatomy.layers,
        "kv_unknown_because": attention.reason,
        "kv_notes": attention.notes,
        "cache_bytes": [
            {"n_ctx": n_ctx, **{name.lower(): sizes[index] for name, sizes in anatomy.cache_bytes.items()}}
            for index, n_ctx in enumerate(anatomy.cache_contexts)
        ],
        "state_bytes": None if attention.layers is None else attention.state_bytes,
        "blocks_not_loaded": attention.skipped,
        "sliding_window_tokens": attention.window_tokens,
    }
