"""One model measured by an Ollama server and directly: the task that both had, their turns, and the record of them."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.codec import encode
from harness.records.cells import Caution
from harness.records.kinds import COMPARISON_SCHEMA
from harness.records.text import TextRun
from harness.sources.ollama_server import Answer, Loaded

KIND = "ollama-comparison"

#: num_batch of a server that nobody configured. Source: DefaultOptions in Ollama's api/types.go.
OLLAMA_BATCH = 512

#: Common words, most of them one token in every vocabulary; their order is drawn anew for each prompt.
_WORDS = (
    "time year people way day man thing woman life child world school state family student group country problem hand part place case "
    "week company system program question work government number night point home water room mother area money story fact month lot "
    "right study book eye job word business issue side kind head house service friend father power hour game line end member law car "
    "city name president team minute idea body back parent face level office door health person art war history party result change "
    "morning reason research girl guy moment air teacher force education"
)
WORDS = tuple(_WORDS.split())


@dataclass(frozen=True, slots=True)
class Task:
    """What both sides do. n_prompt counts words (a token each, or a little more); n_gpu_layers None leaves the layers to Ollama."""

    name: str
    path: Path
    n_ctx: int
    n_threads: int
    n_gpu_layers: int | None
    n_prompt: int
    n_gen: int
    rounds: int
    seed: int = 0

    def prompt(self, number: int) -> str:
        """The prompt of a round: another one each time, from the first word on, so that no prefix cache knows it."""
        draw = random.Random(f"{self.seed}/{number}")
        return " ".join(draw.choices(WORDS, k=self.n_prompt))

    def ollama_options(self, n_gen: int) -> dict[str, Any]:
        """Options of /api/generate; the penalty is off because `harness` has none."""
        options: dict[str, Any] = {
            "num_ctx": self.n_ctx, "num_thread": self.n_threads, "num_predict": n_gen, "num_batch": OLLAMA_BATCH,
            "temperature": 0.8, "top_k": 40, "top_p": 0.9, "repeat_penalty": 1.0, "seed": self.seed,
        }  # fmt: skip
        return options if self.n_gpu_layers is None else {**options, "num_gpu": self.n_gpu_layers}


@dataclass(frozen=True, slots=True)
class Round:
    """One turn. answer is None without a server; load_duration_ns is Ollama's, from a request of its own before the timed one."""

    direct: TextRun
    answer: Answer | None = None
    ollama_load_ns: int | None = None
    ollama_first: bool = True


@dataclass(frozen=True, slots=True)
class Comparison:
    """All turns, and what the server said of the model while it had it in memory."""

    task: Task
    rounds: tuple[Round, ...]
    version: str | None = None
    loaded: Loaded | None = None
    n_gpu_layers: int = 0
    cautions: tuple[Caution, ...] = ()


def comparison_to_json(comparison: Comparison, time_utc: str, harness_version: str) -> dict[str, Any]:
    """One line of a journal: raw figures of every turn; the model is named by Ollama's name and its blob."""
    task = {name: value for name, value in dataclasses.asdict(comparison.task).items() if name != "path"}
    first = comparison.rounds[0].direct
    return {
        "schema": COMPARISON_SCHEMA,
        "kind": KIND,
        "time_utc": time_utc,
        "harness_version": harness_version,
        "machine": dataclasses.asdict(first.machine),
        "task": {**task, "blob": comparison.task.path.name},
        "ollama_version": comparison.version,
        "ollama_loaded": dataclasses.asdict(comparison.loaded) if comparison.loaded else None,
        "n_gpu_layers": comparison.n_gpu_layers,
        "rounds": [
            {
                "ollama_first": turn.ollama_first,
                "ollama": dataclasses.asdict(turn.answer) if turn.answer else None,
                "ollama_load_ns": turn.ollama_load_ns,
                "direct": {
                    name: value
                    for name, value in encode(turn.direct).items()
                    if name in ("figures", "sample_ns", "decode_ns", "rss_bytes", "token_ns", "warnings")
                },
            }
            for turn in comparison.rounds
        ],
        "model": dataclasses.asdict(first.model) if first.model else None,
        "build": dataclasses.asdict(first.build) if first.build else None,
        "resolved": dataclasses.asdict(first.resolved) if first.resolved else None,
        "warnings": [dataclasses.asdict(caution) for caution in comparison.cautions],
    }
