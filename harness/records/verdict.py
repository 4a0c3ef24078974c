"""How far any record may be believed: one judge a class of record, and one place that asks them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

from harness.records.ab import Ab
from harness.records.ab_verdict import judge_ab
from harness.records.cautions import Caution
from harness.records.cell_verdict import judge_cell, own_noise
from harness.records.cells import Record
from harness.records.disturbed import judge_conditions
from harness.records.doubts import gravest
from harness.records.kinds import Content
from harness.records.memory import MemoryRecord
from harness.records.noise import NoiseRecord, each_test
from harness.records.ollama import Comparison
from harness.records.parity import Parity
from harness.records.pieces import list_pieces
from harness.records.plausibility import (
    doubt_comparison,
    doubt_memory,
    doubt_parity,
    doubt_quality,
    doubt_roof,
    doubt_speculation,
    doubt_text,
)
from harness.records.quality import QualityRecord
from harness.records.roofline import Roof, latest
from harness.records.speculation import Speculation
from harness.records.statistics import Digest
from harness.records.text import JudgedText, TextRun
from harness.records.time_doubts import find_time_doubts
from harness.records.token_time import TimeRecord
from harness.records.trust import Trust as Trust
from harness.records.trust import Verdict as Verdict
from harness.records.tuning import TuneRecord
from harness.records.tuning_verdict import judge_tuning


def _judge_time(record: TimeRecord) -> Verdict | None:
    is_timed = record.blocks or record.loads or record.applications
    if not is_timed:
        return None
    return _weigh(
        record, find_time_doubts(record), judge_conditions(list_pieces(record), record.asked.spec.n_threads or 1)
    )


def _judge_memory(record: MemoryRecord) -> Verdict | None:
    """Of a forecast alone there is nothing to say: nothing was measured."""
    return _weigh(record, doubt_memory(record)) if record.measurement is not None else None


def _judge_roof(roof: Roof) -> Verdict | None:
    if not roof.tests:
        return None
    seen = (judge_conditions(list_pieces(test), test.n_threads or 1) for test in roof.tests)
    return _weigh(roof, doubt_roof(roof), chain.from_iterable(seen))


def _judge_text(run: TextRun) -> Verdict | None:
    verdict = _weigh(run, doubt_text(run), judge_conditions(list_pieces(run), run.asked.n_threads or 1))
    return verdict if run.figures.eval_duration_ns or verdict.reasons else None


def _judge_comparison(comparison: Comparison) -> Verdict | None:
    pieces = [piece for turn in comparison.rounds for piece in list_pieces(turn.direct)]
    return _weigh(comparison, doubt_comparison(comparison), judge_conditions(pieces, comparison.task.n_threads or 1))


def _judge_parity(parity: Parity) -> Verdict | None:
    return _weigh(parity, doubt_parity(parity))


def _judge_noise(record: NoiseRecord) -> Verdict | None:
    """By each of its tests, as a cell is judged."""
    found = [verdict for cell in each_test(record) if (verdict := judge_cell(cell)) is not None]
    return _weigh(record, [reason for verdict in found for reason in verdict.reasons]) if found else None


def _judge_quality(record: QualityRecord) -> Verdict | None:
    """What a busy machine disturbs is how long it takes, and nothing that is kept of it."""
    return _weigh(record, doubt_quality(record)) if record.windows else None


def _judge_speculation(record: Speculation) -> Verdict | None:
    if not record.passages:
        return None
    n_threads = record.target.asked.n_threads or 1
    return _weigh(record, doubt_speculation(record), judge_conditions(list_pieces(record), n_threads))


def _weigh(record: Any, doubts: Iterable[Caution], disturbances: Iterable[Caution] = ()) -> Verdict:
    """The verdict by a record's own cautions, as far as they speak of noise, by what disturbed it, and by doubts: of each cause the
    gravest."""
    return Verdict.of([*own_noise(getattr(record, "warnings", ())), *gravest(disturbances), *gravest(doubts)])


#: The judge of each class of record: a verdict, or None where nothing was measured.
JUDGES: dict[type, Callable[[Any], Verdict | None]] = {
    Record: judge_cell,
    TimeRecord: _judge_time,
    MemoryRecord: _judge_memory,
    Roof: _judge_roof,
    TextRun: _judge_text,
    Comparison: _judge_comparison,
    Parity: _judge_parity,
    NoiseRecord: _judge_noise,
    Ab: judge_ab,
    QualityRecord: _judge_quality,
    TuneRecord: judge_tuning,
    Speculation: _judge_speculation,
}

#: What is condensed was judged as it was read: the verdict stands on what is not held.
JUDGED: dict[type, Callable[[Any], Verdict | None]] = {
    Digest: lambda cell: cell.summary.verdict,
    JudgedText: lambda run: run.verdict,
}


def judge(entry: Content) -> Verdict | None:
    """How far a record may be believed; None where nothing was measured."""
    kind = type(entry)
    return (JUDGES.get(kind) or JUDGED[kind])(entry)


def judge_all(entries: Iterable[Content]) -> Verdict | None:
    """The verdict on what several records say together, which is no better than the worst of them; None where nothing was measured."""
    return gravest_verdict([judge(entry) for entry in entries])


def gravest_verdict(verdicts: Iterable[Verdict | None]) -> Verdict | None:
    """The verdict on a whole that some were given on its parts: of each cause the gravest reason; None where no part was judged."""
    found = [verdict for verdict in verdicts if verdict is not None]
    return Verdict.of(gravest(reason for verdict in found for reason in verdict.reasons)) if found else None


def speaking_roof(roofs: Sequence[Roof]) -> Roof | None:
    """Of a machine's roofs the latest that may be believed; of none such the latest."""
    believed = [roof for roof in roofs if (verdict := judge(roof)) and verdict.trust is not Trust.NOT_TRUSTED]
    return latest(believed or roofs)
