"""What qualifies a number: causes and figures as fields, and the one place that makes sentences of them."""

from __future__ import annotations

import enum
import functools
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import UsageError
from harness.units import format_mib


class CautionCause(str, enum.Enum):
    """What it is about. sentence: an older record says it in a word that is not known here."""

    BUSY_MACHINE = "busy-machine"
    CPU_STOLEN = "cpu-stolen"
    CPU_THROTTLED = "cpu-throttled"
    THROTTLED = "throttled"
    FEW_SAMPLES = "few-samples"
    INTERRUPTED = "interrupted"
    NO_OFFLOAD = "no-offload"
    LAYERS_CLAMPED = "layers-clamped"
    LAYERS_UNKNOWN = "layers-unknown"
    LAYERS_GUESSED = "layers-guessed"
    CONTEXT_BEYOND_TRAINING = "context-beyond-training"
    NO_CHAT_TEMPLATE = "no-chat-template"
    PROMPT_COUNTS_DIFFER = "prompt-counts-differ"
    SIZE_IN_CACHE = "size-in-cache"
    OTHER_PROGRAMS = "other-programs"
    THREADS_WAITED = "threads-waited"
    TIME_STOLEN = "time-stolen"
    QUOTA_HELD = "quota-held"
    CLOCK_FELL = "clock-fell"
    CLOCK_LOW = "clock-low"
    HEAT = "heat"
    PAGES_READ = "pages-read"
    PAGES_SWAPPED = "pages-swapped"
    SWITCHED_AWAY = "switched-away"
    WIDE_INTERVAL = "wide-interval"
    PRECISION_MISSED = "precision-missed"
    PREFIX_LOST = "prefix-lost"
    TWO_SPEEDS = "two-speeds"
    OWN_CROWD = "own-crowd"
    SLOWED_DOWN = "slowed-down"
    # What is implausible by itself (`records.doubts`): derived on reading, never stored.
    ROUNDS_DISAGREE = "rounds-disagree"
    SAME_WORK_DIFFERS = "same-work-differs"
    BELOW_ZERO = "below-zero"
    WATCHING_DEAR = "watching-dear"
    WATCHING_CHEAP = "watching-cheap"
    PARTS_MISS_WHOLE = "parts-miss-whole"
    PARTS_EXCEED_WHOLE = "parts-exceed-whole"
    ABOVE_ROOF = "above-roof"
    DEEPER_IS_CHEAPER = "deeper-is-cheaper"
    WARM_SLOWER = "warm-slower"
    STALLED = "stalled"
    THREADS_HINDER = "threads-hinder"
    RATE_SENSELESS = "rate-senseless"
    WRONG_RESULT = "wrong-result"
    SWAPPED_OUT = "swapped-out"
    UNEXPLAINED = "unexplained"
    LEFT_MEMORY = "left-memory"
    NOT_FINITE = "not-finite"
    WINDOWS_LEFT_OUT = "windows-left-out"
    # What llama.cpp did otherwise than was to be expected (`records.fallbacks`): derived on reading, never stored.
    RAN_ELSEWHERE = "ran-elsewhere"
    MORE_PIECES = "more-pieces"
    NO_KERNEL = "no-kernel"
    NOT_LOCKED = "not-locked"
    NOT_REPACKED = "not-repacked"
    POLL_IDLE = "poll-idle"
    MASK_IDLE = "mask-idle"
    LEFT_OUT = "left-out"
    UNTRIED_VERSION = "untried-version"
    SENTENCE = "sentence"


#: What each cause says; the names in it are the figures that the cause must have.
_SENTENCES = {
    CautionCause.BUSY_MACHINE: (
        "busy machine: other processes used {cpus_lost} of {n_cpus} CPUs while {n_threads} threads ran here"
    ),
    CautionCause.CPU_STOLEN: "the hypervisor took {cpus_lost} CPUs away while this was measured",
    CautionCause.CPU_THROTTLED: (
        "a CPU quota (control group) held this back {n_held} times, {held_s:.1f} s of CPU time in all, while it was "
        "measured"
    ),
    CautionCause.THROTTLED: "the card was slowed down while this was measured: {reasons}",
    CautionCause.FEW_SAMPLES: "need >= {n_wanted} samples for a 95 % interval",
    CautionCause.INTERRUPTED: "interrupted after {n_done} of {n_wanted} repetitions",
    CautionCause.NO_OFFLOAD: "no GPU device: every layer ran on the CPU, whatever -ngl asked for",
    CautionCause.LAYERS_CLAMPED: "the model has {n_layers} layers with the output layer; all were offloaded",
    CautionCause.LAYERS_UNKNOWN: (
        "Ollama does not say where its layers are (/api/ps); here all went to the GPU if there is one: set -ngl for "
        "both"
    ),
    CautionCause.LAYERS_GUESSED: (
        "Ollama has {gpu_share} of the model on the GPU, which is taken for {n_layers} layers here: set -ngl for "
        "both to be sure"
    ),
    CautionCause.CONTEXT_BEYOND_TRAINING: (
        "the context of {n_ctx} tokens is longer than the {n_ctx_train} that the model was trained on"
    ),
    CautionCause.NO_CHAT_TEMPLATE: "the model {template}; the prompt is used raw",
    CautionCause.PROMPT_COUNTS_DIFFER: (
        "Ollama counts {ollama_tokens} prompt tokens and llama.cpp {prompt_tokens} of the same prompt: a prefix "
        "cache, or another tokenizer"
    ),
    CautionCause.SIZE_IN_CACHE: (
        "a matrix of {size_bytes} is read from this processor's caches ({cache_bytes}) and not from memory; give a "
        "--size of {wanted_bytes} or more"
    ),
    CautionCause.OTHER_PROGRAMS: "other programs took {cpus_lost} of {n_cpus} CPUs in {n_disturbed} of {n_timed} repetitions",
    CautionCause.THREADS_WAITED: (
        "threads waited for a CPU for {lost_share} of the time in {n_disturbed} of {n_timed} repetitions"
    ),
    CautionCause.TIME_STOLEN: (
        "the hypervisor took {cpus_lost} of {n_cpus} CPUs in {n_disturbed} of {n_timed} repetitions"
    ),
    CautionCause.QUOTA_HELD: (
        "a CPU quota (control group) held {n_disturbed} of {n_timed} repetitions back, {n_held} times in all"
    ),
    CautionCause.CLOCK_FELL: (
        "the processor's clock was {lost_share} below its usual one after {n_disturbed} of {n_timed} repetitions"
    ),
    CautionCause.CLOCK_LOW: "the processor ran at {clock_mhz:.0f} of {clock_limit_mhz:.0f} MHz",
    CautionCause.HEAT: "the processor was slowed for its heat in {n_disturbed} of {n_timed} repetitions",
    CautionCause.PAGES_READ: (
        "{n_pages} pages a repetition were read from disk in {n_disturbed} of {n_timed} repetitions"
    ),
    CautionCause.PAGES_SWAPPED: ("{n_pages} pages a repetition were swapped in {n_disturbed} of {n_timed} repetitions"),
    CautionCause.SWITCHED_AWAY: (
        "threads had to leave their CPU to others {n_switched} times a repetition in {n_disturbed} of {n_timed}"
    ),
    CautionCause.WIDE_INTERVAL: "interval ± {lost_share}",
    CautionCause.PREFIX_LOST: "read anew from its beginning: the cache could not go back to the {n_ctx} tokens that it had",
    CautionCause.PRECISION_MISSED: (
        "± {lost_share} after {n_done} repetitions and {timed_s:.0f} s; ± {wanted_share} within {limit_s:g} s was wanted"
    ),
    CautionCause.TWO_SPEEDS: "repetitions have two speeds, {lost_share} apart",
    CautionCause.OWN_CROWD: "{n_threads} threads on {n_cpus} CPUs wait for each other",
    CautionCause.SLOWED_DOWN: "a test made every decode {slowdown} longer on purpose (HARNESS_TEST_SLOWDOWN)",
    CautionCause.ROUNDS_DISAGREE: "rounds disagree on {part}{at_depth}: ± {share}",
    CautionCause.SAME_WORK_DIFFERS: "{part} took {times:.1f} times as long as {other_part}{at_depth}, which is the same work",
    CautionCause.BELOW_ZERO: "{part} came out below zero, by {share} of the bench's token",
    CautionCause.WATCHING_DEAR: "watching made a token {share} dearer{at_depth}: the shares are as much the watching's",
    CautionCause.WATCHING_CHEAP: "a token with the observer came out {share} cheaper than without{at_depth}",
    CautionCause.PARTS_MISS_WHOLE: (
        "the operations had to be multiplied by {times:.2f} to fit the token that nobody watched{at_depth}"
    ),
    CautionCause.PARTS_EXCEED_WHOLE: "{part} takes {share} more than {other_part}, of which it is a part: a clock jumped",
    CautionCause.ABOVE_ROOF: (
        "{part} reads at {times:.1f} times the memory's bandwidth{at_depth}: caches hold it, or one of the two is wrong"
    ),
    CautionCause.DEEPER_IS_CHEAPER: "a token{at_depth} came out {share} cheaper than one with less in the cache",
    CautionCause.WARM_SLOWER: "loading from memory took {times:.1f} times as long as from the disk",
    CautionCause.STALLED: "{n_stalled} of {n_timed} tokens were held up, for {share} of the time in all",
    CautionCause.THREADS_HINDER: "{part} by {n_threads} threads came out at {share} of one thread's rate",
    CautionCause.RATE_SENSELESS: "{part} came out at {rate_per_s:.3g} a second, which no such machine does",
    CautionCause.WRONG_RESULT: "{part} came to a wrong result",
    CautionCause.SWAPPED_OUT: "{size_bytes} were swapped out: what is in memory is less than what the process took",
    CautionCause.UNEXPLAINED: "{share} of the growth of resident memory is not explained",
    CautionCause.LEFT_MEMORY: "{size_bytes} left memory while the model was loaded and used: something else needed it",
    CautionCause.NOT_FINITE: "{n_done} of {n_wanted} windows came to no finite number",
    CautionCause.WINDOWS_LEFT_OUT: "interrupted after {n_done} of {n_wanted} windows",
    CautionCause.RAN_ELSEWHERE: (
        "{part} of {n_layers} layers ran on {other_part} and not where the layers are: {size_bytes} are carried for each "
        "token (`harness token-time` has what that takes)"
    ),
    CautionCause.MORE_PIECES: (
        "a token's work is cut into {n_pieces} pieces where the places of its layers explain {n_expected}: some of it runs "
        "elsewhere than its layer"
    ),
    CautionCause.NO_KERNEL: "{part} is off: {device} has no kernel for it here, and it would have run on {other_part}",
    CautionCause.NOT_LOCKED: (
        "not all weights could be locked in memory: allow more of it (ulimit -l), or leave out the mlock of -lm"
    ),
    CautionCause.NOT_REPACKED: (
        "weights on the CPU are not repacked for it, as pinned memory of {device} goes first: `harness ab -- --no-host off -- "
        "--no-host on` says what that costs"
    ),
    CautionCause.POLL_IDLE: "--poll does nothing: this ggml has its threads from OpenMP",
    CautionCause.MASK_IDLE: "-C does nothing: macOS keeps no thread to a CPU",
    CautionCause.LEFT_OUT: "this build of llama.cpp does not use {part}, which this CPU has",
    CautionCause.UNTRIED_VERSION: "harness was never tried with llama-cpp-python {part}, which is laid out as one that was",
    CautionCause.SENTENCE: "{said}",
}
_NEEDED = {
    cause: [part[1] for part in string.Formatter().parse(text) if part[1] and part[1] != "at_depth"]
    for cause, text in _SENTENCES.items()
}

#: What the parts of a record are called in a sentence, where their own names do not say it.
_PARTS = {
    "bare": "the bench's token",
    "greedy": "a whole token, greedy",
    "chain": "a whole token",
    "declining": "a token whose observer looks away",
    "observing": "a watched token",
    "second mmap on": "the second token after a load (mmap on)",
    "second mmap off": "the second token after a load (mmap off)",
    "application bench": "the bench's token beside the application",
    "slope f16": "what a token in the f16 cache costs",
    "slope q8_0": "what a token in the q8_0 cache costs",
    "step threads": "starting threads anew",
    "step decode": "the engine called from the application's loop",
    "step sampling": "the application's sampling",
    "step text": "the application's text",
    "step python": "the application's loop",
    "read": "reading",
    "multiply": "multiplying",
    "numpy": "numpy's reading",
}

_TEMPLATES = {"missing": "has no chat template", "failed": "has a chat template that cannot be applied"}


@dataclass(frozen=True, slots=True)
class Caution:
    """A caution that travels with the number it qualifies; None is a figure that does not belong to its cause."""

    cause: CautionCause  #: what it is about
    said: str | None = None  #: the sentence, of older records alone
    distrust: bool = False  #: whether the number is not to be believed
    cpus_lost: float | None = None  #: CPUs' worth of time that others, or the hypervisor, had
    n_cpus: int | None = None  #: CPUs that were ours
    n_threads: int | None = None  #: threads that computed
    n_disturbed: int | None = None  #: repetitions that it disturbed
    n_timed: int | None = None  #: repetitions that count
    lost_share: float | None = None  #: of the time, of the clock or of the median
    wanted_share: float | None = None  #: of the median, within which its interval was to be
    limit_s: float | None = None  #: time that a cell was given
    timed_s: float | None = None  #: time that its repetitions took, without loads, caches that were filled and rests
    clock_mhz: float | None = None  #: at which the processor ran
    clock_limit_mhz: float | None = None  #: the highest that it can have
    n_pages: int | None = None  #: pages of memory, a repetition
    n_switched: int | None = None  #: switches between threads, a repetition
    is_server_here: bool = False  #: an RPC server on this machine is one of the others
    n_held: int | None = None  #: how often a control group's quota held it back
    held_s: float | None = None  #: CPU time of that
    reasons: tuple[str, ...] = ()  #: that the card's driver gave
    n_done: int | None = None  #: repetitions that were done
    n_wanted: int | None = None  #: repetitions that were asked for or are needed
    n_layers: int | None = None  #: the model's with the output layer, or those put on the GPU
    gpu_share: float | None = None  #: of the model, that Ollama has on the GPU
    n_ctx: int | None = None
    n_ctx_train: int | None = None
    template: Literal["missing", "failed"] | None = None  #: what is wrong with the chat template
    template_error: str | None = None  #: why it could not be applied
    is_system_dropped: bool = False  #: there was a system message
    ollama_tokens: int | None = None  #: the prompt's, by Ollama's count
    prompt_tokens: int | None = None  #: the prompt's, by llama.cpp's count
    size_bytes: int | None = None  #: the matrix
    cache_bytes: int | None = None  #: last-level caches
    wanted_bytes: int | None = None  #: a matrix that is large enough
    slowdown: float | None = None  #: share by which a test made decoding longer
    part: str | None = None  #: what it is about: a variant, an operation, a step, a test
    other_part: str | None = None  #: what that was held against
    depth: int | None = None  #: tokens in the cache
    share: float | None = None  #: by how much it is off
    times: float | None = None  #: the same as a ratio
    rate_per_s: float | None = None  #: bytes or operations
    n_stalled: int | None = None  #: tokens that were held up
    n_pieces: int | None = None  #: into which a token's work is cut, by device
    n_expected: int | None = None  #: those that follow from where layers lie
    device: str | None = None  #: the layer's, or the one that takes precedence

    def __post_init__(self) -> None:
        if self.said is None and (lost := [name for name in _NEEDED[self.cause] if getattr(self, name) is None]):
            raise UsageError(f"A caution of cause {self.cause.value} says nothing of {', '.join(lost)}.")

    @property
    def text(self) -> str:
        """The sentence for people, made of cause and figures; what an older record said."""
        return describe_caution(self)


#: How figures are written that are not written as they are; others are, but for sizes.
_WRITTEN: dict[str, Callable[[Caution], Any]] = {
    "gpu_share": lambda one: f"{100 * (one.gpu_share or 0):.0f} %",
    "lost_share": lambda one: f"{100 * (one.lost_share or 0):.{1 if (one.lost_share or 0) < 0.1 else 0}f} %",
    "wanted_share": lambda one: f"{100 * (one.wanted_share or 0):g} %",
    "slowdown": lambda one: f"{100 * (one.slowdown or 0):g} %",
    "reasons": lambda one: ", ".join(one.reasons),
    "cpus_lost": lambda one: f"{one.cpus_lost or 0:{'.1f' if (one.cpus_lost or 0) >= 0.05 else '.1g'}}",
    "share": lambda one: f"{100 * (one.share or 0):.{1 if abs(one.share or 0) < 0.1 else 0}f} %",
    "part": lambda one: _PARTS.get(one.part or "", one.part),
    "other_part": lambda one: _PARTS.get(one.other_part or "", one.other_part),
    "at_depth": lambda one: "" if one.depth is None else f" at depth {one.depth}",
    "template": lambda one: (
        _TEMPLATES.get(one.template or "", "") + (f" ({one.template_error})" if one.template_error else "")
    ),
}


def _write_as_is(name: str, caution: Caution) -> Any:
    value = getattr(caution, name)
    return format_mib(value) if name.endswith("_bytes") and value is not None else value


@functools.cache
def _writers(cause: CautionCause) -> tuple[tuple[str, Callable[[Caution], Any]], ...]:
    """What a cause's sentence names, and what writes it: thousands are written at once."""
    names = dict.fromkeys(name for _, name, _, _ in string.Formatter().parse(_SENTENCES[cause]) if name)
    return tuple((name, _WRITTEN.get(name) or functools.partial(_write_as_is, name)) for name in names)


def describe_caution(caution: Caution) -> str:
    """What is to be known about the number, without a full stop."""
    if caution.said is not None:
        return caution.said
    values = {name: write(caution) for name, write in _writers(caution.cause)}
    among = "; an RPC server on this machine is among them" if caution.is_server_here else ""
    dropped = ", and without the system message" if caution.is_system_dropped else ""
    return _SENTENCES[caution.cause].format_map(values) + among + dropped
