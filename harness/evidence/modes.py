"""Two speeds: repetitions that fall into two groups with nothing between, as where a clock or a placement has two states.

The median of such a sample says little: it is one of the two or lies between both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.evidence.medians import median

#: Fewer show two groups by chance: of 12 or more values the gap reaches GAP_RATIO on less than 1.5 % of normal, uniform, lognormal,
#: exponential and t samples (by simulation; tests hold it).
MIN_VALUES = 12

#: The gap between the groups against the range of the wider one.
GAP_RATIO = 1.5

#: Each group has this share of the values at least: what is rarer is an outlier, which a median does not feel.
GROUP_SHARE = 0.2


def find_two_levels(values: Sequence[float]) -> tuple[float, float] | None:
    """The medians of the two groups, the lower first; None where the values are of one kind.

    Parameters
    ----------
    values : shape (n,), any order, any unit
    """
    n = len(values)
    if n < MIN_VALUES:
        return None
    ordered, least = sorted(values), max(math.ceil(GROUP_SHARE * n), 2)
    cut = max(range(least, n - least + 1), key=lambda place: ordered[place] - ordered[place - 1])
    low, high = ordered[:cut], ordered[cut:]
    widest = max(low[-1] - low[0], high[-1] - high[0])
    gap = high[0] - low[-1]
    return (median(low), median(high)) if gap > 0 and gap >= GAP_RATIO * widest else None
