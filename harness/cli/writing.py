"""What the commands share that have a model write: their options, finding the model, remarks."""

from __future__ import annotations

import pathlib
from typing import Any

import click

from harness.cli.options import Number, context_option, one_value, seed_option
from harness.cli.progress import displayed
from harness.errors import UsageError
from harness.sources.model_file import default_model, is_synthetic
from harness.sources.references import parse_reference
from harness.spec import MAX_TOKENS


def writing_options(function: Any) -> Any:
    """Add the options of the sampler, the context and the placement; the latter are those of `harness pp-tg`, with one value each."""
    for option in reversed(
        (
            one_value("n_gpu_layers"),
            one_value("n_threads"),
            one_value("rpc"),
            context_option(least=2),
            click.option("--max-tokens", type=click.IntRange(1, MAX_TOKENS), metavar="N", help="End the text after N tokens."),
            click.option(
                "--temp", "temperature", type=Number(0, 1000), default=0.8, metavar="T",
                help="Temperature; 0 always takes the likeliest token. [0.8]",
            ),
            click.option(
                "--top-k", type=click.IntRange(0, MAX_TOKENS), default=40, metavar="K",
                help="Draw from the K likeliest; 0: from all. [40]",
            ),
            click.option(
                "--top-p", type=Number(0, 1, min_open=True), default=0.9, metavar="P",
                help="… and of those from the likeliest that make up P. [0.9]",
            ),
            seed_option,
        )
    ):  # fmt: skip
        function = option(function)
    return function


def find_model(reference: str | None) -> pathlib.Path:
    """The file that a reference means, if it can write.

    Raises
    ------
    UsageError : there is none, or its weights are random.
    """
    if reference is None:
        return default_model()
    asked = parse_reference(reference)
    if asked.is_synthetic:
        _refuse_synthetic(reference)
    with displayed() as on_event:
        path = asked.open(on_event)
    if is_synthetic(path):
        _refuse_synthetic(path.name)
    return path


def _refuse_synthetic(name: str) -> None:
    raise UsageError(f"{name} has random weights, which write noise; time it with `harness pp-tg -m {name}` instead.")


def find_file(reference: str | None) -> tuple[str, pathlib.Path]:
    """What a model is called, and its file; one that has to be written or fetched is."""
    if reference is None:
        return "smollm2:135m", default_model()
    asked = parse_reference(reference)
    with displayed() as on_event:
        return asked.label(), asked.open(on_event)
