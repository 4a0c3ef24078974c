"""What is to be measured, before anything is started: the file that a reference means, what it may be asked, and cells that suit it."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Collection, Sequence

from harness.errors import HarnessError, UsageError
from harness.events import OnEvent, Remark
from harness.gguf.header import Header
from harness.gguf.model_kinds import Question, refuse, suit_cells
from harness.gguf.settings import describe_untrained, read_count
from harness.grid import Grid
from harness.records.failures import Cause, Failure
from harness.sources.gguf_file import read_file_header
from harness.sources.model_file import default_model
from harness.sources.references import parse_reference
from harness.spec import RunSpec


def find_file(reference: str | None, on_event: OnEvent) -> pathlib.Path:
    """The file to measure that a reference means; the embedded model where there is none. A synthetic one may have to be written.

    Raises
    ------
    HarnessError : there is no such file here; what to do is said.
    """
    if reference is None:
        return default_model()
    return parse_reference(reference).open(on_event)


def plan_cells(grid: Grid, asked: Collection[str], on_event: OnEvent) -> tuple[RunSpec, ...]:
    """The cells of a grid whose models are references (none: the embedded one), as their files suit.

    asked names the fields of `RunSpec` that were asked expressly; what cannot be done of the others is left out, with a remark.

    Raises
    ------
    UsageError : a file is no model that llama.cpp measures, or what was asked expressly cannot be done with it.
    """
    files = [str(find_file(reference, on_event)) for reference in grid.models or (None,)]
    return suit(dataclasses.replace(grid, models=files).cells(), asked, on_event)


def read_for(path: str | os.PathLike[str], question: Question, label: str | None = None) -> Header:
    """The header of a file that may be asked this; `label` is what the file is called in a sentence, its name unless told.

    Raises
    ------
    UsageError : it is damaged, or it may not be asked; what it is and what to do is said.
    """
    header = read_file_header(path)
    refuse(header, question, label or pathlib.Path(path).name)
    return header


def blame_file(failure: Failure, path: str) -> Failure:
    """A failure, and one to load as what it is where the file is damaged: the question's fault, in the words of whoever reads files."""
    if failure.phase != "load":
        return failure
    try:
        read_file_header(path)
    except UsageError as error:
        return dataclasses.replace(failure, message=str(error), cause=Cause.QUESTION, reason=None)
    except HarnessError:
        pass
    return failure


def suit(cells: Sequence[RunSpec], asked: Collection[str], on_event: OnEvent) -> tuple[RunSpec, ...]:
    """Adapt cells to what their files are, and say what was left out or changed; as `plan_cells`."""
    suited: list[RunSpec] = []
    for model in dict.fromkeys(cell.model for cell in cells):
        own = [cell for cell in cells if cell.model == model]
        try:
            header = read_file_header(model, check_size=False)
        except HarnessError:  # the other files are measured all the same
            suited += own
            continue
        refuse(header, Question.MEASURE, pathlib.Path(model).name)
        found = suit_cells(header, own, asked, pathlib.Path(model).name)
        suited += found.cells
        untrained = describe_untrained(read_count(header, "context_length"), (cell.n_ctx_seq for cell in found.cells))
        for note in (*found.notes, *([untrained] if untrained else [])):
            on_event(Remark(f"note: {note}"))
    return tuple(suited)
