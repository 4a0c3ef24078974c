"""Commands that need the engine, whose reader has gone: what they measure is kept all the same."""

from __future__ import annotations

import os

import pytest

from . import zygote
from .test_pipes import WITH_ENGINE, check_words, start

pytestmark = [pytest.mark.engine, pytest.mark.skipif(os.name != "posix", reason="needs fork and POSIX pipes")]

#: What each is asked here.
ASKED = {
    "sweep": "-p 8 -n 2 -r 1",
    "run": "--max-tokens 4 --temp 0 Once",
    "speculate": "-m {model} --draft {model} -n 4 -r 1",
    "quality": "-c 32 --chunks 2",
}
#: Those that take longer, or need more than the engine: they keep and show by the same functions.
ELSEWHERE = {"tune", "token-time", "roofline", "devices", "doctor", "rpc-server", "ollama", "reference"}


def test_every_command_with_the_engine_is_tried():
    assert {*ASKED, *ELSEWHERE} == WITH_ENGINE


@pytest.mark.parametrize("name", ASKED)
def test_what_is_measured_is_kept_though_nobody_reads(name, forker, tmp_path, model):
    words = [name, *(word.format(model=model) for word in ASKED[name].split())]
    environment = {
        **os.environ, "PYTHONPATH": str(zygote.ROOT), "HARNESS_RESULTS": str(tmp_path / "results"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }  # fmt: skip

    done = start(forker, words, environment, tmp_path, ("nothing", "gone", "a file"), None)
    check_words(done)
    assert done.code in (0, 5), done.err
    assert done.err.count("has gone") == 1, done.err
    assert done.n_kept >= 1, done.err
    assert "kept in" in done.err
