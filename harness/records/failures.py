"""Why something has no result: causes and figures as fields, and the one place that makes sentences of them."""

from __future__ import annotations

import enum
import signal as signals
from dataclasses import dataclass

from harness.records.native_errors import hide_folders


class Cause(str, enum.Enum):
    """How it ended."""

    REFUSED = "refused"  # llama.cpp or we said no, with a reason
    QUESTION = "question"  # what was asked for does not exist here
    ABORT = "abort"
    SEGFAULT = "segmentation fault"
    BUS_ERROR = "bus error"
    ILLEGAL = "illegal instruction"
    OUT_OF_MEMORY = "out of memory"
    KILLED = "killed"
    EXIT = "exit"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"


_MESSAGES = {
    Cause.ABORT: "llama.cpp gave up with abort(), usually a failed assertion (SIGABRT)",
    Cause.SEGFAULT: "native code touched memory that is not its own (SIGSEGV)",
    Cause.BUS_ERROR: "a mapped page could not be read: the model file shrank or its disk failed (SIGBUS)",
    Cause.ILLEGAL: "this build of llama.cpp uses instructions that the CPU lacks (SIGILL)",
    Cause.OUT_OF_MEMORY: "the kernel killed the worker because memory ran out",
    Cause.INTERRUPTED: "interrupted",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something has no result; no path of a machine is in it.

    phase is what was being done. message is what was said, where anything was: of a refusal always, and in older records; reason the
    same without what was tried, where there is such a part; log the engine's last lines. trouble is what ran out or went away, by
    `harness.records.native_errors`, where those lines say so. signal and exit_code are the worker's end, limit_s what it did not keep
    to; is_cell_limit says that --cell-timeout set it.
    """

    phase: str
    message: str | None
    cause: Cause
    signal: int | None = None
    exit_code: int | None = None
    log: tuple[str, ...] = ()
    reason: str | None = None
    trouble: str | None = None
    limit_s: float | None = None
    is_cell_limit: bool = False

    @property
    def is_fatal(self) -> bool:
        """Whether there is no number: samples until Ctrl-C are a result."""
        return self.cause != Cause.INTERRUPTED

    def __post_init__(self) -> None:
        for name in ("message", "reason"):
            text = getattr(self, name)
            object.__setattr__(self, name, None if text is None else hide_folders(text))
        object.__setattr__(self, "log", tuple(map(hide_folders, self.log)))


def describe_failure(failure: Failure) -> str:
    """What happened, without a full stop."""
    if failure.message:
        return failure.message.rstrip(".")
    if failure.cause == Cause.ABORT and failure.reason:
        return f"{failure.reason} (llama.cpp ended the worker)"
    if failure.cause == Cause.TIMEOUT:
        who = " (--cell-timeout)" if failure.is_cell_limit else ""
        return f"nothing came of it within {failure.limit_s:g} s{who}; the worker was ended"
    if failure.cause == Cause.EXIT:
        return f"the worker ended by itself with exit code {failure.exit_code}"
    if failure.cause == Cause.KILLED:
        name = _name_signal(failure.signal)
        return f"the worker was {'killed from outside (SIGKILL)' if name == 'SIGKILL' else f'ended by {name}'}"
    return _MESSAGES.get(failure.cause, "it failed")


def describe_reason(failure: Failure) -> str:
    """Why, without what was tried, for whoever sees that beside it."""
    return (failure.reason or describe_failure(failure)).rstrip(".")


def describe_end(failure: Failure) -> str:
    """A sentence, with the engine's last line where that adds something."""
    sentence = f"{describe_failure(failure)}."
    if failure.cause in (Cause.REFUSED, Cause.QUESTION, Cause.INTERRUPTED) or not failure.log:
        return sentence
    return f"{sentence} Its last words: {failure.log[-1].strip()}"


def _name_signal(number: int | None) -> str:
    try:
        return signals.Signals(number or 0).name
    except ValueError:
        return f"signal {number}"
