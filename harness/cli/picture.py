"""Pictures on disk: one option, one way to write them."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import click

from harness.cli import terminal
from harness.errors import StoreError, UsageError
from harness.views.figures.style import FORMATS, THEME_NAMES, to_bytes

plot_option = click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=pathlib.Path),
    metavar="FILE",
    help="Draw it as .png or .svg too.",
)

theme_option = click.option(
    "--theme", type=click.Choice(list(THEME_NAMES)), default="light", help="Colours of the picture. [light]"
)


def check_picture_path(path: pathlib.Path | None) -> None:
    """Refuse a picture that could not be written, before anything is measured.

    Raises
    ------
    UsageError : the name does not end in .png or .svg, or its folder does not exist.
    """
    if path is None:
        return
    if path.suffix.lower().lstrip(".") not in FORMATS:
        raise UsageError(f"{path.name} is neither a .png nor a .svg file; name the picture so.")
    if not path.parent.is_dir():
        raise UsageError(f"There is no folder {path.parent}; make it, or choose another one for the picture.")


def write_picture(path: pathlib.Path, draw: Callable[[], Any]) -> None:
    """Draw a figure and write it, in the format that the file's name asks for.

    Raises
    ------
    StoreError : the file cannot be written.
    """
    data = to_bytes(draw(), path.suffix.lower().lstrip("."))
    try:
        path.write_bytes(data)
    except OSError as error:
        raise StoreError(f"Cannot write the picture {path} ({error.strerror}); choose another place.") from None
    terminal.echo_note(f"drawn in {path}")
