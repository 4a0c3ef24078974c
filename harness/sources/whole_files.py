"""Small files that are there whole or not at all: whoever reads one sees the old or the new."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


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
