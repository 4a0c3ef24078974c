"""Comparisons with llama-bench: raw samples are kept, what was said of the old lines comes out of them again, pairs are measured until
the answer is known."""

from __future__ import annotations

import dataclasses
import json

import pytest

from harness.codec import Malformed
from harness.evidence.medians import median
from harness.evidence.sequential import LOOKS
from harness.records.kinds import read_line, to_json
from harness.records.parity import Equality, Parity
from harness.views.formats import render
from harness.views.parity import describe_equality, describe_parity
from scripts import parity as script

from .conftest import HERE

OLD = [
    json.loads(line)
    for path in sorted((HERE.parent / "bench_results").rglob("*-parity.jsonl"))
    for line in path.read_text(encoding="utf-8").splitlines()
    if "ratios" in json.loads(line)  # later ones hold nothing derived
]


@pytest.mark.parametrize("values", OLD, ids=lambda values: f"{values['time_utc']} {values['test']}")
def test_the_lines_of_the_first_edition_say_the_same(values):
    parity = read_line(values).content
    assert isinstance(parity, Parity)
    assert parity.ratios == pytest.approx(values["ratios"])
    assert median(parity.ratios) == pytest.approx(values["ratio_median"])
    assert parity.interval is not None
    assert (parity.interval.low, parity.interval.high) == pytest.approx((values["ratio_low"], values["ratio_high"]))
    assert parity.harness_tok_per_s == pytest.approx(values["harness_tok_per_s"])
    assert parity.llama_bench_tok_per_s == pytest.approx(values["llama_bench_tok_per_s"])
    again = to_json(parity)
    assert not {"ratios", "ratio_median", "harness_tok_per_s"} & set(again), "nothing derived is stored"
    assert read_line(json.loads(json.dumps(again))).content == parity


def test_pairs_are_whole():
    parity = read_line(OLD[0]).content
    assert isinstance(parity, Parity)
    assert dataclasses.replace(parity, harness_samples_ns=((5,),), llama_bench_samples_ns=((5,),)).interval is None
    with pytest.raises(ValueError, match="not as many runs"):
        dataclasses.replace(parity, harness_samples_ns=((5,),))
    with pytest.raises((Malformed, ValueError)):
        read_line({**to_json(parity), "harness_samples_ns": []})


def sequential(ratios, margin=0.01):
    """A record of pairs with these ratios."""
    old = read_line(OLD[0]).content
    ours = tuple((round(1e9 / ratio),) for ratio in ratios)
    theirs = ((10**9,),) * len(ratios)
    first = (True,) * len(ratios)
    return dataclasses.replace(
        old, harness_samples_ns=ours, llama_bench_samples_ns=theirs, margin=margin, harness_first=first
    )


#: As many as a planned look takes, around 1.
STEADY = [1 + 0.001 * place for place in (3, -1, 2, 0, -2, 1, -3, 0, 1, -1)]


@pytest.mark.parametrize(
    ("factor", "equality", "words"),
    [
        (1.0, Equality.EQUAL, "equal within ± 1 %: ratio 1.0000 ["),
        (1.005, Equality.EQUAL, "equal within ± 1 %: ratio 1.0050 ["),
        (1.05, Equality.FASTER, "harness is faster: ratio 1.0500 ["),
        (0.95, Equality.SLOWER, "harness is slower: ratio 0.9500 ["),
    ],
)
def test_a_verdict_says_how_sure_it_is(factor, equality, words):
    record = sequential([factor * ratio for ratio in STEADY])
    assert record.equality is equality
    assert describe_equality(record).startswith(words)
    assert describe_equality(record).endswith("], 8 pairs, at 95 %")
    again = read_line(json.loads(json.dumps(to_json(record)))).content
    assert again == record
    assert again.weighed == record.weighed


def test_what_is_not_known_is_said():
    wide = sequential([0.9, 1.1, 0.92, 1.08, 0.95, 1.06, 0.97, 1.02])
    assert wide.equality is Equality.UNDECIDED
    assert describe_equality(wide).startswith("not known whether they are equal within ± 1 %: ratio")
    few = sequential([1.0, 1.0, 1.0])
    assert few.equality is Equality.UNDECIDED
    assert describe_equality(few).endswith("ratio 1.0000, too few pairs for an interval (3 pairs)")


def test_a_fixed_number_of_pairs_has_no_verdict_but_its_interval():
    old = read_line(OLD[0]).content
    assert old.equality is None
    assert describe_equality(old) == ""
    page = render(describe_parity([old, sequential(STEADY)], lambda name: name.partition(".")[0]), "md")
    assert "0.9815" in page
    assert "0.9619 – 1.0230" in page
    assert "- SmolLM2-135M-Instruct pp512: equal within ± 1 %" in page


class Both(script.Tools):
    """Both tools, on a clock of their own: harness is slower by what each test says."""

    def __init__(self, monkeypatch, factors, seconds=10.0):
        super().__init__("", (), {"pp512": (512, 0), "tg128": (0, 128)})
        object.__setattr__(self, "factors", factors)
        object.__setattr__(self, "seconds", seconds)
        object.__setattr__(self, "asked", [])
        object.__setattr__(self, "now", 0.0)
        monkeypatch.setattr(script.time, "monotonic", lambda: self.now)

    def measure(self, tests, *, harness_first):
        self.asked.append((tuple(tests), harness_first))
        object.__setattr__(self, "now", self.now + self.seconds)
        wobble = 1 + 0.001 * (len(self.asked) % 5 - 2)
        ours = {name: {"samples_ns": [round(1e9 * self.factors[name] * wobble)]} for name in tests}
        return ours, {name: {"samples_ns": [10**9]} for name in tests}


def test_pairs_are_measured_until_the_answer_of_each_test_is_known(monkeypatch):
    tools = Both(monkeypatch, {"pp512": 1.0, "tg128": 1.0095})
    found = script.decide(tools, margin=0.01, max_time_s=1e6, seed=1)
    assert 8 <= len(found["pp512"].pairs) < len(found["tg128"].pairs) <= LOOKS[-1]
    assert tools.asked[0][0] == ("pp512", "tg128")
    assert tools.asked[-1][0] == ("tg128",), "a test whose answer is known is not measured any more"
    assert {first for _, first in tools.asked} == {True, False}
    assert found["tg128"].harness_first == [first for tests, first in tools.asked if "tg128" in tests]


def test_the_time_ends_it_before_a_pair_that_would_not_fit(monkeypatch):
    tools = Both(monkeypatch, {"pp512": 1.0, "tg128": 1.0})
    found = script.decide(tools, margin=0.0011, max_time_s=55, seed=1)
    assert tools.now == 50
    assert [len(one.pairs) for one in found.values()] == [5, 5]


def test_ctrl_c_leaves_the_pairs_that_are_whole(monkeypatch):
    tools = Both(monkeypatch, {"pp512": 1.0, "tg128": 1.0})
    whole = tools.measure

    def measure(tests, *, harness_first):
        if len(tools.asked) == 3:
            raise KeyboardInterrupt
        return whole(tests, harness_first=harness_first)

    object.__setattr__(tools, "measure", measure)
    found = script.decide(tools, margin=0.01, max_time_s=1e6, seed=1)
    assert len(found["pp512"].pairs) == len(found["pp512"].harness_first) == 3


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (0.98, 1)])
def test_below_the_floor_it_ends_with_1(factor, code, tmp_path, capsys):
    assert script.report([sequential([factor * ratio for ratio in STEADY])], tmp_path) == code
    out, err = capsys.readouterr()
    assert ("pp512 is below llama-bench: ratio 0.9800" in err) == bool(code)
    assert "8 pairs, at 95 %" in " ".join(out.split())
    assert len(list(tmp_path.rglob("*-parity.jsonl"))) == 1
