"""Times getting ready: loading a model cold and warm, mapped and read, making a context, the first token."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from harness.codec import encode
from harness.host.noise import Watcher
from harness.native.jobs import Emit
from harness.native.page_cache import drop_from_memory, read_into_memory, resident_share
from harness.native.watching import watched
from harness.records.token_time import Remark
from harness.spec import RunSpec

#: Ways to load by whether the file is mapped, as records have it.
_LOAD_MODES = {"on": "mmap", "off": "none"}

#: More of the file than this in memory is not cold.
COLD_SHARE = 0.02


def time_loads(
    runtime: Any, spec: RunSpec, files: Sequence[pathlib.Path], rounds: int, emit: Emit, watcher: Watcher | None = None
) -> None:
    """Load the model `rounds` times in each of four ways, in turn, and emit a ``load`` event for each.

    A cold load is left out, with a ``remark``, where the system keeps the file in memory all the same: another process may map it.
    """
    ways = [(state, mapped) for state in ("cold", "warm") for mapped in ("on", "off")]
    kept: list[float | None] = []
    for index in range(rounds):
        for number, (state, mapped) in enumerate(ways):
            emit("phase", {"phase": "load", "index": index * len(ways) + number, "count": rounds * len(ways)})
            share = prepare(files, state)
            if state == "cold" and (share is None or share > COLD_SHARE):
                kept.append(share)
                if share is not None:
                    continue
            taken, seen = watched(
                functools.partial(_load_once, runtime, dataclasses.replace(spec, load_mode=_LOAD_MODES[mapped])),
                watcher,
            )
            about = {"round": index, "state": state, "mmap": mapped, "resident_share": share}
            emit("load", {**about, **taken, "conditions": encode(next(iter(seen), None))})
    if kept:
        emit("remark", encode(_explain_kept(kept, 2 * rounds)))


def _explain_kept(kept: Sequence[float | None], n_cold: int) -> Remark:
    """Which cold loads were not cold; one of which that could not be checked was timed all the same."""
    known = [share for share in kept if share is not None]
    if not known:
        return Remark("cold unknown")
    return Remark("not cold", n_left_out=len(known), n_asked=n_cold, share=max(known))


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
    with contextlib.closing(runtime.load(spec)) as model, contextlib.closing(model.open(spec)) as session:
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
        taken = {"load_ns": model.load_duration_ns, "context_ns": session.context_duration_ns}
    return {**taken, "first_token_ns": first_ns, "second_token_ns": second_ns}
