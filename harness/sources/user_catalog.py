"""The catalog as this user has it: models.toml, with entries of one's own laid over it."""

from __future__ import annotations

import os
from pathlib import Path

from harness.catalog import Catalog, parse_catalog
from harness.errors import UsageError
from harness.sources.config_folder import config_folder
from harness.sources.looking import is_there

#: Characters; harness's own catalog has a hundredth.
_MAX_LENGTH = 4 << 20


def load_catalog(extra: Path | None = None) -> Catalog:
    """Read models.toml, with the user's own entries, those of $HARNESS_CATALOG and then those of `extra` laid over it.

    Raises
    ------
    UsageError : a file cannot be read or is no catalog.
    """
    package = Path(__file__).parent.parent
    # The wheel carries the file inside the package, a checkout has it at the top.
    own = next(path for path in (package / "models.toml", package.parent / "models.toml") if path.exists())
    catalog = parse_catalog(own.read_text(encoding="utf-8"), own.name)
    configured = os.environ.get("HARNESS_CATALOG")
    named = [Path(configured).expanduser() if configured else None, extra]
    for path in (user_catalog_path(), *named):
        if path is not None and (path in named or is_there(path)):
            try:
                with open(path, encoding="utf-8") as file:  # a device has no end
                    text = file.read(_MAX_LENGTH + 1)
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"The catalog {path} cannot be read ({error}); check the path.") from None
            if len(text) > _MAX_LENGTH:
                raise UsageError(f"The catalog {path} is longer than any catalog; check the path.")
            catalog = catalog.merged(parse_catalog(text, str(path)))
    return catalog


def user_catalog_path() -> Path:
    """Where the user's own entries are: models.toml in `config_folder`."""
    return config_folder() / "models.toml"
