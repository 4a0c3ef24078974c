"""The catalog as a table of 80 columns, or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from harness.sources.catalog_check import Verdict
from harness.sources.local import LocalModel
from harness.units import format_gb, format_params
from harness.untrusted import harmless
from harness.views import page


@dataclass(frozen=True, slots=True)
class Row:
    """One quantization of one model.

    size_bytes is the file's, known or computed from the shape (then is_computed). place is embedded, downloaded, synthetic or empty;
    has_file says that the catalog knows a file to pull. fits is None where a size is not known. is_usual marks what Ollama's bare name
    stood for in autumn 2024; verified is None where there is no file.
    """

    name: str
    parameters: int | None
    quantization: str
    size_bytes: int | None
    is_computed: bool
    place: str
    fits: bool | None
    refused: str | None = None
    has_file: bool = True
    is_usual: bool = False
    verified: bool | None = None


def render_models(rows: Sequence[Row]) -> str:
    """A plain table, each name once; sizes with ~ are computed from the shape, without the header's few MB."""
    table = [
        {
            "name": row.name if is_first else "",
            "params": (format_params(row.parameters) if row.parameters else "?") if is_first else "",
            "quant": row.quantization + (" *" if row.is_usual else ""),
            "size": ("~" if row.is_computed else "") + format_gb(row.size_bytes) if row.size_bytes else "?",
            "on disk": row.place or ("—" if row.has_file else "no file known"),
            "fits here": "cannot run" if row.refused else {True: "yes", False: "no", None: "?"}[row.fits],
        }
        for row, is_first in zip(rows, _mark_first(rows), strict=True)
    ]
    return "\n".join([page.table(table, "lrlrll"), "", *_explain(rows)]) + "\n"


def _mark_first(rows: Sequence[Row]) -> list[bool]:
    return [index == 0 or rows[index - 1].name != row.name for index, row in enumerate(rows)]


def _explain(rows: Sequence[Row]) -> list[str]:
    notes = [
        "* what Ollama's bare name stood for in autumn 2024",
        "~ computed from the shape, without the vocabulary; fits here: the weights alone against this machine's memory",
    ]
    unverified = sum(row.verified is False for row in rows)
    if unverified:
        notes.append(f"{unverified} files were never checked against the hub; `harness models --check` asks it")
    notes += sorted({f"{row.refused}." for row in rows if row.refused})
    return [page.fill(note) for note in notes]


def render_models_json(rows: Sequence[Row]) -> str:
    return harmless.json_text([asdict(row) for row in rows]) + "\n"


def render_local(models: Sequence[LocalModel]) -> str:
    """What is on this disk, place by place; a name stands alone in its line and whole, for it is there to be copied."""
    lines: list[str] = []
    for place in dict.fromkeys(model.place for model in models):
        lines += [f"{place}:"]
        for model in (model for model in models if model.place == place):
            size = "" if model.size_bytes is None else format_gb(model.size_bytes)
            facts = "  ".join(filter(None, [size, model.note]))
            lines += [f"  {model.name}", page.fill(facts, first="      ", rest="      ")]
        lines.append("")
    total = sum(model.size_bytes or 0 for model in models)
    return "\n".join([*lines, f"{len(models)} models on this disk, {format_gb(total)}"]) + "\n"


def render_local_json(models: Sequence[LocalModel]) -> str:
    rows = [{**asdict(model), "path": str(model.path) if model.path else None} for model in models]
    return harmless.json_text(rows) + "\n"


def render_check(verdicts: Sequence[Verdict]) -> str:
    """What the hub says of the catalog's files: a line each, and what to write into the catalog for those that were confirmed."""
    lines = []
    for verdict in verdicts:
        what = "; ".join(verdict.problems) or (
            "as the catalog says" if verdict.verified else "confirmed, not yet noted"
        )
        lines.append(page.fill(f"{verdict.name} {verdict.quantization}: {what}"))
        if not verdict.problems and not verdict.verified:
            digests = ", ".join(f'"{digest}"' for digest in verdict.sha256)
            lines += [f"  size_bytes = {verdict.size_bytes}", f"  sha256 = [{digests}]", "  verified = true"]
    wrong = sum(bool(verdict.problems) for verdict in verdicts)
    total = page.fill(f"{len(verdicts)} quantizations asked of the hub, {wrong} of them wrong")
    return "\n".join([*lines, "", total]) + "\n"


def render_check_json(verdicts: Sequence[Verdict]) -> str:
    return harmless.json_text([asdict(verdict) for verdict in verdicts]) + "\n"
