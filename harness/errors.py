"""The one exception tree, each branch with the exit code that the command line ends with."""

from __future__ import annotations


class HarnessError(Exception):
    """Something that the user can act on: one sentence that says what, where and what to do."""

    exit_code = 1


class UsageError(HarnessError):
    """The question was put wrongly: an option, a range, a name or a file that cannot be meant."""

    exit_code = 2


class NativeError(HarnessError):
    """llama.cpp refused, failed or died.

    reason is why, without what was tried; trouble says what ran out or went away where that is known (`harness.records.native_errors`).
    """

    exit_code = 3

    def __init__(self, message: str, *, reason: str | None = None, trouble: str | None = None) -> None:
        super().__init__(message)
        self.reason, self.trouble = reason, trouble


class StoreError(HarnessError):
    """A record could not be written or read."""

    exit_code = 4


#: Exit code of a run whose numbers exist but should not be believed (a busy machine, a throttled card).
EXIT_NOT_TRUSTED = 5

#: Exit code after Ctrl-C: 128 + SIGINT, as shells have it.
EXIT_INTERRUPTED = 130
