import math
import random

import pytest

from harness.evidence.change_points import find_change_points


def noise(n, seed, level=100.0):
    chance = random.Random(seed)
    return [chance.gauss(level, level / 100) for _ in range(n)]


def test_a_step_is_found_where_it_is():
    assert find_change_points(noise(10, 1) + noise(10, 2, 105)) == [10]


def test_two_steps():
    found = find_change_points(noise(20, 1) + noise(20, 2, 105) + noise(20, 3))
    assert {20, 40} <= set(found)


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
