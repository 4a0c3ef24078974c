"""Ollama's eight figures of a text, in its own format, and what `harness` adds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.records.failures import describe_failure
from harness.records.text import Figures, TextRun
from harness.units import format_go_duration, format_mib, format_rate
from harness.untrusted import harmless
from harness.views import page


def render_verbose(figures: Figures) -> str:
    """The lines of ``ollama run --verbose``, byte for byte, and time to first token; what is missing is left out, as there.

    Source: Metrics.Summary in Ollama's api/types.go.
    """
    lines = [("total duration", format_go_duration(figures.total_duration_ns))]
    for name, duration in (("load duration", figures.load_duration_ns),):
        if duration:
            lines.append((name, format_go_duration(duration)))
    for name, count, duration, rate in (
        ("prompt eval", figures.prompt_eval_count, figures.prompt_eval_duration_ns, figures.prompt_eval_rate_tok_per_s),
        ("eval", figures.eval_count, figures.eval_duration_ns, figures.eval_rate_tok_per_s),
    ):
        if count:
            lines.append((f"{name} count", f"{count} token(s)"))
        if duration:
            lines.append((f"{name} duration", format_go_duration(duration)))
        if rate is not None:
            lines.append((f"{name} rate", f"{rate:.2f} tokens/s"))
    if figures.first_token_ns:
        lines.append(("time to first token", format_go_duration(figures.first_token_ns)))
    return "".join(f"{name + ':':<21} {value}\n" for name, value in lines)


def verbose_values(run: TextRun) -> dict[str, Any]:
    """The figures under the names of Ollama's API, durations in ns; then those that Ollama does not have."""
    extra = {
        "prompt_eval_rate": run.figures.prompt_eval_rate_tok_per_s,
        "eval_rate": run.figures.eval_rate_tok_per_s,
        "time_to_first_token": run.figures.first_token_ns,
        "sample_duration": run.sample_ns,
        "decode_duration": run.decode_ns,
    }
    return {**run.figures.to_ollama(), **{name: value for name, value in extra.items() if value is not None}}


def render_verbose_json(run: TextRun) -> str:
    """`verbose_values` as one line of JSON."""
    return (
        harmless.json_text({"done_reason": _reason(run), **verbose_values(run), **_warnings(run)}, indent=None) + "\n"
    )


def render_answer_json(run: TextRun, text: str) -> str:
    """The whole answer as Ollama's /api/generate gives it without streaming."""
    name = run.model.file_name if run.model else None
    answer = {"model": name, "created_at": run.time_utc, "response": text, "done": True, "done_reason": _reason(run)}
    return harmless.json_text({**answer, **verbose_values(run), **_warnings(run)}) + "\n"


def _warnings(run: TextRun) -> dict[str, list[str]]:
    return {"warnings": [caution.text for caution in run.warnings]} if run.warnings else {}


def _reason(run: TextRun) -> str:
    """Ollama knows ``stop`` and ``length``; a full context is a length to it."""
    return "length" if run.finish == "context" else run.finish


def render_reference(runs: Sequence[tuple[str, TextRun]], skipped: Sequence[tuple[str, str]]) -> str:
    """The reference task over several models as a table: (name, run); then what was left out: (name, why)."""
    notes: dict[str, int] = {}
    rows = [_reference_row(name, run, notes) for name, run in runs]
    parts = []
    if rows:
        heads = ("model", "size", "PP t/s", "TG t/s", "load", "tokens", "ended")
        parts.append(page.table([dict(zip(heads, row, strict=True)) for row in rows], "lrrrrrl"))
    if notes:
        parts.append("\n".join(_wrap(f"[{number}] {text}") for text, number in notes.items()))
    if skipped:
        parts.append("\n".join(["not run:", *(_wrap(f"{name}: {why}") for name, why in skipped)]))
    return "\n\n".join(parts) + "\n"


def _wrap(text: str) -> str:
    return page.fill(text, first="  ", rest="    ")


def _reference_row(name: str, run: TextRun, notes: dict[str, int]) -> tuple[str, ...]:
    figures = run.figures
    texts = [caution.text for caution in run.warnings] + ([describe_failure(run.failure)] if run.failure else [])
    marks = "".join(f" [{notes.setdefault(text, len(notes) + 1)}]" for text in texts)
    return (
        name,
        format_mib(run.model.size_bytes) if run.model else "—",
        _rate(figures.prompt_eval_rate_tok_per_s),
        _rate(figures.eval_rate_tok_per_s),
        f"{figures.load_duration_ns / 1e9:.2f} s" if figures.load_duration_ns else "—",
        f"{figures.prompt_eval_count or 0} + {figures.eval_count or 0}",
        run.finish + marks,
    )


def _rate(value: float | None) -> str:
    return "—" if value is None else format_rate(value)


def render_reference_json(runs: Sequence[tuple[str, TextRun]], skipped: Sequence[tuple[str, str]]) -> str:
    """The same as JSON."""
    rows = [
        {
            "model": name,
            "finish": run.finish,
            **verbose_values(run),
            "warnings": [caution.text for caution in run.warnings],
            "failure": describe_failure(run.failure) if run.failure else None,
        }
        for name, run in runs
    ]
    left_out = [{"model": name, "why": why} for name, why in skipped]
    return harmless.json_text({"runs": rows, "not_run": left_out}) + "\n"
