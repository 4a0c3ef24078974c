"""`harness pp-tg`: prompt processing and text generation, the measurement that everything else stands on."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import click

from harness.cli import terminal
from harness.cli.options import (
    MANNER_NAMES,
    MAX_S,
    Number,
    Pair,
    axes,
    cell_timeout_option,
    flatten,
    length_options,
    manner_options,
    measured_options,
    reference_options,
    results_option,
    save_option,
    seed_option,
    tuned_option,
)
from harness.cli.output import Output, output_options, show
from harness.cli.progress import displayed, end, open_session
from harness.grid import Grid
from harness.records.failures import describe_end
from harness.runs.asking import plan_cells
from harness.runs.cells import CellsRequest, measure_cells
from harness.runs.tuned import take_tuned
from harness.views.cells import EXPORTS, describe_cell, describe_cells, write_cells
from harness.views.formats import format_names

_EXAMPLES = """
\b
Examples:
  harness pp-tg                                 smollm2:135m, pp512, tg128
  harness pp-tg --gguf llama-3.2-1b-q4_0.gguf --gpu-layers 0
  harness pp-tg -m synth:llama3.2:1b:q4_0       a shape, random weights
  harness pp-tg -m a.gguf -m b.gguf -p 128,512  two models, two prompts
  harness pp-tg -t 1-8*2 -n 0                   on 1, 2, 4 and 8 threads
  harness pp-tg -d 0,4096 -ctk q8_0 -ctv q8_0   a quantized KV cache
  harness pp-tg -pg 512,128 -r 20 -o md         one test, as Markdown
  harness pp-tg --tuned -d 0,4096               as harness tune found best
  harness pp-tg --precision 1% --max-time 300   until each median is known
"""


@click.command("pp-tg", epilog=_EXAMPLES)
@reference_options()
@length_options
@click.option(
    "-pg", "n_pg", multiple=True, type=Pair(), metavar="P,N", help="A prompt and a generation timed as one test."
)
@measured_options("test", "load", "context")
@tuned_option
@manner_options
@click.option("--delay", "delay_s", type=Number(0, MAX_S), default=0.0, metavar="S", help="Rest before each test. [0]")
@click.option(
    "--warmup/--no-warmup", default=None,
    help="Run each test once untimed before. [with -r N, or where a GPU gets ready]",
)  # fmt: skip
@seed_option
@output_options("sql")
@click.option("-oe", "--output-err", type=click.Choice([*format_names(), "sql"]), help="Another format, to stderr.")
@save_option
@results_option
@cell_timeout_option
@click.option("--isolate/--no-isolate", default=True, help="Measure in a child process, which may crash. [on]")
def command(models: Sequence[str], output: Output, **options: Any) -> None:
    """Measure prompt processing (pp) and text generation (tg), as llama-bench does.

    Values may be lists and ranges (0,8,16 · 0-32+8 · 1-64*2); every combination is measured, of
    several -m too. The result is the median of the repetitions with its 95 % interval; a test is
    repeated, by turns with the others, until that is narrow.
    """
    grid = Grid(
        models=models,
        axes=axes(options),
        n_prompt=flatten(options["n_prompt"]) if options["n_prompt"] else (512,),
        n_gen=flatten(options["n_gen"]) if options["n_gen"] else (128,),
        n_pg=options["n_pg"],
        **{name: options[name] for name in (*MANNER_NAMES, "warmup", "delay_s")},
    )
    with displayed() as on_event:
        given = {name for name, value in options.items() if value}
        cells = plan_cells(grid, given, on_event)
        if options["takes_tuned"]:
            cells = take_tuned(cells, given, on_event)
    request = CellsRequest(cells, options["cell_timeout_s"], options["isolate"], options["interleave"])
    with open_session("pp-tg", options, describe_cell) as session:
        records = measure_cells(request, session)
    for record in records:
        if record.failure is not None:
            terminal.echo_error(f"{record.asked.test}: {describe_end(record.failure)}")
    if records:
        exports = {name: functools.partial(write_cells, records, name) for name in (*EXPORTS, "md")}
        show(describe_cells(records), output, exports)
        if options["output_err"]:
            terminal.echo_note(write_cells(records, options["output_err"]), nl=False)
    end(session)
