"""`harness models`: the catalog, and what of it is here."""

from __future__ import annotations

import pathlib

import click

from harness.cli import terminal
from harness.cli.output import Output, output_options, show
from harness.cli.progress import end_with
from harness.errors import Outcome, UsageError
from harness.units import format_count, format_gb
from harness.views.models import describe_check, describe_local, describe_models

_EXAMPLES = """
\b
Examples:
  harness models                      every name that -m takes
  harness models -o json
  harness models --catalog mine.toml  with entries of your own
  harness models --local              whatever is on this disk already
  harness models --check              are these files at the hub?
  harness models --prune              free the space of synthetic files
"""


@click.command("models", epilog=_EXAMPLES)
@click.option(
    "--catalog", "extra", type=click.Path(path_type=pathlib.Path), metavar="FILE", help="Lay this catalog over."
)
@output_options()
@click.option(
    "--local", is_flag=True, help="List the models on this disk: Hugging Face's, llama.cpp's, LM Studio's, Ollama's."
)
@click.option("--check", is_flag=True, help="Ask the hub for each file's existence, size and SHA-256.")
@click.option("--prune", is_flag=True, help="Delete synthetic files and files from addresses, after asking.")
def command(extra: pathlib.Path | None, output: Output, local: bool, check: bool, prune: bool) -> None:
    """List the catalog: names, quantizations, sizes, what is on disk and what fits this machine's memory.

    --check ends with exit code 1 if anything at the hub is not as the catalog says.
    """
    from harness.runs.models import list_catalog
    from harness.sources.catalog_check import check_catalog
    from harness.sources.local import list_local
    from harness.sources.user_catalog import load_catalog

    if local + check + prune > 1:
        raise UsageError("--local, --check and --prune are different things; give one of them.")
    if prune:
        _prune()
    elif local:
        show(describe_local(list_local()), output)
    elif check:
        verdicts = list(check_catalog(load_catalog(extra)))
        show(describe_check(verdicts), output)
        if any(verdict.problems for verdict in verdicts):
            end_with(Outcome.OTHER)
    else:
        show(describe_models(list_catalog(load_catalog(extra))), output)


def _prune() -> None:
    from harness.runs.models import list_remakable

    found = list_remakable()
    if not found:
        terminal.show("There are no synthetic files and none from addresses.")
        return
    for path, what in found.items():
        terminal.show(f"{what}  {format_gb(path.stat().st_size)}  {path}")
    total = sum(path.stat().st_size for path in found)
    if not terminal.confirm(f"Delete {format_count(len(found), 'file')} ({format_gb(total)})?"):
        terminal.show("Nothing was deleted.")
        return
    for path in found:
        path.unlink(missing_ok=True)
