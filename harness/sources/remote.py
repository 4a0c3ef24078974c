"""Bytes over HTTP: headers of remote models by ranges, downloads that go on where they stopped, and every trouble in one sentence.

All requests go through huggingface_hub's own client (`hub_client`), which knows proxies, certificates and HF_HUB_OFFLINE. Its timeouts
bound one operation of a socket and no more: a server that sends a byte a second never meets them. So answers are received by a thread
(`open_answer`), and whoever waits for it stops waiting in time. Redirections are followed here and not by the client, which reads their
bodies whole, however long and packed they are, and goes wherever they say.
"""

from __future__ import annotations

import contextlib
import importlib
import queue
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from harness.errors import HarnessError
from harness.sources import patience
from harness.sources.addresses import Address, is_same_server, why_not_to
from harness.sources.hub_client import hub_client
from harness.sources.remote_errors import (
    HopelessError,
    RemoteError,
    SlowError,
    explain,
    explain_status,
    find_wait_s,
    short_reason,
)
from harness.units import KIB, MIB

#: How long a server may be silent.
TIMEOUT_S = 20.0
#: How long an answer may take to begin, redirections and names included.
HEAD_LIMIT_S = 60.0
#: A small answer, whole: a listing has some 300 bytes a file. What JSON becomes in memory is up to 24 times as much.
SMALL_LIMIT_S = 60.0
SMALL_LIMIT_BYTES = 4 * MIB
#: Less than this in that time (1 KiB/s) is nothing: a model would take weeks.
STALL_BYTES = 64 * KIB
STALL_S = 60.0
#: Waits before trying again, after troubles that pass: a cut connection, a server error. Each byte that arrives begins them anew.
RETRY_WAITS_S = (1.0, 2.0, 4.0, 8.0)
#: A rate limit is waited for if it ends this soon; a longer one is told.
LONGEST_WAIT_S = 10.0
#: The hub redirects twice at most, and a mirror perhaps once more.
MAX_REDIRECTIONS = 8

_REDIRECTING = (301, 302, 303, 307, 308)
#: Encodings that change the bytes. S3 leaves words among Content-Encoding that say nothing of them, such as aws-chunked.
_PACKED = re.compile(r"gzip|deflate|compress|br|zstd", re.IGNORECASE)
#: What is no better the next time.
_HOPELESS = (
    "OfflineModeIsEnabled", "UnsupportedProtocol", "InvalidURL", "LocalProtocolError", "ProxyError", "HopelessError",
)  # fmt: skip

_sleep = time.sleep


def session() -> Any:
    """`hub_client`, which waits `TIMEOUT_S` where its own default is for ever."""
    client = hub_client()
    client.timeout = TIMEOUT_S
    return client


def transport_errors() -> tuple[type[Exception], ...]:
    """What the client raises where a request cannot be made or its answer not be read."""
    # The client is httpx's in huggingface_hub 1 and httpx2's since 2.
    module = importlib.import_module(type(session()).__module__.split(".")[0])
    return (module.HTTPError, module.InvalidURL, OSError)


def _wait_before_retry(error: Exception | None, response: Any, attempt: int) -> float | None:
    """Say how long to wait before attempt number `attempt`, from 1 on; None where trying again is of no use."""
    if type(error).__name__ in _HOPELESS:
        return None
    if attempt > (1 if isinstance(error, SlowError) else len(RETRY_WAITS_S)):
        return None
    if response is None:
        return RETRY_WAITS_S[attempt - 1]
    if response.status_code == 429:
        wait_s = find_wait_s(response)
        return wait_s if wait_s is not None and wait_s <= LONGEST_WAIT_S else None
    return RETRY_WAITS_S[attempt - 1] if response.status_code in (408, 500, 502, 503, 504) and attempt <= 2 else None


def pause(error: Exception | None, response: Any, name: str, attempt: int) -> None:
    """Wait before a request is made again, which ended with an error or with this answer.

    Parameters
    ----------
    attempt : how many were made, from 1 on

    Raises
    ------
    RemoteError : trying again is of no use.
    """
    wait_s = _wait_before_retry(error, None if error else response, attempt)
    if wait_s is None:
        raise (explain(error, name) if error else explain_status(response, name)) from None
    _sleep(wait_s)


def read_number(text: str | None) -> int | None:
    """Read a header's size in bytes; None where there is none, or one that no file has."""
    return int(text) if text and re.fullmatch("[0-9]{1,19}", text) else None


def find_target(response: Any) -> str | None:
    """Where an answer redirects to; None where it does not.

    Raises
    ------
    HopelessError : it says so of what is no address.
    """
    location = response.headers.get("Location")
    if response.status_code not in _REDIRECTING or not location:
        return None
    try:
        return urljoin(str(response.url), location)
    except ValueError:
        raise HopelessError("it redirects to what is no address") from None


def redirect(address: Address, target: str) -> Address:
    """The address that an answer redirects to, without the token where that is another server.

    Raises
    ------
    RemoteError : it is none that a server may redirect to.
    """
    if (why := why_not_to(address.url, target)) is not None:
        raise RemoteError(
            f"The server of {address.name} redirects {why}, which is not followed; check HF_ENDPOINT and proxies, or ask who runs it."
        )
    headers = dict(address.headers)
    if not is_same_server(address.url, target):
        headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
    return Address(target, address.name, headers)


class _Receiver(threading.Thread):
    """Receives one answer: its head and whose it is, its body piece by piece, then None; an exception where it ends badly."""

    def __init__(self, method: str, address: Address, headers: Mapping[str, str], follows: bool) -> None:
        super().__init__(daemon=True, name="answer")
        self._method, self._address, self._more, self._follows = method, address, dict(headers), follows
        self._client = session()
        self._items: queue.Queue[Any] = queue.Queue(maxsize=16)
        self.is_unwanted = threading.Event()
        self.n_requests = 0

    def run(self) -> None:
        known: tuple[type[Exception], ...] = (HarnessError, *transport_errors())
        try:
            while not self.is_unwanted.is_set() and self._ask():
                pass
            self._hand_over(None)
        except Exception as error:  # the waiting side raises it: of what the client did not foresee, only its words
            self._hand_over(error if isinstance(error, known) else HopelessError(short_reason(error)))

    def _ask(self) -> bool:
        """Ask once, and hand the answer over; True where it is a redirection, which is followed next and whose body nobody reads."""
        sent = {**self._address.headers, **self._more, "Accept-Encoding": "identity"}
        options = {"headers": sent, "timeout": TIMEOUT_S, "follow_redirects": False}
        self.n_requests += 1
        with self._client.stream(self._method, self._address.url, **options) as response:
            target = find_target(response) if self._follows else None
            if target is not None:
                if self.n_requests > MAX_REDIRECTIONS:
                    raise RemoteError(
                        f"The server of {self._address.name} redirects without end; check HF_ENDPOINT and proxies."
                    )
                self._address = redirect(self._address, target)
                return True
            if self._hand_over((response, self._address)):
                # Without a size: pieces as they come. A chunk that is being filled would be lost when the connection is cut.
                for piece in response.iter_raw():
                    if not self._hand_over(piece):
                        break
        return False

    def _hand_over(self, item: Any) -> bool:
        while not self.is_unwanted.is_set():
            with contextlib.suppress(queue.Full):
                self._items.put(item, timeout=0.1)
                return True
        return False

    def take(self, limit_s: float) -> Any:
        """The next item; SlowError where none comes in time."""
        try:
            item = patience.take(self._items, limit_s)
        except TimeoutError:
            raise SlowError(f"no answer in {limit_s:.0f} s") from None
        if isinstance(item, Exception):
            raise item
        return item


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that has begun: its head, with the status and headers, and a body that is still to come.

    address is what gave it, after all redirections, and may have lost its token on the way.
    """

    head: Any
    address: Address
    _receiver: _Receiver

    @property
    def n_requests(self) -> int:
        """How many requests it took."""
        return self._receiver.n_requests

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
def open_answer(method: str, address: Address, headers: Mapping[str, str], *, follows: bool = True) -> Iterator[Answer]:
    """Send a request and wait for the head of its answer; the connection is kept if the body is read to its end.

    Parameters
    ----------
    follows : go where redirections lead

    Raises
    ------
    SlowError   : the answer has not begun in `HEAD_LIMIT_S`; the client's own errors otherwise.
    RemoteError : the answer is packed, which nobody asked for, or redirects to where nobody should go.
    """
    receiver = _Receiver(method, address, headers, follows)
    receiver.start()
    try:
        response, final = receiver.take(HEAD_LIMIT_S)
        encoding = response.headers.get("Content-Encoding", "")
        if response.status_code < 300 and _PACKED.search(encoding):
            kind = _PACKED.findall(encoding)[0].lower()
            raise RemoteError(
                f"What answers for {address.name} sends it packed ({kind}), unasked; look for a proxy that changes downloads."
            )
        yield Answer(response, final, receiver)
    finally:
        receiver.is_unwanted.set()


def ask_small(
    method: str,
    address: Address,
    headers: Mapping[str, str] | None = None,
    *,
    enough_bytes: int | None = None,
    follows: bool = True,
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
    errors = transport_errors()
    attempt = 0
    while True:
        try:
            with open_answer(method, address, headers or {}, follows=follows) as answer:
                response = answer.head
                if response.status_code < 400:
                    return response, _read_small(answer, address.name, enough_bytes)
        except errors as error:
            raise explain(error, address.name) from None
        attempt += 1
        pause(None, response, address.name, attempt)


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


def ask_head(address: Address) -> Any:
    """Ask for the head of an address, following redirections within its own server only; the answer may be a redirection.

    Raises
    ------
    RemoteError : as `ask_small`.
    """
    for _ in range(MAX_REDIRECTIONS):
        response, _ = ask_small("HEAD", address, follows=False)
        try:
            target = find_target(response)
        except HopelessError as error:
            raise explain(error, address.name) from None
        if target is None or not is_same_server(address.url, target):
            return response
        address = redirect(address, target)
    raise RemoteError(f"The server of {address.name} redirects without end; check HF_ENDPOINT and proxies.")


def is_consistent(response: Any) -> bool:
    """Whether a part of a file is as long as it says that it is, where it says both."""
    said = re.match(r"bytes\s+([0-9]{1,19})-([0-9]{1,19})/", response.headers.get("Content-Range", "").strip())
    length = read_number(response.headers.get("Content-Length"))
    return response.status_code != 206 or said is None or length in (None, int(said[2]) - int(said[1]) + 1)


def read_content_range(response: Any) -> tuple[int | None, int | None]:
    """Read where the answer begins and how large the file is. Source: RFC 9110, Content-Range."""
    said = response.headers.get("Content-Range", "").strip()
    match = re.fullmatch(r"bytes\s+(?:([0-9]{1,19})-[0-9]{1,19}|\*)/([0-9]{1,19}|\*)", said)
    return (read_number(match[1]), read_number(match[2])) if match else (None, None)


def find_validator(response: Any) -> str | None:
    """The strong ETag of an answer: the same as long as every byte is. A date is none (RFC 9110, 8.8.2)."""
    etag: str = response.headers.get("ETag", "")
    return etag if re.fullmatch(r'"[\x21\x23-\x7e]*"', etag) else None
