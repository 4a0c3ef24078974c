"""A remote file as a source of bytes: headers by ranges, without the weights behind them."""

from __future__ import annotations

import time

from harness.gguf.header import Fetched
from harness.sources.addresses import Address
from harness.sources.remote import (
    RETRY_WAITS_S,
    Answer,
    find_validator,
    is_consistent,
    open_answer,
    pause,
    read_content_range,
    transport_errors,
)
from harness.sources.remote_errors import RemoteError, SlowError
from harness.units import MIB

#: What is fetched of a header: twice what any published model's has (gemma 4's 262,144 tokens and merges: some 16 MB).
HEADER_LIMIT_BYTES = 64 * MIB
HEADER_LIMIT_S = 600.0


class RemoteSource:
    """A remote file as a byte source for `read_header`: one connection, and what it cost.

    The first answer tells the file's size and where a redirection ended, which later requests go to at once. Where that is refused, a
    signed address has expired, and the way is gone once more from its beginning. All answers must be of one file.
    """

    def __init__(self, address: Address) -> None:
        self._first = self._address = address
        self._name = address.name
        self._validator: str | None = None
        #: Total size; None before the first read, and where the server does not say.
        self.size_bytes: int | None = None
        self._fetched_bytes = self._n_requests = 0
        self._end = time.monotonic() + HEADER_LIMIT_S

    @property
    def fetched(self) -> Fetched:
        """What all reads cost."""
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
        errors = transport_errors()
        while True:
            response, error = None, None
            try:
                span = {"Range": f"bytes={offset}-{offset + size - 1}"}
                with open_answer("GET", self._address, span) as answer:
                    response = answer.head
                    self._n_requests += answer.n_requests
                    if response.status_code in (200, 206, 416):
                        return self._take(answer, offset, size)
            except errors as failure:
                error = failure
                self._n_requests += response is None
            attempt += 1
            if self._address is not self._first and type(error).__name__ in ("NoneType", "ConnectError"):
                self._address = self._first
                if attempt == 1:
                    continue
            if type(error).__name__ in ("ConnectError", "ConnectTimeout", "SlowError") or attempt > 2:
                attempt = len(RETRY_WAITS_S) + 1  # whoever looks at a header should not be kept waiting
            pause(error, response, self._name, attempt)

    def _take(self, answer: Answer, offset: int, size: int) -> bytes:
        response = answer.head
        start, total = read_content_range(response)
        if response.status_code == 416:
            self.size_bytes = total
            return b""
        if response.status_code == 200:
            raise RemoteError(
                f"The server of {self._name} does not serve parts of files (HTTP ranges); download the file and name it on this disk."
            )
        if start != offset or not is_consistent(response):
            raise RemoteError(
                f"The server of {self._name} sent other bytes than those asked for; download the file instead."
            )
        validator = find_validator(response)
        if (total not in (None, self.size_bytes) and self.size_bytes is not None) or (
            validator and self._validator and validator != self._validator
        ):
            raise RemoteError(
                f"{self._name} was changed at its server while its header was read; run the same command again."
            )
        self.size_bytes = total if total is not None else self.size_bytes
        self._validator, self._address = validator or self._validator, answer.address
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
