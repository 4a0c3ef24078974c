"""What a file on this disk may be asked: every command that loads one comes here before anything is started."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from harness.cli.terminal import echo_error
from harness.errors import HarnessError
from harness.gguf.header import Header
from harness.gguf.model_kinds import Question, refuse, suit_cells
from harness.gguf.settings import read_count, tell_untrained
from harness.sources.gguf_file import read_file_header
from harness.spec import RunSpec


def read_for(path: str | os.PathLike[str], question: Question, label: str | None = None) -> Header | None:
    """The header of a file that may be asked this; None where it cannot be read, of which llama.cpp says why.

    Parameters
    ----------
    label : what the file is called in a sentence; its name unless told

    Raises
    ------
    UsageError : it may not; what it is and what to do is said.
    """
    header = _read(path)
    if header is not None:
        refuse(header, question, label or pathlib.Path(path).name)
    return header


def _read(path: str | os.PathLike[str]) -> Header | None:
    try:
        return read_file_header(path, check_size=False)
    except HarnessError:
        return None


def suit(cells: Sequence[RunSpec], options: Mapping[str, Any], *, quietly: bool = False) -> list[RunSpec]:
    """Adapt cells to what their files are, and say what was left out or changed.

    Parameters
    ----------
    options : the command's, by field of `RunSpec`; what is empty was not asked expressly

    Raises
    ------
    UsageError : a file is no model that llama.cpp measures, or what was asked expressly cannot be done with it.
    """
    asked = {name for name, value in options.items() if value}
    suited: list[RunSpec] = []
    for model in dict.fromkeys(cell.model for cell in cells):
        own = [cell for cell in cells if cell.model == model]
        header = read_for(model, Question.MEASURE)
        if header is None:
            suited += own
            continue
        found = suit_cells(header, own, asked, pathlib.Path(model).name)
        suited += found.cells
        untrained = tell_untrained(read_count(header, "context_length"), (cell.n_ctx for cell in found.cells))
        for note in () if quietly else (*found.notes, *([untrained] if untrained else [])):
            echo_error(f"note: {note}.")
    return suited
