"""The threads that a cell computes with: how many, on which CPUs, of which priority; one pool for each such answer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from harness.errors import NativeError
from harness.parsers import read_mask
from harness.spec import NO_MASK, RunSpec

#: llama-bench's default of --poll: how long idle threads spin, 0…100.
THREAD_POLL = 50


@dataclass(frozen=True, slots=True)
class Threads:
    """What ggml's pool of threads is made of: struct ggml_threadpool_params of ggml.h."""

    count: int
    cpu_mask: str = NO_MASK
    is_strict: bool = False
    poll: int = THREAD_POLL
    priority: int = 0

    @property
    def cpus(self) -> tuple[int, ...]:
        """The CPUs that they are kept to; () is any."""
        return read_mask(self.cpu_mask)


def list_threads(spec: RunSpec) -> tuple[Threads, Threads | None]:
    """(the threads of single tokens, those of batches where they are others), as llama_attach_threadpool takes them."""
    how = (spec.cpu_mask, spec.cpu_strict, spec.poll, spec.priority)
    n_threads, n_batch = spec.n_threads or 1, spec.n_threads_of_batch or 1
    return Threads(n_threads, *how), None if n_batch == n_threads else Threads(n_batch, *how)


def choose_cpus(spec: RunSpec, ours: Collection[int]) -> frozenset[int]:
    """Those of our CPUs that a spec's threads may use, whichever of them the asking thread was bound to by an earlier graph."""
    return frozenset(ours).intersection(read_mask(spec.cpu_mask)) or frozenset(ours)


def check_mask(spec: RunSpec, ours: Collection[int]) -> None:
    """Refuse a mask that the system would not take: ggml complains at every graph. ours are the CPUs that this process may use,
    empty where that is not known.

    Raises
    ------
    NativeError : no CPU of the mask is ours, or, where each thread is to have one, not all are.
    """
    asked = set(read_mask(spec.cpu_mask))
    if not asked or not ours or (asked <= set(ours) if spec.cpu_strict else asked & set(ours)):
        return
    names = ", ".join(map(str, sorted(ours)))
    why = "names CPUs that are not ours" if asked & set(ours) else "names no CPU that is ours"
    raise NativeError(f"The mask -C {spec.cpu_mask} {why}; there are {names}.")
