"""The worker's job behind ``harness speculate``: texts written with drafts of several lengths and without one, by turns.

Events: ``target`` and ``draft`` (model, resolved, load_duration_ns), ``prompt``, ``rollback``, ``passage``, ``phase``, and ``done``.
Vocabularies are held against each other before any weights are loaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import llama_cpp

from harness.codec import decode, encode
from harness.errors import NativeError, UsageError
from harness.host.noise import Watcher
from harness.native.engine import LoadedModel, Pools, resident_bytes
from harness.native.jobs import Emit
from harness.native.jobs.text import TextSession, refuse_what_writes_nothing
from harness.native.measure import compute
from harness.native.speculative_loop import (
    Drafter,
    LookupDrafter,
    ModelDrafter,
    NoDrafter,
    find_difference,
    forget,
    screen,
    write_guessing,
)
from harness.native.vocabularies import Vocabulary, find_vocabulary_difference
from harness.native.watching import SETTLE_S, watched
from harness.records.speculation import Manner, Passage, Prompt, PromptText, SpeculationPlan
from harness.records.text import TextRequest, hash_prompt
from harness.spec import RunSpec

#: Candidates among which the draft's probabilities are counted. Source: common_speculative_impl_draft_simple in common/speculative.cpp.
CANDIDATES = 10

#: Tokens of the text that nobody times, by which weights are read and kernels started.
WARMUP_TOKENS = 8


def run(runtime: Any, request: dict[str, Any], emit: Emit) -> None:
    """Do what a `SpeculationPlan` asks, as JSON.

    Raises
    ------
    NativeError : llama.cpp refused a file, a context or a batch, or a memory cannot forget.
    UsageError : the draft has another vocabulary; a prompt fills the context or comes to nothing.
    """
    plan = decode(SpeculationPlan, request)
    if plan.draft is not None and plan.draft.model != plan.target.model:
        _refuse_other_vocabulary(plan.target, plan.draft)
    gc.collect()
    gc.disable()
    try:
        with contextlib.ExitStack() as stack:
            target = _open(runtime, plan.target, plan.manner, "target", emit, stack)
            draft = None
            if plan.draft is not None:
                draft = _open(runtime, plan.draft, plan.manner, "draft", emit, stack, pools=target.pools)
            emit("rollback", {"rollback": target.rollback})
            _Texts(target, draft, plan, emit).write_all()
            emit("done", {"rss_bytes": resident_bytes()})
    finally:
        gc.enable()


def _open(
    runtime: Any,
    spec: RunSpec,
    manner: Manner,
    name: str,
    emit: Emit,
    stack: contextlib.ExitStack,
    pools: Pools | None = None,
) -> GuessSession:
    """A model with its context, told as an event of its name."""
    emit("phase", {"phase": f"load {name}", "index": 0, "count": 1})
    model = stack.enter_context(contextlib.closing(runtime.load(spec)))
    refuse_what_writes_nothing(model)
    session = stack.enter_context(contextlib.closing(GuessSession(model, spec, pools, max(manner.lengths))))
    session.find_rollback(name)
    found = {"model": model.describe(), "resolved": session.describe(), "load_duration_ns": model.load_duration_ns}
    emit(name, encode(found))
    return session


def _refuse_other_vocabulary(target: RunSpec, draft: RunSpec) -> None:
    with contextlib.ExitStack() as stack:
        ours, theirs = (stack.enter_context(_open_vocabulary(spec.model)) for spec in (target, draft))
        difference = find_vocabulary_difference(ours, theirs) if ours and theirs else None
    if difference:
        raise UsageError(
            f"{draft.file_name} cannot draft for {target.file_name}: {difference}; take a small model of the same family."
        )


@contextlib.contextmanager
def _open_vocabulary(path: str) -> Iterator[Vocabulary | None]:
    """A file's vocabulary, without its weights; None where llama.cpp refuses it, which loading it whole will say better."""
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    pointer = llama_cpp.llama_model_load_from_file(path.encode("utf-8", "surrogateescape"), parameters)
    if not pointer:
        yield None
        return
    try:
        vocab = llama_cpp.llama_model_get_vocab(pointer)
        adds = llama_cpp.llama_vocab_get_add_bos(vocab), llama_cpp.llama_vocab_get_add_eos(vocab)
        yield Vocabulary(
            llama_cpp.llama_vocab_type(vocab),
            llama_cpp.llama_vocab_bos(vocab) if adds[0] else None,
            llama_cpp.llama_vocab_eos(vocab) if adds[1] else None,
            llama_cpp.llama_vocab_n_tokens(vocab),
            lambda token: llama_cpp.llama_vocab_get_text(vocab, token) or b"",
        )
    finally:
        llama_cpp.llama_model_free(pointer)


class GuessSession(TextSession):
    """A context that computes several tokens with a result for each: the GuessEngine of `harness.native.speculative_loop`."""

    def __init__(self, model: LoadedModel, spec: RunSpec, pools: Pools | None, n_most: int) -> None:
        greedy = TextRequest(model=spec.model, prompt="-", temperature=0.0)
        super().__init__(model, spec, greedy, pools=pools, n_rs_seq=n_most)
        self._rows = llama_cpp.llama_batch_init(n_most + 1, 0, 1)
        self.rollback: str | None = None
        self._marks = False

    def close(self) -> None:
        rows, self._rows = getattr(self, "_rows", None), None
        if rows is not None:
            llama_cpp.llama_batch_free(rows)
        super().close()

    @property
    def _memory(self) -> Any:
        return llama_cpp.llama_get_memory(self.context)

    def find_rollback(self, name: str) -> None:
        """Find out how this context forgets single tokens. Source: common_context_can_seq_rm in common/common.cpp.

        Raises
        ------
        NativeError : it does not.
        """
        self.clear()
        compute(self, [self.rows((0, 0), 0, every=False)])
        if self.forget_from(1):
            self.rollback = "partial"
        if llama_cpp.llama_n_rs_seq(self.context) > 0:
            self.rollback, self._marks = "snapshots", True
        if self.rollback is None:
            raise NativeError(
                f"The {name} model keeps a state that cannot be taken back token by token (llama_memory_seq_rm), so that "
                "nothing can be guessed ahead with it; take a model of plain attention."
            )
        self.clear()

    def rows(self, tokens: Sequence[int], position: int, *, every: bool) -> Any:
        batch = self._rows
        batch.n_tokens = n = len(tokens)
        for row, token in enumerate(tokens):
            batch.token[row], batch.pos[row] = token, position + row
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, 0
            batch.logits[row] = every or row == n - 1
        return batch

    def pick(self, row: int) -> int:
        return llama_cpp.llama_sampler_sample(self._sampler, self.context, row)

    def pick_with_share(self, row: int) -> tuple[int, float]:
        import numpy

        logits = numpy.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self.context, row), (self.n_vocab,))
        best = int(logits.argmax())
        likely = numpy.partition(logits, -CANDIDATES)[-CANDIDATES:] if len(logits) > CANDIDATES else logits
        return best, float(1 / numpy.exp(likely - logits[best]).sum())

    def forget_from(self, position: int) -> bool:
        return bool(llama_cpp.llama_memory_seq_rm(self._memory, 0, position, -1))

    def mark(self) -> Any:
        """A copy of the recurrent state, where there is one: it is not taken back over several decodes.

        Source: common_prompt_checkpoint::update_dft in common/common.cpp.
        """
        if not self._marks:
            return None
        flags = llama_cpp.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
        size = llama_cpp.llama_state_seq_get_size_ext(self.context, 0, flags)
        state = (ctypes.c_uint8 * size)()
        llama_cpp.llama_state_seq_get_data_ext(self.context, state, size, 0, flags)
        return state

    def return_to(self, mark: Any, position: int) -> None:
        if mark is not None:
            flags = llama_cpp.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
            llama_cpp.llama_state_seq_set_data_ext(self.context, mark, len(mark), 0, flags)
        forget(self, position)


class _Texts:
    """Writes every text with every length, round by round, in an order that is drawn anew for each prompt of a round."""

    def __init__(self, target: GuessSession, draft: GuessSession | None, plan: SpeculationPlan, emit: Emit) -> None:
        self._target, self._draft, self._plan, self._emit = target, draft, plan, emit
        self._manner = plan.manner
        self._prompts = [self._tokenize(prompt) for prompt in plan.prompts]
        self._states: dict[tuple[int, int], Any] = {}
        self._references: dict[int, list[int]] = {}
        self._passages: list[Passage] = []
        self._watcher = Watcher(plan.target.n_threads or 1)
        self._random = random.Random(self._manner.seed)

    def _tokenize(self, prompt: PromptText) -> list[int]:
        asked = TextRequest(model=self._plan.target.model, prompt=prompt.text, raw=prompt.raw)
        text, template, _ = self._target.frame(asked)
        tokens, n_ctx = self._target.tokenize(text), self._plan.target.n_ctx
        if not tokens:
            raise UsageError("A text comes to no token at all; write more of it.")
        if len(tokens) >= n_ctx:
            raise UsageError(f"A text has {len(tokens)} tokens and the context {n_ctx}; ask for more with --ctx.")
        self._emit("prompt", encode(Prompt(hash_prompt(prompt.text), len(tokens), template)))  # type: ignore[arg-type]
        return tokens

    def write_all(self) -> None:
        """Write everything; each passage leaves as soon as it is whole."""
        manner = self._manner
        self._fill(0)
        self._write(0, max(manner.lengths), WARMUP_TOKENS)
        begun, lengths = time.perf_counter(), list(manner.lengths)
        for number in range(manner.rounds):
            round_begun = time.perf_counter()
            for prompt in range(len(self._prompts)):
                self._write_prompt(prompt, number, lengths)
            now = time.perf_counter()
            if number == 0 and manner.is_screened:
                lengths = screen(self._passages, lengths)
            if now - begun + (now - round_begun) > manner.max_time_s:
                break

    def _write_prompt(self, prompt: int, number: int, lengths: Sequence[int]) -> None:
        order = [0, *lengths]
        self._random.shuffle(order)
        if number == 0:  # what the others are held against comes first
            order.sort(key=bool)
        for place, length in enumerate(order):
            task = f"round {number + 1}, text {prompt + 1}, draft of {length}"
            self._emit("phase", {"phase": task, "index": place, "count": len(order)})
            self._fill(prompt)
            write = functools.partial(self._write, prompt, length, self._manner.n_tokens)
            done, seen = watched(write, self._watcher, SETTLE_S)
            reference = self._references.setdefault(prompt, done.tokens)
            passage = Passage(
                prompt, number, length, tuple(done.n_drafted), tuple(done.n_accepted), tuple(done.draft_ns), tuple(done.verify_ns),
                tuple(done.follow_ns), len(done.tokens), done.finish, find_difference(done.tokens, reference),
                next(iter(seen), None),
            )  # fmt: skip
            self._passages.append(passage)
            self._emit("passage", encode(passage))

    def _write(self, prompt: int, length: int, n_tokens: int) -> Any:
        tokens, n_ctx = self._prompts[prompt], self._plan.target.n_ctx
        return write_guessing(
            self._target,
            self._drafter(length),
            time.perf_counter_ns,
            tokens,
            n_draft=length,
            n_tokens=n_tokens,
            n_ctx=n_ctx,
        )

    def _drafter(self, length: int) -> Drafter:
        n_min, p_min = self._manner.n_min, self._manner.p_min
        if not length:
            return NoDrafter()
        if self._draft is None:
            return LookupDrafter(self._manner.n_gram or 1, n_min)
        return ModelDrafter(self._draft, n_min, p_min)

    def _fill(self, prompt: int) -> None:
        """Bring both caches to a prompt without its last token: computed once, then from a copy."""
        for place, engine in enumerate(filter(None, (self._target, self._draft))):
            engine.clear()
            before = self._prompts[prompt][:-1]
            if not before:
                continue
            state = self._states.get((place, prompt))
            if state is None or not engine.restore_state(state):
                compute(engine, engine.batches(before))
                self._states[place, prompt] = engine.save_state()
