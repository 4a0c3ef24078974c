"""An RPC server of llama.cpp in a child of its own, started again when it dies."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.codec import decode
from harness.errors import NativeError, UsageError
from harness.host.rpc import find_trouble, split_endpoint
from harness.records.cells import Device, Failure
from harness.records.failures import Cause, describe_failure
from harness.runs.worker import Worker

#: A server that dies this often within this time is not started again.
MAX_DEATHS, WITHIN_S = 3, 20.0

#: A server that says that it begins answers by then, or never.
OPEN_TIMEOUT_S = 10.0


#: Called with the devices that are lent and the process that does so.
Announce = Callable[[Sequence[Device], int], None]


@dataclass(frozen=True, slots=True)
class Offer:
    """What to serve: ``host:port``, names of devices (empty: every GPU, else the CPU), threads for devices that use them."""

    endpoint: str
    devices: Sequence[str]
    n_threads: int


def resolve_address(host: str) -> str:
    """The IPv4 address of a host name; llama.cpp's server takes no names and no IPv6 (ggml's transport.cpp: inet_addr).

    Raises
    ------
    UsageError : there is none.
    """
    try:
        return str(socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except (OSError, UnicodeError):
        raise UsageError(
            f"{host!r} has no IPv4 address here, and llama.cpp's RPC has no other; choose another --host, such as 127.0.0.1."
        ) from None


def find_endpoint(address: str, port: int) -> str:
    """Where a server can listen, ``address:port``; a port of 0 picks a free one. ggml reports no reason, and might share a port that is
    in use.

    Raises
    ------
    UsageError : the port is taken or not allowed, or the address is not this machine's.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if os.name == "posix":  # elsewhere this option would let two servers share a port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
            return f"{address}:{probe.getsockname()[1]}"
        except OSError as error:
            hint = {
                errno.EADDRINUSE: "another program listens there; choose another --port",
                errno.EACCES: "ports below 1024 need rights; choose another --port",
                errno.EADDRNOTAVAIL: "that is no address of this machine; choose another --host",
            }.get(error.errno or 0, f"{error.strerror or error}; choose another --host or --port")
            raise UsageError(f"Cannot listen on {address}:{port}: {hint}.") from None


def serve(
    offer: Offer,
    *,
    announce: Announce,
    warn: Callable[[str], None],
    command: Sequence[str] | None = None,
) -> None:
    """Serve until KeyboardInterrupt; `announce` gets the devices and the child's pid each time the server is ready.

    Raises
    ------
    NativeError : the server cannot be started, or dies again and again.
    """
    deaths: list[float] = []
    while True:
        failure = _serve_once(offer, announce, command)
        if failure.cause in (Cause.REFUSED, Cause.QUESTION):
            kind = UsageError if failure.cause is Cause.QUESTION else NativeError
            raise kind(f"{describe_failure(failure)}.")
        now = time.monotonic()
        deaths = [death for death in deaths if now - death < WITHIN_S] + [now]
        if len(deaths) >= MAX_DEATHS:
            raise NativeError(
                f"The RPC server died {len(deaths)} times in {WITHIN_S:g} s, at last so: {describe_failure(failure)}."
            )
        warn(f"the RPC server died ({describe_failure(failure)}); it is started again.")


def _serve_once(offer: Offer, announce: Announce, command: Sequence[str] | None) -> Failure:
    """Run one server to its end."""
    worker = Worker(command)
    try:
        greeting = worker.hello()
        if isinstance(greeting, Failure):
            return greeting
        request = {"endpoint": offer.endpoint, "devices": list(offer.devices), "n_threads": offer.n_threads}
        for event in worker.ask("rpc_server", request):
            if isinstance(event, Failure):
                return event
            if event["event"] == "serving":
                if not _wait_until_open(worker, offer.endpoint):
                    return next(heard for heard in worker.events(1.0, "rpc_server") if isinstance(heard, Failure))
                announce([decode(Device, device) for device in event["devices"]], worker.pid)
        raise AssertionError("a server ends by dying or by being refused")
    finally:
        worker.kill()
        worker.close()


def _wait_until_open(worker: Worker, endpoint: str) -> bool:
    """Whether the server answers, which it does a moment after it is started; one that ends instead has not much time to do so."""
    host, port = split_endpoint(endpoint)
    local = "127.0.0.1" if host == "0.0.0.0" else host
    deadline = time.monotonic() + OPEN_TIMEOUT_S
    while worker.is_alive and time.monotonic() < deadline:
        if find_trouble(f"{local}:{port}", 0.5) is None:
            return True
        time.sleep(0.02)
    return False
