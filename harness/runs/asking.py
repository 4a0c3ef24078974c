"""What a file on this disk may be asked: every question that loads one comes here before anything is started."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Collection, Sequence

from harness.errors import HarnessError
from harness.events import OnEvent, Remark
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
    try:
        header = read_file_header(path, check_size=False)
    except HarnessError:
        return None
    refuse(header, question, label or pathlib.Path(path).name)
    return header


def suit(cells: Sequence[RunSpec], asked: Collection[str], on_event: OnEvent) -> tuple[RunSpec, ...]:
    """Adapt cells to what their files are, and tell what was left out or changed.

    Parameters
    ----------
    asked : the fields of `RunSpec` that were asked for expressly; n_pg where a test of prompt and generation was

    Raises
    ------
    UsageError : a file is no model that llama.cpp measures, or what was asked expressly cannot be done with it.
    """
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
        for note in (*found.notes, *([untrained] if untrained else [])):
            on_event(Remark(f"note: {note}."))
    return tuple(suited)
