"""Where a generated token's time goes, as it was timed: blocks of tokens, loads, an application's tokens. Nothing is derived here.

The unit of evidence is a block: some tokens of one variant, timed without a break. `harness.records.time_ledger` says what follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from harness.codec import NOT_EMPTY, FilePath, PositiveNumber, Shared, UtcTime
from harness.gguf.reads import TokenReads
from harness.records.cautions import Caution
from harness.records.cells import Build, Conditions, Machine, Resolved
from harness.records.failures import Failure
from harness.spec import RunSpec

#: History of the line format of kind "time-ledger".
#: 1 (2026-11): first.
#: 2 (2026-11): remarks have causes and figures, a failure is one; cautions are called warnings, as everywhere.
#: 3 (2026-11): cautions are causes and figures.
SCHEMA = 3

#: The first tokens of a block find another variant's data in the caches and are left out.
WARMUP_TOKENS = 1

#: What a whole token consists of, in the order in which it happens; what is between the calls is the rest of it.
PARTS = ("decode", "wait", "logits", "sampling", "text")

#: What of an application's token is timed, and the steps from the bench's token to it.
APPLICATION_PARTS = ("decode", "sampling", "text")
APPLICATION_STEPS = ("bench", "no pool", "generate", "completion")


@dataclass(frozen=True, slots=True)
class TimePlan:
    """What is to be timed.

    depths in tokens; n_tokens timed in a block, rounds blocks of each variant; the first of cache_types is taken apart, the others
    are only fitted. load_rounds and application_tokens of 0 leave those out; files are all parts of the model.
    """

    spec: RunSpec  #: load and context
    depths: tuple[int, ...]
    files: tuple[FilePath, ...]
    rounds: int = 10
    n_tokens: int = 8
    cache_types: Annotated[tuple[str, ...], NOT_EMPTY] = ("f16", "q8_0")
    load_rounds: int = 3
    application_tokens: int = 32


@dataclass(frozen=True, slots=True)
class Block:
    """Some tokens of one variant, timed without a break, all lists by token.

    ``bare`` is what llama-bench times; ``greedy`` and ``chain`` have parts_ns; ``declining`` ran with an observer that looked away,
    ``observing`` with one that watched: outside_ns is before the first node and after the last, node_ns by kind of node
    (`harness.gguf.nodes`), of which a token has node_count.
    """

    round: int  #: counted from 0
    depth: int  #: tokens in the cache before
    cache: str  #: type of keys and values
    variant: Literal["bare", "greedy", "chain", "declining", "observing"]
    token_ns: tuple[int, ...]
    parts_ns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    node_ns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    node_count: Mapping[str, int] = field(default_factory=dict)
    outside_ns: tuple[int, ...] = ()
    conditions: Conditions | None = None  #: what the operating system says of it

    def __post_init__(self) -> None:
        _check_tokens(self.token_ns, self.parts_ns, PARTS if self.variant in ("greedy", "chain") else ())
        watched = [*self.node_ns.values(), self.outside_ns] if self.variant == "observing" else []
        if len(self.token_ns) <= WARMUP_TOKENS or any(len(times) != len(self.token_ns) for times in watched):
            raise ValueError(f"a block of {len(self.token_ns)} tokens does not say of each what it took")
        if any(count < 1 for count in self.node_count.values()):
            raise ValueError("a token has no node of a kind that was timed")


def _check_tokens(token_ns: Sequence[int], parts_ns: Mapping[str, Sequence[int]], parts: Sequence[str]) -> None:
    if min(token_ns, default=1) < 1 or any(len(parts_ns.get(name, ())) != len(token_ns) for name in parts):
        raise ValueError(f"tokens need a time above 0 each, and in {', '.join(parts) or 'all'}")


@dataclass(frozen=True, slots=True)
class TimedLoad:
    """One load of the model; resident_share is what of the file was in memory before (None: not known)."""

    state: Literal["cold", "warm"]  #: whether the file was in memory before
    mmap: str  #: on: mapped; off: read
    load_ns: int
    context_ns: int
    first_token_ns: int
    second_token_ns: int
    resident_share: float | None = None
    round: int = 0  #: counted from 0
    conditions: Conditions | None = None  #: what the operating system says of it


@dataclass(frozen=True, slots=True)
class ApplicationTokens:
    """Tokens as they are generated on one of APPLICATION_STEPS, one after the other; calls counts those of each part."""

    variant: str  #: one of the steps from the bench to an application
    token_ns: tuple[int, ...]
    parts_ns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    calls: Mapping[str, int] = field(default_factory=dict)
    round: int = 0  #: counted from 0
    conditions: Conditions | None = None  #: what the operating system says of it

    def __post_init__(self) -> None:
        _check_tokens(self.token_ns, self.parts_ns, APPLICATION_PARTS if self.variant == "completion" else ())


@dataclass(frozen=True, slots=True)
class Copies:
    """What small things take: a copy of the logits in numpy, a call into C, the bench's loop a token (all ns)."""

    logits_copy_ns: tuple[int, ...] = ()
    call_ns: tuple[int, ...] = ()
    dispatch_ns: int | None = None


@dataclass(frozen=True, slots=True)
class TimedModel:
    """The file; what llama.cpp says of it is None where it was never loaded."""

    file_name: str
    file_sha256: str | None = None
    is_synthetic: bool = False
    description: str | None = None  #: llama.cpp's
    size_bytes: int | None = None
    n_params: int | None = None  #: weights
    file_size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Remark:
    """What was left out, and why; None is what does not belong to the cause.

    ``beyond training``: depth, limit_tokens · ``beyond memory``: depth, needed_bytes, free_bytes · ``cache refused``: cache_type, said
    · ``not cold``: n_left_out of n_asked loads, share of the file that stayed in memory · ``cold unknown`` · ``no application``: said ·
    ``interrupted`` · ``sentence``: said, in lines of schema 1. `said` is llama.cpp's, or the binding's.
    """

    cause: Literal[
        "beyond training", "beyond memory", "cache refused", "not cold", "cold unknown", "no application", "interrupted", "sentence"
    ]  # fmt: skip
    depth: int | None = None
    limit_tokens: int | None = None
    needed_bytes: int | None = None
    free_bytes: int | None = None
    cache_type: str | None = None
    n_left_out: int | None = None
    n_asked: int | None = None
    share: float | None = None
    said: str | None = None


@dataclass(frozen=True, slots=True)
class TimeRecord:
    """All times of one model; what is missing was not measured.

    reads is what a token reads by the model's header and roof_bytes_per_s the bandwidth that was known on that day, so that the line
    can be read without either.
    """

    asked: TimePlan
    model: TimedModel
    machine: Shared[Machine]
    time_utc: UtcTime
    harness_version: str = ""
    command: str = "token-time"
    build: Build | None = None
    resolved: Resolved | None = None
    blocks: tuple[Block, ...] = ()  #: tokens
    loads: tuple[TimedLoad, ...] = ()  #: loads
    applications: tuple[ApplicationTokens, ...] = ()  #: tokens of an application
    copies: Copies | None = None  #: what small things take
    reads: TokenReads | None = None
    roof_bytes_per_s: PositiveNumber | None = None
    remarks: tuple[Remark, ...] = ()  #: what was left out
    failure: Failure | None = None
    warnings: tuple[Caution, ...] = ()
    schema: int = SCHEMA
