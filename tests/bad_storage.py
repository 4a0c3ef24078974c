"""Disks that fail: every file of harness's own that is written below a folder meets an error of the operating system."""

from __future__ import annotations

import errno
import os
import pathlib
import tempfile
from typing import Any

import pytest

from harness.records import journal

#: What a disk may answer: it is full, a quota is used up, it is broken, it became read-only, its server has forgotten the file.
ERRORS = {name: getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EIO", "EROFS", "ESTALE") if hasattr(errno, name)}


def fill(
    monkeypatch: pytest.MonkeyPatch, folder: pathlib.Path, number: int = errno.ENOSPC, after_bytes: int = 0
) -> None:
    """From now on a journal below a folder takes after_bytes and no more, and no small file is written there."""
    write, new_file = journal._write_all, tempfile.NamedTemporaryFile

    def full(file: Any, data: bytes) -> None:
        if pathlib.Path(file.name).is_relative_to(folder):
            write(file, data[:after_bytes])
            raise OSError(number, os.strerror(number))
        write(file, data)

    def none_new(*arguments: Any, **options: Any) -> Any:
        if pathlib.Path(options.get("dir") or tempfile.gettempdir()).is_relative_to(folder):
            raise OSError(number, os.strerror(number))
        return new_file(*arguments, **options)

    monkeypatch.setattr(journal, "_write_all", full)
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", none_new)
