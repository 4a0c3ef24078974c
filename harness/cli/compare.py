"""`harness compare`: runs held against each other, cell by cell, with evidence."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import click

from harness.cli import terminal
from harness.cli.options import Read, WholeNumber, results_option
from harness.cli.output import Output, output_options, show
from harness.errors import UsageError
from harness.records.shared_parts import collector_at_rest
from harness.spec import MAX_REPEATS
from harness.speed.limits import Limit, parse_limit

_EXAMPLES = """
\b
Examples:
  harness compare                             the last run and the one before
  harness compare before.jsonl after.jsonl
  harness compare old=llama-bench.json new=last
  harness compare last --by type_k            within one run: q8_0 and f16
  harness compare mine/ theirs/ --by machine --by n_threads
  harness compare last~1 last --fail-if slower:3% --fail-if tg:slower:1%
  harness compare last~1 last -o benchstat >both.txt
  harness compare last~1 last --plot ratios.png
"""

_LIMIT = Read(parse_limit, "LIMIT")


@click.command("compare", epilog=_EXAMPLES)
@click.argument("inputs", nargs=-1, metavar="[A B ...]")
@click.option(
    "--by", multiple=True, metavar="WHAT", help="Compare by a setting (type_k, ngl, …), machine, build or model."
)
@click.option("--base", metavar="VALUE", help="With --by, what the others are held against. [the usual, the least]")
@click.option(
    "--fail-if", "limits", multiple=True, type=_LIMIT, metavar="LIMIT",
    help="End with exit code 6 where slower:3%, pp:slower:3% or tg128:faster:5% is proved.",
)  # fmt: skip
@click.option(
    "--assume-n", "assumed_n", type=WholeNumber(2, MAX_REPEATS), default=5, metavar="N",
    help="Repetitions behind llama-bench's CSV and SQL, which do not say. [5]",
)  # fmt: skip
@output_options("benchstat")
@results_option
@collector_at_rest()
def command(
    inputs: Sequence[str], by: Sequence[str], base: str | None, limits: Sequence[Limit], assumed_n: int, output: Output,
    results: pathlib.Path,
) -> None:  # fmt: skip
    """Hold runs against each other, cell by cell: medians, their ratio with its 95 % interval, and whether it is more than noise (~).

    A, B, … are journals (.jsonl), folders of them, last, last~1, or llama-bench's JSON, JSONL, CSV, SQL or SQLite, known by what is in
    them; NAME=FILE gives one a name. All are held against the first; without any, the last run is held against the one before.

    Only like is compared with like: same model, machine, build of llama.cpp and settings, but for what the comparison is by. --by
    divides all that was measured by the values of a setting instead of by file.
    """
    from harness.cli.progress import end_with
    from harness.runs.compare import USUAL_INPUTS, CompareRequest, compare_files, outcome_of, read_inputs
    from harness.speed.limits import judge_pairs
    from harness.views.benchstat import render_benchstat
    from harness.views.compare import describe_comparison, describe_judgement, describe_unlike

    if base is not None and not by:
        raise UsageError(
            "--base says which value of --by the others are held against; give --by too, or name the files in order."
        )
    if output.form == "benchstat" and len(inputs) == 1 and not by:
        terminal.show(render_benchstat(read_inputs(inputs, results, terminal.echo_error)), nl=False)
        return
    request = CompareRequest(inputs or USUAL_INPUTS, results, by, base, assumed_n)
    comparison = compare_files(request, terminal.echo_error)
    if not comparison.pairs:
        said = "; ".join(describe_unlike(comparison))
        raise UsageError(f"There is nothing in common to compare: {said}.")
    show(describe_comparison(comparison), output, {"benchstat": lambda: render_benchstat(comparison.sides)})
    judgement = judge_pairs(limits, comparison.pairs)
    for sentence in describe_judgement(judgement, comparison):
        terminal.echo_error(sentence)
    end_with(outcome_of(comparison, judgement))
