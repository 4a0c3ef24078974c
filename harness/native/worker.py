"""The child that measures: runs llama.cpp in-process, holds the hot loop, and may die without taking anybody along.

It reads one command a line from stdin, ``{"measure": <RunSpec>}`` or ``{"<module of jobs>": <its request>}``, and writes events as JSON
lines to the pipe that was its stdout: ``hello``, ``phase``, ``loaded``, ``sample``, … and ``done`` or ``refused`` last. Nothing is
written inside a timed region. A job is a function ``run(runtime, request, emit)`` of its module.
Everything else that is printed, llama.cpp's log first of all, goes to stderr, where the parent looks for last words.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

from harness.codec import encode
from harness.errors import HarnessError, Outcome
from harness.host.machine import judge_load, read_load
from harness.host.rpc import has_loopback
from harness.native.jobs import Emit
from harness.native.measure import measure, measure_dispatch
from harness.native.slowdown import read_share, slow_down
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Load, Sample
from harness.spec import RunSpec

#: The parent wakes up to hear an event; on a machine whose every core is about to be timed it is given the time to fall asleep again.
SETTLE_S = 0.01


class Bench:
    """Measures one cell after the other and keeps the model between cells that can share it.

    runtime is a `harness.native.engine.Runtime` or anything with its methods.
    """

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime
        self._model: Any = None
        self._key: tuple[Any, ...] = ()
        self._rss_before = self._rss_loaded = 0

    def describe(self) -> dict[str, Any]:
        found: dict[str, Any] = encode(self.runtime.describe())
        return found

    def run(self, spec: RunSpec, emit: Emit, slowdown: float | None = None) -> None:
        """Measure a spec; every finding leaves through `emit` as soon as it is whole.

        slowdown is a share by which each decode is made longer, for tests (`harness.native.slowdown`); None: the environment's.

        Raises
        ------
        NativeError : llama.cpp refused the file, the context or a batch.
        """
        from harness.native.engine import resident_bytes

        share = read_share() if slowdown is None else slowdown
        self._load(spec, emit)
        emit("loaded", {"model": encode(self._model.describe())})
        emit("phase", {"phase": "context", "index": 0, "count": 1})
        with contextlib.closing(self._model.open(spec)) as session:
            cautions = self._time(slow_down(session, share), spec, emit)
            if share:
                cautions = (*cautions, Caution(CautionCause.SLOWED_DOWN, distrust=True, slowdown=share))
            durations = self._model.load_duration_ns, session.context_duration_ns
            load = Load(*durations, self._rss_before, self._rss_loaded, resident_bytes())
            dispatch_ns = measure_dispatch(time.perf_counter_ns) if spec.n_gen else None
            done = {"resolved": session.describe(), "load": load, "cautions": cautions}
            emit("done", encode({**done, "dispatch_ns_per_token": dispatch_ns}))

    def _load(self, spec: RunSpec, emit: Emit) -> None:
        from harness.native.engine import resident_bytes

        if self._model is not None and spec.load_key() == self._key:
            return
        self.close()
        emit("phase", {"phase": "load", "index": 0, "count": 1})
        if spec.rpc and not self.runtime.rpc:
            self.runtime.attach_rpc(spec.rpc)
            emit("build", {"build": self.describe()})  # the devices are others now than when we said hello
        self._rss_before = resident_bytes()
        self._model, self._key = self.runtime.load(spec), spec.load_key()
        self._rss_loaded = resident_bytes()

    @staticmethod
    def _time(session: Any, spec: RunSpec, emit: Emit) -> Any:
        def report(sample: Sample) -> None:
            emit("sample", encode(sample))

        def progress(phase: str, index: int, count: int) -> None:
            emit("phase", {"phase": phase, "index": index, "count": count})
            time.sleep(SETTLE_S)

        time.sleep(spec.delay_s)
        # A collection in the timed loop would be a spike that is nobody's but Python's.
        gc.collect()
        gc.disable()
        try:
            before = read_load(time.monotonic())
            measure(session, time.perf_counter_ns, spec, report, progress)
            after = read_load(time.monotonic())
        finally:
            gc.enable()
        cautions = judge_load(before, after, spec.n_threads or 1)
        if has_loopback(spec.rpc):
            # The server of a loopback run is one of the others, and its work is what is measured.
            cautions = tuple(dataclasses.replace(item, is_server_here=True, distrust=False) for item in cautions)
        return cautions

    def close(self) -> None:
        if self._model is not None:
            self._model.close()
            self._model = None


def serve(bench: Bench, commands: queue.SimpleQueue[dict[str, Any] | None], emit: Emit) -> None:
    """Answer commands until there are no more."""
    emit("hello", {"build": bench.describe()})
    while (command := commands.get()) is not None:
        try:
            _answer(bench, command, emit)
        except HarnessError as error:
            reason, trouble = getattr(error, "reason", None), getattr(error, "trouble", None)
            is_question = error.outcome is Outcome.QUESTION
            emit("refused", {"message": str(error), "reason": reason, "trouble": trouble, "is_question": is_question})
    bench.close()


def _answer(bench: Bench, command: dict[str, Any], emit: Emit) -> None:
    if "measure" in command:
        bench.run(RunSpec.from_dict(command["measure"]), emit, command.get("slowdown"))
        return
    [(job, request)] = command.items()
    bench.close()  # a job starts from a process that holds no model
    importlib.import_module(f"harness.native.jobs.{job}").run(bench.runtime, request, emit)


def _read_commands(stream: TextIO, commands: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    """Pass commands on; when the parent is gone there is nobody to measure for, whatever llama.cpp is doing."""
    for line in stream:
        command = json.loads(line)
        commands.put(command or None)
        if not command:
            return  # an orderly goodbye
    os._exit(0)


def _load_llama() -> Any:
    from harness.native.engine import Runtime

    return Runtime()


def main(make_runtime: Callable[[], Any] | None = None) -> None:
    """Run the worker on this process's stdin and stdout."""
    # llama.cpp and its drivers may print: keep the pipe for events, and send everything else to stderr.
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def emit(event: str, body: dict[str, Any]) -> None:
        events.write(json.dumps({"event": event, **body}) + "\n")
        events.flush()

    try:
        bench = Bench((make_runtime or _load_llama)())
    except (HarnessError, ImportError, OSError) as error:
        emit("refused", {"message": str(error)})
        sys.exit(3)

    def give_up(sentence: str) -> None:
        emit("refused", {"message": sentence})
        os._exit(3)

    bench.runtime.give_up = give_up
    commands: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_read_commands, args=(sys.stdin, commands), daemon=True).start()
    serve(bench, commands, emit)


if __name__ == "__main__":
    main()
