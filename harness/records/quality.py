"""How well a model predicts a text, as it was computed: sums for each window of the text, from which every figure follows.

The text itself is not kept, only its hash. `harness.records.quality_figures` says what the sums come to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from harness.codec import NOT_EMPTY, FilePath, Positive, Shared, UtcTime
from harness.records.cautions import Caution
from harness.records.cells import Build, Machine, Model, Resolved
from harness.records.failures import Failure
from harness.spec import RunSpec

#: History of the line format of kind "quality". 1 (2026-11): first.
SCHEMA = 1

#: Bins of KL divergences: so many to a doubling, from 2 to the power of LOWEST on; what is less, or below zero by rounding, is in one.
BINS_A_DOUBLING, LOWEST = 64, -40

#: The last bin, of what is beyond any sense: 2 to the power of 24 nats.
LAST_BIN = BINS_A_DOUBLING * (24 - LOWEST)


@dataclass(frozen=True, slots=True)
class QualityPlan:
    """What a worker is to compute.

    cells ask for contexts of as many tokens as a window has (`RunSpec.n_prompt`); base is the place among them of the one that the
    others are compared with. n_chunks bounds the windows, None: as many as the text has.
    """

    cells: Annotated[tuple[RunSpec, ...], NOT_EMPTY]
    text: FilePath
    base: int | None = None
    n_chunks: int | None = None
    is_rounded: bool = False  #: the base's log-probabilities rounded as llama-perplexity rounds them


@dataclass(frozen=True, slots=True)
class Divergence:
    """Sums over a window's tokens, of a model beside a base model. Nats; nll is a token's negative log-likelihood, p its probability.

    Source: kl_divergence_result of perplexity.cpp.
    """

    nll_base: float  #: the base's
    nll2_base: float  #: squared
    nll_nll_base: float  #: both multiplied
    kld: float  #: KL divergence of the model's distribution from the base's
    kld2: float  #: squared
    kld_max: float  #: the largest
    kld_min: float  #: the smallest
    p_diff: float  #: p less the base's
    p_diff2: float  #: squared
    p_diff4: float  #: to the fourth power
    p_diff_max: float  #: the largest, either way
    n_same_top: int  #: tokens for which both find the same token likeliest


@dataclass(frozen=True, slots=True)
class Window:
    """Sums over the tokens of a window that were scored; None where a figure came out infinite or as no number."""

    n_scored: Positive  #: tokens of it
    nll: float | None  #: negative log-likelihoods, in nats
    nll2: float | None  #: squared
    divergence: Divergence | None = None  #: from the base model

    def __post_init__(self) -> None:
        if self.divergence and not 0 <= self.divergence.n_same_top <= self.n_scored:
            raise ValueError("more tokens have the same top than were scored, or fewer than none")


@dataclass(frozen=True, slots=True)
class TextFacts:
    """Which text it was: the name of its file, and how many tokens the model's vocabulary makes of it (None: not known)."""

    name: str
    sha256: str  #: of its bytes
    size_bytes: int
    is_own: bool = False  #: the one that comes with harness
    n_tokens: int | None = None  #: with BOS, where the model wants one


@dataclass(frozen=True, slots=True)
class Reference:
    """The base model that another one was compared with."""

    asked: Shared[RunSpec]
    model: Shared[Model] | None = None
    is_rounded: bool = False  #: its log-probabilities were rounded to 16 bits, as llama-perplexity does


@dataclass(frozen=True, slots=True)
class Memory:
    """What a model was predicted to take, in a context of n_ctx tokens, on all devices together."""

    n_ctx: Positive
    weights_bytes: int  #: with their repacked copies
    cache_bytes: int  #: keys, values, states
    compute_bytes: int  #: work buffers and output

    @property
    def total_bytes(self) -> int:
        """All three."""
        return self.weights_bytes + self.cache_bytes + self.compute_bytes


@dataclass(frozen=True, slots=True)
class QualityRecord:
    """One model with its settings, over one text. Windows have as many tokens as asked.n_prompt, and their second half is scored.

    kld_counts says how many tokens have a KL divergence in each bin (`bin_of`), over all windows.
    """

    command: str
    time_utc: UtcTime
    asked: Shared[RunSpec]
    machine: Shared[Machine]
    harness_version: str
    text: TextFacts
    n_wanted: int | None = None  #: windows that were to be scored; None: it never came so far
    windows: tuple[Window, ...] = ()  #: in the order of the text
    kld_counts: Mapping[str, int] = field(default_factory=dict)  #: tokens in each bin
    base: Reference | None = None  #: what it was compared with
    model: Shared[Model] | None = None
    build: Shared[Build] | None = None
    resolved: Shared[Resolved] | None = None
    memory: Memory | None = None  #: what it was predicted to take
    failure: Failure | None = None
    warnings: tuple[Caution, ...] = ()
    threads_source: str = "asked"  #: what decided the number of threads, as of a cell
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if not all(number.isdecimal() and int(number) <= LAST_BIN and n >= 0 for number, n in self.kld_counts.items()):
            raise ValueError("a count of no bin, or one below zero")

    @property
    def is_scored(self) -> bool:
        """Whether there is a figure."""
        return any(window.nll is not None for window in self.windows)

    @property
    def n_infinite(self) -> int:
        """Windows of which a figure came out infinite or as no number."""
        return sum(window.nll is None for window in self.windows)


def bin_of(kld: float) -> int:
    """The bin of a token's KL divergence; 0 holds the smallest ones."""
    if not kld > 2.0**LOWEST:
        return 0
    return min(1 + max(int(BINS_A_DOUBLING * (math.log2(kld) - LOWEST)), 0), LAST_BIN)


def middle_of(number: int) -> float:
    """A KL divergence in the middle of a bin, within 0.6 % of every one in it; 0 for the bin of the smallest."""
    return 2.0 ** (LOWEST + (number - 0.5) / BINS_A_DOUBLING) if number else 0.0
