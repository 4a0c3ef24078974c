"""Small files that are there whole or not at all: whoever reads one sees the old or the new."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path


def name_by_place(place: Path) -> str:
    """The name of what is kept about a file, by the place of that: 32 hex digits, so that no path is written down."""
    return hashlib.sha256(os.fsencode(place)).hexdigest()[:32]


def put_file(path: Path, text: str) -> None:
    """Write a text file in one step, with its folder.

    Raises
    ------
    OSError : it cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _put(path, text.encode("utf-8"), None)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file that somebody asked for: in one step, so that a full disk leaves the one of before, with that one's rights.

    What is no plain file is written to as it is: a link's target in its own place, a device such as /dev/stdout, a pipe.

    Raises
    ------
    OSError : it cannot be written.
    """
    place = path.resolve() if path.is_symlink() else path
    if place.exists() and not place.is_file():
        place.write_bytes(data)
        return
    try:
        _put(place, data, stat.S_IMODE(place.stat().st_mode) if place.exists() else 0o666 & ~_umask())
    except PermissionError:  # no new file is allowed there; the old one may be
        place.write_bytes(data)


def _put(path: Path, data: bytes, mode: int | None) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".new", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # the name must not be on the disk before what it names
            file.close()
            if mode is not None:
                os.chmod(file.name, mode)
            os.replace(file.name, path)
        except BaseException:
            file.close()
            Path(file.name).unlink(missing_ok=True)
            raise


def _umask() -> int:
    """What new files of this process are not allowed. It can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
