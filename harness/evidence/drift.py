"""Warm-up that is seen and not assumed: how many of the first repetitions are slower than what comes after.

Three signs, each rare by chance whatever the distribution, as long as repetitions are exchangeable:
- a decay: the two first are the two slowest, in falling order (one order in n (n - 1): 3.3 % of six repetitions, 0.2 % of 24);
- a level: the ranks of the first k together are too high for some k (Mann and Whitney's standardised rank sum over all k up to half of
  them, as Pettitt 1979 looks for a change; the bound for the largest of them is by simulation, about 2 %);
- a slow start: the first stands further above the second slowest than that stands above the fastest. One spike looks the same, so that
  this one waits until a spike would hardly fall on the first of all: at worst on 2 % of 20.

What was found is left out, and the rest is looked at again: a slow decay has more than one step. Then as many again are left out: a
decay falls below the noise, where it is found no more, before it has ended.

Pure Python and cheap: it is called between the blocks of a measurement, and whenever a record is read.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from harness.evidence.medians import samples_needed

#: A warm-up is no longer than this: pages, caches and clocks are ready by then. What changes later is the machine, not the beginning.
MOST_WARMUPS = 10

#: From here on one slow start is a sign by itself.
MIN_FOR_ONE = 20

#: The largest standardised rank sum of n repetitions stays below BASE + PER_LOG * ln(n) in 98 % of all orders (n = 9 … 400).
BASE, PER_LOG = 1.9, 0.2

#: Spearman's correlation with the order, times sqrt(n - 1), that one in twenty steady samples exceeds.
FALLING = 1.6


def count_warmups(durations: Sequence[float]) -> int:
    """How many of the first repetitions belong to a warm-up: 0 most of the time, at most half of them and `MOST_WARMUPS`.

    Only first repetitions that are slower count: a machine that slows down later is hot, and that is no warm-up.

    Parameters
    ----------
    durations : shape (n,), in the order of time, any unit
    """
    n = len(durations)
    if n < samples_needed():
        return 0
    if n > FEW or len(set(durations)) < n:
        return _count_steps(durations)
    # Of so few only their order counts, and there are not many.
    return _count_of_order(tuple(sorted(range(n), key=durations.__getitem__)))


#: The orders of up to so many repetitions are known again.
FEW = 6


@functools.lru_cache(math.factorial(FEW))
def _count_of_order(order: tuple[int, ...]) -> int:
    """As `count_warmups`, of repetitions of which it is known which was the quickest, the second and so on."""
    places = [0] * len(order)
    for rank, place in enumerate(order):
        places[place] = rank
    return _count_steps(places)


def _count_steps(durations: Sequence[float]) -> int:
    found, most = 0, min(len(durations) // 2, MOST_WARMUPS)
    while found < most and (step := _count_once(durations[found:])):
        found += step
    return min(2 * found, most)


def is_falling(durations: Sequence[float]) -> bool:
    """Whether repetitions still become faster: too weak a sign to leave any out, strong enough to wait for more of them.

    One in twenty steady samples looks so. Source: Spearman's rank correlation as a test of trend, Daniels 1950.
    """
    n, ranks = len(durations), _centred_ranks(durations)
    squares = sum(rank * rank for rank in ranks)
    if not squares:
        return False
    places = [place - (n - 1) / 2 for place in range(n)]
    shared = sum(place * rank for place, rank in zip(places, ranks, strict=True))
    return -shared / math.sqrt(squares * sum(place * place for place in places)) * math.sqrt(n - 1) > FALLING


def _count_once(durations: Sequence[float]) -> int:
    """The length of the first step of a warm-up; 0: there is none."""
    n = len(durations)
    if n < samples_needed():  # no median is bounded, and a decay of two is one order in twenty
        return 0
    slowest = sorted(durations, reverse=True)
    k = 0
    while k < n // 2 and durations[k] == slowest[k] > slowest[k + 1]:
        k += 1
    if k >= 2 or (k == 1 and n >= MIN_FOR_ONE and slowest[0] - slowest[1] > slowest[1] - slowest[-1]):
        return k
    return _count_level(durations)


def _count_level(durations: Sequence[float]) -> int:
    """The k whose first repetitions rank highest for their number, if that is more than chance."""
    n = len(durations)
    best, found, rank_sum = BASE + PER_LOG * math.log(n), 0, 0.0
    for k, rank in enumerate(_centred_ranks(durations)[: min(n // 2, MOST_WARMUPS)], 1):
        rank_sum += rank
        score = rank_sum / math.sqrt(k * (n - k) * (n + 1) / 12)
        if score > best:
            best, found = score, k
    return found


def _centred_ranks(values: Sequence[float]) -> list[float]:
    """Ranks around 0; equal values share the mean of theirs."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    ranks, start = [0.0] * len(values), 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for place in order[start:end]:
            ranks[place] = (start + end - 1) / 2 - (len(values) - 1) / 2
        start = end
    return ranks
