"""Attacks on RPC servers and on their clients: the server serves again and says why it did not, and nobody waits for ever."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import sys
import threading
import time

import click.testing
import pytest

from harness.cli import rpc_server as command_module
from harness.errors import NativeError
from harness.host import rpc
from harness.host.rpc import PROTOCOL, find_trouble, receive
from harness.native import rpc_guard
from harness.native.rpc_guard import CAN_GUARD, Guard
from harness.runs import rpc_server as supervising
from harness.runs.rpc_server import PROMPT_STARTS, Deaths, Offer, serve
from scripts.rpc_attacks import HELLO, SET_TENSOR, Attacker, command, list_attacks, make_attack

from .rpc_server import free_port, rpc_server

ATTACKS = dict(list_attacks())

#: A few of scripts/rpc_attacks.py, of each kind some; the last two end the server, which `MAX_DEATHS` of the script allows for.
FEW = [
    *(f"garbage {seed}" for seed in range(3)), "HTTP", "closes after 1 bytes of its greeting", "resets after 9 bytes of its greeting",
    "closes after 33 bytes of its greeting", "announces a greeting of 9223372036854775808 bytes", "greets and goes",
    "command 255 of 0 bytes", "command 6 of 1099511627776 bytes", "announces 64 GB", "closes in the body of command 6",
    "garbage in command 10", "allocates a terabyte", "200 at once with garbage", "200 at once that say nothing",
]  # fmt: skip
HELD = ["stops after 1 bytes of its greeting", "stops in the body of command 6", "greets a byte a second"]
DEADLY = ["command 6 of 9223372036854775813 bytes", "a tensor beyond its buffer"]


@pytest.fixture(scope="module")
def served():
    with rpc_server() as one:
        yield one


@pytest.mark.engine
@pytest.mark.parametrize("name", [*FEW, *HELD])
def test_a_real_server_serves_again(served, name):
    if name in HELD and not CAN_GUARD:
        pytest.skip("needs Linux, which tells of a server's sockets")
    n_starts = len(served.pids)
    assert make_attack(served, ATTACKS[name]) is not None
    assert len(served.pids) == n_starts, "the same server does"


@pytest.mark.engine
@pytest.mark.parametrize("name", DEADLY)
def test_a_real_server_that_died_is_replaced(served, name):
    n_starts = len(served.pids)
    assert make_attack(served, ATTACKS[name]) is not None
    deadline = time.monotonic() + 30
    while len(served.pids) == n_starts and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(served.pids) == n_starts + 1
    said = served.process.stderr.readline()
    while "is started again" not in said:
        said = served.process.stderr.readline()
    assert "is started again now" in said
    assert "std::length_error" in said or "GGML_ASSERT" in said


# --- the guard, beside a server that is none of ggml's -----------------------------------------------------------------


class Slow:
    """A server as ggml's: a client at a time, read in a thread that waits for each message as long as it takes."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        self.endpoint = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.cuts: list[str] = []
        self.opened = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def were_cut(self, why: str) -> bool:
        """Whether all that was said is why, a moment after the server noticed."""
        deadline = time.monotonic() + 10
        while not self.cuts and time.monotonic() < deadline:
            time.sleep(0.01)
        return set(self.cuts) == {why}

    def _serve(self) -> None:
        Guard(
            *self.listener.getsockname(), self.opened.set, self.cuts.append, lambda: self.cuts.append("useless")
        ).start()
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                with client, contextlib.suppress(OSError):
                    self._talk(client)

    def _talk(self, client: socket.socket) -> None:
        if client.recv(len(HELLO), socket.MSG_WAITALL) != HELLO:
            return
        client.sendall(struct.pack("<Q", 28) + bytes(PROTOCOL) + bytes(25))
        while head := client.recv(1):
            if len(head := head + client.recv(8, socket.MSG_WAITALL)) < 9:
                return
            (size,) = struct.unpack("<Q", head[1:])
            if size and len(client.recv(size, socket.MSG_WAITALL)) < size:
                return
            if head[:1] == b"\x0f":
                client.sendall(struct.pack("<QI", 4, 1))
            if head[:1] == b"\x0a":
                time.sleep(1)  # as if it computed


@pytest.fixture
def slow(monkeypatch):
    if not CAN_GUARD:
        pytest.skip("needs Linux, which tells of a server's sockets")
    monkeypatch.setattr(rpc_guard, "GREETING_S", 0.1)
    monkeypatch.setattr(rpc_guard, "AWAITED_GREETING_S", 0.1)
    monkeypatch.setattr(rpc_guard, "STALL_S", 0.1)
    monkeypatch.setattr(rpc_guard, "GONE_S", 0.1)
    monkeypatch.setattr(rpc_guard, "_IDLE_S", 0.01)
    monkeypatch.setattr(rpc_guard, "_SERVED_S", 0.01)
    one = Slow()
    assert one.opened.wait(10)
    yield one
    one.listener.close()


@pytest.mark.parametrize("n_bytes", [1, 9, 32])
def test_who_does_not_greet_is_hung_up_on(slow, n_bytes):
    attacker = Attacker(slow.endpoint)
    attacker.connect().sendall(HELLO[:n_bytes])
    assert find_trouble(slow.endpoint, 10) is None
    assert slow.were_cut("greeting")
    attacker.let_go()


@pytest.mark.parametrize("n_bytes", [3, 9, 100])
def test_who_stops_in_a_message_is_hung_up_on_while_others_wait(slow, n_bytes):
    attacker = Attacker(slow.endpoint)
    one = attacker.greet()
    one.sendall(command(SET_TENSOR, bytes(200), 10_000)[:n_bytes])
    time.sleep(0.3)
    assert slow.cuts == [], "nobody waits"
    assert find_trouble(slow.endpoint, 10) is None
    assert slow.were_cut("message")
    attacker.let_go()


def test_a_server_that_computes_for_nobody_is_replaced_while_others_wait(slow):
    attacker = Attacker(slow.endpoint)
    attacker.greet().sendall(command(10, b""))
    attacker.let_go()
    time.sleep(0.3)
    assert slow.cuts == [], "nobody waits"
    assert find_trouble(slow.endpoint, 10) is None
    assert slow.were_cut("useless")


def test_who_is_silent_between_messages_is_left_alone(slow):
    attacker = Attacker(slow.endpoint)
    one = attacker.greet()
    assert "busy with another client" in find_trouble(slow.endpoint, 0.5)
    assert slow.cuts == []
    one.sendall(command(15, b""))
    assert len(receive(one, 12, time.monotonic() + 5)) == 12, "it is still served"
    attacker.let_go()


# --- the supervisor ----------------------------------------------------------------------------------------------------


def test_single_deaths_cost_no_time_and_a_loop_waits_longer_and_longer():
    deaths = Deaths()
    assert [deaths.add(10.0 * i) for i in range(20)] == [0.0] * PROMPT_STARTS + [1.0] * 15, "six a minute at most"
    deaths = Deaths()
    waits_s = [deaths.add(0.1 * i) for i in range(15)]
    assert waits_s == [0.0] * PROMPT_STARTS + [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]
    assert deaths.add(1000.0) == 0.0, "after a quiet minute all is as before"


#: A server that serves as soon as it is asked, and then does what is told.
SERVER = """
import json, os, sys, time
say = lambda **event: print(json.dumps(event), flush=True)
say(event="hello", build={"llama_cpp_python": "0", "ggml_version": "0", "ggml_commit": "0", "system_info": "", "backends": [], "devices": []})
sys.stdin.readline()
"""


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("os.abort()", r"gave up with abort\(\)"),
        ("os._exit(0)", "by itself with exit code 0"),
        ("os.write(2, b'GGML_ASSERT(x) failed\\n'); os.abort()", r"Its last words: GGML_ASSERT\(x\) failed"),
        ("os.kill(os.getpid(), 9)", "killed from outside"),
        ("print('nonsense', flush=True); time.sleep(60)", "cannot be read"),
        ("os.close(1); time.sleep(60)", "its pipe was closed"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="these deaths are POSIX ones")
def test_a_server_that_served_is_replaced_for_ever_and_why_is_said(monkeypatch, then, said):
    monkeypatch.setattr("harness.runs.worker.DEATH_S", 0.3)
    waits = []
    monkeypatch.setattr(supervising.time, "sleep", waits.append)
    announced, warned = [], []

    def warn(sentence):
        warned.append(sentence)
        if len(warned) == 3:
            raise KeyboardInterrupt

    code = SERVER + "say(event='serving', devices=[], says_open=True); say(event='open')\n" + then
    with pytest.raises(KeyboardInterrupt):
        serve(
            Offer("127.0.0.1:1", (), 1),
            announce=lambda *_: announced.append(1),
            warn=warn,
            command=[sys.executable, "-S", "-c", code],
        )
    assert len(announced) == 3
    assert "started again now:" in warned[0]
    assert "(3 ends so far)" in warned[2]
    for sentence in warned:
        assert re_search(said, sentence)
        assert "\n" not in sentence


def re_search(pattern, text):
    import re

    return re.search(pattern, text)


def test_a_server_that_never_serves_is_given_up():
    warned = []
    with pytest.raises(NativeError, match=r"died 3 times before it served, at last so: .*exit code 7"):
        serve(
            Offer("127.0.0.1:1", (), 1), announce=lambda *_: None, warn=warned.append,
            command=[sys.executable, "-S", "-c", SERVER + "os._exit(7)"],
        )  # fmt: skip
    assert len(warned) == 2


def test_of_many_clients_that_were_hung_up_on_few_sentences_are_said(monkeypatch):
    said, clock = [], itertools.count(0, 0.5)
    monkeypatch.setattr(supervising.time, "monotonic", lambda: float(next(clock)))
    supervisor = supervising._Supervisor(Offer("127.0.0.1:1", (), 1), lambda *_: None, said.append, ["x"])
    for _ in range(100):
        supervisor._warn_of_cut("greeting")
    assert len(said) == 5
    assert "hung up on a client that did not greet" in said[0]
    assert "hung up on 20 clients, the last of which did not greet" in said[1]


# --- where a server listens ----------------------------------------------------------------------------------------------

#: What names mean in these tests, wherever they run.
NAMES = {"localhost": "127.0.0.1", "lan-box": "192.168.1.7", "loop-box": "127.0.0.1", "everywhere": "0.0.0.0"}


@pytest.fixture
def offers(monkeypatch):
    """The offers that a command would have served, with names that mean what `NAMES` says."""
    made = []

    def look_up(host, port, *arguments, **options):
        return look_up_really(NAMES.get(host, host), port, *arguments, **options)

    look_up_really = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(command_module, "find_endpoint", lambda address, port: f"{address}:{port}")
    monkeypatch.setattr(command_module, "serve", lambda offer, **_: made.append(offer.endpoint))
    monkeypatch.setattr(command_module, "choose_threads", lambda: type("Threads", (), {"count": 1}))
    return made


def ask(*arguments):
    return click.testing.CliRunner().invoke(command_module.command, arguments)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2", "127.1", "loop-box", "2130706433"])
def test_loopback_is_served_without_a_word(offers, host):
    result = ask("--host", host)
    assert result.exception is None
    assert len(offers) == 1
    assert offers[0].startswith("127.")


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "0", "00.0.0.0", "192.168.1.7", "lan-box", "everywhere", "169.254.1.1", "255.255.255.255", "8.8.8.8"],
)
def test_the_network_is_served_only_when_it_is_said_in_words(offers, host):
    refused = ask("--host", host)
    assert offers == []
    assert "no password and no encryption" in str(refused.exception)
    assert "--allow-network" in str(refused.exception)
    assert ask("--host", host, "--allow-network").exception is None
    assert len(offers) == 1


def test_localhost_that_means_something_else_is_the_network(offers, monkeypatch):
    monkeypatch.setitem(NAMES, "localhost", "10.0.0.5")
    assert "no password" in str(ask("--host", "localhost").exception)
    assert offers == []


@pytest.mark.parametrize(
    "host", ["::", "::1", "fe80::1", "", "a" * 70, "a..b", "127.0.0.1 ", "127.0.0.1%lo", "1.1.1.1/8", "%", "\udcff"]
)
def test_what_is_no_ipv4_address_is_one_sentence(offers, host):
    error = ask("--host", host).exception
    assert "has no IPv4 address here" in str(error)
    assert offers == []


# --- the client's side ---------------------------------------------------------------------------------------------------

GREETING = struct.pack("<Q", 28) + bytes(PROTOCOL) + bytes(25)
ANSWERS = GREETING + struct.pack("<QI", 4, 1)


@contextlib.contextmanager
def answering(answer: bytes, *, then: str, pause_s: float = 0.0):
    """A server that sends a part of what it should, whatever it is asked, and then hangs up or holds on."""
    listener = socket.create_server(("127.0.0.1", 0))
    held = []

    def serve_all() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                held.append(client)
                for place in range(len(answer)) if pause_s else [slice(None)]:
                    client.sendall(bytes([answer[place]]) if pause_s else answer)
                    time.sleep(pause_s)
                if then == "close":
                    client.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=serve_all, daemon=True).start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    for one in (listener, *held):
        one.close()


@pytest.mark.parametrize("n_bytes", range(len(ANSWERS)))
def test_a_server_that_hangs_up_after_any_byte_is_said(n_bytes):
    with answering(ANSWERS[:n_bytes], then="close") as endpoint:
        trouble = find_trouble(endpoint, 5)
    assert trouble is not None
    assert trouble.startswith((endpoint, "No RPC server"))
    assert trouble.endswith(".")


@pytest.mark.parametrize("n_bytes", [0, 1, 8, 35, 36, 40, 47])
def test_a_server_that_stops_after_any_byte_is_not_waited_for(n_bytes):
    with answering(ANSWERS[:n_bytes], then="hold") as endpoint:
        begun = time.monotonic()
        assert "no answer within 0.2 s" in find_trouble(endpoint, 0.2)
        assert time.monotonic() - begun < 5


def test_a_byte_at_a_time_does_not_make_the_wait_longer():
    with answering(ANSWERS, then="hold", pause_s=0.05) as endpoint:
        assert "no answer within 0.3 s" in find_trouble(endpoint, 0.3)


@pytest.mark.parametrize("size", [0, 1, 27, 29, 1 << 32, (1 << 64) - 1], ids=lambda size: f"{size} bytes")
def test_an_answer_of_another_size_is_no_server_of_llama_cpp(size):
    with answering(struct.pack("<Q", size) + bytes(28), then="hold") as endpoint:
        assert "does not answer as an RPC server of llama.cpp does" in find_trouble(endpoint, 5)


@pytest.mark.parametrize("host", ["a" * 70, "a..b", "\udcff", "no such host", ""])
def test_a_name_that_can_be_none_is_one_sentence(host, capfd):
    assert find_trouble(f"{host}:50052", 5)
    assert "Traceback" not in capfd.readouterr().err


def test_a_name_whose_look_up_hangs_is_not_waited_for(monkeypatch):
    is_over = threading.Event()

    def look_up(_host):
        is_over.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(rpc.socket, "gethostbyname", look_up)
    begun = time.monotonic()
    assert "no answer within 0.1 s" in find_trouble("far-away:50052", 0.1)
    assert time.monotonic() - begun < 5
    is_over.set()


def test_a_name_that_means_nothing_is_said(monkeypatch):
    def fail(_host):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(rpc.socket, "gethostbyname", fail)
    assert "There is no machine by the name in far-away:50052" in find_trouble("far-away:50052", 1)


def test_a_port_that_is_taken_is_one_sentence():
    from harness.errors import UsageError

    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(UsageError, match="another program listens there"),
    ):
        supervising.find_endpoint("127.0.0.1", other.getsockname()[1])
    assert supervising.find_endpoint("127.0.0.1", port := free_port()) == f"127.0.0.1:{port}"
