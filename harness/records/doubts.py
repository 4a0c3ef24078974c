"""What makes a figure implausible by itself, whatever the operating system says: how far it is off, and from where on that matters.

A doubt is a caution that is derived on reading, never stored: its cause, its figures, and `distrust` where the figure is worth nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.evidence.medians import median, median_interval, relative_width
from harness.records.cautions import Caution, CautionCause


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a deviation makes a figure noisy, and from where on it is not to be trusted (inf: never by this alone)."""

    noisy: float
    hopeless: float = math.inf


#: How far from its median a figure's rounds may put it. A tenth is what two neighbours on a virtual machine come to; a figure that may
#: be a third off answers no question that is asked here.
ROUNDS = Limits(0.10, 1 / 3)

#: How far two ways of timing the same work may differ: 3 % on a quiet machine, 6 % on a restless one.
SAME_WORK = Limits(1.25, 2.0)


def doubt(cause: CautionCause, size: float, limits: Limits, **figures: Any) -> Iterator[Caution]:
    """The doubt about a deviation of some size, if it is one."""
    if size > limits.noisy:
        yield Caution(cause, distrust=size > limits.hopeless, **figures)


def spread(values: Sequence[float]) -> float | None:
    """How far from the median the truth may be, as a share of the median; None for fewer than two values.

    The median's 95 % interval where there are enough values for one; else their whole range, which promises less.
    """
    if len(values) < 2:
        return None
    interval = median_interval(values)
    ends = interval.ends if interval else (min(values), max(values))
    return relative_width(values, *ends) if median(values) > 0 else None


def doubt_rounds(values: Sequence[float], limits: Limits = ROUNDS, **figures: Any) -> Iterator[Caution]:
    """The doubt about a figure on which rounds do not agree."""
    wide = spread(values)
    if wide is not None:
        yield from doubt(CautionCause.ROUNDS_DISAGREE, wide, limits, share=wide, **figures)


def doubt_same(one: float, other: float, limits: Limits = SAME_WORK, **figures: Any) -> Iterator[Caution]:
    """The doubt about two times of the same work: the longer one is named ``part`` if `one` is it, else ``other_part``."""
    if one <= 0 or other <= 0:
        return
    if one < other:
        figures |= {"part": figures["other_part"], "other_part": figures["part"]}
    times = max(one / other, other / one)
    yield from doubt(CautionCause.SAME_WORK_DIFFERS, times, limits, times=times, **figures)


def gravest(cautions: Iterable[Caution]) -> tuple[Caution, ...]:
    """Of each cause the gravest: one that is not to be trusted, then the one that is furthest off; in the order of their causes."""
    found: dict[CautionCause, Caution] = {}
    for caution in cautions:
        before = found.get(caution.cause)
        if before is None or _gravity(caution) > _gravity(before):
            found[caution.cause] = caution
    return tuple(found.values())


def _gravity(caution: Caution) -> tuple[bool, float]:
    return caution.distrust, caution.share or caution.times or caution.cpus_lost or caution.held_s or 0.0
