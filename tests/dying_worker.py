"""A worker that runs the real engine and really dies: `python -m tests.dying_worker abort|segfault|oom|hang|kill|limit|lock`.

It dies in the timed region of the second repetition of any prompt of DEADLY_PROMPT tokens, and measures everything else.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import signal
import sys
import time
from typing import Any

import llama_cpp

from harness.native import worker
from harness.native.engine import LoadedModel, Runtime, Session

DEADLY_PROMPT = 13


def abort() -> None:
    """The very function that a failed GGML_ASSERT calls."""
    llama_cpp.llama_cpp._lib.ggml_abort(b"dying_worker.cpp", 1, b"GGML_ASSERT(%s) failed", b"it_lives")


def segfault() -> None:
    ctypes.memset(0, 1, 1)


def run_out_of_memory() -> None:
    """Move into the memory cgroup that the test made, and take more than it allows."""
    pathlib.Path(os.environ["TEST_CGROUP"], "cgroup.procs").write_text(str(os.getpid()))
    hoard = []
    for _ in range(64):  # at most 1 GiB, should the limit not hold
        hoard.append(bytearray(os.urandom(1 << 20)) * 16)


def run_into_a_limit() -> None:
    """Ask for more than the process may have."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, most))
    try:
        bytearray(2 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def keep_the_lock() -> None:
    """Hang in native code that was called with Python's lock and does not give it back."""
    ctypes.PyDLL(None).pause()


DEATHS = {
    "abort": abort,
    "segfault": segfault,
    "oom": run_out_of_memory,
    "hang": lambda: time.sleep(600),
    "limit": run_into_a_limit,
    "lock": keep_the_lock,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


class DyingSession(Session):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._prompts = 0

    def prompt_batches(self, n_tokens: int) -> Any:
        self._prompts += n_tokens == DEADLY_PROMPT
        return super().prompt_batches(n_tokens)

    def decode(self, batch: Any) -> None:
        if self._prompts == 3:  # warm-up, first repetition, second
            DEATHS[sys.argv[1]]()
        super().decode(batch)


class DyingModel(LoadedModel):
    def open(self, spec: Any, pools: Any = None) -> Session:
        return DyingSession(self, spec, pools=pools)


class DyingRuntime(Runtime):
    def load(self, spec: Any) -> LoadedModel:
        return DyingModel(self, spec)


if __name__ == "__main__":
    worker.main(DyingRuntime)
