"""RPC seen from outside: servers that are missing, silent, of another version; and the counting proxy."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
import time

import pytest

from harness.errors import NativeError
from harness.host.machine import describe_machine
from harness.host.rpc import (
    PROTOCOL,
    CountingProxy,
    Traffic,
    check_servers,
    find_trouble,
    is_loopback,
    wait_for_servers,
)
from harness.runs.cells import Plan, run_cells
from harness.runs.devices import survey_devices
from harness.sources.model_file import default_model
from harness.spec import RunSpec


@contextlib.contextmanager
def server(answer):
    """A server that answers whatever it is sent with `answer(bytes)`; None says nothing, and no bytes hang up."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections = []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

    def talk(connection):
        with contextlib.suppress(OSError):
            while request := connection.recv(4096):
                reply = answer(request)
                if reply is None:
                    continue
                if not reply:
                    connection.close()
                    return
                connection.sendall(reply)

    threading.Thread(target=serve, daemon=True).start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    for end in (listener, *connections):
        end.close()


ONE_DEVICE = struct.pack("<QI", 4, 1)


def hello(*version, then=ONE_DEVICE):
    """Greet in a version, and answer what is asked then."""
    return lambda request: struct.pack("<Q", 28) + bytes(version) + bytes(25) if request[:1] == b"\x0e" else then


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
    assert seen[1] == b"\x0f" + bytes(8), "and asked for its devices"


def test_a_server_that_greets_and_then_says_nothing_is_found_out():
    with server(hello(*PROTOCOL, then=None)) as endpoint:
        assert "greeted and then gave no answer within 0.3 s" in find_trouble(endpoint, 0.3)
    with server(hello(*PROTOCOL, then=b"")) as endpoint:
        assert "hung up after its greeting" in find_trouble(endpoint)


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


@pytest.mark.engine
def test_a_server_that_tells_its_devices_and_then_nothing_does_not_hang_llama_cpp():
    """Found in ggml itself: it waits for an answer as long as the connection stands."""
    code = "import harness.native.engine as e, harness.native.worker as w; e.ATTACH_TIMEOUT_S = 1.0; w.main()"
    answers = {b"\x0e": hello(*PROTOCOL)(b"\x0e"), b"\x0f": struct.pack("<QI", 4, 1)}
    with server(lambda request: answers.get(request[:1])) as endpoint:
        with pytest.raises(NativeError, match=f"{endpoint} greeted and then gave no answer within 1 s"):
            survey_devices((endpoint,), command=[sys.executable, "-c", code])
        plan = Plan("pp-tg", describe_machine(), worker_command=[sys.executable, "-c", code])
        spec = RunSpec(str(default_model()), n_prompt=8, n_gpu_layers=1, rpc=(endpoint,))
        (record,) = run_cells([spec], plan, on_step=lambda _: None)
    assert "greeted and then gave no answer" in record.failure.message


def test_a_server_that_comes_back_is_waited_for(closed_port):
    def come_back():
        time.sleep(0.5)
        listener = socket.create_server(("127.0.0.1", closed_port))
        connection, _ = listener.accept()
        connection.recv(4096)
        came.append(True)
        connection.sendall(hello(*PROTOCOL)(b"\x0e"))
        connection.recv(4096)
        connection.sendall(hello(*PROTOCOL)(b"\x0f"))

    came = []
    threading.Thread(target=come_back, daemon=True).start()
    wait_for_servers([f"127.0.0.1:{closed_port}"], 30)
    assert came


def test_loopback_is_told_from_the_network():
    assert all(is_loopback(host) for host in ("127.0.0.1", "localhost", "127.1.2.3"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "192.168.1.7", "example.org"))


def test_the_proxy_counts_bytes_and_turns():
    with (
        server(lambda request: b"12345" if request == b"abc" else None) as endpoint,
        contextlib.closing(CountingProxy(endpoint)) as proxy,
    ):
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
