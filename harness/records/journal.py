"""Records on disk: one JSON object a line, safe as soon as its cell ends."""

from __future__ import annotations

import datetime
import json
import math
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from harness.codec import Malformed
from harness.errors import HarnessError, StoreError, UsageError
from harness.records.cells import Record
from harness.records.kinds import Entry, Line, read_line, to_json
from harness.untrusted import harmless
from harness.untrusted.json import read_json

#: When a journal was begun, by its name: ``20261124T231638Z-pp-tg.jsonl``, or ``…Z-pp-tg-2.jsonl`` for the second of a second.
_NAME = re.compile(r"(\d{8}T\d{6}Z)-.*?(?:-(\d+))?\.jsonl")


def journal_order(path: pathlib.Path) -> tuple[str, int, str]:
    """The key that puts journals in the order in which they were begun: by the time in the name, then by the number behind it.

    A new journal's name never lies before an old one's in its folder (`Journal`), so the order holds even where the clock was set back.
    A file of another name, such as journals that somebody put together, counts by the time when it was last written.
    """
    match = _NAME.fullmatch(path.name)
    if match is not None:
        return (match[1], int(match[2] or 1), str(path))
    try:
        written = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.timezone.utc)
    except (OSError, OverflowError, ValueError):
        return ("", 0, str(path))
    return (written.strftime(_STAMP), 0, str(path))


_STAMP = "%Y%m%dT%H%M%SZ"


class Journal:
    """An append-only file of records, opened before anything is measured and removed again if nothing was.

    `resume` names a journal of before, which goes on instead of a new one. A clock that was set back does not put a new journal before
    the old ones: it then has the time of the last one in the folder, and a number behind.

    Raises
    ------
    StoreError : the folder cannot be made or the file cannot be opened.
    """

    def __init__(self, folder: pathlib.Path, command: str, resume: pathlib.Path | None = None) -> None:
        if resume is not None:
            self._reopen(resume)
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stamp, number = _next_name(folder)
            for attempt in range(number, number + 1000):
                self.path = folder / f"{stamp}-{command}{f'-{attempt}' if attempt > 1 else ''}.jsonl"
                try:
                    self._file = open(self.path, "xb")
                    return
                except FileExistsError:  # two runs in one second
                    continue
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
            self._file = open(path, "ab")
            if is_cut:
                self._file.write(b"\n")
        except OSError as error:
            raise StoreError(
                f"Cannot go on in {path} ({error.strerror}); name another journal or leave out --resume."
            ) from None

    def append(self, record: Entry) -> None:
        """Write one record of any kind and have it on the disk before returning.

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
        ValueError : a number is not finite, which JSON does not have.
        """
        text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        try:
            # Escaped, a name that is not UTF-8 is kept, and no line end inside a name ends the line for any reader.
            self._file.write(harmless.escape_json(text).encode("utf-8") + b"\n")
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


def _next_name(folder: pathlib.Path) -> tuple[str, int]:
    """The time and the number of a new journal: now, or behind the last one of the folder where that is later."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime(_STAMP)
    names = [path for path in folder.glob("*.jsonl") if _NAME.fullmatch(path.name)]
    last = max(map(journal_order, names), default=("", 0, ""))
    return (now, 1) if now > last[0] else (last[0], last[1] + 1)


def find_journals(files: Sequence[pathlib.Path], results: pathlib.Path) -> list[pathlib.Path]:
    """The journals that are meant: named ones, all in named folders, all in the results folder where none is named; the oldest first.

    Raises
    ------
    UsageError : a named file or folder does not exist, or a named folder holds no journal.
    """
    if not files:
        return sorted(results.rglob("*.jsonl"), key=journal_order) if results.is_dir() else []
    found: dict[pathlib.Path, None] = {}
    for path in files:
        if not path.exists():
            raise UsageError(f"There is no file or folder {path}; name journals (.jsonl) or a folder of them.")
        inside = list(path.rglob("*.jsonl")) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"There are no journals (.jsonl) in {path}; `harness pp-tg` writes some.")
        found |= dict.fromkeys(inside)
    return sorted(found, key=journal_order)


def read_records(paths: Iterable[pathlib.Path], warn: Callable[[str], None]) -> list[Record]:
    """Read the measured cells of journals; see `read_lines`."""
    return list(each_record(paths, warn))


def each_record(paths: Iterable[pathlib.Path], warn: Callable[[str], None]) -> Iterator[Record]:
    """The same one by one, for whoever need not hold them all."""
    for line in read_lines(paths, warn, ("result", "failure")):
        if isinstance(line.content, Record):
            yield line.content


def read_lines(
    paths: Iterable[pathlib.Path], warn: Callable[[str], None], kinds: Sequence[str] | None = None
) -> Iterator[Line]:
    """Read the lines of some kinds (None: of all) one by one; what is damaged or of a later schema is skipped with a warning.

    A line ends at a line feed and nowhere else: JSON lets other separators of Unicode stand in a name. One line is held at a time.

    Raises
    ------
    StoreError : a file cannot be read at all.
    """
    for path in paths:
        try:
            with open(path, "rb") as file:
                for number, raw in enumerate(file, start=1):
                    try:
                        line = _read_line(raw, kinds)
                    except (ValueError, HarnessError) as error:
                        warn(f"{path}:{number}: not a record ({_name_trouble(error)}); the line is skipped.")
                        continue
                    if line is not None:
                        yield line
        except OSError as error:
            raise StoreError(f"Cannot read {path} ({error.strerror}).") from None


def _read_line(raw: bytes, kinds: Sequence[str] | None) -> Line | None:
    """One line; None where it is empty or of none of the kinds."""
    if not raw.strip():
        return None
    values = read_json(raw.decode("utf-8", "replace"), _DECODER)
    if kinds is not None and isinstance(values, dict) and values.get("kind") not in kinds:
        return None
    return read_line(values)


def _name_trouble(error: Exception) -> str:
    return "no JSON" if isinstance(error, json.JSONDecodeError) else str(error).rstrip(".")


def _refuse_number(text: str) -> float:
    raise Malformed(f"holds {text}, which is no number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_number(text)


_DECODER = json.JSONDecoder(parse_constant=_refuse_number, parse_float=_finite)


def utc_now() -> str:
    """The time in llama-bench's format, ``2026-11-24T10:59:57Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
