"""Figures that others published, with their sources: the article's machines, memory bandwidths, Apple's chips, models' accuracy.

What each is worth is told in ``data/SOURCES.md``. An empty field is None.
"""

from __future__ import annotations

import contextlib
import csv
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Any

from harness.catalog import Shape
from harness.units import GIB

GB = 10**9

#: The model of discussion 4167. Its sizes by `theory.layout` are the discussion's: 12.55, 6.67 and 3.56 GiB.
#: Source: H. Touvron et al., LLaMA (2023), table 2; feed-forward length and vocabulary from its published configuration.
LLAMA_7B = Shape(
    architecture="llama",
    block_count=32,
    embedding_length=4096,
    feed_forward_length=11008,
    head_count=32,
    head_count_kv=32,
    head_dim=128,
    vocab_size=32000,
    context_length=2048,
    tied_embeddings=False,
    rope_freq_base=10000.0,
)

#: All parameters of models whose shape in the catalog is only a part of them.
#: Source: meta-llama/llama-models models/llama3_2/MODEL_CARD_VISION.md (10.6 B with the vision encoder).
PUBLISHED_PARAMETERS: Mapping[str, int] = MappingProxyType({"llama3.2-vision:11b": 10_600_000_000})

#: The article's five models, in the order of its columns; what each stood for is `Entry.ollama_2024` of the catalog.
ARTICLE_MODELS = ("qwen2.5:0.5b", "llama3.2:1b", "llama3.2:3b", "llama3.1:8b", "llama3.1:70b")

#: Cautions that belong to one machine's figures, shown wherever they are.
CAUTIONS: Mapping[str, str] = MappingProxyType(
    {
        "RTX A6000 Ada": "no card has this name; read as RTX 6000 Ada (960 GB/s), though its 8b looks like an RTX A6000",
        "i7-13700T": "takes DDR5-5600 (89.6 GB/s, taken for predictions) or DDR4-3200 (51.2); which it had is not known",
        "E5-2696 v3": "68 GB/s with four channels filled; its 70b is far below its other figures (NUMA? memory?)",
    }
)

#: What is known of why the figures of other machines lie far from what is predicted.
_OLD_CARD = (
    "an old card without fast half-precision or int8 arithmetic; if it had 2 GB, even 1b and 3b did not fit whole"
)
MISFITS: Mapping[str, str] = MappingProxyType(
    {
        "GTX 960": _OLD_CARD,
        "M1000M": _OLD_CARD,
        "Ryzen AI 9 HX 370": "120 GB/s is for LPDDR5X-7500; with DDR5-5600 it would be 89.6",
        "X Elite X1E78100": "another architecture (Arm) and soldered memory",
        "RTX 4050 Laptop": "only its bandwidth is known, and two old cards pull down what is expected of one",
    }
)

_SPILLED_8B = "sold with 2 and 4 GB: 8b fits neither, so some of its layers ran on an unnamed CPU"
_SPILLED_70B = "8 GB: most layers of 70b ran on an unnamed CPU"

#: Cautions that belong to one figure.
FIGURE_CAUTIONS: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("M1000M", "llama3.1:8b"): _SPILLED_8B,
        ("GTX 960", "llama3.1:8b"): _SPILLED_8B,
        ("RTX 3060 Ti", "llama3.1:70b"): _SPILLED_70B,
        ("RTX 3070 Ti", "llama3.1:70b"): _SPILLED_70B,
    }
)


@dataclass(frozen=True, slots=True)
class PublishedMachine:
    """One row of the article: tokens per second of text generation by model; kind is cpu or gpu."""

    name: str
    kind: str
    rates_tok_per_s: Mapping[str, float | None]
    source: str


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """One machine's theoretical memory bandwidth; for a CPU an upper bound. vram_bytes is None where memory is shared."""

    machine: str
    kind: str
    bandwidth_bytes_per_s: float
    vram_bytes: int | None
    note: str
    source: str


@dataclass(frozen=True, slots=True)
class AppleChip:
    """One row of llama.cpp's discussion 4167: LLaMA 7B by quantization (F16, Q8_0, Q4_0), tokens per second."""

    chip: str
    gpu_cores: int
    bandwidth_bytes_per_s: float
    pp_tok_per_s: Mapping[str, float | None]
    tg_tok_per_s: Mapping[str, float | None]
    source: str

    @property
    def name(self) -> str:
        return f"{self.chip} {self.gpu_cores}-core GPU"


@dataclass(frozen=True, slots=True)
class Accuracy:
    """One score (percent) that a model's publisher gave; shots is None where it is not said."""

    model: str
    benchmark: str
    shots: int | None
    score: float
    source: str


def _rows(name: str) -> Iterator[dict[str, Any]]:
    """The lines of a table, numbers as such and None where nothing is."""
    text = (resources.files("harness.speed") / "data" / name).read_text(encoding="utf-8")
    return ({key: _value(cell) for key, cell in row.items() if key} for row in csv.DictReader(text.splitlines()))


def _value(text: str) -> str | float | None:
    for read in (int, float):
        with contextlib.suppress(ValueError):
            return read(text)
    return text or None


@functools.cache
def load_machines() -> tuple[PublishedMachine, ...]:
    """The article's machines, in its order."""
    return tuple(
        PublishedMachine(row["machine"], row["kind"], {model: row[model] for model in ARTICLE_MODELS}, row["source"])
        for row in _rows("machines.csv")
    )


@functools.cache
def load_bandwidths() -> Mapping[str, Bandwidth]:
    """Bandwidths by machine."""
    found = {}
    for row in _rows("bandwidth.csv"):
        name, vram = row["machine"], row["vram_gib"]
        peak, vram_bytes = row["bandwidth_gb_per_s"] * GB, None if vram is None else round(vram * GIB)
        found[name] = Bandwidth(name, row["kind"], peak, vram_bytes, row["note"], row["source"])
    return MappingProxyType(found)


@functools.cache
def load_apple_chips() -> tuple[AppleChip, ...]:
    """Apple's line, in the order of the discussion."""
    chips = []
    for row in _rows("apple_silicon.csv"):
        pp, tg = ({kind: row[f"{kind.lower()}_{test}"] for kind in ("F16", "Q8_0", "Q4_0")} for test in ("pp", "tg"))
        peak = row["bandwidth_gb_per_s"] * GB
        chips.append(AppleChip(row["chip"], row["gpu_cores"], peak, pp, tg, row["source"]))
    return tuple(chips)


@functools.cache
def load_accuracy() -> tuple[Accuracy, ...]:
    """Scores of the models, in the order of their cards."""
    return tuple(Accuracy(**row) for row in _rows("model_accuracy.csv"))
