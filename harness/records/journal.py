"""Records on disk: one JSON object a line, safe as soon as its cell ends."""

from __future__ import annotations

import codecs
import datetime
import errno
import io
import json
import math
import os
import pathlib
import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

from harness.codec import Malformed
from harness.errors import HarnessError, StoreError, UsageError
from harness.records.cells import Record
from harness.records.journal_files import NAME, STAMP, journal_order
from harness.records.kinds import Entry, Line, read_line, to_json
from harness.records.quick_lines import read_quickly
from harness.untrusted import harmless
from harness.untrusted.json import read_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LONGEST_LABEL = 200

#: Some lines at once: one has ten thousand bytes.
_BUFFER_BYTES = 1 << 18
#: No record comes near the first (`runs/child.py` takes no longer line from a worker); what is longer is skipped, up to the second.
LONGEST_LINE_BYTES = 64 << 20
_LONGEST_SKIPPED_BYTES = 1 << 30


class Journal:
    """An append-only file of records, opened before anything is measured and removed again if nothing was.

    `resume` names a journal of before, which goes on instead of a new one; `label` is put into each line that is written. A clock that
    was set back does not put a new journal before the old ones: it has the time of the folder's last one then, and a number behind.

    Raises
    ------
    StoreError : the folder cannot be made, the file cannot be opened, or another harness writes to it.
    """

    def __init__(
        self, folder: pathlib.Path, command: str, resume: pathlib.Path | None = None, label: str | None = None
    ) -> None:
        self._label = check_label(label) if label else None
        if resume is not None:
            self._reopen(resume)
            return
        self._open(folder, command)

    def _open(self, folder: pathlib.Path, command: str) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stamp, number = _next_name(folder)
            for attempt in range(number, number + 1000):
                self.path = folder / f"{stamp}-{command}{f'-{attempt}' if attempt > 1 else ''}.jsonl"
                try:
                    self._file = open(self.path, "x+b", buffering=0)
                except FileExistsError:  # two runs in one second
                    continue
                _lock(self._file)
                _sync_folder(folder)
                return
        except OSError as error:
            raise StoreError(
                f"Cannot write records into {folder} ({error.strerror}); choose another folder with --results or use --no-save."
            ) from None
        raise StoreError(f"Cannot find a free file name for records in {folder}; use another folder with --results.")

    def _reopen(self, path: pathlib.Path) -> None:
        """Go on in an old journal, after a line that may have been cut off."""
        self.path = path
        try:
            self._file = open(path, "r+b", buffering=0)
            if not _lock(self._file):
                self._file.close()
                raise StoreError(_IS_WRITTEN.format(path=path))
            if self._file.seek(0, os.SEEK_END):
                self._file.seek(-1, os.SEEK_END)
                if self._file.read(1) != b"\n":
                    _write_all(self._file, b"\n")
        except OSError as error:
            raise StoreError(
                f"Cannot go on in {path} ({error.strerror}); name another journal or leave out --resume."
            ) from None

    def append(self, record: Entry) -> None:
        """Write one record of any kind and have it on the disk before returning.

        Raises
        ------
        StoreError : the disk is full or the file is gone; what was written before stays, and nothing of the record.
        ValueError : a number is not finite, which JSON does not have.
        """
        try:
            self._append(to_line(record, self._label))
        except OSError as error:
            raise StoreError(f"Cannot write to {self.path} ({_reason(error)})") from None

    def _append(self, data: bytes) -> None:
        size_bytes = self._file.seek(0, os.SEEK_END)
        try:
            _write_all(self._file, data)
            os.fsync(self._file.fileno())
            if os.fstat(self._file.fileno()).st_nlink == 0:
                raise FileNotFoundError(errno.ENOENT, "it was deleted meanwhile")
        except OSError:
            try:
                self._file.truncate(size_bytes)
            except OSError:
                pass  # half a line is told of when the journal is read
            raise

    def move(self, folder: pathlib.Path, command: str) -> Journal:
        """A journal in another folder that goes on in place of this one, with what only this one still holds: its lines, where its file
        was deleted.

        Raises
        ------
        StoreError : that folder does not take it either; this one is as it was.
        """
        other = Journal(folder, command)
        other._label = self._label
        try:
            if os.fstat(self._file.fileno()).st_nlink == 0:
                self._file.seek(0)
                other._append(self._file.readall())
        except OSError as error:
            other.__exit__()
            raise StoreError(f"Cannot write to {other.path} ({_reason(error)})") from None
        self.__exit__()
        return other

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._file.close()
        except OSError:
            pass  # said by append already
        try:
            if self.path.stat().st_size == 0:
                self.path.unlink()
        except OSError:
            pass  # an empty file that cannot be removed harms nobody


def _write_all(file: io.FileIO, data: bytes) -> None:
    """Write bytes without a buffer, which would try once more what a full disk refused."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _sync_folder(folder: pathlib.Path) -> None:
    """Have the name of a new file on the disk too, where the system can."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folder
        return
    try:
        os.fsync(number)
    except OSError:
        pass
    finally:
        os.close(number)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


_IS_WRITTEN = "{path} is being written by another harness; wait until that has ended."


def _lock(file: IO[bytes]) -> bool:
    """Have a file for oneself until it is closed; False where somebody else has it. Windows needs none: it replaces no open file."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True


def to_line(record: Entry, label: str | None = None) -> bytes:
    """A record as the line that it is kept as."""
    return _write_line({**to_json(record), **({"label": label} if label else {})})


def _write_line(values: Mapping[str, Any]) -> bytes:
    """One line. Escaped, a name that is not UTF-8 is kept, and no line end inside a name ends the line for any reader."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return harmless.escape_json(text).encode("utf-8") + b"\n"


def check_label(text: str) -> str:
    """A label as it is kept: one line without blanks around it.

    Raises
    ------
    UsageError : it is too long, or holds what is no text.
    """
    if len(text) > LONGEST_LABEL or harmless.line(text) != text:
        raise UsageError(f"A label is one line of up to {LONGEST_LABEL} characters; choose another.")
    return text.strip()


def edit_lines(path: pathlib.Path, numbers: Collection[int] | None, change: Callable[[bytes], bytes]) -> int:
    """Change lines of a journal, all at once or not at all; returns how many. What is no record stays as long as any record does.

    Parameters
    ----------
    numbers : of the lines, from 1; None: all
    change  : makes of a record's line what is to stand there; nothing takes it away, and a journal without any is deleted

    Raises
    ------
    UsageError : it is no file of this user's that harness named as it names its journals.
    StoreError : it is being written, or cannot be written.
    """
    _refuse_foreign(path)
    try:
        with open(path, "r+b") as file:
            if not _lock(file):
                raise StoreError(_IS_WRITTEN.format(path=path))
            lines = file.readlines()
            records = [number for number, raw in enumerate(lines, start=1) if _is_record(raw)]
            meant = [number for number in records if numbers is None or number in numbers]
            for number in meant:
                lines[number - 1] = change(lines[number - 1])
            if fcntl is None:
                file.close()
            if meant and not any(lines[number - 1] for number in records):
                path.unlink()
            elif meant:
                _replace(path, b"".join(lines))
    except OSError as error:
        raise StoreError(f"Cannot change {path} ({error.strerror}); it is as it was.") from None
    return len(meant)


def _is_record(raw: bytes) -> bool:
    try:
        return _read_line(raw, None, strictly=True) is not None
    except (ValueError, HarnessError):
        return False


def set_label(label: str) -> Callable[[bytes], bytes]:
    """What gives a line of a journal another label, for `edit_lines`; an empty one takes it away."""
    given = {"label": checked} if (checked := check_label(label)) else {}

    def change(raw: bytes) -> bytes:
        values = read_json(raw.decode("utf-8", "replace"), _DECODER)
        return _write_line({**{name: value for name, value in values.items() if name != "label"}, **given})

    return change


def _refuse_foreign(path: pathlib.Path) -> None:
    if not NAME.fullmatch(path.name):
        raise UsageError(f"{path} is not named as harness names its journals; it is not touched.")
    if path.is_symlink() or (hasattr(os, "geteuid") and path.exists() and path.stat().st_uid != os.geteuid()):
        raise UsageError(f"{path} is a link or somebody else's; it is not touched.")


def _replace(path: pathlib.Path, data: bytes) -> None:
    """Put a new file in the place of an old one: whoever reads sees the one or the other."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, path.stat().st_mode)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            file.close()  # Windows removes no open file
            pathlib.Path(file.name).unlink(missing_ok=True)
            raise


def _next_name(folder: pathlib.Path) -> tuple[str, int]:
    """The time and the number of a new journal: now, or behind the last one of the folder where that is later."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime(STAMP)
    names = [path for path in folder.glob("*.jsonl") if NAME.fullmatch(path.name)]
    last = max(map(journal_order, names), default=("", 0, ""))
    return (now, 1) if now > last[0] else (last[0], last[1] + 1)


def read_records(paths: Iterable[pathlib.Path], warn: Callable[[str], None]) -> list[Record]:
    """Read the measured cells of journals; see `read_lines`."""
    return list(each_record(paths, warn))


def each_record(
    paths: Iterable[pathlib.Path], warn: Callable[[str], None], without: Collection[str] = ()
) -> Iterator[Record]:
    """The same one by one, for whoever need not hold them all, or not all of them: fields `without` which they are read."""
    for line in read_lines(paths, warn, ("result", "failure"), without):
        if isinstance(line.content, Record):
            yield line.content


def read_lines(
    paths: Iterable[pathlib.Path],
    warn: Callable[[str], None],
    kinds: Sequence[str] | None = None,
    without: Collection[str] = (),
) -> Iterator[Line]:
    """Read the lines of some kinds (None: of all) one by one; what is damaged or of a later schema is skipped with a warning.

    Fields `without` which they are read have their defaults, as in an older line; `TOKEN_TIMES` are one of a cell's samples.

    A line ends at a line feed and nowhere else: JSON lets other separators of Unicode stand in a name. One line is held at a time, of
    64 MiB at most.

    Raises
    ------
    StoreError : a file cannot be read at all.
    """
    for path in paths:
        try:
            with open(path, "rb", buffering=_BUFFER_BYTES) as file:
                for number, raw in enumerate(each_line(file), start=1):
                    try:
                        if raw is None:
                            raise Malformed(f"longer than {LONGEST_LINE_BYTES >> 20} MiB")
                        line = _read_line(raw, kinds, without, number)
                    except (ValueError, HarnessError) as error:
                        warn(f"{path}:{number}: not a record ({_name_trouble(error)}); the line is skipped.")
                        continue
                    if line is not None:
                        yield line
        except OSError as error:
            raise StoreError(f"Cannot read {path} ({error.strerror}).") from None


def each_line(file: IO[bytes]) -> Iterator[bytes | None]:
    """The lines of a file, of which no more than one is held; None for one that is too long, the last one where it does not end soon.

    The first has no byte order mark, which editors and shells of Windows put there.
    """
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        file.seek(0)
    while raw := file.readline(LONGEST_LINE_BYTES):
        if len(raw) < LONGEST_LINE_BYTES or raw.endswith(b"\n"):
            yield raw
            continue
        yield None
        skipped_bytes = len(raw)
        while (raw := file.readline(_BUFFER_BYTES)) and not raw.endswith(b"\n"):
            skipped_bytes += len(raw)
            if skipped_bytes > _LONGEST_SKIPPED_BYTES:
                return


def _read_line(
    raw: bytes, kinds: Sequence[str] | None, without: Collection[str] = (), number: int = 0, *, strictly: bool = False
) -> Line | None:
    """One line; None where it is empty or of none of the kinds. strictly: what no class looks at is looked at too."""
    if not raw.strip():
        return None
    if TOKEN_TIMES in without and _CELL.match(raw):
        raw = _TOKEN_TIMES.sub(b'"token_ns":[]', raw)
        if (line := read_quickly(raw, kinds, frozenset(without), number)) is not None:
            return line
    values = read_json(raw.decode("utf-8", "replace"), _DECODER if strictly else _QUICK_DECODER)
    if kinds is not None and isinstance(values, dict) and values.get("kind") not in kinds:
        return None
    for name in without if isinstance(values, dict) else ():
        values.pop(name, None)
    return read_line(values, number)


def _name_trouble(error: Exception) -> str:
    return "no JSON" if isinstance(error, json.JSONDecodeError) else str(error).rstrip(".")


def _refuse_number(text: str) -> float:
    raise Malformed(f"holds {text}, which is no number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_number(text)


_DECODER = json.JSONDecoder(parse_constant=_refuse_number, parse_float=_finite)
#: A number that is too large for its kind is infinite to this one, which no field takes (`codec`); it calls nothing of ours for each.
_QUICK_DECODER = json.JSONDecoder(parse_constant=_refuse_number)

#: In `without`: the times of single tokens in a cell's samples. Most of a line of tg128 is that; it is taken out before it is read.
TOKEN_TIMES = "samples.token_ns"
#: In `without`: what no comparison and no history needs of cells, which are read by the hundred thousand.
DETAILS = frozenset({"resolved", "load", "telemetry", "dispatch_ns_per_token", TOKEN_TIMES})
_CELL = re.compile(rb'\{"schema":\d+,"kind":"(?:result|failure)"')
#: Inside a string of JSON the quotes would have backslashes.
_TOKEN_TIMES = re.compile(rb'"token_ns":\[[0-9,]+\]')


def utc_now() -> str:
    """The time in llama-bench's format, ``2026-11-24T10:59:57Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
