import pytest

from harness.evidence.stopping import MIN_REPETITIONS, is_precise, next_look, relative_half_width


def test_below_six_nothing_is_known():
    assert relative_half_width([]) is None
    assert relative_half_width([1.0] * (MIN_REPETITIONS - 1)) is None
    assert not is_precise([1.0] * (MIN_REPETITIONS - 1), 0.5)


def test_the_further_end_counts():
    # Six values: the interval is the smallest to the largest, the median (100 + 101) / 2.
    assert relative_half_width([99, 100, 100, 101, 102, 104]) == pytest.approx(3.5 / 100.5)


def test_looks_grow():
    looks = [next_look(0)]
    while looks[-1] < 1000:
        looks.append(next_look(looks[-1]))
    assert looks[0] == MIN_REPETITIONS
    assert all(later > look for look, later in zip(looks, looks[1:], strict=False))
    assert next_look(7) == next_look(6)
    assert len(looks) < 16
