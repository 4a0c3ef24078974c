"""Comparisons with llama-bench: raw samples are kept, and what was said of the old lines comes out of them again."""

from __future__ import annotations

import dataclasses
import json

import pytest

from harness.codec import Malformed
from harness.evidence.medians import median
from harness.records.kinds import read_line, to_json
from harness.records.parity import Parity

from .conftest import HERE

OLD = [
    json.loads(line)
    for path in sorted((HERE.parent / "bench_results").rglob("*-parity.jsonl"))
    for line in path.read_text(encoding="utf-8").splitlines()
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
