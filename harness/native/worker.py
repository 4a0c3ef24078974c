"""The child that measures: runs llama.cpp in-process, holds the hot loop, and may die without taking anybody along.

It reads one command a line from stdin, ``{"measure": <RunSpec>, …}`` (`BlockRequest`) or ``{"<module of jobs>": <its request>}``, and
writes events as JSON lines to the pipe that was its stdout: ``hello``, ``phase``, ``loaded``, ``sample``, … and ``done`` or ``refused``
last. Nothing is written inside a timed region. A job is a function ``run(runtime, request, emit)`` of its module.
Everything else that is printed, llama.cpp's log first of all, goes to stderr, where the parent looks for last words.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

from harness.codec import decode, encode
from harness.errors import HarnessError, NativeError, Outcome
from harness.evidence.medians import samples_needed
from harness.host.noise import Watcher
from harness.host.rpc import has_loopback
from harness.memory.placement import find_too_many_pieces
from harness.native.jobs import Emit
from harness.native.measure import Block, measure, measure_dispatch
from harness.native.shelf import Loaded, Needs, Open, Shelf
from harness.native.slowdown import read_share, slow_down
from harness.native.threads import choose_cpus
from harness.native.versions import import_binding
from harness.native.watching import SETTLE_S
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Load, Resolved, Sample, Stray
from harness.records.native_errors import MEMORY
from harness.spec import RunSpec


@dataclass(frozen=True, slots=True)
class BlockRequest:
    """One command: a block of repetitions of a cell.

    Its context is opened for the block and closed after it; keep leaves it open, with its filled depth, for the cell's next block.
    repetitions is the spec's number unless said; is_first says that no block of the cell came before, so that it may need warming up.
    needs is what the cell takes, where the parent knows. slowdown is a share by which each decode is made longer, for tests
    (`harness.native.slowdown`); None: the environment's.
    """

    measure: RunSpec
    repetitions: int | None = None
    keep: bool = False
    is_first: bool = True
    needs: Needs | None = None
    slowdown: float | None = None


class Bench:
    """Measures blocks of cells and keeps models, and contexts where it is asked to, as long as there is memory for them.

    runtime is a `harness.native.engine.Runtime` or anything with its methods.
    """

    def __init__(self, runtime: Any) -> None:
        from harness.native.engine import resident_bytes

        self.runtime = runtime
        self._resident_bytes = resident_bytes
        self._shelf = Shelf(runtime, resident_bytes)
        self._strays: dict[RunSpec, tuple[Stray, ...]] = {}

    def describe(self) -> dict[str, Any]:
        found: dict[str, Any] = encode(self.runtime.describe())
        return found

    def run(self, request: BlockRequest, emit: Emit) -> None:
        """Measure a block; every finding leaves through `emit` as soon as it is whole.

        Raises
        ------
        NativeError : llama.cpp refused the file, the context or a batch.
        """
        spec = request.measure
        loaded = self._load(request, emit)
        emit("loaded", {"model": encode(loaded.model.describe())})
        if self._shelf.find(spec) is None:
            emit("phase", {"phase": "context", "index": 0, "count": 1})
        self.runtime.bind(spec)
        opened = self._shelf.open(spec, request.needs, keep=request.keep)
        is_kept = False
        try:
            cautions = self._time(opened, request, emit)
            session = opened.session
            durations = loaded.model.load_duration_ns, session.context_duration_ns
            after = self._resident_bytes() if opened.is_alone else None  # of this cell alone, or of nobody
            dispatch_ns = measure_dispatch(time.perf_counter_ns) if spec.n_gen else None
            resolved = self._look_for_strays(loaded, spec, session.describe())
            done = {"resolved": resolved, "load": Load(*durations, *loaded.rss_bytes, after)}
            is_kept = request.keep
        finally:
            self._shelf.rest()
            if not is_kept:
                self._shelf.drop(spec, opened)
        emit("done", encode({**done, "cautions": cautions, "dispatch_ns_per_token": dispatch_ns}))

    def _look_for_strays(self, loaded: Loaded, spec: RunSpec, resolved: Resolved) -> Resolved:
        """Name what runs elsewhere than its layer, where a token is cut into more pieces than the layers' places explain.

        Once a cell, and after its block: it takes a context of its own.
        """
        if find_too_many_pieces(spec, resolved.layers_by_device, resolved.n_graph_splits) is None:
            return resolved
        if spec not in self._strays:
            from harness.native.strays import find_strays

            self._strays[spec] = ()
            with contextlib.suppress(NativeError):  # there may be no memory left for it
                self._strays[spec] = find_strays(loaded.model, spec)
        return dataclasses.replace(resolved, strays=self._strays[spec])

    def _load(self, request: BlockRequest, emit: Emit) -> Loaded:
        spec = request.measure
        if not self._shelf.is_loaded(spec):
            emit("phase", {"phase": "load", "index": 0, "count": 1})
            if spec.rpc and not self.runtime.rpc:
                self.runtime.attach_rpc(spec.rpc)
                emit("build", {"build": self.describe()})  # the devices are others now than when we said hello
        return self._shelf.load(spec, request.needs)

    def _plan(self, request: BlockRequest) -> Block:
        """A whole warm-up where it was asked for; else where nobody looks whether one was missing, or a card has to get ready."""
        spec = request.measure
        n = request.repetitions or spec.repetitions or samples_needed()
        is_wanted = spec.warmup
        if is_wanted is None:
            is_wanted = not spec.seeks_warmups or (spec.n_gpu_layers != 0 and self.runtime.free_on_cards() is not None)
        return Block(n, request.is_first and is_wanted)

    def _time(self, opened: Open, request: BlockRequest, emit: Emit) -> tuple[Caution, ...]:
        spec, block = request.measure, self._plan(request)
        share = read_share() if request.slowdown is None else request.slowdown
        engine = slow_down(opened.session, share)

        def report(sample: Sample) -> None:
            emit("sample", encode(sample))

        def progress(phase: str, index: int, count: int) -> None:
            emit("phase", {"phase": phase, "index": index, "count": count})
            if phase == "repetition":  # the clock starts after no other
                time.sleep(SETTLE_S)

        if request.is_first:
            time.sleep(spec.delay_s)
        # A collection in the timed loop would be a spike that is nobody's but Python's.
        gc.collect()
        gc.disable()
        try:
            # The server of a loopback run is one of the others, and its work is what is measured.
            cpus = choose_cpus(spec, self.runtime.cpus)
            watch = Watcher(spec.n_threads_busy or 1, is_server_here=has_loopback(spec.rpc), cpus=cpus)
            measure(engine, time.perf_counter_ns, spec, report, progress, block, opened.depth, watch)
        finally:
            gc.enable()
        return (Caution(CautionCause.SLOWED_DOWN, distrust=True, slowdown=share),) if share else ()

    def close(self) -> None:
        self._shelf.close()


def serve(bench: Bench, commands: queue.SimpleQueue[dict[str, Any] | None], emit: Emit) -> None:
    """Answer commands until there are no more."""
    emit("hello", {"build": bench.describe()})
    # What was imported stays: looking for circles in it would take 20 ms of every block.
    gc.collect()
    gc.freeze()
    while (command := commands.get()) is not None:
        try:
            _answer(bench, command, emit)
        except HarnessError as error:
            reason, trouble = getattr(error, "reason", None), getattr(error, "trouble", None)
            is_question = error.outcome is Outcome.QUESTION
            emit("refused", {"message": str(error), "reason": reason, "trouble": trouble, "is_question": is_question})
        except MemoryError:
            message = "There is not enough memory left for the measuring process; ask for less, or end other programs."
            emit("refused", {"message": message, "reason": "no memory left", "trouble": MEMORY})
    bench.close()


def _answer(bench: Bench, command: dict[str, Any], emit: Emit) -> None:
    if "measure" in command:
        bench.run(decode(BlockRequest, command), emit)
        return
    [(job, request)] = command.items()
    bench.close()  # a job starts from a process that holds no model
    importlib.import_module(f"harness.native.jobs.{job}").run(bench.runtime, request, emit)


def _read_commands(stream: TextIO, commands: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    """Pass commands on; when the parent is gone there is nobody to measure for, whatever llama.cpp is doing.

    It may go in the middle of a command, which is no JSON then.
    """
    with contextlib.suppress(ValueError):
        for line in stream:
            command = json.loads(line)
            commands.put(command or None)
            if not command:
                return  # an orderly goodbye
    os._exit(0)


def _end_with_parent() -> None:
    """Have the kernel end this process when its parent dies: code that never lets go of Python's lock would not see stdin close.

    Only where the parent says that its thread lives as long as itself. Source: prctl(2), PR_SET_PDEATHSIG.
    """
    parent = os.environ.get("HARNESS_PARENT")
    if sys.platform != "linux" or parent is None:
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
    if str(os.getppid()) != parent:  # it died before this was asked
        os._exit(0)


def _load_llama() -> Any:
    import_binding()
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

    _end_with_parent()
    commands: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_read_commands, args=(sys.stdin, commands), daemon=True).start()
    try:
        if "HARNESS_SPARE" in os.environ:
            import_binding()  # ahead, since libraries take longest; devices are not looked at yet
            if commands.get() is None:
                return
        bench = Bench((make_runtime or _load_llama)())
    except (HarnessError, ImportError) as error:
        emit("refused", {"message": str(error)})
        sys.exit(3)

    def give_up(sentence: str) -> None:
        emit("refused", {"message": sentence})
        os._exit(3)

    bench.runtime.give_up = give_up
    serve(bench, commands, emit)


if __name__ == "__main__":
    main()
