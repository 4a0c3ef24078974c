"""Where records are read from: the files and folders that a command names, ``last`` and ``last~1``, else the results folder."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import click

from harness.catalog import Catalog
from harness.cli.terminal import echo_error
from harness.errors import UsageError
from harness.host.machine import describe_machine, machine_slug
from harness.records.journal import TOKEN_TIMES, each_record, read_lines
from harness.records.journal_files import find_journals
from harness.records.kept import Kept, summarize_line
from harness.records.trust import Trust
from harness.speed.rates import Measured, collect

files_argument = click.argument(
    "files", nargs=-1, metavar="[FILES]...", type=click.Path(path_type=pathlib.Path)
)  # journals, or folders of them


@dataclass(frozen=True)
class Chosen:
    """Records of one journal: the name by which commands take them, and whether they are all that the journal holds."""

    name: str
    path: pathlib.Path
    kept: Sequence[Kept]
    is_whole: bool


def choose_kept(
    names: Sequence[str], results: pathlib.Path, label: str = "", about: str = "", trust: Trust | None = None
) -> list[Chosen]:
    """The records that are meant, by journal: all, or those of names such as ``last``, a path, or ``last:3`` for one line of it, of
    which the label and what they are about have these texts in them, and that may be believed so far.

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
    steps = {path: step for step, path in enumerate(reversed(find_journals((), results)))}
    chosen = []
    for path in meant or find_journals((), results):
        everything = [summarize_line(line) for line in read_lines([path], echo_error, without=(TOKEN_TIMES,))]
        numbers = meant.get(path)
        kept = [
            one
            for one in everything
            if (not numbers or one.number in numbers)
            and label.lower() in one.label.lower()
            and (not about or one.is_about(about))
            and trust in (None, one.trust)
        ]
        name = str(path) if path not in steps else f"last~{steps[path]}" if steps[path] else "last"
        if kept:
            chosen.append(Chosen(name, path, kept, len(kept) == len(everything)))
    if names and not chosen and not (label or about or trust):
        raise UsageError(f"There is no record {', '.join(names)}; `harness list` shows what is kept.")
    return chosen


def read_measured(journals: Sequence[pathlib.Path], catalog: Catalog) -> list[Measured]:
    """Every record with a number; damaged lines are told on stderr."""
    return collect(each_record(journals, echo_error, without=(TOKEN_TIMES, "load", "dispatch_ns_per_token")), catalog)


def own_journals(results: pathlib.Path) -> list[pathlib.Path]:
    """The journals of this very machine."""
    return find_journals((), results / machine_slug(describe_machine()))
