"""Tuned settings on this disk: a small file a model in the user's configuration, named by a hash of the model's place."""

from __future__ import annotations

from pathlib import Path

from harness.codec import Malformed, decode, encode
from harness.errors import StoreError, UsageError
from harness.records.tuned import SCHEMA, Tuned
from harness.sources.config_folder import config_folder
from harness.sources.whole_files import name_by_place, put_file
from harness.untrusted.harmless import json_text
from harness.untrusted.json import read_json

#: More than any such file has.
_MAX_BYTES = 1 << 16


def find_tuned(model: Path) -> Tuned | None:
    """What was kept for a model's file; None where nothing was.

    Raises
    ------
    UsageError : it cannot be read, or is damaged; what to do is said.
    """
    path = tuned_path(model)
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"The tuned settings in {path} cannot be read ({error.strerror}); {_AGAIN}.") from None
    try:
        values = read_json(text)
        if isinstance(values, dict) and values.get("schema") not in (None, SCHEMA):
            raise UsageError(f"The tuned settings in {path} are of another version of harness; {_AGAIN}.")
        return decode(Tuned, values)
    except (ValueError, Malformed):
        raise UsageError(f"The tuned settings in {path} are damaged; {_AGAIN}.") from None


_AGAIN = "find them anew with `harness tune`, or drop them with `harness tune --forget`"


def keep_tuned(model: Path, tuned: Tuned) -> Path:
    """Keep settings for a model's file, in one step, in place of those of before; of the model's own path nothing is written.

    Raises
    ------
    StoreError : they cannot be written.
    """
    path = tuned_path(model)
    try:
        put_file(path, f"{json_text(encode(tuned))}\n")
    except OSError as error:
        raise StoreError(f"The tuned settings cannot be kept in {path} ({error.strerror}); make room there.") from None
    return path


def forget_tuned(model: Path) -> bool:
    """Drop what was kept for a model's file; whether there was anything.

    Raises
    ------
    StoreError : it cannot be taken away.
    """
    path = tuned_path(model)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(f"{path} cannot be taken away ({error.strerror}); delete it by hand.") from None
    return True


def tuned_path(model: Path) -> Path:
    """Where the settings for a model's file are, or would be."""
    return config_folder() / "tuned" / f"{name_by_place(model.resolve())}.json"
