"""Ctrl-C and requests to end (SIGTERM, and SIGHUP when the terminal goes): what they do at each stage of the program.

Until a command runs there is nothing to keep, and an exception in the middle of an import may be swallowed or shown as a traceback: the
program leaves at once. While a command runs all of them are a KeyboardInterrupt, which keeps what was measured. After it they end the
process without a word.
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


def leave_at_once() -> None:
    """From now on an interrupt ends the process with a sentence."""
    global _is_ours
    _is_ours = True
    _set(_leave)


def raise_in_command() -> None:
    """From now on an interrupt is a KeyboardInterrupt; nothing changes where `leave_at_once` was never called, as in tests."""
    if _is_ours:
        _set(signal.default_int_handler)
        sys.unraisablehook = _raise_again


def _raise_again(lost: "sys.UnraisableHookArgs") -> None:
    """Python prints and forgets an interrupt that comes while an object is cleared away: have it raised once more, outside."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        _thread.start_new_thread(_interrupt_soon, ())
    else:
        sys.__unraisablehook__(lost)


def _interrupt_soon() -> None:
    """From a thread, for what is raised before the hook returns would be lost as well."""
    time.sleep(0.01)
    _thread.interrupt_main()


def end_quietly() -> None:
    """From now on an interrupt ends the process as if nobody listened: everything has been said."""
    if _is_ours:
        _set(signal.SIG_DFL)


def _set(handler: object) -> None:
    for number in _NUMBERS:
        # What whoever started the program has switched off (nohup, a shell's background job) stays off.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _leave(_number: int, _frame: object) -> None:
    try:
        os.write(2, b"harness: interrupted.\n")
    finally:
        os._exit(EXIT_INTERRUPTED)
