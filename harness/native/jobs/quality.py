"""The worker's job behind ``harness quality``: models predict a text, window by window, all of them side by side.

A window is a context full of text, with BOS in the place of its first token where the model wants one. What comes in its second half is
scored, so that each token has at least half a window before it. Only one window's logits are in memory at a time, those of the base
model and of the one that is compared with it; what leaves is sums.

Source: perplexity and kl_divergence in tools/perplexity/perplexity.cpp of llama.cpp.

Events: ``opened`` (a cell is ready), ``window`` (sums of one), ``failed`` (a cell will have no more), ``phase``, and ``done``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import llama_cpp
import numpy as np

from harness.codec import decode, encode
from harness.errors import NativeError, UsageError
from harness.native.engine import LoadedModel, Session
from harness.native.jobs import Emit
from harness.native.scoring import Scored, compare, score
from harness.native.threads import list_threads
from harness.records.quality import QualityPlan
from harness.spec import RunSpec


def run(runtime: Any, request: dict[str, Any], emit: Emit) -> None:
    """Do what a `QualityPlan` asks, as JSON.

    Raises
    ------
    NativeError : llama.cpp refused the base model, or every cell.
    UsageError : the text is shorter than two windows, or a model has another vocabulary than its base, or cuts it otherwise.
    """
    plan = decode(QualityPlan, request)
    text = pathlib.Path(plan.text).read_bytes()
    with contextlib.ExitStack() as stack:
        readers = _Readers(runtime, plan, text, stack, emit)
        readers.open_all()
        readers.check()
        for index in range(max(reader.n_chunks for reader in readers.open)):
            readers.read_window(index)
    emit("done", {})


class _Readers:
    """The cells of a plan that are still read with; models and threads are shared where they can be."""

    def __init__(self, runtime: Any, plan: QualityPlan, text: bytes, stack: contextlib.ExitStack, emit: Emit) -> None:
        self._runtime, self._plan, self._text, self._stack, self._emit = runtime, plan, text, stack, emit
        self._models: dict[Any, LoadedModel] = {}
        self._pools: dict[Any, Any] = {}
        self.open: list[_Reader] = []

    def open_all(self) -> None:
        """Load and open every cell; one that llama.cpp refuses costs itself, unless it is the base or the last one."""
        for place, spec in enumerate(self._plan.cells):
            self._emit("phase", {"phase": "load", "index": place, "count": len(self._plan.cells)})
            try:
                reader = self._open(place, spec)
            except NativeError as error:
                if place == self._plan.base or (place == len(self._plan.cells) - 1 and not self.open):
                    raise
                self._fail(place, error)
                continue
            self.open.append(reader)
            found = {"model": reader.model.describe(), "resolved": reader.session.describe()}
            counts = {"n_tokens": len(reader.tokens), "n_chunks": reader.n_chunks}
            self._emit("opened", {"cell": place, **encode(found), **counts})

    def _open(self, place: int, spec: RunSpec) -> _Reader:
        spec = dataclasses.replace(spec, n_batch=min(spec.n_batch, spec.n_ctx))  # as llama-perplexity does
        key = spec.load_key()
        if key not in self._models:
            self._models[key] = self._stack.enter_context(contextlib.closing(self._runtime.load(spec)))
        threads = list_threads(spec)
        session = Session(self._models[key], spec, pools=self._pools.get(threads))
        self._pools.setdefault(threads, session.pools)  # freed by the session that is closed last
        self._stack.callback(session.close)
        return _Reader(place, self._models[key], session, spec, self._text, self._plan.n_chunks)

    def check(self) -> None:
        """Refuse what cannot be asked of these models together, before anything is computed.

        Raises
        ------
        UsageError : as `run`.
        """
        for reader in self.open:
            if len(reader.tokens) < 2 * reader.n_ctx:
                raise UsageError(
                    f"The text has {len(reader.tokens)} tokens, and windows of {reader.n_ctx} need {2 * reader.n_ctx} at least; "
                    "give a smaller --ctx or a longer --text."
                )
        base = self._base()
        for reader in self.open if base else ():
            assert base is not None
            if reader.vocabulary != base.vocabulary:
                name, other = (one.model.describe().file_name for one in (reader, base))
                raise UsageError(
                    f"{name} has another vocabulary than {other}, so that their tokens cannot be compared; leave it out, or take "
                    "another --base."
                )
            if reader.tokens != base.tokens:
                name, other = (one.model.describe().file_name for one in (reader, base))
                raise UsageError(
                    f"{name} makes other tokens of this text than {other}, of the same vocabulary: it was converted with other "
                    "settings (whether a text begins with BOS, how words are split); leave it out, or take another --base."
                )

    def _base(self) -> _Reader | None:
        return next((reader for reader in self.open if reader.place == self._plan.base), None)

    def read_window(self, index: int) -> None:
        """Have every cell predict a window; the base first, whose logits wait for the others."""
        self._emit("phase", {"phase": "window", "index": index, "count": max(one.n_chunks for one in self.open)})
        base = self._base()
        expected = None
        for reader in sorted(self.open, key=lambda one: one is not base):
            if index >= reader.n_chunks:
                continue
            try:
                logits = reader.read(index)
            except NativeError as error:
                if reader is base or len(self.open) == 1:
                    raise
                self._fail(reader.place, error)
                self.open.remove(reader)
                continue
            if reader is base:
                expected = logits
            self._send(reader, index, logits, expected)

    def _send(self, reader: _Reader, index: int, logits: Any, expected: Any) -> None:
        targets = reader.targets(index)
        if expected is None or logits is expected:
            scored = Scored(score(logits, targets))
        else:
            scored = compare(expected, logits, targets, is_rounded=self._plan.is_rounded)
        bins = {str(number): count for number, count in scored.bins.items()}
        self._emit("window", {"cell": reader.place, "window": encode(scored.window), "bins": bins})

    def _fail(self, place: int, error: NativeError) -> None:
        self._emit("failed", {"cell": place, "message": str(error), "reason": error.reason, "trouble": error.trouble})


@dataclasses.dataclass(eq=False)
class _Reader:
    """One cell: a context that reads windows of a text."""

    place: int
    model: LoadedModel
    session: Session
    spec: RunSpec
    text: dataclasses.InitVar[bytes]
    most: dataclasses.InitVar[int | None]

    def __post_init__(self, text: bytes, most: int | None) -> None:
        self.n_ctx = self.spec.n_ctx
        self.first = self.n_ctx // 2
        if llama_cpp.llama_vocab_get_add_eos(self.session.vocab):
            raise NativeError(
                "This model ends every text with a token of its own, with which llama.cpp computes no perplexity."
            )
        self.tokens = tokenize(self.session.vocab, text)
        n_chunks = len(self.tokens) // self.n_ctx
        self.n_chunks = n_chunks if most is None else min(most, n_chunks)
        self.adds_bos = bool(llama_cpp.llama_vocab_get_add_bos(self.session.vocab))

    @functools.cached_property
    def vocabulary(self) -> tuple[int, str]:
        """What tells one vocabulary from another: how many tokens there are, and a hash of all their texts."""
        digest = hashlib.sha256()
        for token in range(self.session.n_vocab):
            digest.update((llama_cpp.llama_vocab_get_text(self.session.vocab, token) or b"") + b"\0")
        return self.session.n_vocab, digest.hexdigest()

    def targets(self, index: int) -> Any:
        """The tokens to be predicted in a window, int64 (n,): what comes after each of its second half."""
        start = index * self.n_ctx
        return np.asarray(self.tokens[start + self.first + 1 : start + self.n_ctx], dtype=np.int64)

    def read(self, index: int) -> Any:
        """Compute a window from an empty cache.

        Returns
        -------
        The logits that predict its `targets`, float32 (n, n_vocab): llama.cpp's own memory, which its next decode overwrites.
        """
        window = list(self.tokens[index * self.n_ctx : (index + 1) * self.n_ctx])
        if self.adds_bos:
            window[0] = llama_cpp.llama_vocab_bos(self.session.vocab)
        context = self.session.context
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        found = []
        batches = list(cut_window(window, self.spec.n_batch, self.first))
        for tokens, place, wanted in batches:
            with _filled_batch(tokens, place, wanted) as batch:
                self.session.decode(batch)
                self.session.synchronize()
            n_wanted = sum(wanted)
            if n_wanted:
                shape = (n_wanted, self.session.n_vocab)
                found.append(np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), shape=shape))
                if len(batches) > 1:
                    found[-1] = found[-1].copy()
        logits = found[0] if len(found) == 1 else np.concatenate(found)
        return logits[: self.n_ctx - 1 - self.first]


def tokenize(vocab: Any, text: bytes) -> Sequence[int]:
    """Token ids of a text as llama-perplexity reads it: without its last line feed, special tokens as plain text, BOS where wanted.

    Raises
    ------
    NativeError : the model has no tokenizer.

    Source: common_tokenize in common/common.cpp; the option --file in common/arg.cpp.
    """
    text = text.removesuffix(b"\n")
    room, count = 0, -len(text) - 2
    while room < -count < 2**31:  # bytes that are no UTF-8 become three each: below 0 it says how many tokens there are
        room = -count
        tokens = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(vocab, text, len(text), tokens, room, True, False)
    if count < 0:
        raise NativeError(f"llama.cpp cannot tokenize the text (llama_tokenize gave {count}); name another --text.")
    return tokens[:count]


def cut_window(window: Sequence[int], n_batch: int, first: int) -> Iterator[tuple[Sequence[int], int, list[bool]]]:
    """(tokens, position of the first, whose logits are wanted) of each batch of a window: from position `first` on all of them."""
    for place in range(0, len(window), n_batch):
        tokens = window[place : place + n_batch]
        yield tokens, place, [position >= first for position in range(place, place + len(tokens))]


@contextlib.contextmanager
def _filled_batch(tokens: Sequence[int], place: int, wanted: Sequence[bool]) -> Iterator[Any]:
    """A batch of one sequence. Source: common_batch::add in common/common.h."""
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    try:
        batch.n_tokens = len(tokens)
        for at, token in enumerate(tokens):
            batch.token[at], batch.pos[at] = token, place + at
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
            batch.logits[at] = wanted[at]
        yield batch
    finally:
        llama_cpp.llama_batch_free(batch)
