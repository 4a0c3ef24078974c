"""SHA-256 of files, computed once a file: what was read stays known as long as the file is the same by place, size and time.

A hash is kept in this process and, for the next command, on the disk: a small file for each with size, time and hash,
named by a hash of the model's place, so that no path is written down.
"""

from __future__ import annotations

import hashlib
import pathlib
import re
import time

from harness.events import OnEvent, Progress, ignore
from harness.sources.cache_folder import cache_folder
from harness.sources.whole_files import name_by_place, put_file

#: A file that was written this short a time ago may be written again without its time being another one: it is not kept on the disk.
SETTLED_S = 2.0

#: Some tenths of a second of a quick disk.
TOLD_BYTES = 256 << 20

_Identity = tuple[str, int, int]

_known: dict[_Identity, str] = {}


def sha256_of(path: pathlib.Path, on_event: OnEvent = ignore) -> str:
    """SHA-256 of one file in hex, from what is kept where the file has not changed since.

    Raises
    ------
    OSError : the file cannot be read.
    """
    identity = _identify(path)
    if digest := _known.get(identity) or _look_up(identity):
        _known[identity] = digest
        return digest
    digest = digest_file(path, hashlib.sha256(), on_event)
    if _identify(path) == identity:  # nobody wrote to it meanwhile
        _known[identity] = digest
        if time.time() - identity[2] / 1e9 > SETTLED_S:
            _keep(identity, digest)
    return digest


def _identify(path: pathlib.Path) -> _Identity:
    """Place, size and time of the last change (ns) of a file."""
    place = path.resolve()
    facts = place.stat()
    return str(place), facts.st_size, facts.st_mtime_ns


def digest_file(path: pathlib.Path, digest: hashlib._Hash, on_event: OnEvent = ignore) -> str:
    """Add all bytes of a file to a digest, and return that in hex; how far it is is told every `TOLD_BYTES`.

    Raises
    ------
    OSError : the file cannot be read.
    """
    size_bytes = path.stat().st_size
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            if (done := file.tell()) % TOLD_BYTES == 0:
                on_event(Progress(f"reading {path.name}", done, max(size_bytes, done), "B"))
    return digest.hexdigest()


def _kept_in(identity: _Identity) -> pathlib.Path:
    return cache_folder("hashes") / name_by_place(pathlib.Path(identity[0]))


def _look_up(identity: _Identity) -> str | None:
    """What was kept of this very file; None where nothing was, or where it is not readable."""
    try:
        kept = _kept_in(identity).read_text(encoding="ascii")
    except (OSError, ValueError, RuntimeError):  # RuntimeError: there is no home folder
        return None
    match = re.fullmatch(rf"{identity[1]} {identity[2]} ([0-9a-f]{{64}})\n", kept)
    return match[1] if match else None


def _keep(identity: _Identity, digest: str) -> None:
    """Put a hash on the disk in one step; a cache that cannot be written is done without."""
    try:
        put_file(_kept_in(identity), f"{identity[1]} {identity[2]} {digest}\n")
    except (OSError, RuntimeError):
        pass
