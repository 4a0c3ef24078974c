import math
import random

import pytest
from scipy.stats import wilcoxon

from harness.evidence.medians import median
from harness.evidence.sequential import (
    LOOKS,
    Decision,
    SequentialTest,
    rank_of_interval,
    signed_rank_p,
    walsh_averages,
)


def run(log_ratios, margin=0.01):
    test = SequentialTest(margin)
    for value in log_ratios:
        if test.add(value) is not Decision.UNDECIDED:
            break
    return test


def test_signed_rank_by_hand():
    assert signed_rank_p(8, 0) == 2 / 2**8
    assert signed_rank_p(8, 3) == 2 * 5 / 2**8  # 0, 1, 2, 3 and 1 + 2
    values = [0.3, -0.1, 0.5, 0.7, -0.2, 1.1, 0.9, 1.3]
    assert signed_rank_p(8, 3) == pytest.approx(wilcoxon(values).pvalue)


def test_walsh_averages():
    assert walsh_averages([1.0, 3.0, 8.0]) == [1, 2, 3, 4.5, 5.5, 8]


def test_a_clear_difference_ends_at_the_first_looks():
    slower = run(0.03 + 0.001 * (n % 3) for n in range(LOOKS[-1]))
    assert slower.decision is Decision.SLOWER
    assert len(slower.log_ratios) <= 12
    assert slower.ratio.low <= math.exp(0.031) <= slower.ratio.high
    assert run(-0.03 - 0.001 * (n % 3) for n in range(LOOKS[-1])).decision is Decision.FASTER


def test_equal_within_the_margin_or_not():
    small = [0.004 + 0.0001 * (n % 3) for n in range(LOOKS[-1])]
    assert run(small).decision is Decision.SLOWER
    tests = SequentialTest(0.01, beyond_margin=True), SequentialTest(0.002, beyond_margin=True)
    for value in small[: LOOKS[1]]:
        for test in tests:
            if not test.is_over:
                test.add(value)
    assert [test.decision for test in tests] == [Decision.NO_DIFFERENCE, Decision.SLOWER]


def test_no_difference_is_an_answer():
    test = run(0.001 * (-1) ** n for n in range(LOOKS[-1]))
    assert test.decision is Decision.NO_DIFFERENCE
    assert len(test.log_ratios) <= 12


def test_never_decided_ends_at_the_last_look():
    test = run(0.2 * (-1) ** n * (1 + n * 7 % 13) for n in range(LOOKS[-1]))
    assert test.decision is Decision.UNDECIDED
    assert test.is_over
    assert test.next_look is None
    with pytest.raises(RuntimeError):
        test.add(0.0)


def test_time_is_up():
    test = run([0.03] * 7)
    assert (test.decision, test.ratio, test.next_look) == (Decision.UNDECIDED, None, LOOKS[0])
    assert test.finish() is Decision.SLOWER
    assert run([0.03]).finish() is Decision.UNDECIDED
    assert SequentialTest(0.01).finish() is Decision.UNDECIDED


def test_what_was_measured_is_taken_in_again_as_far_as_it_was_needed():
    clear, short = [0.03 + 0.001 * (n % 3) for n in range(LOOKS[-1])], [0.03, 0.031, 0.029] * 3
    one, cut, open_end = (SequentialTest(0.01) for _ in range(3))
    one.replay(clear, is_last=True)
    assert one == run(clear)
    cut.replay(short[:7], is_last=True)
    open_end.replay(short[:7], is_last=False)
    assert (cut.decision, cut.n_at_look) == (Decision.SLOWER, 7)
    assert (open_end.decision, open_end.n_at_look, len(open_end.log_ratios)) == (Decision.UNDECIDED, 0, 7)


def test_time_is_up_at_a_planned_look():
    chance = random.Random(0)
    test = run([chance.gauss(0, 0.02) for _ in range(LOOKS[1])])
    before = test.ratio
    test.finish()
    assert test.ratio.high / test.ratio.low < before.high / before.low
    again = test.ratio
    test.finish()
    assert test.ratio == again
    # Of ten pairs, after one extreme order of eight (2 in 256): half of what is left of 5 %.
    averages = walsh_averages(test.log_ratios)
    assert again.low == math.exp(averages[rank_of_interval(10, (0.05 - 2 / 2**8) / 2)[0] - 1])


@pytest.mark.parametrize(("margin", "alpha"), [(0, 0.05), (-1, 0.05), (math.inf, 0.05), (0.01, 0), (0.01, 1)])
def test_bad_bounds(margin, alpha):
    with pytest.raises(ValueError):
        SequentialTest(margin, alpha)


def test_bad_values():
    with pytest.raises(ValueError):
        SequentialTest(0.01).add(math.nan)


def simulate(true_ratio, deviation, trials, seed):
    """Decisions of many tests, the pairs that each took, and how often an interval of any look missed the true ratio."""
    chance, decisions, pairs, missed = random.Random(seed), [], [], 0
    for _ in range(trials):
        test, misses = SequentialTest(0.01), False
        while not test.is_over:
            test.add(math.log(true_ratio) + chance.gauss(0, deviation))
            if test.ratio and test.ratio.low is not None:
                misses = misses or not test.ratio.low <= true_ratio <= test.ratio.high
        decisions.append(test.decision)
        pairs.append(len(test.log_ratios))
        missed += misses
    return decisions, pairs, missed / trials


def test_looking_does_not_raise_false_alarms():
    decisions, _, missed = simulate(1.0, 0.01, 200, 1)
    assert sum(decision in (Decision.FASTER, Decision.SLOWER) for decision in decisions) / 200 <= 0.05
    assert missed <= 0.07


def test_a_difference_at_the_margin_is_not_called_none():
    decisions, _, _ = simulate(1.01, 0.01, 100, 2)
    assert decisions.count(Decision.NO_DIFFERENCE) <= 5
    assert decisions.count(Decision.SLOWER) >= 90


def test_three_percent_are_found_in_few_pairs():
    decisions, pairs, _ = simulate(0.97, 0.02, 100, 3)
    assert decisions.count(Decision.FASTER) >= 90
    assert median(pairs) <= 12


def test_signed_ranks_of_many_pairs():
    # The mean of 1 … n over two, and the deviation sqrt(n (n + 1) (2 n + 1) / 24): far out the normal distribution is near.
    n = LOOKS[-1]
    two_deviations = round(n * (n + 1) / 4 - 1.96 * math.sqrt(n * (n + 1) * (2 * n + 1) / 24))
    assert signed_rank_p(n, two_deviations) == pytest.approx(0.05, abs=0.001)
