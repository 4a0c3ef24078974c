"""`harness report`: everything that was kept, as one HTML page."""

from __future__ import annotations

import pathlib

import click

import harness
from harness.cli.options import results_option
from harness.errors import StoreError, UsageError

_EXAMPLES = """
\b
Examples:
  harness report                               everything in bench_results
  harness report bench_results/my-machine      one machine's folder
  harness report mine.jsonl theirs.jsonl -o compared.html
"""


@click.command(
    "report",
    epilog=_EXAMPLES,
    short_help="Put everything that was kept into one HTML page.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("sources", nargs=-1, type=click.Path(path_type=pathlib.Path), metavar="[FILES]...")
@click.option(
    "-o", "--output", type=click.Path(path_type=pathlib.Path, dir_okay=False), default=pathlib.Path("report.html"),
    metavar="FILE", help="Where to write the page. [report.html]",
)  # fmt: skip
@results_option
def command(sources: tuple[pathlib.Path, ...], output: pathlib.Path, results: pathlib.Path) -> None:
    """Put records into one self-contained HTML page: summary, machines, speeds, texts, comparisons, warnings, and how it was all
    measured. It loads nothing from anywhere, its tables sort, it follows the dark mode of the reader and prints.

    FILES are journals or folders of them; copy folders of several machines together to compare them.
    """
    from harness.render.report import Material, read_line, render_report
    from harness.store import read_lines, utc_now

    if not output.parent.is_dir():
        raise UsageError(f"There is no folder {output.parent}; make it, or write the page elsewhere with -o.")
    paths = _find_journals(sources or (results,))
    troubles: list[str] = []
    lines = read_lines(paths, troubles.append, None, read_line)
    for trouble in troubles:
        click.echo(f"harness: {trouble}", err=True)
    if not lines:
        raise UsageError(
            f"There are no records in {', '.join(map(str, sources or (results,)))}; measure something first: harness pp-tg."
        )
    page = render_report(
        Material(
            lines=lines,
            # Paths name people; a file's own name says which it was.
            troubles=[_without_folder(trouble, paths) for trouble in troubles],
            files=sorted({path.name for path in paths}),
            made_utc=utc_now(),
            harness_version=harness.__version__,
        )
    )
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"Cannot write {output} ({error.strerror}); choose another place with -o.") from None
    click.echo(f"{len(lines)} records of {len(paths)} files in {output}", err=True)


def _find_journals(sources: tuple[pathlib.Path, ...]) -> list[pathlib.Path]:
    """Every journal that is named or lies in a named folder, oldest name first.

    Raises
    ------
    UsageError : there is no such file or folder.
    """
    found: list[pathlib.Path] = []
    for source in sources:
        if not source.exists():
            raise UsageError(
                f"There is no {source}; name a journal (.jsonl) or a folder of them, or measure something first."
            )
        found += sorted(source.rglob("*.jsonl"), key=lambda path: path.name) if source.is_dir() else [source]
    return list(dict.fromkeys(found))


def _without_folder(trouble: str, paths: list[pathlib.Path]) -> str:
    for path in paths:
        trouble = trouble.replace(str(path), path.name)
    return trouble
