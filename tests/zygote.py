"""Real runs of the command line that begin at once: `python -m tests.zygote FD` imports it and forks a process for each that is asked for.

Each has file descriptors 0, 1 and 2 of its own, whose streams are made as the interpreter makes them, and ends as the interpreter ends:
what is said at the very end, of a stdout that cannot be flushed, is said here too. POSIX only.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
PRELOADED = (
    "numpy",
    "scipy.special",
    "scipy.stats",
    "tabulate",
    "harness.views.formats",
    "harness.views.gallery",
    "tqdm",
)


class Zygote:
    """The parent's side. worker is a command that stands in for the worker with the engine."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.zygote", str(theirs.fileno())], pass_fds=[theirs.fileno()], cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()

    def start(
        self,
        words: Sequence[str],
        streams: Sequence[int | None],
        environment: Mapping[str, str],
        folder: pathlib.Path,
        worker: Sequence[str] | None = None,
    ) -> int:
        """Begin a run with stdin, stdout and stderr, closed where they are None; its process id."""
        closed = [place for place, stream in enumerate(streams) if stream is None]
        asked = {
            "words": list(words),
            "closed": closed,
            "environment": dict(environment),
            "folder": str(folder),
            "worker": worker,
        }
        null = os.open(os.devnull, os.O_RDWR)
        try:
            given = [null if stream is None else stream for stream in streams]
            socket.send_fds(self._socket, [json.dumps(asked).encode() + b"\n"], given)
        finally:
            os.close(null)
        return int(self._read())

    def wait(self) -> int:
        """The exit code of the run; negative: the signal that ended it."""
        return int(self._read())

    def _read(self) -> str:
        self._socket.settimeout(120)
        heard = b""
        while not heard.endswith(b"\n"):
            piece = self._socket.recv(1)
            if not piece:
                raise RuntimeError("the zygote died")
            heard += piece
        return heard.decode()

    def close(self) -> None:
        self._socket.close()
        self._process.wait(60)


@contextlib.contextmanager
def one() -> Iterator[Zygote]:
    with contextlib.closing(Zygote()) as made:
        yield made


def _become(asked: dict[str, Any], descriptors: Sequence[int]) -> None:
    """Make this process the one that is asked for."""
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)
        os.close(descriptor)
    for place in asked["closed"]:
        os.close(place)
    for place, name in enumerate(("stdin", "stdout", "stderr")):
        stream: Any = None
        with contextlib.suppress(OSError):
            mode = "rb" if place == 0 else "wb"
            raw = open(place, mode, buffering=-1, closefd=False)
            errors = "backslashreplace" if place == 2 else "strict"
            stream = io.TextIOWrapper(raw, "utf-8", errors, line_buffering=place == 2)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    sys.argv = ["harness", *asked["words"]]
    if asked["worker"]:
        from harness.runs.worker import Worker

        start = Worker.__init__

        @functools.wraps(start)
        def start_another(self: Any, command: Any = None, **options: Any) -> None:
            start(self, command or asked["worker"], **options)

        Worker.__init__ = start_another  # type: ignore[method-assign]


def serve(channel: socket.socket) -> bool:
    """Fork for each request; True in the child, which is to go on as the command line."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(channel, 1 << 16, 3)
        if not data:
            return False
        child = os.fork()
        if child == 0:
            channel.close()
            _become(json.loads(data), descriptors)
            return True
        for descriptor in descriptors:
            os.close(descriptor)
        channel.sendall(b"%d\n" % child)
        _, status = os.waitpid(child, 0)
        channel.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    from harness import cli

    for name in (
        *PRELOADED,
        *(f"harness.cli.{name.replace('-', '_')}" for name in cli.COMMANDS if name not in cli._PLACES),
    ):
        importlib.import_module(name)
    if serve(socket.socket(fileno=int(sys.argv[1]))):
        from harness.__main__ import main

        main()
