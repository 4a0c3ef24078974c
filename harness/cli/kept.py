"""`harness list`: what was kept, found by name, label, model or machine."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import click

from harness.cli import terminal
from harness.cli.journals import Chosen, choose_kept
from harness.cli.options import results_option
from harness.cli.output import Output, output_options, show
from harness.records.journal import edit_lines
from harness.units import format_count
from harness.views.kept import describe_kept

_EXAMPLES = """
\b
Examples:
  harness list                                  a row a run, the latest below
  harness list last                             a row a record of the last run
  harness list --label "new fan"                what was labelled so
  harness list --about llama3.2 -o json
  harness list --label test --delete            delete that, after asking
"""


@click.command("list", epilog=_EXAMPLES)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--label", default="", metavar="TEXT", help="Only those whose label has this in it.")
@click.option("--about", default="", metavar="TEXT", help="Only those of such a command, model, test or machine.")
@click.option("--delete", is_flag=True, help="Delete them, after asking.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@output_options()
@results_option
def command(
    names: Sequence[str], label: str, about: str, delete: bool, yes: bool, output: Output, results: pathlib.Path
) -> None:
    """List what was kept: when, what, of which model, with which label.

    NAME is last for the latest run, last~1 for the one before, a journal (.jsonl) or a folder of them; last:3 is
    the third line of the last. table, plot and report take last and last~1 too.
    """
    chosen = choose_kept(names, results, label, about)
    show_chosen(chosen, output, as_lines=len(chosen) == 1 and bool(names))
    if delete and chosen:
        delete_chosen(chosen, yes)


def show_chosen(chosen: Sequence[Chosen], output: Output, *, as_lines: bool) -> None:
    """Show records that were chosen, a row a journal or a row a record."""
    groups = [(one.name, str(one.path), one.kept) for one in chosen]
    if as_lines:
        groups = [(f"{one.name}:{kept.number}", str(one.path), [kept]) for one in chosen for kept in one.kept]
    if groups or output.form != Output().form:
        show(describe_kept(groups), output)
    else:
        terminal.echo_note("Nothing of that kind is kept.")


def delete_chosen(chosen: Sequence[Chosen], yes: bool) -> None:
    """Delete records, after asking: whole journals, or lines of them.

    Raises
    ------
    UsageError : nobody is there to answer, or a file is not ours.
    StoreError : a journal is being written, or cannot be changed.
    """
    n_records = sum(len(one.kept) for one in chosen)
    what = f"{format_count(n_records, 'record')} of {format_count(len(chosen), 'journal')}"
    if not yes and not terminal.confirm(f"Delete {what}?"):
        terminal.echo_note("Nothing was deleted.")
        return
    for one in chosen:
        edit_lines(one.path, None if one.is_whole else {kept.number for kept in one.kept}, lambda _line: b"")
    terminal.echo_note(f"deleted {what}")
