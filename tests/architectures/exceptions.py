"""What one or another architecture cannot do, and why: the one table, which `docs/models.md` shows and the tests hold true.

python -m tests.architectures.exceptions          write the table into docs/models.md
"""

from __future__ import annotations

import enum
import pathlib

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- architectures -->\n", "<!-- end of architectures -->\n"


class Step(enum.Enum):
    """What is tried with each architecture's model, in this order; what cannot be done takes along what comes after it."""

    LOAD = "load"
    CONTEXT = "a context"
    PROMPT = "pp"
    TOKENS = "tg"


_DRAFT = "drafts for another model, and llama.cpp makes its context only from that model's"

#: (the first step that cannot be done, why), by architecture.
EXCEPTIONS: dict[str, tuple[Step, str]] = {
    "clip": (Step.LOAD, "a projector, of no use without the language model that it goes with"),
    "gptj": (Step.LOAD, "llama.cpp has its name and nothing else of it"),
    "gemma4-assistant": (Step.CONTEXT, _DRAFT),
    "eagle3": (Step.CONTEXT, _DRAFT),
    "dflash": (Step.CONTEXT, _DRAFT),
    "plm": (
        Step.CONTEXT,
        "llama.cpp's graph of it fails an assertion: values are handed to the cache in a shape that it refuses",
    ),
    "t5": (Step.PROMPT, "its decoder needs an encoded text first"),
    "gemma-embedding": (Step.PROMPT, "llama.cpp aborts unless embeddings are asked for"),
}


def describe_exceptions(names: list[str]) -> str:
    """The table and what surrounds it, as Markdown; names are those of all architectures."""
    lines = [
        f"llama.cpp knows {len(names)} architectures. A small model of each is made by the tests and goes through `inspect`, `predict`,",
        "`overhead` (predicted against measured, cause by cause) and `pp-tg`. These cannot do all of it:",
        "",
        "| architecture | cannot have | because |",
        "|---|---|---|",
        *(f"| {name} | {step.value} | {why} |" for name, (step, why) in sorted(EXCEPTIONS.items())),
        "",
        f"The others: {', '.join(name for name in names if name not in EXCEPTIONS)}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    from tests.architectures import load_architectures

    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    everything = sorted({*load_architectures(), *EXCEPTIONS})
    DOCUMENT.write_text(before + BEGIN + describe_exceptions(everything) + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
