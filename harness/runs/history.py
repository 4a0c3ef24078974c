"""`harness history`: the records of journals as series over time, each with its name, and only those that are wanted."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.errors import UsageError
from harness.records.history import Series, group_series, is_of_test
from harness.records.journal import DETAILS, each_record
from harness.records.journal_files import find_journals
from harness.sources.user_catalog import load_catalog
from harness.speed.model_names import ModelNames, file_of, name_stem, squeeze


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records are meant; empty: all.

    model is part of a model's name or of its file's, in capitals or not; test a test's name or kind; about part of the command, model,
    test or machine; since_utc a time as records have it, from which on they count.
    """

    model: str = ""
    test: str = ""
    about: str = ""
    since_utc: str = ""


@dataclass(frozen=True, slots=True)
class Named:
    """A series with what its model is called."""

    name: str
    series: Series


def read_history(
    files: Sequence[pathlib.Path], results: pathlib.Path, wanted: Wanted, warn: Callable[[str], None]
) -> list[Named]:
    """The series of journals, the one that was measured last at the end. Of each record its samples are let go as it is read.

    Raises
    ------
    UsageError : there is no such file, or no such record.
    """
    everything = group_series(each_record(find_journals(files, results), warn, without=DETAILS))
    names = ModelNames([file for series in everything if (file := file_of(series.latest))], load_catalog())
    named = [Named(names.of(file_of(series.latest)), series) for series in everything]
    found = [chosen for one in named if (chosen := _choose(one, wanted)) is not None]
    if not found:
        where = ", ".join(map(str, files)) or results
        raise UsageError(
            f"There is no such measured cell in {where}; `harness list` shows what is kept."
            if everything
            else f"There are no measured cells in {where}; run `harness pp-tg` first."
        )
    return found


def _choose(one: Named, wanted: Wanted) -> Named | None:
    """What of a series is wanted; None where nothing is."""
    if wanted == Wanted():
        return one
    record = one.series.latest
    called = (one.name, record.asked.file_name)
    meant = squeeze(name_stem(wanted.model.replace("\\", "/").rpartition("/")[2]))
    if not is_of_test(record, wanted.test) or not any(meant in squeeze(name) for name in called):
        return None
    told, about = "\n".join((record.asked.test, record.machine.cpu, *called)).lower(), wanted.about.lower()
    points = [
        point
        for point in one.series.points
        if point.time_utc >= wanted.since_utc and (about in told or about in point.command.lower())
    ]
    if len(points) == len(one.series.points):
        return one
    return Named(one.name, dataclasses.replace(one.series, points=tuple(points))) if points else None
