"""A model's header from whatever names it, without downloading its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.gguf.header import Fetched, Header, check_complete, read_header
from harness.gguf.split import join_parts, name_files
from harness.sources.gguf_file import read_file_header
from harness.sources.sparse import HeaderFile, KeepingSource, read_header_files
from harness.units import KIB, MIB

if TYPE_CHECKING:
    from harness.sources.remote_source import RemoteSource

#: How far a read goes beyond what the header needs: the first file holds the vocabulary, later parts a few rows of the tensor table.
_FIRST_CHUNK_BYTES = MIB - 4 * KIB
_LATER_CHUNK_BYTES = 32 * KIB


@dataclass(frozen=True, slots=True)
class Found:
    """A model's header, and where it is from.

    path is the (first) file where the model is on this disk. fetched is what a remote header cost. is_computed says that no file was
    read: the header follows from the catalog's shape, lacks the vocabulary, and its sizes are those of the weights; note says why.
    file_bytes is the file's size where it is known without its header. read_files gives the bytes of the header of each file, for
    those who want llama.cpp to read them; it asks a server only for what was passed over, and is None where nothing can be made.
    """

    header: Header
    fetched: Fetched | None = None
    path: Path | None = None
    is_computed: bool = False
    note: str | None = None
    file_bytes: int | None = None
    read_files: Callable[[], tuple[HeaderFile, ...]] | None = None


def read_local(path: Path) -> Found:
    """Read the header of a model on this disk, from its first file."""
    header = read_file_header(path)
    return Found(header, path=path, file_bytes=header.size_bytes, read_files=lambda: read_header_files(header, path))


def read_remote(names: Sequence[str], sources: Sequence[RemoteSource]) -> Found:
    """Read the headers of all files of a model, from its first; the first one's own count of parts decides.

    Parameters
    ----------
    names : what errors call the files; nothing is asked of a source before it is its turn

    Raises
    ------
    HarnessError : a server cannot be reached or refuses, a file is no whole GGUF file, or the parts do not belong together.
    """
    from harness.sources.remote_errors import RemoteError

    headers, keepers = [], [KeepingSource(source) for source in sources]
    for index, (name, source, kept) in enumerate(zip(names, sources, keepers, strict=True)):
        header = read_header(kept, name=name, chunk_bytes=_LATER_CHUNK_BYTES if index else _FIRST_CHUNK_BYTES)
        if source.size_bytes is not None:
            check_complete(header, source.size_bytes, name)
        headers.append(header)
        if index == 0:
            count = len(name_files(header, name))
            if count != len(names):
                raise RemoteError(
                    f"{name} says that it is one of {count} files and is named as one of {len(names)}; ask who made it."
                )
    header = headers[0] if len(headers) == 1 else join_parts(headers, [name.rpartition("/")[2] for name in names])

    def fetch_files() -> tuple[HeaderFile, ...]:
        return tuple(
            HeaderFile(name.rpartition("/")[2], kept.take(one.table_bytes), one.size_bytes)
            for name, kept, one in zip(names, keepers, headers, strict=True)
        )

    costs = [source.fetched for source in sources]
    cost = Fetched(sum(one.size_bytes for one in costs), sum(one.n_requests for one in costs))
    return Found(header, cost, file_bytes=header.size_bytes, read_files=fetch_files)
