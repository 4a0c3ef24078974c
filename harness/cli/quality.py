"""`harness quality`: how well models predict a text, and what quantizations and cache types lose."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import click

from harness.cli.options import (
    SectionedCommand,
    WholeNumber,
    axes,
    measured_options,
    reference_options,
    results_option,
    save_option,
)
from harness.cli.output import Output, output_options, show
from harness.spec import MAX_TOKENS

_EXAMPLES = """
\b
Examples:
  harness quality                               smollm2:135m, our own text
  harness quality -ctk f16,q8_0,q4_0            what a K cache costs
  harness quality -m q8.gguf -m q4.gguf --base f16.gguf --speed
  harness quality -m model.gguf --text wiki.test.raw --chunks 100
  harness quality -m a.gguf -m b.gguf --speed --plot quality.png
"""


@click.command(
    "quality",
    cls=SectionedCommand,
    sections={"Options of the run": measured_options("load", "context")},
    epilog=_EXAMPLES,
)
@reference_options()
@click.option("--base", metavar="REF", help="Model that all are compared with. [the first, of several]")
@click.option("--text", type=click.Path(path_type=pathlib.Path), metavar="FILE",
              help="Text to predict. [Alice in Wonderland, which comes with harness]")  # fmt: skip
@click.option("-c", "--ctx", "--ctx-size", "n_ctx", type=WholeNumber(8, MAX_TOKENS), default=512, metavar="N",
              help="Tokens of a window, the second half of which is scored. [512]")  # fmt: skip
@click.option("--chunks", "n_chunks", type=WholeNumber(1, MAX_TOKENS), metavar="N", help="Windows at the most. [all]")
@click.option("--speed/--no-speed", "with_speed", default=False, help="Time pp512 and tg128 of each too. [off]")
@click.option("--rounded", "is_rounded", is_flag=True, help="Round the base's probabilities as llama-perplexity does.")
@output_options()
@save_option
@results_option
@measured_options("load", "context")
def command(models: Sequence[str], base: str | None, output: Output, **options: Any) -> None:
    """Say how well models predict a text (perplexity), and how far each is from a base model (KL divergence).

    Texts, windows and figures are llama-perplexity's. Several models and lists of settings, cache types above all, are
    computed side by side and stand in one table, with size, memory and, on demand, speed.
    """
    from harness.cli.progress import displayed, end, open_session
    from harness.runs.quality import measure_quality, measure_speeds, plan_quality
    from harness.views.quality import describe_quality, describe_window

    asked = {name: options[name] for name in ("text", "n_ctx", "n_chunks", "is_rounded")}
    with displayed() as on_event:
        request = plan_quality(models, axes(options), on_event, base=base, **asked)
    speeds = []
    with open_session("quality", options, describe_window) as session:
        records = measure_quality(request, session)
        if options["with_speed"] and not session.is_interrupted:
            speeds = measure_speeds(records, request, session)
    if any(record.windows or record.failure for record in records):
        show(describe_quality(records, speeds), output)
    end(session, with_failure=True)
