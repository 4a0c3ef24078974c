"""Warm-up and timed repetitions of one spec, in blocks, on any engine and any clock.

The semantics are llama-bench's (test_prompt, test_gen and main in llama.cpp's tools/llama-bench/llama-bench.cpp): random tokens with
BOS first, prompts in chunks of n_batch and one synchronize at the end, generation one token a decode with a synchronize each and no
sampling, the cache cleared before each repetition, a depth filled untimed. With several sequences they are llama-batched-bench's
(main in tools/batched-bench/batched-bench.cpp): all prompts in chunks of n_batch, then steps of one token of each sequence; a shared
prompt is copied between the two, untimed. Engine and clock come as arguments, so a fake engine that
"takes" a known time tests every line here without waiting.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from harness.evidence.medians import samples_needed
from harness.records.cells import Conditions, Sample
from harness.spec import RunSpec

#: Reads a monotonic time in nanoseconds.
Clock = Callable[[], int]

#: Receives (phase, index, count) between timed regions, never inside one.
Progress = Callable[[str, int, int], None]


class Computes(Protocol):
    """What every loop needs of an engine."""

    def decode(self, batch: Any) -> None:
        """Start computing a batch; raise NativeError where llama.cpp refuses it."""

    def synchronize(self) -> None:
        """Wait until everything that was started is done."""


class Engine(Computes, Protocol):
    """What a timed run needs of a loaded model with a context. Batches are opaque: made before the clock starts."""

    def prompt_batches(self, n_tokens: int) -> Sequence[Any]:
        """Random tokens, BOS first, cut into chunks of n_batch; of several sequences a prompt of so many tokens each."""

    def token_batches(self, n_tokens: int) -> Sequence[Any]:
        """Random tokens, BOS first, one a batch; of several sequences one of each."""

    def share(self) -> None:
        """Give all sequences what the first one has read."""

    def clear(self) -> None:
        """Empty the KV cache."""

    def go_back(self, n_tokens: int) -> bool:
        """Keep the first tokens of a sequence alone; False where that cannot be, and then it is empty."""

    @property
    def forgets_in_state(self) -> bool:
        """Whether a saved state lacks something that the cache has."""

    def save_state(self) -> Any:
        """Copy the cache's content out."""

    def restore_state(self, state: Any) -> bool:
        """Put a copy back; False where the context cannot take it."""


class Watches(Protocol):
    """Reads what the operating system counts around a repetition, outside its timed region (`harness.host.noise.Watcher`)."""

    def begin(self) -> None:
        """Read before the rest that precedes it."""

    def end(self) -> Conditions | None:
        """Read right after it, and say what was counted meanwhile."""


class Unwatched:
    """Nobody asks."""

    def begin(self) -> None:
        pass

    def end(self) -> None:
        return None


UNWATCHED: Watches = Unwatched()


def list_gaps(stamps: Sequence[int]) -> list[int]:
    """From each time stamp to the next."""
    return [later - earlier for earlier, later in itertools.pairwise(stamps)]


def time_prompt(engine: Engine, batches: Sequence[Any], clock: Clock) -> int:
    """Time one prompt, in nanoseconds."""
    decode = engine.decode
    start = clock()
    for batch in batches:
        decode(batch)
    engine.synchronize()
    return clock() - start


def time_second_prompt(
    engine: Engine, n_before: int, prompt: Sequence[Any], whole: Sequence[Any], clock: Clock
) -> tuple[int, bool]:
    """Time a prompt of which the cache may have the first n_before tokens: in nanoseconds, and whether it had.

    What lies behind them is taken back first; where that cannot be, the whole prompt is read.
    """
    start = clock()
    can = engine.go_back(n_before)
    for batch in prompt if can else whole:
        engine.decode(batch)
    engine.synchronize()
    return clock() - start, can


def time_generation(engine: Computes, batches: Sequence[Any], clock: Clock, stamps: array[int]) -> None:
    """Decode one token after the other and write a time stamp after each; stamps has room for one more than batches.

    The loop holds the two native calls and one clock read, and allocates nothing that outlives its turn.
    """
    decode, synchronize = engine.decode, engine.synchronize
    stamps[0] = clock()
    index = 0
    for batch in batches:
        decode(batch)
        synchronize()
        index += 1
        stamps[index] = clock()


@dataclass(frozen=True, slots=True)
class Block:
    """So many repetitions of a cell, with no other cell in between.

    warms_up runs a whole untimed repetition first, as llama-bench does. Without it one token is computed untimed: the first decode of
    a context, or after another cell's, finds its memory cold.
    """

    repetitions: int
    warms_up: bool = True


def measure(
    engine: Engine,
    clock: Clock,
    spec: RunSpec,
    report: Callable[[Sample], None],
    progress: Progress,
    block: Block | None = None,
    depth: Depth | None = None,
    watch: Watches = UNWATCHED,
) -> list[Sample]:
    """Run a block of a spec's repetitions, all of them unless told; each sample is handed to `report` as soon as it is complete.

    depth is that of the engine's context, where it was filled by a block before this one; watch reads around each repetition.

    Raises
    ------
    NativeError : llama.cpp refused a batch.
    """
    block = block or Block(spec.repetitions or samples_needed(), spec.warmup is not False)
    samples = []
    if block.warms_up:
        watch.begin()
    progress("warm-up", 0, block.repetitions)
    engine.clear()
    if block.warms_up:
        samples.append(_run_once(engine, clock, spec, min(spec.n_gen, 1), watch, warmup=True))
        report(samples[-1])
    else:
        compute(engine, engine.token_batches(1))
    depth = depth or Depth(engine, spec.n_filled, is_kept_whole=bool(spec.n_prefix))
    for repetition in range(block.repetitions):
        engine.clear()
        if spec.n_filled:
            progress("depth", repetition, block.repetitions)
            depth.fill()
        watch.begin()
        progress("repetition", repetition, block.repetitions)
        samples.append(_run_once(engine, clock, spec, spec.n_gen, watch, warmup=False))
        report(samples[-1])
    return samples


def _run_once(engine: Engine, clock: Clock, spec: RunSpec, n_gen: int, watch: Watches, *, warmup: bool) -> Sample:
    """Prepare everything that needs memory, then time it, and have read what was counted around it."""
    prompt = engine.prompt_batches(spec.n_prompt) if spec.n_prompt else ()
    tokens = engine.token_batches(n_gen) if n_gen else ()
    stamps = array("q", bytes(8 * (len(tokens) + 1)))
    prompt_ns = n_reused = None
    if spec.n_prefix and not warmup:
        n_before = spec.n_depth + spec.n_prefix
        whole = engine.prompt_batches(n_before + spec.n_prompt)
        prompt_ns, can = time_second_prompt(engine, n_before, prompt, whole, clock)
        n_reused = n_before if can else 0
    elif prompt:
        prompt_ns = time_prompt(engine, prompt, clock)
    if tokens:
        if spec.is_prompt_shared and spec.n_parallel > 1:
            engine.share()
        time_generation(engine, tokens, clock, stamps)
    conditions = watch.end()
    token_ns = tuple(list_gaps(stamps)) if tokens else ()
    duration_ns = (prompt_ns or 0) + sum(token_ns)
    return Sample(duration_ns, prompt_ns, token_ns, is_warmup=warmup, conditions=conditions, n_reused=n_reused)


def compute(engine: Computes, batches: Iterable[Any]) -> None:
    """Decode batches and wait for the last one, untimed."""
    for batch in batches:
        engine.decode(batch)
    engine.synchronize()


class Depth:
    """Fills a context's cache to a depth: computed once, then restored, as llama-bench does.

    is_kept_whole: it is computed each time where a state that was saved lacks what lies outside a window.
    """

    def __init__(self, engine: Engine, n_depth: int, *, is_kept_whole: bool = False) -> None:
        self._engine, self._n_depth, self._is_kept_whole, self._state = engine, n_depth, is_kept_whole, None

    def fill(self) -> None:
        """Fill an empty cache."""
        if self._state is not None and self._engine.restore_state(self._state):
            return
        compute(self._engine, self._engine.prompt_batches(self._n_depth))
        if not (self._is_kept_whole and self._engine.forgets_in_state):
            self._state = self._engine.save_state()


class InstantEngine:
    """Computes in no time: what the loop around it takes is Python's own share."""

    def token_batches(self, n_tokens: int) -> Sequence[Any]:
        return (None,) * n_tokens

    def decode(self, batch: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass


def measure_dispatch(clock: Clock, n_tokens: int = 2000) -> int:
    """Measure the loop around a generated token with an instant engine: the share that is Python's, in ns a token (median)."""
    engine = InstantEngine()
    stamps = array("q", bytes(8 * (n_tokens + 1)))
    time_generation(engine, engine.token_batches(n_tokens), clock, stamps)
    return sorted(list_gaps(stamps))[n_tokens // 2]
