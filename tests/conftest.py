"""Fixtures by state: the real model, a recorded run, a place to write."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator

import pytest

from harness.host import system as host_os
from harness.records.cells import Record
from harness.records.kinds import read_line
from harness.sources.model_file import default_model

from . import machines, zygote

HERE = pathlib.Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--identity", choices=machines.NAMES, default=os.environ.get("HARNESS_TEST_IDENTITY", machines.DEFAULT),
        help="The machine of tests/machines/ that every test runs on which does not name one, or need this one.",
    )  # fmt: skip


@pytest.fixture(autouse=True)
def machine_it_runs_on(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> machines.Identity | None:
    """Another machine's answers instead of this one's, but where a test runs the real engine or is marked `this_machine`."""
    if request.node.get_closest_marker("engine") or request.node.get_closest_marker("this_machine"):
        return None
    identity = machines.Identity(request.config.getoption("--identity"))
    monkeypatch.setattr(host_os, "_system", identity)
    return identity


@pytest.fixture(autouse=True)
def models_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No models of other programs on this disk, but those that a test puts there."""
    for variable in ("LLAMA_CACHE", "OLLAMA_MODELS"):
        monkeypatch.setenv(variable, str(HERE / "no-such-cache"))
    monkeypatch.setattr("harness.sources.local.lm_studio_folders", list)


@pytest.fixture(autouse=True)
def usual_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of the usual width, whatever terminal the tests are started from."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(params=machines.NAMES)
def identity(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> machines.Identity:
    """Every machine of tests/machines/ in turn: for what shows a machine, chooses threads or judges load."""
    one = machines.Identity(request.param)
    monkeypatch.setattr(host_os, "_system", one)
    return one


@pytest.fixture(scope="session")
def model() -> str:
    """The embedded model, a real one."""
    return str(default_model())


@pytest.fixture(scope="session")
def recorded() -> list[Record]:
    """A run that was recorded from the real engine: pp64, tg16, and one cell that failed."""
    lines = (HERE / "recorded" / "pp-tg.jsonl").read_text(encoding="utf-8").splitlines()
    return [read_line(json.loads(line)).content for line in lines]


@pytest.fixture
def results(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """An empty folder for records, which is also where the command line writes."""
    monkeypatch.setenv("HARNESS_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


@pytest.fixture(scope="module")
def forker() -> Iterator[zygote.Zygote]:
    """What runs the command line at once and as it is."""
    with zygote.one() as made:
        yield made
