"""`harness report`: everything that was kept, as one HTML page."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

import harness
from harness.cli import terminal
from harness.cli.journals import files_argument
from harness.cli.options import published_option, results_option
from harness.errors import StoreError, UsageError
from harness.host.machine import describe_machine, machine_slug
from harness.records.journal_files import find_journals
from harness.records.shared_parts import collector_at_rest
from harness.sources.whole_files import replace_file
from harness.units import format_count

if TYPE_CHECKING:
    from harness.records.kinds import Line

_EXAMPLES = """
\b
Examples:
  harness report                               everything in bench_results
  harness report bench_results/my-machine      one machine's folder
  harness report mine.jsonl theirs.jsonl -o compared.html
  harness report --share mine.json             speeds to be handed on
"""


@click.command("report", epilog=_EXAMPLES)
@files_argument
@click.option(
    "-o", "--output", type=click.Path(path_type=pathlib.Path, dir_okay=False),
    metavar="FILE", help="Where to write the page. [report.html]",
)  # fmt: skip
@click.option(
    "--share", type=click.Path(path_type=pathlib.Path, dir_okay=False), metavar="FILE",
    help="Write speeds, machine and build without names, to be handed on; no page unless -o asks for one.",
)  # fmt: skip
@published_option
@click.option("--predict/--no-predict", default=True, help="Predict the article's models for this machine. [on]")
@results_option
@collector_at_rest()
def command(
    files: tuple[pathlib.Path, ...], output: pathlib.Path | None, share: pathlib.Path | None, published: bool, predict: bool,
    results: pathlib.Path,
) -> None:  # fmt: skip
    """Put records into one self-contained HTML page: summary, machines, speeds, texts, comparisons, predictions, warnings, and how it
    was all measured. It loads nothing from anywhere, its tables sort, it follows the reader's dark mode and prints.

    FILES are journals (.jsonl), folders of them, or last, last~1; those of several machines together; without any, all in the
    results folder. --share writes a small file of JSON that harness table reads; nothing is sent anywhere.
    """
    from harness.records.journal import TOKEN_TIMES, read_lines, utc_now
    from harness.views.report import Material, read_material, render_report

    if output is None and share is None:
        output = pathlib.Path("report.html")
    for path in filter(None, (output, share)):
        if not path.parent.is_dir():
            raise UsageError(f"There is no folder {path.parent}; make it, or write the file elsewhere.")
    if output is not None and share is not None and output.resolve() == share.resolve():
        raise UsageError(f"-o and --share both say {output}; one file cannot be the page and the speeds.")
    paths = find_journals(files, results)
    troubles: list[str] = []
    lines = read_material(read_lines(paths, troubles.append, without=(TOKEN_TIMES,)))
    for trouble in troubles:
        terminal.echo_error(trouble)
    if not lines:
        where = ", ".join(map(str, files or (results,)))
        raise UsageError(f"There are no records in {where}; measure something first: harness pp-tg.")
    if share is not None:
        _write(share, _share(lines))
        terminal.echo_note(f"written to {share}, without names; nothing was sent anywhere")
    if output is None:
        return
    page = render_report(
        Material(
            lines=lines,
            # Paths name people; a file's own name says which it was.
            troubles=[_without_folder(trouble, paths) for trouble in troubles],
            files=sorted({path.name for path in paths}),
            made_utc=utc_now(),
            harness_version=harness.__version__,
            **_answers(lines, published=published, predict=predict),
        )
    )
    _write(output, page)
    terminal.echo_note(f"{format_count(len(lines), 'record')} of {format_count(len(paths), 'file')} in {output}")


def _write(path: pathlib.Path, text: str) -> None:
    try:
        replace_file(path, text.encode("utf-8"))
    except OSError as error:
        raise StoreError(f"Cannot write {path} ({error.strerror}); choose another place.") from None


def _share(lines: Sequence[Line]) -> str:
    """What of measured cells others may know.

    Raises
    ------
    UsageError : there is none.
    """
    from harness.records.share import write_share
    from harness.records.statistics import Digest
    from harness.sources.user_catalog import load_catalog
    from harness.speed.rates import collect_cells
    from harness.speed.sharing import make_share

    cells = [line.content for line in lines if isinstance(line.content, Digest)]
    shared = make_share(collect_cells(cells, load_catalog()), harness.__version__)
    if not shared.speeds:
        raise UsageError("There is no measured cell to be shared; run `harness pp-tg` first.")
    return write_share(shared)


def _answers(lines: Sequence[Line], *, published: bool, predict: bool) -> dict[str, Any]:
    """What stands beside the records: models of the catalog, published machines, predictions for this machine if it is among them."""
    from harness.records.roofline import Roof
    from harness.records.shared_parts import OncePerParts
    from harness.records.statistics import Digest
    from harness.records.verdict import speaking_roof
    from harness.runs.predict import Own, predict_article
    from harness.sources.user_catalog import load_catalog
    from harness.speed.rates import collect_cells

    catalog = load_catalog()
    answers = {"catalog": catalog, "with_published": published}
    if not predict:
        return answers
    slug, slug_of = machine_slug(describe_machine()), OncePerParts(machine_slug)
    ours = [line.content for line in lines if slug_of(line.machine) == slug]
    roofs = [content for content in ours if isinstance(content, Roof)]
    cells = collect_cells([content for content in ours if isinstance(content, Digest)], catalog)
    own = Own(cells, speaking_roof(roofs))
    return {**answers, "answers": predict_article(catalog, own) if ours else ()}


def _without_folder(trouble: str, paths: list[pathlib.Path]) -> str:
    for path in paths:
        trouble = trouble.replace(str(path), path.name)
    return trouble
