"""The list of what was kept: a row a journal, or a row a record."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records.kept import Kept
from harness.records.verdict import Trust
from harness.views.document import Column, Document, Section, Table
from harness.views.values import COUNT, MINUTE

#: Tests of a journal that are named; of more, how many there are.
_NAMED_TESTS = 2

#: How each verdict is called in the narrow column of a list.
_WORDS = {Trust.QUIET: "quiet", Trust.NOISY: "noisy", Trust.NOT_TRUSTED: "not trusted"}


def describe_kept(groups: Sequence[tuple[str, str, Sequence[Kept]]]) -> Document:
    """Groups of records, each with the name by which commands take it and its file: when, what, of which model, how many, the label."""
    columns = [
        Column("name", of=lambda group: group[0]),
        Column("time_utc", "when (UTC)", MINUTE, of=lambda group: group[2][0].time_utc),
        Column("kind", "what", of=lambda group: _join([one.kind for one in group[2]])),
        Column("model", of=lambda group: _join([one.model.removesuffix(".gguf") for one in group[2]])),
        Column("test", "tests", left_out=4, of=lambda group: _join([one.test for one in group[2]])),
        Column("n_records", "records", COUNT, left_out=3, of=lambda group: len(group[2])),
        Column("n_failed", "failed", COUNT, left_out=2, of=lambda group: sum(one.failed for one in group[2]) or None),
        Column("verdict", left_out=1, of=lambda group: _describe_trust(group[2])),
        Column("trust", is_shown=False, of=lambda group: (worst := _find_worst(group[2])) and worst.value),
        Column("label", wraps=True, of=lambda group: _join([one.label for one in group[2]])),
        Column("machine", shared="{}", left_out=1, of=lambda group: group[2][0].machine.cpu),
        Column("file", is_shown=False, of=lambda group: group[1]),
    ]
    return Document("kept", 1, "", [Section("", [Table.of("records", groups, columns, missing="")])])


def _find_worst(kept: Sequence[Kept]) -> Trust | None:
    """How far the least of them may be believed; None where none was measured."""
    return max((one.trust for one in kept if one.trust), key=list(Trust).index, default=None)


def _describe_trust(kept: Sequence[Kept]) -> str | None:
    """The same in words, and of how many of several it is true."""
    worst = _find_worst(kept)
    if worst is None:
        return None
    n_worst = sum(one.trust is worst for one in kept)
    is_some = worst is not Trust.QUIET and n_worst < len(kept)
    return _WORDS[worst] + (f" {n_worst}/{len(kept)}" if is_some else "")


def _join(texts: Sequence[str]) -> str | None:
    """Each text once; of many how many others there are."""
    found = list(dict.fromkeys(filter(None, texts)))
    more = f" +{len(found) - _NAMED_TESTS}" if len(found) > _NAMED_TESTS else ""
    return ", ".join(found[:_NAMED_TESTS]) + more or None
