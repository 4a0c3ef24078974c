"""`harness table`: this machine's speeds in a table with published ones."""

from __future__ import annotations

import pathlib

import click

from harness.cli import terminal
from harness.cli.journals import files_argument, read_measured
from harness.cli.options import published_option, results_option
from harness.cli.output import Output, output_options, show
from harness.errors import UsageError
from harness.records.journal_files import find_journals
from harness.records.shared_parts import collector_at_rest
from harness.runs.share import read_shares
from harness.sources.user_catalog import load_catalog
from harness.speed.sharing import join_rows
from harness.speed.standings import list_models, measured_rows, published_rows, sort_rows
from harness.views.machines import describe_machines

_EXAMPLES = """
\b
Examples:
  harness table                               published machines and this one
  harness table --no-published                what was measured only
  harness table laptop/ xeon/ -o md           records of several machines
  harness table --sort llama3.1:8b --plot machines.png
  harness table --test pp -o json
  harness table friends/ --no-published       files of report --share
"""


@click.command("table", epilog=_EXAMPLES)
@files_argument
@click.option("--test", "test_kind", type=click.Choice(["tg", "pp"]), default="tg", help="Generation or prompts. [tg]")
@published_option
@click.option("--sort", "sort", default="speed", metavar="BY", help="speed, given, or a model's name. [speed]")
@output_options()
@results_option
@collector_at_rest()
def command(
    files: tuple[pathlib.Path, ...], test_kind: str, published: bool, sort: str, output: Output, results: pathlib.Path
) -> None:
    """Set measured speeds beside published ones, one row a machine.

    FILES are journals (.jsonl), folders of them, or last, last~1; those of several machines together; without any, all in the
    results folder. What others made with harness report --share (.json), or a folder of it, stands beside one's own. A cell is the
    record that speaks for the machine and that model, with an empty cache: one to be trusted, with default settings, of pp512 or
    tg128, the most repeated, the latest.
    """
    catalog = load_catalog()
    shares, journals = read_shares(files, terminal.echo_error)
    rows = published_rows(catalog) if published and test_kind == "tg" else []
    rows += measured_rows(read_measured(find_journals(journals, results), catalog), test_kind)
    rows += join_rows(shares, test_kind, catalog)
    if not rows:
        raise UsageError(
            f"There are no records of {test_kind} in {', '.join(map(str, files)) or results}"
            + (", and no published ones either" if test_kind == "pp" else "")
            + "; run `harness pp-tg` first."
        )
    if sort not in ("speed", "given", *list_models(rows)):
        raise UsageError(f"--sort takes speed, given or a model of the table ({', '.join(list_models(rows))}).")
    show(describe_machines(sort_rows(rows, sort), test_kind), output)
