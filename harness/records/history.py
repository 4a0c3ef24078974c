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
from harness.records.cells import Record, is_measured, record_key
from harness.records.statistics import Digest, digest
from harness.units import NS_PER_S

#: What a row of a history may stand for.
Per = Literal["record", "day", "build"]
PER: tuple[Per, ...] = ("record", "day", "build")


#: A series is searched for changes in so many values: random orders of all of them are held at once.
MOST_VALUES = 1000


@dataclass(frozen=True, slots=True)
class Point:
    """One record of a series without its samples; is_trusted: its verdict lets it decide."""

    cell: Digest
    is_trusted: bool

    @property
    def record(self) -> Record:
        """What was measured, without samples."""
        return self.cell.record

    @property
    def commit(self) -> str:
        """llama.cpp's commit; empty where it is not known."""
        build = self.cell.record.build
        return build.commit if build else ""

    @property
    def median_ns(self) -> float:
        """The median duration of the test."""
        return self.cell.summary.median_ns


def condense(record: Record) -> Point | None:
    """What a history keeps of a record; None where it has no number."""
    if not is_measured(record):
        return None
    found = digest(record)
    return Point(found, not found.summary.is_distrusted)


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
    """All records of one cell on one machine, in the order of their journals; never empty."""

    points: tuple[Point, ...]

    @property
    def latest(self) -> Record:
        """The last of them, whose settings are everybody's."""
        return self.points[-1].record

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
        times = [point.record.time_utc for point in self.points]
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


def group_series(points: Iterable[Point]) -> list[Series]:
    """The series of points that are in the order of their journals; the one that was measured last comes last."""
    groups: dict[tuple[Any, ...], list[Point]] = {}
    latest: dict[tuple[Any, ...], int] = {}
    for place, point in enumerate(points):
        key = record_key(point.record)
        groups.setdefault(key, []).append(point)
        latest[key] = place
    return [Series(tuple(groups[key])) for key in sorted(groups, key=latest.__getitem__)]


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
        return place if per == "record" else point.record.time_utc[:10] if per == "day" else point.commit

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
        (point,), summary = points, points[0].cell.summary
        n_tokens = point.record.asked.n_tokens
        ends = None
        if summary.rate_low and summary.rate_high:
            ends = (n_tokens * NS_PER_S / summary.rate_high, n_tokens * NS_PER_S / summary.rate_low)
        return Span(points, point.median_ns, ends, change)
    medians = [point.median_ns for point in points if point.is_trusted]
    found = median_interval(medians) if medians else None
    return Span(points, median(medians) if medians else None, found.ends if found else None, change)


def is_about(point: Point, *, test: str = "", since_utc: str = "") -> bool:
    """Whether a record is of a test, by its name (``tg128``) or its kind (``tg``), and no older than a time."""
    asked = point.record.asked
    meant = test.lower() in ("", asked.test.lower(), asked.test_without_depth.lower(), asked.kind)
    return meant and point.record.time_utc >= since_utc
