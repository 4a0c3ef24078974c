"""`harness history`: the records of journals as series over time, each with its name, and only those that are wanted."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.errors import UsageError
from harness.records.history import Point, Series, condense, group_series, is_about
from harness.records.journal import each_record, find_journals
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
    journals = find_journals(files, results)
    points = [point for record in each_record(journals, warn) if (point := condense(record))]
    names = ModelNames([file for point in points if (file := file_of(point.record))], load_catalog())
    found = [Named(names.of(file_of(series.latest)), series) for series in group_series(_choose(points, names, wanted))]
    if not found:
        where = ", ".join(map(str, files)) or results
        raise UsageError(
            f"There is no such measured cell in {where}; `harness list` shows what is kept."
            if points
            else f"There are no measured cells in {where}; run `harness pp-tg` first."
        )
    return found


def _choose(points: Sequence[Point], names: ModelNames, wanted: Wanted) -> list[Point]:
    meant = squeeze(name_stem(wanted.model.replace("\\", "/").rpartition("/")[2]))

    def is_wanted(point: Point) -> bool:
        if not is_about(point, test=wanted.test, since_utc=wanted.since_utc):
            return False
        record = point.record
        called = (names.of(file_of(record)), record.asked.file_name)
        told = "\n".join((record.command, record.asked.test, record.machine.cpu, *called)).lower()
        return wanted.about.lower() in told and any(meant in squeeze(name) for name in called)

    return list(filter(is_wanted, points))
