"""A Document's main table as lines of JSON, each complete in itself."""

from __future__ import annotations

from harness.untrusted import harmless
from harness.views.document import Document
from harness.views.render_json import plain_rows


def render(document: Document) -> str:
    """Write a line for each row."""
    rows = [row for table in document.main_tables() for row in plain_rows(table)]
    about = {"schema": document.schema, "kind": document.kind}
    return "".join(harmless.json_text({**about, **row}, indent=None) + "\n" for row in rows)
