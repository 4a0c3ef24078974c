"""Attack a supervised RPC server on loopback, and keep how long it took until it served again, at most.

    .venv/bin/python scripts/rpc_attacks.py [--only WORD] [--out FOLDER]

Each attack is made on a server that serves; then somebody who greets as llama.cpp does tries until he is answered, while whoever
attacked and holds a connection still holds it. Time counts from the attack's last act. What was found is kept after each attack;
`tests/test_rpc_attacks.py` makes a few of them. Bounds: loopback alone, at most 200 connections at once, 20 s for each attack.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from figures import RELIABILITY_FOLDER, Figure, keep  # noqa: E402

from harness.host.machine import describe_machine  # noqa: E402
from harness.host.rpc import find_trouble, receive, split_endpoint  # noqa: E402
from tests.rpc_server import Served, rpc_server  # noqa: E402

#: Somebody who tries waits so long for an answer, and in all.
TRY_S, GIVE_UP_S = 2.0, 20.0

#: A supervisor whose server died so often is replaced, so that no restart is put off.
MAX_DEATHS = 4

#: The greeting: number, size, capabilities. Source: RPC_CMD_HELLO, rpc_msg_hello_req in ggml-rpc.cpp.
HELLO = struct.pack("<BQ", 14, 24) + bytes(24)
ALLOC_BUFFER, BUFFER_CLEAR, SET_TENSOR, GET_TENSOR, GRAPH_COMPUTE, INIT_TENSOR = 0, 5, 6, 8, 10, 12
N_COMMANDS = 19


class Attacker:
    """Connections to one server, which stay open until it is let go."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint, self._place = endpoint, split_endpoint(endpoint)
        self._open: list[socket.socket] = []
        self.is_over = threading.Event()

    def connect(self) -> socket.socket:
        """A connection, or at least the attempt to make one."""
        one = socket.socket()
        self._open.append(one)
        one.settimeout(0.5)
        with contextlib.suppress(OSError):
            one.connect(self._place)
        return one

    def greet(self) -> socket.socket:
        """A connection that was greeted and answered."""
        one = self.connect()
        one.settimeout(5)
        one.sendall(HELLO)
        with contextlib.suppress(OSError):
            receive(one, 36, time.monotonic() + 5)
        return one

    def trickle(self, one: socket.socket, data: bytes, pause_s: float = 1.0) -> None:
        """Send a byte at a time, from now on."""

        def send() -> None:
            with contextlib.suppress(OSError):
                for byte in data:
                    one.sendall(bytes([byte]))
                    if self.is_over.wait(pause_s):
                        return

        threading.Thread(target=send, daemon=True).start()

    def let_go(self) -> None:
        """Close everything."""
        self.is_over.set()
        for one in self._open:
            one.close()


Attack = Callable[[Attacker], None]


def say(data: bytes, *, greeted: bool = False, held: bool = False, reset: bool = False) -> Attack:
    """Send some bytes, after a greeting or instead of one; then close, close without a goodbye, or hold on."""

    def attack(attacker: Attacker) -> None:
        one = attacker.greet() if greeted else attacker.connect()
        with contextlib.suppress(OSError):
            one.sendall(data)
        if reset:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if not held:
            one.close()

    return attack


def at_once(n: int, data: bytes, *, held: bool) -> Attack:
    """Many clients that say the same."""
    each = say(data, held=held)

    def attack(attacker: Attacker) -> None:
        for _ in range(n):
            each(attacker)

    return attack


def slowly(n: int, data: bytes, *, greeted: bool) -> Attack:
    """Clients that send a byte a second."""

    def attack(attacker: Attacker) -> None:
        for _ in range(n):
            attacker.trickle(attacker.greet() if greeted else attacker.connect(), data)

    return attack


def command(number: int, body: bytes, size: int | None = None) -> bytes:
    """A message, whose announced size need not be true."""
    return struct.pack("<BQ", number, len(body) if size is None else size) + body


def tensor(
    *, op: int = 0, buffer: int = 0, data: int = 0, ne: int = 32, kind: int = 0, sources: tuple[int, ...] = ()
) -> bytes:
    """A tensor as it is sent. Source: rpc_tensor in ggml-rpc.cpp."""
    head = struct.pack("<QIQ4I4II", 1, kind, buffer, ne, 1, 1, 1, 4, 4 * ne, 4 * ne, 4 * ne, op)
    return head + bytes(64) + struct.pack("<i10QQQQ", 0, *(*sources, *[0] * 10)[:10], 0, 0, data) + bytes(64) + bytes(4)


def graph(one: bytes) -> bytes:
    """A graph of one node. Source: serialize_graph in ggml-rpc.cpp."""
    return struct.pack("<IIQI", 0, 1, 1, 1) + one


def allocate(attacker: Attacker) -> tuple[socket.socket, int]:
    """A client that was given a buffer, and the buffer's address. The server of the attack before may end while it answers.

    Raises
    ------
    TimeoutError : none was given.
    """
    end_s = time.monotonic() + GIVE_UP_S
    while time.monotonic() < end_s:
        with contextlib.suppress(OSError):
            one = attacker.greet()
            one.sendall(command(ALLOC_BUFFER, struct.pack("<IQ", 0, 4096)))
            if len(answer := receive(one, 24, time.monotonic() + 5)) == 24:
                (pointer,) = struct.unpack_from("<Q", answer, 8)
                return one, pointer
    raise TimeoutError("nobody gives a buffer")


def beyond_its_buffer(attacker: Attacker) -> None:
    """A tensor that ends behind the buffer it says it is in, which is an assertion."""
    one, pointer = allocate(attacker)
    one.sendall(command(SET_TENSOR, tensor(buffer=pointer, data=1, ne=1 << 20) + bytes(64)))


def vanish_in_a_graph(attacker: Attacker) -> None:
    """Ask for work and be gone before it is done."""
    one = attacker.greet()
    for _ in range(20):
        one.sendall(command(GRAPH_COMPUTE, graph(tensor())))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


#: A client that says a line when it measures.
_CLIENT = """
import sys, harness

def hear(event):
    if "repetition" in getattr(event, "task", ""):
        print("measures", flush=True)

settings = {"n_prompt": 512, "n_gen": 0, "n_gpu_layers": 99, "repetitions": 50}
harness.measure(rpc=sys.argv[1], on_event=hear, **settings)
"""


def kill_a_client(attacker: Attacker) -> None:
    """A real client that is killed, with its worker, while the server computes for it."""
    command_line = [sys.executable, "-c", _CLIENT, attacker.endpoint]
    with subprocess.Popen(
        command_line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as client:
        assert client.stdout is not None
        line = client.stdout.readline()
        if not line:
            raise RuntimeError("the client did not measure")
        time.sleep(1)
        client.kill()


def list_attacks() -> Iterator[tuple[str, Attack]]:
    """Every attack by what it does."""
    chance = random.Random(1)
    for seed in range(10):
        yield f"garbage {seed}", say(chance.randbytes(chance.choice((1, 9, 33, 4096, 1 << 20))))
    yield "HTTP", say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", held=True)
    yield "TLS", say(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), held=True)
    for n in range(len(HELLO) + 1):
        yield f"closes after {n} bytes of its greeting", say(HELLO[:n])
        yield f"resets after {n} bytes of its greeting", say(HELLO[:n], reset=True)
    for n in (0, 1, 8, 9, 32):
        yield f"stops after {n} bytes of its greeting", say(HELLO[:n], held=True)
    for size in (0, 23, 25, 1 << 32, 1 << 63, (1 << 64) - 1):
        yield f"announces a greeting of {size} bytes", say(struct.pack("<BQ", 14, size), held=True)
    for number in (*range(N_COMMANDS + 1), 255):
        for size in (0, 1, 1 << 40, (1 << 63) + 5, (1 << 64) - 1):
            yield f"command {number} of {size} bytes", say(command(number, b"", size), greeted=True)
    for number in (ALLOC_BUFFER, SET_TENSOR, GET_TENSOR, GRAPH_COMPUTE):
        yield f"stops in the head of command {number}", say(command(number, b"")[:5], greeted=True, held=True)
        yield f"stops in the body of command {number}", say(command(number, b"half", 1 << 20), greeted=True, held=True)
        yield f"closes in the body of command {number}", say(command(number, b"half", 1 << 20), greeted=True)
        yield f"garbage in command {number}", say(command(number, chance.randbytes(400)), greeted=True)
    yield "greets and goes", say(b"", greeted=True)
    yield "allocates a terabyte", say(command(ALLOC_BUFFER, struct.pack("<IQ", 0, 1 << 40)), greeted=True)
    yield "announces 64 GB", say(command(SET_TENSOR, b"x", 64 << 30), greeted=True)
    yield "a tensor beyond its buffer", beyond_its_buffer
    yield "a type that there is not", say(command(INIT_TENSOR, tensor(kind=10_000)), greeted=True)
    for op in (2, 25, 60, 10_000):
        yield f"a node without sources, operation {op}", say(command(GRAPH_COMPUTE, graph(tensor(op=op))), greeted=True)
    yield "a node that is its own source", say(command(GRAPH_COMPUTE, graph(tensor(op=2, sources=(1,)))), greeted=True)
    yield (
        "a graph of four thousand million nodes",
        say(command(GRAPH_COMPUTE, struct.pack("<II", 0, 2**32 - 1) + bytes(64)), greeted=True),
    )
    yield "vanishes in a graph", vanish_in_a_graph
    yield "a client is killed while it measures", kill_a_client
    yield "greets a byte a second", slowly(1, HELLO, greeted=False)
    yield "three greet a byte a second", slowly(3, HELLO, greeted=False)
    yield "a message a byte a second", slowly(1, command(SET_TENSOR, b"", 1 << 20) + bytes(60), greeted=True)
    yield "200 at once that say nothing", at_once(200, b"", held=True)
    yield "200 at once with garbage", at_once(200, b"\xff" * 100, held=True)
    yield "200 at once that greet and go", at_once(200, HELLO, held=False)


def wait_until_served(endpoint: str) -> float | None:
    """How long it takes until somebody who greets is answered, in s; None where that is too long."""
    begun_s = time.monotonic()
    while time.monotonic() - begun_s < GIVE_UP_S:
        if find_trouble(endpoint, TRY_S) is None:
            return time.monotonic() - begun_s
        time.sleep(0.005)
    return None


def make_attack(served: Served, attack: Attack) -> float | None:
    """One attack on a server: how long it was not there, in s; None where it did not come back."""
    attacker = Attacker(served.endpoint)
    try:
        with contextlib.suppress(OSError):
            attack(attacker)
        time.sleep(0.01)  # what was sent is read
        back_s = wait_until_served(served.endpoint)
    finally:
        attacker.let_go()
    # A death shows a moment later: of what was read last.
    time.sleep(0.02)
    again_s = wait_until_served(served.endpoint)
    return None if back_s is None or again_s is None else max(back_s, again_s)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD", help="make the attacks whose name holds this")
    parser.add_argument("--out", type=pathlib.Path, default=RELIABILITY_FOLDER)
    asked = parser.parse_args()
    attacks = [(name, attack) for name, attack in list_attacks() if asked.only in name]
    if not attacks:
        parser.error(f"no attack's name holds {asked.only!r}")
    found: dict[str, float | None] = {}
    deaths: dict[str, list[str]] = {}
    while len(found) < len(attacks):
        with rpc_server() as served:
            told = _collect(served)
            time.sleep(3)  # its spare is ready
            for name, attack in attacks[len(found) :]:
                n_starts, n_told = len(served.pids), len(told)
                found[name] = make_attack(served, attack)
                time.sleep(0.05)
                if len(served.pids) > n_starts or len(told) > n_told:
                    deaths[name] = told[n_told:]
                    time.sleep(2.5)  # the next spare
                took = "not back" if found[name] is None else f"{found[name]:.3f} s"
                print(f"{name}: {took}{''.join(' · ' + line for line in told[n_told:])}", flush=True)
                _keep(found, deaths, asked.out)
                if found[name] is None or len(served.pids) > MAX_DEATHS:
                    break
    return 1 if any(back_s is None for back_s in found.values()) else 0


def _collect(served: Served) -> list[str]:
    """What the supervisor says on stderr, as it comes."""
    lines: list[str] = []

    def read() -> None:
        assert served.process.stderr is not None
        for line in served.process.stderr:
            lines.append(line.strip())

    threading.Thread(target=read, daemon=True).start()
    return lines


def _keep(found: dict[str, float | None], deaths: dict[str, list[str]], folder: pathlib.Path) -> None:
    """Keep what was found so far."""
    longest_s = max(GIVE_UP_S if back_s is None else back_s for back_s in found.values())
    details = {"seconds": found, "said": deaths}
    keep("rpc_attacks", {"rpc.back_s": Figure(longest_s, n=len(found))}, details, describe_machine(), folder)


if __name__ == "__main__":
    sys.exit(main())
