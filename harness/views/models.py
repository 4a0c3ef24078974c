"""The catalog, the models on this disk and what the hub says of the catalog, as Documents."""

from __future__ import annotations

from collections.abc import Sequence

from harness.runs.models import Row
from harness.sources.catalog_check import Verdict
from harness.sources.local import LocalModel
from harness.units import format_count, format_gb
from harness.views.document import Cell, Code, Column, Document, Prose, Section, Table, for_programs
from harness.views.values import FILE, PARAMS


def describe_models(rows: Sequence[Row]) -> Document:
    """The catalog, each name once."""
    columns = [
        Column("name", is_merged=True),
        Column("parameters", "params", PARAMS, "r", is_merged=True, of=lambda row: Cell(row.parameters, instead="?")),
        Column("quantization", "quant", of=lambda row: Cell(row.quantization, mark=" *" if row.is_usual else "")),
        Column("size", unit=FILE, of=lambda row: Cell(row.size_bytes, is_approximate=row.is_computed, instead="?")),
        Column("place", "on disk", of=lambda row: Cell(row.place or None, instead="" if row.has_file else "no file known")),
        Column("fits", "fits here", align="l",
               of=lambda row: Cell(None if row.refused else row.fits, instead="cannot run" if row.refused else "?")),
        *for_programs("refused", "is_computed", "has_file", "is_usual", "verified"),
    ]  # fmt: skip
    notes = [
        "* what Ollama's bare name stood for in autumn 2024",
        "~ computed from the shape, without the vocabulary; fits here: the weights alone against this machine's memory",
    ]
    if unverified := sum(row.verified is False for row in rows):
        notes.append(f"{unverified} files were never checked against the hub; `harness models --check` asks it")
    notes += sorted({f"{row.refused}." for row in rows if row.refused})
    return Document("models", 1, "", [Section("", [Table.of("models", rows, columns, notes)])])


def describe_local(models: Sequence[LocalModel]) -> Document:
    """What is on this disk, place by place; a name stands alone in its line and whole, for it is there to be copied."""
    columns = [*for_programs("name", "place", "note"), *for_programs("size", unit=FILE)]
    columns.append(Column("path", is_shown=False, of=lambda model: str(model.path) if model.path else None))
    sections = [Section("", [Table.of("models", models, columns)])]
    for place in dict.fromkeys(model.place for model in models):
        lines: list[str] = []
        for model in (model for model in models if model.place == place):
            facts = [format_gb(model.size_bytes)] if model.size_bytes is not None else []
            lines += [model.name, "    " + "  ".join([*facts, *filter(None, [model.note])])]
        sections.append(Section(f"{place}:", [Code(lines)]))
    total = sum(model.size_bytes or 0 for model in models)
    there = f"{format_count(len(models), 'model')} on this disk, {format_gb(total)}"
    return Document("local-models", 1, "", [*sections, Section("", [Prose([there])])])


def describe_check(verdicts: Sequence[Verdict]) -> Document:
    """What the hub says of the catalog's files, and what to write into the catalog for those that were confirmed."""
    names = ("name", "quantization", "repository", "problems", "sha256", "verified")
    columns = [*for_programs(*names), *for_programs("size", unit=FILE)]
    said = [
        f"{one.name} {one.quantization}: "
        + ("; ".join(one.problems) or ("as the catalog says" if one.verified else "confirmed, not yet noted"))
        for one in verdicts
    ]
    sections = [Section("", [Table.of("verdicts", verdicts, columns), Prose(said)])]
    for one in (one for one in verdicts if not one.problems and not one.verified):
        digests = ", ".join(f'"{digest}"' for digest in one.sha256)
        lines = [f"size_bytes = {one.size_bytes}", f"sha256 = [{digests}]", "verified = true"]
        sections.append(Section(f"to note of {one.name} {one.quantization}:", [Code(lines)]))
    wrong = sum(bool(one.problems) for one in verdicts)
    asked = f"{format_count(len(verdicts), 'quantization')} asked of the hub, {wrong} of them wrong"
    return Document("catalog-check", 1, "", [*sections, Section("", [Prose([asked])])])
