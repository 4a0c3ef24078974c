"""Cells take turns: each gets what it needs, spread over the run, in an order that the seed decides; simulated without an engine."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.evidence.stopping import is_precise
from harness.runs.rounds import MAX_INTERLEAVED, Rounds
from harness.spec import RunSpec


def cells_of(n_cells, repetitions=None, models=1, **manner):
    return [RunSpec(f"m{k % models}", n_gen=k + 1, repetitions=repetitions, **manner) for k in range(n_cells)]


def simulate(cells, take, load_s=0.0, **options):
    """(visits, durations by cell) of a run in which take(cell, n) gives seconds of the n-th repetition of a cell."""
    rounds, visits, done = Rounds(cells, **options), [], [[] for _ in cells]
    while (visit := rounds.next()) is not None:
        block = [round(take(visit.cell, len(done[visit.cell]) + k) * 1e9) for k in range(visit.repetitions)]
        done[visit.cell] += block
        before = rounds.n_done
        rounds.add(visit, block, sum(block) / 1e9, load_s)
        assert 0 <= before <= len(cells)
        visits.append(visit)
        assert len(visits) < 10_000, "it ends"
    assert rounds.n_done == len(cells)
    return visits, done


def steady(_cell, _n):
    return 0.1


@given(st.integers(1, 20), st.integers(1, 30), st.booleans(), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_each_cell_is_repeated_as_often_as_was_asked(n_cells, repetitions, interleave, seed):
    cells = cells_of(n_cells, repetitions, seed=seed)
    visits, done = simulate(cells, steady, interleave=interleave)
    assert [len(durations) for durations in done] == [repetitions] * n_cells
    assert [visit.turn for visit in visits] == list(range(len(visits)))
    assert sorted(visit.cell for visit in visits if visit.is_first) == list(range(n_cells))


def test_without_interleaving_it_is_llama_benchs_order_a_block_a_cell():
    visits, _ = simulate(cells_of(3, 5), steady, interleave=False)
    assert [(visit.cell, visit.repetitions, visit.keep) for visit in visits] == [
        (0, 5, False),
        (1, 5, False),
        (2, 5, False),
    ]


def test_the_order_follows_from_the_seed_alone():
    """How long repetitions take may end a cell sooner, but it never changes who comes before whom."""

    def order(seed, seconds):
        return [visit.cell for visit in simulate(cells_of(6, 12, seed=seed), lambda _cell, _n: seconds)[0]]

    assert order(1, 0.1) == order(1, 0.1)
    assert order(1, 0.1) != order(2, 0.1)
    assert order(1, 0.1)[:6] == order(1, 5.0)[:6]
    ends_early = simulate(cells_of(6, seed=1), lambda cell, n: 0.1 + (cell == 0) * random.Random(n).random())[0]
    same = simulate(cells_of(6, seed=1), lambda cell, n: 0.1 + (cell < 2) * random.Random(n).random())[0]
    both = [visit.cell for visit in ends_early[:18]]
    assert both == [visit.cell for visit in same[:18]]


def test_every_cell_is_measured_at_the_beginning_and_at_the_end():
    """A machine that becomes slower then makes all of them slower, and none of them beside the others."""
    visits, done = simulate(cells_of(4, 12), steady)
    thirds = [visits[: len(visits) // 3], visits[-len(visits) // 3 :]]
    for part in thirds:
        assert {visit.cell for visit in part} == {0, 1, 2, 3}
    assert len(done) == 4


def test_a_drift_is_shared():
    now = 0.0

    def slower(_cell, _n):
        nonlocal now
        now += 0.1
        return 0.1 * (1 + now / 20)

    _, done = simulate(cells_of(4, 12, seed=3), slower)
    medians = [sorted(durations)[6] for durations in done]
    assert max(medians) / min(medians) < 1.06, "one after the other they would differ by 20 %"


def test_not_more_than_eight_wait_to_be_kept():
    visits, _ = simulate(cells_of(20, 6), steady)
    open_, most, left = set(), 0, dict.fromkeys(range(20), 6)
    for visit in visits:
        open_.add(visit.cell)
        left[visit.cell] -= visit.repetitions
        most = max(most, len(open_))
        if not left[visit.cell]:
            open_.remove(visit.cell)
    assert most == MAX_INTERLEAVED


@pytest.mark.parametrize(("noise", "fewest", "most"), [(0.002, 6, 6), (0.02, 6, 100)])
def test_auto_stops_when_the_median_is_known(noise, fewest, most):
    chance = random.Random(5)
    _, done = simulate(cells_of(3), lambda _cell, _n: 0.1 * chance.lognormvariate(0, noise))
    for durations in done:
        assert fewest <= len(durations) <= most
        assert is_precise(durations, 0.02)


def test_auto_stops_when_its_time_is_used():
    chance = random.Random(5)
    _, done = simulate(cells_of(2, max_time_s=10.0), lambda _cell, _n: chance.uniform(0.5, 1.5))
    for durations in done:
        assert sum(durations) / 1e9 == pytest.approx(10, abs=3), "a repetition more, or two for those that warmed up"


def test_there_are_six_however_long_they_take():
    _, done = simulate(cells_of(2, max_time_s=1.0), lambda _cell, _n: 30.0)
    assert [len(durations) for durations in done] == [6, 6]


def test_a_warm_up_that_is_seen_is_repeated_and_not_paid_for_by_all():
    """The two first are slow: so many are left after them that these are precise."""
    _, (durations,) = simulate(cells_of(1), lambda _cell, n: 0.1 + 0.05 * (2 - n) * (n < 2))
    assert 8 <= len(durations) < 12, "counted in, they would make the interval wide at the second look, too"


def test_models_that_do_not_fit_together_take_turns_by_model_in_larger_blocks():
    cells = [RunSpec(model, n_gen=n, repetitions=12) for model in "ab" for n in (1, 2)]
    visits, _ = simulate(cells, steady, load_s=1.0, fit_together=lambda _cells: False)
    models = [cells[visit.cell].model for visit in visits]
    loads = 1 + sum(one != other for one, other in zip(models, models[1:], strict=False))
    assert loads <= 4
    assert min(visit.repetitions for visit in visits) >= 6
    together, _ = simulate(cells, steady)
    assert len(together) > len(visits)


def test_a_cell_that_failed_is_not_asked_again():
    rounds, seen = Rounds(cells_of(3, 12)), []
    while (visit := rounds.next()) is not None:
        seen.append(visit.cell)
        if visit.cell == 1:
            rounds.drop(1)
        else:
            rounds.add(visit, [100] * visit.repetitions, 1e-7)
    assert seen.count(1) == 1
    assert rounds.n_done == 3


def test_the_share_that_is_done_comes_of_repetitions_time_or_precision():
    state = Rounds([RunSpec("m", n_gen=1, max_time_s=10.0)]).states[0]
    state.add([100, 101, 102], 1.0, 0.0)
    assert state.share == pytest.approx(0.5)
    state.add([100, 120, 80], 4.0, 0.0)
    assert state.share == pytest.approx(0.5), "half the time"
    fixed = dataclasses.replace(state, spec=RunSpec("m", n_gen=1, repetitions=12))
    assert fixed.share == pytest.approx(0.5)
