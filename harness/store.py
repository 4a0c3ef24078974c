"""Records on disk: one JSON object a line, safe as soon as its cell ends."""

from __future__ import annotations

import datetime
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from harness.codec import Malformed
from harness.errors import HarnessError, StoreError
from harness.kinds import Line, read_line
from harness.record import Record, to_json


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
            self._file.write(json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n")
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


def read_records(paths: Iterable[pathlib.Path], warn: Callable[[str], None]) -> Iterator[Record]:
    """Read the measured cells of journals; see `read_lines`."""
    for line in read_lines(paths, warn, ("result", "failure")):
        if isinstance(line.content, Record):
            yield line.content


def read_lines(
    paths: Iterable[pathlib.Path], warn: Callable[[str], None], kinds: Sequence[str] | None = None
) -> Iterator[Line]:
    """Read the lines of some kinds (None: of all) one by one; what is damaged or of a later schema is skipped with a warning.

    A line ends at ``\\n`` and nowhere else: JSON lets other separators of Unicode stand in a name. One line is held at a time.

    Raises
    ------
    StoreError : a file cannot be read at all.
    """
    for path in paths:
        try:
            with open(path, "rb") as file:
                for number, raw in enumerate(file, start=1):
                    if raw.strip():
                        line = _read_line(raw, kinds, lambda reason, n=number: warn(f"{path}:{n}: {reason}"))  # type: ignore[misc]
                        if line is not None:
                            yield line
        except OSError as error:
            raise StoreError(f"Cannot read {path} ({error.strerror}).") from None


def _read_line(raw: bytes, kinds: Sequence[str] | None, warn: Callable[[str], None]) -> Line | None:
    try:
        values = _DECODER.decode(raw.decode("utf-8", "replace"))
        if kinds is not None and isinstance(values, dict) and values.get("kind") not in kinds:
            return None
        return read_line(values)
    except json.JSONDecodeError:
        warn("not a record (no JSON); the line is skipped.")
    except RecursionError:
        warn("not a record (nested too deep); the line is skipped.")
    except (ValueError, HarnessError) as error:
        warn(f"not a record ({str(error).rstrip('.')}); the line is skipped.")
    return None


def _refuse_number(text: str) -> float:
    raise Malformed(f"holds {text}, which is no number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_number(text)


_DECODER = json.JSONDecoder(parse_constant=_refuse_number, parse_float=_finite)


def utc_now() -> str:
    """The time in llama-bench's format, ``2026-11-24T10:59:57Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
