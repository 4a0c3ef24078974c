"""`harness roofline`: what this machine can do at best, and how near the records come."""

from __future__ import annotations

from typing import Any

import click

from harness.cli.options import (
    Amount,
    Values,
    flatten,
    one_value,
    repetitions_option,
    results_option,
    save_option,
)
from harness.cli.output import Output, output_options, show
from harness.cli.terminal import echo_error
from harness.errors import UsageError
from harness.parsers import whole_numbers

_EXAMPLES = """
\b
Examples:
  harness roofline                      bandwidth and FLOP/s, then the records
  harness roofline -t 1-16*2 --size 2GB
  harness roofline --saved              the last one again
  harness roofline --plot roofline.png
"""


@click.command("roofline", epilog=_EXAMPLES)
@click.option(
    "-t", "--threads", multiple=True, type=Values(whole_numbers(1, 512), "N"), metavar="N",
    help="Threads of the CPU, as a list or range. [1 to the physical cores, by powers of two]",
)  # fmt: skip
@click.option(
    "--size", "size_bytes", type=Amount("512MiB"), metavar="SIZE",
    help="Matrix to read, several times larger than any cache. [512MiB, or four times the last cache]",
)  # fmt: skip
@one_value("rpc")
@repetitions_option()
@click.option("--saved", is_flag=True, help="Measure nothing; show the last one that was kept.")
@output_options()
@save_option
@results_option
def command(output: Output, **options: Any) -> None:
    """Measure how many bytes a second this machine reads and how many operations a second it does, by ggml itself.

    A large matrix times a vector reads as generating does, a matrix times a matrix calculates as prompts do. Each record of this
    machine is then held against that roof.
    """
    from harness.cli.progress import end, open_session
    from harness.runs.predict import read_own
    from harness.runs.roofline import MINIMUM_BYTES, measure_roofline, plan_roofline
    from harness.sources.user_catalog import load_catalog
    from harness.speed.roofline import hold_against
    from harness.views.roofline import describe_roofline

    size_bytes, results = options["size_bytes"], options["results"]
    if size_bytes is not None and size_bytes < MINIMUM_BYTES:
        raise UsageError(
            f"A --size of {size_bytes} bytes fits into any cache; give at least 1MB, better several times the last cache."
        )
    session = None
    if not options["saved"]:
        threads = tuple(sorted(set(flatten(options["threads"]))))
        request = plan_roofline(size_bytes, threads, options["repetitions"], options["rpc"])
        with open_session("roofline", options) as session:
            roof = measure_roofline(request, session)
    own = read_own(load_catalog(), results, echo_error)
    if options["saved"] and (roof := own.roof) is None:
        raise UsageError(f"No roofline of this machine is kept in {results}; run `harness roofline` without --saved.")
    if roof is not None:
        show(describe_roofline(roof, hold_against(own.measured, roof)), output)
    if session is not None:
        end(session, with_failure=True)
