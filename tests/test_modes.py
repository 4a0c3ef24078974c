"""Two speeds are found where there are two, and seldom where there is one."""

import math
import random

import pytest

from harness.evidence.modes import MIN_VALUES, find_two_levels

SHAPES = {
    "normal": lambda one: one.gauss(0, 1),
    "uniform": lambda one: one.random(),
    "lognormal": lambda one: one.lognormvariate(0, 0.5),
    "exponential": lambda one: one.expovariate(1),
    "t3": lambda one: one.gauss(0, 1) / math.sqrt(sum(one.gauss(0, 1) ** 2 for _ in range(3)) / 3),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_values", [MIN_VALUES, 20, 40])
def test_one_speed_is_seldom_taken_for_two(shape, n_values):
    chance = random.Random(13)
    found = sum(find_two_levels([SHAPES[shape](chance) for _ in range(n_values)]) is not None for _ in range(1000))
    assert found <= 25


def test_two_speeds_are_found_with_what_each_is():
    chance = random.Random(13)
    caught = 0
    for _ in range(200):
        values = [100 + chance.gauss(0, 0.5) for _ in range(8)] + [110 + chance.gauss(0, 0.5) for _ in range(8)]
        chance.shuffle(values)
        if levels := find_two_levels(values):
            caught += 1
            assert levels == (pytest.approx(100, abs=1.5), pytest.approx(110, abs=1.5))
    assert caught >= 190


def test_outliers_equal_values_and_few_values_are_no_second_speed():
    assert find_two_levels([100.0] * 18 + [150.0, 151.0]) is None
    assert find_two_levels([100.0] * 20) is None
    assert find_two_levels([100.0] * 3 + [150.0] * 3) is None
    assert find_two_levels([100.0] * 10 + [150.0] * 10) == (100, 150)
