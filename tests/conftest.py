"""Fixtures by state: the real model, a recorded run, a place to write."""

from __future__ import annotations

import json
import pathlib

import pytest

from harness.record import Record, from_json
from harness.sources.model_file import default_model

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="session")
def model() -> str:
    """The embedded model, a real one."""
    return str(default_model())


@pytest.fixture(scope="session")
def recorded() -> list[Record]:
    """A run that was recorded from the real engine: pp64, tg16, and one cell that failed."""
    lines = (HERE / "recorded" / "pp-tg.jsonl").read_text(encoding="utf-8").splitlines()
    return [from_json(json.loads(line)) for line in lines]


@pytest.fixture
def results(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """An empty folder for records, which is also where the command line writes."""
    monkeypatch.setenv("HARNESS_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"
