"""Where records are read from: the files and folders that a command names, ``last`` and ``last~1``, else the results folder."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click

from harness.catalog import Catalog
from harness.cli.terminal import echo_error
from harness.errors import UsageError
from harness.host.machine import describe_machine, machine_slug
from harness.records.cells import Record
from harness.records.journal import each_record, journal_order, read_lines
from harness.records.kept import Kept, summarize_line
from harness.records.roofline import Roof
from harness.speed.rates import Measured, collect

files_argument = click.argument(
    "files", nargs=-1, metavar="[FILES]...", type=click.Path(path_type=pathlib.Path)
)  # journals, or folders of them


def find_journals(files: Sequence[pathlib.Path], results: pathlib.Path) -> list[pathlib.Path]:
    """The journals that are meant: named ones, all in named folders, all in the results folder where none is named; the oldest first.

    ``last`` is this machine's latest in the results folder, or anybody's where it has none, and ``last~1`` the one before.

    Raises
    ------
    UsageError : a named file or folder does not exist, or a named folder holds no journal.
    """
    if not files:
        return sorted(results.rglob("*.jsonl"), key=journal_order) if results.is_dir() else []
    files = [path if path.exists() else _find_last(path, results) for path in files]
    found: dict[pathlib.Path, None] = {}
    for path in files:
        if not path.exists():
            raise UsageError(f"There is no file or folder {path}; name journals (.jsonl) or a folder of them.")
        inside = list(path.rglob("*.jsonl")) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"There are no journals (.jsonl) in {path}; `harness pp-tg` writes some.")
        found |= dict.fromkeys(inside)
    return sorted(found, key=journal_order)


def _find_last(name: pathlib.Path, results: pathlib.Path) -> pathlib.Path:
    """The journal that ``last`` and the like mean; any other name as it is."""
    match = re.fullmatch(r"last(?:~(\d+))?", str(name))
    if match is None:
        return name
    journals, steps = recent_journals(results), int(match[1] or 0)
    if steps >= len(journals):
        raise UsageError(f"{name} is not there: {len(journals)} journals are kept in {results}.")
    return journals[-1 - steps]


def recent_journals(results: pathlib.Path) -> list[pathlib.Path]:
    """The journals that ``last`` counts from the end of."""
    return own_journals(results) or find_journals((), results)


@dataclass(frozen=True)
class Chosen:
    """Records of one journal: the name by which commands take them, and whether they are all that the journal holds."""

    name: str
    path: pathlib.Path
    kept: Sequence[Kept]
    is_whole: bool


def choose_kept(names: Sequence[str], results: pathlib.Path, label: str = "", about: str = "") -> list[Chosen]:
    """The records that are meant, by journal: all, or those of names such as ``last``, a path, or ``last:3`` for one line of it, of
    which the label and what they are about have these texts in them.

    Raises
    ------
    UsageError : a name means nothing.
    """
    lines = {name: re.fullmatch(r"(.+):(\d+)", name) for name in names if not pathlib.Path(name).exists()}
    meant: dict[pathlib.Path, set[int]] = {}
    for name in names:
        match = lines.get(name)
        for path in find_journals([pathlib.Path(match[1] if match else name)], results):
            meant.setdefault(path, set()).update([int(match[2])] if match else [])
    steps = {path: step for step, path in enumerate(reversed(recent_journals(results)))}
    chosen = []
    for path in meant or find_journals((), results):
        everything = [summarize_line(line) for line in read_lines([path], echo_error)]
        numbers = meant.get(path)
        kept = [
            one
            for one in everything
            if (not numbers or one.number in numbers)
            and label.lower() in one.label.lower()
            and (not about or one.is_about(about))
        ]
        name = str(path) if path not in steps else f"last~{steps[path]}" if steps[path] else "last"
        if kept:
            chosen.append(Chosen(name, path, kept, len(kept) == len(everything)))
    if names and not chosen and not (label or about):
        raise UsageError(f"There is no record {', '.join(names)}; `harness list` shows what is kept.")
    return chosen


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
