"""A child process that is heard within bounds: its lines, the last of what it wrote to stderr, and its end, whatever it does.

Whatever the child does wrong, nobody here waits for ever and memory stays bounded: a line has a longest length, lines that nobody
took yet have a largest sum, of stderr only the end is kept, writing to it is a thread's business, and its end is seen even where
another process holds its pipes open. The threads sleep while nothing is said.
"""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

#: The longest line: a sample with the time of each of five million tokens is not longer.
MAX_LINE_BYTES = 64 << 20

#: What is read ahead of whoever takes the lines; a child that says more waits.
_AHEAD_BYTES = 1 << 20

#: How much of stderr is kept.
_WORDS_BYTES = 16 << 10

_PIECE_BYTES = 1 << 16

#: After a child's end its pipes are read for so long, should somebody else hold them open.
_PIPES_S = 1.0

#: A killed process is gone by then, or the kernel cannot end it (a driver or a disk that hangs).
_KILL_S = 10.0


class Lines:
    """Lines from one thread to another, which end; a writer waits while too much was not taken."""

    def __init__(self, most_bytes: int = _AHEAD_BYTES) -> None:
        self._most, self._size, self._is_over = most_bytes, 0, False
        self._waiting: collections.deque[bytes] = collections.deque()
        self._changed = threading.Condition()

    def put(self, line: bytes) -> bool:
        """Hand a line over, when there is room; False where nobody takes any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or self._size < self._most)
            if self._is_over:
                return False
            self._waiting.append(line)
            self._size += len(line)
            self._changed.notify_all()
            return True

    def end(self) -> None:
        """There will be no more."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def get(self, timeout_s: float | None) -> bytes | None:
        """The next line; None at the end.

        Raises
        ------
        queue.Empty : there was none in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting or self._is_over, timeout_s):
                raise queue.Empty
            if not self._waiting:
                return None
            line = self._waiting.popleft()
            self._size -= len(line)
            self._changed.notify_all()
            return line

    def take(self) -> list[bytes]:
        """What nobody took yet, without waiting."""
        with self._changed:
            taken, self._size = list(self._waiting), 0
            self._waiting.clear()
            self._changed.notify_all()
            return taken


class LastWords:
    """The end of what a process writes to a pipe: all of it is read, so that the process never waits and no disk fills."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._words, self._lock, self._is_over = stream, b"", threading.Lock(), threading.Event()
        #: Where one can ask whether there is something to be read, nothing that was written before is missed.
        self._can_ask = hasattr(select, "poll")
        if sys.platform == "linux":
            import fcntl

            with contextlib.suppress(OSError):  # a log that is written faster than it is read should not wait
                fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)
        threading.Thread(target=self._read_all, daemon=True).start()

    def _read_all(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while self._wait(None) and (n_bytes := self._read()):
                if n_bytes < _PIECE_BYTES // 16:
                    # A loader logs a line at a time: woken for each of them, this thread would take a part of what is timed.
                    time.sleep(0.02)
        self._is_over.set()

    def _wait(self, timeout_ms: int | None) -> bool:
        """Whether there is something to be read, or an end to be seen."""
        if not self._can_ask:
            return True
        poll = select.poll()
        poll.register(self._stream.fileno(), select.POLLIN)
        return bool(poll.poll(timeout_ms))

    def _read(self) -> int:
        with self._lock:
            if not self._wait(0):
                return 1  # somebody else read it
            piece = os.read(self._stream.fileno(), _PIECE_BYTES)
            self._words = (self._words + piece)[-_WORDS_BYTES:]
            return len(piece)

    def read_last(self) -> bytes:
        """What was written last, up to now."""
        with contextlib.suppress(OSError, ValueError):
            if not self._can_ask:  # whoever reads holds the lock while it waits, so nobody else may read
                self._is_over.wait(0.05)
            for _ in range(256):  # a flood has no end
                if not self._can_ask or self._is_over.is_set() or not self._wait(0) or not self._read():
                    break
        return self._words

    def wait(self, timeout_s: float) -> None:
        """Wait for its end, but not for ever: another process may hold the pipe open."""
        self._is_over.wait(timeout_s)


class Child:
    """A process with three pipes: `lines` is what it says, `words` what it wrote to stderr.

    at_end is called when it has ended and the system, where it can, still tells of it by its number.

    Raises
    ------
    OSError : it cannot be started.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], at_end: Callable[[], None] = lambda: None
    ) -> None:
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment,
            # Ctrl-C is for the parent, who ends the child itself after keeping what was measured.
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        assert self._process.stderr is not None
        self.lines, self.words = Lines(), LastWords(self._process.stderr)
        #: Whether its lines ended with one that was too long.
        self.is_too_long = False
        self._has_ended, self._at_end = threading.Event(), at_end
        self._orders: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._listen, daemon=True)
        for thread in (
            self._reader,
            *(threading.Thread(target=task, daemon=True) for task in (self._write_orders, self._see_end)),
        ):
            thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended_with(self) -> int | None:
        """How it ended, a signal below 0; None while it lives."""
        return self._process.returncode

    def _listen(self) -> None:
        assert self._process.stdout is not None
        begun: list[bytes] = []
        n_bytes = 0
        with contextlib.suppress(OSError, ValueError), self._process.stdout as stream:
            while piece := os.read(stream.fileno(), _PIECE_BYTES):
                *ended, rest = piece.split(b"\n")
                for part in ended:
                    if not self.lines.put(b"".join((*begun, part))):
                        return
                    begun, n_bytes = [], 0
                n_bytes += len(rest)
                if n_bytes > MAX_LINE_BYTES:
                    self.is_too_long = True
                    break
                begun.append(rest)
        self.lines.end()

    def _write_orders(self) -> None:
        """Write what is to be said: a child that reads nothing makes nobody wait but this thread."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError), self._process.stdin as stream:
            for order in iter(self._orders.get, None):
                left = memoryview(order)
                while left:
                    left = left[stream.write(left) :]
            return
        self._reader.join(_PIPES_S)  # what it said before it died is heard
        self.lines.end()  # it does not listen any more

    def _see_end(self) -> None:
        """See its end, and take what it started along: those would hold its pipes, and nobody would end them."""
        if hasattr(os, "waitid"):
            with contextlib.suppress(OSError):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self._at_end()
        self._process.wait()
        self._has_ended.set()
        _kill_group(self.pid)
        self._reader.join(_PIPES_S)
        self.words.wait(_PIPES_S)
        self.lines.end()

    def write(self, data: bytes) -> None:
        """Have some bytes written to it; one that is dead or deaf is noticed by its lines, which end."""
        self._orders.put(data)

    def wait(self, timeout_s: float) -> bool:
        """Whether it ended within a time."""
        return self._has_ended.wait(timeout_s)

    def kill(self) -> None:
        """End it and whatever it started at once; native code does not listen to anything gentler."""
        if self.ended_with is None:
            _kill_group(self.pid)
            self._process.kill()
        if self.wait(_KILL_S):
            self.words.wait(_PIPES_S)
        self.lines.end()

    def release(self) -> None:
        """Let go of its pipes."""
        self._orders.put(None)
        self.lines.end()
        self.lines.take()


def _kill_group(pid: int) -> None:
    """End the processes of a child's session that are left."""
    if os.name == "posix":
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
