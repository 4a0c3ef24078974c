"""Where harness keeps what is this user's own and cannot be made again: entries of the catalog, settings that were tuned."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def config_folder() -> Path:
    """~/.config/harness, or where the operating system keeps such files."""
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    else:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return base / "harness"
