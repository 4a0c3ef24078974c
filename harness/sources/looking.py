"""Looking for files where one may not look: what a system does not let this user see is not there, and what is made of that says so."""

from __future__ import annotations

from pathlib import Path


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder, as far as one can see."""
    try:
        return path.exists()
    except OSError:
        return False


def is_file_there(path: Path) -> bool:
    """Whether there is such a file, as far as one can see."""
    try:
        return path.is_file()
    except OSError:
        return False


def find_in(folder: Path, pattern: str) -> list[Path]:
    """What of a folder has names of a pattern (``*/*.gguf``), in their order; nothing where the folder is closed or none."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []
