"""Records on disk: one JSON object a line, safe as soon as its cell ends."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from harness import harmless
from harness.errors import HarnessError, StoreError
from harness.record import Record, from_json, to_json

Line = TypeVar("Line")


class Journal:
    """An append-only file of records, opened before anything is measured and removed again if nothing was.

    `resume` names a journal of before, which goes on instead of a new one.

    Raises
    ------
    StoreError : the folder cannot be made or the file cannot be opened.
    """

    def __init__(self, folder: pathlib.Path, command: str, resume: pathlib.Path | None = None) -> None:
        if resume is not None:
            self._reopen(resume)
            return
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        self.path = folder / f"{stamp}-{command}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for attempt in range(2, 1000):
                try:
                    self._file = open(self.path, "x", encoding="utf-8")
                    return
                except FileExistsError:  # two runs in one second
                    self.path = folder / f"{stamp}-{command}-{attempt}.jsonl"
        except OSError as error:
            raise StoreError(
                f"Cannot write records into {folder} ({error.strerror}); choose another folder with --results or use --no-save."
            ) from None
        raise StoreError(f"Cannot find a free file name for records in {folder}; use another folder with --results.")

    def _reopen(self, path: pathlib.Path) -> None:
        """Go on in an old journal, after a line that may have been cut off."""
        self.path = path
        try:
            is_cut = path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
            self._file = open(path, "a", encoding="utf-8")
            if is_cut:
                self._file.write("\n")
        except OSError as error:
            raise StoreError(
                f"Cannot go on in {path} ({error.strerror}); name another journal or leave out --resume."
            ) from None

    def append(self, record: Record) -> None:
        """Write one record and have it on the disk before returning.

        Raises
        ------
        StoreError : as `write`.
        """
        self.write(to_json(record))

    def write(self, values: Mapping[str, Any]) -> None:
        """Write one line of any kind (its ``kind`` and ``schema`` say which) and have it on the disk before returning.

        Raises
        ------
        StoreError : the disk is full or the file is gone; what was written before stays.
        """
        try:
            # Escaped, a name that is not UTF-8 is kept, and no line end inside a name ends the line for any reader.
            self._file.write(harmless.escape_json(json.dumps(values, ensure_ascii=False, separators=(",", ":"))) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StoreError(
                f"Cannot write to {self.path} ({error.strerror}); results are still shown, but not kept: free some space "
                "or use --results with another folder."
            ) from None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError:
            pass  # said by append already
        try:
            if self.path.stat().st_size == 0:
                self.path.unlink()
        except OSError:
            pass  # an empty file that cannot be removed harms nobody


def read_records(paths: Iterable[pathlib.Path], warn: Callable[[str], None]) -> list[Record]:
    """Read the measured cells of journals, skipping with a warning what is damaged (a line that a power cut left half written).

    Raises
    ------
    StoreError : a file cannot be read at all.
    """
    return read_lines(paths, warn, ("result", "failure"), from_json)


def read_lines(
    paths: Iterable[pathlib.Path],
    warn: Callable[[str], None],
    kinds: Sequence[str] | None,
    build: Callable[[Any], Line],
) -> list[Line]:
    """Read the lines of some kinds (None: of all), each turned into a value by `build`; what `build` refuses is skipped with a warning.

    Raises
    ------
    StoreError : a file cannot be read at all.
    """
    found = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise StoreError(f"Cannot read {path} ({error.strerror}).") from None
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
                if kinds is None or values["kind"] in kinds:
                    found.append(build(values))
            except Exception as error:  # a damaged line may be wrong in any way
                reason = str(error) if isinstance(error, HarnessError) else type(error).__name__
                warn(f"{path}:{number}: not a record ({reason}); the line is skipped.")
    return found


def utc_now() -> str:
    """The time in llama-bench's format, ``2026-11-24T10:59:57Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
