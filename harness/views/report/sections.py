"""Sections of cells, texts and comparisons."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records.failures import describe_failure
from harness.records.kinds import ComparisonLine, Turn
from harness.records.statistics import Summary, median, median_interval
from harness.records.text import TextRun, rate
from harness.units import format_duration, format_rate
from harness.views.report.material import Material
from harness.views.report.parts import Cell, Footnotes, Part, Prose, Table, text_cell

# --- texts and Ollama -------------------------------------------------------------------------------------------------


def show_texts(material: Material) -> Sequence[Part]:
    """Texts that models wrote, with Ollama's figures."""
    if not material.texts:
        return []
    footnotes = Footnotes()
    rows = [_text_row(material, run, footnotes) for run in material.texts]
    headers = ("model", "PP t/s", "TG t/s", "load", "first token", "total", "tokens", "ended", "when")
    means = (
        "PP and TG are what Ollama calls prompt eval rate and eval rate; sampling and the way of the text are in them. The first "
        "token's decode counts as the prompt's, so TG is a little too good for short texts."
    )
    return [Prose([means]), Table(headers, rows, footnotes.texts())]


def _text_row(material: Material, run: TextRun, footnotes: Footnotes) -> list[Cell | str]:
    figures = run.figures
    texts = [caution.text for caution in run.warnings] + ([describe_failure(run.failure)] if run.failure else [])
    return [
        material.model_name(run) + footnotes.mark(texts),
        _rate_cell(figures.prompt_eval_rate_tok_per_s),
        _rate_cell(figures.eval_rate_tok_per_s),
        _duration_cell(figures.load_duration_ns),
        _duration_cell(figures.first_token_ns),
        _duration_cell(figures.total_duration_ns),
        f"{figures.prompt_eval_count or 0} + {figures.eval_count or 0}",
        run.finish,
        _minute(run.time_utc),
    ]


def show_ollama(material: Material) -> Sequence[Part]:
    """Comparisons with an Ollama server."""
    rows = []
    for line in material.contents(ComparisonLine):
        pairs = [(turn.ollama, turn.direct.figures) for turn in line.rounds if turn.ollama]
        for name, field in (("PP", "prompt_eval"), ("TG", "eval")):
            rates = [tuple(_turn_rate(turn, field) for turn in pair) for pair in pairs]
            both = [(theirs, ours) for theirs, ours in rates if theirs and ours]
            if both:
                rows.append(_ollama_row(line, name, both))
    headers = ("model", "", "Ollama", "Ollama t/s", "harness t/s", "harness / Ollama", "rounds", "when")
    means = "The same file, prompts, context, threads and layers, by turns, through an Ollama server and directly."
    return [Prose([means]), Table(headers, rows)] if rows else []


def _turn_rate(turn: Turn, field: str) -> float | None:
    return rate(getattr(turn, f"{field}_count"), getattr(turn, f"{field}_duration_ns"))


def _ollama_row(line: ComparisonLine, name: str, pairs: Sequence[tuple[float, float]]) -> list[Cell | str]:
    theirs, ours = median([a for a, _ in pairs]), median([b for _, b in pairs])
    ratios = [b / a for a, b in pairs]
    interval = median_interval(ratios)
    between = f" [{interval.low:.2f} – {interval.high:.2f}]" if interval else ""
    return [
        line.task.name,
        name,
        line.ollama_version or "—",
        text_cell(format_rate(theirs), theirs),
        text_cell(format_rate(ours), ours),
        text_cell(f"{median(ratios):.2f}{between}", median(ratios)),
        text_cell(str(len(pairs)), len(pairs)),
        _minute(line.time_utc),
    ]


# --- small things -----------------------------------------------------------------------------------------------------


def _interval(summary: Summary) -> str:
    if summary.rate_low is None or summary.rate_high is None:
        return "—"
    return f"{format_rate(summary.rate_low)} – {format_rate(summary.rate_high)}"


def _rate_cell(value: float | None) -> Cell | str:
    return "—" if value is None else text_cell(format_rate(value), value)


def _duration_cell(duration_ns: int | None) -> Cell | str:
    return "—" if duration_ns is None else text_cell(format_duration(duration_ns), duration_ns)


def _minute(time_utc: str) -> str:
    return time_utc[:16].replace("T", " ")


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
