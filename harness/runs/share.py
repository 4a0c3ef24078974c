"""Files that others shared: found among what is named, and read within bounds."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

from harness.codec import Malformed
from harness.errors import StoreError, UsageError
from harness.records.share import MOST_BYTES, Share, is_share, read_share
from harness.untrusted.json import read_json

Warn = Callable[[str], None]

#: More files of one folder are not looked at.
MOST_FILES = 2000


def read_shares(named: Sequence[pathlib.Path], warn: Warn) -> tuple[list[tuple[str, Share]], list[pathlib.Path]]:
    """The shared files among files and folders, each with its name, and what of them holds journals.

    In a folder JSON of another kind is passed over, and what cannot be read as JSON is told; a file that is named and ends in
    .json has to be one.

    Raises
    ------
    UsageError : a named file is none, or is damaged.
    StoreError : a named file cannot be read.
    """
    shares: list[tuple[str, Share]] = []
    others: list[pathlib.Path] = []
    for path in named:
        if path.is_dir():
            found = [(file.name, share) for file in _list_files(path, warn) if (share := _try(file, warn)) is not None]
            shares += found
            if not found or next(path.rglob("*.jsonl"), None) is not None:
                others.append(path)
        elif path.suffix.lower() == ".json" and path.exists():
            shares.append((path.name, _read(path, warn)))
        else:
            others.append(path)
    return shares, others


def _list_files(folder: pathlib.Path, warn: Warn) -> Iterator[pathlib.Path]:
    for at, path in enumerate(sorted(folder.rglob("*.json"))):
        if at == MOST_FILES:
            warn(f"{folder} holds more than {MOST_FILES} files of JSON; the others are not looked at.")
            return
        if path.is_file():
            yield path


def _try(path: pathlib.Path, warn: Warn) -> Share | None:
    """A file of a folder, if it is a shared one; what is wrong with one is told."""
    try:
        if (values := _load(path)) is None:
            warn(f"{path}: larger than {MOST_BYTES >> 20} MiB, which no shared file is; it is skipped.")
        elif is_share(values):
            return read_share(values, lambda trouble: warn(f"{path}: {trouble}."))
    except OSError as error:
        warn(f"{path}: cannot be read ({error.strerror}); it is skipped.")
    except ValueError as error:
        why = f"not a shared file ({str(error).rstrip('.')})" if isinstance(error, Malformed) else "no JSON"
        warn(f"{path}: {why}; it is skipped.")
    return None


def _read(path: pathlib.Path, warn: Warn) -> Share:
    if not path.is_file():  # a pipe would be waited for
        raise UsageError(f"{path} is no file; name another one.")
    try:
        values = _load(path)
        if values is None:
            raise UsageError(f"{path} is larger than {MOST_BYTES >> 20} MiB, which no shared file is; it is not read.")
        return read_share(values, lambda trouble: warn(f"{path}: {trouble}."))
    except OSError as error:
        raise StoreError(f"Cannot read {path} ({error.strerror}).") from None
    except ValueError as error:
        raise UsageError(
            f"{path} {error if isinstance(error, Malformed) else 'is no JSON'}; name another file."
        ) from None


def _load(path: pathlib.Path) -> object | None:
    """What JSON a file holds; None where it is too large to be one of these."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size > MOST_BYTES:
            return None
        return read_json(file.read(MOST_BYTES + 1))
