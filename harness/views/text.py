"""Texts that models wrote, with Ollama's figures of them: as documents, and in Ollama's own formats."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from harness.codec import encode
from harness.records.failures import describe_failure
from harness.records.text import Figures, Skip, Skipped, TextRun
from harness.records.verdict import judge, judge_all
from harness.units import format_go_duration
from harness.untrusted import harmless
from harness.views.document import Block, Cell, Column, Document, Line, Picture, Prose, Section, Table
from harness.views.figures.text import draw_token_times
from harness.views.values import BYTES, DURATION, MINUTE, RATE, Unit, format_value, full_name
from harness.views.verdict import plain_reasons, with_verdict


def describe_text(run: TextRun, text: str) -> Document:
    """One text and its figures."""
    blocks: list[Block] = [Prose(text.strip().split("\n")), _show_runs([(_file_name(run), run)])]
    if len(run.token_ns) > 1:
        blocks.append(Picture(lambda theme: draw_token_times(run, theme), "Time of each token"))
    return with_verdict(Document("run", 1, "", [Section("", blocks)], data={"response": text}, main="runs"), judge(run))


def describe_texts(runs: Sequence[tuple[str, TextRun]], *, with_time: bool = False) -> Document:
    """Texts of several models: (name, run) of each. with_time says when each was."""
    sections = [Section("", [_show_runs(runs, with_time=with_time)])] if runs else []
    return with_verdict(Document("texts", 1, "", sections, main="runs"), judge_all(run for _, run in runs))


def describe_reference(runs: Sequence[tuple[str, TextRun]], skipped: Sequence[Skipped]) -> Document:
    """One task over several models: (name, run) of each; what was not run, and how many are not here at all."""
    rows: list[Line] = [[one.name, _describe_skip(one)] for one in skipped if one.why is not Skip.NOT_HERE]
    table = Table("not_run", [Column("model"), Column("reason", wraps=True)], rows)
    missing = [one.name for one in skipped if one.why is Skip.NOT_HERE]
    blocks: list[Block] = [table] if rows else []
    if missing:
        are = "models of the catalog are" if len(missing) > 1 else "model of the catalog is"
        blocks.append(Prose([f"{len(missing)} {are} not on this disk; `harness pull` brings one."]))
    document = describe_texts(runs)
    sections = [*document.sections, *([Section("not run", blocks)] if blocks else [])]
    return dataclasses.replace(document, sections=sections, data={**document.data, "not_here": missing})


def summarize_text(content: object) -> str | None:
    """A line about a text that was just written, for whoever waits."""
    if not isinstance(content, TextRun):
        return None
    rates = (content.figures.prompt_eval_rate_tok_per_s, content.figures.eval_rate_tok_per_s)
    said = " · ".join(
        f"{name} {format_value(rate, RATE)}" for name, rate in zip(("PP", "TG"), rates, strict=True) if rate
    )
    return f"{_file_name(content)}: {said or content.finish}"


def _describe_skip(skipped: Skipped) -> str:
    if skipped.why is Skip.TOO_LARGE:
        size, free = format_value(skipped.size_bytes, BYTES), format_value(skipped.free_bytes, BYTES)
        return f"{size}, and only {free} of memory are free"
    return skipped.reason.rstrip(".")


def _show_runs(runs: Sequence[tuple[str, TextRun]], *, with_time: bool = False) -> Table:
    def figure(name: str, title: str = "", unit: Unit | None = None, *, is_shown: bool = True) -> Column:
        attribute = full_name(name, unit)
        return Column(name, title, unit, is_shown=is_shown, of=lambda one: getattr(one[1].figures, attribute))

    columns = [
        Column("model", of=lambda one: one[0]),
        Column("size", unit=BYTES, left_out=2, of=lambda one: one[1].model.size_bytes if one[1].model else None),
        figure("prompt_eval_rate", "PP t/s", RATE), figure("eval_rate", "TG t/s", RATE), figure("load_duration", "load", DURATION),
        figure("first_token", unit=DURATION, is_shown=with_time), figure("total_duration", "total", DURATION, is_shown=with_time),
        Column("tokens", align="r", of=lambda one: f"{one[1].figures.prompt_eval_count or 0} + {one[1].figures.eval_count or 0}"),
        *(figure(name, is_shown=False) for name in ("prompt_eval_count", "eval_count")),
        *(figure(name, unit=DURATION, is_shown=False) for name in ("prompt_eval_duration", "eval_duration")),
        Column("sample_duration", unit=DURATION, is_shown=False, of=lambda one: one[1].sample_ns),
        Column("decode_duration", unit=DURATION, is_shown=False, of=lambda one: one[1].decode_ns),
        Column("finish", "ended", of=lambda one: Cell(one[1].finish, notes=_warn(one[1]))),
        Column("time_utc", "when", MINUTE, is_shown=with_time, of=lambda one: one[1].time_utc),
    ]  # fmt: skip
    return Table.of("runs", runs, columns)


def _warn(run: TextRun) -> list[str]:
    verdict = judge(run)
    reasons = [reason.text for reason in verdict.reasons] if verdict else []
    warnings = dict.fromkeys([*(caution.text for caution in run.warnings), *reasons])
    return [*warnings, *([describe_failure(run.failure)] if run.failure else [])]


def _file_name(run: TextRun) -> str:
    return run.model.file_name if run.model else "—"


# --- Ollama's formats -------------------------------------------------------------------------------------------------


def render_verbose(figures: Figures) -> str:
    """The lines of ``ollama run --verbose``, byte for byte, and time to first token; what is missing is left out, as there.

    Source: Metrics.Summary in Ollama's api/types.go.
    """
    lines = [("total duration", format_go_duration(figures.total_duration_ns))]
    if figures.load_duration_ns:
        lines.append(("load duration", format_go_duration(figures.load_duration_ns)))
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


def name_figures(figures: Figures) -> dict[str, int]:
    """The figures under the names of Ollama's API, in ns; one that is missing is left out, as there."""
    values = dataclasses.asdict(figures)
    del values["first_token_ns"]  # ours
    return {name.removesuffix("_ns"): value for name, value in values.items() if value is not None}


def _all_values(run: TextRun) -> dict[str, Any]:
    """How it ended and the figures as Ollama names them, durations in ns; then those that Ollama does not have, and warnings."""
    extra = {
        "prompt_eval_rate": run.figures.prompt_eval_rate_tok_per_s,
        "eval_rate": run.figures.eval_rate_tok_per_s,
        "time_to_first_token": run.figures.first_token_ns,
        "sample_duration": run.sample_ns,
        "decode_duration": run.decode_ns,
    }
    known = {name: value for name, value in extra.items() if value is not None}
    # Ollama knows ``stop`` and ``length``; a full context is a length to it.
    reason = "length" if run.finish == "context" else run.finish
    warnings = [caution.text for caution in run.warnings]
    verdict = judge(run)
    trust, reasons = verdict.trust.value if verdict else None, encode(plain_reasons(verdict))
    figures = {"done_reason": reason, **name_figures(run.figures), **known}
    return {**figures, "warnings": warnings, "trust": trust, "reasons": reasons}


def render_verbose_json(run: TextRun) -> str:
    """The figures as one line of JSON."""
    return harmless.json_text(_all_values(run), indent=None) + "\n"


def render_answer_json(run: TextRun, text: str) -> str:
    """The whole answer as Ollama's /api/generate gives it without streaming."""
    name = run.model.file_name if run.model else None
    answer = {"schema": 1, "model": name, "created_at": run.time_utc, "response": text, "done": True}
    return harmless.json_text({**answer, **_all_values(run)}) + "\n"
