"""One text that a model wrote: what was asked for, Ollama's eight figures of it, and the record that is kept.

The prompt and the text may be private. A record holds the number of the prompt's tokens and a hash of it, by which two runs of the same
prompt are recognised; the text itself only where the user asked for that. (A hash hides a long prompt; a short one can be guessed.)
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from dataclasses import dataclass
from typing import Literal

from harness.codec import FilePath, UtcTime
from harness.errors import UsageError
from harness.records.cautions import Caution
from harness.records.cells import SCHEMA, Build, Conditions, Failure, Machine, Model, Resolved
from harness.records.trust import Verdict
from harness.units import NS_PER_S

#: The article's reference task.
REFERENCE_PROMPT = "explain quantum entanglement"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSettings:
    """How a text is written. Counts are tokens or layers; None leaves a choice to the model (n_ctx) or to the machine (n_threads).

    The sampler's defaults are Ollama's, without its repeat penalty. raw hands the prompt over without the chat template; ignore_eog
    goes on after an end-of-generation token, for timing a given number of tokens; has_system is what a record says of a system message.

    Raises
    ------
    UsageError : a number is out of its range.
    """

    raw: bool = False
    n_ctx: int | None = None
    n_gpu_layers: int = -1
    n_threads: int | None = None
    rpc: tuple[str, ...] = ()  #: servers whose devices took part
    n_batch: int = 2048  #: tokens of a prompt decoded at once
    temperature: float = 0.8  #: 0 always takes the likeliest token
    top_k: int = 40  #: drawn from so many likeliest tokens; 0: from all
    top_p: float = 0.9  #: and of those from the likeliest that make up as much
    seed: int = 0  #: of the draw; -1: another each time
    max_tokens: int | None = None
    ignore_eog: bool = False
    warmup: bool = False  #: whether one token was decoded before
    has_system: bool = False

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise UsageError(f"--max-tokens {self.max_tokens} writes nothing; give at least 1.")
        if self.temperature < 0:
            raise UsageError(f"--temp {self.temperature:g} is below 0; 0 always takes the likeliest token.")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"--top-p {self.top_p:g} is no share; give a number above 0 and up to 1.")


@dataclass(frozen=True, slots=True)
class TextRequest(TextSettings):
    """What to write with which model.

    Raises
    ------
    UsageError : as `TextSettings`, or the prompt is empty.
    """

    model: FilePath
    prompt: str
    system: str | None = None

    def __post_init__(self) -> None:
        TextSettings.__post_init__(self)
        if not self.prompt.strip():
            raise UsageError("The prompt is empty; write it behind the command, or pipe it in.")
        if self.raw and self.system is not None:
            raise UsageError("--system needs the chat template; leave out --raw.")

    def settings(self, n_ctx: int | None = None) -> TextSettings:
        """What a record keeps of it: everything but the model's path, the prompt and the system message."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(TextSettings)}
        return TextSettings(**{**values, "n_ctx": n_ctx or self.n_ctx, "has_system": self.system is not None})


@dataclass(frozen=True, slots=True)
class Figures:
    """Ollama's figures of one text, and time to first token; None where it never came so far.

    total_duration is from the request to the last piece of text, by the parent's clock, and holds the three other durations. The start
    of the worker process comes before it, as that of Ollama's server does. The first token comes out of the prompt's last decode, so
    eval_duration holds eval_count - 1 decodes, in Ollama too: its eval rate is eval_count / (eval_count - 1) times too good, 1 % at 100
    tokens and 11 % at 10.

    Source: the meaning of Ollama's: runner.go of its llama runner (numDecoded, startGenerationTime); docs/api.md.
    """

    total_duration_ns: int
    load_duration_ns: int | None = None  #: loading the model and making its context
    prompt_eval_count: int | None = None  #: tokens of the prompt, with BOS and the template's own
    prompt_eval_duration_ns: int | None = None  #: decoding all of them, until the results are there
    eval_count: int | None = None  #: tokens that were sampled, one that ends the text included
    eval_duration_ns: int | None = None  #: from the prompt's end until the last was sampled: sampling, text, decoding
    first_token_ns: int | None = None  #: from the model being ready until the first token was sampled

    @property
    def prompt_eval_rate_tok_per_s(self) -> float | None:
        return rate(self.prompt_eval_count, self.prompt_eval_duration_ns)

    @property
    def eval_rate_tok_per_s(self) -> float | None:
        return rate(self.eval_count, self.eval_duration_ns)

    def decode_rate_tok_per_s(self, decode_ns: int | None) -> float | None:
        """Tokens per second of decoding alone, of which there is one fewer: what `harness pp-tg` calls tg."""
        return rate(self.eval_count - 1 if self.eval_count else None, decode_ns)


def rate(count: int | None, duration_ns: int | None) -> float | None:
    """Tokens per second; None where nothing was counted or no time passed."""
    return count * NS_PER_S / duration_ns if count and duration_ns else None


@dataclass(frozen=True, slots=True)
class TextRun:
    """A text that was written, or as much of it as there was before Ctrl-C or a failure.

    template says how the prompt was framed: ``jinja`` (the model's own template), ``llama.cpp`` (its C function knew it), ``raw`` (as
    asked), ``missing`` (the model has none) or ``failed`` (it cannot be applied). finish is ``stop`` (end of generation), ``length``
    (--max-tokens), ``context`` (full), ``interrupted`` or ``failed``. token_ns holds the time between one token and the next;
    sample_ns and decode_ns what sampling and decoding had of eval_duration in all.
    """

    command: str
    time_utc: UtcTime
    machine: Machine
    harness_version: str
    asked: TextSettings
    prompt_sha256: str  #: of the prompt as it was asked
    figures: Figures  #: Ollama's figures of it
    finish: Literal["stop", "length", "context", "interrupted", "failed"]
    model: Model | None = None
    build: Build | None = None
    resolved: Resolved | None = None
    template: Literal["jinja", "llama.cpp", "raw", "missing", "failed"] | None = None
    token_ns: tuple[int, ...] = ()
    sample_ns: int | None = None
    decode_ns: int | None = None
    rss_bytes: int | None = None
    failure: Failure | None = None
    warnings: tuple[Caution, ...] = ()
    prompt: str | None = None
    text: str | None = None
    conditions: Conditions | None = None  #: what the operating system says of prompt and writing
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class JudgedText(TextRun):
    """A text of which the times of its tokens were let go, judged before: thousands of these are held at once."""

    verdict: Verdict | None = None

    @classmethod
    def of(cls, run: TextRun, verdict: Verdict | None) -> JudgedText:
        """What is held of a text that was judged."""
        values = {item.name: getattr(run, item.name) for item in dataclasses.fields(TextRun)}
        return cls(**{**values, "token_ns": ()}, verdict=verdict)


def hash_prompt(prompt: str) -> str:
    """SHA-256 of a prompt in hex."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()


class Skip(enum.Enum):
    """Why a model was not run."""

    CANNOT_RUN = "cannot-run"
    NOT_HERE = "not-here"
    NO_TEXT = "no-text"
    TOO_LARGE = "too-large"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A model that was not run. reason is what its file or the catalog says of it, sizes are known of one that is too large."""

    name: str
    why: Skip
    reason: str = ""
    size_bytes: int = 0
    free_bytes: int = 0
