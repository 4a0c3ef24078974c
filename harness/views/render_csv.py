"""A Document's main table as CSV: the names and values of JSON, true as 1, several notes in one cell."""

from __future__ import annotations

import csv
import io
from typing import Any

from harness.untrusted import harmless
from harness.views.document import Document
from harness.views.render_json import plain_rows


def render(document: Document) -> str:
    """Write a line for each row, below its names."""
    rows = [row for table in document.main_tables() for row in plain_rows(table)]
    stream = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(map(_cell, names))
    writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    return stream.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        value = "; ".join(map(str, value))
    if isinstance(value, str):
        return harmless.csv_cell(value)
    return int(value) if isinstance(value, bool) else value
