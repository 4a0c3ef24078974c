"""A model's anatomy as a page for a terminal of 80 columns, and as data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.gguf.anatomy import Anatomy, LayerSize, Share
from harness.gguf.header import Fetched
from harness.gguf.model_kinds import Kind
from harness.units import format_gb, format_mib, format_params
from harness.views import page

_LAYER_PARTS = ("attention", "ffn", "experts")


@dataclass(frozen=True, slots=True)
class Repacked:
    """Weights of one tensor type that this CPU stores in another layout, and which layout that is."""

    type_name: str
    layout: str
    size_bytes: int


def show_anatomy(
    anatomy: Anatomy,
    label: str,
    *,
    fetched: Fetched | None = None,
    repacked: Sequence[Repacked] | None = None,
    is_computed: bool = False,
) -> str:
    """Lay out all that is known about a model, at most 80 columns wide.

    Parameters
    ----------
    label       : what the user called it; cut from the left where it is too long
    fetched     : the cost of a remote header; None for a local file
    is_computed : the header follows from a shape; no file was read
    repacked    : weights that this CPU repacks, () for none; None where that was not asked, which leaves the section out
    """
    sections = [
        _show_facts(anatomy, label, fetched, is_computed),
        _show_shares("size by tensor type", "type", anatomy.by_type, anatomy.weights_bytes),
        _show_shares("size by part", "part", anatomy.by_part, anatomy.weights_bytes),
        _show_layers(anatomy.layers),
        _show_kv(anatomy),
    ]
    if repacked is not None:
        sections.append(_show_repacked(repacked))
    return "\n\n".join(section for section in sections if section)


def _show_facts(anatomy: Anatomy, label: str, fetched: Fetched | None, is_computed: bool) -> str:
    """Show the lines of a name and a value; a value that the header does not state is left out."""
    known = "" if anatomy.architecture_known else " (unknown to this llama.cpp)"
    bits = "" if anatomy.bits_per_weight is None else f", {anatomy.bits_per_weight:.2f} bits per weight"
    parts = "" if anatomy.n_parts == 1 else f" in {anatomy.n_parts} files"
    active = anatomy.n_params_active
    facts: list[tuple[str, str | None]] = [
        ("name", anatomy.name),
        ("architecture", anatomy.architecture + known),
        ("parameters", format_params(anatomy.n_params)),
        ("", None if active is None else f"{format_params(active)} of them visited by each token"),
        ("file type", (anatomy.file_type or "unknown") + bits),
        (
            "size",
            f"{'~' if is_computed else ''}{format_gb(anatomy.file_bytes)}{parts}, weights {format_mib(anatomy.weights_bytes)}",
        ),
        ("context length", _show_count(anatomy.context_length, "tokens")),
        ("positions", None if anatomy.kind.n_positions is None else f"{anatomy.kind.n_positions} learned ones"),
        ("layers", _show_count(anatomy.n_layers)),
        ("embedding length", _show_count(anatomy.n_embd)),
        ("attention heads", _show_heads(anatomy)),
        ("experts", _show_experts(anatomy)),
        ("output", "shares the token embeddings" if anatomy.tied_output else None),
        ("tokenizer", _show_tokenizer(anatomy)),
        ("chat template", None if is_computed else "yes" if anatomy.has_chat_template else "no"),
        ("computed", "from the catalog's shape; no file was read" if is_computed else None),
        ("synthetic", "yes: random weights, for timing only" if anatomy.synthetic else None),
        ("fetched", None if fetched is None else _show_fetched(fetched)),
    ]
    width = max(len(name) for name, _ in facts) + 2
    lines = [page.cut_start(label, page.width())]
    if anatomy.kind.kind is not Kind.TEXT:
        lines.append(page.fill(anatomy.kind.describe("this file") + ".", rest=""))
    lines += [f"{name:<{width}}{page.cut(value, page.width() - width)}" for name, value in facts if value is not None]
    return "\n".join(lines)


def _show_count(value: int | None, unit: str = "") -> str | None:
    return None if value is None else f"{value} {unit}".rstrip()


def _show_heads(anatomy: Anatomy) -> str | None:
    if anatomy.n_heads is None:
        return None
    heads_kv = anatomy.n_heads_kv or anatomy.n_heads
    return f"{_show_range(anatomy.n_heads)}, {_show_range(heads_kv)} for keys and values"


def _show_range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def _show_experts(anatomy: Anatomy) -> str | None:
    if not anatomy.n_experts:
        return None
    used = f", {_show_range(anatomy.n_experts_used)} used by each token" if anatomy.n_experts_used else ""
    return f"{anatomy.n_experts}{used}"


def _show_tokenizer(anatomy: Anatomy) -> str | None:
    if anatomy.tokenizer is None:
        return None
    pre = f" ({anatomy.tokenizer_pre})" if anatomy.tokenizer_pre else ""
    count = "" if anatomy.vocab_size is None else f", {anatomy.vocab_size} tokens"
    return f"{anatomy.tokenizer}{pre}{count}"


def _show_fetched(fetched: Fetched) -> str:
    plural = "" if fetched.n_requests == 1 else "s"
    return f"{format_mib(fetched.size_bytes)} in {fetched.n_requests} request{plural}"


def _show_shares(title: str, label: str, shares: dict[str, Share], total_bytes: int) -> str:
    rows = [
        (
            name,
            share.n_tensors,
            format_params(share.n_params),
            format_mib(share.size_bytes),
            _percent(share, total_bytes),
        )
        for name, share in shares.items()
    ]
    return _show_table(title, (label, "tensors", "parameters", "size", "share"), rows)


def _percent(share: Share, total_bytes: int) -> str:
    return f"{100 * share.size_bytes / total_bytes:.1f} %" if total_bytes else ""


def _show_layers(layers: Sequence[LayerSize]) -> str:
    """Show one row for all layers that are of the same size in every part; small parts are drawn together."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for layer in layers:
        large = tuple(layer.by_part.get(part, 0) for part in _LAYER_PARTS)
        sizes = (*large, layer.size_bytes - sum(large), layer.size_bytes)
        alike.setdefault(sizes, []).append(layer.layer)
    headers = (*_LAYER_PARTS, "rest", "together")
    shown = [column for column in range(len(headers)) if any(sizes[column] for sizes in alike)]
    rows = [
        (page.cut(_show_numbers(numbers), 16), *(format_mib(sizes[column]) for column in shown))
        for sizes, numbers in alike.items()
    ]
    return _show_table("size of each layer", ("layers", *(headers[column] for column in shown)), rows)


def _show_numbers(numbers: Sequence[int]) -> str:
    """Write ascending numbers with their runs drawn together: ``0-3,7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _show_kv(anatomy: Anatomy) -> str:
    """Show the cache's price for each type: a token's, and the whole for several contexts."""
    title = "cache by type of K and V" if anatomy.attention.states else "KV cache by type of K and V"
    notes = [page.fill(note) for note in anatomy.attention.notes]
    if anatomy.attention.layers is None:
        return "\n".join([title, page.fill(f"not known: {anatomy.attention.reason}"), *notes])
    if not anatomy.attention.layers:
        return "\n".join(["KV cache", "none", *notes])
    rows = [
        (kind.lower(), size, *(format_mib(total) if total is not None else "" for total in anatomy.cache_bytes[kind]))
        for kind, size in anatomy.kv_bytes_per_token.items()
        if size is not None
    ]
    headers = ("type", "bytes per token", *(f"at {n_ctx} tokens" for n_ctx in anatomy.cache_contexts))
    return "\n".join([_show_table(title, headers, rows), *notes])


def _show_repacked(repacked: Sequence[Repacked]) -> str:
    if not repacked:
        return "repacked on this CPU\nnothing"
    rows = [(item.type_name, item.layout, format_mib(item.size_bytes)) for item in repacked]
    return _show_table("repacked on this CPU", ("type", "layout", "size"), rows)


def _show_table(title: str, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    rows = list(rows)
    if not rows:
        return ""
    body = page.table([dict(zip(headers, row, strict=True)) for row in rows], "lr", rule=False)
    return f"{title}\n{body}"


def export_anatomy(
    anatomy: Anatomy,
    label: str,
    *,
    fetched: Fetched | None = None,
    repacked: Sequence[Repacked] | None = None,
    is_computed: bool = False,
) -> dict[str, Any]:
    """Return the same as plain data for JSON: base units, None where the header says nothing or nothing was asked."""
    return {
        "model": label,
        "name": anatomy.name,
        "kind": anatomy.kind.kind.name.lower().replace("_", " "),
        "kind_note": None if anatomy.kind.kind is Kind.TEXT else anatomy.kind.describe("this file"),
        "n_positions": anatomy.kind.n_positions,
        "architecture": anatomy.architecture,
        "architecture_known": anatomy.architecture_known,
        "file_type": anatomy.file_type,
        "n_params": anatomy.n_params,
        "n_params_active": anatomy.n_params_active,
        "weights_bytes": anatomy.weights_bytes,
        "file_bytes": anatomy.file_bytes,
        "bits_per_weight": anatomy.bits_per_weight,
        "n_files": anatomy.n_parts,
        "n_layers": anatomy.n_layers,
        "n_embd": anatomy.n_embd,
        "n_heads": None if anatomy.n_heads is None else list(anatomy.n_heads),
        "n_heads_kv": None if anatomy.n_heads_kv is None else list(anatomy.n_heads_kv),
        "n_experts": anatomy.n_experts,
        "n_experts_used": None if anatomy.n_experts_used is None else max(anatomy.n_experts_used, default=None),
        "context_length": anatomy.context_length,
        "tied_output": anatomy.tied_output,
        "by_type": {name: _export_share(share) for name, share in anatomy.by_type.items()},
        "by_part": {name: _export_share(share) for name, share in anatomy.by_part.items()},
        "layers": [
            {"layer": layer.layer, "size_bytes": layer.size_bytes, "by_part": dict(layer.by_part)}
            for layer in anatomy.layers
        ],
        "kv_bytes_per_token": {kind.lower(): size for kind, size in anatomy.kv_bytes_per_token.items()},
        "kv_unknown_because": anatomy.attention.reason,
        "kv_notes": list(anatomy.attention.notes),
        "cache_bytes": [
            {"n_ctx": n_ctx, **{kind.lower(): sizes[index] for kind, sizes in anatomy.cache_bytes.items()}}
            for index, n_ctx in enumerate(anatomy.cache_contexts)
        ],
        "state_bytes": None if anatomy.attention.layers is None else anatomy.attention.state_bytes,
        "blocks_not_loaded": list(anatomy.attention.skipped),
        "sliding_window_tokens": anatomy.attention.window_tokens,
        "tokenizer": anatomy.tokenizer,
        "tokenizer_pre": anatomy.tokenizer_pre,
        "vocab_size": anatomy.vocab_size,
        "has_chat_template": None if is_computed else anatomy.has_chat_template,
        "computed": is_computed,
        "synthetic": anatomy.synthetic,
        "repacked": None
        if repacked is None
        else [{"type": item.type_name, "layout": item.layout, "size_bytes": item.size_bytes} for item in repacked],
        "fetched": None if fetched is None else {"size_bytes": fetched.size_bytes, "n_requests": fetched.n_requests},
    }


def _export_share(share: Share) -> dict[str, int]:
    return {"n_tensors": share.n_tensors, "n_params": share.n_params, "size_bytes": share.size_bytes}
