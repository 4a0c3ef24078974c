"""Downloads over HTTP that go on where they stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.events import OnBytes
from harness.sources.addresses import Address
from harness.sources.looking import is_there
from harness.sources.remote import (
    STALL_BYTES,
    Answer,
    ask_small,
    find_validator,
    is_consistent,
    open_answer,
    pause,
    read_content_range,
    read_number,
    transport_errors,
)
from harness.sources.remote_errors import NotThereError, RemoteError
from harness.units import MIB, format_gb

#: What a download leaves free on the disk.
SPARE_BYTES = 64 * MIB


@dataclass(frozen=True, slots=True)
class Probe:
    """What a server says of a file: size, a strong ETag (None: nothing that changes with every byte), and how it begins."""

    size_bytes: int | None
    validator: str | None
    opening: bytes


def probe(address: Address) -> Probe:
    """Ask for a file's first bytes, which tells more than HEAD: signed addresses permit but GET.

    Raises
    ------
    RemoteError : the server cannot be reached or refuses.
    """

    response, opening = ask_small("GET", address, {"Range": "bytes=0-63"}, enough_bytes=64)
    _, total = read_content_range(response)
    if response.status_code == 200:
        total = read_number(response.headers.get("Content-Length"))
    return Probe(total, find_validator(response) if response.status_code == 206 else None, opening)


def check_space(folder: Path, need_bytes: int, name: str, remedy: str) -> None:
    """Refuse a download that the disk cannot hold.

    Raises
    ------
    HarnessError : with what is free and what is needed.
    """
    existing = folder
    while not is_there(existing) and existing != existing.parent:
        existing = existing.parent
    try:
        free = shutil.disk_usage(existing).free
    except OSError as error:
        raise HarnessError(f"{folder} cannot be written ({error.strerror}); {remedy}.") from None
    if need_bytes > free - SPARE_BYTES:
        raise HarnessError(
            f"{folder} has {format_gb(free)} free and {name} needs {format_gb(need_bytes)} more; free space there, or {remedy}."
        )


def fetch_into(
    part: Path,
    address: Address,
    size_bytes: int | None,
    progress: OnBytes,
    *,
    validator: str | None = None,
    is_pinned: bool = False,
) -> None:
    """Fetch a file into `part`, which keeps what arrived when anything ends this.

    What is there is gone on with only if it is known to be the beginning of the same file: the server's strong ETag is still the
    validator, or the caller checks the finished file's digest (is_pinned). Else every attempt begins at zero.

    Parameters
    ----------
    size_bytes : what the file must have; None where only the server's answer tells
    progress   : called as bytes arrive, and about once a second while none do
    validator  : the strong ETag of what `part` begins with

    Raises
    ------
    RemoteError  : the server cannot be reached, refuses, stalls, or sends another length; what arrived stays for the next time.
    HarnessError : the disk cannot be written.
    """
    attempt, most = 0, size_of(part)
    errors = transport_errors()
    while size_bytes is None or size_of(part) != size_bytes or not (validator or is_pinned):
        before = size_of(part) if validator or is_pinned else 0
        response, error = None, None
        try:
            span = {"Range": f"bytes={before}-"} if before else {}
            if before and validator:
                span["If-Range"] = validator
            with open_answer("GET", address, span) as answer:
                response = answer.head
                if response.status_code in (200, 206):
                    _append(part, answer, address.name, size_bytes, before, validator, progress)
                    return
                if response.status_code == 416 and before:
                    # There is nothing behind what is here, so this is not a beginning of the file.
                    part.unlink(missing_ok=True)
                    continue
        except errors as failure:
            error = failure
        # A few bytes more are no progress: a server could hand out a file in four thousand million connections.
        attempt = 1 if size_of(part) >= most + STALL_BYTES else attempt + 1
        most = max(most, size_of(part))
        try:
            pause(error, response, address.name, attempt)
        except RemoteError as said:
            kept_bytes = size_of(part) if validator or is_pinned else 0
            if not kept_bytes or isinstance(said, NotThereError):
                raise
            raise type(said)(
                f"{said} The {format_gb(kept_bytes)} that arrived are kept and need not come again."
            ) from None


def _append(
    part: Path,
    answer: Answer,
    name: str,
    size_bytes: int | None,
    have: int,
    validator: str | None,
    progress: OnBytes,
) -> None:
    """Write an answer behind the first `have` bytes, or over them where the server sends the whole file."""
    response = answer.head
    start, total = read_content_range(response)
    if response.status_code == 206 and have and validator and find_validator(response) not in (None, validator):
        part.unlink(missing_ok=True)  # a server that knows no If-Range, and another file
        raise ConnectionError("the file changed")
    if response.status_code == 200:
        have, start = 0, 0
        total = read_number(response.headers.get("Content-Length"))
    if start != have or not is_consistent(response):
        raise RemoteError(f"The server of {name} sent other bytes than those asked for; run the same command again.")
    if size_bytes is not None and total is not None and total != size_bytes:
        raise RemoteError(
            f"{name} should have {size_bytes} bytes and its server offers {total}; nothing was taken. Try again later."
        )
    expected = total if size_bytes is None else size_bytes
    with _open_part(part, have) as file:
        most = have + max(shutil.disk_usage(part.parent).free - SPARE_BYTES, 0) if expected is None else expected
        progress(have, expected or have)
        for piece in answer.pieces():
            have += len(piece)
            if have > most:
                break
            _write(file, piece, part)
            progress(have, expected or have)
        _write(file, None, part)
    if have > most:
        part.unlink(missing_ok=True)
        if expected is None:
            raise RemoteError(
                f"The server of {name} does not say how large it is and sends more than the disk takes ({format_gb(most)})."
            )
        raise RemoteError(f"{name} should have {expected} bytes and its server sends more; nothing was kept of it.")
    if expected is not None and have < expected:
        raise ConnectionError("the connection was cut")


@contextlib.contextmanager
def held(lock: Path, name: str, on_remark: Callable[[str], None], on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold a lock while a file is fetched, so that two processes do not write one beginning.

    Parameters
    ----------
    on_remark : told that another process has it
    on_wait   : called about once a second while it has

    Raises
    ------
    OSError : the lock's file cannot be made.
    """
    from huggingface_hub.utils import WeakFileLock

    is_said = False
    lock.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(WeakFileLock(lock, timeout=1.0))
                break
            except TimeoutError:
                if not is_said:
                    on_remark(f"another process is fetching {name}; this one waits for it")
                is_said = True
                on_wait()
        yield


@contextlib.contextmanager
def _open_part(part: Path, have: int) -> Iterator[Any]:
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        if part.is_symlink():  # we make none here, and what it leads to is not ours to write over
            part.unlink()
        file = open(part, "ab")
        file.truncate(have)
    except OSError as error:
        raise HarnessError(f"{part.parent} cannot be written ({error.strerror}); free space or permit it.") from None
    with file:
        yield file


def _write(file: Any, piece: bytes | None, part: Path) -> None:
    """Write a piece, or see all pieces safely to the disk. A full disk is not a network's trouble and not tried again."""
    try:
        if piece is not None:
            file.write(piece)
            file.flush()
        else:
            os.fsync(file.fileno())
    except OSError as error:
        raise HarnessError(
            f"{part.parent} cannot be written ({error.strerror}); free space there, and run the same command again to go on."
        ) from None


def size_of(part: Path) -> int:
    """How much of a file arrived so far, in bytes; a link counts as nothing."""
    try:
        return 0 if part.is_symlink() else part.stat().st_size
    except OSError:
        return 0
