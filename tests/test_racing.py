"""Races: who is dropped and when, and by simulation that the best one stays."""

import math
import random

import pytest

from harness.evidence.racing import EARLY_LOOKS, LEAST_SCATTER, Fate, Race


def run(trues, *, scatter=0.005, seed=1, spikes=0.0, **manner):
    """A race of candidates with these true costs; spikes is how often a measurement is disturbed."""
    chance, race, drift = random.Random(seed), Race(len(trues), **manner), 0.0
    n_blocks = 0
    while not race.is_over:
        drift += chance.gauss(0, 0.01)
        costs = {}
        for one in race.alive:
            disturbed = abs(chance.gauss(0, 0.2)) if chance.random() < spikes else 0.0
            costs[one] = trues[one] * math.exp(drift + disturbed + chance.gauss(0, scatter))
            n_blocks += 1
        race.add(costs)
    return race, n_blocks


def test_gross_differences_end_at_the_first_look():
    race, n_blocks = run([1.0, 2.0, 1.5])
    assert (race.alive, race.winner, n_blocks) == ((0,), 0, 3 * EARLY_LOOKS[0])
    assert {one.fate for one in race.dropped.values()} == {Fate.SLOWER}
    assert race.dropped[1].than == 0
    assert race.dropped[1].ratio.low < 2 < race.dropped[1].ratio.high


def test_the_incumbent_leaves_only_where_it_is_proven_slower():
    race, _ = run([1.0, 0.8])
    assert race.winner == 1
    assert race.dropped[0].fate is Fate.SLOWER
    race, _ = run([1.0, 0.997, 1.003])
    assert race.winner == 0
    assert 0 in race.alive
    assert all(one.fate in (Fate.NO_BETTER, Fate.SLOWER) for one in race.dropped.values())


def test_who_failed_is_out_and_the_others_go_on():
    race = Race(3)
    race.add({0: 1.0, 1: 0.5, 2: 2.0})
    race.fail(1)
    race.add({0: 1.01, 2: 2.02})
    assert race.dropped[1].fate is Fate.FAILED
    assert race.winner == 0
    race = Race(2)
    race.fail(0)
    assert (race.leader, race.winner, race.is_over) == (1, 1, True)
    race.fail(1)
    assert (race.leader, race.winner) == (None, None)


def test_one_round_decides_nothing():
    race = Race(2)
    race.add({0: 1.0, 1: 0.5})
    assert (race.leader, race.winner, race.alive) == (1, 0, (0, 1))
    assert race.ratio_of(1, 0).low is None


def test_agreement_by_chance_is_no_proof():
    race = Race(2, most_rounds=3)
    for _ in range(3):
        race.add({0: 1.0, 1: math.exp(LEAST_SCATTER / 4)})
    assert race.dropped.get(1) is None or race.dropped[1].fate is Fate.NO_BETTER


def test_a_race_has_an_end():
    race, _ = run([1.0, 0.99, 1.01], scatter=0.3, most_rounds=9)
    assert (race.n_rounds, race.is_over) == (9, True)
    with pytest.raises(RuntimeError, match="over"):
        race.add({0: 1.0, 1: 1.0, 2: 1.0})


def test_the_order_is_told():
    race, _ = run([1.0, 0.9, 2.0], scatter=0.02, most_rounds=20)
    order = race.standings()
    assert order[0].candidate == race.winner == 1
    assert order[-1].candidate == 2, "dropped first"
    assert sorted(one.candidate for one in order) == [0, 1, 2]


@pytest.mark.parametrize("costs", [{0: 1.0}, {0: 1.0, 1: 0.0}, {0: 1.0, 1: math.inf}, {0: 1.0, 1: math.nan}])
def test_a_round_is_a_cost_of_everybody(costs):
    with pytest.raises(ValueError, match="positive, finite cost"):
        Race(2).add(costs)


@pytest.mark.parametrize("wrong", [{"margin": 0}, {"alpha": 1}, {"incumbent": 3}, {"most_rounds": 0}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="a race needs"):
        Race(3, **wrong)


@pytest.mark.parametrize("spikes", [0.0, 0.1])
@pytest.mark.parametrize("trues", [[1.0] * 5, [1, 0.9, 1, 1.05, 1.3], [1, 0.99, 0.98, 0.97, 0.96], [1, 1.02]])
def test_one_within_two_percent_of_the_best_is_kept(trues, spikes):
    """In at least 95 of 100 races; where noise allows it, that one is the winner."""
    n = 60
    races = [run(trues, scatter=0.01, seed=seed, spikes=spikes)[0] for seed in range(n)]
    kept = sum(min(trues[one] for one in race.alive) <= 1.02 * min(trues) for race in races)
    won = sum(trues[race.winner] <= 1.02 * min(trues) for race in races)
    assert kept >= 0.95 * n
    assert won >= 0.95 * n


def test_a_race_costs_less_than_measuring_all_as_often():
    costs = [run([1, 0.9, 1.1, 1.2, 1.3], scatter=0.01, seed=seed)[1] for seed in range(20)]
    assert sum(costs) / len(costs) < 0.25 * 5 * 20
