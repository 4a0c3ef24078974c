"""GGUF files on disk: their headers, by positioned reads that touch nothing else."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import BinaryIO

from harness.errors import HarnessError, UsageError
from harness.gguf.header import Header, check_complete, read_header
from harness.gguf.split import join_parts, name_files

_REASONS = {
    errno.EACCES: "may not be read by you; change its permissions",
    errno.EPERM: "may not be read by you; change its permissions",
    errno.ENAMETOOLONG: "is too long a name for a file; check it",
}


class FileSource:
    """A local file as a byte source; a context manager that opens it on construction.

    Raises
    ------
    UsageError : the file is missing, a folder, empty, not readable, or not a regular file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            if self.path.is_dir():
                raise UsageError(f"{self.path} is a folder; name the GGUF file in it.")
            if self.path.exists() and not self.path.is_file():
                raise UsageError(f"{self.path} is not a regular file; name a GGUF file.")
            # Unbuffered: the reader asks for large pieces, and no more than it needs should be read.
            self._file: BinaryIO = self.path.open("rb", buffering=0)
            self.size_bytes = os.fstat(self._file.fileno()).st_size
        except (OSError, ValueError) as error:
            number = getattr(error, "errno", None)
            if number == errno.ENOENT:
                raise UsageError(f"There is no file {self.path}; check the name.") from None
            reason = _REASONS.get(number or 0, f"cannot be opened ({error}); check the name")
            raise UsageError(f"{self.path} {reason}.") from None
        if self.size_bytes == 0:
            self.close()
            raise UsageError(f"{self.path} is empty; download it again.")

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only where the file ends.

        Raises
        ------
        HarnessError : the disk failed.
        """
        pieces = []
        try:
            self._file.seek(offset)
            while size > 0 and (piece := self._file.read(size)):
                pieces.append(piece)
                size -= len(piece)
        except OSError as error:
            raise HarnessError(f"{self.path} cannot be read at byte {offset} ({error}); check the disk") from error
        return b"".join(pieces)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read_file_header(path: str | os.PathLike[str], *, check_size: bool = True) -> Header:
    """Read the header of a model on disk, all parts of a split one from its first.

    Parameters
    ----------
    check_size : also demand that each file is as long as its header says

    Raises
    ------
    UsageError : a file is missing, cut off or not GGUF, or the parts do not belong together.
    HarnessError : the disk failed.
    """
    first = Path(path)
    header = _read_one(first, check_size)
    names = name_files(header, str(first))
    if len(names) == 1:
        return header
    headers = [header, *(_read_one(Path(name), check_size) for name in names[1:])]
    return join_parts(headers, [Path(name).name for name in names])


def _read_one(path: Path, check_size: bool) -> Header:
    with FileSource(path) as source:
        header = read_header(source, name=str(path))
        if check_size:
            check_complete(header, source.size_bytes, str(path))
        return header
