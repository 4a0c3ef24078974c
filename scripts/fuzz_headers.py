"""Spoilt headers through the reader and everything that the commands do with a header; one batch is one process (`fuzz-header`).

**CPU time** is this process's (`time.process_time`) for one command, from reading the file to its last view, so that other programs
matter little; making the header does not count.  **Memory** is the peak of the resident set of the process that handled a batch, which
the kernel keeps, less what was resident when the batch began and everything was imported and used once; on Linux the peak is set back
at that moment (`/proc/self/clear_refs`). It counts what all headers of the batch left behind, and so can only be too large for the
hungriest one.
Beyond `HARD_BYTES` of address space there is no more memory to be had (RLIMIT_AS), which is a wrong answer.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import pathlib
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from harness.catalog import Catalog
from harness.errors import HarnessError, UsageError
from harness.gguf.header import BytesSource, Header, read_header
from harness.gguf.model_kinds import KNOWN_ARCHITECTURES
from harness.sources.catalog_reference import compute_catalog_header
from harness.sources.model_file import default_model
from harness.sources.user_catalog import load_catalog
from harness.units import MIB
from tests.architectures import describe_header, load_architectures
from tests.examine import examine
from tests.gguf_bytes import llama_like, mutate
from tests.gguf_parts import Parts, change, take_apart
from tests.kind_files import FILES, settled
from tests.whole_files import ENGINES, OTHERS, Asker, fake_engine, write_file

#: What is promised of each header.
LIMIT_S, LIMIT_MIB = 1.0, 100.0

#: After which CPU time a header is given up, and what a process may have beyond what it has when it begins.
HARD_S, HARD_BYTES = 20.0, 256 * MIB

#: A batch of fewer headers makes what it starts from as it goes.
WHOLE_BATCH = 500

#: Of so many headers one is shown in every format, and on a report's page; of the others the second format is drawn. HTML, in which
#: pictures are drawn, takes a hundred times as long as the rest.
EVERY = 500
FORMS, SHARES = [*(form for form in OTHERS if form != "html"), "html"], [50] * (len(OTHERS) - 1) + [1]

#: Models of the catalog whose shapes are changed: one of each size and kind of attention.
SHAPES = (
    "llama3.2:1b",
    "qwen3:0.6b",
    "gemma3:1b",
    "qwen3:30b",
    "gpt-oss:20b",
    "llama3.1:405b",
    "deepseek-r1:671b",
    "phi3:3.8b",
)


@dataclass(frozen=True, slots=True)
class Seed:
    """A header to start from: its kind, its bytes, and a whole number of lots in the draw."""

    kind: str
    make: Callable[[], bytes]


class Seeds:
    """Everything that is spoilt; each is made when it is first drawn. Real headers are drawn as often as all made-up ones of a kind."""

    def __init__(self, files: Sequence[str]) -> None:
        self.kinds: dict[str, list[Seed]] = {
            "made up": list(_made_up()),
            "of an architecture": list(_architectures()),
            "a catalog's shape": list(_shapes(load_catalog())),
            "real": list(_real(files, lambda data: take_apart(data).build())),
            "real and whole": list(_real(files, lambda data: data)),
        }
        self._bytes = functools.cache(lambda kind, index: self.kinds[kind][index].make())
        self._parts = functools.cache(lambda kind, index: take_apart(self._bytes(kind, index), keep=10**6))

    def draw(self, rng: random.Random) -> tuple[str, int]:
        """A seed: its kind and its number."""
        weights = [30, 50, 2, 17, 1]
        kinds = [(kind, weight) for (kind, found), weight in zip(self.kinds.items(), weights, strict=True) if found]
        (kind,) = rng.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
        return kind, rng.randrange(len(self.kinds[kind]))

    def make_all(self) -> None:
        """Make all of them, so that nothing which is kept counts for a header."""
        for kind, found in self.kinds.items():
            for index in range(len(found)):
                self.parts(kind, index)

    def data(self, kind: str, index: int) -> bytes:
        return self._bytes(kind, index)

    def parts(self, kind: str, index: int) -> Parts:
        return self._parts(kind, index)


def _made_up() -> Iterator[Seed]:
    yield Seed("llama", lambda: llama_like().build())
    yield Seed("big-endian", lambda: llama_like(endian=">").build())
    yield Seed("version 2", lambda: llama_like(version=2, layers=1, vocab=300).build())
    for name, (make, _) in FILES.items():
        yield Seed(name, lambda make=make: make().build())  # type: ignore[misc]
    for name in sorted(KNOWN_ARCHITECTURES):
        yield Seed(name, lambda name=name: settled(name).build())  # type: ignore[misc]


def _architectures() -> Iterator[Seed]:
    for name, model in load_architectures().items():
        yield Seed(name, lambda model=model: describe_header(model).build())  # type: ignore[misc]


def _shapes(catalog: Catalog) -> Iterator[Seed]:
    for name in SHAPES:
        if name in catalog.entries:
            yield Seed(name, lambda name=name: _header_of(catalog, name))  # type: ignore[misc]


def _header_of(catalog: Catalog, name: str) -> bytes:
    read = compute_catalog_header(catalog.entries[name], None, "made up", vocabulary=False).read_files
    return read()[0].data if read else llama_like().build()


def _real(files: Sequence[str], turn: Callable[[bytes], bytes]) -> Iterator[Seed]:
    for name in dict.fromkeys([*find_smollm2(), *files]):
        yield Seed(pathlib.Path(name).name, lambda name=name: turn(read_header_bytes(name)))  # type: ignore[misc]


def find_smollm2() -> list[str]:
    """The embedded model's file, where it is installed."""
    try:
        return [str(default_model())]
    except UsageError:
        return []


def read_header_bytes(name: str) -> bytes:
    """The header of a file, without what follows."""
    with open(name, "rb") as file:
        data = file.read(64 * MIB)
    return data[: read_header(BytesSource(data)).data_offset]


# --- one header -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spoilt:
    """A spoilt header: how it came to be, its bytes, in which chunks it is read, and how the fake engine answers."""

    how: str
    of: str
    data: bytes
    chunk_bytes: int
    engine: str
    form: str | None  #: None: all, and a report


def spoil(seeds: Seeds, seed: int, index: int) -> Spoilt:
    """The spoilt header of a number; the same for ever."""
    rng = random.Random(f"{seed}:{index}")
    kind, number = seeds.draw(rng)
    how = rng.choices(("bytes", "structure", "both"), (50, 42, 8))[0]
    if how == "bytes":
        data = mutate(seeds.data(kind, number), rng)
    else:
        data = change(seeds.parts(kind, number), rng).build()
        data = mutate(data, rng) if how == "both" else data
    chunk_bytes = rng.choice((7, 64, 1000, MIB)) if len(data) < MIB else MIB
    form = None if rng.randrange(EVERY) == 0 else rng.choices(FORMS, SHARES)[0]
    return Spoilt(how, kind, data, chunk_bytes, rng.choice(ENGINES), form)


def answer(one: Spoilt, path: pathlib.Path, asker: Asker) -> bool:
    """Read it and ask everything; whether it was still a header. Anything but a HarnessError escapes."""
    asker.spent_s = {}
    is_header = examine(one.data, one.chunk_bytes, deeply=False)
    size_bytes = len(one.data)
    with contextlib.suppress(HarnessError):
        header: Header = read_header(BytesSource(one.data))
        size_bytes = header.size_bytes
    write_file(path, one.data, size_bytes)
    asker.form, asker.report = one.form, one.form is None
    with fake_engine(one.engine):
        asker.ask(path, only_if=is_header)
    return is_header


# --- a batch ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Batch:
    """What came of a batch."""

    first: int
    n: int = 0
    n_headers: int = 0  #: still headers
    slowest_s: float = 0.0  #: of one command
    slowest: int = -1
    slowest_command: str = ""
    longest_s: float = 0.0  #: of all commands together
    peak_mib: float = 0.0
    hungriest: int = -1
    by: dict[str, int] = field(default_factory=dict)
    wrong: list[dict[str, Any]] = field(default_factory=list)


class GivenUp(BaseException):
    """A header took longer than `HARD_S`."""


def _give_up(_number: int, _frame: FrameType | None) -> None:
    raise GivenUp


def run_batch(files: Sequence[str], seed: int, first: int, n: int, folder: pathlib.Path) -> Batch:
    """Spoil and ask a batch; files of wrong answers are left in the folder."""
    seeds, batch, by = Seeds(files), Batch(first), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="harness-fuzz-", dir=memory_folder()) as place, Asker() as asker:
        path = pathlib.Path(place) / "spoilt.gguf"
        if n >= WHOLE_BATCH:  # what is made once is made
            for how in ENGINES:
                answer(Spoilt("", "", llama_like().build(), MIB, how, None), path, asker)
            seeds.make_all()
        gc.collect()
        peak = Peak()
        for index in range(first, first + n):
            one = spoil(seeds, seed, index)
            by.update((one.how, one.of))
            took_s, is_header, wrong = _ask_one(one, path, asker)
            grown_mib = peak.grown_bytes() / MIB
            command, slow_s = max(asker.spent_s.items(), key=lambda item: item[1], default=("read", took_s))
            if wrong is None and slow_s > LIMIT_S:
                wrong = f"{command} took {slow_s:.2f} s of CPU time"
            if wrong is None and grown_mib > LIMIT_MIB >= batch.peak_mib:
                wrong = f"it took {grown_mib:.0f} MiB of memory"
            if wrong is not None:
                kept = folder / f"wrong-{seed}-{index}.gguf"
                kept.write_bytes(one.data)
                batch.wrong.append({"index": index, "how": one.how, "of": one.of, "what": wrong, "file": kept.name})
            batch.n, batch.n_headers = batch.n + 1, batch.n_headers + is_header
            batch.longest_s = max(batch.longest_s, took_s)
            if slow_s > batch.slowest_s:
                batch.slowest_s, batch.slowest, batch.slowest_command = slow_s, index, command
            if grown_mib > batch.peak_mib:
                batch.peak_mib, batch.hungriest = grown_mib, index
    batch.by = dict(by)
    return batch


def _ask_one(one: Spoilt, path: pathlib.Path, asker: Asker) -> tuple[float, bool, str | None]:
    """(CPU seconds, whether it was still a header, what was wrong)."""
    has_timer = hasattr(signal, "setitimer")
    if has_timer:
        signal.signal(signal.SIGVTALRM, _give_up)
        signal.setitimer(signal.ITIMER_VIRTUAL, HARD_S)
    is_header, wrong, begun = False, None, time.process_time()
    try:
        is_header = answer(one, path, asker)
    except GivenUp:
        wrong = f"given up after {HARD_S:g} s of CPU time: {traceback.format_exc(limit=-4)}"
    except Exception:
        wrong = traceback.format_exc(limit=-4)
    finally:
        if has_timer:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return time.process_time() - begun, is_header, wrong


class Peak:
    """How far the resident set has grown at its peak since this was made; 0 where the system does not tell. Sets the hard limit."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            pathlib.Path("/proc/self/clear_refs").write_text("5")
        self._begun = self._read("VmRSS") or self._read("VmHWM")
        with contextlib.suppress(ImportError, OSError, ValueError):
            import resource

            if size := self._read("VmSize"):
                resource.setrlimit(resource.RLIMIT_AS, (size + HARD_BYTES, resource.RLIM_INFINITY))

    def grown_bytes(self) -> int:
        return max(self._read("VmHWM") - self._begun, 0)

    @staticmethod
    def _read(name: str) -> int:
        """A size of this process; its peak where the kernel's own file is not there."""
        with contextlib.suppress(OSError):
            for line in pathlib.Path("/proc/self/status").read_text().splitlines():
                if line.startswith(name + ":"):
                    return int(line.split()[1]) * 1024
        if name == "VmHWM":
            with contextlib.suppress(ImportError):
                import resource

                return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return 0


def memory_folder() -> str | None:
    """A folder in memory for the spoilt file, where there is one."""
    return "/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None
