"""What llama.cpp itself would allocate: asked in a process that has a model's header and allocates nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.errors import HarnessError
from harness.memory.causes import Cause
from harness.memory.forecast import Line
from harness.memory.resident import MemoryReading, cause_of_log, device_of_buffer
from harness.records.cells import Buffer, Build, Failure, group_servers
from harness.records.failures import describe_end
from harness.runs.worker import Worker, understand
from harness.sources.sparse import HeaderFile, write_sparse
from harness.spec import RunSpec

#: The worker that reads its own memory from the start.
WORKER = (sys.executable, "-m", "harness.native.jobs.memory_steps")

#: A dry run takes some hundredths of a second; what takes this long has gone astray in a header.
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What llama.cpp plans for one spec: its buffers, and how large its caches are, wherever; refused is why it plans nothing."""

    buffers: tuple[Buffer, ...] = ()
    caches: tuple[Buffer, ...] = ()
    flash_attn: bool | None = None
    refused: str | None = None


@dataclass(slots=True)
class DryRun:
    """What a dry run said: plans by index, readings of its process, the engine; trouble is why something is missing."""

    build: Build | None = None
    plans: dict[int, Plan] = field(default_factory=dict)
    readings: list[MemoryReading] = field(default_factory=list)
    trouble: str | None = None

    def plan(self, index: int) -> Plan:
        return self.plans.get(index) or Plan(refused=self.trouble)

    def lines(self, index: int) -> list[Line]:
        """The planned buffers by cause and device."""
        servers = group_servers(self.build.devices) if self.build else {}
        return [
            Line(cause_of_log(item.cause, item.buffer), device_of_buffer(item.buffer, servers), item.buffer, item.size_bytes)
            for item in self.plan(index).buffers
        ]  # fmt: skip

    def compute_bytes(self, index: int) -> Counter[str]:
        """What computing takes, by device."""
        sizes: Counter[str] = Counter()
        for line in self.lines(index):
            if line.cause is Cause.COMPUTE:
                sizes[line.device] += line.size_bytes
        return sizes


def run_dry(files: Sequence[HeaderFile], specs: Sequence[RunSpec], command: Sequence[str] = WORKER) -> DryRun:
    """Have specs planned, which share a model and its load parameters; without files only the engine is asked what it is.

    Whatever goes wrong is the answer's trouble.
    """
    dry = DryRun()
    with contextlib.ExitStack() as stack:
        try:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harness-")))
            worker = Worker(command)
            stack.callback(worker.close)
            greeting = worker.hello()
            if isinstance(greeting, Failure):
                dry.trouble = describe_end(greeting).rstrip(".")
                return dry
            dry.build = understand(Build, greeting["build"])
            if not files:
                return dry
            first = str(write_sparse(files, folder))
            _ask(worker, [dataclasses.replace(spec, model=first) for spec in specs], dry)
        except HarnessError as error:  # nothing is there to ask, or it talks nonsense
            dry.trouble = str(error).rstrip(".")
    return dry


def _ask(worker: Worker, specs: Sequence[RunSpec], dry: DryRun) -> None:
    """Have a worker plan specs, and take note of what it says."""
    asked = [spec.to_dict() for spec in specs]
    for event in worker.ask("dry_run", {"specs": asked}, TIMEOUT_S):
        if isinstance(event, Failure):
            dry.trouble = describe_end(event).rstrip(".")
        elif event["event"] == "planned":
            dry.plans[event["index"]] = understand(Plan, event)
        elif event["event"] == "build":
            dry.build = understand(Build, event["build"])
        elif event["event"] == "reading":
            dry.readings.append(understand(MemoryReading, event))
