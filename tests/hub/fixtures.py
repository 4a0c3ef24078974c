"""The hub as a fixture: in this process, with huggingface_hub's settings replaced, and for child processes by environment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.sources import remote
from tests.hub.server import Hub

TOKEN = "hf_secretsecretsecretsecret"


def environment(hub: Hub, folder: Path, **more: str) -> dict[str, str]:
    """Variables for a child process that knows this hub and nobody's cache."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "HARNESS"))}
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf"), "HARNESS_CACHE_DIR": str(folder / "cache")}
    home = {"HOME": str(folder / "home"), "USERPROFILE": str(folder / "home")}  # where other programs keep models
    return {**kept, **own, **home, "XDG_CONFIG_HOME": str(folder / "config"), **more}


@contextlib.contextmanager
def use_hub(folder: Path, patch: pytest.MonkeyPatch, **options: int) -> Iterator[Hub]:
    """A hub without files, which this process takes for Hugging Face's; waits before retries take no time."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    made = Hub(**options)
    patch.setattr(constants, "ENDPOINT", made.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", made.url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(folder / "hf" / "hub"))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "AGENT_HARNESSES_PATH", str(folder / "agents.json"))
    patch.setattr(constants, "HF_TOKEN_PATH", str(folder / "no-token"))
    patch.setattr(remote, "_sleep", lambda seconds: None)
    patch.setenv("HARNESS_CACHE_DIR", str(folder / "cache"))
    patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"):
        patch.delenv(variable, raising=False)
    close_session()
    yield made
    made.close()
    close_session()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """As `use_hub`, for one test."""
    with use_hub(tmp_path, monkeypatch) as made:
        yield made
