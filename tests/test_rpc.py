"""RPC seen from outside: servers that are missing, silent, of another version; and the counting proxy."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

import pytest

from harness.errors import NativeError
from harness.rpc import PROTOCOL, CountingProxy, Traffic, check_servers, find_trouble, is_loopback, wait_for_servers


@contextlib.contextmanager
def server(answer):
    """A server that answers each connection's greeting with `answer(bytes)` and then echoes; None says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections = []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                request = connection.recv(4096)
                reply = answer(request)
                if reply is None:
                    continue
                if reply:
                    connection.sendall(reply)
                else:
                    connection.close()

    threading.Thread(target=serve, daemon=True).start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    for end in (listener, *connections):
        end.close()


def hello(*version):
    return lambda _request: struct.pack("<Q", 28) + bytes(version) + bytes(25)


@pytest.fixture
def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_server_of_our_version_is_fine():
    seen = []

    def answer(request):
        seen.append(request)
        return hello(*PROTOCOL)(request)

    with server(answer) as endpoint:
        assert find_trouble(endpoint) is None
        check_servers([endpoint])
    assert seen[0][:9] == b"\x0e" + struct.pack("<Q", 24), "greeted as ggml greets: HELLO and 24 bytes of capabilities"


@pytest.mark.parametrize(
    ("version", "is_fine"),
    [((7, 0, 9), True), ((7, 1, 0), False), ((6, 0, 0), False), ((8, 0, 0), False)],
)
def test_versions_are_judged_as_ggml_judges_them(version, is_fine):
    with server(hello(*version)) as endpoint:
        trouble = find_trouble(endpoint)
    assert (trouble is None) == is_fine
    if not is_fine:
        assert f"speaks version {'.'.join(map(str, version))} of the protocol and this llama.cpp 7.0.0" in trouble


def test_a_missing_server_is_said_at_once(closed_port):
    with pytest.raises(
        NativeError, match=r"No RPC server can be reached at .* \(connection refused\); start one there"
    ):
        check_servers([f"127.0.0.1:{closed_port}"])


def test_silent_servers_are_said_together_within_the_timeout():
    with server(lambda _request: None) as first, server(lambda _request: None) as second:
        start = time.monotonic()
        with pytest.raises(NativeError, match=r"gave no answer within 2 s: .*busy with another client"):
            check_servers([first, second])
        assert time.monotonic() - start < 3, "issue: an unreachable host is said within 3 s, however many there are"


def test_somebody_who_hangs_up_or_talks_nonsense_is_no_server():
    with server(lambda _request: b"") as endpoint:
        assert "hung up when it was greeted" in find_trouble(endpoint)
    with server(lambda _request: b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n") as endpoint:
        assert "does not answer as an RPC server" in find_trouble(endpoint)


def test_a_server_that_comes_back_is_waited_for(closed_port):
    def come_back():
        time.sleep(0.5)
        listener = socket.create_server(("127.0.0.1", closed_port))
        connection, _ = listener.accept()
        connection.recv(4096)
        came.append(True)
        connection.sendall(hello(*PROTOCOL)(b""))

    came = []
    threading.Thread(target=come_back, daemon=True).start()
    wait_for_servers([f"127.0.0.1:{closed_port}"], 30)
    assert came


def test_loopback_is_told_from_the_network():
    assert all(is_loopback(host) for host in ("127.0.0.1", "localhost", "127.1.2.3"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "192.168.1.7", "example.org"))


def test_the_proxy_counts_bytes_and_turns():
    with server(lambda request: b"12345") as endpoint, CountingProxy(endpoint) as proxy:
        host, port = proxy.endpoint.split(":")
        assert proxy.read() == Traffic()
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"abc")
            assert client.recv(10) == b"12345"
            assert proxy.read() == Traffic(sent_bytes=3, received_bytes=5, round_trips=1)
            client.sendall(b"x")
            wait_for(lambda: proxy.read().sent_bytes == 4)
            assert proxy.read() - Traffic(3, 5, 1) == Traffic(1, 0, 0), "a request without an answer is no round trip"


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()
