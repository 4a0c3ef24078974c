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
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from harness.errors import HarnessError, Outcome
from harness.sources.addresses import Address, first_line, is_same_origin
from harness.units import KIB, MIB

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


def session() -> Any:
    """huggingface_hub's HTTP client, kept alive between requests; it waits `TIMEOUT_S` where its own default is for ever."""
    from huggingface_hub import get_session
    from huggingface_hub.utils import logging

    if not os.environ.get("HF_HUB_VERBOSITY"):
        logging.set_verbosity_error()  # its warnings name whole addresses, signatures included
    client = get_session()
    client.timeout = TIMEOUT_S
    return client


def transport_errors() -> tuple[type[Exception], ...]:
    """What the client raises where a request cannot be made or its answer not be read."""
    # The client is httpx's in huggingface_hub 1 and httpx2's since 2.
    module = importlib.import_module(type(session()).__module__.split(".")[0])
    return (module.HTTPError, module.InvalidURL, OSError)


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
    reason = "no answer in time" if "Timeout" in kind else first_line(error) or kind
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
    errors = transport_errors()
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


def read_content_range(response: Any) -> tuple[int | None, int | None]:
    """Read where the answer begins and how large the file is. Source: RFC 9110, Content-Range."""
    said = response.headers.get("Content-Range", "").strip()
    match = re.fullmatch(r"bytes\s+(?:([0-9]{1,19})-[0-9]{1,19}|\*)/([0-9]{1,19}|\*)", said)
    return (read_number(match[1]), read_number(match[2])) if match else (None, None)
