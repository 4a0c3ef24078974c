"""Where records are read from: the files and folders that a command names, else the results folder."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import click

from harness.catalog import Catalog
from harness.cli.terminal import echo_error
from harness.errors import UsageError
from harness.host.machine import describe_machine, machine_slug
from harness.records.journal import each_record, journal_order, read_lines
from harness.records.roofline import Roof
from harness.speed.rates import Measured, collect

files_argument = click.argument(
    "files", nargs=-1, metavar="[FILES]...", type=click.Path(path_type=pathlib.Path)
)  # journals, or folders of them


def find_journals(files: Sequence[pathlib.Path], results: pathlib.Path) -> list[pathlib.Path]:
    """The journals that are meant: named ones, all in named folders, all in the results folder where none is named; the oldest first.

    Raises
    ------
    UsageError : a named file or folder does not exist, or a named folder holds no journal.
    """
    if not files:
        return sorted(results.rglob("*.jsonl"), key=journal_order) if results.is_dir() else []
    found: dict[pathlib.Path, None] = {}
    for path in files:
        if not path.exists():
            raise UsageError(f"There is no file or folder {path}; name journals (.jsonl) or a folder of them.")
        inside = list(path.rglob("*.jsonl")) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"There are no journals (.jsonl) in {path}; `harness pp-tg` writes some.")
        found |= dict.fromkeys(inside)
    return sorted(found, key=journal_order)


def read_measured(journals: Sequence[pathlib.Path], catalog: Catalog) -> list[Measured]:
    """Every record with a number; damaged lines are told on stderr."""
    return collect(each_record(journals, echo_error), catalog)


def read_roofs(journals: Sequence[pathlib.Path]) -> list[Roof]:
    """Every line of kind ``roofline``."""
    lines = read_lines(journals, echo_error, ("roofline",))
    return [line.content for line in lines if isinstance(line.content, Roof)]


def own_journals(results: pathlib.Path) -> list[pathlib.Path]:
    """The journals of this very machine."""
    return find_journals((), results / machine_slug(describe_machine()))
