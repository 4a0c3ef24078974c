"""LocalScore's figure: its formula and its tests, what is said of less than all of them, and what a budget leaves out."""

from __future__ import annotations

import dataclasses
import json

import pytest

import harness
from harness.errors import UsageError
from harness.events import ignore
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Failure, Sample
from harness.records.failures import Cause
from harness.records.score import OFFICIAL, QUICK, TESTS, score_cells
from harness.runs import score as runs
from harness.runs.score import expect_s, measure_score, plan_score
from harness.runs.session import Session
from harness.views.formats import render
from harness.views.score import describe_score, describe_test

from .kind_files import bert

MS = 10**6


@pytest.fixture
def ran(recorded):
    """A cell that ran a test at a rate of prompts and of text, its first token taking as long as the others."""

    def make(test, prompt_rate, gen_rate, n=1, **changed):
        prompt_ns, token_ns = round(test.n_prompt / prompt_rate * 1e9), round(1e9 / gen_rate)
        tokens = (token_ns,) * test.n_gen
        sample = Sample(prompt_ns + sum(tokens), prompt_ns, tokens, is_warmup=False)
        own = {"n_prompt": test.n_prompt, "n_gen": test.n_gen, "repetitions": n, "flash_attn": "off"}
        asked = dataclasses.replace(recorded[0].asked, **own)
        return dataclasses.replace(recorded[0], command="score", asked=asked, samples=(sample,) * n, **changed)

    return make


def test_the_tests_are_localscores():
    assert [(test.n_prompt, test.n_gen) for test in TESTS] == [
        (1024, 16), (4096, 256), (2048, 256), (2048, 768), (1024, 1024), (1280, 3072), (384, 1152), (64, 1024), (16, 1536),
    ]  # fmt: skip
    assert set(QUICK) < set(TESTS)


def test_localscores_own_example_of_a_thousand(recorded, ran):
    """Its page on the score: 5000 tokens/s of prompt, 40 of text and 200 ms are 1000."""
    test = dataclasses.replace(TESTS[0], n_prompt=1000)
    score = score_cells([ran(TESTS[0], 5000, 40)])
    one = dataclasses.replace(score.tests[0], first_token_ns=200 * MS, test=test)
    assert dataclasses.replace(score, tests=(one,)).value == pytest.approx(1000)


def test_each_part_is_the_mean_of_all_tests_and_the_score_their_geometric_mean(ran):
    records = [ran(test, 100 * (at + 1), 10 * (at + 1)) for at, test in enumerate(TESTS)]
    score = score_cells(records)
    firsts = [test.n_prompt / (100 * (at + 1)) + 1 / (10 * (at + 1)) for at, test in enumerate(TESTS)]
    assert score.is_whole
    assert score.prompt_rate_tok_per_s == pytest.approx(500)
    assert score.gen_rate_tok_per_s == pytest.approx(50)
    assert score.first_token_ns == pytest.approx(sum(firsts) / 9 * 1e9)
    assert score.value == pytest.approx(10 * (500 * 50 * 9 / sum(firsts)) ** (1 / 3))


def test_of_a_test_the_latest_counts_and_a_failed_one_not_at_all(ran):
    failure = Failure("measure", "gone", Cause.REFUSED)
    records = [ran(TESTS[0], 100, 10), ran(TESTS[0], 200, 20), ran(TESTS[1], 1, 1, failure=failure)]
    score = score_cells(records)
    assert [one.prompt_rate_tok_per_s for one in score.tests] == [pytest.approx(200)]
    assert len(score.missing) == 8
    assert score_cells(records[2:]) is None
    assert score_cells([]) is None


def test_repetitions_are_averaged(ran):
    slow, quick = ran(TESTS[0], 100, 10), ran(TESTS[0], 300, 30)
    both = dataclasses.replace(slow, samples=(*slow.samples, *quick.samples))
    (one,) = score_cells([both]).tests
    assert (one.n_repetitions, one.prompt_rate_tok_per_s, one.gen_rate_tok_per_s) == (
        2,
        pytest.approx(200),
        pytest.approx(20),
    )


def test_an_official_model_is_known_by_its_work(ran, recorded):
    tiny = dataclasses.replace(
        recorded[0].model, description=OFFICIAL[0].description, n_params=OFFICIAL[0].n_params + 32
    )
    assert score_cells([ran(TESTS[0], 1, 1, model=tiny)]).official.size == "tiny"
    assert score_cells([ran(TESTS[0], 1, 1, model=dataclasses.replace(tiny, n_params=1))]).official is None
    assert score_cells([ran(TESTS[0], 1, 1)]).official is None


def test_less_than_all_tests_is_called_no_localscore(ran, recorded):
    tiny = dataclasses.replace(recorded[0].model, description=OFFICIAL[0].description, n_params=OFFICIAL[0].n_params)
    whole = [ran(test, 100, 10, model=tiny) for test in TESTS]
    for records, said, is_comparable in ((whole, "LocalScore", True), (whole[:3], "no LocalScore", False)):
        document = describe_score(score_cells(records), records)
        text = render(document, "table")
        assert f"\n{said} " in text
        assert ("not comparable" in text) is not is_comparable
        assert "Nothing is sent anywhere." in text
        assert json.loads(render(document, "json"))["is_comparable"] is is_comparable


def test_other_settings_are_another_test(ran, recorded):
    tiny = dataclasses.replace(recorded[0].model, description=OFFICIAL[0].description, n_params=OFFICIAL[0].n_params)
    records = [ran(test, 100, 10, model=tiny) for test in TESTS]
    records = [
        dataclasses.replace(one, asked=dataclasses.replace(one.asked, flash_attn="on", type_k="q8_0", n_threads=1))
        for one in records
    ]
    document = describe_score(score_cells(records), records)
    text = " ".join(render(document, "table").split())
    assert "no LocalScore" in text
    assert "measured with fa on, type_k q8_0, and LocalScore with fa off, type_k f16" in text
    assert json.loads(render(document, "json"))["is_comparable"] is False


def test_a_model_that_the_site_has_not_is_not_comparable(ran):
    records = [ran(test, 100, 10) for test in TESTS]
    document = describe_score(score_cells(records), records)
    assert "and not by this model" in " ".join(render(document, "table").split())
    assert json.loads(render(document, "json"))["is_comparable"] is False


def test_what_is_not_to_be_trusted_says_so(ran):
    records = [ran(TESTS[0], 100, 10, warnings=(Caution(CautionCause.SENTENCE, distrust=True, said="busy"),))]
    assert "not to be trusted: busy" in render(describe_score(score_cells(records), records), "table")


def test_a_line_is_said_of_each_test(ran):
    assert describe_test(ran(TESTS[0], 100, 10)) == "pp1024+tg16: 100.00 and 10.00 t/s"
    assert describe_test("else") is None


def test_the_cells_are_as_localscore_runs_them(model):
    first, *rest = plan_score(model, {}, ignore).cells
    assert len(rest) == 8
    assert (first.warmup, {cell.warmup for cell in rest}) == (True, {False})
    assert {(cell.repetitions, cell.flash_attn, cell.type_k) for cell in (first, *rest)} == {(1, "off", "f16")}
    asked = plan_score(model, {"flash_attn": "on", "n_threads": 3}, ignore, is_quick=True, repetitions=4).cells
    assert {(cell.repetitions, cell.flash_attn, cell.n_threads) for cell in asked} == {(4, "on", 3)}
    assert len(asked) == len(QUICK)


@pytest.fixture
def measured(monkeypatch, ran):
    """Tests that take as long as their rates say, by a clock of their own."""
    clock = [0.0]

    def run(cells, plan, *, on_step, bench):
        (spec,) = cells
        test = next(test for test in TESTS if (test.n_prompt, test.n_gen) == (spec.n_prompt, spec.n_gen))
        record = ran(test, 100, 10)
        clock[0] += record.samples[0].duration_ns / 1e9
        yield record

    monkeypatch.setattr(runs, "run_cells", run)
    monkeypatch.setattr(runs.time, "monotonic", lambda: clock[0])


def test_a_budget_leaves_out_what_would_end_after_it(measured, model, tmp_path):
    request = dataclasses.replace(plan_score(model, {}, ignore), budget_s=200.0)
    with Session("score", tmp_path) as session:
        records = measure_score(request, session)
    # 11.8 s, 66.6 s, 46.1 s; 97.3 s and 112.6 s and all others would end later, but for 75.5 s of them that fit.
    assert [record.asked.test for record in records] == ["pp1024+tg16", "pp4096+tg256", "pp2048+tg256"]
    with Session("score") as session:
        assert len(measure_score(dataclasses.replace(request, budget_s=None), session)) == 9
        assert len(measure_score(dataclasses.replace(request, budget_s=-1.0), session)) == 1, "the first is always run"


def test_what_a_test_takes_is_expected_from_those_before(ran, model):
    cells = plan_score(model, {}, ignore).cells
    assert expect_s(cells[1], []) == 0.0
    assert expect_s(cells[1], [ran(TESTS[0], 100, 10)]) == pytest.approx(4096 / 100 + 256 / 10)


def test_a_model_that_writes_nothing_is_refused(tmp_path):
    path = tmp_path / "bert.gguf"
    path.write_bytes(bert().build(data=True))
    with pytest.raises(UsageError, match=r"bert\.gguf"):
        plan_score(str(path), {}, ignore)


def test_a_script_gets_the_same(monkeypatch, measured, model, tmp_path):
    records = harness.measure_score(model, is_quick=True, n_threads=2, results=tmp_path)
    assert [record.asked.test for record in records] == ["pp1024+tg16", "pp2048+tg256", "pp64+tg1024"]
    assert harness.score_cells(records).is_whole is False
    assert len(harness.read_records(tmp_path)) == 3
    (tmp_path / "mine.json").write_text(harness.write_share(harness.share_records(records)), encoding="utf-8")
    (shared,) = harness.read_shared(tmp_path / "mine.json").values()
    assert shared == harness.share_records(records)
    assert [speed.test_kind for speed in shared.speeds] == ["pp+tg"] * 3
