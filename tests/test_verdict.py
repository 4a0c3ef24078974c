"""Every kind of record has a judge, and what the judge says decides the exit code."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from harness.errors import Outcome
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Record
from harness.records.kinds import KINDS, read_line
from harness.records.verdict import JUDGES, Trust, judge, judge_all, speaking_roof
from harness.runs.session import Session

from .test_doubts import DISTURBED, KEPT, read

BUSY = Caution(CautionCause.BUSY_MACHINE, cpus_lost=1.2, n_cpus=2, n_threads=2)


def test_every_kind_of_record_has_a_judge():
    assert set(JUDGES) == set(KINDS.values()), "a new kind of record says how far it may be believed"


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_what_was_kept_on_a_quiet_machine_may_be_believed(path):
    for record in read(path):
        verdict = None if isinstance(record, Record) else judge(record)
        assert verdict is None or verdict.trust is not Trust.NOT_TRUSTED, [reason.text for reason in verdict.reasons]


def test_a_disturbed_ledger_ends_with_its_exit_code(tmp_path):
    """Its own caution aside: what it holds is enough."""
    (record,) = (dataclasses.replace(one, warnings=()) for one in read(DISTURBED))
    verdict = judge(record)
    assert verdict.trust is Trust.NOT_TRUSTED
    assert len({reason.cause for reason in verdict.reasons}) == len(verdict.reasons), "of each cause one"
    with Session("token-time", tmp_path) as session:
        session.keep(record)
        assert session.outcome is Outcome.NOT_TRUSTED


def test_cautions_of_what_was_asked_for_are_no_noise(recorded):
    from .test_doubts import text

    asked = Caution(CautionCause.CONTEXT_BEYOND_TRAINING, n_ctx=2, n_ctx_train=1)
    assert judge(text(recorded, warnings=(asked,))).trust is Trust.QUIET
    assert judge(text(recorded, warnings=(BUSY,))).trust is Trust.NOISY
    assert judge(text(recorded, warnings=(dataclasses.replace(BUSY, distrust=True),))).trust is Trust.NOT_TRUSTED


def test_several_records_are_as_good_as_the_worst(recorded):
    from .test_doubts import text

    quiet, noisy = text(recorded), text(recorded, warnings=(BUSY,))
    assert judge_all([quiet, noisy]).trust is Trust.NOISY
    assert judge_all([quiet, quiet]).trust is Trust.QUIET
    assert judge_all([]) is None


def test_what_measured_nothing_is_not_judged(recorded):
    line = json.loads((pathlib.Path(__file__).parent / "recorded" / "pp-tg.jsonl").read_text().splitlines()[0])
    unmeasured = dataclasses.replace(read_line(line).content, samples=())
    assert judge(unmeasured) is None


def test_of_several_roofs_the_latest_that_may_be_believed_speaks(recorded):
    from harness.records.roofline import Roof

    from .test_bandwidth import made

    def roof(day, *, is_wrong=False):
        test = made(max_error=1.0 if is_wrong else 0.0, durations_ns=(10**6,) * 10)
        return Roof(f"2026-01-0{day}T00:00:00Z", recorded[0].machine, "0", recorded[0].build, (test,))

    first, second, wrong = roof(1), roof(2), roof(3, is_wrong=True)
    assert speaking_roof([first, second, wrong]) is second
    assert speaking_roof([wrong]) is wrong
    assert speaking_roof([]) is None


def test_a_document_ends_with_its_verdict_and_says_it_to_programs():
    from harness.views.formats import render
    from harness.views.token_time import describe_token_time

    (record,) = read(DISTURBED)
    document = describe_token_time(record, "tiny")
    assert "not to be trusted: busy machine" in render(document, "table").partition("why an application")[2]
    plain = json.loads(render(document, "json"))
    assert plain["trust"] == "not-to-be-trusted"
    assert {"rounds-disagree", "below-zero"} <= {reason["cause"] for reason in plain["reasons"]}
    assert plain["warnings"] == [], "a reason is told once"
    assert "10 ms!" in render(document, "table"), "and its figures are marked"
