"""How far a number may be believed, in one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from harness.records.statistics import Summary
from harness.records.trust import Trust, Verdict
from harness.units import format_count
from harness.views.document import Document, Prose, Section
from harness.views.values import SHARE, format_value

#: How each verdict begins.
WORDS = {Trust.QUIET: "quiet machine", Trust.NOISY: "noisy", Trust.NOT_TRUSTED: "not to be trusted"}

#: So many cells are told one by one; of more only how many there are, for each has its footnote.
MAX_TOLD = 3


def describe_verdict(verdict: Verdict) -> str:
    """The verdict on one record with its reasons, without a full stop."""
    return ": ".join(filter(None, (WORDS[verdict.trust], "; ".join(reason.text for reason in verdict.reasons))))


def describe_verdicts(judged: Sequence[tuple[str, Summary]]) -> str:
    """The verdict on cells that were measured together, each with what it is called: the gravest and where it holds.

    Raises
    ------
    ValueError : there is none.
    """
    gravest = max((summary.verdict.trust for _, summary in judged), key=list(Trust).index)
    found = [(name, summary) for name, summary in judged if summary.verdict.trust is gravest]
    if gravest is Trust.QUIET:
        return f"{WORDS[gravest]}: {_count_repetitions(judged)}"
    if len(judged) == 1:
        return describe_verdict(found[0][1].verdict)
    if len(found) > MAX_TOLD:
        return f"{WORDS[gravest]}: {len(found)} of {format_count(len(judged), 'cell')}, for the reasons above"
    told = [f"{name} ({'; '.join(reason.text for reason in one.verdict.reasons)})" for name, one in found]
    return f"{WORDS[gravest]}: {', '.join(told)}"


def _count_repetitions(judged: Sequence[tuple[str, Summary]]) -> str:
    """How many repetitions there were, and how wide the widest interval is."""
    counts = sorted({summary.n_samples for _, summary in judged})
    many = format_count(counts[-1], "repetition")
    repetitions = many if len(counts) == 1 else f"{counts[0]}–{many}"
    widths = [summary.half_width for _, summary in judged]
    if any(width is None for width in widths):
        return f"{repetitions}, too few for an interval"
    return f"{repetitions}, ± {format_value(max(width or 0 for width in widths), SHARE)}"


#: Stands behind a value of a table that is not to be trusted; `MARK_MEANS` is the note under it.
MARK, MARK_MEANS = "!", "! is not to be trusted."


def with_verdict(document: Document, verdict: Verdict | None) -> Document:
    """The document with the verdict as its last line, and for programs as ``trust`` and ``reasons``.

    A caution that is one of its reasons is told there, and not once more as a warning. Unchanged where nothing was judged.
    """
    if verdict is None:
        return document
    told = {reason.text for reason in verdict.reasons}
    return dataclasses.replace(
        document,
        sections=[*document.sections, Section("", [Prose([describe_verdict(verdict)])])],
        warnings=[warning for warning in document.warnings if warning not in told],
        data={**document.data, "trust": verdict.trust.value, "reasons": plain_reasons(verdict)},
    )


@dataclass(frozen=True, slots=True)
class PlainReason:
    """What programs get of a reason."""

    cause: str
    text: str
    distrust: bool


def plain_reasons(verdict: Verdict | None) -> tuple[PlainReason, ...]:
    """The reasons for programs; none where nothing was judged."""
    reasons = verdict.reasons if verdict else ()
    return tuple(PlainReason(one.cause.value, one.text, one.distrust) for one in reasons)
