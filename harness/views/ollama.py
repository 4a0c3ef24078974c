"""Ollama and a direct measurement side by side, and what the gap is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.records.statistics import median, median_interval
from harness.records.text import rate
from harness.runs.ollama_task import Comparison, Round
from harness.sources.ollama_server import default_slots, parse_version
from harness.units import format_duration, format_gb, format_rate
from harness.untrusted import harmless
from harness.views import page

#: A figure of one round: of Ollama's (None without a server), and of this side.
_Pick = Callable[[Round], "float | None"]


def render_comparison(comparison: Comparison) -> str:
    """Heading, table, what the gap is made of, cautions."""
    return "\n".join([*_heading(comparison), "", _table(comparison), "", *_gap(comparison), *_notes(comparison)]) + "\n"


def _heading(comparison: Comparison) -> list[str]:
    task, first = comparison.task, comparison.rounds[0].direct
    size = f", {format_gb(first.model.file_size_bytes)}" if first.model else ""
    ollama = f"Ollama {comparison.version} and harness" if comparison.version else "harness alone (no Ollama server)"
    ran = first.resolved.layers_by_device if first.resolved else {}
    layers = (
        " + ".join(f"{count} layers on {device}" for device, count in ran.items()) or f"-ngl {comparison.n_gpu_layers}"
    )
    figures = first.figures
    written = f"prompt of {figures.prompt_eval_count} tokens, {figures.eval_count} written"
    return [
        page.fill(f"{ollama} on {task.name}{size}"),
        page.heading([f"context {task.n_ctx}", f"{task.n_threads} threads", layers]),
        page.heading([written, f"{len(comparison.rounds)} rounds"]),
    ]


_PP: tuple[_Pick, _Pick] = (
    lambda turn: rate(turn.answer.prompt_eval_count, turn.answer.prompt_eval_duration_ns) if turn.answer else None,
    lambda turn: turn.direct.figures.prompt_eval_rate_tok_per_s,
)
_TG: tuple[_Pick, _Pick] = (
    lambda turn: rate(turn.answer.eval_count, turn.answer.eval_duration_ns) if turn.answer else None,
    lambda turn: turn.direct.figures.eval_rate_tok_per_s,
)
_LOAD: tuple[_Pick, _Pick] = (lambda turn: turn.ollama_load_ns, lambda turn: turn.direct.figures.load_duration_ns)


def _table(comparison: Comparison) -> str:
    rows = []
    for name, (theirs, ours), form in (
        ("PP t/s", _PP, format_rate), ("TG t/s", _TG, format_rate), ("load", _LOAD, format_duration),
    ):  # fmt: skip
        rows.append(
            [name, _middle(comparison, theirs, form), _middle(comparison, ours, form), _ratio(comparison, theirs, ours)]
        )
    rows.append(["memory", *_memory(comparison)])
    heads = ["", "Ollama", "harness", "harness / Ollama"]
    if comparison.version is None:
        rows, heads = [[row[0], row[2]] for row in rows], ["", "harness"]
    return page.table([dict(zip(heads, row, strict=True)) for row in rows], "lr")


def _values(comparison: Comparison, pick: _Pick) -> list[float]:
    return [value for turn in comparison.rounds if (value := pick(turn)) is not None]


def _middle(comparison: Comparison, pick: _Pick, form: Callable[[float], str]) -> str:
    values = _values(comparison, pick)
    return form(median(values)) if values else "—"


def ratios(comparison: Comparison, theirs: _Pick, ours: _Pick) -> list[float]:
    """harness / Ollama, round by round."""
    pairs = [(theirs(turn), ours(turn)) for turn in comparison.rounds]
    return [b / a for a, b in pairs if a and b]


def _ratio(comparison: Comparison, theirs: _Pick, ours: _Pick) -> str:
    values = ratios(comparison, theirs, ours)
    if not values:
        return "—"
    interval = median_interval(values)
    shown = f" [{interval.low:.2f} – {interval.high:.2f}]" if interval else ""
    return f"{median(values):.2f}{shown}"


def _memory(comparison: Comparison) -> list[str]:
    ours = own_memory_bytes(comparison)
    theirs = comparison.loaded.size_bytes if comparison.loaded else None
    return [
        format_gb(theirs) if theirs else "—",
        format_gb(ours) if ours else "—",
        f"{ours / theirs:.2f}" if ours and theirs else "—",
    ]


def own_memory_bytes(comparison: Comparison) -> int | None:
    """Everything that llama.cpp allocated or mapped here: weights, repacked weights, cache, compute and output buffers."""
    resolved = comparison.rounds[0].direct.resolved
    return sum(buffer.size_bytes for buffer in resolved.buffers) if resolved else None


def _gap(comparison: Comparison) -> list[str]:
    """What the two sides do differently, each with its figure where there is one."""
    direct = [turn.direct for turn in comparison.rounds]
    samples = [run.sample_ns / run.figures.eval_count for run in direct if run.sample_ns and run.figures.eval_count]
    decodes = [value for run in direct if (value := run.decode_rate_tok_per_s)]
    items = []
    if samples and decodes:
        items.append(
            f"sampling: {format_duration(median(samples))} a token here; decoding alone runs at {format_rate(median(decodes))} t/s "
            "(one decode fewer than tokens), which is what harness pp-tg calls tg"
        )
    if comparison.version is None:
        return ["what a server would add:", *(_bullet(item) for item in items)] if items else []
    waits = _values(comparison, lambda turn: turn.answer.server_ns if turn.answer else None)
    items.insert(
        0,
        f"server: {format_duration(median(waits))} a request beside load, prompt and generation (HTTP, queue, tokenizer)",
    )
    items += [_slots(comparison), _context(comparison), _engine(comparison), _memory_meaning(comparison.version)]
    return ["the gap is made of:", *(_bullet(item) for item in items)]


def _slots(comparison: Comparison) -> str:
    slots = default_slots(comparison.version or "")
    cells = slots * comparison.task.n_ctx
    more = f", so its cache has {cells} cells where {comparison.task.n_ctx} were asked for" if slots > 1 else ""
    usual = f"Ollama {comparison.version} starts with up to {slots} unless configured{more}"
    return f"parallel slots: a client is not told; {usual}; harness has 1"


def _context(comparison: Comparison) -> str:
    told = comparison.loaded.context_length if comparison.loaded else None
    said = f"/api/ps says {told}" if told else "/api/ps does not say what it made of that (since v0.10 it does)"
    return f"context: {comparison.task.n_ctx} was asked of both; {said}"


def _engine(comparison: Comparison) -> str:
    build = comparison.rounds[0].direct.build
    ours = (
        f"llama.cpp {build.ggml_commit.split('-')[0]} (llama-cpp-python {build.llama_cpp_python})"
        if build
        else "llama.cpp"
    )
    return (
        f"engine: Ollama {comparison.version} brings its own build of llama.cpp or its own engine, harness runs {ours}"
    )


def _memory_meaning(version: str) -> str:
    if parse_version(version) < (0, 12, 11):
        how = "Ollama's is a prediction made before loading (this version), with slots, a safety margin and the CUDA context"
    else:
        how = "Ollama's is what /api/ps says (summed from what was allocated since v0.30, estimated before)"
    return f"memory: {how}; harness's is what llama.cpp allocated or mapped"


def _bullet(text: str) -> str:
    return page.fill(text, first="  - ", rest="    ")


def _notes(comparison: Comparison) -> list[str]:
    notes = [caution.text for caution in comparison.cautions]
    if len(comparison.rounds) < 6:
        notes.append("fewer than 6 rounds give no 95 % interval")
    return ["", *(page.fill(f"[{number}] {text}", rest="") for number, text in enumerate(notes, 1))] if notes else []


def render_comparison_json(comparison: Comparison, ollama_2024: Mapping[str, Any] | None = None) -> str:
    """Medians and ratios with their intervals; ollama_2024 is Ollama's account of the file's memory, where it is given."""

    def summary(theirs: _Pick, ours: _Pick) -> dict[str, Any]:
        values = ratios(comparison, theirs, ours)
        interval = median_interval(values) if values else None
        return {
            "ollama": _median_or_none(_values(comparison, theirs)),
            "harness": _median_or_none(_values(comparison, ours)),
            "ratio": _median_or_none(values),
            "ratio_low": interval.low if interval else None,
            "ratio_high": interval.high if interval else None,
        }

    values: dict[str, Any] = {
        "name": comparison.task.name,
        "ollama_version": comparison.version,
        "rounds": len(comparison.rounds),
        "prompt_rate_tok_per_s": summary(*_PP),
        "generation_rate_tok_per_s": summary(*_TG),
        "load_duration_ns": summary(*_LOAD),
        "memory_bytes": {
            "ollama": comparison.loaded.size_bytes if comparison.loaded else None,
            "harness": own_memory_bytes(comparison),
        },
        "warnings": [caution.text for caution in comparison.cautions],
    }
    if ollama_2024 is not None:
        values["ollama_2024"] = ollama_2024
    return harmless.json_text(values) + "\n"


def _median_or_none(values: Sequence[float]) -> float | None:
    return median(values) if values else None
