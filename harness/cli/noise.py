"""`harness noise`: how noisy this machine is, which difference it can show, and what would help."""

from __future__ import annotations

from typing import Any

import click

from harness.cli import terminal
from harness.cli.options import Number, one_reference, one_value, results_option, save_option, seed_option
from harness.cli.output import Output, output_options, show

_EXAMPLES = """
\b
Examples:
  harness noise                                 half a minute, smollm2:135m
  harness noise --time 120 -t 4
  harness noise -m llama3.2:1b:q4_0 --plot noise.png
"""

#: The longest that the measuring may take: beyond an hour it is another question.
_MAX_S = 3600.0


@click.command("noise", epilog=_EXAMPLES)
@one_reference()
@click.option("--time", "duration_s", type=Number(1, _MAX_S), default=30.0, metavar="S", help="How long to look. [30]")
@one_value("n_threads")
@one_value("n_gpu_layers")
@seed_option
@output_options()
@save_option
@results_option
def command(reference: str | None, output: Output, **options: Any) -> None:
    """Say how noisy this machine is, which difference 6, 10 and 30 repetitions can show here, and what would help.

    Two small tests of a model, a prompt and a generation, are repeated by turns, with what the system counts of each
    repetition. Which programs took CPU time meanwhile is named on the terminal and nowhere else.
    """
    from harness.cli.progress import displayed, end, open_session
    from harness.records.advice import advise, find_tests
    from harness.runs.asking import find_file
    from harness.runs.noise import NoiseRequest, measure_noise
    from harness.views.noise import describe_noise, describe_programs

    with displayed() as on_event:
        path = find_file(reference, on_event)
    given = {name: options[name] for name in ("n_threads", "n_gpu_layers") if options[name] is not None}
    request = NoiseRequest(str(path), given, options["duration_s"], options["seed"])
    with open_session("noise", options) as session:
        noise = measure_noise(request, session)
    if noise is not None and noise.record.blocks:
        tests = find_tests(noise.record)
        show(describe_noise(noise.record, tests, advise(tests, noise.record.tuning)), output)
        if sentence := describe_programs(noise.programs):
            terminal.echo_note(sentence)
    end(session, with_failure=True)
