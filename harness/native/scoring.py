"""What logits say of a text, in numpy: how likely its tokens were, and how far two models' distributions are apart.

Source of each formula: tools/perplexity/perplexity.cpp of llama.cpp. That program stores a base model's log-probabilities as 16-bit
numbers between 0 and -16 below the likeliest one; here they are kept as they came, and `round_log_probs` does as the program does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.records.quality import Divergence, Window, bin_of

#: Tokens that are looked at together: what they take is this times the vocabulary times a few numbers of 8 bytes.
ROWS = 16

#: What the program leaves out: tokens of which the base's log-probability is no higher. Source: log_softmax with kl_divergence_result.
LEAST_LOG_PROB = -16.0


@dataclass(slots=True)
class Scored:
    """A window's sums, and how many of its tokens fall in each bin of KL divergence (`harness.records.quality.bin_of`)."""

    window: Window
    bins: Counter[int] = field(default_factory=Counter)


def score(logits: Any, targets: Any) -> Window:
    """How likely the tokens of a window were.

    Parameters
    ----------
    logits  : float32 (n, n_vocab)
    targets : n token ids, the one that came after each

    Source: log_softmax and process_logits: the largest logit is subtracted in float32, the exponentials are added up in float64.
    """
    nll = np.concatenate([_nll(block, part) for block, part in _blocks(logits, targets)])
    return _window(nll, None)


def compare(base: Any, logits: Any, targets: Any, *, is_rounded: bool = False) -> Scored:
    """The same, and how far a model's distributions are from a base model's, which both have for the same tokens.

    Parameters
    ----------
    base, logits : float32 (n, n_vocab)
    targets      : n token ids
    is_rounded   : take the base's log-probabilities as `round_log_probs` leaves them

    Source: log_softmax with kl_divergence_result, but for what is said above.
    """
    found: list[Any] = []
    for place in range(0, len(targets), ROWS):
        part = slice(place, place + ROWS)
        found.append(_compare_rows(base[part], logits[part], targets[part], is_rounded))
    nll, nll_base, kld, p_diff, same = (np.concatenate(column) for column in zip(*found, strict=True))
    if not all(np.isfinite(values).all() for values in (nll, nll_base, kld)):
        return Scored(_window(nll, None, is_finite=False))
    divergence = Divergence(
        nll_base=float(nll_base.sum()), nll2_base=float((nll_base**2).sum()), nll_nll_base=float((nll * nll_base).sum()),
        kld=float(kld.sum()), kld2=float((kld**2).sum()), kld_max=float(kld.max()), kld_min=float(kld.min()),
        p_diff=float(p_diff.sum()), p_diff2=float((p_diff**2).sum()), p_diff4=float((p_diff**4).sum()),
        p_diff_max=float(np.abs(p_diff).max()), n_same_top=int(same.sum()),
    )  # fmt: skip
    return Scored(_window(nll, divergence), Counter(map(bin_of, kld.tolist())))


def round_log_probs(logits: Any) -> Any:
    """The log-probabilities (n, n_vocab) of logits as llama-perplexity's file of a base model has them.

    Source: log_softmax with a uint16_t log_prob: 65536 steps from the likeliest token down to the least likely, or to 16 below.
    """
    highest = logits.max(axis=1, keepdims=True)
    lowest = np.maximum(logits.min(axis=1, keepdims=True), highest - np.float32(16))
    log_sum = np.log(np.exp(logits - highest).sum(axis=1, dtype=np.float64, keepdims=True)).astype(np.float32)
    scale = ((highest - lowest) / np.float32(65535)).astype(np.float32)
    inverse = np.where(scale > 0, 1 / np.where(scale > 0, scale, 1), 0).astype(np.float32)
    steps = np.where(logits > lowest, np.rint(inverse * (logits - lowest)), 0).astype(np.float32)
    return (scale * steps + (lowest - highest - log_sum)).astype(np.float32)


def _blocks(logits: Any, targets: Any) -> Iterator[tuple[Any, Any]]:
    for place in range(0, len(targets), ROWS):
        yield logits[place : place + ROWS], targets[place : place + ROWS]


def _exponentials(logits: Any) -> tuple[Any, Any, Any]:
    """Of each row the largest logit, all exponentials relative to it, and the logarithm of their sum."""
    highest = logits.max(axis=1, keepdims=True)
    exponentials = np.exp(logits - highest)
    return highest[:, 0], exponentials, np.log(exponentials.sum(axis=1, dtype=np.float64))


def _nll(logits: Any, targets: Any) -> Any:
    """The negative log-likelihood of each target in nats, float64."""
    with np.errstate(invalid="ignore", over="ignore"):
        highest, _, log_sum = _exponentials(logits)
        return log_sum - (logits[np.arange(len(targets)), targets] - highest)


def _compare_rows(base: Any, logits: Any, targets: Any, is_rounded: bool) -> tuple[Any, ...]:
    """Of each row: both negative log-likelihoods, KL divergence, difference of probability, whether both have the same top."""
    rows = np.arange(len(targets))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        highest, _, log_sum = _exponentials(logits)
        nll = log_sum - (logits[rows, targets] - highest)
        if is_rounded:
            log_base = round_log_probs(base)
            nll_base, kld = (
                -log_base[rows, targets].astype(np.float64),
                _rounded_kld(log_base, logits, highest + log_sum),
            )
            top = log_base.argmax(axis=1)
        else:
            base_highest, exponentials, base_log_sum = _exponentials(base)
            nll_base = base_log_sum - (base[rows, targets] - base_highest)
            # The logarithms of both sums are the same for all tokens of a row.
            apart = np.where(exponentials > 0, base - logits, 0)
            kld = (exponentials * apart).sum(axis=1, dtype=np.float64) / exponentials.sum(axis=1, dtype=np.float64)
            kld -= (base_highest + base_log_sum) - (highest + log_sum)
            top = base.argmax(axis=1)
        p_diff = np.exp(-nll) - np.exp(-nll_base)
    return nll, nll_base, kld, p_diff, logits.argmax(axis=1) == top


def _rounded_kld(log_base: Any, logits: Any, log_sums: Any) -> Any:
    """KL divergence as the program adds it up. log_sums: the logarithm of the sum of each row's exponentials."""
    terms = np.exp(log_base) * (log_base - (logits - log_sums[:, None].astype(np.float32)))
    return np.where(log_base > LEAST_LOG_PROB, terms, 0).sum(axis=1, dtype=np.float64)


def _window(nll: Any, divergence: Divergence | None, *, is_finite: bool = True) -> Window:
    """A window's sums; without any where a figure is not finite."""
    if not (is_finite and np.isfinite(nll).all()):
        return Window(len(nll), None, None, None)
    return Window(len(nll), float(nll.sum()), float((nll**2).sum()), divergence)
