"""Models and contexts that stay ready: loaded by what needs a load, opened by cell, the least recently used ones given up first.

Several models are in memory at once only where they fit there together, by an estimate that errs on the dear side; a load or a
context that fails beside others is tried once more alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from harness.errors import NativeError
from harness.gguf.split import list_parts
from harness.host.memory import available_memory_bytes
from harness.native.measure import Depth
from harness.native.threads import Threads, list_threads
from harness.spec import RunSpec
from harness.units import MIB

#: So many contexts stay open at the most.
MAX_CONTEXTS = 8

#: What is left to the rest of the machine when another model or context is put beside those that are there.
RESERVE_BYTES = 256 * MIB

#: A context of which nobody said what it takes.
UNKNOWN_CONTEXT_BYTES = 1024 * MIB


@dataclass(frozen=True, slots=True)
class Needs:
    """What a cell takes, in bytes: its file, all that loading takes (with a repacked copy), and its context."""

    file_bytes: int
    model_bytes: int
    context_bytes: int


def guess_needs(spec: RunSpec) -> Needs:
    """What a cell takes at the most where nobody said: weights twice where they may be repacked, and a large context."""
    file_bytes = sum(os.path.getsize(path) for path in list_parts(spec.model) if os.path.exists(path))
    return Needs(file_bytes, file_bytes * (2 if spec.repack else 1), UNKNOWN_CONTEXT_BYTES)


@dataclass
class Loaded:
    """A model that is in memory; rss is resident memory before and after loading, None where others were there."""

    model: Any
    needs: Needs
    rss_bytes: tuple[int | None, int | None]


@dataclass
class Open:
    """A context with its filled depth, of a model that is in memory. is_alone says that no other context was there."""

    session: Any
    depth: Depth
    loaded: Loaded
    is_alone: bool


@dataclass
class Shelf:
    """Keeps models and contexts; runtime is a `harness.native.engine.Runtime` or anything with its methods.

    free_bytes tells the host's free memory, resident_bytes this process's.
    """

    runtime: Any
    resident_bytes: Callable[[], int | None]
    free_bytes: Callable[[], int] = available_memory_bytes
    _models: dict[tuple[Any, ...], Loaded] = field(default_factory=dict)  # the least recently used one first
    _contexts: dict[RunSpec, Open] = field(default_factory=dict)
    _pools: dict[Threads, Any] = field(default_factory=dict)

    def is_loaded(self, spec: RunSpec) -> bool:
        """Whether the spec's model is in memory."""
        return spec.load_key() in self._models

    def find(self, spec: RunSpec) -> Open | None:
        """The context that was kept for a cell."""
        return self._contexts.get(spec)

    def load(self, spec: RunSpec, needs: Needs | None = None) -> Loaded:
        """The spec's model, from memory or from its file.

        Raises
        ------
        NativeError : llama.cpp refused the file, or it does not fit even alone.
        """
        key, needs = spec.load_key(), needs or guess_needs(spec)
        loaded = self._models.pop(key, None)
        if loaded is None:
            self._make_room(spec, needs.model_bytes + needs.context_bytes)
            is_alone, before = not self._models, self.resident_bytes()
            try:
                model = self.runtime.load(spec)
            except NativeError:
                if not self._models:
                    raise
                self._give_up_all()
                is_alone, before = True, self.resident_bytes()
                model = self.runtime.load(spec)
            loaded = Loaded(model, needs, (before, self.resident_bytes()) if is_alone else (None, None))
        self._models[key] = loaded
        return loaded

    def open(self, spec: RunSpec, needs: Needs | None = None, *, keep: bool = False) -> Open:
        """A cell's context, on its loaded model. One that is kept shares its threads; whoever did not keep it closes it.

        Raises
        ------
        NativeError : llama.cpp refused the context, even alone.
        """
        kept = self._contexts.pop(spec, None)
        if kept is not None:
            self._contexts[spec] = kept
            return kept
        loaded, key = self._models[spec.load_key()], spec.load_key()
        self._make_room(spec, (needs or loaded.needs).context_bytes, but=key)
        while len(self._contexts) >= MAX_CONTEXTS:
            self._close_context()
        pools = self._find_pools(spec) if keep else None
        options = {"pools": pools} if pools else {}
        is_alone = not self._contexts and len(self._models) == 1
        try:
            session = loaded.model.open(spec, **options)
        except NativeError:
            if is_alone:
                raise
            self._give_up_all(but=key)
            is_alone, session = True, loaded.model.open(spec, **options)
        opened = Open(session, Depth(session, spec.n_filled, is_kept_whole=bool(spec.n_prefix)), loaded, is_alone)
        if keep:
            self._contexts[spec] = opened
        return opened

    def drop(self, spec: RunSpec, opened: Open) -> None:
        """Close a cell's context, whether it was kept or not."""
        self._contexts.pop(spec, None)
        opened.session.close()

    def rest(self) -> None:
        """Have the threads of kept contexts sleep at once: they would spin for a while, at the cost of whoever computes next."""
        for pool in self._pools.values():
            self.runtime.pause_pool(pool)

    def close(self) -> None:
        """Give up everything."""
        self._give_up_all()
        for pool in self._pools.values():
            self.runtime.free_pool(pool)
        self._pools.clear()

    def _find_pools(self, spec: RunSpec) -> tuple[Any, Any] | None:
        """The threads that all kept contexts of such threads share; None where they cannot be had, and the context then says so."""
        single, batch = list_threads(spec)
        wanted = [single] if batch is None else [single, batch]
        for threads in wanted:
            if threads not in self._pools and (pool := self.runtime.make_pool(threads)):
                self._pools[threads] = pool
        if not all(threads in self._pools for threads in wanted):
            return None
        return self._pools[single], None if batch is None else self._pools[batch]

    def _make_room(self, spec: RunSpec, needed_bytes: int, but: tuple[Any, ...] | None = None) -> None:
        """Give up contexts and models, the least recently used first, until there is room; but names a model that stays."""
        while self._contexts and not self._fits(spec, needed_bytes):
            self._close_context()
        while (others := [key for key in self._models if key != but]) and not self._fits(spec, needed_bytes):
            self._close_model(others[0])

    def _fits(self, spec: RunSpec, needed_bytes: int) -> bool:
        """Whether so much more fits beside what is here. Mapped files count as free memory, so they are taken off."""
        mapped = sum(loaded.needs.file_bytes for loaded in self._models.values())
        if needed_bytes > self.free_bytes() - mapped - RESERVE_BYTES:
            return False
        free = self.runtime.free_on_cards() if spec.n_gpu_layers else None
        return free is None or needed_bytes <= free - RESERVE_BYTES

    def _close_context(self) -> None:
        self._contexts.pop(next(iter(self._contexts))).session.close()

    def _close_model(self, key: tuple[Any, ...]) -> None:
        loaded = self._models.pop(key)
        for spec, opened in [(spec, opened) for spec, opened in self._contexts.items() if opened.loaded is loaded]:
            self.drop(spec, opened)
        loaded.model.close()

    def _give_up_all(self, but: tuple[Any, ...] | None = None) -> None:
        while self._contexts:
            self._close_context()
        for key in [key for key in self._models if key != but]:
            self._close_model(key)
