"""The loop that writes a text with a draft: guess some tokens, check them all at once, keep what is right.

The semantics are llama.cpp's (examples/speculative-simple/speculative-simple.cpp, common/speculative.cpp, drafts of a model of their
own): the prompt's last token is kept back; a step drafts from it token by token, has the target compute it and the draft in one
batch, takes the target's own token at each place until one differs from the draft, and forgets what lies behind. The draft model, too,
computes that batch, so that both caches hold the same. Everything is greedy. Engines and clock come as arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.errors import NativeError
from harness.native.measure import Clock, Computes
from harness.records.speculation import Passage, token_times

#: A length that was so much slower than the best one in the first round is not tried again where lengths are screened.
SCREENED_SHARE = 0.85


class GuessEngine(Computes, Protocol):
    """What guessing needs of a loaded model with a context. Batches are opaque."""

    def rows(self, tokens: Sequence[int], position: int, *, every: bool) -> Any:
        """A batch of tokens from a position on, with a result for every one of them or for the last alone."""

    def pick(self, row: int) -> int:
        """The likeliest token of one of the last batch's results, by its place in that batch."""

    def pick_with_share(self, row: int) -> tuple[int, float]:
        """The same, and its probability among the ten likeliest."""

    def forget_from(self, position: int) -> bool:
        """Forget what lies at a position and behind; False where the memory cannot."""

    def mark(self) -> Any:
        """What `return_to` needs to come back to where the memory is now."""

    def return_to(self, mark: Any, position: int) -> None:
        """Forget what was computed since a mark, which was made when a position was the next one."""

    def is_end(self, token: int) -> bool:
        """Whether a token ends the text."""


class Drafter(Protocol):
    """Who guesses."""

    def draft(self, text: Sequence[int], n_most: int) -> list[int]:
        """At most so many tokens that may follow a text, whose last one is in no cache yet."""

    def follow(self, tokens: Sequence[int], position: int) -> None:
        """Take in what the target computes."""

    def forget_from(self, position: int) -> None:
        """Forget what lies there and behind."""


class NoDrafter:
    """Never guesses: the text without a draft, by the same loop."""

    def draft(self, text: Sequence[int], n_most: int) -> list[int]:
        """Nothing."""
        return []

    def follow(self, tokens: Sequence[int], position: int) -> None:
        """Nothing is to be done."""

    def forget_from(self, position: int) -> None:
        """Nothing is known."""


@dataclass(frozen=True, slots=True)
class ModelDrafter:
    """A small model guesses. Source: common_speculative_impl_draft_simple in common/speculative.cpp."""

    engine: GuessEngine
    n_min: int = 0
    p_min: float = 0.0

    def draft(self, text: Sequence[int], n_most: int) -> list[int]:
        """Its likeliest tokens, one after the other, until one is less likely than p_min; none where they are fewer than n_min."""
        engine, start = self.engine, len(text) - 1
        found: list[int] = []
        token, mark = text[-1], engine.mark()
        while len(found) < n_most:
            engine.decode(engine.rows((token,), start + len(found), every=True))
            if self.p_min > 0:
                token, share = engine.pick_with_share(0)
                if share < self.p_min:
                    break
            else:
                token = engine.pick(0)
            found.append(token)
        engine.return_to(mark, start)
        return found if len(found) >= self.n_min else []

    def follow(self, tokens: Sequence[int], position: int) -> None:
        """Compute what the target does."""
        self.engine.decode(self.engine.rows(tokens, position, every=False))
        self.engine.synchronize()

    def forget_from(self, position: int) -> None:
        """Forget what lies there and behind."""
        forget(self.engine, position)


@dataclass(frozen=True, slots=True)
class LookupDrafter:
    """Guesses that a text goes on as it did where its last n_gram tokens stood before.

    Source: common_ngram_simple_draft in common/ngram-map.cpp, but for its least length of what is found.
    """

    n_gram: int
    n_min: int = 0

    def draft(self, text: Sequence[int], n_most: int) -> list[int]:
        """What followed the latest earlier place of the text's last tokens."""
        pattern = list(text[-self.n_gram :])
        # The first token's place counts as none, there as here.
        for start in range(len(text) - self.n_gram - 1, 0, -1):
            if list(text[start : start + self.n_gram]) == pattern:
                found = list(text[start + self.n_gram : start + self.n_gram + n_most])
                return found if len(found) >= self.n_min else []
        return []

    def follow(self, tokens: Sequence[int], position: int) -> None:
        """Nothing is to be done: the text itself is looked at."""

    def forget_from(self, position: int) -> None:
        """Nothing is kept."""


def forget(engine: GuessEngine, position: int) -> None:
    """Forget what lies at a position and behind.

    Raises
    ------
    NativeError : the memory cannot, although it could when it was tried.
    """
    if not engine.forget_from(position):
        raise NativeError(f"llama.cpp cannot forget the tokens from {position} on; write without a draft.")


def accept(
    pick: Callable[[int], int], draft: Sequence[int], is_end: Callable[[int], bool] = lambda _token: False
) -> list[int]:
    """The target's own tokens for a batch of a token and a draft: the draft as far as it is right, and one more.

    pick gives the target's token behind the so manieth of the batch; it is not asked behind a wrong one, nor behind one that ends the
    text, but for a draft's last.
    Source: common_sampler_sample_and_accept_n in common/sampling.cpp.
    """
    taken: list[int] = []
    for row, guess in enumerate(draft):
        taken.append(pick(row))
        if taken[-1] != guess or (is_end(guess) and row + 1 < len(draft)):
            return taken
    return [*taken, pick(len(draft))]


@dataclass(slots=True)
class Written:
    """A text and its steps: numbers of tokens, and durations in ns as in `harness.records.speculation.Passage`."""

    tokens: list[int] = field(default_factory=list)
    n_drafted: list[int] = field(default_factory=list)
    n_accepted: list[int] = field(default_factory=list)
    draft_ns: list[int] = field(default_factory=list)
    verify_ns: list[int] = field(default_factory=list)
    follow_ns: list[int] = field(default_factory=list)
    finish: str = ""


def write_guessing(
    target: GuessEngine,
    drafter: Drafter,
    clock: Clock,
    prompt: Sequence[int],
    *,
    n_draft: int,
    n_tokens: int,
    n_ctx: int,
) -> Written:
    """Write a text behind a prompt of which all tokens but the last are in both caches.

    Parameters
    ----------
    prompt   : shape (n,), n >= 1
    n_draft  : tokens of a draft at the most; no draft reaches beyond the end of the text or of the context
    n_tokens : the text ends (finish ``length``) after as many
    n_ctx    : or (``context``) when prompt and text fill it; or (``stop``) with a token that ends it

    Raises
    ------
    NativeError : llama.cpp refused a batch, or cannot forget.
    """
    text, done = list(prompt), Written()
    limit = min(n_tokens, n_ctx - len(prompt))
    while not done.finish:
        n_past, room = len(text) - 1, limit - len(done.tokens)
        start = clock()
        draft = drafter.draft(text, min(n_draft, room - 1)) if n_draft and room > 1 else []
        drafted = clock()
        target.decode(target.rows((text[-1], *draft), n_past, every=True))
        target.synchronize()
        computed = clock()
        drafter.follow((text[-1], *draft), n_past)
        followed = clock()
        taken = accept(target.pick, draft, target.is_end)
        forget(target, n_past + len(taken))
        drafter.forget_from(n_past + len(taken))
        end = clock()
        done.n_drafted.append(len(draft))
        done.n_accepted.append(len(taken) - 1)
        done.draft_ns.append(drafted - start)
        done.verify_ns.append(computed - drafted + end - followed)
        done.follow_ns.append(followed - computed)
        last = next((place for place, token in enumerate(taken) if target.is_end(token)), None)
        taken = taken if last is None else taken[: last + 1]
        done.tokens += taken
        text += taken
        if last is not None:
            done.finish = "stop"
        elif len(done.tokens) >= limit:
            done.finish = "length" if limit == n_tokens else "context"
    return done


def find_difference(tokens: Sequence[int], reference: Sequence[int]) -> int | None:
    """The place of the first token that is another than the reference's, an end of one of them too; None: they are the same."""
    for place, (one, other) in enumerate(zip(tokens, reference, strict=False)):
        if one != other:
            return place
    return None if len(tokens) == len(reference) else min(len(tokens), len(reference))


def screen(passages: Sequence[Passage], lengths: Sequence[int]) -> list[int]:
    """The lengths that the first round left near the best one, by the time of a token."""
    found = {length: token_times(passages, length).get(0) for length in lengths}
    best = min((time_ns for time_ns in found.values() if time_ns), default=None)
    return [
        length
        for length in lengths
        if best is None or (time_ns := found[length]) is None or best / time_ns >= SCREENED_SHARE
    ]
