"""Where records are read from: the files and folders that a command names, else the results folder."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence

import click

from harness.catalog import Catalog
from harness.cli.terminal import echo_error
from harness.host.machine import describe_machine, machine_slug
from harness.records.cells import Record
from harness.records.journal import each_record, find_journals, read_lines
from harness.records.roofline import Roof
from harness.speed.rates import Measured, collect

files_argument = click.argument(
    "files", nargs=-1, metavar="[FILES]...", type=click.Path(path_type=pathlib.Path)
)  # journals, or folders of them


def read_measured(journals: Sequence[pathlib.Path], catalog: Catalog) -> list[Measured]:
    """Every record with a number; damaged lines are told on stderr."""
    return collect(each_record(journals, echo_error), catalog)


def read_measured_and_roofs(journals: Sequence[pathlib.Path], catalog: Catalog) -> tuple[list[Measured], list[Roof]]:
    """Both at one reading, so that a damaged line is told once."""
    roofs: list[Roof] = []

    def cells() -> Iterator[Record]:
        for line in read_lines(journals, echo_error, ("result", "failure", "roofline")):
            if isinstance(line.content, Roof):
                roofs.append(line.content)
            elif isinstance(line.content, Record):
                yield line.content

    return collect(cells(), catalog), roofs


def read_roofs(journals: Sequence[pathlib.Path]) -> list[Roof]:
    """Every line of kind ``roofline``."""
    lines = read_lines(journals, echo_error, ("roofline",))
    return [line.content for line in lines if isinstance(line.content, Roof)]


def own_journals(results: pathlib.Path) -> list[pathlib.Path]:
    """The journals of this very machine."""
    return find_journals((), results / machine_slug(describe_machine()))
