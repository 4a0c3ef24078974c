"""Ctrl-C and requests to end (SIGTERM, and SIGHUP when the terminal goes): what they do at each stage of the program.

Until a command runs there is nothing to keep, and an exception in the middle of an import may be swallowed or shown as a traceback: the
program leaves at once. While a command runs the first of them is a KeyboardInterrupt, which keeps what was measured; the second only
says so, for it must not cut that off, and the third ends the process at once. After it they end the process without a word.
"""

import _thread
import os
import sys
import time

try:
    # The part that is built in: `signal` itself takes a few ms more to import, in which Ctrl-C would show a traceback.
    import _signal as signal  # type: ignore[import-not-found]
except ImportError:  # another Python than CPython
    import signal

#: `harness.errors.Outcome.INTERRUPTED`, which takes time to import as well.
EXIT_INTERRUPTED = 130

_NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]

_is_ours = False

#: How many interrupts a command has had.
_n_came = 0


def leave_at_once() -> None:
    """From now on an interrupt ends the process with a sentence."""
    global _is_ours
    _is_ours = True
    _set(_leave)


def raise_in_command() -> None:
    """From now on an interrupt is a KeyboardInterrupt; nothing changes where `leave_at_once` was never called, as in tests."""
    global _n_came
    if _is_ours:
        _n_came = 0
        _set(_interrupt)
        sys.unraisablehook = _raise_again


def _interrupt(number: int, frame: object) -> None:
    """An interrupt of a command."""
    global _n_came
    _n_came += 1
    if _n_came == 1:
        raise KeyboardInterrupt
    if _n_came > _PATIENCE:
        _leave(number, frame)
    _write(b"harness: ending; what was measured is being kept. Once more ends it at once.\n")


#: So many interrupts are minded.
_PATIENCE = 2


class Held:
    """Have interrupts wait inside ``with Held():``, where a record is on its way to the disk; one that came is raised at the end.

    The third one ends the process at once, for then what is held hangs. Handlers of another program that uses harness are left alone,
    and so is everything in other threads than the main one, which hear no interrupts.
    """

    def __init__(self) -> None:
        self._came: list[int] = []
        self._before: dict[int, object] = {}

    def __enter__(self) -> None:
        if _n_came:  # one is being minded, and those that follow raise nothing
            return
        for number in _NUMBERS:
            if (handler := signal.getsignal(number)) in (signal.default_int_handler, _interrupt):
                try:
                    signal.signal(number, self._note)
                except ValueError:  # not the main thread
                    return
                self._before[number] = handler

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for number in self._came[:1]:
            handler = self._before[number]
            handler(number, None)  # type: ignore[operator]

    def _note(self, number: int, frame: object) -> None:
        self._came.append(number)
        if len(self._came) > _PATIENCE:
            _leave(number, frame)


def _raise_again(lost: "sys.UnraisableHookArgs") -> None:
    """Python prints and forgets an interrupt that comes while an object is cleared away: have it raised once more, outside."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        _thread.start_new_thread(_interrupt_soon, ())
    else:
        sys.__unraisablehook__(lost)


def _interrupt_soon() -> None:
    """From a thread, for what is raised before the hook returns would be lost as well."""
    global _n_came
    time.sleep(0.01)
    _n_came = 0  # nobody has heard of it
    _thread.interrupt_main()


def end_quietly() -> None:
    """From now on an interrupt ends the process as if nobody listened: everything has been said."""
    if _is_ours:
        _set(_leave_quietly)


def leave_interrupted() -> None:
    """End the process as interrupted, now that everything has been said.

    An interpreter that clears itself away takes its time, and at its end the next signal would decide the exit code. Nothing happens
    where `leave_at_once` was never called.
    """
    if not _is_ours:
        return
    import atexit

    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            pass  # said already
    atexit._run_exitfuncs()
    os._exit(EXIT_INTERRUPTED)


def _set(handler: object) -> None:
    for number in _NUMBERS:
        # What whoever started the program has switched off (nohup, a shell's background job) stays off.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _leave(_number: int, _frame: object) -> None:
    try:
        _write(b"harness: interrupted.\n")
    finally:
        os._exit(EXIT_INTERRUPTED)


def _leave_quietly(_number: int, _frame: object) -> None:
    os._exit(EXIT_INTERRUPTED)


def _write(sentence: bytes) -> None:
    """Past Python's own stderr, whose lock whoever was interrupted may hold."""
    try:
        os.write(2, sentence)
    except OSError:  # it is closed, or its reader has gone
        pass
