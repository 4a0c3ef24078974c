"""Which journals are meant, and in which order they were begun."""

from __future__ import annotations

import datetime
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

from harness.errors import StoreError, UsageError
from harness.units import format_count

#: When a journal was begun, by its name: ``20261124T231638Z-pp-tg.jsonl``, or ``…Z-pp-tg-2.jsonl`` for the second of a second.
NAME = re.compile(r"(\d{8}T\d{6}Z)-.*?(?:-(\d+))?\.jsonl")


_LAST = re.compile(r"last(?:~(\d+))?")


def journal_order(path: pathlib.Path) -> tuple[str, int, str]:
    """The key that puts journals in the order in which they were begun: by the time in the name, then by the number behind it.

    A new journal's name never lies before an old one's in its folder (`Journal`), so the order holds even where the clock was set back.
    A file of another name, such as journals that somebody put together, counts by the time when it was last written.
    """
    match = NAME.fullmatch(path.name)
    if match is not None:
        return (match[1], int(match[2] or 1), str(path))
    try:
        written = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.timezone.utc)
    except (OSError, OverflowError, ValueError):
        return ("", 0, str(path))
    return (written.strftime(STAMP), 0, str(path))


STAMP = "%Y%m%dT%H%M%SZ"


def find_journals(files: Sequence[pathlib.Path], results: pathlib.Path) -> list[pathlib.Path]:
    """The journals that are meant: named ones, all in named folders, all in the results folder where none is named; the oldest first.

    ``last`` is the latest of the results folder, and ``last~1`` the one before.

    Raises
    ------
    UsageError : a named file or folder does not exist, or a named folder holds no journal.
    """
    if not files:
        return sorted(_begun_in(results), key=journal_order)
    found: dict[pathlib.Path, None] = {}
    for path in files:
        if (match := _LAST.fullmatch(str(path))) and not _is_there(path):
            journals, steps = find_journals((), results), int(match[1] or 0)
            if steps >= len(journals):
                raise UsageError(f"{path} is not there: {format_count(len(journals), 'journal')} kept in {results}.")
            path = journals[-1 - steps]
        if not _is_there(path):
            raise UsageError(f"There is no file or folder {path}; name journals (.jsonl), a folder of them, or last.")
        inside = list(_journals_in(path)) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"There are no journals (.jsonl) in {path}; `harness pp-tg` writes some.")
        found |= dict.fromkeys(inside)
    return sorted(found, key=journal_order)


def _is_there(path: pathlib.Path) -> bool:
    """Whether a file or folder exists; what cannot be looked at is said to be unreadable and not missing.

    Raises
    ------
    StoreError : nobody may look.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise StoreError(f"Cannot read {path} ({error.strerror}).") from None
    except ValueError:  # a zero byte
        return False
    return True


def _begun_in(results: pathlib.Path) -> Iterator[pathlib.Path]:
    """The journals of the results folder with something in them: one is empty that is just being begun, or that a kill left so.

    Raises
    ------
    UsageError : it is no folder.
    StoreError : somebody else's rights keep it from being read.
    """
    if not _is_there(results):
        if results.is_symlink():
            raise UsageError(f"{results} is a link to nothing; name the folder of records with --results.")
        return
    if not results.is_dir():
        raise UsageError(f"{results} is no folder; name the folder of records with --results.")
    for path in _journals_in(results):
        try:
            if path.stat().st_size:
                yield path
        except FileNotFoundError:  # taken away meanwhile, or a link to nothing
            continue
        except OSError:  # whoever reads it says why it cannot be
            yield path


def _journals_in(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """The journals of a folder and those below it.

    Raises
    ------
    StoreError : a folder cannot be read, whose records would seem to be none.
    """

    def refuse(error: OSError) -> None:
        raise StoreError(f"Cannot read {error.filename} ({error.strerror}).") from None

    for place, _, names in os.walk(folder, onerror=refuse):
        yield from (pathlib.Path(place, name) for name in names if name.endswith(".jsonl"))
