"""What `-m` means: a path, a name of the catalog, or ``synth:`` and such a name."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Callable

from harness.catalog import Catalog, Entry, parse_catalog
from harness.errors import UsageError
from harness.model_file import default_model, open_model

SYNTHETIC_PREFIX = "synth:"

#: What a synthetic model is written in unless its name says: the quantization that this project began with.
SYNTHETIC_QUANTIZATION = "Q4_0"

Progress = Callable[[int, int], None]


def load_catalog(extra: pathlib.Path | None = None) -> Catalog:
    """Read models.toml, with the user's own entries and then those of `extra` laid over it.

    Raises
    ------
    UsageError : a file cannot be read or is no catalog.
    """
    package = pathlib.Path(__file__).parent
    # The wheel carries the file inside the package, a checkout has it at the top.
    own = next(path for path in (package / "models.toml", package.parent / "models.toml") if path.exists())
    catalog = parse_catalog(own.read_text(encoding="utf-8"), own.name)
    for path in (user_catalog_path(), extra):
        if path is not None and (path == extra or path.exists()):
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"The catalog {path} cannot be read ({error}); check the path.") from None
            catalog = catalog.merged(parse_catalog(text, str(path)))
    return catalog


def user_catalog_path() -> pathlib.Path:
    """Where the user's own entries are: ~/.config/harness/models.toml, or where the OS keeps such files."""
    if sys.platform == "win32":
        base = pathlib.Path(os.environ.get("APPDATA") or pathlib.Path.home() / "AppData" / "Roaming")
    else:
        base = pathlib.Path(os.environ.get("XDG_CONFIG_HOME") or pathlib.Path.home() / ".config")
    return base / "harness" / "models.toml"


def resolve(text: str, progress: Progress | None = None) -> pathlib.Path:
    """Find the file that a reference means; a synthetic one is written first if it is not there yet.

    Parameters
    ----------
    text     : a path, ``NAME[:QUANT]`` of the catalog, or ``synth:NAME[:QUANT]``
    progress : called with (bytes written, bytes in all) while a synthetic file is made

    Raises
    ------
    UsageError : there is no such file or name, or the model is not on this disk.
    """
    path = pathlib.Path(text)
    if text.startswith(SYNTHETIC_PREFIX):
        return _resolve_synthetic(text.removeprefix(SYNTHETIC_PREFIX), progress)
    if path.exists() or path.suffix.lower() == ".gguf" or path.name != text:
        return open_model(path)
    entry, quantization = load_catalog().split(text)
    return find_on_disk(entry, quantization) or _refuse(entry, quantization)


def find_on_disk(entry: Entry, quantization: str | None) -> pathlib.Path | None:
    """The file of a catalog model if it is embedded or in Hugging Face's cache; nothing is downloaded.

    Raises
    ------
    UsageError : the model cannot be run, or has no such quantization.
    """
    if entry.refused:
        raise UsageError(entry.refused + ".")
    if entry.embedded and quantization in (None, entry.embedded):
        return default_model()
    files = entry.find_files(quantization)
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(files.repository, name) for name in files.files]
    paths = [pathlib.Path(path) for path in found if isinstance(path, str)]
    return open_model(paths[0]) if len(paths) == len(files.files) else None


def _refuse(entry: Entry, quantization: str | None) -> pathlib.Path:
    files = entry.find_files(quantization)
    raise UsageError(
        f"{entry.name} {files.quantization} is not on this disk; fetch it with "
        f"`hf download {files.repository} {files.files[0]}`, or time its shape with -m {SYNTHETIC_PREFIX}{entry.name}:"
        f"{files.quantization.lower()}."
    )


def _resolve_synthetic(name: str, progress: Progress | None) -> pathlib.Path:
    from harness.synth import default_cache_dir, ensure_synthetic

    entry, quantization = load_catalog().split(name)
    kind = quantization or SYNTHETIC_QUANTIZATION
    return ensure_synthetic(entry.shape, kind, default_cache_dir(), name=entry.name, progress=progress)
