import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.evidence.medians import mean, median, median_interval, quantile, samples_needed, standard_deviation


def test_median_of_odd_and_even():
    assert median([3, 1, 2]) == 2
    assert median([4, 1, 2, 3]) == 2.5
    with pytest.raises(ValueError):
        median([])


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=60))
def test_quantiles_are_values_that_occurred_and_in_order(values):
    points = [quantile(values, share) for share in (0, 0.5, 0.95, 0.99, 1)]
    assert all(point in values for point in points)
    assert points == sorted(points)
    assert points[0] == min(values)
    assert points[-1] == max(values)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_five_samples_cannot_bound_a_median(n):
    assert median_interval(range(n)) is None


# Levels from the binomial distribution: 1 - 2 * P(X <= rank), X ~ B(n, 1/2).
@pytest.mark.parametrize(
    ("n", "low", "high", "level"), [(6, 0, 5, 1 - 2 / 64), (10, 1, 8, 1 - 2 * 11 / 1024), (20, 5, 14, 0.958611)]
)
def test_interval_takes_the_known_order_statistics(n, low, high, level):
    interval = median_interval(random.Random(1).sample(range(n), n))
    assert (interval.low, interval.high) == (low, high)
    assert interval.level == pytest.approx(level, abs=1e-6)


@pytest.mark.parametrize("n", [6, 10, 12, 25])
def test_interval_covers_as_often_as_it_claims(n):
    """Skewed on purpose: no assumption about the shape may be hidden in it."""
    rng, trials = random.Random(n), 4000
    true_median = math.log(2)
    hits, claimed = 0, 0.0
    for _ in range(trials):
        interval = median_interval([rng.expovariate(1) for _ in range(n)])
        hits += interval.low <= true_median <= interval.high
        claimed = interval.level
    margin = 4 * math.sqrt(claimed * (1 - claimed) / trials)
    assert claimed >= 0.95
    assert abs(hits / trials - claimed) < margin


def test_six_samples_are_needed():
    assert samples_needed() == 6


def test_deviation_is_llama_benchs():
    values = [51620170, 51896420]  # samples_ns of a llama-bench run that printed stddev_ns 195338
    assert int(standard_deviation(values)) == 195338
    assert int(mean(values)) == 51758295
    assert standard_deviation([5]) == 0
