"""Measured cells as tests want them: a recorded run with other durations, settings, machines and builds."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from harness.records.cells import Record, Sample


def draw(centre_ns: float, n: int = 12, *, spread: float = 0.005, seed: int = 0) -> list[int]:
    """Durations around a centre: log-normal, with a relative deviation of `spread`."""
    chance = random.Random(seed)
    return [round(centre_ns * chance.lognormvariate(0, spread)) for _ in range(n)]


def with_durations(record: Record, durations: Sequence[int], **asked: object) -> Record:
    """The cell as if it had taken that long; asked changes fields of its `RunSpec`."""
    samples = tuple(Sample(duration, None, (), is_warmup=False) for duration in durations)
    return dataclasses.replace(
        record, samples=samples, warnings=(), failure=None, asked=dataclasses.replace(record.asked, **asked)
    )
