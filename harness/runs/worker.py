"""The parent's side of the worker: start it, hear its events, time it out, and say what it died of."""

from __future__ import annotations

import json
import math
import os
import pathlib
import queue
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import psutil

import harness
from harness.codec import Malformed, decode, decode_shared
from harness.errors import NativeError, UsageError
from harness.host.machine import OomKills, count_oom_kills
from harness.records.cells import Build
from harness.records.failures import Cause, Failure
from harness.records.native_errors import explain
from harness.runs.child import MAX_LINE_BYTES, Child
from harness.units import MIB
from harness.untrusted.json import read_json

#: Lines of the worker's last words that a Failure keeps, and how many characters of each.
LOG_LINES, LOG_LINE_CHARS = 20, 500

#: The worker needs this long, at the most, to import llama.cpp and say hello (cold disk, virus scanner).
HELLO_TIMEOUT_S = 120.0

#: Where no limit was given, a worker hangs that says nothing for twice as long and computes for less than a second in the latter half.
STILL_S = 900.0

#: A worker whose way to us is broken has so long to die by itself, of whatever broke it.
DEATH_S = 1.0

#: A worker that is let go ends by then, or is ended.
GOODBYE_S = 10.0

#: NTSTATUS codes that Windows gives instead of a signal.
_WINDOWS_CAUSES = {
    0xC0000005: Cause.SEGFAULT,
    0xC000001D: Cause.ILLEGAL,
    0xC0000409: Cause.ABORT,
    0xC0000017: Cause.OUT_OF_MEMORY,
    3: Cause.ABORT,
}

#: What everybody reads of an event, by its type.
_TEXTS, _COUNTS = ("event", "message", "phase"), ("index", "count")

Value = TypeVar("Value")


class Garbled(NativeError):
    """A worker said what it cannot mean; reason is what is wrong with it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The measuring process said what cannot be read ({reason}); try again.", reason=reason)


class _Late(Exception):
    """Nothing came within a limit, in s; None: that of the whole."""

    def __init__(self, limit_s: float | None) -> None:
        super().__init__(limit_s)
        self.limit_s = limit_s


class Event(dict[str, Any]):
    """What a worker says; whoever looks for what is not there learns that it is garbled."""

    def __missing__(self, key: str) -> NoReturn:
        raise Garbled(f"{self.get('event')} has no {key}")


def understand(kind: type[Value], values: Any, *, is_shared: bool = False) -> Value:
    """As `harness.codec.decode`, of what a worker said; is_shared: one object for all that are equal, as of two thousand cells.

    Raises
    ------
    Garbled : that is no such thing.
    """
    try:
        return decode_shared(kind, values) if is_shared else decode(kind, values)
    except (Malformed, UsageError) as error:
        raise Garbled(f"{kind.__name__}: {error}") from None


class Worker:
    """One worker process. `events` yields what it says until a cell is over; whatever else it does becomes one `Failure`.

    command is the program to run, for tests that need one which dies in a particular way; guest is another environment's Python, which
    runs this package with the llama_cpp that it has. is_spare starts it without its runtime, which it makes on the first `send`.
    """

    def __init__(
        self, command: Sequence[str] | None = None, *, guest: str | None = None, is_spare: bool = False
    ) -> None:
        self._phase, self._is_spare = "start", is_spare
        self._oom_kills: OomKills | None = None
        self._memory_ran_out = False
        self._nonsense: bytes | None = None
        environment = _guest_environment() if guest else _environment()
        if is_spare:
            environment["HARNESS_SPARE"] = "1"
        try:
            self._child = Child(
                _guest_command(guest) if guest else command or (sys.executable, "-m", "harness.native.worker"),
                environment,
                self._look_for_oom_kills,
            )
        except OSError as error:
            todo = "name an environment's python" if guest else "close some programs and try again"
            raise NativeError(f"The measuring process cannot be started ({error.strerror}); {todo}.") from None
        self._oom_kills = count_oom_kills(self.pid)

    def _look_for_oom_kills(self) -> None:
        """When it has ended: its control group is told until it is asked for."""
        self._memory_ran_out = self._oom_kills is not None and self._oom_kills.have_risen()

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        return self._child.ended_with is None

    def send(self, command: dict[str, Any]) -> None:
        """Give the worker a command; a dead one is noticed when its events are read."""
        # Whatever it still said belongs to what came before; but one that talks nonsense is not asked again.
        self._nonsense = next((line for line in self._child.lines.take() if not _is_event(line)), None)
        self._child.write(json.dumps(command).encode() + b"\n")

    def events(
        self,
        timeout_s: float | None,
        phase: str = "start",
        *,
        is_cell_limit: bool = False,
        silence_s: float | None = None,
    ) -> Iterator[Event | Failure]:
        """Yield events until ``done`` or ``refused``; a death, a limit or nonsense ends with a Failure instead.

        timeout_s limits it all, which --cell-timeout set where is_cell_limit; silence_s limits the time between two events, which
        without either is limited by `STILL_S`.
        """
        self._phase, ends_s = phase, math.inf if timeout_s is None else time.monotonic() + timeout_s
        while True:
            try:
                event = self._next(ends_s, silence_s, is_open=timeout_s is None)
            except _Late as late:
                self.kill()
                limit_s = timeout_s if late.limit_s is None else late.limit_s
                yield self._fail(Cause.TIMEOUT, limit_s=limit_s, is_cell_limit=is_cell_limit)
                return
            except Garbled as error:
                yield self.give_up(error)
                return
            if event is None:
                yield self._post_mortem()
                return
            if event["event"] == "phase":
                self._phase = event["phase"]
            if event["event"] == "refused":
                yield self._refusal(event)
                return
            yield event
            if event["event"] == "done":
                return

    def _next(self, ends_s: float, silence_s: float | None, *, is_open: bool) -> Event | None:
        """The next event; None where no more will come.

        Raises
        ------
        _Late : none came in time.
        Garbled : what came is no event.
        """
        if self._nonsense is not None:
            return _read_event(self._nonsense)
        begun_s, worked_s = time.monotonic(), None
        limit_s = silence_s if silence_s is not None else STILL_S if is_open else math.inf
        while True:
            left_s = min(ends_s - time.monotonic(), limit_s - (time.monotonic() - begun_s))
            try:
                line = self._child.lines.get(None if left_s == math.inf else max(left_s, 0.0))
            except queue.Empty:
                has_ended = time.monotonic() >= ends_s
                if not has_ended and silence_s is None:  # looked at late: while it measures, nothing is done here
                    now_s = self._cpu_s()
                    if worked_s is None or now_s is None or now_s - worked_s >= 1:
                        begun_s, worked_s = time.monotonic(), now_s  # it computes, however long that takes
                        continue
                    limit_s *= 2
                raise _Late(None if has_ended else limit_s) from None
            return None if line is None else _read_event(line)

    def _cpu_s(self) -> float | None:
        """The CPU time that it had so far, in s; None where the system does not tell."""
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.Error:
            return None
        return float(times.user + times.system)

    def hello(self) -> Event | Failure:
        """Wait for the worker's greeting, which describes the engine."""
        if self._is_spare:
            self.send({"start": {}})
        greeting = next(self.events(HELLO_TIMEOUT_S))
        if isinstance(greeting, Failure):
            return greeting
        try:
            understand(Build, greeting["build"])
        except Garbled as error:
            return self.give_up(error)
        return greeting

    def ask(
        self, job: str, request: dict[str, Any], timeout_s: float | None = None, *, silence_s: float | None = None
    ) -> Iterator[Event | Failure]:
        """Have one of the worker's jobs done and yield its events; the last one is ``done`` or a Failure."""
        self.send({job: request})
        yield from self.events(timeout_s, job, silence_s=silence_s)

    def give_up(self, error: Garbled) -> Failure:
        """End a worker that talks nonsense, and say so, or what it died of where that is why."""
        if self._child.wait(DEATH_S):
            return self._post_mortem()
        self.kill()
        return self._fail(Cause.GARBLED, reason=error.reason)

    def _refusal(self, event: Event) -> Failure:
        cause = Cause.QUESTION if event.get("is_question") else Cause.REFUSED
        known = {name: found for name in ("reason", "trouble") if isinstance(found := event.get(name), str)}
        return self._fail(cause, event.get("message") or "it refused", **known)

    def _fail(self, cause: Cause, message: str | None = None, **fields: Any) -> Failure:
        return Failure(self._phase, message, cause, log=self.last_lines(), **fields)

    def _post_mortem(self) -> Failure:
        """Name the cause of death from the exit status, and from the kernel's own count of memory kills."""
        if self._child.is_too_long or not self._child.wait(DEATH_S):
            self.kill()
            what = (
                f"a line of more than {MAX_LINE_BYTES // MIB} MiB" if self._child.is_too_long else "its pipe was closed"
            )
            return self._fail(Cause.GARBLED, reason=what)
        code = self._child.ended_with or 0
        said = explain(self.last_lines())
        if code < 0:
            cause = _find_cause(-code, self._memory_ran_out)
            if cause is Cause.ABORT and said:
                return self._fail(cause, signal=-code, reason=said.text, trouble=said.trouble)
            return self._fail(cause, signal=-code)
        cause = _WINDOWS_CAUSES.get(code, Cause.EXIT) if os.name == "nt" else Cause.EXIT
        return self._fail(cause, exit_code=code)

    def last_lines(self) -> tuple[str, ...]:
        """The last lines that the worker and llama.cpp wrote to stderr."""
        text = self._child.words.read_last().decode("utf-8", "replace")
        lines = (line.rstrip()[-LOG_LINE_CHARS:] for line in text.splitlines() if line.strip())
        return tuple(lines)[-LOG_LINES:]

    def kill(self) -> None:
        """End the worker at once; native code does not listen to anything gentler."""
        self._child.kill()

    def close(self) -> None:
        """Let the worker end in order, and end it if it does not."""
        if self.is_alive:
            self.send({})
            self._child.wait(GOODBYE_S)
        self.kill()
        self._child.release()


def _read_event(line: bytes) -> Event:
    """What a worker said in a line.

    Raises
    ------
    Garbled : it is no event.
    """
    try:
        event = read_json(line)
    except ValueError:
        raise Garbled("no JSON") from None
    if not isinstance(event, dict) or "event" not in event:
        raise Garbled("no event")
    for names, kind in ((_TEXTS, str), (_COUNTS, int)):
        for name in names:
            if name in event and not isinstance(event[name], kind):
                raise Garbled(f"its {name} is of another type")
    if event["event"] == "phase" and "phase" not in event:
        raise Garbled("phase has no phase")
    return Event(event)


def _is_event(line: bytes) -> bool:
    try:
        _read_event(line)
    except Garbled:
        return False
    return True


#: What no measuring needs, and a library that runs in the worker, its log or its core dump could give away.
#: It is known by the name of its variable, whoever's it is.
_SECRET = re.compile(
    r"(?:^|_)(?:\w*TOKEN|SECRETS?|CREDENTIALS?|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY)(?:_|$)|PASSWORD|PASSWD", re.IGNORECASE
)


def _environment() -> dict[str, str]:
    """The parent's, so that the child imports this very package, and ggml does not run a debugger when it aborts."""
    package_parent = str(pathlib.Path(harness.__file__).resolve().parent.parent)
    paths = [package_parent, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    # A process that dies by a thread's end is not to be had where the thread may end before the program.
    ends_with_us = {"HARNESS_PARENT": str(os.getpid())} if threading.current_thread() is threading.main_thread() else {}
    kept = {name: value for name, value in os.environ.items() if not _SECRET.search(name)}
    return {
        **kept,
        **ends_with_us,
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
