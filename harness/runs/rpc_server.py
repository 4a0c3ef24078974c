"""An RPC server of llama.cpp in a child of its own, started again when it dies."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.errors import NativeError, UsageError
from harness.host.rpc import find_trouble, split_endpoint
from harness.records.cells import Device, Failure
from harness.records.failures import Cause, describe_end, describe_failure
from harness.runs.worker import Garbled, Worker, understand

#: A server that never opens is tried so often.
MAX_STILLBORN = 3

#: So many servers that die within this time are replaced at once; whoever ends more of them makes everybody wait.
PROMPT_STARTS, WITHIN_S = 5, 60.0
_LONGEST_WAIT_S = 30.0

#: A server that says that it begins answers by then, or never.
OPEN_TIMEOUT_S = 10.0

#: Clients that were hung up on are told of this often, however many they are.
_TOLD_S = 10.0

_USELESS = "it computed for a client that was gone while another one waited"
_CUTS = {
    "greeting": "did not greet as a client of llama.cpp does",
    "message": "stopped in the middle of a message while others waited",
}

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


class Deaths:
    """The deaths of servers so far, by the monotonic clock in s, and how long the next one waits for its start."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self.count = 0

    def add(self, now_s: float) -> float:
        """Note one, and say how long to wait: not at all for the first `PROMPT_STARTS` of a minute, then twice as long each time."""
        self._times = [time_s for time_s in self._times if now_s - time_s < WITHIN_S] + [now_s]
        self.count += 1
        n_beyond = len(self._times) - PROMPT_STARTS
        return min(2.0 ** (n_beyond - 1), _LONGEST_WAIT_S) if n_beyond > 0 else 0.0


def serve(
    offer: Offer,
    *,
    announce: Announce,
    warn: Callable[[str], None],
    command: Sequence[str] | None = None,
) -> None:
    """Serve until KeyboardInterrupt; `announce` gets the devices and the child's pid each time the server is ready.

    A server that served and died is replaced for ever, by one that was started ahead; one that cannot be started is given up.

    Raises
    ------
    NativeError : the server cannot be started.
    """
    deaths, n_stillborn = Deaths(), 0
    with contextlib.closing(_Supervisor(offer, announce, warn, command)) as supervisor:
        while True:
            failure, has_served = supervisor.serve_once()
            if failure.cause in (Cause.REFUSED, Cause.QUESTION):
                kind = UsageError if failure.cause is Cause.QUESTION else NativeError
                raise kind(f"{describe_failure(failure)}.")
            n_stillborn = 0 if has_served else n_stillborn + 1
            if n_stillborn >= MAX_STILLBORN:
                raise NativeError(
                    f"The RPC server died {n_stillborn} times before it served, at last so: {describe_end(failure)}"
                )
            wait_s = deaths.add(time.monotonic())
            when = f"in {wait_s:g} s" if wait_s else "now"
            so_far = f" ({deaths.count} ends so far)" if deaths.count > 1 else ""
            warn(f"the RPC server ended, and is started again {when}{so_far}: {describe_end(failure)}")
            time.sleep(wait_s)


class _Supervisor:
    """The server's process, and the one that takes its place."""

    def __init__(
        self, offer: Offer, announce: Announce, warn: Callable[[str], None], command: Sequence[str] | None
    ) -> None:
        self._offer, self._announce, self._warn, self._command = offer, announce, warn, command
        self._spare: Worker | None = None
        #: How many of a kind were not told of, and when one was told of last.
        self._cuts: dict[str, tuple[int, float]] = {}

    def close(self) -> None:
        if self._spare is not None:
            self._spare.kill()
            self._spare.close()

    def serve_once(self) -> tuple[Failure, bool]:
        """Run one server to its end, and say what that was and whether it had served."""
        worker, self._spare = self._spare or Worker(self._command), None
        has_served = False
        try:
            greeting = worker.hello()
            if isinstance(greeting, Failure):
                return greeting, has_served
            request = {
                "endpoint": self._offer.endpoint,
                "devices": [*self._offer.devices],
                "n_threads": self._offer.n_threads,
            }
            lent: list[Device] = []
            for event in worker.ask("rpc_server", request, silence_s=math.inf):
                if isinstance(event, Failure):
                    return event, has_served
                if event["event"] == "useless":
                    return Failure("rpc_server", _USELESS, Cause.KILLED), has_served
                if event["event"] == "cut":
                    self._warn_of_cut(event["why"])
                    continue
                if event["event"] == "serving":
                    lent = [understand(Device, device) for device in event["devices"]]
                    if not event.get("says_open") and not _wait_until_open(worker, self._offer.endpoint):
                        return next(
                            heard for heard in worker.events(1.0, "rpc_server") if isinstance(heard, Failure)
                        ), has_served
                if event["event"] == "open" or not event.get("says_open", True):
                    has_served = True
                    self._announce(lent, worker.pid)
                    self._start_spare()
            raise AssertionError("a server ends by dying or by being refused")
        except Garbled as error:
            return worker.give_up(error), has_served
        finally:
            worker.kill()
            worker.close()

    def _start_spare(self) -> None:
        """Have a process ready that has loaded everything: to start one takes longer than whoever was served wants to wait."""
        if self._spare is None and self._command is None:
            with contextlib.suppress(NativeError):  # it will be started when it is needed
                self._spare = Worker(is_spare=True)

    def _warn_of_cut(self, why: str) -> None:
        n_cut, told_s = self._cuts.get(why, (0, -math.inf))
        n_cut, now_s = n_cut + 1, time.monotonic()
        if now_s - told_s < _TOLD_S:
            self._cuts[why] = n_cut, told_s
            return
        self._cuts[why] = 0, now_s
        who = "a client that" if n_cut == 1 else f"{n_cut} clients, the last of which"
        self._warn(f"the RPC server hung up on {who} {_CUTS.get(why, 'misbehaved')}.")


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
