"""What one or another architecture cannot do, and why: the one table, which `docs/models.md` shows and the tests hold true.

python -m tests.architectures.exceptions          write the table into docs/models.md
"""

from __future__ import annotations

import enum
import pathlib
import textwrap

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- architectures -->\n", "<!-- end of architectures -->\n"


class Step(enum.Enum):
    """What is tried with each architecture's model, in this order."""

    LOAD = "load"
    LEDGER = "overhead, pp, tg"
    SEVERAL = "pp of more than a micro-batch"
    PROMPT = "pp"
    TOKENS = "tg"


_DRAFT = "drafts for another model, and llama.cpp makes its context only from that model's"

_EMBEDS = "an embedding model, which writes nothing; pp computes embeddings"
_DIFFUSES = "writes all tokens at once and over again; pp is one such pass"
_SOUNDS = "one half of a program that speaks; no prompt of words means anything to it"


def _same(names: str, step: Step, why: str) -> dict[str, tuple[Step, str]]:
    return dict.fromkeys(names.split(), (step, why))


#: (the first step that cannot be done, why), by architecture.
EXCEPTIONS: dict[str, tuple[Step, str]] = {
    "clip": (Step.LOAD, "a projector, of no use without the language model that it goes with"),
    "gptj": (Step.LOAD, "llama.cpp has its name and nothing else of it"),
    **_same("gemma4-assistant eagle3 dflash", Step.LEDGER, _DRAFT),
    "plm": (Step.LEDGER, "llama.cpp's graph of it fails an assertion: it hands values to the cache in a shape that is refused"),
    "chameleon": (Step.SEVERAL, "llama.cpp aborts over a micro-batch of which no logits are wanted"),
    **_same("wavtokenizer-dec pockettts", Step.LEDGER, _SOUNDS),
    **_same(
        "bert modern-bert nomic-bert nomic-bert-moe neo-bert jina-bert-v2 jina-bert-v3 eurobert gemma-embedding t5encoder "
        "llama-embed", Step.TOKENS, _EMBEDS,
    ),
    "t5": (Step.TOKENS, "its decoder writes only about a text that was encoded before; pp encodes one"),
    **_same("dream llada llada-moe rnd1", Step.TOKENS, _DIFFUSES),
}  # fmt: skip


def describe_exceptions(names: list[str]) -> str:
    """The table and what surrounds it, as Markdown; names are those of all architectures."""
    lines = [
        f"llama.cpp knows {len(names)} architectures. A small model of each is made by the tests and goes through `inspect`, `predict`,",
        "`overhead` (predicted against measured, cause by cause) and `pp-tg`. These cannot do all of it:",
        "",
        "| architecture | cannot have | because |",
        "|---|---|---|",
        *(f"| {', '.join(same)} | {step.value} | {why} |" for (step, why), same in _by_reason().items()),
        "",
        *textwrap.wrap(
            "Of these the prediction is what llama.cpp allocates, to the rounding of its log, and both pp and tg are measured: "
            f"{', '.join(name for name in names if name not in EXCEPTIONS)}.",
            width=136,
            break_on_hyphens=False,
        ),
    ]
    return "\n".join(lines) + "\n"


def _by_reason() -> dict[tuple[Step, str], list[str]]:
    found: dict[tuple[Step, str], list[str]] = {}
    for name, reason in EXCEPTIONS.items():
        found.setdefault(reason, []).append(name)
    return found


def main() -> None:
    from tests.architectures import load_architectures

    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    everything = sorted({*(model.architecture for model in load_architectures().values()), *EXCEPTIONS})
    DOCUMENT.write_text(before + BEGIN + describe_exceptions(everything) + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
