"""scripts/ab_trials.py: it goes on where it was, and counts what it means to count."""

from __future__ import annotations

import json

import pytest

from harness.codec import encode
from scripts import ab_trials
from scripts.ab_trials import Trial


def trial(kind, number, decision, total_s=5.0):
    return Trial(kind, number, decision, "decided", 12, 1, total_s - 1, total_s, 1.0, 0.99, 1.01, "quiet")


def test_it_goes_on_where_it_was(tmp_path):
    path = tmp_path / "trials.ndjson"
    wanted = {"aa": 4, "three": 2}
    every = ab_trials.plan(wanted, [])
    assert sorted(every) == [("aa", 0), ("aa", 1), ("aa", 2), ("aa", 3), ("three", 0), ("three", 1)]
    done = [trial(kind, number, "undecided") for kind, number in every[:4]]
    lines = [json.dumps(encode(one)) for one in done]
    path.write_text("\n".join([*lines, lines[0][:20]]), encoding="utf-8")
    assert ab_trials.read(path) == done
    assert ab_trials.plan(wanted, ab_trials.read(path)) == every[4:]
    assert ab_trials.plan(wanted, [trial(*one, "slower") for one in every]) == []


def test_a_difference_of_equal_arms_is_a_false_alarm_whichever_way_and_a_find_has_its_direction():
    trials = [
        trial("aa", 0, "faster"), trial("aa", 1, "slower"), trial("aa", 2, "no_difference"), trial("aa", 3, "undecided"),
        trial("three", 0, "slower", 3.0), trial("three", 1, "faster", 9.0), trial("three", 2, "slower", 4.0), trial("three", 3, "failed"),
        trial("one", 0, "no_difference"),
    ]  # fmt: skip
    figures = ab_trials.count(trials)
    assert figures["ab.false_alarms"].value == 0.5
    assert figures["ab.found_3_percent"].value == pytest.approx(2 / 3)
    assert figures["ab.found_3_percent"].n == 3
    assert figures["ab.median_s_of_3_percent"].value == 3.5
    assert figures["ab.found_1_percent"].value == 0
    assert "ab.median_s_of_1_percent" not in figures
    assert len(ab_trials.make_table(trials).splitlines()) == 5
