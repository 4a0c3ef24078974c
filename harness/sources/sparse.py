"""Model files that have a header and no weights: as long as the real ones, and next to nothing on disk.

That holds where a hole takes no space, on Linux and macOS; on Windows the disk must have the room for as long as the file is there.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import HarnessError
from harness.gguf.header import ByteSource, Header, Part
from harness.units import format_gb


@dataclass(frozen=True, slots=True)
class HeaderFile:
    """One file's header: its bytes up to the end of the tensor table, and the length that the whole file has."""

    name: str
    data: bytes
    size_bytes: int


class KeepingSource:
    """A source that remembers what was read of it, so that a header need not be fetched twice to be written down."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._pieces: dict[int, bytes] = {}

    @property
    def size_bytes(self) -> int | None:
        return self._source.size_bytes

    def read_at(self, offset: int, size: int) -> bytes:
        piece = self._source.read_at(offset, size)
        self._pieces[offset] = piece
        return piece

    def take(self, size: int) -> bytes:
        """Return the first `size` bytes, reading only those that were passed over."""
        pieces, at = [], 0
        for offset, piece in sorted(self._pieces.items()):
            if offset > at:
                pieces.append(self._source.read_at(at, min(offset, size) - at))
                at = min(offset, size)
            pieces.append(piece[at - offset : max(size - offset, 0)])
            at = max(at, min(offset + len(piece), size))
        if at < size:
            pieces.append(self._source.read_at(at, size - at))
        return b"".join(pieces)


def read_header_files(header: Header, first: pathlib.Path) -> tuple[HeaderFile, ...]:
    """Read the headers' bytes of a model on this disk, one for each of its files.

    Raises
    ------
    HarnessError : a file cannot be read.
    """
    files = []
    for part in header.parts or (Part(first.name, header.data_offset, header.size_bytes, header.table_bytes),):
        try:
            with open(first.parent / part.name, "rb") as file:
                files.append(HeaderFile(part.name, file.read(part.table_bytes), part.size_bytes))
        except OSError as error:
            raise HarnessError(f"{part.name} cannot be read ({error.strerror}); check the disk.") from None
    return tuple(files)


def write_sparse(files: Sequence[HeaderFile], folder: pathlib.Path) -> pathlib.Path:
    """Write a model's files into a folder, their weights a hole, and return the first one's path.

    Raises
    ------
    HarnessError : the disk or the file system refuses, for instance a file that a lying header makes longer than can be.
    """
    for item in files:
        path = folder / pathlib.PurePath(item.name).name
        try:
            with open(path, "wb") as file:
                file.write(item.data)
                file.truncate(max(item.size_bytes, len(item.data)))
        except (OSError, ValueError, OverflowError) as error:
            raise HarnessError(
                f"A file of {format_gb(item.size_bytes)} for the dry run cannot be made in {folder} ({error}); set TMPDIR to "
                "another file system."
            ) from None
    return folder / pathlib.PurePath(files[0].name).name
