"""A model's header from whatever names it, without downloading its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.catalog import Entry, Files
from harness.errors import UsageError
from harness.gguf.header import Fetched, Header, check_complete, read_header
from harness.gguf.layout import find_quantization
from harness.gguf.shapes import compute_header
from harness.gguf.split import join_parts, part_names, split_count
from harness.sources.gguf_file import read_file_header
from harness.sources.references import (
    SYNTHETIC_QUANTIZATION,
    CatalogReference,
    HubReference,
    PathReference,
    SyntheticReference,
    UrlReference,
    find_hub_file,
    find_local,
    find_on_disk,
    list_catalog_files,
    name_reference,
    parse_reference,
)
from harness.sources.remote import NoSuchFileError, RemoteError, RemoteSource
from harness.sources.sparse import HeaderFile, KeepingSource, read_header_files
from harness.units import KIB, MIB

if TYPE_CHECKING:
    from harness.sources.hub import HubFile

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


def find_header(text: str) -> Found:
    """Find the header of any reference that -m takes: from this disk, by ranges from a server, or computed from the catalog's shape.

    A catalog model that is not on this disk is asked of the hub, and computed where the hub cannot be reached or has no such
    quantization; so is a model that llama.cpp cannot run, and a synthetic one that is not written yet.

    Raises
    ------
    UsageError   : there is no such model or quantization.
    HarnessError : the file is no whole GGUF file, or (other than for catalog models) its server cannot be reached.
    """
    reference = parse_reference(text)
    if isinstance(reference, CatalogReference):
        return _find_catalog_header(reference)
    remarks: list[str] = []
    if (path := find_local(reference, remarks.append)) is not None:
        return replace(_read_local(path), note=f"{remarks[0]}." if remarks else None)
    if isinstance(reference, SyntheticReference):
        return compute_catalog_header(reference.entry, reference.quantization, "no such file is written yet")
    if isinstance(reference, HubReference):
        return _read_hub_header(reference)
    assert isinstance(reference, UrlReference), PathReference
    from harness.sources.downloads import list_part_urls, open_url

    urls = list_part_urls(reference.url)
    return _read_remote_header(urls, [name_reference(url) for url in urls], open_url)


def _read_local(path: Path) -> Found:
    header = read_file_header(path)
    return Found(header, path=path, file_bytes=header.size_bytes, read_files=lambda: read_header_files(header, path))


def _find_catalog_header(reference: CatalogReference) -> Found:
    entry, quantization = reference.entry, reference.quantization
    if entry.refused:
        return compute_catalog_header(entry, quantization, entry.refused)
    files = _pick_files(entry, quantization)
    is_embedded = entry.embedded is not None and quantization in (None, entry.embedded)
    if files is not None or is_embedded:
        try:
            path = find_on_disk(entry, quantization)
        except UsageError:
            if not is_embedded:
                raise
            path = None  # the package with the embedded model is not installed
        if path is not None:
            return _read_local(path)
    if files is None:
        return compute_catalog_header(entry, quantization, "the catalog names no file of this quantization")
    try:
        return _read_hub_files(list_catalog_files(files))
    except RemoteError as error:
        return compute_catalog_header(entry, files.quantization, str(error).rstrip("."))


def _pick_files(entry: Entry, quantization: str | None) -> Files | None:
    try:
        return entry.find_files(quantization)
    except UsageError:
        return None


def compute_catalog_header(entry: Entry, quantization: str | None, reason: str, *, vocabulary: bool = True) -> Found:
    """Compute a catalog model's header from its shape, for the reason that is given; nothing is asked of anyone.

    Without a vocabulary, which takes a while to write and to read, llama.cpp plans the same memory for computing.
    """
    kind = find_quantization(quantization or entry.ollama_2024 or entry.embedded or SYNTHETIC_QUANTIZATION)
    header = compute_header(entry.shape, kind, f"{entry.name} {kind}")
    note = f"{entry.name} {kind} is computed from the catalog's shape, without its vocabulary: {reason}."
    files = _pick_files(entry, kind)

    def make_files() -> tuple[HeaderFile, ...]:
        from harness.sources.synthetic import make_header_bytes

        data, size_bytes = make_header_bytes(entry.shape, kind, name=entry.name, vocabulary=vocabulary)
        return (HeaderFile("model.gguf", data, size_bytes),)

    return Found(
        header,
        is_computed=True,
        note=note,
        file_bytes=files.size_bytes if files else None,
        read_files=None if entry.refused else make_files,
    )


def _read_hub_header(reference: HubReference) -> Found:
    from harness.sources.hub import list_parts

    remarks: list[str] = []
    found = _read_hub_files(list_parts(find_hub_file(reference, remarks.append)))
    if reference.file is None and found.fetched is not None:  # the repository was listed first
        found = replace(found, fetched=Fetched(found.fetched.size_bytes, found.fetched.n_requests + 1))
    return replace(found, note=f"{remarks[0]}." if remarks else None)


def _read_hub_files(files: Sequence[HubFile]) -> Found:
    """Read the headers of a model's files; where the hub has not the first, perhaps it has it in another case."""
    from harness.sources.hub import find_other_case, list_parts, open_remote

    def read(files: Sequence[HubFile]) -> Found:
        by_name = {str(file): file for file in files}
        return _read_remote_header(list(by_name), list(by_name), lambda name: open_remote(by_name[name]))

    try:
        return read(files)
    except NoSuchFileError:
        return read(list_parts(find_other_case(files[0]).file))


def _read_remote_header(
    places: Sequence[str], names: Sequence[str], open_source: Callable[[str], RemoteSource]
) -> Found:
    """Read the headers of all files of a model, from its first; the first one's own count of parts decides."""
    headers, size_bytes, n_requests = [], 0, 0
    sources: list[KeepingSource] = []
    for index, (place, name) in enumerate(zip(places, names, strict=True)):
        source = open_source(place)
        kept = KeepingSource(source)
        header = read_header(kept, name=name, chunk_bytes=_LATER_CHUNK_BYTES if index else _FIRST_CHUNK_BYTES)
        if source.size_bytes is not None:
            check_complete(header, source.size_bytes, name)
        headers.append(header)
        sources.append(kept)
        size_bytes += source.fetched.size_bytes
        n_requests += source.fetched.n_requests
        if index == 0:
            part_names_of = part_names(name, count) if (count := split_count(header, name)) > 1 else (name,)
            if len(part_names_of) != len(places):
                raise RemoteError(
                    f"{name} says that it is one of {count} files and is named as one of {len(places)}; ask who made it."
                )
    header = headers[0] if len(headers) == 1 else join_parts(headers, [name.rpartition("/")[2] for name in names])

    def fetch_files() -> tuple[HeaderFile, ...]:
        return tuple(
            HeaderFile(name.rpartition("/")[2], source.take(one.table_bytes), one.size_bytes)
            for name, source, one in zip(names, sources, headers, strict=True)
        )

    return Found(header, Fetched(size_bytes, n_requests), file_bytes=header.size_bytes, read_files=fetch_files)
