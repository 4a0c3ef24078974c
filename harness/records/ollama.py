"""One model measured by an Ollama server and directly, by turns: what both did, and their figures of each turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from harness.codec import NOT_EMPTY, FilePath, Shared, UtcTime
from harness.records.cautions import Caution
from harness.records.cells import Build, Conditions, Machine, Model, Resolved
from harness.records.failures import Failure
from harness.records.text import Figures

#: History of the line format of kind "ollama-comparison". 1 (2026-11): first.
#: 2 (2026-11): cautions are causes and figures.
SCHEMA = 2


@dataclass(frozen=True, slots=True)
class Task:
    """What both sides do. n_prompt counts words (a token each, or a little more); n_gpu_layers None leaves the layers to Ollama.

    name is Ollama's of the model, blob the file that it serves.
    """

    name: str
    blob: FilePath = ""
    n_ctx: int = 4096  #: context that both were asked for
    n_threads: int | None = None  #: of both
    n_gpu_layers: int | None = None
    n_prompt: int = 256
    n_gen: int = 64  #: tokens to write
    rounds: int = 6  #: that were asked for
    seed: int = 0  #: of the prompts


@dataclass(frozen=True, slots=True)
class Answer(Figures):
    """One request to /api/generate: the server's own figures, and how long the client waited in all."""

    wall_ns: int | None = None  #: from the request to its answer

    @property
    def server_ns(self) -> int | None:
        """What the request took beside loading, prompt and generation: HTTP, queue, template, tokenizer."""
        parts = (self.load_duration_ns, self.prompt_eval_duration_ns, self.eval_duration_ns)
        return None if self.wall_ns is None else self.wall_ns - sum(part or 0 for part in parts)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in the server's memory, as /api/ps has it; context_length came with v0.10."""

    size_bytes: int
    size_vram_bytes: int
    context_length: int | None = None


@dataclass(frozen=True, slots=True)
class DirectText:
    """The same text written here: of a `TextRun` what differs from round to round."""

    figures: Figures  #: as of a text
    token_ns: tuple[int, ...] = ()
    sample_ns: int | None = None
    decode_ns: int | None = None
    rss_bytes: int | None = None
    warnings: tuple[Caution, ...] = ()
    conditions: Conditions | None = None  #: what the operating system says of it


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of both. ollama is None without a server; ollama_load_ns is from a request of its own before the timed one."""

    direct: DirectText  #: here
    ollama: Answer | None = None
    ollama_load_ns: int | None = None
    ollama_first: bool = True  #: whether the server went first


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rounds; model, build and resolved are those of the first one here, ollama_loaded is what the server said of the model.

    n_gpu_layers were asked for here, after where the server had put the model; -1 is all.
    """

    task: Task  #: what both did
    rounds: Annotated[tuple[Round, ...], NOT_EMPTY]
    machine: Shared[Machine]
    time_utc: UtcTime
    harness_version: str = ""
    command: str = "ollama"
    ollama_version: str | None = None  #: the server's; null: there was none
    ollama_loaded: Loaded | None = None
    n_gpu_layers: int = 0
    model: Model | None = None
    build: Build | None = None
    resolved: Resolved | None = None
    failure: Failure | None = None
    warnings: tuple[Caution, ...] = ()
    schema: int = SCHEMA

    @property
    def memory_bytes(self) -> int | None:
        """Everything that llama.cpp allocated or mapped here: weights, repacked weights, cache, compute and output buffers."""
        return sum(buffer.size_bytes for buffer in self.resolved.buffers) if self.resolved else None
