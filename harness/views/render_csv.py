"""A Document's main table as CSV: the names and values of JSON, true as 1, several notes in one cell."""

from __future__ import annotations

import csv
import io
from typing import Any

from harness.untrusted import harmless
from harness.views.document import Document
from harness.views.render_json import plain_rows

#: What spreadsheets part cells by where the decimal sign is a comma, beside the comma itself.
_SEPARATORS = frozenset(";\t|")


def render(document: Document) -> str:
    """Write a line for each row, below its names."""
    rows = [row for table in document.main_tables() for row in plain_rows(table)]
    stream = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.writer(stream, lineterminator="\n")
    quoting = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for values in (names, *([row.get(name) for name in names] for row in rows)):
        cells = [_cell(value) for value in values]
        # A spreadsheet that separates by something else finds no cell of its own in a quoted one.
        is_parted = any(isinstance(cell, str) and _SEPARATORS & set(cell) for cell in cells)
        (quoting if is_parted else writer).writerow(cells)
    return stream.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        value = "; ".join(map(str, value))
    if isinstance(value, str):
        return harmless.csv_cell(value)
    return int(value) if isinstance(value, bool) else value
