"""`harness delete`: take kept records away."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import click

from harness.cli.journals import choose_kept
from harness.cli.kept import delete_chosen, show_chosen
from harness.cli.options import results_option
from harness.cli.output import Output

_EXAMPLES = """
\b
Examples:
  harness delete last                           the last run
  harness delete last:3 last~1                  a record of it, the run before
  harness delete last --yes                     without asking
"""


@click.command("delete", epilog=_EXAMPLES)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@results_option
def command(names: Sequence[str], yes: bool, results: pathlib.Path) -> None:
    """Delete runs or records that were kept, after asking; NAME is as harness list shows it.

    Only journals that harness wrote for you are touched, and none that is being written.
    """
    chosen = choose_kept(names, results)
    show_chosen(chosen, Output(), as_lines=any(not one.is_whole for one in chosen))
    delete_chosen(chosen, yes)
