"""A real `harness rpc-server` as a child, on a free port of loopback."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent


@dataclass
class Served:
    """The supervisor's process, its endpoint, and the pids of the servers that it announced."""

    process: subprocess.Popen[str]
    endpoint: str
    pids: list[int] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def kill_server(self) -> None:
        """End the native server, whose supervisor starts another one."""
        os.kill(self.pids[-1], signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def muted(endpoint: str, command: int) -> Iterator[str]:
    """A way to a server on which everything stops, as when the machine loses its power, once a command of this number is sent."""
    host, _, port = endpoint.partition(":")
    listener = socket.create_server(("127.0.0.1", 0))
    ends: list[socket.socket] = [listener]

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                target.sendall(piece)
            target.shutdown(socket.SHUT_RDWR)

    def pass_commands(client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while len(head := client.recv(9, socket.MSG_WAITALL)) == 9 and head[0] != command:
                server.sendall(head)
                left = int.from_bytes(head[1:], "little")
                while left:
                    piece = client.recv(min(left, 65536))
                    server.sendall(piece)
                    left -= len(piece)
            if len(head) < 9:
                server.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection((host, int(port)), timeout=60)
                ends.extend((client, server))
                threading.Thread(target=pass_commands, args=(client, server), daemon=True).start()
                threading.Thread(target=pass_on, args=(server, client), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for end in ends:
            end.close()


@contextlib.contextmanager
def rpc_server(*arguments: str, port: int | None = None, **extra: Any) -> Iterator[Served]:
    """Start a server and wait for its line; end it with Ctrl-C."""
    endpoint = f"127.0.0.1:{port or free_port()}"
    command = [sys.executable, "-m", "harness", "rpc-server", "--port", endpoint.split(":")[1], "-t", "1", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **extra,
    )  # fmt: skip
    served = Served(process, endpoint)
    ready = threading.Event()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            served.lines.append(line)
            if match := re.search(r"\(process (\d+)\)", line):
                served.pids.append(int(match[1]))
                ready.set()

    threading.Thread(target=listen, daemon=True).start()
    try:
        assert ready.wait(60), process.stderr.read() if process.poll() is not None and process.stderr else "no server"
        yield served
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
