"""How well models predict a text as a Document: perplexity, distance from the base, and beside them size, memory and speed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.records.cells import Record, is_measured, model_key
from harness.records.failures import describe_failure
from harness.records.quality import QualityRecord
from harness.records.quality_figures import CONFIDENCE, LEAST_WINDOWS, Departure, Estimate, QualityFigures, find_figures
from harness.records.statistics import Summary, summarize
from harness.records.verdict import Trust, judge_all
from harness.spec import CellKey, cell_key, find_varied
from harness.speed.model_names import ModelFile, ModelNames, file_of
from harness.units import format_count
from harness.views.document import (
    Cell,
    Column,
    Document,
    Figure,
    KeyFigures,
    Line,
    Picture,
    Prose,
    Section,
    Table,
    for_programs,
)
from harness.views.figures.quality import Point, draw_quality
from harness.views.settings import format_settings, setting_columns
from harness.views.values import BYTES, COUNT, FINE_RATIO, INTERVAL, RATE, SHARE, Unit, format_value
from harness.views.verdict import with_verdict

#: Of a text: e to the power of the mean surprise, which has no unit.
PERPLEXITY = FINE_RATIO

#: KL divergence in nats.
NATS = Unit("nats", lambda nats: f"{nats:.5f}", "nats")

#: What is lost beside the base: a hundredth of a percent matters.
LOST = Unit("", lambda share: f"{100 * share:+.2f} %")

#: A standard error of shares.
ERROR_SHARE = Unit("", lambda share: f"{100 * share:.2f} %")

#: What the speed of a cell does not depend on, or is tried with another one.
_OWN = ("n_prompt", "n_gen", "n_depth")


@dataclass(frozen=True, slots=True)
class _Row:
    """A record with all that is shown of it; name is what its file is called, no two of them alike."""

    record: QualityRecord
    name: str
    figures: QualityFigures | None
    speeds: Mapping[str, tuple[Record, Summary]]

    def rate(self, kind: str) -> Cell:
        """Tokens a second of prompts (``pp``) or of generation (``tg``)."""
        if kind not in self.speeds:
            return Cell()
        summary = self.speeds[kind][1]
        return Cell(summary.rate_tok_per_s, notes=[caution.text for caution in summary.cautions])

    @property
    def departure(self) -> Departure | None:
        """How far it is from its base."""
        return self.figures.departure if self.figures else None


def describe_window(content: object) -> str | None:
    """One line on a cell whose windows are all read, for whoever waits."""
    if not isinstance(content, QualityRecord):
        return None
    figures = find_figures(content)
    name = content.asked.file_name.removesuffix(".gguf")
    return f"{name}: {'perplexity ' + format_value(figures.perplexity.value, PERPLEXITY) if figures else 'failed'}"


def describe_quality(records: Sequence[QualityRecord], speeds: Sequence[Record] = ()) -> Document:
    """All that was asked in one run, the base first.

    Parameters
    ----------
    speeds : cells of the same models and settings that were timed beside them

    Raises
    ------
    ValueError : there is no record.
    """
    names = ModelNames(map(_file_of, records))
    rows = [
        _Row(record, names.of(_file_of(record)), find_figures(record), _speeds_of(record, speeds)) for record in records
    ]
    sections = [Section("", [_facts(rows), *_pictures(rows), _show_models(rows)])]
    if any(row.departure for row in rows):
        sections.append(Section("what is lost beside the base", [_show_departures(rows), *_decide(rows)]))
    warnings = [caution.text for record in records for caution in record.warnings]
    first = records[0]
    data = {"text": first.text, "machine": first.machine, "build": first.build}
    verdict = judge_all(records)
    document = Document("quality", 1, "", sections, list(dict.fromkeys(warnings)), data, "models")
    if (
        verdict and verdict.trust is Trust.QUIET
    ):  # that the machine was quiet says nothing of figures that no noise touches
        return dataclasses.replace(document, data={**data, "trust": verdict.trust.value, "reasons": ()})
    return with_verdict(document, verdict)


def _file_of(record: QualityRecord) -> ModelFile:
    return file_of(record) or ModelFile(record.asked.file_name)


def _key(spec_of: QualityRecord | Record) -> CellKey:
    return cell_key(spec_of.asked, but={"model", *_OWN})


def _speeds_of(record: QualityRecord, speeds: Sequence[Record]) -> dict[str, tuple[Record, Summary]]:
    """The timed cells of the same file and settings, by kind."""
    sha256 = record.model.file_sha256 if record.model else None
    own = {sha256 or record.asked.file_name, record.asked.file_name}
    found = [cell for cell in speeds if is_measured(cell) and model_key(cell) in own and _key(cell) == _key(record)]
    return {cell.asked.kind: (cell, summarize(cell)) for cell in found}


def _facts(rows: Sequence[_Row]) -> KeyFigures:
    first = rows[0].record
    models = {row.record.model.description for row in rows if row.record.model}
    figures = [row.figures for row in rows if row.figures]
    n_windows, n_scored = (
        max((getattr(one, name) for one in figures), default=None) for name in ("n_windows", "n_scored")
    )
    text = f"{first.text.name}, which comes with harness" if first.text.is_own else first.text.name
    return KeyFigures(
        [
            Figure("model", "", models.pop() if len(models) == 1 else None),
            Figure("text_name", "", text),
            Figure("n_ctx", "", first.asked.n_ctx, COUNT, "windows of {} tokens"),
            Figure("n_windows", "", n_windows, COUNT, "{} of them"),
            Figure("n_scored", "", n_scored, COUNT, "{} tokens scored"),
        ],
        in_line=True,
    )


def _show_models(rows: Sequence[_Row]) -> Table:
    records = [row.record for row in rows]
    varied = find_varied(record.asked for record in records)
    tests = {
        kind: next((row.speeds[kind][0].asked.test for row in rows if kind in row.speeds), kind)
        for kind in ("pp", "tg")
    }
    columns = [
        *_name_columns(rows, varied),
        Column("size", unit=BYTES, left_out=2), Column("memory", unit=BYTES, left_out=1),
        *(Column(kind, f"{test} t/s", RATE) for kind, test in tests.items()),
        Column("perplexity", "perplexity", PERPLEXITY), Column("perplexity_error", "±", PERPLEXITY),
        *for_programs("perplexity_low", "perplexity_high", "n_windows", "n_scored", "n_wanted", "base", "sha256"),
    ]  # fmt: skip
    notes = [
        "±: one standard error, as llama-perplexity has it.",
        *_note_memory(records),
    ]
    return Table("models", columns, [_model_line(row, varied) for row in rows], notes, missing="")


def _note_memory(records: Sequence[QualityRecord]) -> Iterator[str]:
    contexts = sorted({record.memory.n_ctx for record in records if record.memory})
    if contexts:
        yield f"memory: predicted for a context of {format_value(contexts[-1], COUNT)} tokens (weights, cache, work buffers)."


def _name_columns(rows: Sequence[_Row], varied: Sequence[str]) -> list[Column]:
    return [Column("model", is_shown=len({row.name for row in rows}) > 1), *setting_columns(varied)]


def _names(row: _Row, varied: Sequence[str]) -> list[Cell]:
    return [
        Cell(row.name),
        *(Cell(getattr(row.record.asked, name)) for name in varied),
    ]


def _model_line(row: _Row, varied: Sequence[str]) -> Line:
    record, figures = row.record, row.figures
    failure = record.failure
    notes = [describe_failure(failure)] if failure else []
    found = figures.perplexity if figures else None
    perplexity = Cell(found.value, notes=notes) if found else Cell(instead="failed", notes=notes)
    memory = record.memory.total_bytes if record.memory else None
    size = record.model.file_size_bytes if record.model else None
    return [
        *_names(row, varied), size, memory, row.rate("pp"), row.rate("tg"), perplexity,
        found.error if found else None, *((found and found.interval) or (None, None)),
        figures.n_windows if figures else 0, figures.n_scored if figures else 0, record.n_wanted,
        record.base.asked.file_name if record.base else None, record.model.file_sha256 if record.model else None,
    ]  # fmt: skip


def _show_departures(rows: Sequence[_Row]) -> Table:
    records = [row.record for row in rows]
    varied = find_varied(record.asked for record in records)
    columns = [
        *_name_columns(rows, varied),
        Column("lost", "perplexity", LOST, interval=INTERVAL),
        Column("kld", "KL divergence", NATS), Column("kld_error", "±", NATS),
        Column("kld_median", "median", NATS, left_out=3), Column("kld_99", "99 %", NATS, left_out=2),
        Column("same_top", "same top", SHARE), Column("same_top_error", "±", ERROR_SHARE, left_out=1),
        *for_programs("log_ratio", "log_ratio_error", "ratio", "ratio_error", "base_perplexity", "base_perplexity_error"),
        *for_programs("kld_max", "kld_min", "kld_low", "kld_high", unit=NATS),
        *for_programs("p_diff", "p_diff_error", "p_diff_rms", "p_diff_rms_error", "correlation", "is_rounded"),
    ]  # fmt: skip
    has_any = any(row.departure and row.departure.ratio.interval for row in rows)
    intervals = "intervals are by windows" if has_any else f"an interval needs {LEAST_WINDOWS} windows"
    notes = [
        f"perplexity: by how much it is above the base's; {intervals}. KL divergence: nats a token; 99 %: of tokens are no "
        "further off. same top: "
        "tokens for which both find the same one likeliest.",
        *(["The base's log-probabilities are rounded to 16 bits, as llama-perplexity's are."] if any(
            record.base and record.base.is_rounded for record in records) else []),
    ]  # fmt: skip
    lines = [_departure_line(row, row.departure, varied) for row in rows if row.departure]
    return Table("departures", columns, lines, notes, missing="")


def _departure_line(row: _Row, found: Departure | None, varied: Sequence[str]) -> Line:
    assert found is not None
    percentiles = dict(found.kld_percentiles)
    low, high = found.kld.interval or (None, None)
    base = row.record.base
    return [
        *_names(row, varied), _change(found.ratio), found.kld.value, found.kld.error, percentiles[0.5], percentiles[0.99],
        found.same_top.value, found.same_top.error, found.log_ratio.value, found.log_ratio.error, found.ratio.value, found.ratio.error,
        found.base_perplexity.value, found.base_perplexity.error, found.kld_max, found.kld_min, low, high,
        found.p_diff.value, found.p_diff.error, found.p_diff_rms.value, found.p_diff_rms.error, found.correlation,
        bool(base and base.is_rounded),
    ]  # fmt: skip


def _change(ratio: Estimate) -> Cell:
    ends = ratio.interval and (ratio.interval[0] - 1, ratio.interval[1] - 1)
    return Cell(ratio.value - 1, interval=ends)


def _decide(rows: Sequence[_Row]) -> list[Prose]:
    """For each whether the text shows a loss, in a sentence."""
    varied = _find_varied(rows)
    said = []
    for row in rows:
        if row.departure and (ends := row.departure.ratio.interval):
            name = _call(row, varied)
            level = f"{100 * CONFIDENCE:.0f} %"
            if ends[0] > 1:
                said.append(f"{name} predicts this text worse than the base ({level}).")
            elif ends[1] < 1:
                said.append(
                    f"{name} predicts this text better than the base ({level}), which is chance or the text's doing."
                )
            else:
                n = format_count(row.figures.n_windows if row.figures else 0, "window")
                said.append(f"{name}: {n} do not tell its perplexity from the base's; the KL divergence does.")
    return [Prose(said)] if said else []


def _find_varied(rows: Sequence[_Row]) -> list[str]:
    """What tells rows apart: the model, and settings."""
    names = {row.name for row in rows}
    return [*(["model"] if len(names) > 1 else []), *find_varied(row.record.asked for row in rows)]


def _call(row: _Row, varied: Sequence[str]) -> str:
    """What tells a row from the others."""
    name = row.name if "model" in varied else ""
    settings = format_settings(row.record.asked, [one for one in varied if one != "model"])
    return ", ".join(filter(None, (name, settings))) or row.record.asked.file_name


def _pictures(rows: Sequence[_Row]) -> list[Picture]:
    """Quality over speed, or over size where nothing was timed."""
    points = list(_points(rows))
    if not points:
        return []
    alt = "Quality over speed, size as area; the table has its figures"
    return [Picture(lambda theme: draw_quality(points, theme), alt, name="quality")]


def _points(rows: Sequence[_Row]) -> Iterator[Point]:
    varied = _find_varied(rows)
    for row in rows:
        if row.figures is None:
            continue
        size = row.record.model.file_size_bytes if row.record.model else None
        memory = row.record.memory.total_bytes if row.record.memory else None
        rates = {kind: summary.rate_tok_per_s for kind, (_, summary) in row.speeds.items()}
        kld = row.departure.kld.value if row.departure else None
        name, perplexity = _call(row, varied), row.figures.perplexity.value
        yield Point(name, perplexity, memory or size or 0, rates.get("tg"), rates.get("pp"), kld)
