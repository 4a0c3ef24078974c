"""Files from plain addresses, kept in harness's own cache under a folder for each place they came from."""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path
from urllib.parse import unquote, urlunsplit

from harness.errors import HarnessError
from harness.events import OnBytes, OnEvent, count_bytes, pass_remarks
from harness.gguf import split
from harness.gguf.header import check_complete, read_header
from harness.gguf.strangers import MAGIC
from harness.sources.addresses import Address, hide_secrets, split_url
from harness.sources.cache_folder import cache_folder
from harness.sources.fetching import check_space, fetch_into, held, probe, size_of
from harness.sources.gguf_file import FileSource
from harness.sources.looking import find_in, is_file_there, is_there
from harness.sources.remote_errors import RemoteError
from harness.sources.remote_source import RemoteSource
from harness.sources.whole_files import put_file
from harness.untrusted.harmless import json_text
from harness.untrusted.json import read_json
from harness.untrusted.names import below


def downloads_dir() -> Path:
    """Where files from addresses are kept: ``downloads`` beside the synthetic ones."""
    return cache_folder("downloads")


def list_part_urls(url: str) -> list[str]:
    """Name the addresses of all files of a model from that of its first one.

    Raises
    ------
    UsageError : this is a later part.
    """
    parts = split_url(url)
    return [urlunsplit(parts._replace(path=path)) for path in split.list_parts(parts.path)]


def place_of(url: str, folder: Path) -> Path:
    """Say where the file of an address is kept; a signature in the address makes no difference."""
    plain = split_url(hide_secrets(url))
    origin = f"{plain.netloc}{plain.path.rpartition('/')[0]}"
    typed = unquote(plain.path.rpartition("/")[2])
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", typed)[-200:]
    if name != typed:  # other names become the same
        name = f"{hashlib.sha256(typed.encode(errors='surrogatepass')).hexdigest()[:8]}-{name}"
    return below(folder, hashlib.sha256(origin.encode()).hexdigest()[:16], name)


def open_url(url: str) -> RemoteSource:
    """A file at an address as a byte source; nothing is asked before it is read."""
    return RemoteSource(Address(url, hide_secrets(url), {}))


def list_downloads(folder: Path) -> list[Path]:
    """List the files here, with what interrupted downloads left."""
    return [path for path in find_in(folder, "*/*") if is_file_there(path) and path.suffix in (".gguf", ".part")]


def fetch(url: str, folder: Path, on_event: OnEvent, task: str) -> Path:
    """Fetch a file unless it is here, going on where an earlier attempt stopped if the server still has the same file.

    Parameters
    ----------
    on_event : told how much is there, as a task of this name, and that another process fetches the same

    Raises
    ------
    HarnessError : the server cannot be reached or refuses, sends no model, or the disk is full.
    """
    path = place_of(url, folder)
    if is_there(path):
        return path
    address, progress = Address(url, hide_secrets(url), {}), count_bytes(on_event, task)
    part = path.with_name(f"{path.name}.part")
    lock = folder / ".locks" / f"{path.parent.name}-{path.name}.lock"
    try:
        with held(lock, address.name, pass_remarks(on_event), lambda: progress(size_of(part), size_of(part))):
            return path if path.exists() else _fetch(address, path, part, progress)
    except OSError as error:
        raise HarnessError(
            f"{path.parent} cannot be written ({error.strerror}); set HARNESS_CACHE_DIR to another folder."
        ) from None


def _fetch(address: Address, path: Path, part: Path, progress: OnBytes) -> Path:
    found = probe(address)
    if not found.opening.startswith(MAGIC):
        begins = f"begins with {found.opening[:8]!r}" if found.opening else "is empty"
        raise RemoteError(f"{address.name} is not a GGUF file but {begins}; check the address.")
    note = path.with_name(f"{path.name}.part.json")
    wanted, said = {"validator": found.validator, "size_bytes": found.size_bytes}, None
    with contextlib.suppress(OSError, ValueError):
        said = read_json(note.read_text(encoding="utf-8"))
    if found.validator is None or said != wanted:  # what an earlier attempt left is of another file
        part.unlink(missing_ok=True)
    if found.size_bytes is not None:
        need_bytes = found.size_bytes - size_of(part)
        check_space(path.parent, need_bytes, address.name, "set HARNESS_CACHE_DIR to another disk")
    put_file(note, json_text(wanted, indent=None))
    fetch_into(part, address, found.size_bytes, progress, validator=found.validator)
    try:
        with FileSource(part) as source:  # nothing else vouches for a file without a published digest
            check_complete(read_header(source, name=address.name), source.size_bytes, address.name)
    except HarnessError:
        part.unlink()
        raise
    part.replace(path)
    note.unlink(missing_ok=True)
    return path
