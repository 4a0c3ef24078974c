"""``harness synth``: write a model of the right shape with random weights, to time it without downloading it."""

from __future__ import annotations

from pathlib import Path

import click

from harness.catalog import FALLBACK_QUANTIZATION
from harness.cli import terminal
from harness.cli.options import complete_models, seed_option
from harness.cli.progress import displayed
from harness.errors import UsageError
from harness.events import count_bytes
from harness.units import format_gb

_EXAMPLES = """
\b
Examples:
  harness synth llama3.2:1b                     into the cache, Q4_0
  harness synth llama3.1:8b:q4_k_m
  harness synth qwen2.5:0.5b:q8_0 -o model.gguf
  harness pp-tg -m synth:llama3.2:1b:q4_0       measures one
"""


@click.command("synth", epilog=_EXAMPLES)
@click.argument("model", metavar="NAME[:QUANT]", shell_complete=complete_models)
@click.option(
    "-o", "--output", "output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="Write this file, over nothing but another synthetic one, instead of one in the cache folder.",
)  # fmt: skip
@seed_option
def command(model: str, output: Path | None, seed: int) -> None:
    """Write a GGUF with the shape, tensor types and layout of the catalog model NAME and random weights.

    llama.cpp loads it and does the same work with it as with the real model; it cannot say anything sensible. QUANT is Q4_0 unless
    given. A complete file in the cache is used again; another
    --seed gives other weights.
    """
    # Imported here, because other commands need not wait for numpy and gguf.
    from harness.sources.synthetic import default_cache_dir, ensure_synthetic, write_synthetic
    from harness.sources.user_catalog import load_catalog

    if output is not None:
        _check_target(output)
    entry, asked = load_catalog().split(model)
    quantization = asked or FALLBACK_QUANTIZATION
    with displayed() as on_event:
        show = count_bytes(on_event, f"{entry.name} {quantization}")
        if output is None:
            path = ensure_synthetic(
                entry.shape, quantization, default_cache_dir(), name=entry.name, seed=seed, progress=show
            )
        else:
            path = write_synthetic(entry.shape, quantization, output, name=entry.name, seed=seed, progress=show)
    terminal.show(f"{path}  {format_gb(path.stat().st_size)}  {quantization}  synthetic")


def _check_target(path: Path) -> None:
    """Refuse to write over what is not synthetic: a model that was hours in coming, say."""
    from harness.sources.synthetic import read_mark

    if not path.parent.is_dir():
        raise UsageError(f"There is no folder {path.parent}; make it, or choose another one for the file.")
    if path.exists() and read_mark(path) is None:
        raise UsageError(f"{path} exists and is no synthetic file, so it is not written over; choose another name.")
