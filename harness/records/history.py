"""One cell over time: every record of it in the order in which they were kept, and the stretches between which it changed.

A series is all records with one `cells.record_key`: the same machine, file and settings. A record that is not to be trusted stays in
its place and decides nothing. A change point is where the medians of the trusted records move by more than they scatter
(`harness.evidence.change_points`); between two of them lies a stretch.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.evidence.change_points import find_change_points
from harness.evidence.medians import Interval, median, median_interval
from harness.evidence.two_samples import Ratio, compare_samples
from harness.records.cell_verdict import judge_cell, mark
from harness.records.cells import Record, is_measured, record_key, without_samples
from harness.records.spread import bound
from harness.records.trust import Trust
from harness.units import NS_PER_S

#: What a row of a history may stand for.
Per = Literal["record", "day", "build"]
PER: tuple[Per, ...] = ("record", "day", "build")


#: A series is searched for changes in so many values: random orders of all of them are held at once.
MOST_VALUES = 1000


@dataclass(frozen=True, slots=True)
class Point:
    """What a history keeps of one record: a hundred thousand of these are held at once.

    commit is llama.cpp's, empty where it is not known; median_ns the median duration of the test, with its interval where there is one;
    is_trusted: its verdict lets it decide.
    """

    time_utc: str
    commit: str
    harness_version: str
    command: str
    median_ns: float
    interval_ns: tuple[float, float] | None
    is_trusted: bool


def condense(record: Record) -> Point | None:
    """What a history keeps of a record; None where it has no number."""
    if not is_measured(record):
        return None
    marked = mark(record)
    durations = [one.sample.duration_ns for one in marked]
    interval, verdict = bound(record, durations), judge_cell(record, marked)
    return Point(
        record.time_utc, record.build.commit if record.build else "", record.harness_version, record.command,
        median(durations), interval.ends if interval else None, verdict is None or verdict.trust is not Trust.NOT_TRUSTED,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stretch:
    """Records between two change points.

    first, last : places of its first and last trusted record among the series' points
    n_trusted   : how many of them decide
    median_ns   : the median of their medians, with its interval where they are six or more
    ratio       : of the rates, to the stretch before: above 1 is faster; None for the first
    """

    first: int
    last: int
    n_trusted: int
    median_ns: float
    interval_ns: Interval | None
    ratio: Ratio | None = None


@dataclass(frozen=True)
class Series:
    """All records of one cell on one machine, in the order of their journals; never empty.

    latest is the last of them without its samples: its settings are everybody's.
    """

    points: tuple[Point, ...]
    latest: Record

    @functools.cached_property
    def stretches(self) -> tuple[Stretch, ...]:
        """Where it stayed the same, in order: one where nothing changed, none where no record is to be trusted."""
        return find_stretches([(place, point.median_ns) for place, point in enumerate(self.points) if point.is_trusted])

    @functools.cached_property
    def changes(self) -> dict[int, Ratio]:
        """By the place of the first record after a change: the ratio of the rates."""
        return {stretch.first: stretch.ratio for stretch in self.stretches if stretch.ratio is not None}

    @property
    def n_backwards(self) -> int:
        """How often a record has an earlier time than the one before it: the clock was set back."""
        times = [point.time_utc for point in self.points]
        return sum(after < before for before, after in zip(times, times[1:], strict=False))

    def rate(self, median_ns: float) -> float:
        """Tokens a second of a duration."""
        return self.latest.asked.n_tokens * NS_PER_S / median_ns


def find_stretches(trusted: Sequence[tuple[int, float]]) -> tuple[Stretch, ...]:
    """Cut a series where it changed. trusted: (place, median duration) of the records that decide, in order."""
    values = [median_ns for _, median_ns in trusted]
    cuts = _find_cuts(values)
    stretches: list[Stretch] = []
    before: Sequence[float] = ()
    for begin, end in zip([0, *cuts], [*cuts, len(values)], strict=True):
        part = values[begin:end]
        if part:
            # Durations are the other way round than rates.
            ratio = compare_samples(part, before).ratio if before else None
            middle, interval = median(part), median_interval(part)
            stretches.append(Stretch(trusted[begin][0], trusted[end - 1][0], len(part), middle, interval, ratio))
            before = part
    return tuple(stretches)


def _find_cuts(values: Sequence[float]) -> list[int]:
    """Change points; in a long series of medians of neighbours, as many as it takes for `MOST_VALUES`."""
    size = -(-len(values) // MOST_VALUES)
    if size <= 1:
        return find_change_points(values)
    groups = [median(values[begin : begin + size]) for begin in range(0, len(values), size)]
    return [cut * size for cut in find_change_points(groups)]


def group_series(records: Iterable[Record]) -> list[Series]:
    """The series of records that come in the order of their journals, let go one by one; what was measured last comes last."""
    groups: dict[tuple[Any, ...], list[Point]] = {}
    latest: dict[tuple[Any, ...], tuple[int, Record]] = {}
    for place, record in enumerate(records):
        if (point := condense(record)) is not None:
            key = record_key(record)
            groups.setdefault(key, []).append(point)
            latest[key] = (place, without_samples(record))
    ordered = sorted(groups, key=lambda key: latest[key][0])
    return [Series(tuple(groups[key]), latest[key][1]) for key in ordered]


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring records taken together: those of one day or one build (`fold`), or one record by itself.

    median_ns and interval_ns are None where none of them is to be trusted; change is the ratio at the first change point inside.
    """

    points: tuple[Point, ...]
    median_ns: float | None
    interval_ns: tuple[float, float] | None
    change: Ratio | None

    @property
    def trusted(self) -> list[Point]:
        """Those that decide."""
        return [point for point in self.points if point.is_trusted]


def fold(series: Series, per: Per) -> list[Span]:
    """A series as rows: each record, or the neighbours of one day (UTC) or of one build together."""

    def key(place: int) -> Any:
        point = series.points[place]
        return place if per == "record" else point.time_utc[:10] if per == "day" else point.commit

    spans: list[list[int]] = []
    for place in range(len(series.points)):
        if spans and key(spans[-1][0]) == key(place):
            spans[-1].append(place)
        else:
            spans.append([place])
    return [_sum_up(series, places) for places in spans]


def _sum_up(series: Series, places: Sequence[int]) -> Span:
    points = tuple(series.points[place] for place in places)
    change = next((series.changes[place] for place in places if place in series.changes), None)
    if len(points) == 1:
        return Span(points, points[0].median_ns, points[0].interval_ns, change)
    medians = [point.median_ns for point in points if point.is_trusted]
    found = median_interval(medians) if medians else None
    return Span(points, median(medians) if medians else None, found.ends if found else None, change)


def is_of_test(record: Record, test: str) -> bool:
    """Whether it is of a test, by its name (``tg128``, at any depth, or ``tg128 @ d512``) or its kind (``tg``); empty: of any."""
    asked = record.asked
    return test.lower() in ("", asked.test.lower(), asked.test_without_depth.lower(), asked.kind)
