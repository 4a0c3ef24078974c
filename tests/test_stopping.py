import random

import pytest

from harness.evidence.stopping import MIN_REPETITIONS, bound_median, is_precise, next_look, relative_half_width


def test_below_six_nothing_is_known():
    assert relative_half_width([]) is None
    assert relative_half_width([1.0] * (MIN_REPETITIONS - 1)) is None
    assert not is_precise([1.0] * (MIN_REPETITIONS - 1), 0.5)


def test_the_further_end_counts():
    # Six values: the interval is the smallest to the largest, the median (100 + 101) / 2.
    assert relative_half_width([99, 100, 100, 101, 102, 104]) == pytest.approx(3.5 / 100.5)


def test_later_looks_take_order_statistics_further_out():
    # 12 values: the 95 % interval goes from the 3rd to the 10th, which holds 96.1 %; the 2nd to the 11th holds 99.4 %.
    assert bound_median(random.Random(1).sample(range(1, 13), 12)).ends == (2, 11)
    assert bound_median(range(1, 8)).ends == (1, 7)  # no more can be had from seven values


def repeat_until_precise(draw, most=192):
    n = next_look(0)
    values = [draw() for _ in range(n)]
    while not is_precise(values, 0.02) and n < most:
        n = next_look(n)
        values += [draw() for _ in range(n - len(values))]
    return values


@pytest.mark.parametrize(
    ("name", "draw", "true"),
    [
        ("quiet", lambda chance: chance.gauss(100, 0.3), 100),
        ("normal", lambda chance: chance.gauss(100, 2), 100),
        ("skewed", lambda chance: 97 + 3 * chance.expovariate(1), 97 + 3 * 0.693147),
        ("two states", lambda chance: chance.choice((100, 105)) + chance.gauss(0, 0.3), 102.5),
    ],
)
def test_stopping_as_soon_as_it_is_narrow_keeps_the_coverage(name, draw, true):
    chance, trials, hits, n = random.Random(5), 300, 0, 0
    for _ in range(trials):
        values = repeat_until_precise(lambda: draw(chance))
        interval = bound_median(values)
        hits += interval.low <= true <= interval.high
        n += len(values)
    assert hits / trials > 0.92
    if name == "quiet":  # but for what seems to fall
        assert n < 1.15 * MIN_REPETITIONS * trials


def test_one_does_not_stop_while_it_falls():
    values = [102.3, 101.5, 101, 100, 98.9, 98.7]
    assert relative_half_width(values) < 0.02
    assert not is_precise(values, 0.02)
    assert is_precise(values[::-1], 0.02), "slower is no warm-up"
    assert is_precise([100.5, 100.4, 100.3, 100.2, 100.1, 100.0], 0.02), "what falls by less than would matter"


def test_looks_grow():
    looks = [next_look(0)]
    while looks[-1] < 1000:
        looks.append(next_look(looks[-1]))
    assert looks[0] == MIN_REPETITIONS
    assert all(later > look for look, later in zip(looks, looks[1:], strict=False))
    assert next_look(7) == next_look(6)
    assert looks[:4] == [6, 12, 24, 48]
