"""Times an application's loop, the binding's own `Llama`, beside the bare decode, on one context and one prompt.

Its methods are wrapped with a stopwatch, so that the parts are those of the application itself and add up to its tokens.
"""

from __future__ import annotations

import contextlib
import functools
import random
import time
from array import array
from collections import Counter
from collections.abc import Callable
from typing import Any

import llama_cpp

from harness.codec import encode
from harness.gguf.types import tensor_type
from harness.host.noise import Watcher
from harness.native.engine import make_pool
from harness.native.jobs import Emit
from harness.native.measure import list_gaps
from harness.native.threads import list_threads
from harness.native.watching import watched
from harness.records.token_time import APPLICATION_PARTS, Remark, TimePlan
from harness.spec import RunSpec

PROMPT = "explain quantum entanglement"


def time_application(runtime: Any, plan: TimePlan, emit: Emit, watcher: Watcher | None = None) -> None:
    """Time the four loops in turn, `rounds` times, and emit an ``application`` event for each.

    ``bench`` decodes and waits, with the bench's thread pool; ``no pool`` is the same without it; ``generate`` is the binding's token
    generator; ``completion`` its streaming text completion.
    """
    try:
        loop = _Loop(runtime, plan.spec, plan.application_tokens)
    except ValueError as error:
        emit("remark", encode(Remark("no application", said=str(error))))
        return
    with contextlib.closing(loop):
        timers = (
            ("bench", lambda: loop.time_bench(pooled=True)),
            ("no pool", lambda: loop.time_bench(pooled=False)),
            ("generate", loop.time_generate),
            ("completion", loop.time_completion),
        )
        loop.time_bench(pooled=True)
        for index in range(plan.rounds):
            emit("phase", {"phase": "application", "index": index, "count": plan.rounds})
            turn = index % len(timers)
            for name, timer in (*timers[turn:], *timers[:turn]):
                taken, seen = watched(timer, watcher)
                conditions = encode(next(iter(seen), None))
                emit("application", {"round": index, "variant": name, **taken, "conditions": conditions})


class _Loop:
    """A `Llama` with the spec's threads, cache and flash attention, so that only the loop around the engine differs."""

    def __init__(self, runtime: Any, spec: RunSpec, n_tokens: int) -> None:
        self._lib, self._n_tokens, self._clock = runtime.lib, n_tokens, time.perf_counter_ns
        n_prompt_most = 64
        self._llama: Any = llama_cpp.Llama(
            spec.model,
            n_gpu_layers=spec.n_gpu_layers,
            use_mmap=spec.load_mode in ("auto", "mmap", "mmap+mlock"),
            n_ctx=n_prompt_most + n_tokens + 8,
            n_batch=min(spec.n_batch, 512),
            n_ubatch=min(spec.n_ubatch, 512),
            n_threads=spec.n_threads,
            n_threads_batch=spec.n_threads_of_batch,
            offload_kqv=not spec.no_kv_offload,
            flash_attn=spec.flash_attn != "off",
            type_k=tensor_type(spec.type_k).type_id,
            type_v=tensor_type(spec.type_v).type_id,
            verbose=False,
        )
        self._prompt = self._llama.tokenize(PROMPT.encode(), add_bos=True)[:n_prompt_most]
        self._pool = make_pool(self._lib, list_threads(spec)[0])
        self._spent: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._stamps: list[int] = []
        self._snapshots: list[Counter[str]] = []
        self._wrap()

    def _wrap(self) -> None:
        """Put the stopwatch around decoding, sampling and text; the context must be waited for where it is charged."""
        llama = self._llama
        inner_decode, time_sample = llama._ctx.decode, functools.partial(self._spend, "sampling", llama.sample)

        def decode(batch: Any) -> None:
            inner_decode(batch)
            llama_cpp.llama_synchronize(llama._ctx.ctx)

        def sample(*args: Any, **options: Any) -> Any:
            token = time_sample(*args, **options)
            self._stamps.append(self._clock())
            self._snapshots.append(self._spent.copy())
            return token

        llama._ctx.decode, llama.sample = functools.partial(self._spend, "decode", decode), sample
        llama.detokenize = functools.partial(self._spend, "text", llama.detokenize)

    def _spend(self, name: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call, and charge what it takes to a part of the token."""
        start = self._clock()
        result = call(*args, **options)
        self._spent[name] += self._clock() - start
        self._calls[name] += 1
        return result

    def _reset(self) -> None:
        self._llama._ctx.kv_cache_clear()
        self._llama.n_tokens = 0
        self._spent.clear()
        self._calls.clear()
        self._stamps.clear()
        self._snapshots.clear()

    def time_bench(self, *, pooled: bool) -> dict[str, Any]:
        """Decode the prompt, then single tokens, from ctypes; the random tokens of a bench."""
        self._reset()
        context = self._llama._ctx.ctx
        if pooled:
            self._lib.llama_attach_threadpool(context, self._pool, None)
        try:
            prompt = (llama_cpp.llama_token * len(self._prompt))(*self._prompt)
            llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(prompt, len(prompt)))
            llama_cpp.llama_synchronize(context)
            turn = (llama_cpp.llama_token * 1)()
            tokens = random.Random(0).choices(range(self._llama.n_vocab()), k=self._n_tokens)
            batch = llama_cpp.llama_batch_get_one(turn, 1)
            stamps = array("q", bytes(8 * (self._n_tokens + 1)))
            decode, synchronize, clock = llama_cpp.llama_decode, llama_cpp.llama_synchronize, self._clock
            stamps[0] = clock()
            for index, token in enumerate(tokens):
                turn[0] = token
                decode(context, batch)
                synchronize(context)
                stamps[index + 1] = clock()
        finally:
            if pooled:
                self._lib.llama_detach_threadpool(context)
        return {"token_ns": list_gaps(stamps)}

    def time_generate(self) -> dict[str, Any]:
        """The binding's generator of tokens, with its usual sampling."""
        self._reset()
        for index, _ in enumerate(self._llama.generate(list(self._prompt))):
            if index == self._n_tokens:
                break
        return self._collect()

    def time_completion(self) -> dict[str, Any]:
        """The binding's streaming completion; it may end before its time, as models do."""
        self._reset()
        for _ in self._llama.create_completion(list(self._prompt), max_tokens=self._n_tokens + 1, stream=True):
            pass
        return self._collect()

    def _collect(self) -> dict[str, Any]:
        """Durations between one drawn token and the next, and what of each was spent where."""
        pairs = list(zip(self._snapshots, self._snapshots[1:], strict=False))
        return {
            "token_ns": list_gaps(self._stamps),
            "parts_ns": {name: [later[name] - earlier[name] for earlier, later in pairs] for name in APPLICATION_PARTS},
            "calls": dict(self._calls),
        }

    def close(self) -> None:
        self._llama.close()
        if self._pool:
            self._lib.ggml_threadpool_free(self._pool)
            self._pool = None
