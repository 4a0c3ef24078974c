"""``--ollama-2024`` and what goes with it: the options, and what they say of a header."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from harness.cli.options import Amount, WholeNumber, stack
from harness.errors import UsageError
from harness.gguf.header import Header
from harness.memory.ollama_2024 import AUTOMATIC, DEFAULT_NUM_CTX, MINIMUM_BYTES, Account, Request, give_account
from harness.memory.ollama_graph import read_figures
from harness.spec import MAX_LAYERS_WRITTEN, MAX_REPEATS, MAX_TOKENS

#: The options that mean something only beside --ollama-2024.
_COMPANIONS = {
    "free_vram": "--free-vram",
    "parallel": "--parallel",
    "num_ctx": "--num-ctx",
    "num_gpu": "--num-gpu",
    "ollama_library": "--ollama-library",
}


#: Add ``--ollama-2024`` and the figures that it depends on to a command.
ollama_options = stack(
    click.option("--ollama-2024", is_flag=True, help="Show what `ollama ps` of October 2024 said, and why."),
    click.option("--free-vram", type=Amount("7.6GiB"), metavar="SIZE", help="Free memory of the card, such as 7.6GiB. [enough]"),
    click.option("--parallel", type=WholeNumber(1, MAX_REPEATS), metavar="N",
                 help="OLLAMA_NUM_PARALLEL, slots. [4, or 1 if 4 do not fit]"),
    click.option("--num-ctx", type=WholeNumber(1, MAX_TOKENS), metavar="N",
                 help=f"Ollama's num_ctx, tokens a slot. [{DEFAULT_NUM_CTX}]"),
    click.option("--num-gpu", type=WholeNumber(AUTOMATIC, MAX_LAYERS_WRITTEN), metavar="N",
                 help="Ollama's num_gpu, layers on the GPU. [-1, as many as fit]"),
    click.option("--ollama-library", type=click.Choice(list(MINIMUM_BYTES)), help="What Ollama ran on. [cuda]"),
)  # fmt: skip


def find_account(header: Header, options: Mapping[str, Any]) -> Account | None:
    """Ollama's account of a header where the options of `ollama_options` ask for it; other options are ignored.

    Raises
    ------
    UsageError   : its companions were given without it.
    HarnessError : the header lacks what Ollama needed.
    """
    if not options.get("ollama_2024"):
        given = [flag for name, flag in _COMPANIONS.items() if options.get(name) is not None]
        if given:
            raise UsageError(f"{given[0]} means something only with --ollama-2024; add that, or leave {given[0]} out.")
        return None
    chosen = {
        "free_vram_bytes": options.get("free_vram"),
        "num_ctx": options.get("num_ctx"),
        "parallel": options.get("parallel"),
        "num_gpu": options.get("num_gpu"),
        "library": options.get("ollama_library"),
    }
    return give_account(
        read_figures(header), Request(**{name: value for name, value in chosen.items() if value is not None})
    )
