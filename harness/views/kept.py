"""The list of what was kept: a row a journal, or a row a record."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records.kept import Kept
from harness.views.document import Column, Document, Section, Table
from harness.views.values import COUNT

#: Tests of a journal that are named; of more, how many there are.
_NAMED_TESTS = 2


def describe_kept(groups: Sequence[tuple[str, str, Sequence[Kept]]]) -> Document:
    """Groups of records, each with the name by which commands take it and its file: when, what, of which model, how many, the label."""
    columns = [
        Column("name"),
        Column("time_utc", "when (UTC)"),
        Column("kind", "what"),
        Column("model"),
        Column("test", "tests", left_out=2),
        Column("n_records", "records", COUNT, left_out=3),
        Column("n_failed", "failed", COUNT),
        Column("label", wraps=True),
        Column("machine", shared="{}", left_out=1),
        Column("file", is_shown=False),
    ]
    rows = [
        (
            name,
            kept[0].time_utc[:16].replace("T", " "),
            _join([one.kind for one in kept]),
            _join([one.model.removesuffix(".gguf") for one in kept]),
            _join([one.test for one in kept]),
            len(kept),
            sum(one.failed for one in kept) or None,
            _join([one.label for one in kept]),
            kept[0].machine.cpu,
            file,
        )
        for name, file, kept in groups
    ]
    return Document("kept", 1, "", [Section("", [Table("records", columns, rows, missing="")])])


def _join(texts: Sequence[str]) -> str | None:
    """Each text once; of many how many others there are."""
    found = list(dict.fromkeys(filter(None, texts)))
    more = f" +{len(found) - _NAMED_TESTS}" if len(found) > _NAMED_TESTS else ""
    return ", ".join(found[:_NAMED_TESTS]) + more or None
