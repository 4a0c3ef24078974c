"""A share by which every decode is made longer on purpose, for tests that look for a known difference; off unless asked for.

The wait lies between two readings of the clock that times, and only an engine that is wrapped in `Slowed` has it: without one the
timed loops run the very same instructions as if this module were not there.
"""

from __future__ import annotations

import math
import os
import time
from typing import Any

from harness.errors import UsageError

#: Environment variable: the share for everything that a process measures, ``0.03`` for 3 %.
VARIABLE = "HARNESS_TEST_SLOWDOWN"

#: The longest that makes sense: twenty times as long.
MAX_SHARE = 20.0


def read_share(variable: str = VARIABLE) -> float:
    """The share that the environment asks for; 0 where it asks for nothing.

    Raises
    ------
    UsageError : it is no number from 0 to `MAX_SHARE`.
    """
    text = os.environ.get(variable, "")
    try:
        share = float(text or 0)
    except ValueError:
        share = math.nan
    if not 0 <= share <= MAX_SHARE:
        raise UsageError(
            f"{variable}={text} is no share from 0 to {MAX_SHARE:g}, such as 0.03; correct it, or unset it."
        )
    return share


class Slowed:
    """An engine whose work takes longer by a share: what is decoded until a synchronize is timed, and waited for once more in part.

    The wait is busy, as computing is. Everything else is the engine's own.
    """

    def __init__(self, engine: Any, share: float, clock: Any = time.perf_counter_ns) -> None:
        self._engine, self._share, self._clock = engine, share, clock
        self._begun: int | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def decode(self, batch: Any) -> None:
        if self._begun is None:
            self._begun = self._clock()
        self._engine.decode(batch)

    def synchronize(self) -> None:
        self._engine.synchronize()
        begun, self._begun = self._begun, None
        if begun is not None:
            now = self._clock()
            until = now + round(self._share * (now - begun))
            while self._clock() < until:
                pass


def slow_down(engine: Any, share: float) -> Any:
    """The engine itself, or one that takes longer by a share."""
    return Slowed(engine, share) if share else engine
