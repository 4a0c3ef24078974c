"""Why something has no result: causes and figures as fields, and the one place that makes sentences of them."""

from __future__ import annotations

import enum
import signal as signals
from dataclasses import dataclass

from harness.errors import one_line
from harness.records.native_errors import hide_folders


class Cause(str, enum.Enum):
    """How it ended. refused: llama.cpp or we said no; question: what was asked for does not exist here; garbled: it talked nonsense,
    or no longer at all."""

    REFUSED = "refused"
    QUESTION = "question"
    ABORT = "abort"
    SEGFAULT = "segmentation fault"
    BUS_ERROR = "bus error"
    ILLEGAL = "illegal instruction"
    OUT_OF_MEMORY = "out of memory"
    KILLED = "killed"
    EXIT = "exit"
    TIMEOUT = "timeout"
    GARBLED = "garbled"
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
    """Why something has no result; no path of a machine is in it."""

    phase: str  #: what was being done
    message: str | None  #: what was said: of every refusal, and in older records of everything
    cause: Cause  #: how it ended
    signal: int | None = None  #: that ended the worker
    exit_code: int | None = None  #: that the worker ended with
    log: tuple[str, ...] = ()  #: the engine's last lines
    reason: str | None = None  #: the message without what was tried, where there is such a part
    trouble: str | None = None  #: what ran out or went away, where the log says so: memory, card, server
    limit_s: float | None = None  #: that it did not keep to
    is_cell_limit: bool = False  #: --cell-timeout set that limit

    @property
    def is_fatal(self) -> bool:
        """Whether there is no number: samples until Ctrl-C are a result."""
        return self.cause != Cause.INTERRUPTED

    def __post_init__(self) -> None:
        for name in ("message", "reason"):
            text = getattr(self, name)
            # One line, whatever llama.cpp quotes of a file; what else is in it is made harmless where it is shown.
            object.__setattr__(self, name, None if text is None else one_line(hide_folders(text)))
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
    if failure.cause == Cause.GARBLED:
        return f"what the worker said cannot be read ({failure.reason}); it was ended"
    if failure.cause == Cause.EXIT:
        return f"the worker ended by itself with exit code {failure.exit_code}"
    if failure.cause == Cause.KILLED:
        name = _name_signal(failure.signal)
        return f"the worker was {'killed from outside (SIGKILL)' if name == 'SIGKILL' else f'ended by {name}'}"
    return _MESSAGES.get(failure.cause, "it failed")


def describe_reason(failure: Failure) -> str:
    """Why, without what was tried, for whoever sees that beside it."""
    reason = None if failure.cause == Cause.GARBLED else failure.reason  # which is a part of the sentence there
    return (reason or describe_failure(failure)).rstrip(".")


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
