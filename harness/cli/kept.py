"""`harness list`, `harness label` and `harness delete`: what was kept is found, called something, and taken away."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import click

from harness.cli import terminal
from harness.cli.journals import Chosen, choose_kept
from harness.cli.options import results_option
from harness.cli.output import Output, output_options, show
from harness.records.journal import edit_lines, set_label
from harness.records.trust import Trust
from harness.units import format_count
from harness.views.kept import describe_kept

_LIST_EXAMPLES = """
\b
Examples:
  harness list                                  a row a run, the latest below
  harness list last                             a row a record of the last run
  harness list --label "new fan"                what was labelled so
  harness list --about llama3.2 -o json
  harness list --trust not-to-be-trusted        what is to be measured again
  harness list --label test --delete            delete that, after asking
"""

_LABEL_EXAMPLES = """
\b
Examples:
  harness label last "new fan"                  every record of the last run
  harness label last~1:2 "door open"            one of the run before
  harness label last ""                         no label any more
"""

_DELETE_EXAMPLES = """
\b
Examples:
  harness delete last                           the last run
  harness delete last:3 last~1                  a record of it, the run before
  harness delete last --yes                     without asking
"""

_yes_option = click.option("--yes", is_flag=True, help="Delete without asking.")


@click.command("list", epilog=_LIST_EXAMPLES)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--label", default="", metavar="TEXT", help="Only those whose label has this in it.")
@click.option("--about", default="", metavar="TEXT", help="Only those of such a command, model, test or machine.")
@click.option("--trust", type=click.Choice([trust.value for trust in Trust]), help="Only those of this verdict.")
@click.option("--delete", is_flag=True, help="Delete them, after asking.")
@_yes_option
@output_options()
@results_option
def list_command(
    names: Sequence[str], label: str, about: str, trust: str | None, delete: bool, yes: bool, output: Output,
    results: pathlib.Path,
) -> None:  # fmt: skip
    """List what was kept: when, what, of which model, how far it may be believed, with which label.

    NAME is last for the latest run, last~1 for the one before, a journal (.jsonl) or a folder of them; last:3 is the third line of
    the last. table, plot and report take last and last~1 too.
    """
    chosen = choose_kept(names, results, label, about, Trust(trust) if trust else None)
    _show(chosen, output, as_lines=len(chosen) == 1 and bool(names))
    if delete and chosen:
        _delete(chosen, yes)


@click.command("delete", epilog=_DELETE_EXAMPLES)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_yes_option
@results_option
def delete_command(names: Sequence[str], yes: bool, results: pathlib.Path) -> None:
    """Delete runs or records that were kept, after asking; NAME is as harness list shows it.

    Only journals that harness wrote for you are touched, and none that is being written.
    """
    chosen = choose_kept(names, results)
    _show(chosen, Output(), as_lines=any(not one.is_whole for one in chosen))
    _delete(chosen, yes)


@click.command("label", epilog=_LABEL_EXAMPLES)
@click.argument("name")
@click.argument("text")
@results_option
def label_command(name: str, text: str, results: pathlib.Path) -> None:
    """Label the run or record NAME, as harness list shows it, in place of the label that it has.

    With --label TEXT a measuring command labels what it keeps at once.
    """
    change = set_label(text)
    chosen = choose_kept([name], results)
    changed = [edit_lines(one.path, {kept.number for kept in one.kept}, change) for one in chosen]
    terminal.echo_note(f"{format_count(sum(changed), 'record')} labelled")


def _show(chosen: Sequence[Chosen], output: Output, *, as_lines: bool) -> None:
    groups = [(one.name, str(one.path), one.kept) for one in chosen]
    if as_lines:
        groups = [(f"{one.name}:{kept.number}", str(one.path), [kept]) for one in chosen for kept in one.kept]
    if groups or output.form != Output().form:
        show(describe_kept(groups), output)
    else:
        terminal.echo_note("Nothing of that kind is kept.")


def _delete(chosen: Sequence[Chosen], yes: bool) -> None:
    n_records = sum(len(one.kept) for one in chosen)
    what = f"{format_count(n_records, 'record')} of {format_count(len(chosen), 'journal')}"
    if not yes and not terminal.confirm(f"Delete {what}?"):
        terminal.echo_note("Nothing was deleted.")
        return
    for one in chosen:
        edit_lines(one.path, None if one.is_whole else {kept.number for kept in one.kept}, lambda _line: b"")
    terminal.echo_note(f"deleted {what}")
