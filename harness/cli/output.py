"""What commands show: one set of options, and one way from a Document to the terminal, a file and a picture."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from harness.cli import terminal
from harness.cli.options import Read, stack
from harness.errors import StoreError, UsageError
from harness.sources.whole_files import replace_file
from harness.views.document import Document
from harness.views.figures.style import FORMATS as PICTURE_FORMATS
from harness.views.figures.style import THEME_NAMES, to_bytes
from harness.views.formats import USUAL, format_names, render


@dataclass(frozen=True, slots=True)
class Output:
    """How an answer is to be shown: in a format, and drawn in a file."""

    form: str = USUAL
    plot: pathlib.Path | None = None
    theme: str = "light"


def _read_picture_path(text: str) -> pathlib.Path:
    path = pathlib.Path(text)
    if path.suffix.lower().lstrip(".") not in PICTURE_FORMATS:
        raise UsageError(f"{path.name} is neither a .png nor a .svg file; name the picture so.")
    if not path.parent.is_dir():
        raise UsageError(f"There is no folder {path.parent}; make it, or choose another one for the picture.")
    return path


#: A file to draw into, refused before anything is measured where nothing could be drawn.
PICTURE_FILE = Read(_read_picture_path, "FILE")

theme_option = click.option(
    "--theme", type=click.Choice(list(THEME_NAMES)), default="light", help="Colours of the picture. [light]"
)


def output_options(*more: str) -> Callable[[Any], Any]:
    """Add ``-o``, ``--plot`` and ``--theme``, which reach the command as one argument ``output``, an `Output`.

    Parameters
    ----------
    more : formats that this command alone has; `show` is then given what writes them
    """

    def decorate(function: Any) -> Any:
        @functools.wraps(function)  # with the options that click keeps on it
        def command(*args: Any, output: str, plot: pathlib.Path | None, theme: str, **options: Any) -> Any:
            return function(*args, output=Output(output, plot, theme), **options)

        return stack(
            click.option(
                "-o", "--output", type=click.Choice([*format_names(), *more]), default=USUAL, help=f"Format. [{USUAL}]"
            ),
            click.option("--plot", type=PICTURE_FILE, metavar="FILE", help="Draw it as .png or .svg too."),
            theme_option,
        )(command)

    return decorate


def show(document: Document, output: Output, exports: Mapping[str, Callable[[], str]] | None = None) -> None:
    """Show a document as was asked, and draw its pictures.

    Parameters
    ----------
    exports : what writes formats of other programs, by name; they come before our own of the same name

    Raises
    ------
    UsageError : a picture was asked for, and there is nothing to draw.
    """
    export = (exports or {}).get(output.form)
    terminal.show(export() if export else render(document, output.form), nl=False)
    if output.plot:
        write_pictures(document, output.plot, output.theme)


def write_pictures(document: Document, path: pathlib.Path, theme: str) -> None:
    """Draw the document's pictures: the first into the file, others beside it under their own names; else its main table as bars."""
    from harness.views.figures.bars import pictures_of

    pictures = pictures_of(document)
    if not pictures:
        raise UsageError("There are no figures in this answer that could be drawn; leave --plot out.")
    for number, picture in enumerate(pictures):
        ending = f"-{picture.name or number + 1}" if number else ""
        write_picture(path.with_name(f"{path.stem}{ending}{path.suffix}"), lambda: picture.draw(theme))  # noqa: B023


def write_picture(path: pathlib.Path, draw: Callable[[], Any]) -> None:
    """Draw a figure and write it, in the format that the file's name asks for.

    Raises
    ------
    StoreError : the file cannot be written.
    """
    data = to_bytes(draw(), path.suffix.lower().lstrip("."))
    try:
        replace_file(path, data)
    except OSError as error:
        raise StoreError(f"Cannot write the picture {path} ({error.strerror}); choose another place.") from None
    terminal.echo_note(f"drawn in {path}")
