"""Ollama's account of a model as a Document that says what each part of SIZE is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from harness.memory.causes import Part
from harness.memory.ollama_2024 import AUTOMATIC, VERSIONS, Account, Estimate, format_ollama
from harness.memory.ollama_graph import NUM_BATCH
from harness.views.document import Column, Document, Figure, KeyFigures, Prose, Row, Section, Table
from harness.views.values import BYTES, BYTES_ALONE, ROUND_SHARE, format_value

#: Sizes as they were compared: to the byte.

#: What stands behind each term's bytes: the model's weights, what llama.cpp allocates, a flat figure that stands in for what the
#: driver allocates, a margin that nobody allocates, a rounding.
KINDS = {
    "block_bytes": "weights",
    "output_bytes": "weights",
    "projector_bytes": "weights",
    "kv_bytes": "allocated",
    "graph_bytes": "allocated",
    "minimum_bytes": "stand-in",
    "buffer_layer_bytes": "margin",
    "uneven_bytes": "rounding",
}


def describe_account(
    account: Account, label: str, *, file_bytes: int | None = None, synthetic: bool = False
) -> Document:
    """Explain SIZE; for programs all of it is in the object ``ollama_2024``.

    Parameters
    ----------
    label      : what the user calls the model
    file_bytes : size of the file on disk, to say what SIZE adds to it; None where there is none
    """
    sentences = list(_explain(account, file_bytes))
    if synthetic:
        sentences.append("The model is synthetic: its shape and its bytes are real, its weights are random.")
    if account.chosen.library == "cpu":
        sentences.append("Nothing is on a GPU here; SIZE was expected of main memory, and nothing checked it.")
    title = f"Ollama's account of {label} ({VERSIONS}, October 2024)"
    section = Section(title, [_show_answer(account), _show_terms(account), *(Prose([text]) for text in sentences)])
    return Document("ollama-2024", 1, "", [section], data={"ollama_2024": export_account(account)})


def export_account(account: Account) -> dict[str, Any]:
    """Turn an account into the value of ``ollama_2024``; terms add up to size_bytes."""
    chosen = account.chosen
    return {
        "versions": VERSIONS,
        **_export_estimate(chosen),
        "terms": dataclasses.asdict(chosen.terms),
        "term_kinds": KINDS,
        "graph_full_bytes": chosen.graph.full_bytes,
        "graph_partial_bytes": chosen.graph.partial_bytes,
        "graph_has_formula": chosen.graph.has_formula,
        "asked": dataclasses.asdict(account.request),
        "one_slot": _export_estimate(account.one_slot),
        "fits_entirely_above_free_bytes": {str(n): size for n, size in account.needed_free_bytes.items()},
    }


def _export_estimate(found: Estimate) -> dict[str, Any]:
    graph = {"graph_bytes": found.terms.graph_bytes if found.layers else 0}
    whole = {name: getattr(found, name) for name in ("size_vram_bytes", "size_bytes", "size", "processor")}
    counts = {"layers": found.layers, "layers_model": found.n_layers_model, "parallel": found.parallel}
    return counts | {"n_cells": found.n_cells, "library": found.library} | graph | whole


def ollama_parts(account: Account) -> dict[str, int]:
    """SIZE by the parts of the memory ledger's picture, those of its own beside them."""
    terms = account.chosen.terms
    return {
        Part.WEIGHTS.legend: terms.block_bytes + terms.output_bytes + terms.projector_bytes,
        Part.CACHE.legend: terms.kv_bytes,
        Part.COMPUTE.legend: terms.graph_bytes,
        "CUDA context (a flat guess)": terms.minimum_bytes,
        "margin that nobody allocates": terms.buffer_layer_bytes + terms.uneven_bytes,
    }


def _show_answer(account: Account) -> KeyFigures:
    chosen, request = account.chosen, account.request
    asked = "chosen by Ollama" if request.parallel is None else "asked for"
    slots = f"{chosen.parallel} slot{'s' if chosen.parallel > 1 else ''}, {asked}"
    free = "enough for everything" if request.free_vram_bytes is None else request.free_vram_bytes
    is_split = 0 < chosen.size_vram_bytes < chosen.size_bytes
    figures = [
        Figure("size", "SIZE", f"{chosen.size}  ({format_value(chosen.size_bytes, BYTES_ALONE)})"),
        Figure("processor", "PROCESSOR", chosen.processor),
        Figure("layers", "layers", f"{chosen.layers} of {chosen.n_layers_model} on the GPU, the output counted as one"),
        Figure("context", "context", f"{chosen.n_cells} cells = num_ctx {chosen.n_cells // chosen.parallel} x {slots}"),
        Figure("free_vram", "free VRAM", None if chosen.library == "cpu" else free, BYTES_ALONE),
        Figure("num_gpu", "num_gpu", None if request.num_gpu == AUTOMATIC else request.num_gpu),
        Figure("size_vram", "of it, GPU", chosen.size_vram_bytes if is_split else None, BYTES_ALONE),
    ]
    return KeyFigures(figures, name="ollama_2024")


def _show_terms(account: Account) -> Table:
    """One line a term with its bytes and what it is; terms that were left out are not shown."""
    rows: list[Any] = [list(row) for row in _describe_terms(account) if row[1]]
    rows.append(Row(["SIZE", account.chosen.size_bytes, account.chosen.size], is_total=True))
    columns = [Column("term"), Column("size", "bytes", BYTES_ALONE), Column("meaning", "what it is", wraps=True)]
    return Table("ollama_2024_terms", columns, rows)


def _describe_terms(account: Account) -> tuple[tuple[str, int, str], ...]:
    chosen, terms = account.chosen, account.chosen.terms
    slots = f"{chosen.parallel} x {chosen.n_cells // chosen.parallel}"
    nobody = ", four conversations" if chosen.parallel == 4 and account.request.parallel is None else ""
    batch = min(chosen.n_cells, NUM_BATCH)
    where = "CUDA context" if chosen.library == "cuda" else f"{chosen.library} context"
    return (
        ("block weights", terms.block_bytes, "the model's own"),
        ("output layer", terms.output_bytes, "the model's own"),
        ("projector", terms.projector_bytes, "the model's own, always on the GPU"),
        ("KV cache, f16", terms.kv_bytes, f"allocated: {slots} cells{nobody}"),
        ("compute graph", terms.graph_bytes, f"allocated: scratch, {batch} tokens by {chosen.n_cells} cells"),
        (where, terms.minimum_bytes, "real, but guessed: a flat figure for any card"),
        ("buffer layer", terms.buffer_layer_bytes, "a margin: nobody ever allocates it"),
        ("uneven layers", terms.uneven_bytes, "rounding: CPU layers count as large as the last"),
    )


def _explain(account: Account, file_bytes: int | None) -> Iterator[str]:
    chosen, one = account.chosen, account.one_slot
    yield (
        "SIZE is what Ollama expected before it loaded the model, from the header alone. It is not a measurement, and nothing "
        "compared it with what was allocated afterwards."
    )
    if file_bytes is not None and chosen.is_complete:
        yield _explain_overhead(account, file_bytes)
    if chosen.parallel > 1:
        who = (
            "Nobody asked for them: with OLLAMA_NUM_PARALLEL unset, Ollama made room for four conversations at once and said so "
            "nowhere. "
            if account.request.parallel is None
            else ""
        )
        yield (
            f"The cache and the scratch are for {chosen.parallel} slots of {chosen.n_cells // chosen.parallel} tokens. {who}"
            f"With one slot SIZE is {one.size} ({one.size_bytes:,} bytes), {BYTES.form(chosen.size_bytes - one.size_bytes)} less."
        )
    elif account.request.parallel is None and 4 in account.needed_free_bytes:
        yield "Four slots did not fit, so Ollama went on with one."
    yield from _explain_margins(chosen)
    yield from _explain_thresholds(account)
    if chosen.library != "cpu":
        yield (
            f"Caution: if {chosen.size} that somebody reports was read off a GPU monitor and not off `ollama ps`, the agreement is "
            "partly a coincidence. A monitor shows what is allocated: not the buffer layer, the real context instead of the flat "
            "figure, and everything else that uses the card."
        )
    yield from _warn(account)


def _explain_overhead(account: Account, file_bytes: int) -> str:
    terms = account.chosen.terms
    parts = [
        ("scratch", terms.graph_bytes),
        ("cache", terms.kv_bytes),
        ("context", terms.minimum_bytes),
        ("margin", terms.buffer_layer_bytes),
    ]
    added = " + ".join(f"{name} {BYTES.form(size)}" for name, size in parts if size)
    left = file_bytes - terms.block_bytes - terms.output_bytes
    rest = f", less {BYTES.form(left)} of the file that never goes to the GPU (header, tokenizer" if left > 0 else ""
    rest += ", token embeddings)" if left > file_bytes / 50 else ")" if rest else ""
    return (
        f"The file has {file_bytes:,} bytes ({format_ollama(file_bytes)} to Ollama). "
        f"SIZE is {BYTES.form(account.chosen.size_bytes - file_bytes)} "
        f"more: {added}{rest}."
    )


def _explain_margins(chosen: Estimate) -> Iterator[str]:
    terms = chosen.terms
    if terms.buffer_layer_bytes:
        share = terms.buffer_layer_bytes / chosen.size_bytes
        yield (
            f"The buffer layer ({format_value(share, ROUND_SHARE)} of SIZE) is one more block with its cache, added for safety. "
            "The scratch is charged with the whole matrix of attention scores, also where flash attention never builds it."
        )
    if 0 < chosen.layers < chosen.n_layers_model:
        yield (
            "PROCESSOR divides these expected bytes; it does not say which share of the work is done where. Layers on the CPU are "
            "read at the speed of main memory, so the token takes as long as they do."
        )


def _explain_thresholds(account: Account) -> Iterator[str]:
    if not account.needed_free_bytes:
        return
    parts = [
        f"above {size:,} bytes of free VRAM ({BYTES.form(size)}) with {slots} slot{'s' if slots > 1 else ''}"
        for slots, size in account.needed_free_bytes.items()
    ]
    yield f"All of it goes to the GPU {', '.join(parts)}; below, part of it stays on the CPU."


def _warn(account: Account) -> Iterator[str]:
    figures, request = account.figures, account.request
    if not account.chosen.graph.has_formula:
        yield (
            f"These versions had no formula for the scratch of {figures.architecture!r} models; they took a sixth of the cache "
            "times the heads that share a key."
        )
    if figures.unsized_types:
        yield (
            f"These versions did not know {', '.join(figures.unsized_types)} and counted such tensors as nothing; they could not "
            "have run this file."
        )
    if request.num_gpu > figures.n_layers + 1:
        yield (
            f"num_gpu {request.num_gpu} is more than the {figures.n_layers + 1} layers there are, so no number of slots ever counted "
            "as a full fit, and Ollama fell back to one."
        )
    elif 0 < request.num_gpu <= figures.n_layers:
        yield "With num_gpu set, these versions left the output layer out of SIZE unless num_gpu reached it."
    if account.request.gpu_overhead_bytes > (account.request.free_vram_bytes or 0) > 0:
        yield "OLLAMA_GPU_OVERHEAD exceeds the free VRAM: in these versions the difference wrapped around to plenty."
