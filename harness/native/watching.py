"""Work that is timed by itself, with what the operating system counts around it; for the jobs that are no cells."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from harness.host.noise import Watcher
from harness.records.cells import Conditions

Found = TypeVar("Found")

#: The parent wakes up to hear an event; on a machine whose every core is about to be timed it is given the time to fall asleep again.
SETTLE_S = 0.01


def watched(
    work: Callable[[], Found], watcher: Watcher | None, settle_s: float = 0.0
) -> tuple[Found, tuple[Conditions, ...]]:
    """Rest for settle_s and do the work: (what it found, its conditions), which are none without a watcher."""
    if watcher is not None:
        watcher.begin()
    time.sleep(settle_s)
    found = work()
    seen = watcher.end() if watcher is not None else None
    return found, () if seen is None else (seen,)
