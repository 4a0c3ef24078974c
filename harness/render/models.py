"""The catalog as a table of 80 columns, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tabulate import tabulate

from harness.units import format_gb, format_params


@dataclass(frozen=True, slots=True)
class Row:
    """One quantization of one model. place is embedded, downloaded, synthetic or empty; fits is None where a size is not known.

    size_bytes is the file's, known or computed from the shape (then is_computed).
    """

    name: str
    parameters: int | None
    quantization: str
    size_bytes: int | None
    is_computed: bool
    place: str
    fits: bool | None
    refused: str | None = None


def render_models(rows: Sequence[Row]) -> str:
    """A plain table; sizes with ~ are computed from the shape, without the header's few MB."""
    table = [
        {
            "name": row.name,
            "params": format_params(row.parameters) if row.parameters else "?",
            "quant": row.quantization,
            "size": ("~" if row.is_computed else "") + format_gb(row.size_bytes) if row.size_bytes else "?",
            "on disk": row.place or "—",
            "fits here": "cannot run" if row.refused else {True: "yes", False: "no", None: "?"}[row.fits],
        }
        for row in rows
    ]
    align = ["left", "right", "left", "right", "left", "left"]
    text = tabulate(table, headers="keys", tablefmt="simple", disable_numparse=True, colalign=align)
    notes = ["~ computed from the shape; fits here: the weights alone against this machine's memory"]
    notes += sorted({f"{row.refused}." for row in rows if row.refused})
    return "\n".join([text, "", *notes]) + "\n"


def render_models_json(rows: Sequence[Row]) -> str:
    return json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False) + "\n"
