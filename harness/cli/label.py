"""`harness label`: call kept records something."""

from __future__ import annotations

import pathlib

import click

from harness.cli import terminal
from harness.cli.journals import choose_kept
from harness.cli.options import results_option
from harness.records.journal import edit_lines, set_label
from harness.units import format_count

_EXAMPLES = """
\b
Examples:
  harness label last "new fan"                  every record of the last run
  harness label last~1:2 "door open"            one of the run before
  harness label last ""                         no label any more
"""


@click.command("label", epilog=_EXAMPLES)
@click.argument("name")
@click.argument("text")
@results_option
def command(name: str, text: str, results: pathlib.Path) -> None:
    """Label the run or record NAME, as harness list shows it, in place of the label that it has.

    With --label TEXT a measuring command labels what it keeps at once.
    """
    change = set_label(text)
    changed = [edit_lines(one.path, {kept.number for kept in one.kept}, change) for one in choose_kept([name], results)]
    terminal.echo_note(f"{format_count(sum(changed), 'record')} labelled")
