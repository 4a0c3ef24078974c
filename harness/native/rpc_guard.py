"""Who may keep an RPC server of llama.cpp busy: it serves one client at a time, and waits for ever for one that says nothing.

A thread beside the server looks at its sockets, of which only Linux tells enough, and never at what they carry: a client has to
greet in `GREETING_S`, and one that stops in the middle of a message is hung up on while another one waits. A server that still
computes for a client that is gone, which ggml cannot stop, is of no use to the one that waits, and is given up. Between two messages a
client may be silent as long as it likes: it may be computing. What is measured is not touched: sockets are looked at a few times a
second.

Sources: rpc_serve_client in ggml-rpc.cpp, socket_t in transport.cpp; tcp(7); struct tcp_info of linux/tcp.h; proc(5),
/proc/pid/syscall.
"""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator

#: HELLO is 33 bytes, which a client sends as soon as it is connected, and so within moments of its first byte.
GREETING_S, _HELLO_BYTES = 0.5, 33

#: The same while others wait, of whom there may be many.
AWAITED_GREETING_S = 0.1

#: A message has to go on within this time, where others wait; whatever comes slower than so many bytes in each look has stopped.
STALL_S, _PROGRESS_BYTES = 0.5, 1000

#: A server computes so long for a client that is gone, where others wait.
GONE_S = 0.3

#: How often is looked: while nobody is connected or a client greets, and while one is served.
_IDLE_S, _SERVED_S = 0.025, 0.2

#: Connections that wait to be served, or to say anything; ggml lets one wait, and the others' attempts would be lost.
_BACKLOG = 4096

#: Whoever says nothing for so long, in s, is let in all the same, and found out then.
_DEFER_S = 120

#: A client whose machine is gone is noticed after two minutes or so.
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}

#: The number of recvfrom(2), as which recv(2) shows in /proc/pid/syscall, by architecture.
_RECVFROM = {"x86_64": 45, "aarch64": 207, "riscv64": 207}

#: Called with a word of why a client was hung up on.
OnCut = Callable[[str], None]

CAN_GUARD = sys.platform == "linux"


class Guard:
    """Watches a server of this process on an IPv4 address and port from the moment when it listens.

    on_open is called then, on_cut for each client that was hung up on, on_useless where the server should be replaced. It is made by
    the thread that is going to serve.
    """

    def __init__(
        self, address: str, port: int, on_open: Callable[[], None], on_cut: OnCut, on_useless: Callable[[], None]
    ) -> None:
        self._place, self._on_open, self._on_cut, self._on_useless = (address, port), on_open, on_cut, on_useless
        self._thread = threading.get_native_id()
        self._client: _Client | None = None

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while (listener := self._find_listener()) is None:
            time.sleep(0.005)
        self._prepare(listener)
        self._on_open()
        while True:
            with contextlib.suppress(OSError):  # a socket that was closed meanwhile
                self._look(listener)
            is_served = self._client is not None and self._client.has_greeted
            time.sleep(_SERVED_S if is_served else _IDLE_S)

    def _find_listener(self) -> socket.socket | None:
        for one in _sockets():
            with contextlib.suppress(OSError):
                if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and one.getsockname() == self._place:
                    return one
            one.close()
        return None

    def _prepare(self, listener: socket.socket) -> None:
        """Options of the socket that listens, which those of its clients inherit; whoever says nothing is not let in at all."""
        with contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE.items():
                listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _DEFER_S)
            listener.listen(_BACKLOG)

    def _look(self, listener: socket.socket) -> None:
        if self._client is not None and not self._client.is_there():
            self._client = None
        if self._client is None:
            self._client = self._find_client()
        if self._client is None:
            return
        is_awaited = _tcp_info(listener, "<I", _WAITING) > 0
        if is_awaited and self._client.is_gone():
            self._on_useless()
        elif why := self._client.judge(self._thread, is_awaited=is_awaited):
            self._client.hang_up()
            self._on_cut(why)

    def _find_client(self) -> _Client | None:
        for one in _sockets():
            with one, contextlib.suppress(OSError):
                is_listener = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if one.family == socket.AF_INET and not is_listener and one.getsockname()[1] == self._place[1]:
                    return _Client(one.number)
        return None


class _Descriptor(socket.socket):
    """A socket that belongs to somebody else, by a descriptor of our own; number is theirs."""

    number: int


def _sockets() -> Iterator[_Descriptor]:
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                one = _Descriptor(fileno=os.dup(int(name)))
                one.number = int(name)
                yield one


class _Client:
    """The one that is served, by its descriptor in the server."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._inode = descriptor, os.fstat(descriptor).st_ino
        self._since_s, self._n_bytes, self.has_greeted = time.monotonic(), 0, False
        self._gone_s: float | None = None

    @contextlib.contextmanager
    def _socket(self) -> Iterator[socket.socket]:
        with socket.socket(fileno=os.dup(self._descriptor)) as one:
            yield one

    def is_there(self) -> bool:
        """Whether its descriptor is still that of the same connection."""
        try:
            return os.fstat(self._descriptor).st_ino == self._inode
        except OSError:
            return False

    def is_gone(self) -> bool:
        """Whether the other side left some time ago, and the server did not notice: it computes."""
        with self._socket() as one:
            is_left = _tcp_info(one, "<B", _STATE) != _ESTABLISHED
        self._gone_s = (self._gone_s or time.monotonic()) if is_left else None
        return self._gone_s is not None and time.monotonic() - self._gone_s > GONE_S

    def judge(self, thread: int, *, is_awaited: bool) -> str | None:
        """Why it is to be hung up on; None where it is not."""
        now_s = time.monotonic()
        with self._socket() as one:
            n_bytes = _tcp_info(one, "<Q", _RECEIVED)
        progress, self._n_bytes = n_bytes - self._n_bytes, n_bytes
        if not self.has_greeted:
            self.has_greeted = n_bytes >= _HELLO_BYTES
            if not self.has_greeted:
                limit_s = AWAITED_GREETING_S if is_awaited else GREETING_S
                return "greeting" if now_s - self._since_s > limit_s else None
            self._since_s = now_s
        if progress >= _PROGRESS_BYTES or not _is_in_message(thread, self._descriptor):
            self._since_s = now_s
        return "message" if is_awaited and now_s - self._since_s > STALL_S else None

    def hang_up(self) -> None:
        """Close the connection under the server's hands: it reads an end, and goes on to the next one."""
        with self._socket() as one:
            one.shutdown(socket.SHUT_RDWR)


#: Where struct tcp_info has the connection's state (TCP_ESTABLISHED of linux/tcp_states.h is 1), connections that wait (of a
#: listener: tcpi_unacked), and bytes that came (tcpi_bytes_received).
_STATE, _WAITING, _RECEIVED = 0, 24, 128
_ESTABLISHED = 1


def _tcp_info(one: socket.socket, kind: str, offset: int) -> int:
    info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    (value,) = struct.unpack_from(kind, info, offset)
    return int(value)


def _is_in_message(thread: int, descriptor: int) -> bool:
    """Whether the server waits for more than the one byte with which a message begins; False where the system does not tell."""
    try:
        with open(f"/proc/self/task/{thread}/syscall", encoding="ascii") as file:
            call = file.read().split()
    except OSError:
        return False
    if len(call) < 4 or call[0] != str(_RECVFROM.get(platform.machine())):
        return False
    return int(call[1], 16) == descriptor and int(call[3], 16) > 1
