"""How far any record may be believed: one judge a class of record, and one place that asks them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.records.ab import Ab
from harness.records.ab_verdict import judge_ab
from harness.records.cell_verdict import judge_cell
from harness.records.cells import Record
from harness.records.kinds import Entry
from harness.records.trust import Trust as Trust
from harness.records.trust import Verdict as Verdict

#: The judge of each class of record: a verdict, or None where the record says nothing of what disturbed it.
JUDGES: dict[type, Callable[[Any], Verdict | None]] = {
    Record: judge_cell,
    Ab: judge_ab,
}


def judge(entry: Entry) -> Verdict | None:
    """How far a record may be believed; None where it says nothing: an older one, or one without a number."""
    return JUDGES.get(type(entry), _judge_cautions)(entry)


def _judge_cautions(entry: Entry) -> Verdict | None:
    """Of a record that nobody judges more closely: what its own cautions forbid."""
    reasons = [caution for caution in getattr(entry, "warnings", ()) if caution.distrust]
    return Verdict.of(reasons) if reasons else None
