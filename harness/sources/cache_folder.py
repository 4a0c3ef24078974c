"""Where harness keeps what it can make again: synthetic files, downloads from addresses, hashes of files."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder(part: str) -> Path:
    """The folder of a part of the cache (``synth``): in $HARNESS_CACHE_DIR, else in the user's own for such files."""
    if configured := os.environ.get("HARNESS_CACHE_DIR"):
        return Path(configured).expanduser() / part
    return user_cache() / "harness" / part


def user_cache() -> Path:
    """Where this operating system keeps what programs can make again."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
