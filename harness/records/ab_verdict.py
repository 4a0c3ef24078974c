"""How far the decision between two settings may be believed: each arm's repetitions are judged as a cell's."""

from __future__ import annotations

from harness.records.ab import Ab, Arm
from harness.records.cautions import CautionCause
from harness.records.cell_verdict import judge_cells
from harness.records.cells import Record
from harness.records.trust import Verdict


def judge_ab(ab: Ab) -> Verdict | None:
    """Judge both arms; None where nothing was measured.

    How wide an arm's interval is says nothing here: what both have in common cancels, and the test minds the rest. Of what disturbed
    both arms the graver is told, once.
    """
    return judge_cells([as_cell(ab, arm) for arm in Arm], ab.warnings, but={CautionCause.WIDE_INTERVAL})


def as_cell(ab: Ab, arm: Arm) -> Record:
    """An arm's repetitions as a cell that was measured by itself."""
    side = ab.side(arm)
    samples = [sample for block in ab.blocks if block.arm is arm and not block.is_trial for sample in block.samples]
    return Record(
        ab.command, ab.time_utc, side.asked, ab.machine, ab.harness_version, tuple(samples), side.build, side.model, side.resolved,
        threads_source=ab.threads_source,
    )  # fmt: skip
