"""What logits say of a text: against sums that are written out slowly, token by token."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest

from harness.native import scoring
from harness.records.quality import Divergence, bin_of, middle_of

N_VOCAB = 11


def draw(seed, n=37, scale=3.0):
    chance = np.random.default_rng(seed)
    return (chance.normal(size=(n, N_VOCAB)) * scale).astype(np.float32), chance.integers(0, N_VOCAB, n)


def log_softmax(row):
    """Plain float64, one exponential after the other."""
    total = math.fsum(math.exp(float(value)) for value in row)
    return [float(value) - math.log(total) for value in row]


def slowly(base, logits, targets):
    """Every sum of a window as perplexity.cpp's formulas have it, without its rounding."""
    nll, nll_base, kld, p_diff, same = [], [], [], [], 0
    for one, other, target in zip(logits, base, targets, strict=True):
        mine, theirs = log_softmax(one), log_softmax(other)
        nll.append(-mine[target])
        nll_base.append(-theirs[target])
        kld.append(math.fsum(math.exp(b) * (b - m) for b, m in zip(theirs, mine, strict=True)))
        p_diff.append(math.exp(mine[target]) - math.exp(theirs[target]))
        same += mine.index(max(mine)) == theirs.index(max(theirs))
    return nll, nll_base, kld, p_diff, same


@pytest.mark.parametrize("n", [1, scoring.ROWS - 1, scoring.ROWS, scoring.ROWS + 1, 37])
def test_a_window_comes_to_what_its_tokens_come_to_one_by_one(n):
    logits, targets = draw(1, n)
    window = scoring.score(logits, targets)
    nll = slowly(logits, logits, targets)[0]
    assert window.n_scored == n
    assert window.nll == pytest.approx(math.fsum(nll), rel=1e-6)
    assert window.nll2 == pytest.approx(math.fsum(value**2 for value in nll), rel=1e-6)
    assert window.divergence is None


def test_two_models_are_as_far_apart_as_their_tokens_are_one_by_one():
    base, targets = draw(2)
    logits = base + draw(3, scale=0.4)[0]
    found = scoring.compare(base, logits, targets)
    nll, nll_base, kld, p_diff, same = slowly(base, logits, targets)
    expected = Divergence(
        math.fsum(nll_base), math.fsum(v**2 for v in nll_base), math.fsum(a * b for a, b in zip(nll, nll_base, strict=True)),
        math.fsum(kld), math.fsum(v**2 for v in kld), max(kld), min(kld), math.fsum(p_diff), math.fsum(v**2 for v in p_diff),
        math.fsum(v**4 for v in p_diff), max(map(abs, p_diff)), same,
    )  # fmt: skip
    assert dataclasses.astuple(found.window.divergence) == pytest.approx(
        dataclasses.astuple(expected), rel=2e-5, abs=1e-6
    )
    assert found.window.nll == pytest.approx(math.fsum(nll), rel=1e-6)
    assert 0 < same < len(targets)
    assert sum(found.bins.values()) == len(targets)
    assert abs(sum(middle_of(number) * count for number, count in found.bins.items()) / math.fsum(kld) - 1) < 0.006


def test_a_model_beside_itself_is_no_distance_away():
    logits, targets = draw(4)
    found = scoring.compare(logits, logits.copy(), targets)
    about = found.window.divergence
    assert (about.kld, about.kld_max, about.p_diff2, about.n_same_top) == (0.0, 0.0, 0.0, len(targets))
    assert found.bins == Counter({0: len(targets)})


def test_a_shift_of_all_logits_changes_nothing():
    base, targets = draw(5)
    logits = base + draw(6, scale=0.4)[0]
    found = scoring.compare(base, logits, targets).window
    shifted = scoring.compare(base - 40, logits + 40, targets).window
    assert dataclasses.astuple(shifted.divergence) == pytest.approx(
        dataclasses.astuple(found.divergence), rel=1e-3, abs=1e-4
    )


def test_a_token_that_the_base_rules_out_counts_nothing_and_one_that_only_the_other_does_is_infinite():
    base, targets = draw(7)
    targets = np.zeros_like(targets)
    logits = base.copy()
    base[:, 3] = logits[:, 3] = -np.inf
    assert scoring.compare(base, logits, targets).window.divergence.kld == 0.0
    logits[5, 4] = -np.inf
    window = scoring.compare(base, logits, targets).window
    assert (window.nll, window.divergence) == (None, None)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_kept_as_none(value):
    logits, targets = draw(8)
    logits[3, 2] = value
    assert scoring.score(logits, targets).nll is None
    assert scoring.compare(draw(8)[0], logits, targets).window.nll is None


def test_rounding_is_that_of_llama_perplexity():
    """As log_softmax with a uint16_t log_prob has it: each logit on one of 65536 steps from 16 below the largest."""
    logits = (draw(9)[0] * 4).astype(np.float32)
    rounded = scoring.round_log_probs(logits)
    for row, found in zip(logits, rounded, strict=True):
        exact = log_softmax(row)
        highest = max(map(float, row))
        lowest = max(float(min(row)), highest - 16)
        step = (highest - lowest) / 65535
        bottom = lowest - highest + max(exact)
        for value, log_prob, here in zip(row, exact, found, strict=True):
            steps = (float(here) - bottom) / step
            assert abs(steps - round(steps)) < 0.02, "on a step"
            near = max(log_prob, bottom) if value > lowest else bottom
            assert float(here) == pytest.approx(near, abs=0.52 * step)


def test_rounded_and_exact_differ_by_little_and_do_differ():
    base, targets = draw(10, 400)
    logits = base + draw(11, 400, scale=0.1)[0]
    exact = scoring.compare(base, logits, targets).window.divergence
    rounded = scoring.compare(base, logits, targets, is_rounded=True).window.divergence
    assert rounded.kld == pytest.approx(exact.kld, rel=0.02)
    assert rounded.kld != exact.kld
    assert rounded.n_same_top == exact.n_same_top


@pytest.mark.parametrize("kld", [1e-11, 3e-7, 0.0041, 0.5, 1.0, 37.2])
def test_the_middle_of_a_bin_is_near_all_that_is_in_it(kld):
    assert middle_of(bin_of(kld)) == pytest.approx(kld, rel=0.0055)


def test_what_is_nothing_has_a_bin_of_its_own():
    assert [bin_of(kld) for kld in (-1e-6, 0.0, 1e-13)] == [0, 0, 0]
    assert middle_of(0) == 0.0
    assert bin_of(2.0**-40 * 1.0001) == 1
