"""The list of what was kept: a row a journal, or a row a record."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records.kept import Kept
from harness.views.document import Column, Document, Section, Table
from harness.views.values import COUNT, MINUTE

#: Tests of a journal that are named; of more, how many there are.
_NAMED_TESTS = 2


def describe_kept(groups: Sequence[tuple[str, str, Sequence[Kept]]]) -> Document:
    """Groups of records, each with the name by which commands take it and its file: when, what, of which model, how many, the label."""
    columns = [
        Column("name", of=lambda group: group[0]),
        Column("time_utc", "when (UTC)", MINUTE, of=lambda group: group[2][0].time_utc),
        Column("kind", "what", of=lambda group: _join([one.kind for one in group[2]])),
        Column("model", of=lambda group: _join([one.model.removesuffix(".gguf") for one in group[2]])),
        Column("test", "tests", left_out=2, of=lambda group: _join([one.test for one in group[2]])),
        Column("n_records", "records", COUNT, left_out=3, of=lambda group: len(group[2])),
        Column("n_failed", "failed", COUNT, left_out=1, of=lambda group: sum(one.failed for one in group[2]) or None),
        Column("label", wraps=True, of=lambda group: _join([one.label for one in group[2]])),
        Column("machine", shared="{}", left_out=1, of=lambda group: group[2][0].machine.cpu),
        Column("file", is_shown=False, of=lambda group: group[1]),
    ]
    return Document("kept", 1, "", [Section("", [Table.of("records", groups, columns, missing="")])])


def _join(texts: Sequence[str]) -> str | None:
    """Each text once; of many how many others there are."""
    found = list(dict.fromkeys(filter(None, texts)))
    more = f" +{len(found) - _NAMED_TESTS}" if len(found) > _NAMED_TESTS else ""
    return ", ".join(found[:_NAMED_TESTS]) + more or None
