"""Bytes over HTTP: headers of remote models by ranges, downloads that go on where they stopped, and every trouble in one sentence.

All requests go through huggingface_hub's own client (`get_session`), which knows proxies, certificates and HF_HUB_OFFLINE. Its timeouts
bound one operation of a socket and no more: a server that sends a byte a second never meets them. So answers are received by a thread
(`open_answer`), and whoever waits for it stops waiting in time.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from harness.errors import HarnessError, Outcome, UsageError
from harness.gguf.header import Fetched
from harness.sources import Progress
from harness.units import KIB, MIB, format_gb

#: How long a server may be silent.
TIMEOUT_S = 20.0
#: How long an answer may take to begin, redirections and names included.
HEAD_LIMIT_S = 60.0
#: A small answer, whole: a listing of the largest repositories is some MB.
SMALL_LIMIT_S = 60.0
SMALL_LIMIT_BYTES = 32 * MIB
#: Less than this in that time (1 KiB/s) is nothing: a model would take weeks.
STALL_BYTES = 64 * KIB
STALL_S = 60.0
#: What a download leaves free on the disk.
SPARE_BYTES = 64 * MIB
#: What is fetched of a header: twice what any published model's has (gemma 4's 262,144 tokens and merges: some 16 MB).
HEADER_LIMIT_BYTES = 64 * MIB
HEADER_LIMIT_S = 600.0
#: Waits before trying again, after troubles that pass: a cut connection, a server error. Each byte that arrives begins them anew.
RETRY_WAITS_S = (1.0, 2.0, 4.0, 8.0)
#: A rate limit is waited for if it ends this soon; a longer one is told.
LONGEST_WAIT_S = 10.0

_sleep = time.sleep


class RemoteError(HarnessError):
    """A server could not be reached, or would not give what was asked."""


class NotThereError(RemoteError):
    """The server was reached and has no such thing, or not for this user."""

    outcome = Outcome.QUESTION


class NoSuchFileError(NotThereError):
    """The hub has the repository and not the file."""


class SlowError(OSError):
    """A server answers too slowly to be waited for; the text says how slowly."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where bytes are: name is what messages call them, for the URL may hold a signature; headers may hold a token."""

    url: str
    name: str
    headers: Mapping[str, str]


def hide_secrets(url: str) -> str:
    """Return a URL without user, password, query and fragment, any of which may grant access."""
    parts = split_url(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def split_url(url: str) -> SplitResult:
    """Take an address apart.

    Raises
    ------
    UsageError : it is none, with what is wrong and without repeating it, since it may hold a password.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it is the check
    except ValueError as error:
        raise UsageError(f"The address cannot be understood ({_first_line(error)}); correct it.") from None
    return parts


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
    kind = type(error).__name__
    if kind == "OfflineModeIsEnabled":
        return RemoteError(
            f"{name} is not on this disk, and HF_HUB_OFFLINE forbids to ask for it; unset that variable, or copy the cache of a "
            "machine that has it."
        )
    if isinstance(error, SlowError):
        return RemoteError(f"The server of {name} is too slow ({error}); check the network, or try again later.")
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
    if type(error).__name__ in ("OfflineModeIsEnabled", "UnsupportedProtocol", "InvalidURL"):
        return None
    if attempt > (1 if isinstance(error, SlowError) else len(RETRY_WAITS_S)):
        return None
    if response is None:
        return RETRY_WAITS_S[attempt - 1]
    if response.status_code == 429:
        wait_s = _find_wait_s(response)
        return wait_s if wait_s is not None and wait_s <= LONGEST_WAIT_S else None
    return RETRY_WAITS_S[attempt - 1] if response.status_code in (408, 500, 502, 503, 504) and attempt <= 2 else None


# --- waiting ----------------------------------------------------------------------------------------------------------


class _Receiver(threading.Thread):
    """Receives one answer: its head, its body piece by piece, then None; an exception where it ends badly."""

    def __init__(self, open_stream: Callable[[], contextlib.AbstractContextManager[Any]]) -> None:
        super().__init__(daemon=True, name="answer")
        self._open_stream = open_stream
        self._items: queue.Queue[Any] = queue.Queue(maxsize=16)
        self.is_unwanted = threading.Event()

    def run(self) -> None:
        try:
            with self._open_stream() as response:
                self._hand_over(response)
                # Without a size: pieces as they come. A chunk that is being filled would be lost when the connection is cut.
                for piece in response.iter_raw():
                    if not self._hand_over(piece):
                        return
            self._hand_over(None)
        except Exception as error:  # whatever it is, the waiting side raises it
            self._hand_over(error)

    def _hand_over(self, item: Any) -> bool:
        while not self.is_unwanted.is_set():
            with contextlib.suppress(queue.Full):
                self._items.put(item, timeout=0.1)
                return True
        return False

    def take(self, limit_s: float) -> Any:
        """The next item; SlowError where none comes in time. Waits a second at most each time, for Ctrl-C on Windows."""
        end = time.monotonic() + limit_s
        while True:
            try:
                item = self._items.get(timeout=max(min(end - time.monotonic(), 1.0), 0.0))
                break
            except queue.Empty:
                if time.monotonic() >= end:
                    raise SlowError(f"no answer in {limit_s:.0f} s") from None
        if isinstance(item, Exception):
            raise item
        return item


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that has begun: its head, with the status and headers, and a body that is still to come."""

    head: Any
    _receiver: _Receiver

    def pieces(self) -> Iterator[bytes]:
        """The body, as pieces come in; an empty one about once a second while nothing comes.

        Raises
        ------
        SlowError : less than `STALL_BYTES` came in `STALL_S` seconds.
        """
        came, end = 0, time.monotonic() + STALL_S
        while True:
            try:
                piece = self._receiver.take(max(min(end - time.monotonic(), 1.0), 0.0))
            except SlowError:
                if time.monotonic() >= end:
                    raise SlowError(f"{came} bytes in {STALL_S:.0f} s") from None
                piece = b""
            if piece is None:
                return
            yield piece
            came += len(piece)
            if came >= STALL_BYTES:
                came, end = 0, time.monotonic() + STALL_S


@contextlib.contextmanager
def open_answer(method: str, address: Address, headers: Mapping[str, str], **options: Any) -> Iterator[Answer]:
    """Send a request and wait for the head of its answer; the connection is kept if the body is read to its end.

    Parameters
    ----------
    options : of the client's `stream`: ``data``, ``follow_redirects``

    Raises
    ------
    SlowError : the answer has not begun in `HEAD_LIMIT_S`; the client's own errors otherwise.
    """
    client, sent = session(), {**address.headers, **headers, "Accept-Encoding": "identity"}
    receiver = _Receiver(lambda: client.stream(method, address.url, headers=sent, timeout=TIMEOUT_S, **options))
    receiver.start()
    try:
        yield Answer(receiver.take(HEAD_LIMIT_S), receiver)
    finally:
        receiver.is_unwanted.set()


def ask_small(
    method: str,
    address: Address,
    headers: Mapping[str, str] | None = None,
    *,
    enough_bytes: int | None = None,
    **options: Any,
) -> tuple[Any, bytes]:
    """Ask for an answer that is small, again where the trouble may pass, and return its head and its body.

    A connection that cannot be made is not tried again: the fall-back of whoever asks should not keep a user waiting.

    Parameters
    ----------
    enough_bytes : stop reading the body here

    Raises
    ------
    RemoteError : in one sentence; also where the body is beyond `SMALL_LIMIT_BYTES` or `SMALL_LIMIT_S`.
    """
    errors = _transport_errors()
    attempt = 0
    while True:
        try:
            with open_answer(method, address, headers or {}, **options) as answer:
                response = answer.head
                if response.status_code < 400:
                    return response, _read_small(answer, address.name, enough_bytes)
        except errors as error:
            raise explain(error, address.name) from None
        attempt += 1
        wait_s = _wait_before_retry(None, response, attempt)
        if wait_s is None:
            raise explain_status(response, address.name)
        _sleep(wait_s)


def _read_small(answer: Answer, name: str, enough_bytes: int | None) -> bytes:
    body, end = bytearray(), time.monotonic() + SMALL_LIMIT_S
    for piece in answer.pieces():
        body += piece
        if enough_bytes is not None and len(body) >= enough_bytes:
            return bytes(body[:enough_bytes])
        if len(body) > SMALL_LIMIT_BYTES:
            raise RemoteError(
                f"What answers for {name} sends more than {SMALL_LIMIT_BYTES // MIB} MiB where some KB are expected; check HF_ENDPOINT."
            )
        if time.monotonic() > end:
            raise SlowError(f"{len(body)} bytes in {SMALL_LIMIT_S:.0f} s")
    return bytes(body)


def is_same_origin(url: str, other: str) -> bool:
    """Whether two addresses are of one server, to which a token may go: scheme, host and port."""
    return _origin(url) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = split_url(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def ask_head(address: Address, limit: int = 5) -> Any:
    """Ask for the head of an address, following redirections within its own server only; the answer may be a redirection.

    Raises
    ------
    RemoteError : as `ask_small`.
    """
    while True:
        response, _ = ask_small("HEAD", address, follow_redirects=False)
        target = urljoin(address.url, response.headers.get("Location") or "")
        limit -= 1
        if not 300 <= response.status_code < 400 or not is_same_origin(address.url, target) or limit < 0:
            return response
        address = Address(target, address.name, address.headers)


# --- ranges -----------------------------------------------------------------------------------------------------------


class RemoteSource:
    """A remote file as a byte source for `read_header`: one connection, and what it cost.

    The first answer tells the file's size and where a redirection ended, which later requests go to at once.
    """

    def __init__(self, address: Address) -> None:
        self._name = address.name
        self._url = address.url
        self._headers = dict(address.headers)
        self._size_bytes: int | None = None
        self._fetched_bytes = 0
        self._n_requests = 0
        self._end = time.monotonic() + HEADER_LIMIT_S

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
        RemoteError : the server cannot be reached, refuses, does not serve ranges, or is too slow; or so much has been read that this
            is no header any more.
        """
        if self._fetched_bytes + size > HEADER_LIMIT_BYTES:
            raise RemoteError(
                f"The header of {self._name} goes on beyond {HEADER_LIMIT_BYTES // MIB} MiB, the most that is fetched for a look; "
                "download the file and name it on this disk."
            )
        attempt = 0
        errors = _transport_errors()
        while True:
            response, error = None, None
            try:
                span = {"Range": f"bytes={offset}-{offset + size - 1}"}
                with open_answer("GET", Address(self._url, self._name, self._headers), span) as answer:
                    response = answer.head
                    self._n_requests += 1 + len(response.history)
                    if response.status_code in (200, 206, 416):
                        return self._take(answer, offset, size)
            except errors as failure:
                error = failure
                self._n_requests += response is None
            attempt += 1
            wait_s = _wait_before_retry(error, None if error else response, attempt) if attempt <= 2 else None
            if wait_s is None or type(error).__name__ in ("ConnectError", "ConnectTimeout", "SlowError"):
                raise (explain(error, self._name) if error else explain_status(response, self._name)) from None
            _sleep(wait_s)

    def _take(self, answer: Answer, offset: int, size: int) -> bytes:
        response = answer.head
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
            if not is_same_origin(str(response.url), self._url):
                self._headers.pop("authorization", None)
            self._url = str(response.url)
        pieces = bytearray()
        for piece in answer.pieces():
            pieces += piece
            self._fetched_bytes += len(piece)
            if len(pieces) > size:  # a server that sends more than was asked is not listened to
                break
            if time.monotonic() > self._end:
                raise SlowError(f"{self._fetched_bytes} bytes in {HEADER_LIMIT_S:.0f} s")
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
    _, total = _read_content_range(response)
    length = response.headers.get("Content-Length", "")
    if response.status_code == 200 and re.fullmatch("[0-9]{1,19}", length):
        total = int(length)
    return Probe(total, find_validator(response) if response.status_code == 206 else None, opening)


def find_validator(response: Any) -> str | None:
    """The strong ETag of an answer: the same as long as every byte is. A date is none (RFC 9110, 8.8.2)."""
    etag: str = response.headers.get("ETag", "")
    return etag if re.fullmatch(r'"[\x21\x23-\x7e]*"', etag) else None


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
    if need_bytes > free - SPARE_BYTES:
        raise HarnessError(
            f"{folder} has {format_gb(free)} free and {name} needs {format_gb(need_bytes)} more; free space there, or {remedy}."
        )


def _room_bytes(folder: Path) -> int:
    return max(shutil.disk_usage(folder).free - SPARE_BYTES, 0)


def fetch_into(
    part: Path,
    address: Address,
    size_bytes: int | None,
    progress: Progress,
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
    attempt, most = 0, _size_of(part)
    errors = _transport_errors()
    while size_bytes is None or _size_of(part) != size_bytes or not (validator or is_pinned):
        before = _size_of(part) if validator or is_pinned else 0
        response, error = None, None
        try:
            with open_answer("GET", address, _rest_headers(before, validator)) as answer:
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
        attempt = 1 if _size_of(part) >= most + STALL_BYTES else attempt + 1
        most = max(most, _size_of(part))
        wait_s = _wait_before_retry(error, None if error else response, attempt)
        if wait_s is None:
            kept_bytes = _size_of(part) if validator or is_pinned else 0
            raise _tell_stopped(error, response, address.name, kept_bytes) from None
        _sleep(wait_s)


def _rest_headers(start: int, validator: str | None) -> dict[str, str]:
    if not start:
        return {}
    return {"Range": f"bytes={start}-", **({"If-Range": validator} if validator else {})}


def _tell_stopped(error: Exception | None, response: Any, name: str, have_bytes: int) -> RemoteError:
    said = explain(error, name) if error else explain_status(response, name)
    if not have_bytes or isinstance(said, NotThereError):
        return said
    return type(said)(f"{said} The {format_gb(have_bytes)} that arrived are kept and need not come again.")


def _append(
    part: Path,
    answer: Answer,
    name: str,
    size_bytes: int | None,
    have: int,
    validator: str | None,
    progress: Progress,
) -> None:
    """Write an answer behind the first `have` bytes, or over them where the server sends the whole file."""
    response = answer.head
    start, total = _read_content_range(response)
    if response.status_code == 206 and have and validator and find_validator(response) not in (None, validator):
        part.unlink(missing_ok=True)  # a server that knows no If-Range, and another file
        raise ConnectionError("the file changed")
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
        most = _room_bytes(part.parent) + have if expected is None else expected
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
