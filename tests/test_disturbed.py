"""What disturbances come to over several pieces of work, and which records have such pieces."""

from __future__ import annotations

import dataclasses

import pytest

from harness.records.cautions import CautionCause
from harness.records.cells import Conditions, Sample
from harness.records.disturbed import judge_conditions
from harness.records.pieces import list_pieces
from harness.records.token_time import WARMUP_TOKENS
from harness.records.verdict import Trust, judge

from .test_bandwidth import made
from .test_doubts import comparison, raw, text  # noqa: F401
from .test_time_arithmetic import make_record

S = 10**9


def seen(**counted):
    """A second on two CPUs, both of them ours and busy with us."""
    quiet = Conditions(wall_ns=S, n_cpus=2, n_cores=2, busy_s=2.0, own_s=2.0, waited_ns=0, stolen_s=0.0)
    return dataclasses.replace(quiet, **counted)


OTHERS = {"busy_s": 2.0, "own_s": 1.0, "waited_ns": S // 2}


def judged(n_hit, n=10, n_threads=2, **counted):
    samples = [Sample(S, None, (), False, conditions=seen(**counted) if i < n_hit else seen()) for i in range(n)]
    return [(one.cause, one.distrust) for one in judge_conditions(samples, n_threads)]


@pytest.mark.parametrize(
    ("n_hit", "counted", "found"),
    [
        (10, {}, []),
        (10, {"busy_s": 8.0, "n_cpus": 8, "n_cores": 8}, []),
        (10, {"busy_s": 2.3}, [(CautionCause.OTHER_PROGRAMS, False)]),
        (10, OTHERS, [(CautionCause.OTHER_PROGRAMS, True)]),
        (4, OTHERS, [(CautionCause.OTHER_PROGRAMS, False)]),
        (10, {"stolen_s": 0.3}, [(CautionCause.TIME_STOLEN, False)]),
        (10, {"stolen_s": 1.2}, [(CautionCause.TIME_STOLEN, True)]),
        (10, {"n_held": 3, "held_s": 0.05}, [(CautionCause.QUOTA_HELD, False)]),
        (10, {"n_held": 9, "held_s": 0.9}, [(CautionCause.QUOTA_HELD, True)]),
        (1, {"n_held": 9, "held_s": 0.9}, []),
        (10, {"n_swapped_pages": 9000}, [(CautionCause.PAGES_SWAPPED, True)]),
    ],
)
def test_what_others_took_decides(n_hit, counted, found):
    assert judged(n_hit, **counted) == found


def test_more_threads_than_cpus_are_nobody_elses_doing():
    assert judged(10, n_threads=8, waited_ns=3 * S) == []


# Every kind of record has its pieces.


def test_a_time_ledger_beside_other_work(raw):  # noqa: F811
    assert judge(make_record(raw)).trust is Trust.QUIET
    quiet, busy = ([{**block, "conditions": as_json(seen(**more))} for block in raw["blocks"]] for more in ({}, OTHERS))
    record = make_record({**raw, "blocks": quiet})
    assert judge(record).trust is Trust.QUIET
    assert len(list_pieces(record)) == len(record.blocks) + len(record.loads) + len(record.applications)
    assert all(len(block.token_ns) > WARMUP_TOKENS for block in record.blocks)
    verdict = judge(make_record({**raw, "blocks": busy}))
    assert [one.cause for one in verdict.reasons] == [CautionCause.OTHER_PROGRAMS]


def as_json(conditions):
    from harness.codec import encode

    return encode(conditions)


def test_a_cold_load_reads_its_pages_from_the_disk(raw):  # noqa: F811
    raw["loads"] = [{**load, "conditions": as_json(seen(n_major_faults=50_000))} for load in raw["loads"]]
    pages = [piece.conditions.n_major_faults for piece in list_pieces(make_record(raw)) if piece.conditions]
    assert pages == [None, None, 50_000, 50_000]


def test_a_roofline_beside_other_work(recorded):
    from harness.records.roofline import Roof

    def roof(**counted):
        test = made(durations_ns=(S,) * 10, n_bytes=10**10, n_threads=2, conditions=(seen(**counted),) * 10)
        return Roof("2026-01-01T00:00:00Z", recorded[0].machine, "0.1.0", recorded[0].build, (test,))

    assert judge(roof()).trust is Trust.QUIET
    assert judge(roof(**OTHERS)).trust is Trust.NOT_TRUSTED


def test_a_text_and_a_comparison_beside_other_work(recorded):
    assert judge(text(recorded, conditions=seen())).trust is Trust.QUIET
    two = dataclasses.replace(text(recorded).asked, n_threads=2)
    assert judge(text(recorded, asked=two, conditions=seen(**OTHERS))).trust is Trust.NOT_TRUSTED
    both = comparison(recorded)
    assert judge(both).trust is Trust.QUIET
    rounds = [
        dataclasses.replace(one, direct=dataclasses.replace(one.direct, conditions=seen(**OTHERS)))
        for one in both.rounds
    ]
    task = dataclasses.replace(both.task, n_threads=2)
    assert judge(dataclasses.replace(both, task=task, rounds=tuple(rounds))).trust is Trust.NOT_TRUSTED
