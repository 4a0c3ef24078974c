"""Everything that a hub can do wrong, at every stage at which it is asked: one sentence in time, nothing broken left, and all well later.

All cases run once, side by side, as soon as the first test wants one; each test looks at one of them.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.catalog import parse_catalog
from harness.errors import HarnessError, Outcome
from harness.gguf.header import BytesSource, read_header
from harness.sources import fetching, headers, remote
from harness.sources.catalog_check import check_catalog
from harness.sources.catalog_reference import CatalogReference
from harness.sources.references import parse_reference
from harness.units import MIB

from .gguf_bytes import HeaderBytes
from .hub import faults
from .hub.fixtures import use_hub
from .hub.server import Fault, Hub
from .test_catalog import GOOD
from .test_gguf_file import write_split

NAME = "tiny-Q4_0.gguf"
#: Limits of parts of a second, so that what never comes is not waited for.
LIMIT_S = 0.4
#: Longer than any case may take: five attempts of each limit, and a machine on which all of them run at once.
LONGEST_S = 30.0

FILE = [
    '[[models."mine:1b".files]]',
    'quantization = "Q4_0"',
    'repository = "{repository}"',
    f'files = ["{NAME}"]',
]


def model() -> bytes:
    made = HeaderBytes().add("general.architecture", "str", "llama")
    made.add_array("tokenizer.ggml.tokens", "str", [f"token {index}" for index in range(600)])
    made.add_tensor("token_embd.weight", "F16", 64, 300)
    return made.build() + random.Random(1).randbytes(made.offset)


MODEL = model()


@dataclass(frozen=True)
class Stage:
    """One request among those of a command: what is done, in which request something goes wrong, and what goes well or ill before."""

    do: Callable[[str, str], Any]  # (repository, the hub's address)
    where: str
    method: str | None = None
    before: tuple[dict[str, Any], ...] = ()
    is_right: Callable[[Any], bool] = bool


@dataclass
class Case:
    """What came of one fault at one stage."""

    error: Exception | None = None
    took_s: float = 0.0
    result: Any = None
    left: list[str] = field(default_factory=list)
    later: Any = None


def pull(text: str) -> Callable[[str, str], Any]:
    return lambda repository, url: [
        path.read_bytes() for path in parse_reference(text.format(r=repository, url=url)).pull()
    ]


def inspect(text: str) -> Callable[[str, str], Any]:
    return lambda repository, url: parse_reference(text.format(r=repository, url=url)).header().header


def entry(repository: str) -> Any:
    return parse_catalog(GOOD + "\n".join(FILE).format(repository=repository), "mine.toml")


def check(repository: str, url: str) -> Any:
    return list(check_catalog(entry(repository)))


def inspect_catalog(repository: str, url: str) -> Any:
    found = CatalogReference(entry(repository).find("mine:1b"), "Q4_0", text="mine:1b:q4_0").header()
    return found if found.is_computed else found.header


def is_model(found: Any) -> bool:
    return found == [MODEL]


def is_header(found: Any) -> bool:
    return found == read_header(BytesSource(MODEL))


def is_computed(found: Any) -> bool:
    return (getattr(found, "is_computed", False) and "\n" not in found.note) or is_header(found)


SPLIT = "hf:{r}/m-00001-of-00003.gguf"
ADDRESS = "{url}/plain/{r}/" + NAME
FILE_NAMED = "hf:{r}/" + NAME
MIRROR = {"method": "HEAD", "say": {"X-Repo-Commit": None, "X-Linked-Etag": None}}
HALF = {"cut_at": len(MODEL) // 2, "times": 1}
ONCE = {"times": 1}

STAGES = {
    "pull: listing": Stage(pull("hf:{r}:q4_0"), "/api/models/{r}/", is_right=is_model),
    "pull: head": Stage(pull(FILE_NAMED), "/{r}/resolve/", "HEAD", is_right=is_model),
    "pull: redirection": Stage(pull(FILE_NAMED), "/{r}/resolve/", "GET", is_right=is_model),
    "pull: body": Stage(pull(FILE_NAMED), "/store/{r}/", is_right=is_model),
    "pull: rest of a body": Stage(pull(FILE_NAMED), "/store/{r}/", None, (HALF,), is_right=is_model),
    "pull: second part": Stage(pull(SPLIT), "/store/{r}/m-00002"),
    "pull: listing of a mirror": Stage(pull(FILE_NAMED), "/api/models/{r}/", None, (MIRROR,), is_right=is_model),
    "pull: address": Stage(pull(ADDRESS), "/plain/{r}/", is_right=is_model),
    "pull: body of an address": Stage(pull(ADDRESS), "/plain/{r}/", None, (ONCE,), is_right=is_model),
    "inspect: listing": Stage(inspect("hf:{r}:q4_0"), "/api/models/{r}/", is_right=is_header),
    "inspect: redirection": Stage(inspect(FILE_NAMED), "/{r}/resolve/", is_right=is_header),
    "inspect: first bytes": Stage(inspect(FILE_NAMED), "/store/{r}/", is_right=is_header),
    "inspect: later bytes": Stage(inspect(FILE_NAMED), "/store/{r}/", None, (ONCE,), is_right=is_header),
    "inspect: second part": Stage(inspect(SPLIT), "/store/{r}/m-00002"),
    "inspect: another case": Stage(inspect("hf:{r}/TINY-q4_0.gguf"), "/api/models/{r}/", is_right=is_header),
    "inspect: catalog": Stage(inspect_catalog, "/store/{r}/", is_right=is_computed),
    "models --check": Stage(check, "/api/models/{r}/"),
}

#: Nothing vouches for a file at a plain address, nor for a header that is only looked at.
UNNOTICED = [
    *((stage, "sends one wrong byte") for stage in STAGES if "address" in stage or "inspect" in stage),
    ("pull: body of an address", "changed the file"),
]

CASES = [(stage, fault) for stage in STAGES for fault in faults.FAULTS]


def spoil(hub: Hub, repository: str, stage: Stage, fault: str) -> list[Fault]:
    """Put the fault and what goes before it where this repository is asked for; they are found in this order."""
    before = [Fault(stage.where.format(r=repository), **how) for how in stage.before]
    if stage.before == (MIRROR,):
        before = [Fault(f"/{repository}/resolve/", **MIRROR)]
    made = [*before, Fault(stage.where.format(r=repository), stage.method, act=faults.FAULTS[fault])]
    hub.faults += made
    return made


def try_once(stage: Stage, repository: str, hub: Hub) -> tuple[Any, Exception | None, float]:
    began = time.monotonic()
    try:
        result, error = stage.do(repository, hub.url), None
    except Exception as caught:  # a test looks at it
        result, error = None, caught
    return result, error, time.monotonic() - began


def find_broken(folder: Path, repository: str) -> list[str]:
    """What is in the caches of a repository under a model's name and is none of its files."""
    right = {hashlib.sha256(MODEL).hexdigest(), *PARTS}
    storage = folder / "hf" / "hub" / f"models--{repository.replace('/', '--')}"
    found = [*storage.glob("snapshots/**/*.gguf"), *storage.glob("blobs/*")]
    named = [path for path in found if path.suffix != ".incomplete"]
    return [path.name for path in named if hashlib.sha256(path.read_bytes()).hexdigest() not in right]


PARTS: set[str] = set()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory where it has room: thousands of files are made and removed, which takes a disk as long as all the rest."""
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > 256 * MIB
    with tempfile.TemporaryDirectory(prefix="harness-faults-", dir=memory if has_room else None) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def cases(folder: Path) -> Iterator[dict[tuple[str, str], Case]]:
    faults.enough.clear()
    write_split(folder)
    parts = sorted(folder.glob("m-*.gguf"))
    PARTS.update(hashlib.sha256(path.read_bytes()).hexdigest() for path in parts)
    with pytest.MonkeyPatch.context() as patch, use_hub(folder, patch, max_connections=500) as hub:
        patch.setattr(headers, "_FIRST_CHUNK_BYTES", 4096)
        patch.setattr(remote, "SMALL_LIMIT_BYTES", 200_000)
        for module in (remote, fetching):
            patch.setattr(module, "STALL_BYTES", 4096)
        repositories = {case: f"owner/r{index}" for index, case in enumerate(CASES)}
        found = {case: Case() for case in CASES}
        made: dict[tuple[str, str], list[Fault]] = {}
        for case, repository in repositories.items():
            for name, content in [(NAME, MODEL), *((path.name, path) for path in parts)]:
                hub.add(repository, name, content)
            made[case] = spoil(hub, repository, STAGES[case[0]], case[1])

        def spoilt(case: tuple[str, str]) -> None:
            one = found[case]
            one.result, one.error, one.took_s = try_once(STAGES[case[0]], repositories[case], hub)
            one.left = find_broken(folder, repositories[case])

        def later(case: tuple[str, str]) -> None:
            found[case].later = try_once(STAGES[case[0]], repositories[case], hub)[:2]

        with patch.context() as limits, ThreadPoolExecutor(64) as pool:
            for name in ("TIMEOUT_S", "HEAD_LIMIT_S", "SMALL_LIMIT_S", "STALL_S"):
                limits.setattr(remote, name, LIMIT_S)
            list(pool.map(spoilt, CASES))
        faults.enough.set()
        hub.faults.clear()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(later, [case for case in CASES if case[0].startswith("pull")]))
        yield found


@pytest.mark.parametrize(("stage", "fault"), CASES)
def test_a_fault_is_one_sentence_in_time_and_leaves_nothing_broken(cases, stage, fault):
    case = cases[stage, fault]
    if (stage, fault) in UNNOTICED and case.error is None:
        return
    if case.error is None:
        assert STAGES[stage].is_right(case.result), "it was believed"
    else:
        assert isinstance(case.error, HarnessError), repr(case.error)
        said = str(case.error)
        assert "\n" not in said
        assert len(said) < 600
        assert case.error.outcome in (Outcome.OTHER, Outcome.QUESTION)
    assert case.took_s < LONGEST_S
    assert case.left == []
    if case.later is not None:
        result, error = case.later
        assert error is None, error
        assert STAGES[stage].is_right(result)
