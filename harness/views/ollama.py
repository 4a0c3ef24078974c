"""Ollama and a direct measurement side by side, and what the gap is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness.evidence.medians import median, median_interval, samples_needed
from harness.records.ollama import Answer, Comparison, Round
from harness.records.verdict import judge
from harness.sources.ollama_server import default_slots, parse_version
from harness.units import format_duration, format_rate
from harness.views.document import Cell, Column, Document, Figure, KeyFigures, Prose, Section, Table, Value
from harness.views.values import DURATION, FILE, RATE, RATIO, Unit, format_layers
from harness.views.verdict import with_verdict

#: A figure of one round; None where that side has none.
_Pick = Callable[[Round], "float | None"]

_NOTHING = Answer(0)

#: What is compared: name in JSON, heading, unit, Ollama's figure and ours.
_COMPARED: tuple[tuple[str, str, Unit, _Pick, _Pick], ...] = (
    ("prompt_eval", "PP", RATE,
     lambda turn: (turn.ollama or _NOTHING).prompt_eval_rate_tok_per_s, lambda turn: turn.direct.figures.prompt_eval_rate_tok_per_s),
    ("eval", "TG", RATE,
     lambda turn: (turn.ollama or _NOTHING).eval_rate_tok_per_s, lambda turn: turn.direct.figures.eval_rate_tok_per_s),
    ("load", "load", DURATION, lambda turn: turn.ollama_load_ns, lambda turn: turn.direct.figures.load_duration_ns),
)  # fmt: skip


def describe_comparison(comparison: Comparison, account: Document | None = None) -> Document:
    """Both sides' medians and their ratio, and what the gap is made of; then an account of what Ollama would say of the memory."""
    version, task, first = comparison.ollama_version, comparison.task, comparison.rounds[0].direct.figures
    layers = format_layers(comparison.resolved.layers_by_device, " layers on ") if comparison.resolved else ""
    facts = [
        Figure("name", "", task.name),
        Figure("file", "", comparison.model.file_size_bytes if comparison.model else None, FILE),
        Figure("n_ctx", "context", task.n_ctx),
        Figure("n_threads", "", task.n_threads, phrase="{} threads"),
        Figure("layers", "", layers or f"-ngl {comparison.n_gpu_layers}"),
        Figure("n_prompt", "", first.prompt_eval_count, phrase="prompt of {} tokens"),
        Figure("n_gen", "", first.eval_count, phrase="{} written"),
        Figure("n_rounds", "", len(comparison.rounds), phrase="{} rounds"),
        Figure("ollama_version", "", version, is_shown=False),
    ]
    title = f"Ollama {version} and harness" if version else "harness alone (no Ollama server)"
    table = _show_figures(comparison)
    gap = list(_explain_gap(comparison))
    sections = [Section("", [KeyFigures(facts, in_line=True), table])]
    if gap:
        sections.append(
            Section("the gap is made of:" if version else "what a server would add:", [Prose(gap, is_list=True)])
        )
    if account:
        sections += [Section(account.title, []), *account.sections]
    warnings = [caution.text for caution in comparison.warnings]
    if len(comparison.rounds) < samples_needed():
        warnings.append(f"fewer than {samples_needed()} rounds give no 95 % interval")
    document = Document(
        "ollama-comparison", 1, f"{title} on {task.name}", sections, warnings, account.data if account else {}
    )
    return with_verdict(document, judge(comparison))


def _show_figures(comparison: Comparison) -> Table:
    rows: list[list[Cell | Value]] = []
    for name, title, unit, theirs, ours in _COMPARED:
        sides = [[value for turn in comparison.rounds if (value := pick(turn))] for pick in (theirs, ours)]
        pairs = [(theirs(turn), ours(turn)) for turn in comparison.rounds]
        ratios = [b / a for a, b in pairs if a and b]
        interval = median_interval(ratios) if ratios else None
        middle = [Cell(median(side) if side else None, unit) for side in sides]
        ratio = Cell(median(ratios) if ratios else None, interval=interval.ends if interval else None)
        rows.append([name, title, *middle, ratio])
    memory = comparison.memory_bytes, comparison.ollama_loaded.size_bytes if comparison.ollama_loaded else None
    ratio = Cell(memory[0] / memory[1] if memory[0] and memory[1] else None)
    rows.append(["memory", "memory", Cell(memory[1], FILE), Cell(memory[0], FILE), ratio])
    columns = [
        Column("figure", is_shown=False),
        Column("title", " "),
        Column("ollama", "Ollama", align="r"),
        Column("harness", align="r"),
        Column("ratio", "harness / Ollama", RATIO),
    ]
    return Table("figures", columns, rows)


def _explain_gap(comparison: Comparison) -> Iterator[str]:
    """What the two sides do differently, each with its figure where there is one."""
    version, loaded, n_ctx = comparison.ollama_version, comparison.ollama_loaded, comparison.task.n_ctx
    answers = [turn.ollama for turn in comparison.rounds if turn.ollama]
    waits = [answer.server_ns for answer in answers if answer.server_ns is not None]
    if waits:
        wait = format_duration(max(median(waits), 0))
        yield f"server: {wait} a request beside load, prompt and generation (HTTP, queue, tokenizer)"
    direct = [turn.direct for turn in comparison.rounds]
    samples = [
        text.sample_ns / text.figures.eval_count for text in direct if text.sample_ns and text.figures.eval_count
    ]
    decodes = [speed for text in direct if (speed := text.figures.decode_rate_tok_per_s(text.decode_ns))]
    if samples and decodes:
        yield (
            f"sampling: {format_duration(median(samples))} a token here; decoding alone runs at {format_rate(median(decodes))} t/s "
            "(one decode fewer than tokens), which is what harness pp-tg calls tg"
        )
    if version is None:
        return
    slots = default_slots(version)
    more = f", so its cache has {slots * n_ctx} cells where {n_ctx} were asked for" if slots > 1 else ""
    yield (
        f"parallel slots: a client is not told; Ollama {version} starts with up to {slots} unless configured{more}; harness has 1"
    )
    told = loaded.context_length if loaded else None
    said = f"/api/ps says {told}" if told else "/api/ps does not say what it made of that (since v0.10 it does)"
    yield f"context: {n_ctx} was asked of both; {said}"
    build = comparison.build
    ours = f" {build.commit} (llama-cpp-python {build.llama_cpp_python})" if build else ""
    yield f"engine: Ollama {version} brings its own build of llama.cpp or its own engine, harness runs llama.cpp{ours}"
    if parse_version(version) < (0, 12, 11):
        how = "Ollama's is a prediction made before loading (this version), with slots, a safety margin and the CUDA context"
    else:
        how = "Ollama's is what /api/ps says (summed from what was allocated since v0.30, estimated before)"
    yield f"memory: {how}; harness's is what llama.cpp allocated or mapped"
