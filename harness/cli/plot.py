"""`harness plot`: pictures of what was published and what was measured."""

from __future__ import annotations

import pathlib

import click

from harness.cli.journals import files_argument
from harness.cli.options import published_option, results_option
from harness.cli.output import PICTURE_FILE, theme_option, write_picture
from harness.cli.terminal import echo_error
from harness.records.journal import read_lines
from harness.records.journal_files import find_journals
from harness.sources.user_catalog import load_catalog
from harness.views.gallery import KINDS
from harness.views.report import Material, read_material

_EXAMPLES = """
\b
Examples:
  harness plot machines -o machines.png
  harness plot size -o size.svg --theme dark
  harness plot bandwidth -o bandwidth.png
  harness plot depth -o depth.png bench_results/
  harness plot history -o history.png
  harness plot ledger -o ledger.png             the latest harness overhead
  harness plot layers -o layers.png             the last harness sweep
"""


_HELP = f"""Draw KIND: {", ".join(f"{name} ({kind.what})" for name, kind in KINDS.items())}.

FILES are journals (.jsonl), folders of them, or last, last~1; without any, all in the results folder.
"""


@click.command("plot", help=_HELP, epilog=_EXAMPLES)
@click.argument("kind", type=click.Choice(list(KINDS)), metavar="KIND")
@files_argument
@click.option(
    "-o", "--output", "picture", required=True, type=PICTURE_FILE, help="Where to draw it: a .png or .svg file."
)
@published_option
@theme_option
@results_option
def command(
    kind: str,
    files: tuple[pathlib.Path, ...],
    picture: pathlib.Path,
    published: bool,
    theme: str,
    results: pathlib.Path,
) -> None:
    """Draw a picture of `KINDS`."""
    journals = find_journals(files, results) if KINDS[kind].needs_records else []
    lines = read_material(read_lines(journals, echo_error))
    material = Material(lines, with_published=published, catalog=load_catalog())
    write_picture(picture, lambda: KINDS[kind].draw(material, theme))
