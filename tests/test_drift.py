import math
import random

import pytest

from harness.evidence.drift import MIN_FOR_ONE, count_warmups, is_falling


def test_a_decay_is_left_out():
    assert count_warmups([130, 115, 101, 100, 102, 99, 101, 100]) == 2 * 2  # and as many again
    assert count_warmups([130, 115, 100, 101, 102, 99]) == 3  # but no more than half


def test_a_slower_level_is_left_out():
    noise = [0, 3, 1, 4, 2, 3, 1, 0, 2, 4, 3, 1]
    assert count_warmups([110 + noise[n] if n < 4 else 100 + noise[n] for n in range(12)]) == 6


def test_one_slow_start_needs_many_to_be_told_from_a_spike():
    rest = [100, 102, 101, 103, 99] * 4
    assert count_warmups([130, *rest[: MIN_FOR_ONE - 2]]) == 0
    assert count_warmups([130, *rest[: MIN_FOR_ONE - 1]]) == 2
    assert count_warmups([104, *rest[: MIN_FOR_ONE - 1]]) == 0


def test_nothing_to_see():
    assert count_warmups([]) == 0
    assert count_warmups([130, 115, 100, 101, 102]) == 0
    assert count_warmups([100.0] * 20) == 0
    assert count_warmups([100, 101, 99, 100, 102, 99, 101, 100]) == 0


def test_slower_later_is_no_warm_up():
    assert count_warmups(range(100, 107)) == 0
    assert count_warmups([100] * 10 + [110] * 10) == 0


def test_at_most_half_is_left_out():
    assert count_warmups(range(60, 48, -1)) == 6
    assert count_warmups(range(60, 30, -1)) == 10, "what lasts longer is no warm-up"


@pytest.mark.parametrize("n", [6, 12, 24, 48])
def test_stationary_noise_is_left_alone(n):
    chance = random.Random(n)
    dropped = sum(count_warmups([chance.gauss(100, 1) for _ in range(n)]) > 0 for _ in range(1000))
    assert dropped / 1000 < 0.055


@pytest.mark.parametrize("n", [6, 12, 24])
def test_a_real_warm_up_is_found(n):
    chance, found = random.Random(n), 0
    for _ in range(200):
        found += count_warmups([100 + 20 * math.exp(-k / 2) + chance.gauss(0, 1) for k in range(n)]) > 0
    assert found / 200 > 0.95


def test_what_still_falls():
    assert is_falling([106, 105, 104, 103, 102, 101])
    assert is_falling([104, 103, 105, 102, 100, 101])
    assert not is_falling([101, 102, 103, 104, 105, 106])
    assert not is_falling([100.0] * 6)
    chance = random.Random(7)
    assert sum(is_falling([chance.gauss(100, 1) for _ in range(6)]) for _ in range(1000)) / 1000 < 0.08
