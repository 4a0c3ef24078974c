"""`harness history`: a cell's medians over time and builds of llama.cpp, and when they changed."""

from __future__ import annotations

import pathlib
from typing import Any

import click

from harness.cli.journals import files_argument
from harness.cli.options import Read, results_option
from harness.cli.output import Output, output_options, show
from harness.cli.terminal import echo_error
from harness.records.history import PER, Per
from harness.records.shared_parts import collector_at_rest

_EXAMPLES = """
\b
Examples:
  harness history                               every cell that was repeated
  harness history -m smollm2 --test tg128       one model, one test
  harness history --test tg --since 2026-11-01
  harness history -m llama3.2:1b --per build    a row a build of llama.cpp
  harness history bench_results/ --plot history.png
"""


def _read_date(text: str) -> str:
    """A day, or a time to the second, as the beginning of a record's own: 2026-11-24 or 2026-11-24T10:59:57Z."""
    import datetime

    try:
        found = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ValueError(f"{text!r} is not a date; write 2026-11-24, or 2026-11-24T10:59:57Z") from None
    if found.tzinfo is not None:
        found = found.astimezone(datetime.timezone.utc)
    return found.strftime("%Y-%m-%dT%H:%M:%SZ")


@click.command("history", epilog=_EXAMPLES)
@files_argument
@click.option("-m", "--model", default="", metavar="TEXT", help="Only models with this in their name or file name.")
@click.option("--test", default="", metavar="TEST", help="Only this test (tg128), or all of a kind (pp, tg).")
@click.option("--about", default="", metavar="TEXT", help="Only those of such a command, model, test or machine.")
@click.option("--since", "since_utc", type=Read(_read_date, "DATE"), help="Only what is no older (UTC).")
@click.option("--per", type=click.Choice(PER), default=PER[0], help="What a row stands for. [record]")
@output_options()
@results_option
@collector_at_rest()
def command(files: tuple[pathlib.Path, ...], per: Per, output: Output, results: pathlib.Path, **wanted: Any) -> None:
    """Show how a cell's speed went over time and over builds of llama.cpp, and when it changed.

    A cell is one test of one model with the same settings on one machine. Its records are cut where their medians change by more
    than they scatter; records that are not to be trusted are marked, and decide nothing.

    FILES are journals (.jsonl), folders of them, or last, last~1; without any, all in the results folder.
    """
    from harness.runs.history import Wanted, read_history
    from harness.views.history import describe_history

    given = {name: value for name, value in wanted.items() if value}
    history = read_history(files, results, Wanted(**given), echo_error)
    show(describe_history(history, per), output)
