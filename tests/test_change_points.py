import math
import random

import pytest

from harness.evidence.change_points import find_change_points


def noise(n, seed, level=100.0):
    chance = random.Random(seed)
    return [chance.gauss(level, level / 100) for _ in range(n)]


def test_a_step_is_found_where_it_is():
    assert find_change_points(noise(10, 1) + noise(10, 2, 105)) == [10]


def test_a_level_that_comes_and_goes():
    assert find_change_points(noise(20, 21) + noise(20, 22, 105) + noise(20, 23)) == [20, 40]
    assert find_change_points(noise(40, 11) + noise(6, 12, 105) + noise(40, 13)) == [40, 46]


def test_the_last_three_of_twenty():
    assert find_change_points(noise(17, 11) + noise(3, 12, 110)) == [17]


def test_two_values_are_no_level():
    assert find_change_points([*noise(18, 11), 150.0, 151.0]) == []


def test_false_alarms_and_finds_are_counted():
    alarms = sum(find_change_points(noise(12, seed)) != [] for seed in range(200))
    assert alarms / 200 <= 0.08
    found = sum(find_change_points(noise(10, seed) + noise(10, -seed, 105)) == [10] for seed in range(1, 51))
    assert found / 50 >= 0.9


def test_nothing_to_find():
    assert find_change_points([]) == []
    assert find_change_points([1.0] * 5) == []
    assert find_change_points([1.0] * 50) == []
    assert find_change_points(noise(30, 4)) == []


def test_bad_input():
    with pytest.raises(ValueError):
        find_change_points([1.0, math.nan])
    with pytest.raises(ValueError):
        find_change_points([1.0], alpha=0)
