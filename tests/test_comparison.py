"""Sides are paired like with like, and what is said of a pair is what its samples prove."""

from __future__ import annotations

import dataclasses
import math

import pytest

from harness.errors import UsageError
from harness.records.cautions import Caution, CautionCause
from harness.records.measurements import Measurement, Subjects, measurement_of
from harness.spec import MANNER, parameters
from harness.speed.comparison import Basis, Side, Standing, compare, split

from .measured import draw, with_durations
from .test_same_cell import other_value

DISTRUST = Caution(CautionCause.CPU_THROTTLED, "a quota held this back", distrust=True)


@pytest.fixture
def cell(recorded):
    return recorded[0]


def side(*records, name="one"):
    subjects = Subjects()
    return Side(name, [measurement_of(record, subjects) for record in records])


def standings(*sides, by=()):
    return [pair.standing for pair in compare(sides, by).pairs]


def test_a_clear_difference_is_found_and_none_is_not(cell):
    base = side(with_durations(cell, draw(1e8)))
    assert standings(base, side(with_durations(cell, draw(1.05e8, seed=1)))) == [Standing.SLOWER]
    assert standings(base, side(with_durations(cell, draw(0.95e8, seed=1)))) == [Standing.FASTER]
    assert standings(base, side(with_durations(cell, draw(1e8, seed=1)))) == [Standing.NOISE]


def test_the_ratio_is_of_the_rates_and_its_interval_around_it(cell):
    (pair,) = compare([side(with_durations(cell, draw(1e8))), side(with_durations(cell, draw(1.25e8, seed=1)))]).pairs
    low, high = pair.interval
    assert low < pair.ratio.value < high
    assert pair.ratio.value == pytest.approx(0.8, rel=0.01)
    assert pair.other_tok_per_s / pair.base_tok_per_s == pytest.approx(0.8, rel=0.01)


def test_too_few_repetitions_are_undecided(cell):
    base = side(with_durations(cell, draw(1e8)))
    (pair,) = compare([base, side(with_durations(cell, [2 * 10**8]))]).pairs
    assert (pair.standing, pair.interval, pair.p) == (Standing.UNDECIDED, None, None)
    assert pair.ratio.value == pytest.approx(0.5, rel=0.02)


def test_p_is_corrected_for_all_pairs(cell):
    depths = range(1, 9)
    sides = [
        side(*(with_durations(cell, draw(1e8 * (1 + 0.004 * s), seed=d + 50 * s), n_depth=d) for d in depths))
        for s in (0, 1)
    ]
    pairs = compare(sides).pairs
    assert all(pair.p >= pair.contrast.p for pair in pairs)
    assert min(pair.p for pair in pairs) == pytest.approx(8 * min(pair.contrast.p for pair in pairs))


def test_under_no_difference_any_false_alarm_among_five_cells_is_rare(cell):
    """300 comparisons of five cells each; a family-wise rate of 5 % gives 25 alarms or more in one of 200 such tests."""
    alarms = 0
    for trial in range(300):
        sides = [
            side(*(with_durations(cell, draw(1e8, 8, seed=hash((trial, s, d))), n_depth=d) for d in range(5)))
            for s in (0, 1)
        ]
        alarms += any(standing is not Standing.NOISE for standing in standings(*sides))
    assert alarms < 25


@pytest.mark.parametrize("name", parameters("load", "context"))
def test_every_setting_keeps_cells_apart(cell, name):
    """A new parameter does so by being a field."""
    sides = side(with_durations(cell, draw(1e8))), side(with_durations(cell, draw(1e8), **{name: other_value(name)}))
    found = compare(sides)
    assert not found.pairs
    assert [difference.name for difference in found.unlike[0].differences] == [name]
    assert len(compare(sides, by=[name]).pairs) == 1


def test_the_manner_does_not(cell):
    assert {"seed", "delay_s", "warmup"} <= MANNER
    sides = side(with_durations(cell, draw(1e8))), side(with_durations(cell, draw(1e8), seed=7, delay_s=1.0))
    assert len(compare(sides).pairs) == 1


def test_machines_builds_and_models_are_unlike_unless_asked_for(cell):
    base = side(with_durations(cell, draw(1e8)))
    others = {
        "machine": {"machine": dataclasses.replace(cell.machine, cpu="Another CPU")},
        "build": {"build": dataclasses.replace(cell.build, ggml_commit="1111111")},
        "model": {"model": dataclasses.replace(cell.model, file_sha256="f" * 64)},
    }
    for name, change in others.items():
        other = side(dataclasses.replace(with_durations(cell, draw(1e8, seed=1)), **change))
        found = compare([base, other])
        assert (len(found.pairs), [one.name for one in found.unlike[0].differences]) == (0, [name])
        assert len(compare([base, other], by=[name]).pairs) == 1


def test_a_test_that_was_not_run_is_not_called_another_setting(cell):
    base = side(with_durations(cell, draw(1e8)))
    more = side(with_durations(cell, draw(1e8)), with_durations(cell, draw(1e8), n_depth=64))
    (lonely,) = compare([base, more]).unlike
    assert (lonely.tests, lonely.differences, lonely.is_missing) == (("pp64 @ d64",), (), False)
    (missing,) = compare([more, base]).unlike
    assert (missing.tests, missing.is_missing) == (("pp64 @ d64",), True)


def test_by_a_setting_one_run_is_divided(cell):
    mixed = side(
        *(
            with_durations(cell, draw(1e8 * f, seed=n), type_k=kind)
            for n, (kind, f) in enumerate({"q8_0": 1.2, "f16": 1.0, "q4_0": 1.5}.items())
        )
    )
    sides = split([mixed], ["type_k"])
    assert [one.values for one in sides] == [(("type_k", kind),) for kind in ("f16", "q4_0", "q8_0")]
    assert standings(*sides, by=["type_k"]) == [Standing.SLOWER, Standing.SLOWER]
    assert split([mixed], ["type_k"], "q4_0")[0].values == (("type_k", "q4_0"),)
    with pytest.raises(UsageError, match="type_k f32"):
        split([mixed], ["type_k"], "f32")


def test_by_a_setting_the_first_input_is_the_base(cell):
    first = side(with_durations(cell, draw(1.2e8), type_k="q8_0"))
    second = side(with_durations(cell, draw(1e8), type_k="f16"))
    assert split([first, second], ["type_k"])[0].values == (("type_k", "q8_0"),)


def test_the_base_has_something_in_common(cell):
    """The usual value is no base where nothing else was measured like it."""
    alone = with_durations(cell, draw(1e8), n_depth=99)
    shared = [with_durations(cell, draw(1e8, seed=n), n_gpu_layers=n) for n in (0, 4)]
    assert [one.values[0][1] for one in split([side(alone, *shared)], ["n_gpu_layers"])] == [0, 4, -1]


def test_tests_of_other_lengths_are_compared_by_their_rates(cell):
    sides = split(
        [side(with_durations(cell, draw(1e8)), with_durations(cell, draw(2e8, seed=1), n_prompt=128))], ["n_prompt"]
    )
    (pair,) = compare(sides, by=["n_prompt"]).pairs
    assert pair.ratio.value == pytest.approx(1.0, rel=0.01)


def test_repetitions_of_a_few_runs_count_together(cell):
    base = side(*(with_durations(cell, draw(1e8, 5, seed=n)) for n in range(3)))
    (pair,) = compare([base, side(with_durations(cell, draw(1e8, seed=9)))]).pairs
    assert (pair.basis, pair.contrast.n_b, pair.base.n) == (Basis.REPETITIONS, 15, 15)


def test_many_runs_are_samples_themselves(cell):
    """Ten runs a side that differ by 5 % and whose repetitions do not: between sessions nothing is proved, however many repetitions."""
    false = 0
    for trial in range(40):
        sides = []
        for s in (0, 1):
            centres = draw(1e8, 10, spread=0.05, seed=hash((trial, s)))
            sides.append(
                side(*(with_durations(cell, draw(c, 20, spread=0.001, seed=n)) for n, c in enumerate(centres)))
            )
        (pair,) = compare(sides).pairs
        assert (pair.basis, pair.contrast.n_a) == (Basis.RUNS, 10)
        false += pair.standing is not Standing.NOISE
    assert false <= 6


def test_what_is_not_to_be_trusted_is_left_out_where_anything_else_is_there(cell):
    good, bad = (
        with_durations(cell, draw(1e8)),
        dataclasses.replace(with_durations(cell, draw(3e8)), warnings=(DISTRUST,)),
    )
    base = side(with_durations(cell, draw(1e8, seed=1)))
    (pair,) = compare([base, side(good, bad)]).pairs
    assert (pair.is_distrusted, pair.other.n_left_out, pair.other.n) == (False, 1, 12)
    (pair,) = compare([base, side(bad)]).pairs
    assert pair.is_distrusted


def test_a_mean_and_a_deviation_are_weaker_evidence(cell):
    subject = Subjects().of(cell)
    summary = Measurement(subject, "", mean_tok_per_s=640.0, deviation_tok_per_s=3.2)
    samples = side(with_durations(cell, draw(1e8)))
    (pair,) = compare([samples, Side("b", [summary])], assumed_n=5).pairs
    assert (pair.basis, pair.contrast.n_a, pair.standing) == (Basis.SUMMARIES, 5, Standing.NOISE)
    (few,) = compare([samples, Side("b", [summary])], assumed_n=2).pairs
    assert few.interval[1] - few.interval[0] > pair.interval[1] - pair.interval[0]
    (alone,) = compare([samples, Side("b", [dataclasses.replace(summary, n=1)])]).pairs
    assert alone.standing is Standing.UNDECIDED


def test_the_mean_of_ratios_is_geometric(cell):
    sides = [
        side(with_durations(cell, draw(1e8)), with_durations(cell, draw(1e8), n_depth=1)),
        side(with_durations(cell, draw(2e8)), with_durations(cell, draw(0.5e8), n_depth=1)),
    ]
    assert compare(sides).means == {1: pytest.approx(1.0, rel=1e-6)}
    assert math.isfinite(compare(sides).means[1])


def test_rounds_in_any_order_are_shown_in_one(cell):
    cells = [
        with_durations(cell, draw(1e8, seed=n), n_prompt=p, n_gen=g, n_depth=d)
        for n, (p, g, d) in enumerate([(0, 8, 9), (64, 0, 0), (0, 8, 0), (16, 0, 0)])
    ]
    tests = [pair.other.spec.test for pair in compare([side(*cells), side(*cells)]).pairs]
    assert tests == ["pp16", "pp64", "tg8", "tg8 @ d9"]
