"""`harness overhead`: where a model's memory goes, predicted from its header and measured in a fresh process."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from harness.cli.keeper import Keeper
from harness.cli.options import (
    Values,
    axes,
    flatten,
    measured_options,
    reference_options,
    results_option,
    save_option,
)
from harness.cli.picture import check_picture_path, plot_option, theme_option, write_picture
from harness.cli.progress import byte_bar
from harness.errors import NativeError, StoreError, UsageError
from harness.overhead import examine, find_model, make_spec
from harness.render.overhead import FORMATS, export_report
from harness.spec import MAX_TOKENS, whole_numbers
from harness.store import utc_now
from harness.theory.ledger import Report
from harness.units import parse_size

#: The context that is looked at unless told otherwise, or the model's own where that is smaller.
DEFAULT_CONTEXT = 8192

_EXAMPLES = """
\b
Examples:
  harness overhead                              smollm2:135m at 8192 tokens
  harness overhead -m model.gguf --ctx 4096 -ctk q8_0 -ctv q8_0
  harness overhead -m model.gguf --repack off   without the second copy
  harness overhead -m llama3.1:405b:q4_0 --predict-only --vram 8GB
  harness overhead -m llama3.1:8b:q4_0 --predict-only --ctx 2048-131072*2
  harness overhead -m synth:llama3.2:1b:q4_0 --plot ledger.png
  harness overhead -m model.gguf -o json
"""


class Size(click.ParamType):
    """A size with a unit, in bytes."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(
    "overhead",
    epilog=_EXAMPLES,
    short_help="Account for every byte that a model takes.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@reference_options(
    "GGUF file, catalog name (llama3.2:1b:q4_0), hf:OWNER/REPO:Q4_0, https://…/x.gguf, ollama:NAME or synth:NAME. [smollm2:135m]"
)
@click.option(
    "-c", "--ctx", "contexts", multiple=True, type=Values(whole_numbers(8, MAX_TOKENS), "N"), metavar="N",
    help=f"Context in tokens; a list or range gives the table of them. [{DEFAULT_CONTEXT}]",
)  # fmt: skip
@measured_options("load", "context")
@click.option("--predict-only", is_flag=True, help="Load nothing: the header is enough, the weights need not be here.")
@click.option("--vram", "vram_bytes", type=Size(), metavar="SIZE", help="Say how many layers fit on such a card (8GB).")
@click.option("--force", is_flag=True, help="Measure although memory will not do.")
@click.option("-o", "--output", type=click.Choice(list(FORMATS)), default="table", help="Format of the result. [table]")
@plot_option
@theme_option
@save_option
@results_option
def command(models: Sequence[str], **options: Any) -> None:
    """Account for every byte that a model takes: weights, their second copy for this CPU's SIMD, KV cache, buffers, libraries.

    What is predicted from the model's header alone stands beside what a fresh process really took, step by step; what nothing explains
    is a line of its own.
    """
    if len(models) > 1:
        raise UsageError("a ledger is about one model; give -m once.")
    check_picture_path(options["plot"])
    predict_only = options["predict_only"] or _count(options["contexts"]) > 1
    # A forecast is not a measurement, and is made again in a moment: it is not kept.
    with Keeper("overhead", options["results"], save=options["save"] and not predict_only) as keeper:
        report = _examine(models[0] if models else "smollm2:135m", options, predict_only)
        click.echo(FORMATS[options["output"]](report), nl=False)
        if report.measurement or report.failure:
            facts = {"time_utc": utc_now(), "machine": dataclasses.asdict(keeper.machine)}
            keeper.keep_line({**export_report(report), **facts})
    keeper.say_where()
    code = 0 if report.failure is None else NativeError.exit_code
    code = code or (StoreError.exit_code if keeper.trouble else 0)
    if options["plot"]:
        from harness.render.plot_ledger import draw_ledger

        write_picture(options["plot"], lambda: draw_ledger(report, theme=options["theme"]))
    raise click.exceptions.Exit(code)


def _examine(reference: str, options: dict[str, Any], predict_only: bool) -> Report:
    with byte_bar(reference) as show:
        model = find_model(reference, weights=not predict_only, progress=show)
    trained = model.subject.n_ctx_train
    usual = min(DEFAULT_CONTEXT, trained) if trained else DEFAULT_CONTEXT
    contexts = sorted(set(flatten(options["contexts"]))) or [max(usual, 8)]
    single = _single_values(options)
    specs = [make_spec(model, n_ctx, single) for n_ctx in contexts]
    with _narrator() as watch:
        return examine(
            model,
            specs,
            predict_only=predict_only,
            vram_bytes=options["vram_bytes"],
            force=options["force"],
            watch=watch,
        )


def _count(groups: Any) -> int:
    return len(set(flatten(groups)))


def _single_values(options: dict[str, Any]) -> dict[str, Any]:
    """The run's parameters, one value each: a ledger is about one configuration."""
    for name, values in axes(options).items():
        if len(set(values)) > 1:
            raise UsageError(
                f"a ledger is about one {name}, and {len(set(values))} are given; only --ctx takes a list."
            )
    return {name: values[0] for name, values in axes(options).items()}


@contextlib.contextmanager
def _narrator() -> Iterator[Callable[[str], None]]:
    """Say on a terminal which step is on."""
    if not sys.stderr.isatty():
        yield lambda _step: None
        return
    from tqdm import tqdm

    with tqdm(bar_format="{desc}  {elapsed}", leave=False, file=sys.stderr) as bar:
        yield bar.set_description_str
