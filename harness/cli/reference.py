"""`harness reference`: the article's task over every model of the catalog that is here and fits."""

from __future__ import annotations

import pathlib
from typing import Any

import click

from harness.cli.options import results_option, save_option
from harness.cli.output import Output, output_options, show
from harness.cli.progress import end, open_session
from harness.cli.text_options import text_options
from harness.records.text import REFERENCE_PROMPT, TextRequest

_EXAMPLES = f"""
\b
Examples:
  harness reference                     every catalog model that is here
  harness reference --gpu-layers 0      on the CPU, as the article does it
  harness reference -m llama3.2:1b -m llama3.1:8b
  harness reference --max-tokens 100 -o json

The task is: {REFERENCE_PROMPT}
"""


@click.command("reference", epilog=_EXAMPLES)
@click.option("-m", "--model", "names", multiple=True, metavar="NAME", help="Only these names of the catalog. [all]")
@text_options
@output_options()
@save_option
@results_option
def command(names: tuple[str, ...], output: Output, results: pathlib.Path, save: bool, **options: Any) -> None:
    """Run the article's task, `ollama run --verbose MODEL` with the prompt below, over the models of the catalog that are on this
    disk (the catalog's own files, or Ollama's) and fit into memory; one record each.

    PP is Ollama's prompt eval rate and TG its eval rate. What was not run is listed with the reason.
    """
    from harness.runs.reference import run_reference
    from harness.sources.user_catalog import load_catalog
    from harness.views.text import describe_reference, summarize_text

    catalog = load_catalog()
    entries = [catalog.find(name) for name in names] or list(catalog.entries.values())
    request = TextRequest("", REFERENCE_PROMPT, **options)
    with open_session("reference", {"results": results, "save": save}, summarize_text) as session:
        runs, skipped = run_reference(entries, request, session)
    show(describe_reference(runs, skipped), output)
    end(session)
