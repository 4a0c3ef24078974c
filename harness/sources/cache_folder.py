"""Where harness keeps what it can make again: synthetic files, downloads from addresses, hashes of files."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder(part: str) -> Path:
    """The folder of a part of the cache (``synth``): in $HARNESS_CACHE_DIR, else in the user's own for such files."""
    if configured := os.environ.get("HARNESS_CACHE_DIR"):
        return Path(configured).expanduser() / part
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "harness" / part
