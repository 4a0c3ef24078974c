"""What the commands share that have a model write: their options, finding the model, remarks."""

from __future__ import annotations

import pathlib
from typing import Any

import click

from harness.cli.options import Number
from harness.cli.progress import displayed
from harness.errors import UsageError
from harness.records.text import DEFAULT_N_CTX
from harness.sources.model_file import default_model, is_synthetic
from harness.sources.references import parse_reference
from harness.spec import MAX_SEED, MAX_TOKENS, parameters


def one_value(name: str, *, default: Any) -> Any:
    """An option of `harness pp-tg` that takes one value here instead of a list."""
    parameter = parameters()[name]
    shown = f" [{default}]" if default else ""
    return click.option(
        *parameter.flags, name, type=_One(parameter.parse), default=default, metavar=parameter.metavar,
        help=parameter.help + shown,
    )  # fmt: skip


def writing_options(function: Any) -> Any:
    """Add the options of the sampler, the context and the placement; the latter are those of `harness pp-tg`, with one value each."""
    for option in reversed(
        (
            one_value("n_gpu_layers", default=-1),
            one_value("n_threads", default=None),
            one_value("rpc", default=()),
            click.option(
                "-c", "--ctx", "--ctx-size", "n_ctx", type=click.IntRange(2, MAX_TOKENS), metavar="N",
                help=f"Context for prompt and text. [{DEFAULT_N_CTX}, or the model's if that is less]",
            ),
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
            click.option(
                "--seed", type=click.IntRange(-1, MAX_SEED), default=0, metavar="N",
                help="Seed of the draw; -1 for another each time. [0]",
            ),
        )
    ):  # fmt: skip
        function = option(function)
    return function


class _One(click.ParamType):
    """One value of an option that other commands take lists of."""

    name = "N"

    def __init__(self, parse: Any) -> None:
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            values = self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if len(values) != 1:
            self.fail(f"{value!r} is several values; a text is written with one", param, ctx)
        return values[0]


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
