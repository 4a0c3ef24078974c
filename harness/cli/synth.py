"""``harness synth``: write a model of the right shape with random weights, to time it without downloading it."""

from __future__ import annotations

from pathlib import Path

import click

from harness.catalog import Shape
from harness.errors import UsageError
from harness.theory.layout import find_quantization
from harness.units import format_gb

_DEFAULT_QUANTIZATION = "Q4_0"


def find_shape(name: str) -> Shape:
    """Look a model's shape up in the catalog.

    Raises
    ------
    UsageError : the catalog has no such model.
    """
    raise UsageError(f"{name!r} is not in the catalog; `harness models` lists the names")


def split_reference(text: str) -> tuple[str, str]:
    """Split ``llama3.2:1b:q4_0`` into the model's name and its quantization, Q4_0 where none is given.

    A name may hold colons itself, so only a last part that is a quantization is taken for one.
    """
    name, _, last = text.rpartition(":")
    if name:
        try:
            return name, find_quantization(last)
        except UsageError:
            pass
    return text, _DEFAULT_QUANTIZATION


@click.command()
@click.argument("model", metavar="NAME[:QUANT]")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write this file, over any that is there, instead of keeping one in the cache directory.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed gives other random weights.")
def synth(model: str, output: Path | None, seed: int) -> None:
    """Write a GGUF with the shape, tensor types and layout of the catalog model NAME and random weights.

    llama.cpp loads it and does the same work with it as with the real model. It cannot say anything sensible.
    QUANT is Q4_0 unless given. A complete file in the cache is used again.

    \b
    Examples:
      harness synth llama3.2:1b                     into the cache, Q4_0
      harness synth llama3.1:8b:q4_k_m
      harness synth qwen2.5:0.5b:q8_0 -o model.gguf
    """
    # Imported here, because other commands need not wait for numpy and gguf.
    from tqdm import tqdm

    from harness.synth import default_cache_dir, ensure_synthetic, write_synthetic

    name, quantization = split_reference(model)
    shape = find_shape(name)
    with tqdm(unit="B", unit_scale=True, disable=None, leave=False, desc=f"{name} {quantization}") as bar:

        def show(done_bytes: int, total_bytes: int) -> None:
            bar.total = total_bytes
            bar.update(done_bytes - bar.n)

        if output is None:
            path = ensure_synthetic(shape, quantization, default_cache_dir(), name=name, seed=seed, progress=show)
        else:
            path = write_synthetic(shape, quantization, output, name=name, seed=seed, progress=show)
    click.echo(f"{path}  {format_gb(path.stat().st_size)}  {quantization}  synthetic")
