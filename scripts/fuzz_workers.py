"""Spoilt files with weights through the real worker and llama.cpp itself; one batch is one process (`fuzz-header --worker`).

Files are small models that llama.cpp loads, of every architecture that it knows, their headers spoilt as those of `fuzz_headers`, and
weights of zeros behind them as far as the header says; one in eight is SmolLM2's own file, some bytes of its header changed. All files
of a batch are measured by one run of cells, as `harness pp-tg` with a `-m` for each would, so that a worker serves as many as it
survives; every twentieth goes through the command itself, and through the dry run of `harness overhead`. Right is: a result, or one
failure with a sentence and a cause that is not a hang; the exit code that follows from it; no process left behind.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil
from fuzz_headers import Seed, find_smollm2, memory_folder, read_header_bytes

from harness.errors import HarnessError, Outcome
from harness.gguf.header import BytesSource, read_header
from harness.grid import Grid
from harness.records.cells import Failure, Record
from harness.records.failures import Cause, describe_end
from harness.runs.asking import plan_cells
from harness.runs.cells import CellsRequest, measure_cells
from harness.runs.memory import account_memory, find_model, make_request
from harness.runs.session import Session
from harness.units import GIB, MIB
from tests.architectures import describe_header, load_architectures
from tests.gguf_bytes import mutate
from tests.gguf_parts import change, take_apart
from tests.kind_files import RUNNABLE
from tests.whole_files import write_file

#: A cell of a file this small takes a moment; a worker that says nothing for so long hangs.
CELL_TIMEOUT_S = 60.0

#: Longer files than this are left as long as their header, and are cut off.
LONGEST_BYTES = 256 * MIB

#: Address space of the process and its workers, so that a file which makes llama.cpp ask for all memory harms nobody else.
MOST_BYTES = 12 * GIB

#: Of so many files one goes through the command and the dry run as well.
EVERY = 20

#: What a command may end with here: measured, refused, failed in llama.cpp, measured on a busy machine.
CODES = (Outcome.OK, Outcome.QUESTION, Outcome.NATIVE, Outcome.NOT_TRUSTED)


@dataclass(slots=True)
class Batch:
    """What came of a batch; by counts the files by how they ended."""

    first: int
    n: int = 0
    slowest_s: float = 0.0  #: of a whole file, wall time
    by: dict[str, int] = field(default_factory=dict)
    wrong: list[dict[str, Any]] = field(default_factory=list)


def list_seeds() -> list[Seed]:
    """Small models that llama.cpp loads."""
    found = [Seed(name, lambda make=make: make().build()) for name, make in RUNNABLE.items()]  # type: ignore[misc]
    for name, model in load_architectures().items():
        found.append(Seed(name, lambda model=model: describe_header(model).build()))  # type: ignore[misc]
    return found


class Files:
    """Writes spoilt files into a folder, by their number; the same number is the same file for ever."""

    def __init__(self, seed: int, folder: pathlib.Path, more: Sequence[str] = ()) -> None:
        self._seed, self._folder = seed, folder
        self._seeds = list_seeds()
        self._real = [*find_smollm2(), *more]
        self._data = functools.cache(lambda number: self._seeds[number].make())
        self._parts = functools.cache(lambda number: take_apart(self._data(number), keep=10**6))

    def write(self, index: int) -> pathlib.Path:
        rng = random.Random(f"worker {self._seed}:{index}")
        path = self._folder / f"spoilt-{index}.gguf"
        if self._real and index % 8 == 7:
            self._write_real(path, rng)
            return path
        number = rng.randrange(len(self._seeds))
        how = rng.choices(("bytes", "structure", "both"), (25, 70, 5))[0]
        data = (
            self._data(number) if how == "bytes" else change(self._parts(number), rng, rng.choice((1, 1, 2, 3))).build()
        )
        data = data if how == "structure" else mutate(data, rng)
        size_bytes = len(data)
        with contextlib.suppress(HarnessError):
            size_bytes = read_header(BytesSource(data)).size_bytes
        if how == "bytes":  # where nobody can say how long it is to be, as long as it was
            size_bytes = max(size_bytes, read_header(BytesSource(self._data(number))).size_bytes)
        write_file(path, data, size_bytes if size_bytes <= LONGEST_BYTES else 0)
        return path

    def _write_real(self, path: pathlib.Path, rng: random.Random) -> None:
        """A real file with some bytes of its header changed in place."""
        name = rng.choice(self._real)
        shutil.copyfile(name, path)
        size = len(read_header_bytes(name))
        with open(path, "r+b") as file:
            for _ in range(rng.choice((1, 2, 4))):
                # Settings come first, the tensors last; between them is the vocabulary, of which a byte is rarely missed.
                at = rng.choice(
                    (rng.randrange(min(2000, size)), size - 1 - rng.randrange(min(20_000, size)), rng.randrange(size))
                )
                file.seek(at)
                file.write(rng.randbytes(rng.choice((1, 1, 4, 8))))


# --- what is right ----------------------------------------------------------------------------------------------------


def judge_failure(failure: Failure) -> str | None:
    """What is wrong with a failure; None where nothing is."""
    said = describe_end(failure)
    if failure.cause in (Cause.TIMEOUT, Cause.INTERRUPTED):
        return f"a hang: {said}"
    if len(said) < 10 or "\n" in said or "Traceback" in said:
        return f"no sentence: {said!r}"
    return None


def judge_record(record: Record) -> str | None:
    """What is wrong with a cell's record."""
    if record.failure is not None:
        return judge_failure(record.failure)
    return None if any(not sample.is_warmup for sample in record.samples) else "neither samples nor a failure"


def name_end(record: Record) -> str:
    return "measured" if record.failure is None else str(record.failure.cause.value)


def judge_command(code: int, out: str, err: str) -> str | None:
    """What is wrong with how a command ended."""
    if code not in [outcome.value for outcome in CODES]:
        return f"exit code {code}: {err[-500:]}"
    if "Traceback" in err or "Traceback" in out:
        return f"a traceback: {err[-800:]}"
    if code == Outcome.QUESTION.value and not err.strip():
        return "it refused without a word"
    return None


# --- a batch ----------------------------------------------------------------------------------------------------------


def run_batch(more: Sequence[str], seed: int, first: int, n: int, kept: pathlib.Path) -> Batch:
    """Measure a batch of spoilt files, with as few workers as will do."""
    _bound_memory()
    with tempfile.TemporaryDirectory(prefix="harness-fuzz-", dir=memory_folder()) as folder:
        os.environ["XDG_CACHE_HOME"] = os.environ["XDG_CONFIG_HOME"] = folder  # no hashes of spoilt files stay behind
        files = Files(seed, pathlib.Path(folder), more)
        batch = _Batch(Batch(first), files, kept, seed)
        batch.measure(range(first, first + n))
        for index in range(first, first + n):
            if index % EVERY == 0:
                batch.guard(index, batch.plan_dry)
                batch.guard(index, functools.partial(batch.run_command, folder=folder))
    left = [process for process in psutil.Process().children(recursive=True) if process.is_running()]
    if left:
        batch.found.wrong.append({"index": first, "what": f"processes left behind: {left}", "file": ""})
    batch.found.by = dict(batch.by)
    return batch.found


@dataclass(slots=True)
class _Batch:
    found: Batch
    files: Files
    kept: pathlib.Path
    seed: int
    by: Counter[str] = field(default_factory=Counter)

    def blame(self, index: int, what: str | None) -> None:
        """Keep a wrong answer and its file; nothing where there is none."""
        if what is None:
            return
        name = f"wrong-{self.seed}-{index}.gguf"
        with contextlib.suppress(OSError):
            shutil.copyfile(self.files.write(index), self.kept / name)
        self.found.wrong.append({"index": index, "what": what, "file": name})

    def guard(self, index: int, act: Callable[[int], str | None]) -> None:
        """Do something with a file; what escapes is wrong, but a HarnessError of one line."""
        try:
            self.blame(index, act(index))
        except HarnessError as error:
            self.blame(index, None if "\n" not in str(error) else f"several lines: {error}")
        except Exception:
            self.blame(index, traceback.format_exc(limit=-4))

    def measure(self, indexes: Sequence[int]) -> None:
        """Measure files in one run of cells, each worker as long as it lives."""
        cells: dict[int, tuple[Any, ...]] = {}

        def plan(index: int) -> str | None:
            path = self.files.write(index)
            try:
                grid = Grid([str(path)], {"n_threads": [1]}, n_prompt=(4,), n_gen=(2,), repetitions=1)
                cells[index] = plan_cells(grid, (), lambda _event: None)
            except HarnessError:
                self.by["refused by harness"] += 1
                path.unlink()
                raise
            return None

        for index in indexes:
            self.found.n += 1
            self.guard(index, plan)
        for some in _cut(list(cells), 10):  # so that no more files lie there than need be
            self.guard(some[0], lambda _index, some=some: self._measure_some({index: cells[index] for index in some}))  # type: ignore[misc]

    def _measure_some(self, cells: dict[int, tuple[Any, ...]]) -> str | None:
        try:
            return self._measure_together(cells)
        except HarnessError as error:  # one file must not cost the others
            return f"files {list(cells)} together: {error}"

    def _measure_together(self, cells: dict[int, tuple[Any, ...]]) -> str | None:
        begun = time.monotonic()
        asked = tuple(cell for own in cells.values() for cell in own)
        with Session("pp-tg") as session:
            request = CellsRequest(asked, cell_timeout_s=CELL_TIMEOUT_S, interleave=False)
            records = measure_cells(request, session)
            outcome = session.outcome
        self.found.slowest_s = max(self.found.slowest_s, (time.monotonic() - begun) / len(cells))
        if len(records) != len(asked):
            return f"{len(records)} records of {len(asked)} cells"
        owners = [index for index, own in cells.items() for _ in own]
        for index, record in zip(owners, records, strict=True):
            self.blame(index, judge_record(record))
        for index, own in cells.items():
            ends = [name_end(record) for owner, record in zip(owners, records, strict=True) if owner == index]
            self.by[next((end for end in ends if end != "measured"), "measured")] += 1
            pathlib.Path(own[0].model).unlink(missing_ok=True)
        return None if outcome in CODES else f"the outcome is {outcome}"

    def plan_dry(self, index: int) -> str | None:
        """`harness overhead --predict-only`, which has llama.cpp plan."""
        path = self.files.write(index)
        try:
            model = find_model(str(path), weights=False)
            with Session("overhead") as session:
                account_memory(make_request(model, (), {}, predict_only=True), session)
        finally:
            path.unlink(missing_ok=True)
        return None

    def run_command(self, index: int, *, folder: str) -> str | None:
        """`harness pp-tg` itself."""
        path = self.files.write(index)
        words = [
            sys.executable,
            "-m",
            "harness",
            "pp-tg",
            "-m",
            str(path),
            "-p",
            "4",
            "-n",
            "0",
            "-r",
            "1",
            "-t",
            "1",
            "--no-save",
        ]
        words += ["--cell-timeout", "60"]
        root = pathlib.Path(__file__).resolve().parent.parent
        environment = {**os.environ, "PYTHONPATH": str(root)}
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, timeout=180, cwd=folder, env=environment, check=False
            )
        except subprocess.TimeoutExpired:
            return "the command hangs"
        finally:
            path.unlink(missing_ok=True)
        self.by[f"command ended with {done.returncode}"] += 1
        return judge_command(done.returncode, done.stdout, done.stderr)


def _cut(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _bound_memory() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, resource.RLIM_INFINITY))
