"""Small files that are there whole or not at all: whoever reads one sees the old or the new."""

from __future__ import annotations

import hashlib
import os
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
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".new", delete=False, encoding="utf-8") as file:
        try:
            file.write(text)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
