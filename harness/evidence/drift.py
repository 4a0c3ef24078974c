"""Warm-up that is seen and not assumed: how many of the first repetitions are slower than what comes after.

Pure Python and cheap: it is called between the blocks of a measurement, and whenever a record is read.
"""

from __future__ import annotations

from collections.abc import Sequence


def count_warmups(durations: Sequence[float]) -> int:
    """How many of the first repetitions belong to a warm-up: 0 most of the time, at most half of them.

    Only first repetitions that are slower count: a machine that slows down later is hot, and no warm-up.

    Parameters
    ----------
    durations : shape (n,), in the order of time, any unit
    """
    dropped, most = 0, len(durations) // 2
    while found := _count_once(durations[dropped:]):
        if dropped + found > most:
            break
        dropped += found
    return dropped


def _count_once(durations: Sequence[float]) -> int:
    """The first k are the k largest, in falling order: by chance one in n (n - 1) … of k = 2."""
    if len(durations) < 5:
        return 0
    ordered = sorted(durations, reverse=True)
    k = 0
    while k < len(durations) // 2 and durations[k] == ordered[k] > ordered[k + 1]:
        k += 1
    return k if k >= 2 else 0
