"""The loop that writes a text: prompt, then sample and decode by turns, on any engine and any clock."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.native.measure import Clock, Computes

#: Text leaves at most this often. The reader's wake-up takes a core from the engine's threads for a moment, which would be felt if it
#: came with each of several hundred tokens a second; to the eye 40 pieces a second flow.
REPORT_INTERVAL_NS = 25_000_000


class TextEngine(Computes, Protocol):
    """What writing a text needs of a loaded model with a context. Batches are opaque."""

    def batches(self, tokens: Sequence[int]) -> Sequence[Any]:
        """The tokens of a prompt, cut into chunks of n_batch."""

    def sample(self) -> int:
        """Draw a token from the last result."""

    def is_end(self, token: int) -> bool:
        """Whether a token ends the generation."""

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; a character may be spread over several tokens."""


@dataclass
class Progress:
    """How far a text is. Durations in ns, as in `harness.records.text.Figures`."""

    prompt_eval_count: int
    prompt_eval_duration_ns: int = 0
    first_token_ns: int | None = None
    eval_count: int = 0
    eval_duration_ns: int = 0
    sample_ns: int = 0
    decode_ns: int = 0
    token_ns: list[int] = field(default_factory=list)
    finish: str = ""


#: Receives a piece of whole characters and how far the text is. What it takes is part of eval_duration, as it is in Ollama.
Report = Callable[[str, Progress], None]


def generate(
    engine: TextEngine,
    clock: Clock,
    tokens: Sequence[int],
    report: Report,
    *,
    n_ctx: int,
    max_tokens: int | None = None,
    ignore_eog: bool = False,
    ready_ns: int | None = None,
) -> Progress:
    """Write a text after a prompt.

    Parameters
    ----------
    tokens     : the prompt, shape (n,), 1 <= n < n_ctx
    report     : called with each piece of text, at most every REPORT_INTERVAL_NS, and once more at the end
    n_ctx      : the text ends (finish ``context``) when prompt and text fill it; nothing is shifted out
    max_tokens : the text ends (finish ``length``) after as many
    ready_ns   : the clock when the engine was ready, from which the first token counts; now if None

    Raises
    ------
    NativeError : llama.cpp refused a batch.
    """
    progress = Progress(len(tokens))
    batches = engine.batches(tokens)
    start = clock()
    for batch in batches:
        engine.decode(batch)
    engine.synchronize()
    mark = clock()
    progress.prompt_eval_duration_ns = mark - start
    outlet = _Outlet(report, mark)
    limit = n_ctx - len(tokens) + 1  # the last token is sampled, not decoded
    eval_start = mark
    while not progress.finish:
        before = clock()
        token = engine.sample()
        now = clock()
        progress.sample_ns += now - before
        progress.eval_count += 1
        if progress.first_token_ns is None:
            progress.first_token_ns = now - (start if ready_ns is None else ready_ns)
        ended = engine.is_end(token) and not ignore_eog
        progress.finish = "stop" if ended else _find_end(progress.eval_count, max_tokens, limit)
        if not ended:
            outlet.take(engine.piece(token))
        progress.token_ns.append(now - mark)
        progress.eval_duration_ns = now - eval_start
        mark = now
        outlet.let_out(now, progress)
        if not progress.finish:
            _decode_one(engine, clock, token, progress)
    outlet.let_out(None, progress)
    return progress


def _find_end(eval_count: int, max_tokens: int | None, limit: int) -> str:
    """Say why the text ends after so many tokens; empty where it goes on."""
    if eval_count == max_tokens:
        return "length"
    return "context" if eval_count == limit else ""


def _decode_one(engine: TextEngine, clock: Clock, token: int, progress: Progress) -> None:
    (batch,) = engine.batches((token,))
    before = clock()
    engine.decode(batch)
    engine.synchronize()
    progress.decode_ns += clock() - before


class _Outlet:
    """Collects bytes and lets out whole characters, not too often."""

    def __init__(self, report: Report, now_ns: int) -> None:
        self._report = report
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._due_ns = now_ns  # the first piece leaves at once

    def take(self, piece: bytes) -> None:
        self._text += self._decoder.decode(piece)

    def let_out(self, now_ns: int | None, progress: Progress) -> None:
        """Report what is whole, if it is time (None: at the end, where half a character is dropped, as Ollama does)."""
        if now_ns is not None and (now_ns < self._due_ns or not self._text):
            return
        self._report(self._text, progress)
        self._text = ""
        self._due_ns = (now_ns or 0) + REPORT_INTERVAL_NS
