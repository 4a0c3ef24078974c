"""A limit is broken only where an interval proves it."""

from __future__ import annotations

import dataclasses

import pytest

from harness.records.measurements import Subjects, measurement_of
from harness.speed.comparison import Side, compare
from harness.speed.limits import judge_pairs, parse_limit

from .measured import draw, with_durations
from .test_comparison import DISTRUST


@pytest.fixture
def pairs(recorded):
    def make(factor, spread=0.005, n=12, seed=1, **change):
        subjects = Subjects()
        cells = [with_durations(recorded[0], draw(1e8, n, spread=spread, seed=seed)),
                 dataclasses.replace(with_durations(recorded[0], draw(1e8 * factor, n, spread=spread, seed=seed + 1000)), **change)]  # fmt: skip
        return compare([Side(str(at), [measurement_of(one, subjects)]) for at, one in enumerate(cells)]).pairs

    return make


def n_broken(limit, pairs):
    return len(judge_pairs([parse_limit(limit)], pairs).broken)


@pytest.mark.parametrize(
    ("limit", "factor", "broken"),
    [
        ("slower:3%", 1.08, 1),
        ("slower:3", 1.08, 1),
        ("slower", 1.08, 1),
        ("slower:10%", 1.08, 0),
        ("faster:3%", 1.08, 0),
        ("faster:3%", 0.9, 1),
        ("slower:3%", 0.9, 0),
        ("pp:slower:3%", 1.08, 1),
        ("pp64:slower:3%", 1.08, 1),
        ("tg:slower:3%", 1.08, 0),
    ],
)
def test_limits(pairs, limit, factor, broken):
    assert n_broken(limit, pairs(factor)) == broken


def test_a_median_beyond_the_limit_alone_breaks_nothing(pairs):
    found = pairs(1.06, spread=0.05)
    assert found[0].ratio.value < 0.97, "the ratio lies beyond the limit"
    assert n_broken("slower:3%", found) == 0


def test_an_interval_beyond_the_limit_is_no_proof_where_many_were_asked(pairs):
    """The interval is of this pair alone; p is corrected for all."""
    found = [dataclasses.replace(pair, p=0.2) for pair in pairs(1.2)]
    assert found[0].interval[1] < 0.97
    assert n_broken("slower:3%", found) == 0


def test_noise_fails_no_build(pairs):
    """200 comparisons of two equal cells, and 200 of cells that differ by exactly the limit."""
    assert sum(n_broken("slower", pairs(1.0, spread=0.02, seed=seed)) for seed in range(200)) <= 10
    assert sum(n_broken("slower:3%", pairs(1 / 0.97, spread=0.02, seed=seed)) for seed in range(200)) <= 11


def test_what_is_not_to_be_trusted_breaks_nothing(pairs):
    found = judge_pairs([parse_limit("slower:3%")], pairs(1.5, warnings=(DISTRUST,)))
    assert (len(found.broken), len(found.undecided)) == (0, 1)


def test_one_repetition_decides_nothing(pairs):
    found = judge_pairs([parse_limit("slower:3%")], pairs(1.5, n=1))
    assert (len(found.broken), len(found.undecided)) == (0, 1)


@pytest.mark.parametrize(
    "text", ["", "slow:3%", "slower:-3%", "slower:x", "slower:100%", "pp:3%", "slower:3%:pp", "slower:0.03"]
)
def test_what_is_no_limit(text):
    with pytest.raises(ValueError, match="is not a limit such as"):
        parse_limit(text)
