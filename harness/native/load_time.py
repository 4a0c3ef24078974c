"""Times getting ready: loading a model cold and warm, mapped and read, making a context, the first token."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from harness.native.page_cache import drop_from_memory, read_into_memory, resident_share
from harness.spec import RunSpec

Emit = Callable[[str, dict[str, Any]], None]

#: More of the file than this in memory is not cold.
COLD_SHARE = 0.02


def time_loads(runtime: Any, spec: RunSpec, files: Sequence[pathlib.Path], rounds: int, emit: Emit) -> None:
    """Load the model `rounds` times in each of the four ways, in turn, and emit a ``load`` event for each.

    A way that this system does not allow is left out with a ``remark``.
    """
    ways = list(_find_ways(files, emit))
    for index in range(rounds):
        for number, (state, mapped) in enumerate(ways):
            emit("phase", {"phase": "load", "index": index * len(ways) + number, "count": rounds * len(ways)})
            share = prepare(files, state)
            taken = _load_once(runtime, dataclasses.replace(spec, mmap=mapped))
            emit("load", {"round": index, "state": state, "mmap": mapped, "resident_share": share, **taken})


def _find_ways(files: Sequence[pathlib.Path], emit: Emit) -> Iterator[tuple[str, str]]:
    share = prepare(files, "cold")
    if share is None or share <= COLD_SHARE:
        if share is None:
            emit("remark", {"text": "whether the file left memory before a cold load could not be checked here"})
        yield from (("cold", "on"), ("cold", "off"))
    else:
        emit(
            "remark",
            {"text": f"no cold loads: {share:.0%} of the file stayed in memory when the system was asked to forget it"},
        )
    yield from (("warm", "on"), ("warm", "off"))


def prepare(files: Sequence[pathlib.Path], state: str) -> float | None:
    """Make the files cold or warm, and return the share of them that is in memory then."""
    for file in files:
        if state == "warm":
            read_into_memory(file)
        elif not drop_from_memory(file):
            return 1.0
    shares = [(resident_share(file), file.stat().st_size) for file in files]
    if any(share is None for share, _ in shares):
        return None
    return sum((share or 0.0) * size for share, size in shares) / max(sum(size for _, size in shares), 1)


def _load_once(runtime: Any, spec: RunSpec) -> dict[str, int]:
    """Load, make a context, decode one token; all in ns."""
    model = runtime.load(spec)
    try:
        session = model.open(spec)
        try:
            [batch] = session.token_batches(1)
            start = time.perf_counter_ns()
            session.decode(batch)
            session.synchronize()
            first_ns = time.perf_counter_ns() - start
            start = time.perf_counter_ns()
            session.clear()
            session.decode(batch)
            session.synchronize()
            second_ns = time.perf_counter_ns() - start
        finally:
            session.close()
        return {
            "load_ns": model.load_duration_ns,
            "context_ns": session.context_duration_ns,
            "first_token_ns": first_ns,
            "second_token_ns": second_ns,
        }
    finally:
        model.close()
