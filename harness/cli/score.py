"""`harness score`: LocalScore's tests and its figure, for comparison."""

from __future__ import annotations

from typing import Any

import click

from harness.cli import terminal
from harness.cli.options import (
    MAX_S,
    Number,
    WholeNumber,
    cell_timeout_option,
    given_settings,
    one_reference,
    results_option,
    save_option,
    single_options,
)
from harness.cli.output import Output, output_options, show
from harness.spec import MAX_REPEATS

_EXAMPLES = """
\b
Examples:
  harness score -m llama3.2:1b:q4_k_m           LocalScore's size "tiny"
  harness score --quick                         three tests of nine
  harness score -m llama3.1:8b:q4_k_m --budget 600 -ngl 99
  harness score -m synth:qwen2.5:14b:q4_k_m     before it is downloaded
"""


@click.command("score", epilog=_EXAMPLES)
@one_reference()
@single_options("load", "context")
@click.option(
    "-r", "--repetitions", type=WholeNumber(1, MAX_REPEATS), default=1, metavar="N", help="Runs of each test. [1]"
)
@click.option("--quick", is_flag=True, help="Three tests of nine, whose figure is not comparable.")
@click.option(
    "--budget", "budget_s", type=Number(0, MAX_S, min_open=True), metavar="S",
    help="Begin no test that would end later than this.",
)  # fmt: skip
@output_options()
@save_option
@results_option
@cell_timeout_option
def command(reference: str | None, output: Output, quick: bool, budget_s: float | None, **options: Any) -> None:
    """Run LocalScore's nine tests and show its figure: ten times the geometric mean of prompt tokens/s, generated tokens/s and
    1000 / time to first token in ms. A score of 1000 is excellent, 250 passable, and 100 poor, says localscore.ai.

    As there each test runs once, and flash attention is off unless -fa says otherwise. What is measured is kept as cells; nothing is
    sent anywhere.
    """
    from harness.cli.progress import displayed, end, open_session
    from harness.records.score import score_cells
    from harness.runs.score import measure_score, plan_score
    from harness.views.score import describe_score, describe_test

    settings = given_settings(options)
    with displayed() as on_event:
        request = plan_score(
            reference, settings, on_event, repetitions=options["repetitions"], is_quick=quick, budget_s=budget_s,
            cell_timeout_s=options["cell_timeout_s"],
        )  # fmt: skip
    with open_session("score", options, describe_test) as session:
        records = measure_score(request, session)
    if (score := score_cells(records)) is not None:
        show(describe_score(score, records), output)
        if len(records) < len(request.cells) and not session.is_interrupted:
            terminal.echo_note("The budget was used up; the other tests were not begun.")
    end(session, with_failure=True)
