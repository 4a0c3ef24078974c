"""Where cells are measured: what a run needs beside them, and a worker that is kept alive and replaced when it died."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from harness.codec import decode, encode
from harness.errors import HarnessError, Outcome
from harness.host.rpc import wait_for_servers
from harness.host.scheduling import CAN_FREE_THREADS
from harness.host.telemetry import Watch
from harness.native.shelf import Needs
from harness.records.cells import Build, Failure, Machine
from harness.records.failures import Cause
from harness.runs.worker import Garbled, Worker, understand
from harness.sources.model_file import FileFacts
from harness.spec import RunSpec

#: How long a cell waits for an RPC server that the cell before it lost.
RPC_RETURN_S = 10.0

#: How long a cell with RPC servers may be without any event where no --cell-timeout says otherwise: a machine that lost its power
#: never answers, and ggml waits for ever. Long enough for 70 GB of weights over 100 Mbit/s.
RPC_SILENCE_S = 7200.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a run needs beside its cells.

    cell_timeout_s bounds one cell with its load; model_facts adds what the parent knows of a file (hash, synthetic or not), asked
    for each file before the first cell: while a worker measures, the parent does nothing;
    worker_command replaces the worker in tests; isolate=False measures in this process, for debuggers and profilers; observe makes
    what watches the hardware while a cell runs; interleave has cells take turns (`harness.runs.rounds`).
    """

    command: str
    machine: Machine
    cell_timeout_s: float | None = None
    model_facts: Callable[[pathlib.Path], FileFacts] = lambda _path: FileFacts()
    worker_command: Sequence[str] | None = None
    isolate: bool = True
    observe: Callable[[], Watch] | None = None
    interleave: bool = True


def process_nature(spec: RunSpec) -> tuple[Any, ...]:
    """What a process becomes by measuring a spec and stays for good: cells of another nature need another worker."""
    return spec.numa, spec.priority, spec.binds_threads and not CAN_FREE_THREADS


def block_events(
    worker: Worker | _InProcess, spec: RunSpec, timeout_s: float | None, **fields: Any
) -> Iterator[dict[str, Any] | Failure]:
    """Have a worker measure a block of a cell and yield what it says; fields are the others of `native.worker.BlockRequest`.

    timeout_s is what is left of --cell-timeout; without one a block with RPC servers may be silent for `RPC_SILENCE_S`.
    """
    worker.send({"measure": spec.to_dict(), **fields})
    silence_s = RPC_SILENCE_S if spec.rpc and timeout_s is None else None
    return worker.events(timeout_s, is_cell_limit=timeout_s is not None, silence_s=silence_s)


class Bench:
    """Keeps a worker alive and replaces a dead one."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._worker: Worker | _InProcess | None = None
        self._rpc: tuple[str, ...] = ()
        self._nature: tuple[Any, ...] | None = None
        self.build: Build | None = None
        self.start_s = 0.0  # what starting workers took, in all

    def start(self, spec: RunSpec) -> Failure | None:
        """See to it that there is a worker that can measure a spec, and say why there is none."""
        if self._worker is not None and not self._worker.is_alive:
            self._drop()
            # The worker dies with its server; one that its supervisor starts again is there in a moment.
            wait_for_servers(spec.rpc, RPC_RETURN_S)
        if self._worker is not None and self._rpc not in ((), spec.rpc):
            self._drop()  # ggml cannot forget a server's devices
        if self._worker is not None and self._nature not in (None, process_nature(spec)):
            self._drop()
        if self._worker is None:
            self._rpc, self._nature = (), None
            begun = time.monotonic()
            self._worker = Worker(self._plan.worker_command) if self._plan.isolate else _InProcess()
            greeting = self._worker.hello()
            self.start_s += time.monotonic() - begun
            if isinstance(greeting, Failure):
                self._drop()
                return greeting
            self.build = understand(Build, greeting["build"])
        return None

    def run(
        self,
        spec: RunSpec,
        command: Mapping[str, Any] = MappingProxyType({}),
        needs: Needs | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[dict[str, Any] | Failure]:
        """Measure a block of a cell: command holds the other fields of `harness.native.worker.BlockRequest`."""
        if failure := self.start(spec):
            yield failure
            return
        assert self._worker is not None
        self._rpc, self._nature = self._rpc or spec.rpc, process_nature(spec)
        limit_s = self._plan.cell_timeout_s
        for event in block_events(self._worker, spec, timeout_s, **command, needs=encode(needs)):
            if isinstance(event, dict) and event["event"] == "build":
                self.build = understand(Build, event["build"])
            elif isinstance(event, Failure) and event.cause is Cause.TIMEOUT and limit_s is not None:
                yield dataclasses.replace(event, limit_s=limit_s)  # of all blocks of the cell
            else:
                yield event

    def give_up(self, error: Garbled) -> Failure:
        """End a worker that talks nonsense; what is said of it."""
        assert isinstance(self._worker, Worker), "our own code says what we mean"
        return self._worker.give_up(error)

    def _drop(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def kill(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._drop()

    close = _drop


def _cause_of(error: HarnessError) -> Cause:
    return Cause.QUESTION if error.outcome is Outcome.QUESTION else Cause.REFUSED


@dataclass
class _InProcess:
    """The worker's code without the child: for debuggers and profilers, at the risk of the process."""

    is_alive: bool = True
    _bench: Any = None
    _command: dict[str, Any] | None = None

    def hello(self) -> dict[str, Any] | Failure:
        from harness.native.engine import Runtime
        from harness.native.worker import Bench

        self._bench = Bench(Runtime(log_to_stderr=False))
        return {"build": self._bench.describe()}

    def send(self, command: dict[str, Any]) -> None:
        self._command = command

    def events(self, _timeout_s: float | None, **_limits: Any) -> Iterator[dict[str, Any] | Failure]:
        heard: list[dict[str, Any] | Failure] = []
        from harness.native.worker import BlockRequest

        try:
            self._bench.run(
                decode(BlockRequest, self._command), lambda event, body: heard.append({"event": event, **body})
            )
        except HarnessError as error:
            reason, trouble = getattr(error, "reason", None), getattr(error, "trouble", None)
            heard.append(Failure("measure", str(error), _cause_of(error), reason=reason, trouble=trouble))
        yield from heard

    def kill(self) -> None:
        self.is_alive = False

    def close(self) -> None:
        if self._bench is not None:
            self._bench.close()
