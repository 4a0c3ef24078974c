"""Where a command's records go: a journal in the machine's own folder, which may fail without taking the results along."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from harness.cli import terminal
from harness.cli.options import given_label
from harness.errors import Outcome, StoreError
from harness.host.machine import describe_machine, machine_slug
from harness.records.journal import Journal
from harness.records.kinds import Entry


class Keeper:
    """Files a command's records under ``<results>/<machine>/``, and goes on without when the disk does not.

    Raises
    ------
    StoreError : the journal cannot be opened, which is found out before anything is measured.
    """

    def __init__(self, command: str, results: pathlib.Path, *, save: bool, resume: pathlib.Path | None = None) -> None:
        self.machine = describe_machine()
        self.trouble: StoreError | None = None
        self._saved = 0
        self._stack = contextlib.ExitStack()
        folder = results / machine_slug(self.machine)
        self._journal = self._stack.enter_context(Journal(folder, command, resume, given_label())) if save else None

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def keep(self, record: Entry) -> None:
        """File one measured cell."""
        self._file(lambda journal: journal.append(record))

    def keep_line(self, values: Mapping[str, Any]) -> None:
        """File one line of another kind; `values` has its ``schema`` and ``kind``."""
        self._file(lambda journal: journal.write(values))

    def _file(self, write: Callable[[Journal], None]) -> None:
        if self._journal is None or self.trouble:
            return
        try:
            write(self._journal)
            self._saved += 1
        except StoreError as error:
            self.trouble = error

    def say_where(self) -> None:
        """Tell on stderr where the records are, or why they are not kept."""
        if self.trouble:
            terminal.echo_error(str(self.trouble))
        if self._saved and self._journal:
            terminal.echo_note(f"kept in {self._journal.path}")

    def exit_code(self, *, interrupted: bool = False, failed: bool = False, distrusted: bool = False) -> int:
        """The gravest of what became of a command that measures: interrupted, not stored, failed, not to be trusted; else 0."""
        if interrupted:
            return Outcome.INTERRUPTED
        if self.trouble:
            return Outcome.STORE
        if failed:
            return Outcome.NATIVE
        return Outcome.NOT_TRUSTED if distrusted else Outcome.OK
