"""Where records are read from: the files and folders that a command names, else the results folder."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import click

from harness.catalog import Catalog
from harness.cli.terminal import echo_error
from harness.host.machine import describe_machine, machine_slug
from harness.records.journal import each_record, find_journals, read_lines
from harness.records.roofline import Roof
from harness.speed.rates import Measured, collect

files_argument = click.argument(
    "files", nargs=-1, metavar="[FILES]...", type=click.Path(path_type=pathlib.Path)
)  # journals, or folders of them


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
