"""How far a search for settings may be believed: the defaults' repetitions and the result's are judged as cells'."""

from __future__ import annotations

from harness.records.cautions import CautionCause
from harness.records.cell_verdict import judge_cells
from harness.records.cells import Record, Sample
from harness.records.trust import Verdict
from harness.records.tuning import Part, TuneBlock, TuneRecord, short_test
from harness.spec import RunSpec

#: How wide an interval is, or that there are two speeds, says nothing here: what both sides have in common cancels, and the tests mind
#: the rest.
_MINDED = {CautionCause.WIDE_INTERVAL, CautionCause.TWO_SPEEDS}


def judge_tuning(record: TuneRecord) -> Verdict | None:
    """Judge the baseline and the confirmation; None where nothing was measured.

    Blocks of races have no conditions: they only choose what is then confirmed.
    """
    of_base = [*record.baseline, *(block for block in record.confirmation if block.candidate == 0)]
    of_found = [block for block in record.confirmation if block.candidate == 1]
    cells = [
        cell
        for spec, blocks in ((record.base, of_base), (record.found if of_found else record.base, of_found))
        for part in Part
        if (cell := _as_cell(record, spec, part, blocks)) is not None
    ]
    return judge_cells(cells, record.warnings, but=_MINDED)


def _as_cell(record: TuneRecord, spec: RunSpec, part: Part, blocks: list[TuneBlock]) -> Record | None:
    """The repetitions of one part as a cell that was measured by itself."""
    samples = [
        Sample(duration_ns, None, (), is_warmup=False, conditions=conditions)
        for block in blocks
        if block.part is part
        for duration_ns, conditions in zip(
            block.durations_ns, block.conditions or (None,) * len(block.durations_ns), strict=True
        )
    ]
    if not samples or record.tests is None:
        return None
    return Record(
        record.command, record.time_utc, short_test(spec, part, record.tests), record.machine, record.harness_version, tuple(samples),
        record.build, record.model, threads_source=record.threads_source,
    )  # fmt: skip
