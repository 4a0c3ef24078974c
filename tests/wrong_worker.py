"""A worker without an engine that does one thing wrong, once: `python -S tests/wrong_worker.py FAULT STAGE FOLDER`.

It measures like `tests.noisy_worker`, and misbehaves at a stage of the cell of DEADLY_PROMPT tokens; FOLDER/done says that it has, so
that the next worker does not, FOLDER/hangs that it begins to. Nothing of harness is imported: it starts in a few milliseconds.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Iterator

DEADLY_PROMPT = 13
QUIET = {"wall_ns": 1_000_000, "n_cpus": 2, "n_cores": 2}
STAGES = ("start", "load", "context", "warmup", "repetition", "between", "ending")


def say(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def emit(event: str, **body: object) -> None:
    say(json.dumps({"event": event, **body}).encode() + b"\n")


def hang() -> None:
    (FOLDER / "hangs").touch()
    time.sleep(600)


def stop() -> None:
    (FOLDER / "hangs").touch()
    os.kill(os.getpid(), signal.SIGSTOP)


def spin() -> None:
    (FOLDER / "hangs").touch()
    while True:
        pass


def die_by(name: str, words: str = "") -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.write(2, words.encode())
    os.kill(os.getpid(), getattr(signal, name))
    time.sleep(600)


def close_and_live(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
    time.sleep(600)


def leave_grandchild(then: str) -> None:
    """Something that holds every pipe open and outlives its parent."""
    if pid := os.fork():
        (FOLDER / "grandchild").write_text(str(pid))
        if then == "exit":
            os._exit(0)
        die_by(then)
    time.sleep(600)


def flood_words(n_bytes: int) -> None:
    piece = b"\x1b[31m\x00\x07\xff" * 10_000
    for _ in range(0, n_bytes, len(piece)):
        os.write(2, piece)


def say_nonsense(text: bytes) -> None:
    say(text)
    time.sleep(600)


def say_late() -> None:
    (FOLDER / "hangs").touch()
    time.sleep(1)
    emit("done", resolved=TOLD["resolved"], load=TOLD["load"], cautions=[], dispatch_ns_per_token=None)


def flood_events() -> None:
    line = json.dumps({"event": "phase", "phase": "repetition", "index": 0, "count": 1}).encode() + b"\n"
    for _ in range(60):
        say(line * 100)


FAULTS = {
    "abort": lambda: die_by("SIGABRT", "file.cpp:1: GGML_ASSERT(it_lives) failed\n"),
    "segfault": lambda: die_by("SIGSEGV"),
    "bus error": lambda: die_by("SIGBUS"),
    "illegal instruction": lambda: die_by("SIGILL"),
    "killed": lambda: die_by("SIGKILL"),
    "ended": lambda: die_by("SIGTERM"),
    "exit 0": lambda: os._exit(0),
    "exit 1": lambda: os._exit(1),
    "exception": lambda: [][1],
    "uncaught C++ exception": lambda: die_by(
        "SIGABRT", "terminate called after throwing an instance of 'std::out_of_range'\n  what():  vector::at\n"
    ),
    "bad_alloc": lambda: die_by(
        "SIGABRT", "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"
    ),
    "hang": hang,
    "stopped": stop,
    "spin": spin,
    "answers late": say_late,
    "stdout closed": lambda: close_and_live(1),
    "stdin closed": lambda: os.close(0),
    "both closed": lambda: close_and_live(0, 1),
    "all closed": lambda: close_and_live(0, 1, 2),
    "half a message": lambda: (say(b'{"event": "pha'), os._exit(0)),
    "half a message, then abort": lambda: (say(b'{"event": "pha'), die_by("SIGABRT")),
    "half a message, then nothing": lambda: (say(b'{"event": "pha'), hang()),
    "no JSON": lambda: say_nonsense(b"ggml_cuda_init: found 1 device\n"),
    "an empty line": lambda: say_nonsense(b"\n"),
    "not UTF-8": lambda: say_nonsense(b'{"event": "\xff\xfe"}\n'),
    "zeros": lambda: say_nonsense(bytes(100) + b"\n"),
    "no object": lambda: say_nonsense(b'["event"]\n'),
    "no event": lambda: say_nonsense(b'{"error": 1}\n'),
    "no name": lambda: say_nonsense(b'{"event": {}}\n'),
    "wrong fields": lambda: say_nonsense(b'{"event": "sample", "duration_ns": "x"}\n'),
    "missing fields": lambda: say_nonsense(b'{"event": "done"}\n'),
    "wrong phase": lambda: say_nonsense(b'{"event": "phase", "phase": 7, "index": [], "count": null}\n'),
    "nested": lambda: say_nonsense(b'{"event": ' + b"[" * 100_000 + b"\n"),
    "no end of a line": lambda: (say(b'{"event": "' + b"x" * 70_000_000), hang()),
    "leaves a child": lambda: leave_grandchild("exit"),
    "leaves a child, aborts": lambda: leave_grandchild("SIGABRT"),
    "flood, then abort": lambda: (flood_words(20_000_000), die_by("SIGABRT")),
    "flood": lambda: flood_words(20_000_000),
    "flood of events": flood_events,
    "slow": lambda: time.sleep(0.3),
}


def misbehave(stage: str) -> None:
    if stage == STAGE and not (FOLDER / "done").exists():
        (FOLDER / "done").touch()
        FAULTS[FAULT]()


def measure(command: dict[str, object]) -> None:
    spec = command["measure"]
    is_deadly = spec["n_prompt"] == DEADLY_PROMPT

    def reach(stage: str) -> None:
        if is_deadly:
            misbehave(stage)

    emit("phase", phase="load", index=0, count=1)
    reach("load")
    emit("loaded", model=TOLD["model"])
    emit("phase", phase="context", index=0, count=1)
    reach("context")
    emit("phase", phase="warmup", index=0, count=1)
    reach("warmup")
    for index in range(command.get("repetitions") or spec["repetitions"]):
        emit("phase", phase="repetition", index=index, count=1)
        if index == 1:
            reach("repetition")
        emit(
            "sample",
            duration_ns=1_000_000,
            prompt_ns=None,
            token_ns=[],
            is_warmup=False,
            conditions=QUIET,
        )
    emit("done", resolved=TOLD["resolved"], load=TOLD["load"], cautions=[], dispatch_ns_per_token=None)
    reach("between")


def commands() -> Iterator[str]:
    try:
        yield from sys.stdin
    except OSError:
        if STAGE == "between":  # what it was told in time is lost, and nobody can know
            (FOLDER / "hangs").touch()
        time.sleep(600)


def main() -> None:
    misbehave("start")
    emit("hello", build=TOLD["build"])
    for line in commands():
        command = json.loads(line)
        if not command:
            misbehave("ending")
            return
        if "measure" in command:
            measure(command)
            continue
        emit("phase", phase="repetition", index=0, count=1)
        misbehave("repetition")
        emit("done")


if __name__ == "__main__":
    FAULT, STAGE, FOLDER = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    lines = (pathlib.Path(__file__).parent / "recorded" / "pp-tg.jsonl").read_text(encoding="utf-8").splitlines()
    TOLD = json.loads(lines[0])
    main()
