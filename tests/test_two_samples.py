import itertools
import math

import pytest

from harness.evidence.two_samples import (
    LOOKED_FACTOR,
    Method,
    Summary,
    _count_u,
    compare_samples,
    compare_summaries,
    correct_holm,
)


def count_u_by_hand(n_a, n_b):
    """Every order of n_a + n_b values, and in how many pairs B comes behind A."""
    counts = [0] * (n_a * n_b + 1)
    for places in itertools.combinations(range(n_a + n_b), n_a):
        others = [place for place in range(n_a + n_b) if place not in places]
        counts[sum(b > a for a in places for b in others)] += 1
    return counts


@pytest.mark.parametrize(("n_a", "n_b"), [(1, 1), (1, 5), (3, 3), (4, 3), (5, 6)])
def test_orders_are_counted_exactly(n_a, n_b):
    assert _count_u(n_a, n_b) == count_u_by_hand(n_a, n_b)


def test_four_and_four_apart():
    a, b = [100, 101, 102, 103], [200, 202, 204, 206]
    found = compare_samples(a, b)
    assert found.p == pytest.approx(2 / math.comb(8, 4))
    assert found.ratio.value == pytest.approx(2)
    assert (found.ratio.low, found.ratio.high) == (pytest.approx(200 / 103), pytest.approx(206 / 100))
    assert found.ratio.level == pytest.approx(1 - 2 / 70)
    assert (found.method, found.n_a, found.n_b) == (Method.MANN_WHITNEY, 4, 4)


def test_who_looked_needs_more_evidence():
    a, b = [100, 101, 102, 103, 104, 105], [102, 104, 106, 108, 110, 112]
    fixed, looked = compare_samples(a, b), compare_samples(a, b, has_looked=True)
    assert looked.p == pytest.approx(LOOKED_FACTOR * fixed.p)
    assert looked.ratio.low <= fixed.ratio.low <= fixed.ratio.high <= looked.ratio.high
    assert compare_samples(a, a, has_looked=True).p == 1


@pytest.mark.parametrize(("n_a", "n_b"), [(1, 1), (2, 2), (3, 3), (1, 5), (2, 5)])
def test_too_few_to_tell(n_a, n_b):
    found = compare_samples(range(100, 100 + n_a), range(1000, 1000 + n_b))
    assert found.p is None
    assert found.ratio.low is None
    assert found.ratio.value > 9


def test_nothing_and_nonsense():
    assert compare_samples([], [1.0]).ratio is None
    for bad in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError):
            compare_samples([bad], [1.0])
    with pytest.raises(ValueError):
        compare_summaries(Summary(0, 1, 5), Summary(1, 1, 5))


def test_welch_on_logarithms():
    found = compare_summaries(Summary(100, 1, 5), Summary(103, 1, 5))
    assert found.ratio.value == pytest.approx(1.03)
    assert found.ratio.low < 1.03 < found.ratio.high
    assert found.p < 0.01
    assert compare_summaries(Summary(100, 1, 5), Summary(103, 0, 1)).p is None
    assert compare_summaries(Summary(100, 0, 5), Summary(103, 0, 5)).p is None


def test_holm():
    assert correct_holm([0.01, 0.04, 0.03, None]) == [
        pytest.approx(0.03),
        pytest.approx(0.06),
        pytest.approx(0.06),
        None,
    ]
    assert correct_holm([0.9, 0.8]) == [1.0, 1.0]
    assert correct_holm([]) == []
