"""The parent's side of the worker: start it, hear its events, time it out, and say what it died of."""

from __future__ import annotations

import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import harness
from harness.errors import NativeError
from harness.host.machine import count_oom_kills
from harness.records.failures import Cause, Failure
from harness.records.native_errors import explain

#: Lines of the worker's last words that a Failure keeps.
LOG_LINES = 20

#: The worker needs this long, at the most, to import llama.cpp and say hello (cold disk, virus scanner).
HELLO_TIMEOUT_S = 120.0

#: NTSTATUS codes that Windows gives instead of a signal.
_WINDOWS_CAUSES = {
    0xC0000005: Cause.SEGFAULT,
    0xC0000409: Cause.ABORT,
    0xC0000017: Cause.OUT_OF_MEMORY,
    3: Cause.ABORT,
}


class Worker:
    """One worker process. `events` yields what it says until a cell is over; a death becomes a `Failure`.

    command is the program to run, for tests that need one which dies in a particular way; guest is another environment's Python, which
    runs this package with the llama_cpp that it has.
    """

    def __init__(self, command: Sequence[str] | None = None, *, guest: str | None = None) -> None:
        self._words = tempfile.TemporaryFile()
        self._oom_kills = count_oom_kills()
        try:
            self._process = subprocess.Popen(
                list(_guest_command(guest) if guest else command or (sys.executable, "-m", "harness.native.worker")),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
                env=_guest_environment() if guest else _environment(),
                # Ctrl-C is for the parent, who ends the child itself after keeping what was measured.
                start_new_session=os.name == "posix",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            self._words.close()
            todo = "name an environment's python" if guest else "close some programs and try again"
            raise NativeError(f"The measuring process cannot be started ({error.strerror}); {todo}.") from None
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                self._events.put(json.loads(line))
            except ValueError:
                break  # cut off by the death that the parent is about to see
        self._events.put(None)

    def send(self, command: dict[str, Any]) -> None:
        """Give the worker a command; a dead one is noticed when its events are read."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            pass

    def events(
        self,
        timeout_s: float | None,
        phase: str = "start",
        *,
        is_cell_limit: bool = False,
        silence_s: float | None = None,
    ) -> Iterator[dict[str, Any] | Failure]:
        """Yield events until ``done`` or ``refused``; a death or a limit ends with a Failure instead.

        timeout_s limits it all, which --cell-timeout set where is_cell_limit; silence_s limits the time between two events.
        """
        begun = time.monotonic()
        while True:
            remaining = None if timeout_s is None else max(begun + timeout_s - time.monotonic(), 0)
            limits = [limit for limit in (remaining, silence_s) if limit is not None]
            try:
                event = self._events.get(timeout=min(limits, default=None))
            except queue.Empty:
                self.kill()
                limit_s = silence_s if timeout_s is None or min(limits) != remaining else timeout_s
                yield Failure(
                    phase, None, Cause.TIMEOUT, log=self.last_lines(), limit_s=limit_s, is_cell_limit=is_cell_limit
                )
                return
            if event is None:
                yield self._post_mortem(phase)
                return
            if event["event"] == "phase":
                phase = event["phase"]
            if event["event"] == "refused":
                cause = Cause.QUESTION if event.get("is_question") else Cause.REFUSED
                yield Failure(
                    phase,
                    event["message"],
                    cause,
                    log=self.last_lines(),
                    reason=event.get("reason"),
                    trouble=event.get("trouble"),
                )
                return
            yield event
            if event["event"] == "done":
                return

    def hello(self) -> dict[str, Any] | Failure:
        """Wait for the worker's greeting, which describes the engine."""
        return next(iter(self.events(HELLO_TIMEOUT_S)))

    def ask(
        self, job: str, request: dict[str, Any], timeout_s: float | None = None
    ) -> Iterator[dict[str, Any] | Failure]:
        """Have one of the worker's jobs done and yield its events; the last one is ``done`` or a Failure."""
        self.send({job: request})
        yield from self.events(timeout_s, job)

    def _post_mortem(self, phase: str) -> Failure:
        """Name the cause of death from the exit status, and from the kernel's own count of memory kills."""
        code = self._process.wait()
        words = self.last_lines()
        if code < 0:
            cause = _find_cause(-code, _oom_kills_since(self._oom_kills))
            said = explain(words) if cause is Cause.ABORT else None
            reason, trouble = (said.text, said.trouble) if said else (None, None)
            return Failure(phase, None, cause, signal=-code, log=words, reason=reason, trouble=trouble)
        cause = _WINDOWS_CAUSES.get(code, Cause.EXIT) if os.name == "nt" else Cause.EXIT
        return Failure(phase, None, cause, exit_code=code, log=words)

    def last_lines(self) -> tuple[str, ...]:
        """The last lines that the worker and llama.cpp wrote to stderr."""
        try:
            size = self._words.seek(0, os.SEEK_END)
            self._words.seek(max(size - 16_384, 0))
            text = self._words.read().decode("utf-8", "replace")
        except (OSError, ValueError):
            return ()
        return tuple(line.rstrip() for line in text.splitlines() if line.strip())[-LOG_LINES:]

    def kill(self) -> None:
        """End the worker at once; native code does not listen to anything gentler."""
        if self.is_alive:
            self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Let the worker end in order, and end it if it does not."""
        self.send({})
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()
        for stream in (self._process.stdin, self._words):
            try:
                if stream is not None:
                    stream.close()
            except OSError:
                pass


#: What no measuring needs, and a library that runs in the worker, its log or its core dump could give away.
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_ID_TOKEN")


def _environment() -> dict[str, str]:
    """The parent's, so that the child imports this very package, and ggml does not run a debugger when it aborts."""
    package_parent = str(pathlib.Path(harness.__file__).resolve().parent.parent)
    paths = [package_parent, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    kept = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "PYTHONSAFEPATH": "1",  # -m would put the current folder first
        "GGML_NO_BACKTRACE": "1",
    }


#: Runs the worker in another environment: this very package is loaded from where it lies, and nothing that lies beside it (in a folder
#: of installed packages that would be our llama_cpp). Written for any Python, so that one which is too old can say so.
_GUEST = """
import json, sys

def refuse(why):
    sys.stdout.write(json.dumps({"event": "refused", "message": why}) + "\\n")
    sys.stdout.flush()
    raise SystemExit(3)

if sys.version_info < (3, 10):
    refuse("it is Python %d.%d, and harness needs 3.10 or later" % sys.version_info[:2])
import importlib.util
place = sys.argv[1]
found = importlib.util.spec_from_file_location("harness", place + "/__init__.py", submodule_search_locations=[place])
sys.modules["harness"] = importlib.util.module_from_spec(found)
found.loader.exec_module(sys.modules["harness"])
if importlib.util.find_spec("llama_cpp") is None:
    refuse("llama-cpp-python is not installed there; install it with that Python's pip")
try:
    from harness.native.worker import main
except ImportError as error:
    refuse("%s is not installed there; install it with that Python's pip" % (error.name or error))
main()
"""


def _guest_command(python: str) -> list[str]:
    return [python, "-c", _GUEST, str(pathlib.Path(harness.__file__).resolve().parent)]


def _guest_environment() -> dict[str, str]:
    """As `_environment`, without what belongs to our own Python."""
    ours = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"}
    return {name: value for name, value in _environment().items() if name not in ours}


def _oom_kills_since(before: int | None) -> bool:
    now = count_oom_kills()
    return before is not None and now is not None and now > before


_SIGNAL_CAUSES = {
    "SIGABRT": Cause.ABORT,
    "SIGSEGV": Cause.SEGFAULT,
    "SIGBUS": Cause.BUS_ERROR,
    "SIGILL": Cause.ILLEGAL,
}


def _find_cause(number: int, memory_ran_out: bool) -> Cause:
    """The cause of a death by signal."""
    if number == getattr(signal, "SIGKILL", -1) and memory_ran_out:
        return Cause.OUT_OF_MEMORY
    by_number = {getattr(signal, name, None): cause for name, cause in _SIGNAL_CAUSES.items()}
    return by_number.get(number, Cause.KILLED)
