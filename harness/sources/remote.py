"""Bytes over HTTP: headers of remote models by ranges, downloads that go on where they stopped, and every trouble in one sentence.

All requests go through huggingface_hub's own client (`get_session`), which knows proxies, certificates and HF_HUB_OFFLINE.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from harness.errors import HarnessError
from harness.theory.gguf import Fetched
from harness.units import MIB, format_gb

Progress = Callable[[int, int], None]  # bytes there, bytes in all
_T = TypeVar("_T")

#: How long a server may be silent.
TIMEOUT_S = 20.0
#: Waits before trying again, after troubles that pass: a cut connection, a server error. Each byte that arrives begins them anew.
RETRY_WAITS_S = (1.0, 2.0, 4.0, 8.0)
#: A rate limit is waited for if it ends this soon; a longer one is told.
LONGEST_WAIT_S = 10.0

_sleep = time.sleep


class RemoteError(HarnessError):
    """A server could not be reached, or would not give what was asked."""


class NotThereError(RemoteError):
    """The server was reached and has no such thing, or not for this user."""

    exit_code = 2


class NoSuchFileError(NotThereError):
    """The hub has the repository and not the file."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where bytes are: name is what messages call them, for the URL may hold a signature; headers may hold a token."""

    url: str
    name: str
    headers: Mapping[str, str]


def hide_secrets(url: str) -> str:
    """Return a URL without user, password, query and fragment, any of which may grant access."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def session() -> Any:
    """huggingface_hub's HTTP client, kept alive between requests; it waits `TIMEOUT_S` where its own default is for ever."""
    from huggingface_hub import get_session
    from huggingface_hub.utils import logging

    if not os.environ.get("HF_HUB_VERBOSITY"):
        logging.set_verbosity_error()  # its warnings name whole addresses, signatures included
    client = get_session()
    client.timeout = TIMEOUT_S
    return client


def _transport_errors() -> tuple[type[Exception], ...]:
    # The client is httpx's in huggingface_hub 1 and httpx2's since 2.
    module = importlib.import_module(type(session()).__module__.split(".")[0])
    return (module.HTTPError, module.InvalidURL, OSError)


# --- what went wrong --------------------------------------------------------------------------------------------------


def explain(error: Exception, name: str) -> RemoteError:
    """Turn an error of huggingface_hub or its client into a sentence about `name` that says what to do."""
    if (response := getattr(error, "response", None)) is not None:
        return explain_status(response, name)
    cause = error.__cause__
    if type(error).__name__ == "LocalEntryNotFoundError" and isinstance(cause, Exception):
        return explain(cause, name)
    kind = type(error).__name__
    if kind in ("OfflineModeIsEnabled", "LocalEntryNotFoundError"):
        return RemoteError(
            f"{name} is not on this disk, and HF_HUB_OFFLINE forbids to ask for it; unset that variable, or copy the cache of a "
            "machine that has it."
        )
    if kind == "FileMetadataError":
        return RemoteError(f"What answers for {name} is not a Hugging Face hub; check HF_ENDPOINT and proxies.")
    reason = "no answer in time" if "Timeout" in kind else _first_line(error) or kind
    return RemoteError(
        f"{name} cannot be reached ({reason}); check the network, HF_ENDPOINT and proxies, and run the same command again."
    )


def explain_status(response: Any, name: str) -> RemoteError:
    """Turn a refusing answer into a sentence. Source of the codes: huggingface_hub utils/_http.py hf_raise_for_status."""
    status = response.status_code
    code = response.headers.get("X-Error-Code", "")
    host = urlsplit(str(response.url)).netloc.rpartition("@")[2]
    if code == "GatedRepo":
        return NotThereError(
            f"{name} is gated: accept its terms on its page at {host}, then set HF_TOKEN or run `hf auth login`, and pull again."
        )
    if code == "EntryNotFound":
        return NoSuchFileError(f"{name} does not exist: the repository is there, this file is not; check its name.")
    if code == "RevisionNotFound":
        return NotThereError(f"{name} does not exist at this revision; leave the revision out for the newest.")
    if "credentials" in response.headers.get("X-Error-Message", "").lower():
        return NotThereError(f"{host} does not accept the token; correct HF_TOKEN, or run `hf auth login`.")
    if code == "RepoNotFound" or status == 401:
        return NotThereError(
            f"{host} shows no repository for {name}; check its name, and set HF_TOKEN or run `hf auth login` if it is private."
        )
    if status == 403:
        return NotThereError(f"{host} forbids {name} (403); set HF_TOKEN to a token that may read it.")
    if status in (404, 410):
        return NotThereError(f"{host} has no {name} ({status}); check the address.")
    if status == 429:
        wait_s = _find_wait_s(response)
        when = "later" if wait_s is None else f"in {wait_s:.0f} s"
        return RemoteError(
            f"{host} limits how often it answers (429); run the same command again {when}, or set HF_TOKEN, which has a higher limit."
        )
    if status >= 500:
        return RemoteError(f"{host} has trouble of its own ({status}) with {name}; run the same command again later.")
    return RemoteError(f"{host} answers {status} to the request for {name}; check the address.")


def _find_wait_s(response: Any) -> float | None:
    """Read how long a server wants to be left alone. Source: RFC 9110 Retry-After; the ratelimit header's t."""
    limit = re.search(r"r\s*=\s*0\s*;\s*t\s*=\s*([0-9]{1,9})", response.headers.get("ratelimit", ""))
    text = limit[1] if limit else response.headers.get("Retry-After", "").strip()
    return float(text) if re.fullmatch("[0-9]{1,9}", text) else None


def _first_line(error: Exception) -> str:
    return re.sub(r"https?://\S+", "the address", str(error).strip().splitlines()[0]) if str(error).strip() else ""


def _wait_before_retry(error: Exception | None, response: Any, attempt: int) -> float | None:
    """Say how long to wait before attempt number `attempt`, from 1 on; None where trying again is of no use."""
    if type(error).__name__ in ("OfflineModeIsEnabled", "UnsupportedProtocol", "InvalidURL") or attempt > len(
        RETRY_WAITS_S
    ):
        return None
    if response is None:
        return RETRY_WAITS_S[attempt - 1]
    if response.status_code == 429:
        wait_s = _find_wait_s(response)
        return wait_s if wait_s is not None and wait_s <= LONGEST_WAIT_S else None
    return RETRY_WAITS_S[attempt - 1] if response.status_code in (408, 500, 502, 503, 504) and attempt <= 2 else None


def ask(name: str, act: Callable[[], _T]) -> _T:
    """Do something that asks the hub, again where the trouble may pass.

    A connection that cannot be made is not tried again: the fall-back of whoever asks should not keep a user waiting.

    Raises
    ------
    RemoteError : in one sentence.
    """
    attempt = 0
    errors = _transport_errors()
    while True:
        try:
            return act()
        except errors as error:
            attempt += 1
            cause = getattr(error, "__cause__", None) if type(error).__name__ == "LocalEntryNotFoundError" else error
            response = getattr(cause, "response", None)
            wait_s = _wait_before_retry(error, response, attempt) if response is not None else None
            if wait_s is None:
                raise explain(error, name) from None
            _sleep(wait_s)
        except (ValueError, KeyError, TypeError) as error:
            raise RemoteError(
                f"What answers for {name} does not speak as a Hugging Face hub does ({type(error).__name__}); check HF_ENDPOINT."
            ) from None


# --- ranges -----------------------------------------------------------------------------------------------------------


class RemoteSource:
    """A remote file as a byte source for `read_header`: one connection, and what it cost.

    The first answer tells the file's size and where a redirection ended, which later requests go to at once.
    """

    def __init__(self, address: Address) -> None:
        self._name = address.name
        self._url = address.url
        self._headers = {**address.headers, "Accept-Encoding": "identity"}
        self._size_bytes: int | None = None
        self._fetched_bytes = 0
        self._n_requests = 0

    @property
    def size_bytes(self) -> int | None:
        """Total size; None before the first read, and where the server does not say."""
        return self._size_bytes

    @property
    def fetched(self) -> Fetched:
        return Fetched(self._fetched_bytes, self._n_requests)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only where the file ends.

        Raises
        ------
        RemoteError : the server cannot be reached, refuses, or does not serve ranges.
        """
        attempt = 0
        errors = _transport_errors()
        while True:
            response = None
            try:
                headers = {**self._headers, "Range": f"bytes={offset}-{offset + size - 1}"}
                with session().stream("GET", self._url, headers=headers, timeout=TIMEOUT_S) as response:
                    self._n_requests += 1 + len(response.history)
                    if response.status_code in (200, 206, 416):
                        return self._take(response, offset, size)
                    error: Exception | None = None
            except errors as failure:
                error = failure
                self._n_requests += response is None
            attempt += 1
            wait_s = _wait_before_retry(error, None if error else response, attempt) if attempt <= 2 else None
            if wait_s is None or type(error).__name__ in ("ConnectError", "ConnectTimeout"):
                raise (explain(error, self._name) if error else explain_status(response, self._name)) from None
            _sleep(wait_s)

    def _take(self, response: Any, offset: int, size: int) -> bytes:
        start, total = _read_content_range(response)
        if response.status_code == 416:
            self._size_bytes = total
            return b""
        if response.status_code == 200:
            raise RemoteError(
                f"The server of {self._name} does not serve parts of files (HTTP ranges); download the file and name it on this disk."
            )
        if start != offset:
            raise RemoteError(
                f"The server of {self._name} sent other bytes than those asked for; download the file instead."
            )
        self._size_bytes = total if total is not None else self._size_bytes
        if str(response.url) != self._url:
            if urlsplit(str(response.url)).netloc != urlsplit(self._url).netloc:
                self._headers.pop("authorization", None)
            self._url = str(response.url)
        pieces = bytearray()
        for piece in response.iter_raw():
            pieces += piece
            self._fetched_bytes += len(piece)
            if len(pieces) > size:  # a server that sends more than was asked is not listened to
                break
        expected = size if total is None else min(size, total - offset)
        if len(pieces) < expected:
            raise ConnectionError("the connection was cut")
        return bytes(pieces[:size])


def _read_content_range(response: Any) -> tuple[int | None, int | None]:
    """Read where the answer begins and how large the file is. Source: RFC 9110, Content-Range."""
    match = re.fullmatch(
        r"bytes\s+(?:([0-9]{1,19})-[0-9]{1,19}|\*)/([0-9]{1,19}|\*)", response.headers.get("Content-Range", "").strip()
    )
    if match is None:
        return None, None
    return (int(match[1]) if match[1] else None), (int(match[2]) if match[2] != "*" else None)


# --- downloads --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Probe:
    """What a server says of a file: size, a validator (strong ETag or date) that changes with it, and how it begins."""

    size_bytes: int | None
    validator: str | None
    opening: bytes


def probe(address: Address) -> Probe:
    """Ask for a file's first bytes, which tells more than HEAD: signed addresses permit but GET.

    Raises
    ------
    RemoteError : the server cannot be reached or refuses.
    """

    def read() -> Probe:
        headers = {**address.headers, "Accept-Encoding": "identity", "Range": "bytes=0-63"}
        with session().stream("GET", address.url, headers=headers, timeout=TIMEOUT_S) as response:
            if response.status_code not in (200, 206):
                raise explain_status(response, address.name)
            _, total = _read_content_range(response)
            length = response.headers.get("Content-Length", "")
            if response.status_code == 200 and re.fullmatch("[0-9]{1,19}", length):
                total = int(length)
            opening = next(response.iter_raw(64), b"")
            etag = response.headers.get("ETag")
            strong = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
            return Probe(total, strong if response.status_code == 206 else None, opening)

    return ask(address.name, read)


def check_space(folder: Path, need_bytes: int, name: str, remedy: str) -> None:
    """Refuse a download that the disk cannot hold.

    Raises
    ------
    HarnessError : with what is free and what is needed.
    """
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if need_bytes + 64 * MIB > free:
        raise HarnessError(
            f"{folder} has {format_gb(free)} free and {name} needs {format_gb(need_bytes)} more; free space there, or {remedy}."
        )


def fetch_into(
    part: Path, address: Address, size_bytes: int | None, progress: Progress, *, validator: str | None = None
) -> None:
    """Fetch a file into `part`, which keeps what arrived when anything ends this, and goes on from what is there.

    Parameters
    ----------
    size_bytes : what the file must have; None where only the server's answer tells
    validator  : the ETag or date of what `part` began with; the server then sends all anew if the file has changed

    Raises
    ------
    RemoteError  : the server cannot be reached, refuses, or sends another length; what arrived stays for the next time.
    HarnessError : the disk cannot be written.
    """
    attempt = 0
    errors = _transport_errors()
    while size_bytes is None or _size_of(part) != size_bytes:
        before = _size_of(part)
        response = None
        error: Exception | None = None
        try:
            with _request_rest(address, before, validator) as response:
                if response.status_code in (200, 206):
                    _append(part, response, address.name, size_bytes, progress)
                    return
                if response.status_code == 416 and before:
                    # There is nothing behind what is here, so this is not a beginning of the file.
                    part.unlink(missing_ok=True)
                    continue
        except errors as failure:
            error = failure
        attempt = 1 if _size_of(part) > before else attempt + 1
        wait_s = _wait_before_retry(error, None if error else response, attempt)
        if wait_s is None:
            raise _tell_stopped(error, response, address.name, _size_of(part)) from None
        _sleep(wait_s)


def _request_rest(address: Address, start: int, validator: str | None) -> contextlib.AbstractContextManager[Any]:
    headers = {**address.headers, "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    stream: contextlib.AbstractContextManager[Any] = session().stream(
        "GET", address.url, headers=headers, timeout=TIMEOUT_S
    )
    return stream


def _tell_stopped(error: Exception | None, response: Any, name: str, have_bytes: int) -> RemoteError:
    said = explain(error, name) if error else explain_status(response, name)
    if not have_bytes or isinstance(said, NotThereError):
        return said
    return type(said)(f"{said} The {format_gb(have_bytes)} that arrived are kept and need not come again.")


def _append(part: Path, response: Any, name: str, size_bytes: int | None, progress: Progress) -> None:
    """Write an answer behind what is there, or over it where the server sends the whole file."""
    start, total = _read_content_range(response)
    have = _size_of(part)
    if response.status_code == 200:
        have, start = 0, 0
        length = response.headers.get("Content-Length", "")
        total = int(length) if re.fullmatch("[0-9]{1,19}", length) else None
    if start != have:
        raise RemoteError(f"The server of {name} sent other bytes than those asked for; run the same command again.")
    if size_bytes is not None and total is not None and total != size_bytes:
        raise RemoteError(
            f"{name} should have {size_bytes} bytes and its server offers {total}; nothing was taken. Try again later."
        )
    expected = total if size_bytes is None else size_bytes
    with _open_part(part, have) as file:
        progress(have, expected or have)
        # Without a size: pieces as they come. A chunk that is being filled would be lost when the connection is cut.
        for piece in response.iter_raw():
            have += len(piece)
            if expected is not None and have > expected:
                break
            _write(file, piece, part)
            progress(have, expected or have)
        _write(file, None, part)
    if expected is not None and have > expected:
        part.unlink(missing_ok=True)
        raise RemoteError(f"{name} should have {expected} bytes and its server sends more; nothing was kept of it.")
    if expected is not None and have < expected:
        raise ConnectionError("the connection was cut")


@contextlib.contextmanager
def _open_part(part: Path, have: int) -> Iterator[Any]:
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
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


def _size_of(part: Path) -> int:
    try:
        return part.stat().st_size
    except OSError:
        return 0
