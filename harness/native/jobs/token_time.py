"""The worker's job behind ``harness token-time``: raw times of everything that a generated token consists of.

Nothing is derived here; `harness.records.token_time` holds what is emitted. All variants of a token are timed in turn within each
round, at each depth, so that a machine that slows down slows all of them.

Events: ``block`` (some tokens of one variant), ``load``, ``application``, ``copies``, ``remark``, ``phase``, and ``done``.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import pathlib
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import llama_cpp

from harness.codec import decode, encode
from harness.errors import NativeError
from harness.host.noise import Watcher
from harness.host.rpc import has_loopback
from harness.native.engine import LoadedModel, Session
from harness.native.jobs import Emit
from harness.native.jobs.app_time import time_application
from harness.native.jobs.load_time import time_loads
from harness.native.jobs.text import make_sampler
from harness.native.measure import compute, list_gaps, measure_dispatch, time_generation
from harness.native.observer import Observer
from harness.native.watching import SETTLE_S, watched
from harness.records.cells import Resolved
from harness.records.token_time import PARTS, WARMUP_TOKENS, Remark, TimePlan

#: The usual chain of samplers, with llama.cpp's own defaults. Source: common/common.h common_params_sampling.
TOP_K, TOP_P, TEMPERATURE = 40, 0.95, 0.8


def run(runtime: Any, request: dict[str, Any], emit: Emit) -> None:
    """Do what a `TimePlan` asks, as JSON.

    Raises
    ------
    NativeError : llama.cpp refused the file, every context, or a batch.
    """
    plan = decode(TimePlan, request)
    spec = plan.spec
    gc.collect()
    gc.disable()
    watcher = Watcher(spec.n_threads or 1, is_server_here=has_loopback(spec.rpc))
    try:
        if plan.load_rounds:
            time_loads(runtime, spec, [pathlib.Path(name) for name in plan.files], plan.load_rounds, emit, watcher)
        with contextlib.closing(runtime.load(spec)) as model:
            emit("loaded", {"model": encode(model.describe())})
            resolved = _Depths(model, plan, emit, watcher).run()
        if plan.application_tokens:
            time_application(runtime, plan, emit, watcher)
    finally:
        gc.enable()
    emit("done", encode({"resolved": resolved}))


def _truncate(context: Session, n_tokens: int) -> bool:
    """Forget everything from a position on; False where the memory cannot forget a part (recurrent models)."""
    if n_tokens == 0:
        context.clear()
        return True
    return bool(llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(context.context), 0, n_tokens, -1))


class _Cache:
    """A context and how to bring its cache to a depth: from a saved state, or by computing it again."""

    def __init__(self, context: Session, deepest: int, state: Any = None) -> None:
        self.context, self._deepest, self.state = context, deepest, state

    def fill(self) -> None:
        """Fill the cache to the greatest depth and keep a copy of it."""
        self._compute(self._deepest)
        self.state = self.context.save_state() if self._deepest else None

    def restore(self) -> None:
        """Bring the greatest depth back."""
        self.context.clear()
        if self._deepest and not (self.state is not None and self.context.restore_state(self.state)):
            self._compute(self._deepest)

    def shorten(self, depth: int) -> None:
        """Go back to a depth that was passed before."""
        if not _truncate(self.context, depth):
            self._compute(depth)

    def _compute(self, depth: int) -> None:
        self.context.clear()
        compute(self.context, self.context.prompt_batches(depth))


class _Depths:
    """Times every variant at every depth, round by round, from the greatest depth down."""

    def __init__(self, model: LoadedModel, plan: TimePlan, emit: Emit, watcher: Watcher) -> None:
        self._model, self._emit, self._watcher = model, emit, watcher
        self._depths = sorted(plan.depths, reverse=True)
        self._rounds, self._n_tokens = plan.rounds, plan.n_tokens + WARMUP_TOKENS
        self._cache_types = plan.cache_types
        self._spec = dataclasses.replace(plan.spec, n_depth=self._depths[0], n_prompt=0, n_gen=self._n_tokens)
        self._observer = Observer(model.runtime.lib)
        self._open: list[Session] = []

    def run(self) -> Resolved:
        try:
            variants = self._prepare()
            for index in range(self._rounds):
                for cache in dict.fromkeys(cache for _, _, cache, _ in variants):
                    cache.restore()
                for depth in self._depths:
                    self._emit("phase", {"phase": f"d{depth}", "index": index, "count": self._rounds})
                    self._time_depth(variants, depth, index)
            plain = self._open[0]
            self._emit("copies", _time_copies(plain) | {"dispatch_ns": measure_dispatch(time.perf_counter_ns)})
            return plain.describe()
        finally:
            for context in reversed(self._open):
                context.close()

    def _prepare(self) -> list[tuple[str, str, _Cache, Callable[[], dict[str, Any]]]]:
        """Open the contexts, fill their caches, and list (variant, cache type, cache, how to time it)."""
        main, *others = self._cache_types
        plain = self._fill(main)
        watched_context = self._open_context(main, observer=self._observer)
        watched = _Cache(watched_context, self._depths[0], plain.state)
        greedy, chain = make_sampler(0, TOP_K, TOP_P), make_sampler(TEMPERATURE, TOP_K, TOP_P)  # freed with the process
        variants = [
            ("bare", main, plain, lambda: self._time_bare(plain.context)),
            ("greedy", main, plain, lambda: _time_whole(plain.context, greedy, self._n_tokens)),
            ("chain", main, plain, lambda: _time_whole(plain.context, chain, self._n_tokens)),
            ("declining", main, watched, lambda: self._time_bare(watched.context)),
            ("observing", main, watched, lambda: self._time_observed(watched.context)),
        ]
        for kind in others:
            try:
                cache = self._fill(kind)
            except NativeError as error:
                self._emit("remark", encode(Remark("cache refused", cache_type=kind, said=str(error))))
                continue
            variants.append(("bare", kind, cache, lambda cache=cache: self._time_bare(cache.context)))  # type: ignore[misc]
        return variants

    def _open_context(self, cache_type: str, observer: Observer | None = None) -> Session:
        spec = dataclasses.replace(self._spec, type_k=cache_type, type_v=cache_type)
        pools, callback = self._open[0].pools if self._open else None, observer.callback if observer else None
        context = Session(self._model, spec, pools=pools, eval_callback=callback)
        self._open.append(context)
        return context

    def _fill(self, cache_type: str) -> _Cache:
        self._emit("phase", {"phase": f"fill {cache_type}", "index": 0, "count": 1})
        cache = _Cache(self._open_context(cache_type), self._depths[0])
        cache.fill()
        return cache

    def _time_depth(self, variants: Sequence[Any], depth: int, index: int) -> None:
        turn = index % len(variants)
        for variant, cache_type, cache, timer in (*variants[turn:], *variants[:turn]):
            cache.shorten(depth)
            block, seen = watched(timer, self._watcher, SETTLE_S)
            about = {"round": index, "depth": depth, "cache": cache_type, "variant": variant}
            self._emit("block", {**about, **block, "conditions": encode(next(iter(seen), None))})

    def _time_bare(self, context: Session) -> dict[str, Any]:
        """What llama-bench times: decode and wait."""
        batches = context.token_batches(self._n_tokens)
        stamps = array("q", bytes(8 * (len(batches) + 1)))
        time_generation(context, batches, time.perf_counter_ns, stamps)
        return {"token_ns": list_gaps(stamps)}

    def _time_observed(self, context: Session) -> dict[str, Any]:
        """The same with every node watched: also the time outside of the graph, and of each kind of node.

        node_ns has one list a kind of node, one number a token; node_count how many such nodes a token has.
        """
        observer = self._observer
        token_ns, outside_ns, watched = [], [], []
        observer.watch(True)
        try:
            for batch in context.token_batches(self._n_tokens):
                observer.forget()
                start = time.perf_counter_ns()
                context.decode(batch)
                context.synchronize()
                end = time.perf_counter_ns()
                token_ns.append(end - start)
                outside_ns.append(max(observer.first_ns - start, 0) + max(end - observer.last_ns, 0))
                watched.append(dict(observer.node_ns))
        finally:
            observer.watch(False)
        names = sorted({name for token in watched for name in token})
        return {
            "token_ns": token_ns,
            "outside_ns": outside_ns,
            "node_ns": {name: [token.get(name, 0) for token in watched] for name in names},
            "node_count": dict(observer.node_count),
        }


def _time_whole(context: Session, chain: Any, n_tokens: int) -> dict[str, Any]:
    """Time tokens with everything that an application does: next token in, decode, wait, logits, sampling, text.

    The token that was drawn becomes text; the next one that goes in is random, as in the bare variant, so that all variants
    compute the same thing.

    Returns
    -------
    token_ns, and parts_ns with one list for each of PARTS but "dispatch", which is what remains.
    """
    pointer, vocabulary = context.context, context.vocab
    decode, synchronize = llama_cpp.llama_decode, llama_cpp.llama_synchronize
    get_logits, sample = llama_cpp.llama_get_logits_ith, llama_cpp.llama_sampler_sample
    to_piece, clock = llama_cpp.llama_token_to_piece, time.perf_counter_ns
    tokens, text = context.random_tokens(n_tokens), ctypes.create_string_buffer(256)
    turn = (llama_cpp.llama_token * 1)()
    batch = llama_cpp.llama_batch_get_one(turn, 1)
    n_stamps = 7
    stamps = array("q", bytes(8 * (n_stamps * n_tokens + 1)))
    at = 0
    for index in range(n_tokens):
        stamps[at] = clock()
        turn[0] = tokens[index]
        stamps[at + 1] = clock()
        code = decode(pointer, batch)
        stamps[at + 2] = clock()
        synchronize(pointer)
        stamps[at + 3] = clock()
        get_logits(pointer, -1)
        stamps[at + 4] = clock()
        drawn = sample(chain, pointer, -1)
        stamps[at + 5] = clock()
        size = to_piece(vocabulary, drawn, text, 256, 0, True)
        text.raw[: max(size, 0)].decode("utf-8", "replace")
        stamps[at + 6] = clock()
        at += n_stamps
        if code:
            raise NativeError(f"llama.cpp refused to decode a token (code {code}); try a smaller --depth.")
    stamps[at] = clock()
    starts = range(0, n_stamps * n_tokens, n_stamps)
    steps = dict(zip(PARTS, range(1, n_stamps - 1), strict=False))
    return {
        "token_ns": [stamps[start + n_stamps] - stamps[start] for start in starts],
        "parts_ns": {
            name: [stamps[start + step + 1] - stamps[start + step] for start in starts] for name, step in steps.items()
        },
    }


def _time_copies(context: Session, n_times: int = 30) -> dict[str, Any]:
    """Time what some applications add: a copy of the logits in numpy; and what one call into C costs at the least."""
    import numpy

    context.clear()
    [batch] = context.token_batches(1)
    context.decode(batch)
    context.synchronize()
    copy_ns, call_ns = [], []
    for _ in range(n_times):
        start = time.perf_counter_ns()
        numpy.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context.context, -1), shape=(context.n_vocab,)).copy()
        copy_ns.append(time.perf_counter_ns() - start)
        start = time.perf_counter_ns()
        llama_cpp.llama_n_ctx(context.context)
        call_ns.append(time.perf_counter_ns() - start)
    return {"logits_copy_ns": copy_ns, "call_ns": call_ns}
