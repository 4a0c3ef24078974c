"""`harness table`: this machine's speeds in a table with published ones."""

from __future__ import annotations

import pathlib
from typing import Any

import click

from harness.cli import terminal
from harness.cli.journals import files_argument, read_measured
from harness.cli.options import published_option, results_option
from harness.cli.picture import check_picture_path, plot_option, theme_option, write_picture
from harness.errors import UsageError
from harness.records.journal import find_journals
from harness.speed.published import ARTICLE_MODELS, load_machines
from harness.views.machines import FORMATS, Row, list_models, measured_rows, published_rows, sort_rows

_EXAMPLES = """
\b
Examples:
  harness table                               published machines and this one
  harness table --no-published                what was measured only
  harness table laptop/ xeon/ -o md           records of several machines
  harness table --sort llama3.1:8b --plot machines.png
  harness table --test pp -o json
"""


@click.command("table", epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@files_argument
@click.option("--test", "test_kind", type=click.Choice(["tg", "pp"]), default="tg", help="Generation or prompts. [tg]")
@published_option
@click.option("--sort", "sort", default="speed", metavar="BY", help="speed, given, or a model's name. [speed]")
@click.option("-o", "--output", type=click.Choice(list(FORMATS)), default="table", help="Format. [table]")
@plot_option
@theme_option
@results_option
def command(files: tuple[pathlib.Path, ...], **options: Any) -> None:
    """Set measured speeds beside published ones, one row a machine.

    FILES are journals (.jsonl) or folders of them, those of several machines together; without any, all in the results folder. A
    cell is the record that speaks for the machine and that model, with an empty cache: one to be trusted, with default settings, of
    pp512 or tg128, the most repeated, the latest.
    """
    from harness.sources.user_catalog import load_catalog

    check_picture_path(options["plot"])
    catalog = load_catalog()
    measured = read_measured(find_journals(files, options["results"]), catalog)
    test_kind = options["test_kind"]
    rows: list[Row] = []
    if options["published"] and test_kind == "tg":
        kinds = {name: catalog.entries[name].ollama_2024 or "?" for name in ARTICLE_MODELS if name in catalog.entries}
        rows += published_rows(load_machines(), kinds)
    rows += measured_rows(measured, test_kind)
    if not rows:
        raise UsageError(
            f"There are no records of {test_kind} in {', '.join(map(str, files)) or options['results']}"
            + (", and no published ones either" if test_kind == "pp" else "")
            + "; run `harness pp-tg` first."
        )
    if options["sort"] not in ("speed", "given", *list_models(rows)):
        raise UsageError(f"--sort takes speed, given or a model of the table ({', '.join(list_models(rows))}).")
    rows = sort_rows(rows, options["sort"])
    terminal.show(FORMATS[options["output"]](rows, test_kind), nl=False)
    if options["plot"]:
        from harness.views.figures.speed import draw_machines

        write_picture(options["plot"], lambda: draw_machines(rows, test_kind, options["theme"]))
