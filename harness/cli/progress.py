"""What a person sees of something that takes long: a bar with the time that is left on a terminal, else a line a result."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from harness.cli import terminal
from harness.cli.options import given_label
from harness.errors import Outcome
from harness.events import Event, Measured, OnEvent, Progress, Unkept
from harness.records.failures import Cause, describe_end
from harness.runs.session import Session
from harness.views import page

_WITH_TOTAL = "{desc} {bar} {n_fmt}/{total_fmt}  {elapsed} + {remaining}{postfix}"
_WITHOUT_TOTAL = "{desc}  {elapsed}{postfix}"

#: Columns for what is being done, beside the bar.
_TASK = 28

#: A download that stands still for so many seconds is said to.
_STILL_S = 3


class Display:
    """Shows events of runs and sources on stderr. describe makes a line of what was measured, None where nothing is to be said.

    It draws when it is told something, and never by time: nothing may run beside a timed region.
    """

    def __init__(self, describe: Callable[[object], str | None] = lambda _content: None) -> None:
        self._describe = describe
        self._bar: Any = None
        self._course: tuple[str, int | None] | None = None
        self._moved_at = 0.0

    def on_event(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Progress):
            if terminal.is_watched():
                self._draw(event)
        elif isinstance(event, Measured):
            self._show_measured(self._describe(event.content))
        elif isinstance(event, Unkept):
            self._clear()
            terminal.echo_note(event.line)
        else:
            self._clear()
            terminal.echo_error(event.text)

    def _show_measured(self, text: str | None) -> None:
        if text and self._bar is not None:
            self._bar.set_postfix_str(page.cut(text, _TASK))
        elif text and not terminal.is_watched():
            terminal.echo_note(text)

    def _draw(self, event: Progress) -> None:
        course = (event.unit, event.total)
        if self._bar is None or course != self._course:
            self.close()
            self._bar, self._course, self._moved_at = _new_bar(event), course, time.monotonic()
        still_s = self._stands_still_s(event)
        if event.unit:
            self._bar.set_postfix_str(f"nothing came for {still_s:.0f} s" if still_s > _STILL_S else "", refresh=False)
        self._bar.set_description_str(page.cut(event.task, 2 * _TASK).ljust(_TASK), refresh=False)
        self._bar.n = event.done
        self._bar.refresh()

    def _stands_still_s(self, event: Progress) -> float:
        if event.done != self._bar.n:
            self._moved_at = time.monotonic()
        return time.monotonic() - self._moved_at

    def _clear(self) -> None:
        """Make room for a line; the next event draws again."""
        if self._bar is not None:
            self._bar.clear()

    def close(self) -> None:
        """Take away what is drawn."""
        if self._bar is not None:
            self._bar.close()
            self._bar = self._course = None


def _new_bar(event: Progress) -> Any:
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no thread of its own
    return tqdm(
        total=event.total, unit=event.unit, unit_scale=bool(event.unit), leave=False, file=sys.stderr, dynamic_ncols=True,
        bar_format=_WITHOUT_TOTAL if event.total is None else _WITH_TOTAL,
    )  # fmt: skip


@contextlib.contextmanager
def displayed(describe: Callable[[object], str | None] = lambda _content: None) -> Iterator[OnEvent]:
    """Whom to tell how it goes; what is drawn is gone afterwards."""
    with contextlib.closing(Display(describe)) as display:
        yield display.on_event


@contextlib.contextmanager
def open_session(
    command: str, options: dict[str, Any], describe: Callable[[object], str | None] = lambda _content: None, **more: Any
) -> Iterator[Session]:
    """A session as the options ``save`` and ``results`` have it, whose progress is displayed; end the command with `end`."""
    results = options["results"] if options["save"] else None
    with (
        displayed(describe) as on_event,
        Session(command, results, on_event=on_event, label=given_label(), **more) as session,
    ):
        try:
            yield session
        finally:
            terminal.note_kept(session.journals)


def end(session: Session, *, with_failure: bool = False) -> None:
    """Tell on stderr where the records are (and what llama.cpp failed of), and end the command with what became of it."""
    if with_failure and session.failure and session.failure.cause is not Cause.INTERRUPTED:  # which the outcome says
        terminal.echo_error(describe_end(session.failure))
    terminal.echo_kept()
    end_with(session.outcome)


def end_with(outcome: Outcome) -> None:
    """End the command unless all is well."""
    if outcome is not Outcome.OK:
        raise click.exceptions.Exit(outcome)
