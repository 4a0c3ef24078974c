"""The output formats of measuring commands: a name, and a function from records to text. A new format is one line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.records.cells import Record
from harness.views.cells import render_markdown, render_table
from harness.views.llama_bench import render_csv, render_json, render_jsonl, render_sql

FORMATS: dict[str, Callable[[Sequence[Record]], str]] = {
    "table": render_table,
    "md": render_markdown,
    "csv": render_csv,
    "json": render_json,
    "jsonl": render_jsonl,
    "sql": render_sql,
}
