"""`harness ab`: two settings by turns until a sequential test knows, on a worker that says known durations."""

from __future__ import annotations

import dataclasses
import json
import os
import sys

import pytest
from click.testing import CliRunner

import harness
from harness.cli import cli
from harness.errors import NativeError, Outcome, UsageError
from harness.events import Measured, Progress, Remark
from harness.evidence.sequential import Decision
from harness.records.ab import Ab, Arm, Stop, replay
from harness.records.cells import Conditions
from harness.records.failures import Cause
from harness.records.journal import read_lines
from harness.records.kinds import read_line, to_json
from harness.records.verdict import Trust, judge
from harness.runs import ab as run
from harness.runs import worker
from harness.runs.ab import AbRequest, ArmQuestion, ArmRequest, choose_repetitions, measure_ab, plan_ab
from harness.runs.session import Session
from harness.spec import RunSpec
from harness.views.ab import describe_ab
from harness.views.formats import render

from .conftest import HERE

GOLDEN = HERE / "golden"


@pytest.fixture
def file(tmp_path):
    """A file to name; the worker that says durations opens none."""
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF")
    return str(path)


@pytest.fixture(autouse=True)
def from_the_checkout(monkeypatch):
    monkeypatch.chdir(HERE.parent)


def request_of(file, *tests, **manner):
    tests = tests or ({"n_gen": 8},)
    a = ArmRequest(tuple(RunSpec(file, n_threads=1, **test) for test in tests))
    b = ArmRequest(tuple(RunSpec(file, n_threads=1, n_ubatch=256, **test) for test in tests))
    return AbRequest(a, b, **{"repetitions": 2, **manner})


def decide(how, request, *, results=None, on_event=lambda _event: None, **more):
    command = (sys.executable, "-m", "tests.ab_worker", how)
    with Session("ab", results, worker_command=command, on_event=on_event) as session:
        records = measure_ab(request, session, **more)
    return records, session


def test_equal_settings_have_no_difference(file):
    [record], session = decide("equal", request_of(file))
    test = replay(record)
    assert (record.stop, test.decision) == (Stop.DECIDED, Decision.NO_DIFFERENCE)
    assert session.outcome is Outcome.OK
    assert -0.01 < test.ratio.low < 1 < test.ratio.high < 1.01


def test_three_percent_are_found(file):
    [record], session = decide("slower", request_of(file))
    test = replay(record)
    assert (record.stop, test.decision) == (Stop.DECIDED, Decision.SLOWER)
    assert test.ratio.value == pytest.approx(1.03, abs=0.003)
    assert session.outcome is Outcome.OK


def test_a_drift_is_nobodys_difference(file):
    [record], _ = decide("drifting", request_of(file, margin=0.02))
    assert replay(record).decision in (Decision.NO_DIFFERENCE, Decision.UNDECIDED)


def test_what_cannot_be_decided_in_time_is_said_so(file):
    ticks = iter(range(10_000))
    [record], session = decide("wild", request_of(file, max_time_s=60.0), clock=lambda: next(ticks))
    assert record.stop is Stop.TIME
    assert replay(record).decision is Decision.UNDECIDED
    assert 60 <= record.elapsed_ns / 1e9 < 80
    assert session.outcome is Outcome.OK
    assert "not decided within 60 s: B is between" in render(describe_ab([record]), "table")


def test_a_worker_that_dies_in_a_block_costs_the_rest_and_not_what_was_measured(file, results):
    [record], session = decide("dying", request_of(file), results=results)
    assert session.outcome is Outcome.NATIVE
    assert (record.stop, record.failed_arm, record.failure.cause) == (Stop.FAILED, Arm.B, Cause.EXIT)
    assert 4 <= len(record.pairs) <= 6
    assert "B failed after" in " ".join(render(describe_ab([record]), "table").split())
    assert len(list(read_lines([session.journals[0]], pytest.fail))) == 1


def test_an_arm_that_cannot_be_loaded_is_a_failure_with_its_sentence(file):
    [record], session = decide("refusing", request_of(file))
    assert session.outcome is not Outcome.OK
    assert (record.stop, record.failed_arm) == (Stop.FAILED, Arm.B)
    assert record.pairs == []
    assert describe_ab([record])


def test_the_next_test_is_measured_after_a_death(file):
    records, _ = decide("dying", request_of(file, {"n_gen": 8}, {"n_prompt": 16}))
    assert [record.stop for record in records] == [Stop.FAILED, Stop.FAILED]
    assert [record.a.asked.test for record in records] == ["tg8", "pp16"]
    assert all(len(record.pairs) >= 4 for record in records), "by a worker of its own"


def test_a_hang_is_ended_by_the_cells_limit(file):
    [record], _ = decide("hanging", request_of(file, cell_timeout_s=1.0))
    assert (record.stop, record.failure.cause) == (Stop.FAILED, Cause.TIMEOUT)


def test_an_interrupt_keeps_what_was_measured(file, results):
    def interrupt(event):
        if isinstance(event, Progress) and event.task.startswith("tg8: pair 3"):
            raise KeyboardInterrupt

    [record], session = decide("wild", request_of(file), results=results, on_event=interrupt)
    assert session.outcome is Outcome.INTERRUPTED
    assert (record.stop, len(record.pairs)) == (Stop.INTERRUPTED, 3)
    assert "interrupted after 3 pairs" in render(describe_ab([record]), "table")


def test_order_is_random_by_the_seed_and_both_orders_occur(file):
    def order(seed):
        [record], _ = decide("wild", request_of(file, seed=seed))
        return [block.arm for block in record.blocks]

    first = order(0)
    assert first == order(0)
    assert first != order(1)
    pairs = [tuple(first[at : at + 2]) for at in range(0, len(first), 2)]
    assert set(pairs) == {(Arm.A, Arm.B), (Arm.B, Arm.A)}


def test_trial_blocks_are_kept_and_count_for_nothing(file):
    [record], _ = decide("equal", request_of(file))
    assert [block.is_trial for block in record.blocks[:3]] == [True, True, False]
    assert 2 * len(record.pairs) == len(record.blocks) - 2


def test_several_tests_share_alpha(file):
    records, _ = decide("equal", request_of(file, {"n_gen": 8}, {"n_prompt": 16}))
    assert [replay(record).alpha for record in records] == [0.025, 0.025]


def test_a_record_is_read_as_it_was_written(file):
    [record], _ = decide("slower", request_of(file))
    line = read_line(json.loads(json.dumps(to_json(record))))
    assert line.kind == "ab"
    named = dataclasses.replace(
        record,
        a=dataclasses.replace(record.a, asked=dataclasses.replace(record.a.asked, model="x.gguf")),
        b=dataclasses.replace(record.b, asked=dataclasses.replace(record.b.asked, model="x.gguf")),
    )
    assert line.content == named
    assert replay(line.content) == replay(record)


def test_the_progress_shows_the_present_interval(file):
    events = []
    decide("wild", request_of(file), on_event=events.append)
    tasks = [event.task for event in events if isinstance(event, Progress)]
    assert any("%" in task and "B " in task for task in tasks)
    assert [type(event.content) for event in events if isinstance(event, Measured)] == [Ab]


def test_a_slow_down_goes_to_its_arm_and_into_the_record(file, monkeypatch):
    monkeypatch.setenv("HARNESS_TEST_SLOWDOWN_B", "0.03")
    monkeypatch.setattr(run, "plan_cells", lambda grid, _asked, _on_event: (RunSpec(file, n_gen=8, n_threads=1),))
    request = plan_ab((ArmQuestion(file), ArmQuestion(file)), lambda _event: None)
    assert (request.a.slowdown, request.b.slowdown) == (0, 0.03)
    [record], _ = decide("equal", request)
    assert (record.b.slowdown, replay(record).decision) == (0.03, Decision.SLOWER)
    assert "made 3 % slower by a test" in render(describe_ab([record]), "table")


def test_the_same_arms_are_measured_with_a_remark(file, monkeypatch):
    monkeypatch.setattr(run, "plan_cells", lambda grid, _asked, _on_event: (RunSpec(file, n_gen=8),))
    events = []
    plan_ab((ArmQuestion(file), ArmQuestion(file)), events.append)
    [remark] = [event.text for event in events if isinstance(event, Remark)]
    assert "false alarm" in remark


def test_arms_without_a_common_test_are_refused(file):
    with pytest.raises(UsageError, match="no test in common"):
        AbRequest(ArmRequest((RunSpec(file, n_gen=8),)), ArmRequest((RunSpec(file, n_prompt=8),)))


def test_other_numbers_of_users_are_other_work(file, monkeypatch):
    asked = iter([(RunSpec(file, n_gen=8),), (RunSpec(file, n_gen=8, n_parallel=4),)])
    monkeypatch.setattr(run, "plan_cells", lambda grid, _asked, _on_event: next(asked))
    with pytest.raises(UsageError, match="--by np"):
        plan_ab((ArmQuestion(file), ArmQuestion(file, settings={"n_parallel": 4})), lambda _event: None)


@pytest.mark.parametrize(
    ("overhead_s", "repetition_s", "count"), [(0.04, 0.06, 1), (0.04, 0.005, 3), (0.04, 1e-6, 9), (0.04, 30.0, 1)]
)
def test_a_block_has_more_repetitions_the_shorter_they_are(overhead_s, repetition_s, count):
    assert choose_repetitions(overhead_s, repetition_s) == count


# --- verdict ----------------------------------------------------------------------------------------------------------


def with_conditions(record, **seen):
    conditions = Conditions(wall_ns=100_000_000, n_cpus=2, n_cores=2, **seen)
    blocks = [
        dataclasses.replace(
            block,
            samples=tuple(
                dataclasses.replace(one, duration_ns=80_000_000, conditions=conditions) for one in block.samples
            ),
        )
        for block in record.blocks
    ]
    return dataclasses.replace(record, blocks=tuple(blocks))


def test_conditions_of_the_blocks_are_judged_as_a_cells(file):
    [record], _ = decide("equal", request_of(file))
    assert judge(with_conditions(record, stolen_s=0.0)).trust is Trust.QUIET
    assert judge(with_conditions(record, stolen_s=0.09)).trust is Trust.NOT_TRUSTED


# --- what is shown ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["equal", "slower"])
def test_the_view_is_the_golden_one(how, file):
    records, _ = decide(how, request_of(file, {"n_gen": 8}, {"n_prompt": 16}))
    still = [dataclasses.replace(record, elapsed_ns=1_500_000_000) for record in records]
    text = render(describe_ab(still), "table")
    path = GOLDEN / f"ab-{how}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 80


# --- the command line -------------------------------------------------------------------------------------------------


def refused(*words):
    done = CliRunner().invoke(cli, ["ab", *words])
    assert isinstance(done.exception, UsageError | SystemExit), done.exception
    said = str(done.exception) if isinstance(done.exception, UsageError) else done.output
    assert isinstance(done.exception, UsageError) or done.exit_code == 2
    return " ".join(said.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Two arms are compared, and these are not two"),
        (("-fa", "on"), "Two arms are compared, and these are not two"),
        (("--", "-fa", "on"), "Two arms are compared, and these are not two"),
        (("--", "-t", "1", "--", "-t", "2", "--", "-t", "3"), "Two arms are compared, and these are more than two"),
        (("--", "-t", "1,2", "--"), "is several values, and this command takes one"),
        (("-ngl", "0-4", "--", "--"), "is several values, and this command takes one"),
        (("--", "-p", "64", "--"), "-p is one for both arms; write it before the first --."),
        (("--", "--margin", "2%", "--"), "--margin is one for both arms"),
        (("--", "-m", "a.gguf", "-m", "b.gguf", "--"), "An arm has one model; give -m once."),
        (("--", "-threads", "4", "--"), "No such option"),
        (("--", "x", "--"), "unexpected extra argument"),
        (("--", "-fa", "off", "-ctv", "q8_0", "--"), "V cache needs flash attention"),
        (("--margin", "0%", "--", "--"), "not a share between 0 and 100 %"),
        (("--margin", "one", "--", "--"), "not a share between 0 and 100 %"),
        (("-p", "0", "-n", "0", "--", "--"), "Nothing to measure"),
        (("--", "--python", "/no/such/python", "--"), "does not exist"),
    ],
)
def test_what_is_no_question_is_refused_with_what_to_do(words, said):
    assert said in refused(*words)


def ask(monkeypatch, *words):
    """The questions that a command line means."""
    seen = {}

    def plan(arms, _on_event, **manner):
        seen.update(manner, arms=arms)
        raise UsageError("far enough")

    monkeypatch.setattr(run, "plan_ab", plan)
    assert refused(*words) == "far enough"
    return seen


def test_an_arm_goes_before_what_both_say(monkeypatch):
    seen = ask(
        monkeypatch, "-fa", "on", "-m", "a.gguf", "--margin", "3%", "--", "-m", "b.gguf", "--", "-fa", "off", "-t", "2"
    )
    a, b = seen["arms"]
    assert (a.reference, dict(a.settings)) == ("b.gguf", {"flash_attn": "on"})
    assert (b.reference, dict(b.settings)) == ("a.gguf", {"flash_attn": "off", "n_threads": 2})
    assert seen["margin"] == 0.03


def test_an_arm_may_be_empty_and_options_may_stand_without_a_value(monkeypatch):
    a, b = ask(monkeypatch, "--", "--", "-fa")["arms"]
    assert a == ArmQuestion()
    assert dict(b.settings) == {"flash_attn": "on"}


# --- the real engine --------------------------------------------------------------------------------------------------


@pytest.mark.engine
def test_a_known_slow_down_is_found_on_the_real_engine_in_another_python(tmp_path, monkeypatch):
    """A link to this environment's Python is another one, as far as the command knows."""
    monkeypatch.setenv("HARNESS_TEST_SLOWDOWN_B", "2")
    [record] = harness.ab(b={"python": sys.executable}, n_prompt=0, n_gen=2, n_threads=1, max_time_s=30)
    test = harness.replay(record)
    assert (record.stop, test.decision) == (Stop.DECIDED, Decision.SLOWER)
    assert test.ratio.value == pytest.approx(3, rel=0.5)
    assert record.b.has_python
    assert record.a.build == record.b.build
    assert record.a.model.file_sha256 == record.b.model.file_sha256


# --- another environment ----------------------------------------------------------------------------------------------


def guest(tmp_path, text):
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_another_environment_without_llama_cpp_is_one_sentence(file, tmp_path):
    python = guest(tmp_path, f'exec "{sys.executable}" -I -S "$@"')
    request = request_of(file)
    request = dataclasses.replace(request, b=dataclasses.replace(request.b, python=python))
    with pytest.raises(NativeError, match=r"--python .* cannot measure arm B: llama-cpp-python is not installed there"):
        decide("equal", request)


def test_another_environment_gets_nothing_of_ours(monkeypatch):
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "/ours")
    assert {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"} & set(worker._guest_environment()) == set()


@pytest.mark.parametrize("version", ["(2, 7)", "(3, 9)"])
def test_a_python_that_is_too_old_says_so(file, tmp_path, version):
    pretend = f"import sys; sys.version_info = {version}; exec(sys.argv.pop(1))"
    (tmp_path / "pretend.py").write_text(pretend, encoding="utf-8")
    python = guest(tmp_path, f'shift; exec "{sys.executable}" "{tmp_path}/pretend.py" "$@"')
    request = request_of(file)
    request = dataclasses.replace(request, a=dataclasses.replace(request.a, python=python))
    with pytest.raises(
        NativeError, match=r"cannot measure arm A: it is Python \d\.\d, and harness needs 3\.10 or later\."
    ):
        decide("equal", request)


def test_another_environments_worker_runs_this_package_and_nothing_beside_it(file, tmp_path):
    """Its own llama_cpp is the one that is found: here one whose structs are others."""
    other = tmp_path / "llama_cpp"
    other.mkdir()
    (other / "__init__.py").write_text(
        "class llama_model_params: _fields_ = ()\nclass llama_context_params: _fields_ = ()\n__version__ = '9.9'\n"
    )
    python = guest(tmp_path, f'PYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"')
    request = request_of(file)
    request = dataclasses.replace(request, b=dataclasses.replace(request.b, python=python))
    with pytest.raises(
        NativeError, match=r"cannot measure arm B: llama-cpp-python 9\.9 has another llama_model_params"
    ):
        decide("equal", request)
