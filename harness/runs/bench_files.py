"""What was measured, out of files that are known by what is in them: journals, and llama-bench's JSON, JSONL, CSV and SQL or SQLite.

A line or a row that cannot be read is told in one sentence, and the rest is used. The exports of harness are llama-bench's formats.
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import io
import pathlib
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from harness.errors import HarnessError, StoreError
from harness.records.bench_rows import MARKS, Row, is_row, read_row
from harness.records.bench_terms import OWN_TABLE, TABLE
from harness.records.cells import Record, is_measured
from harness.records.journal import DETAILS, each_line, read_lines
from harness.records.measurements import Measurement, Subject, Subjects, measurement_of
from harness.spec import name_test
from harness.units import format_count
from harness.untrusted import harmless
from harness.untrusted.json import read_json

Warn = Callable[[str], None]

_SQLITE = b"SQLite format 3\0"
#: What a file begins with that says how its text is written; PowerShell redirects into the second.
_MARKS_OF_CODECS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
#: What stands in each of llama-bench's lines of JSON, as bytes to look for.
_ROW_MARK = b'"avg_ts"'

#: What lines of JSON are known by, though the first may be damaged; llama-bench's JSON of several lines is indented.
_OBJECT = re.compile(rb'\A\s*\{|^\{"', re.MULTILINE)
#: The most that is read of a file that is no lines of JSON: ten thousand tests.
_LARGEST_BYTES = 256 << 20

_SQL = re.compile(r"create\s+table|insert\s+into", re.IGNORECASE)
_LONGEST = 120  # characters of what an error says

#: What SQL of strangers may do to a database of its own in memory, and what is asked of theirs.
_MAY_WRITE = {
    sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_READ, sqlite3.SQLITE_TRANSACTION
}  # fmt: skip
_MAY_READ = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ}


def read_measurements(path: pathlib.Path, warn: Warn) -> Iterator[Measurement]:
    """Everything that was measured in a file, in its order.

    Raises
    ------
    StoreError : the file cannot be read at all.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(1 << 16)
        if head.startswith(_SQLITE):
            yield from _read_rows(_read_database(path, warn), path, warn)
            return
        if _OBJECT.search(head.removeprefix(codecs.BOM_UTF8)):
            yield from _read_journal(path, warn)
            yield from _read_rows(_read_json_lines(path), path, warn)
            return
        encoding = next((name for mark, name in _MARKS_OF_CODECS if head.startswith(mark)), "utf-8")
        if path.stat().st_size > _LARGEST_BYTES:
            warn(f"{path}: above {_LARGEST_BYTES >> 20} MiB and no journal of harness; it is skipped.")
            return
        text = path.read_bytes().decode(encoding, "replace").strip()
    except OSError as error:
        raise StoreError(f"Cannot read {path} ({error.strerror}).") from None
    yield from _read_rows(_rows_of_text(text, path, warn), path, warn)


def _read_journal(path: pathlib.Path, warn: Warn) -> Iterator[Measurement]:
    subjects = Subjects()
    for line in read_lines([path], warn, ("result", "failure"), DETAILS):
        if isinstance(line.content, Record) and is_measured(line.content):
            yield measurement_of(line.content, subjects, line.label)


def _read_json_lines(path: pathlib.Path) -> Iterator[Row]:
    """Lines of llama-bench's among those of a journal; what is no JSON was told when the journal was read."""
    with open(path, "rb") as file:
        for raw in each_line(file):
            if raw and _ROW_MARK in raw and (row := _try_json(raw.decode("utf-8", "replace"))) is not None:
                yield row


def _try_json(text: str) -> Any:
    try:
        return read_json(text)
    except ValueError:
        return None


def _rows_of_text(text: str, path: pathlib.Path, warn: Warn) -> Iterable[Row]:
    """The rows of a text, by what it begins with."""
    if not text:
        return ()
    if text.startswith("["):
        return _read_array(text, path, warn)
    if text.startswith("{"):
        return [row for line in text.splitlines() if (row := _try_json(line)) is not None]
    if _SQL.match(text):
        return _read_sql(text, path, warn)
    heading = text.partition("\n")[0].replace('"', "").strip().split(",")
    if {*heading} >= MARKS:
        return _read_csv(text, path, warn)
    warn(f"{path}: neither a journal of harness nor JSON, JSONL, CSV or SQL of llama-bench; it is skipped.")
    return ()


def _read_array(text: str, path: pathlib.Path, warn: Warn) -> Iterable[Row]:
    """llama-bench's JSON, of which the end may be missing: it is written test by test."""
    found = _try_json(text)
    if found is None:
        whole = text[: text.rfind("\n  }") + len("\n  }")] + "\n]"
        found = _try_json(whole)
        said = "is cut off; what is whole of it is used" if found is not None else "is no JSON; it is skipped"
        warn(f"{path}: {said}.")
    return found if isinstance(found, list) else ()


def _read_csv(text: str, path: pathlib.Path, warn: Warn) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(text))
    try:
        for row in reader:
            if None in row or None in row.values():
                warn(f"{path}:{reader.line_num}: not a row (it has not as many fields as the heading); it is skipped.")
            else:
                yield row
    except csv.Error as error:
        warn(f"{path}:{reader.line_num}: {_describe(error)}; the rest is skipped.")


def _read_sql(text: str, path: pathlib.Path, warn: Warn) -> Sequence[Row]:
    """What llama-bench would put into a database, put into one in memory that may do nothing else."""
    database = sqlite3.connect(":memory:")
    try:
        database.set_authorizer(_allow(_MAY_WRITE))
        for statement in _statements(text):
            try:
                database.execute(statement)
            except sqlite3.Error as error:
                warn(f"{path}: a statement of its SQL cannot be used ({_describe(error)}); it is skipped.")
        return _select(database)
    except (sqlite3.Error, ValueError) as error:
        warn(f"{path}: its SQL cannot be read ({_describe(error)}); it is skipped.")
        return []
    finally:
        database.close()


def _describe(error: Exception) -> str:
    """What an error says, which may quote the file, in one short line."""
    text = harmless.line(" ".join(str(error).split()))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _statements(text: str) -> Iterator[str]:
    """The statements of an SQL text; what is cut off at its end is one too."""
    held = ""
    for line in text.splitlines(keepends=True):
        held += line
        if line.rstrip().endswith(";") and sqlite3.complete_statement(held):
            yield held
            held = ""
    if held.strip():
        yield held


def _read_database(path: pathlib.Path, warn: Warn) -> Sequence[Row]:
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            return _select(database)
        finally:
            database.close()
    except (sqlite3.Error, ValueError) as error:
        warn(f"{path}: this database cannot be read ({_describe(error)}); it is skipped.")
        return []


def _select(database: sqlite3.Connection) -> Sequence[Row]:
    """llama-bench's rows, each with what harness has of it in the table beside."""
    database.set_authorizer(_allow(_MAY_READ))
    database.row_factory = sqlite3.Row
    named = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    tables = {name for (name,) in named}
    if TABLE not in tables:
        raise sqlite3.Error(f"it has no table {TABLE}")
    rows: list[dict[str, Any]] = [dict(row) for row in database.execute(f"SELECT * FROM {TABLE} ORDER BY rowid")]
    if OWN_TABLE not in tables:
        return rows
    own: dict[tuple[Any, ...], list[Row]] = {}
    for row in map(dict, database.execute(f"SELECT * FROM {OWN_TABLE} ORDER BY rowid")):
        own.setdefault((row.get("test_time"), row.get("test")), []).append(row)
    for row in rows:
        if beside := own.get((row.get("test_time"), _test_of(row))):
            row |= {name: value for name, value in beside.pop(0).items() if name not in row}
    return rows


def _test_of(row: Row) -> str:
    """The name of a row's test; empty where its counts are none."""
    counts = [row.get(name) or 0 for name in ("n_prompt", "n_gen", "n_depth")]
    return name_test(*counts) if all(isinstance(count, int) for count in counts) else ""


def _allow(actions: set[int]) -> Callable[..., int]:
    return lambda action, *_: sqlite3.SQLITE_OK if action in actions else sqlite3.SQLITE_DENY


def _read_rows(rows: Iterable[Row], path: pathlib.Path, warn: Warn) -> Iterator[Measurement]:
    """Rows as measurements, with one object for all that are of the same subject."""
    subjects: dict[Subject, Subject] = {}
    n_foreign = 0
    for number, row in enumerate(rows, start=1):
        if not is_row(row):
            n_foreign += 1
            continue
        try:
            found = read_row(row)
        except (HarnessError, TypeError, ValueError) as error:
            warn(f"{path}: row {number} is not a measurement ({_describe(error).rstrip('.')}); it is skipped.")
            continue
        subject = subjects.setdefault(found.subject, found.subject)
        yield dataclasses.replace(found, subject=subject)
    if n_foreign:
        warn(f"{path}: {format_count(n_foreign, 'row')} of another program; skipped.")
