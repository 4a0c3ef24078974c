"""Guessing ahead, as it was timed: texts that were written with a draft of several lengths and without one, step by step.

Nothing is derived here: `harness.speed.speculation` says what the steps come to. Texts may be private: a record holds how long they
are and where one differed from the one that was written without a draft, and nothing of what they say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.codec import Positive, PositiveNumber, Shared, UtcTime
from harness.errors import UsageError
from harness.records.cautions import Caution
from harness.records.cells import Build, Conditions, Machine, Model, Resolved
from harness.records.failures import Failure
from harness.spec import RunSpec

#: History of the line format of kind "speculation".
#: 1 (2026-11): first.
SCHEMA = 1

#: Tokens that may be drafted at once at the most.
MOST_DRAFTED = 16


@dataclass(frozen=True, slots=True)
class PromptText:
    """What a text is to go on from; raw hands it over without the chat template."""

    text: str
    raw: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How texts are written. p_min and n_min are llama.cpp's: a draft ends before a token that the draft model gives less than p_min
    (among its ten likeliest), and one of fewer than n_min tokens is not used.

    Raises
    ------
    UsageError : a number is out of its range.
    """

    lengths: tuple[int, ...]  #: tokens that a draft may have, each tried beside no draft at all
    n_min: int = 0
    p_min: float = 0.0
    n_tokens: Positive = 32  #: of each text, unless it ends before
    rounds: Positive = 10  #: how often each text is written with each length
    max_time_s: PositiveNumber = 60.0  #: after which no further round begins
    seed: int = 0  #: of the order within a round
    is_screened: bool = False  #: from the second round on only the lengths that the first one left near the best
    n_gram: int | None = None  #: tokens that are looked up in the text so far where no model drafts

    def __post_init__(self) -> None:
        if not self.lengths or not all(1 <= length <= MOST_DRAFTED for length in self.lengths):
            raise UsageError(f"A draft has 1 to {MOST_DRAFTED} tokens; give --n-draft such numbers.")
        if self.n_min > max(self.lengths):
            raise UsageError(f"No draft of --n-draft-min {self.n_min} tokens is tried; give less than --n-draft.")


@dataclass(frozen=True, slots=True)
class SpeculationPlan:
    """What the worker is asked for: two models (or a lookup in the text so far), what to write behind, and how."""

    target: RunSpec
    draft: RunSpec | None
    prompts: tuple[PromptText, ...]
    manner: Manner
    threads_source: str = "asked"  #: what decided the number of threads, as of a cell


@dataclass(frozen=True, slots=True)
class Member:
    """One of the two models: what was asked, what ran, and what it took to get ready."""

    asked: Shared[RunSpec]
    model: Shared[Model] | None = None
    resolved: Shared[Resolved] | None = None
    load_duration_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a text went on from: a hash of it, by which it is known again, and how it was framed, as in `records.text.TextRun`."""

    sha256: str  #: of the prompt as it was asked
    n_tokens: Positive
    template: Literal["jinja", "llama.cpp", "raw", "missing", "failed"]  #: how it was framed


@dataclass(frozen=True, slots=True)
class Passage:
    """One text, written once. A step drafts some tokens and has the target check them all at once: so many were right, and one more
    token is the target's own. The lists hold one number a step.
    """

    prompt: int  #: which one, from 0
    round: int  #: from 0
    n_draft: int  #: tokens that a draft might have; 0: without
    n_drafted: tuple[int, ...]  #: tokens that were guessed
    n_accepted: tuple[int, ...]  #: of those, tokens that were right
    draft_ns: tuple[int, ...]  #: the draft model's part, until its tokens are there
    verify_ns: tuple[int, ...]  #: the target's batch, and which of it is right
    follow_ns: tuple[int, ...]  #: the draft model reads that batch too, as in llama.cpp
    n_written: Positive  #: tokens of the text
    finish: Literal["stop", "length", "context"]  #: why it ended
    differs_at: int | None = None  #: the first token that is another than without a draft; None: none is
    conditions: Conditions | None = None  #: what the operating system says of it

    def __post_init__(self) -> None:
        counts = {
            len(self.n_drafted),
            len(self.n_accepted),
            len(self.draft_ns),
            len(self.verify_ns),
            len(self.follow_ns),
        }
        if counts != {len(self.verify_ns)} or not self.verify_ns:
            raise ValueError("a step has as many numbers as another")
        if any(right > tried for right, tried in zip(self.n_accepted, self.n_drafted, strict=True)):
            raise ValueError("more tokens were right than were drafted")

    @property
    def duration_ns(self) -> int:
        """The time of all its steps."""
        return sum(self.draft_ns) + sum(self.verify_ns) + sum(self.follow_ns)


@dataclass(frozen=True, slots=True)
class Speculation:
    """All texts of one question, in the order of time."""

    time_utc: UtcTime
    machine: Shared[Machine]
    harness_version: str
    target: Member  #: the model whose text it is
    draft: Member | None  #: None: looked up in the text so far
    manner: Manner  #: how texts were written
    rollback: Literal["partial", "snapshots"]  #: how what is wrong is forgotten: cells of a cache, kept states
    prompts: tuple[Prompt, ...] = ()  #: what texts went on from
    passages: tuple[Passage, ...] = ()  #: in the order of time
    build: Shared[Build] | None = None
    rss_bytes: int | None = None  #: resident memory of the worker with both models
    failure: Failure | None = None
    warnings: tuple[Caution, ...] = ()
    threads_source: str = "asked"  #: what decided the number of threads, as of a cell
    command: str = "speculate"
    schema: int = SCHEMA

    @property
    def is_synthetic(self) -> bool:
        """Whether random weights took part, which agree on nothing."""
        members = filter(None, (self.target, self.draft))
        return any(member.model is not None and member.model.is_synthetic for member in members)

    @property
    def is_own_draft(self) -> bool:
        """Whether the draft is the very file of the target, which agrees on everything."""
        one, other = self.target.model, self.draft and self.draft.model
        return bool(one and other and one.file_name == other.file_name and one.file_sha256 == other.file_sha256)


def whole_rounds(passages: Sequence[Passage], n_draft: int) -> dict[int, list[Passage]]:
    """The passages of a length by round, of the rounds in which all prompts were written; the first round says which there are."""
    prompts = {passage.prompt for passage in passages if passage.round == 0}
    rounds: dict[int, list[Passage]] = {}
    for passage in passages:
        if passage.n_draft == n_draft:
            rounds.setdefault(passage.round, []).append(passage)
    return {number: found for number, found in rounds.items() if {one.prompt for one in found} == prompts}


def token_times(passages: Sequence[Passage], n_draft: int) -> dict[int, float]:
    """What a token of all texts took with this length of draft, in ns, by round."""
    return {
        number: sum(one.duration_ns for one in found) / sum(one.n_written for one in found)
        for number, found in whole_rounds(passages, n_draft).items()
    }


def round_ratios(passages: Sequence[Passage], one: int, other: int) -> list[float]:
    """What a token took with one length of draft over what it took with another, in each round that has both, in their order."""
    ones = token_times(passages, one)
    return [ones[number] / time_ns for number, time_ns in token_times(passages, other).items() if number in ones]
