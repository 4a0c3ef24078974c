"""The one exception tree, and the one table of what may become of a command with the exit codes that it ends with."""

from __future__ import annotations

import enum


class Outcome(enum.IntEnum):
    """What became of a command; its value is the exit code. In the order of gravity, the least grave first."""

    OK = 0
    NOT_TRUSTED = 5  # numbers exist but should not be believed: a busy machine, a throttled card
    LIMIT = 6  # a comparison proved what it was told to fail for
    OTHER = 1
    QUESTION = 2  # put wrongly: an option, a range, a file
    NATIVE = 3  # llama.cpp refused, failed or died
    STORE = 4  # records could not be written
    INTERRUPTED = 130  # 128 + SIGINT, as shells have it

    @property
    def gravity(self) -> int:
        """Its place in the order above."""
        return list(Outcome).index(self)


def one_line(text: str) -> str:
    """A text that may quote a file or a server, without its line breaks."""
    return " ".join(filter(None, map(str.strip, text.splitlines())))


class HarnessError(Exception):
    """Something that the user can act on: one sentence that says what, where and what to do, on one line whatever it quotes."""

    outcome = Outcome.OTHER

    def __str__(self) -> str:
        return one_line(super().__str__())


class UsageError(HarnessError):
    """The question was put wrongly: an option, a range, a name or a file that cannot be meant."""

    outcome = Outcome.QUESTION


class NativeError(HarnessError):
    """llama.cpp refused, failed or died.

    reason is why, without what was tried; trouble says what ran out or went away where that is known (`harness.records.native_errors`).
    """

    outcome = Outcome.NATIVE

    def __init__(self, message: str, *, reason: str | None = None, trouble: str | None = None) -> None:
        super().__init__(message)
        self.reason, self.trouble = reason, trouble


class StoreError(HarnessError):
    """A record could not be written or read."""

    outcome = Outcome.STORE
