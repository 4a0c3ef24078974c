"""A Document as JSON: ``schema``, ``kind``, ``title``, then each key figure and table by its name, and ``warnings``, a list.

Values are in base units, which their names end in; what has no value is null. `plain_values` and `plain_rows` are what the other
formats for programs are made of.
"""

from __future__ import annotations

from typing import Any

from harness.codec import encode
from harness.untrusted import harmless
from harness.views.document import Cell, Column, Document, KeyFigures, Row, Table
from harness.views.values import Unit, full_name


def render(document: Document) -> str:
    """Write everything."""
    return harmless.json_text(plain_values(document)) + "\n"


def plain_values(document: Document) -> dict[str, Any]:
    """The document as plain JSON values."""
    values: dict[str, Any] = {"schema": document.schema, "kind": document.kind, "title": document.title}
    for block in (block for section in document.sections for block in section.blocks):
        if isinstance(block, KeyFigures):
            found = values.setdefault(block.name, {}) if block.name else values
            for figure in block.figures:
                found |= _plain_cell(figure.cell, figure.name, figure.cell.unit)
        elif isinstance(block, Table) and not block.is_for_people:
            values.setdefault(block.name, []).extend(plain_rows(block))
    return values | encode(dict(document.data), keep_paths=True) | {"warnings": list(document.warnings)}


def plain_rows(table: Table) -> list[dict[str, Any]]:
    """Each row but totals by the names of its columns; ``notes`` has its footnotes where any row of the table has some."""
    lines = table.lines()
    has_notes = any(cell.notes for _, cells in lines for cell in cells)
    return [_plain_row(table, row, cells, has_notes) for row, cells in lines if not row.is_total]


def _plain_row(table: Table, row: Row, cells: list[Cell], has_notes: bool) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for column, cell in zip(table.columns, cells, strict=True):
        values |= _plain_cell(cell, column.name, cell.unit or column.unit, column)
    if has_notes:
        values["notes"] = list(dict.fromkeys(note for cell in cells for note in cell.notes))
    return values


def _plain_cell(cell: Cell, name: str, unit: Unit | None, column: Column | None = None) -> dict[str, Any]:
    values = {full_name(name, unit): encode(cell.value)}
    if cell.interval is not None or (column is not None and column.interval):
        low, high = cell.interval or (None, None)
        values |= {full_name(f"{name}_{end}", unit): value for end, value in (("low", low), ("high", high))}
    return values
