"""`harness fit`: what fits, asked the other way: the largest context for each type of cache, before anything is downloaded."""

from __future__ import annotations

import itertools
from typing import Any

import click

from harness.cli.options import (
    Memory,
    Read,
    SectionedCommand,
    Values,
    WholeNumber,
    flatten,
    measured_options,
    one_reference,
    single_axes,
)
from harness.cli.output import Output, output_options, show
from harness.cli.progress import displayed
from harness.sources.model_file import DEFAULT_MODEL
from harness.spec import MAX_TOKENS, defaults, whole_numbers
from harness.units import MIB, parse_size

_EXAMPLES = """
\b
Examples:
  harness fit -m llama3.1:8b                 in the memory free here
  harness fit -m llama3.1:8b:q4_0 --vram 8GB
  harness fit -m qwen3:30b --vram 8GB --ram 32GB
  harness fit -m llama3.1:70b --vram 24GB,24GB -ctk q8_0 -ctv q8_0
  harness fit -m hf:OWNER/REPO --all-quants --vram 12GB
  harness fit -m qwen3:32b --draft qwen3:0.6b --vram 24GB
  harness fit -m gemma3:12b --mmproj mmproj-F16.gguf --vram 12GB
  harness fit -m llama3.1:8b --ctx 32768 --vram 8GB --plot fit.png
"""


#: What a run is asked with, and how many sequences share it.
_run_options = measured_options("load", "context", also=("n_parallel",))


def _read_cards(text: str) -> tuple[int, ...]:
    return tuple(parse_size(part, example="8GB", memory=True) for part in text.split(","))


@click.command(
    "fit",
    cls=SectionedCommand,
    sections={"Options of the run": _run_options},
    epilog=_EXAMPLES,
)
@one_reference()
@click.option(
    "-c",
    "--ctx",
    "--ctx-size",
    "n_ctx",
    type=WholeNumber(8, MAX_TOKENS),
    metavar="N",
    help="Context in tokens. [the largest that fits, no more than the model was trained for]",
)
@click.option(
    "--vram",
    "vram_bytes",
    type=Read(_read_cards, "SIZE"),
    default=(),
    metavar="SIZE,…",
    help="Memory of a graphics card, or of several; 8GB is 8 GiB.",
)
@click.option(
    "--ram", "ram_bytes", type=Memory("16GB"), metavar="SIZE", help="Host memory; 16GB is 16 GiB. [what is free here]"
)
@click.option(
    "-fitt",
    "--fit-target",
    "spare_mib",
    type=Values(whole_numbers(0, 2**30), "MiB,…"),
    multiple=True,
    metavar="MiB,…",
    help="Leave so much free on each device, in MiB. [0]",
)
@click.option("-mm", "--mmproj", metavar="REF", help="Projector (vision, sound) that goes with it.")
@click.option("-md", "--draft", "--model-draft", "draft", metavar="REF", help="Draft model that guesses for it.")
@click.option("--all-quants", is_flag=True, help="Set all quantizations of the model side by side.")
@output_options()
@_run_options
def command(reference: str | None, output: Output, **options: Any) -> None:  # fmt: skip
    """Find the largest context that fits, for each type of KV cache, and where layers and experts go.

    Only the header is needed. All layers go on the cards as long as 4096 tokens of context fit beside them; then the experts of the
    first layers stay on the CPU, and then layers. Without --vram the devices that are here count. A name without a quantization has
    all of its quantizations set side by side.
    """
    from harness.runs.fit import fit_model, plan_fit
    from harness.views.fit import describe_fit

    types = [flatten(options.pop(name)) for name in ("type_k", "type_v")]
    pairs: list[tuple[str, str]] = []
    if any(types):
        usual = defaults()
        pairs = list(dict.fromkeys(itertools.product(types[0] or (usual["type_k"],), types[1] or (usual["type_v"],))))
    spare = tuple(size * MIB for size in flatten(options["spare_mib"]))
    named = {name: options[name] for name in ("n_ctx", "vram_bytes", "ram_bytes", "mmproj", "draft", "all_quants")}
    with displayed() as on_event:
        request = plan_fit(
            reference or DEFAULT_MODEL,
            single_axes(options),
            cache_types=pairs,
            spare_bytes=spare,
            on_event=on_event,
            **named,
        )
        fitting = fit_model(request, on_event)
    show(describe_fit(fitting), output)
