"""llama.cpp's RPC seen from outside the engine: is a server there, does it speak our version, and what goes over the wire.

ggml aborts the process when a server is missing, of another version or gone, so everybody asks here first.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from harness.errors import NativeError

#: The protocol of the llama.cpp that this harness runs. Source: RPC_PROTO_*_VERSION in ggml/include/ggml-rpc.h.
PROTOCOL = (7, 0, 0)

#: A command is its number (1 byte), the size of its body (8 bytes, little-endian) and the body; an answer the same without a number.
#: Source: rpc_cmd, rpc_msg_hello_req, rpc_msg_hello_rsp in ggml-rpc.cpp; RPC_CONN_CAPS_SIZE in transport.h.
_HELLO = 14
_CAPABILITIES = bytes(24)
_HELLO_REQUEST = struct.pack("<BQ", _HELLO, len(_CAPABILITIES)) + _CAPABILITIES
_ANSWER_BYTES = 8 + 4 + len(_CAPABILITIES)

#: What ggml asks next, how many devices there are: no body, and an answer of four bytes. Source: RPC_CMD_DEVICE_COUNT.
_COUNT_REQUEST = struct.pack("<BQ", 15, 0)
_COUNT_BYTES = 8 + 4

#: A server that has not greeted by then is taken as missing; with the start of a worker this stays below three seconds.
GREETING_TIMEOUT_S = 2.0

_CHUNK_BYTES = 1 << 16


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """Split ``host:port``, which `harness.parsers.parse_endpoints` has checked."""
    host, _, port = endpoint.rpartition(":")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether a host name means this machine and nothing else."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def has_loopback(endpoints: Iterable[str]) -> bool:
    """Whether one of the servers is this machine itself."""
    return any(is_loopback(split_endpoint(endpoint)[0]) for endpoint in endpoints)


def find_trouble(endpoint: str, timeout_s: float = GREETING_TIMEOUT_S) -> str | None:
    """Greet a server and count its devices as ggml does; None where it answers in our version, else what is wrong in a sentence.

    The name's look-up counts into the timeout (in s): it runs in a thread that is left behind if it hangs.
    """
    found: list[str | None] = []
    thread = threading.Thread(target=lambda: found.append(_greet(endpoint, timeout_s)), daemon=True)
    thread.start()
    thread.join(timeout_s + 0.25)
    return found[0] if found else _silence(endpoint, timeout_s)


def check_servers(endpoints: Sequence[str]) -> None:
    """Make sure that every server answers, all at the same time.

    Raises
    ------
    NativeError : one is unreachable, silent, busy or of another version.
    """
    from concurrent.futures import ThreadPoolExecutor  # only where there are servers

    with ThreadPoolExecutor(len(endpoints) or 1) as pool:
        for trouble in pool.map(find_trouble, endpoints):
            if trouble:
                raise NativeError(trouble)


def wait_for_servers(endpoints: Sequence[str], timeout_s: float) -> None:
    """Give servers that have just died some time to come back; whether they did is for the next to find out."""
    deadline = time.monotonic() + timeout_s
    for endpoint in endpoints:
        while find_trouble(endpoint, 0.5) is not None and time.monotonic() < deadline:
            time.sleep(0.1)


def _greet(endpoint: str, timeout_s: float) -> str | None:
    deadline = time.monotonic() + timeout_s
    host, port = split_endpoint(endpoint)
    has_greeted = False
    try:
        with socket.create_connection((socket.gethostbyname(host), port), timeout=timeout_s) as connection:
            connection.sendall(_HELLO_REQUEST)
            answer = receive(connection, _ANSWER_BYTES, deadline)
            if len(answer) < _ANSWER_BYTES:
                return (
                    f"{endpoint} hung up when it was greeted: it is no RPC server of llama.cpp, or one of another version "
                    f"than {_format_version(PROTOCOL)}; run the same version of harness or llama.cpp on both machines."
                )
            if trouble := _judge_version(endpoint, answer):
                return trouble
            has_greeted = True
            connection.sendall(_COUNT_REQUEST)
            if len(receive(connection, _COUNT_BYTES, deadline)) < _COUNT_BYTES:
                return f"{endpoint} hung up after its greeting; start its RPC server again."
    except TimeoutError:
        if has_greeted:
            return f"{endpoint} greeted and then gave no answer within {timeout_s:g} s; start its RPC server again."
        return _silence(endpoint, timeout_s)
    except (socket.gaierror, UnicodeError):  # the latter of a name that can be none
        return f"There is no machine by the name in {endpoint}; check it, or give its address."
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return f"No RPC server can be reached at {endpoint} ({reason}); start one there with `harness rpc-server`."
    return None


def receive(connection: socket.socket, n_bytes: int, deadline: float) -> bytes:
    """So many bytes, or fewer where the other side hangs up; TimeoutError where the deadline (of the monotonic clock) comes first.

    MSG_WAITALL would not do: a socket with a timeout does not block, and gives what is there.
    """
    answer = b""
    while len(answer) < n_bytes:
        connection.settimeout(max(deadline - time.monotonic(), 0.01))
        piece = connection.recv(n_bytes - len(answer))
        if not piece:
            break
        answer += piece
    return answer


def _judge_version(endpoint: str, answer: bytes) -> str | None:
    """Source: negotiate_hello in ggml-rpc.cpp, which aborts on another major or a newer minor version."""
    (size,) = struct.unpack_from("<Q", answer)
    version = tuple(answer[8:11])
    if size != _ANSWER_BYTES - 8:
        return f"{endpoint} does not answer as an RPC server of llama.cpp does; check the port."
    if version[0] != PROTOCOL[0] or version[1] > PROTOCOL[1]:
        return (
            f"The RPC server at {endpoint} speaks version {_format_version(version)} of the protocol and this llama.cpp "
            f"{_format_version(PROTOCOL)}; run the same version of harness or llama.cpp on both machines."
        )
    return None


def _silence(endpoint: str, timeout_s: float) -> str:
    return (
        f"{endpoint} gave no answer within {timeout_s:g} s: the machine is off or behind a firewall, or its RPC server is busy "
        "with another client (it serves one at a time)."
    )


def _format_version(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went over the wire: bytes to the server, bytes back, and how often the client waited for an answer."""

    sent_bytes: int = 0
    received_bytes: int = 0
    round_trips: int = 0

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(*(ours - theirs for ours, theirs in zip(astuple(self), astuple(other), strict=True)))


class CountingProxy:
    """A proxy on loopback that passes everything on to a server and counts it. Never in the way while something is timed.

    A round trip is an answer after a request: the direction turned from the client's to the server's.
    """

    def __init__(self, endpoint: str) -> None:
        self._target = split_endpoint(endpoint)
        self._lock = threading.Lock()
        self._sent = self._received = self._turns = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def read(self) -> Traffic:
        with self._lock:
            return Traffic(self._sent, self._received, self._turns)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target, timeout=GREETING_TIMEOUT_S)
            except OSError:
                return
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open += [client, server]
            asked = [False]
            threading.Thread(target=self._pump, args=(client, server, asked, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, asked, False), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, asked: list[bool], is_request: bool) -> None:
        try:
            while piece := source.recv(_CHUNK_BYTES):
                with self._lock:
                    if is_request:
                        self._sent += len(piece)
                    else:
                        self._received += len(piece)
                        self._turns += asked[0]
                    asked[0] = is_request
                target.sendall(piece)
        except OSError:
            pass
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for end in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                end.close()
