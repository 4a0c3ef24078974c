"""Measured cells as a Document: the model, the settings that differ, the test and what it came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.records.cells import Record, is_measured, record_key
from harness.records.failures import describe_failure
from harness.records.statistics import Digest, Summary, speaking, summarize
from harness.spec import NAMED_IN_TEST, defaults, find_varied, parameters
from harness.speed.model_names import ModelNames, file_of
from harness.units import format_count
from harness.views.document import (
    Bar,
    Bars,
    Block,
    Cell,
    Column,
    Document,
    Figure,
    KeyFigures,
    Prose,
    Section,
    Table,
)
from harness.views.figures.style import shorten
from harness.views.figures.users import find_series, show_series
from harness.views.formats import render
from harness.views.llama_bench import name_backends, render_csv, render_json, render_jsonl, render_sql
from harness.views.reuse import describe_reuse
from harness.views.settings import format_settings, setting_columns
from harness.views.values import (
    BYTES,
    DURATION,
    ENERGY,
    INTERVAL,
    MINUTE,
    PARAMS,
    RATE,
    format_interval,
    format_layers,
    format_value,
    note_energy,
)
from harness.views.verdict import describe_verdicts

#: More bars than this in one picture cannot be read; the table has all of them.
MAX_BARS = 24

#: llama-bench's own formats, by name: they are an export of records and no rendering of the Document.
EXPORTS: Mapping[str, Callable[[Sequence[Record]], str]] = {
    "csv": render_csv,
    "json": render_json,
    "jsonl": render_jsonl,
    "sql": render_sql,
}


def write_cells(records: Sequence[Record], form: str) -> str:
    """Cells in a format: one of llama-bench's, or the Document; in Markdown, which goes elsewhere, with the builds that ran."""
    if form in EXPORTS:
        return EXPORTS[form](records)
    return render(describe_cells(records, with_builds=form == "md"), form)


def describe_cell(content: object) -> str | None:
    """One line on a cell that was just measured, for whoever waits."""
    if not isinstance(content, Record):
        return None
    summary = _summary(content)
    if summary is None:
        return f"{content.asked.test}: failed"
    interval = f" ({format_interval(*ends, RATE, with_sign=False)})" if (ends := summary.interval) else ""
    return f"{content.asked.test}: {RATE.form(summary.rate_tok_per_s)} t/s{interval}"


def describe_cells(
    cells: Sequence[Record | Digest],
    *,
    name_of: Callable[[Record], str] | None = None,
    is_kept: bool = False,
    with_builds: bool = False,
) -> Document:
    """The cells as a table with what they share above it.

    Parameters
    ----------
    name_of     : what a model is called, and whether it is synthetic; unless told llama.cpp's description, and the file where needed
    is_kept     : the cells are of several runs: what ran, the machine and the time are columns too
    with_builds : end with the builds that ran, for whoever reads it elsewhere
    """
    records = [cell.record if isinstance(cell, Digest) else cell for cell in cells]
    summaries = [cell.summary if isinstance(cell, Digest) else _summary(cell) for cell in cells]
    names = None if name_of else _file_names(records)
    columns = [
        Column("model", shared="{}"), Column("size", unit=BYTES, shared="{}"), Column("params", unit=PARAMS, shared="{} params"),
        Column("backend", shared="{}"), Column("file"),
        *_setting_columns(records), Column("test"),
        Column("rate", "t/s", RATE, interval=INTERVAL),
        Column("sequence_rate", "each", RATE, is_shown=any(record.asked.n_parallel > 1 for record in records)),
        Column("repetitions", "reps", align="r"),
        Column("joules_per_token", "J/token", ENERGY),
        Column("layers", shared="layers {}"), Column("machine", shared="{}"), Column("time_utc", "measured", MINUTE, shared="{}"),
    ]  # fmt: skip
    rows = []
    for record, summary in zip(records, summaries, strict=True):
        file = names.of(found) if names and (found := file_of(record)) else None
        when = (describe_layers(record), record.machine.cpu, record.time_utc) if is_kept else (None, None, None)
        settings = [getattr(record.asked, name) for name in parameters()]
        rows.append(
            [*_model_cells(record, name_of), file, *settings, record.asked.test, *_result_cells(record, summary), *when]
        )
    table = Table("cells", columns, rows, _energy_notes(records, summaries))
    judged = (
        [] if is_kept else [(r.asked.test, summary) for r, summary in zip(records, summaries, strict=True) if summary]
    )
    measured = [Digest(*one) for one in zip(records, summaries, strict=True) if one[1]]  # type: ignore[arg-type]
    verdicts = [Prose([describe_verdicts(judged)])] if judged else []
    if reused := [] if is_kept else list(describe_reuse(measured)):
        verdicts.insert(0, Prose(reused))
    blocks: list[Block] = (
        [table, *verdicts, Prose(_builds(records))] if with_builds else [_preparation(records), table, *verdicts]
    )
    return Document("cells", 1, "", [Section("", _pictures(measured, name_of, is_kept)), Section("", blocks)])


def _pictures(cells: Sequence[Digest], name_of: Callable[[Record], str] | None, is_kept: bool) -> list[Block]:
    """Bars; of a run with several numbers of users what they get."""
    named = name_of or (lambda record: record.model.description if record.model else record.asked.file_name)
    if is_kept or not (series := find_series(cells, named)):
        return list(_bars(cells, name_of))
    return [show_series(series)]


def _bars(cells: Sequence[Digest], name_of: Callable[[Record], str] | None) -> list[Bars]:
    """Pure prompts and pure generation; of a cell that was measured again the record that speaks for it."""
    same: dict[Any, list[Digest]] = {}
    for cell in cells:
        same.setdefault(record_key(cell.record), []).append(cell)
    chosen = [best for group in same.values() if (best := speaking(group))]
    found = []
    for kind, title in (("pp", "Prompt processing"), ("tg", "Text generation")):
        pure = [cell for cell in chosen if cell.record.asked.kind == kind][-MAX_BARS:]
        labels = _label([cell.record for cell in pure], name_of)
        bars = [
            Bar(label, cell.summary.rate_tok_per_s, cell.summary.interval)
            for label, cell in zip(labels, pure, strict=True)
        ]
        caption = f"The orange line is the {INTERVAL} of the median." if any(bar.interval for bar in bars) else ""
        found += [Bars(title, RATE, bars, caption, kind)] if bars else []
    return found


def _label(records: Sequence[Record], name_of: Callable[[Record], str] | None) -> list[str]:
    """What tells each record from the others: model, test, and what else differs."""
    layers_differ = len({describe_layers(record) for record in records}) > 1
    elsewhere = ("n_prompt", "n_gen", *NAMED_IN_TEST, *["n_gpu_layers"] * layers_differ)
    settings = [name for name in find_varied(record.asked for record in records) if name not in elsewhere]
    machines_differ = len({record.machine.cpu for record in records}) > 1
    labels = []
    for record in records:
        parts = [shorten(str(_model_cells(record, name_of)[0].value), 34), record.asked.test]
        parts += [describe_layers(record)] * layers_differ + [format_settings(record.asked, settings)]
        parts += [shorten(record.machine.cpu, 24)] * machines_differ
        labels.append(" · ".join(filter(None, parts)))
    return labels


def describe_layers(record: Record) -> str:
    """Layers by device where that is known, else what was asked."""
    if record.resolved and record.resolved.layers_by_device:
        return format_layers(record.resolved.layers_by_device)
    return "all" if record.asked.n_gpu_layers < 0 else str(record.asked.n_gpu_layers)


def _summary(record: Record) -> Summary | None:
    """What a cell came to; None where it failed."""
    return summarize(record) if is_measured(record) else None


def _setting_columns(records: Sequence[Record]) -> list[Column]:
    """Every parameter; shown are those that differ from row to row or from the default, and threads or layers as llama-bench has it."""
    on_cpu = all(record.build is None or set(record.build.backends) <= {"CPU", "BLAS"} for record in records)
    shown, standard = {"n_threads" if on_cpu else "n_gpu_layers"}, defaults()
    for name, parameter in parameters().items():
        values = {getattr(record.asked, name) for record in records}
        is_usual = values == {standard[name]} or (name == "n_threads" and len(values) == 1)
        if parameter.scope != "test" and not is_usual:
            shown.add(name)
    hoisted = {"n_gpu_layers": "-ngl {}", "n_threads": "{} threads"}
    return setting_columns(parameters(), shown, hoisted)


def _file_names(records: Sequence[Record]) -> ModelNames | None:
    """Names of the files, where llama.cpp's description is the same of several; None where it tells them apart."""
    files = [file for record in records if (file := file_of(record))]
    described: dict[str, set[str]] = {}
    for record, file in zip(records, files, strict=True):
        described.setdefault(record.model.description if record.model else "", set()).add(file.key)
    return ModelNames(files) if any(len(keys) > 1 for keys in described.values()) else None


def _model_cells(record: Record, name_of: Callable[[Record], str] | None) -> list[Cell]:
    model, build = record.model, record.build
    name = name_of(record) if name_of else model.description if model else record.asked.file_name
    unknown = Cell(instead="?")
    return [
        Cell(name + (" (synthetic)" if model and model.is_synthetic and not name_of else "")),
        Cell(model.size_bytes) if model else unknown,
        Cell(model.n_params) if model else unknown,
        Cell(name_backends(build.backends)) if build else unknown,
    ]


def _result_cells(record: Record, summary: Summary | None) -> list[Cell]:
    if summary is None:
        failure = record.failure
        remark = f"{failure.phase}: {describe_failure(failure)}" if failure else "nothing was measured"
        return [Cell(instead="failed", notes=[remark]), Cell(), Cell(), Cell()]
    notes = [caution.text for caution in summary.cautions]
    if summary.undisturbed_rate_tok_per_s is not None:
        rate = format_value(summary.undisturbed_rate_tok_per_s, RATE)
        notes.insert(0, f"{rate} over {summary.n_undisturbed} undisturbed of {summary.n_samples}")
    if summary.n_seen_warmups:
        notes.append(f"without {format_count(summary.n_seen_warmups, 'first repetition')}, which belonged to a warm-up")
    return [
        Cell(summary.rate_tok_per_s, None, summary.interval, notes),
        Cell(summary.sequence_rate_tok_per_s),
        Cell(summary.n_samples),
        Cell(summary.joules_per_token),
    ]


def _energy_notes(records: Sequence[Record], summaries: Sequence[Summary | None]) -> list[str]:
    """Whose energy is in J/token: a processor's counter knows nothing of a card, and neither knows the rest of the machine."""
    known = [summary is not None and summary.joules_per_token is not None for summary in summaries]
    found = [record.telemetry for record, is_known in zip(records, known, strict=True) if is_known and record.telemetry]
    sources = (power.source for telemetry in found for power in telemetry.power)
    return note_energy("J/token", sources, (telemetry.sampler_share for telemetry in found))


def _preparation(records: Sequence[Record]) -> KeyFigures:
    """How long it took to get ready, where all share one load."""
    loads = [record.load for record in records if record.load]
    if len({load.load_duration_ns for load in loads}) != 1:
        return KeyFigures([])
    context_ns = max(load.context_duration_ns for load in loads)
    loaded = Figure("load_duration", "", loads[0].load_duration_ns, DURATION, "loaded in {}")
    return KeyFigures([loaded, Figure("context_duration", "", context_ns, DURATION, "context in {}")], in_line=True)


def _builds(records: Sequence[Record]) -> list[str]:
    lines = [
        f"build: {record.build.commit} (llama-cpp-python {record.build.llama_cpp_python}, "
        f"harness {record.harness_version}), {record.machine.cpu}, {record.machine.os.split()[0]}"
        for record in records
        if record.build
    ]
    return list(dict.fromkeys(lines))
