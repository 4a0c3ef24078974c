"""`harness tune`: the settings that are fast on this machine, and the lines to paste."""

from __future__ import annotations

import pathlib
from typing import Any

import click

from harness.cli import terminal
from harness.cli.options import (
    Number,
    SectionedCommand,
    cell_timeout_option,
    context_option,
    given_settings,
    one_reference,
    results_option,
    save_option,
    seed_option,
    single_options,
    stack,
    vram_option,
)
from harness.cli.output import Output, output_options, show
from harness.cli.progress import displayed, end, open_session

_EXAMPLES = """
\b
Examples:
  harness tune                                 smollm2:135m, for a chat
  harness tune -m model.gguf --for coding --ctx 16384
  harness tune -m moe.gguf --vram 8GB --time 600
  harness tune -m model.gguf --quality allow   a quantized cache, too
  harness tune -m model.gguf -t 4              four threads are given
  harness tune -m model.gguf --forget          drop what was kept
"""

#: The longest that a search may take: a day.
_MAX_S = 86400.0

_given_options = stack(single_options("load", "context"))


@click.command(
    "tune",
    cls=SectionedCommand,
    sections={"Settings that are given and not searched": _given_options},
    epilog=_EXAMPLES,
)
@one_reference()
@click.option(
    "--for", "purpose", type=click.Choice(["chat", "rag", "batch", "coding"]), default="chat",
    help="What is to be fast: the mix of prompt, answer and tokens before them. [chat]",
)  # fmt: skip
@context_option()
@click.option(
    "--quality", type=click.Choice(["keep", "allow"]), default="keep",
    help="Whether a quantized cache may change what the model says. [keep]",
)  # fmt: skip
@vram_option
@click.option("--time", "max_time_s", type=Number(0, _MAX_S, min_open=True), default=300.0, metavar="S",
              help="Give the search no more time than this. [300]")  # fmt: skip
@click.option("--forget", is_flag=True, help="Drop the settings that were kept for the model, and search nothing.")
@_given_options
@seed_option
@output_options()
@save_option
@results_option
@cell_timeout_option
def command(reference: str | None, output: Output, **options: Any) -> None:
    """Find the settings that are fast on this machine, with proof, and write the lines to paste.

    What fits into memory is worked out first. Then each setting's values are raced in short tests, the clearly slower ones are
    dropped, and what was found is held against llama.cpp's defaults until it is proven to be faster; where it is not, the defaults
    stay. The result is kept for --tuned until the build, the file or the machine change.
    """
    from harness.records.tuning import Quality
    from harness.runs.asking import find_file
    from harness.runs.tune import TuneRequest, keep_result, price_quality, tune
    from harness.views.tune import describe_tuning, summarize_tuning

    with displayed() as on_event:
        path = find_file(reference, on_event)
    if options["forget"]:
        _forget(path)
        return
    request = TuneRequest(
        str(path), quality=Quality(options["quality"]),
        settings=given_settings(options),
        **{name: options[name] for name in ("purpose", "n_ctx", "vram_bytes", "max_time_s", "seed", "cell_timeout_s")},
    )  # fmt: skip
    with open_session("tune", options, summarize_tuning) as session:
        record = tune(request, session)
        price = price_quality(record, session) if record is not None else None
    if record is not None:
        show(describe_tuning(record, price), output)
        if kept := keep_result(path, record):
            terminal.echo_note(f"used by --tuned: {kept}")
    end(session, with_failure=True)


def _forget(path: pathlib.Path) -> None:
    from harness.sources.tuned_settings import forget_tuned

    had_any = forget_tuned(path)
    terminal.echo_note(
        f"the settings kept for {path.name} are dropped" if had_any else f"there are none kept for {path.name}"
    )
