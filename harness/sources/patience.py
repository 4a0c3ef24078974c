"""Waiting for a library no longer than one wants to, whatever it waits for itself."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def take(items: queue.Queue[T] | queue.SimpleQueue[T], limit_s: float) -> T:
    """The next item of a queue. Waits a second at most each time, for Ctrl-C on Windows.

    Raises
    ------
    TimeoutError : none came in time.
    """
    end = time.monotonic() + limit_s
    while True:
        try:
            return items.get(timeout=max(min(end - time.monotonic(), 1.0), 0.0))
        except queue.Empty:
            if time.monotonic() >= end:
                raise TimeoutError from None


def within(limit_s: float, ask: Callable[[], T]) -> T:
    """What a function gives, or the exception that it raises.

    A socket's own timeout begins anew with each byte of an answer's head, and a name may take for ever to be looked up.

    Raises
    ------
    TimeoutError : it took longer; it goes on in a thread that does not keep the process alive.
    """
    done: queue.SimpleQueue[tuple[T, None] | tuple[None, Exception]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((ask(), None))
        except Exception as error:  # whatever it is, the waiting side raises it
            done.put((None, error))

    threading.Thread(target=run, daemon=True, name="within").start()
    answer = take(done, limit_s)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]
