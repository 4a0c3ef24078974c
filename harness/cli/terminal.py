"""What the commands show and ask. Nothing else writes to the terminal, so nothing else has to know what does harm there, how wide it
is, or what to do when nobody reads.

What is shown goes to stdout, what is said beside it to stderr. When stdout is lost (its reader has gone, its disk is full, it was
closed from the start), a command goes on: what it measured is kept, and at the end one sentence says what was not shown.
"""

from __future__ import annotations

import errno
import os
import pathlib
import sys
from collections.abc import Iterable
from typing import IO, Any

import click

from harness.errors import Outcome, UsageError
from harness.untrusted import harmless
from harness.views import page

#: Why stdout is lost, while it is.
_lost: OSError | None = None

#: Journals that nobody was told of yet.
_untold: list[pathlib.Path] = []


def show(text: str = "", *, nl: bool = True) -> None:
    """Show a result on stdout."""
    _write(harmless.lines(text), nl)


def show_piece(text: str) -> None:
    """Show a piece of generated text as it comes."""
    _write(harmless.prose(text), False)


def echo_note(text: str = "", *, nl: bool = True) -> None:
    """Say something beside the result, on stderr."""
    _write_error(harmless.lines(text), nl)


def echo_error(sentence: str) -> None:
    """Say a sentence on stderr, where results do not go; one without its full stop gets it."""
    sentence = harmless.line(sentence)
    _write_error(f"harness: {sentence}{'' if sentence.endswith(('.', '?', '!')) else '.'}", True)


def is_watched() -> bool:
    """Whether somebody may look at stderr while a command runs."""
    return sys.stderr.isatty()


def confirm(question: str) -> bool:
    """Ask whether to do it.

    Raises
    ------
    click.Abort : Ctrl-C, or the end of what somebody types.
    UsageError  : nobody is there to answer.
    """
    try:
        return click.confirm(harmless.line(question), err=True)
    except click.Abort:
        if sys.stdin is not None and sys.stdin.isatty():
            raise
        raise UsageError(
            "That is asked before anything is deleted, and nobody answered; nothing was deleted."
        ) from None


def columns() -> int:
    """Columns to lay pages out in: COLUMNS, else the terminal's, else 80. `page.of_width` bounds them."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isascii() and asked.isdigit() and int(asked) > 0:
        return int(asked)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or page.USUAL
    except (OSError, ValueError, AttributeError):  # no terminal, no file behind it, or closed
        return page.USUAL


def is_output_lost() -> bool:
    """Whether nobody will see what is shown from now on."""
    return _lost is not None


def lose_output(error: OSError) -> None:
    """Take note that stdout cannot be written, and keep the interpreter from finding it out once more."""
    global _lost
    _lost = _lost or error
    silence(sys.stdout)


def account_for_output(code: int) -> int:
    """Say what became of stdout if it is lost, and return the exit code: that of the command, whose success becomes a failure.

    A reader that has had enough, as `head` has, is nobody's failure.
    """
    if _lost is None:
        return code
    if _lost.errno == errno.EPIPE:
        echo_error("Whoever read the output has gone; the rest of it was not shown.")
        return code
    echo_error(f"The output cannot be written ({(_lost.strerror or str(_lost)).lower()}); it was not shown.")
    return code or Outcome.OTHER


def note_kept(journals: Iterable[pathlib.Path]) -> None:
    """Take note of where records are; `echo_kept` says it below the answer, or whatever comes instead of one."""
    _untold.extend(journals)


def echo_kept() -> None:
    """Say on stderr where the records are, once."""
    while _untold:
        echo_note(f"kept in {_untold.pop(0)}")


def silence(stream: IO[Any] | None) -> None:
    """Send what a stream still holds nowhere."""
    try:
        if stream is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        pass


def _write(text: str, nl: bool) -> None:
    if _lost is not None:
        return
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, "it is closed")
        click.echo(text, nl=nl)
    except OSError as error:
        lose_output(error)


def _write_error(text: str, nl: bool) -> None:
    try:
        click.echo(text, nl=nl, err=True)
    except OSError:
        silence(sys.stderr)
