"""Cells over time as a Document: a table each, or a row each where they are many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.evidence.two_samples import Ratio
from harness.records.history import Per, Point, Series, Span, Stretch, fold
from harness.runs.history import Named
from harness.spec import NAMED_IN_TEST, find_varied
from harness.units import format_count
from harness.views.document import (
    Block,
    Cell,
    Column,
    Document,
    Line,
    Picture,
    Prose,
    RowsWhenAsked,
    Section,
    Table,
    for_programs,
)
from harness.views.figures.history import draw_history
from harness.views.settings import format_settings
from harness.views.values import CHANGE, COUNT, FINE_RATIO, INTERVAL, MINUTE, RATE, format_interval

#: More series than this get a row each; of more pictures nobody makes sense.
MOST_TABLES, MOST_PICTURES = 4, 8

#: The latest rows of a series that people see; programs get all.
MOST_ROWS = 40

#: Behind what is not to be trusted.
_MARK = "!"
_MARK_NOTE = "! not to be trusted: it decides nothing here."

_TIMES: dict[Per, str] = {"record": "when (UTC)", "day": "day (UTC)", "build": "since (UTC)"}


def describe_history(found: Sequence[Named], per: Per = "record") -> Document:
    """Series over time: the rate of each row, and each stretch between changes with its ratio to the one before."""
    titled = list(zip(found, _title(found), strict=True))
    repeated = [(one, title) for one, title in titled if len(one.series.points) > 1]
    sections: list[Section] = []
    if len(repeated) <= MOST_TABLES:
        sections += [Section(title, list(_show_series(one.series, per))) for one, title in repeated]
    else:
        sections.append(Section("", [_show_summaries(repeated), Prose([_HOW_TO_SEE_ONE])]))
    if note := _note_singles(len(found), len(repeated)):
        sections.append(Section("", [Prose([note])]))
    pictures: list[Block] = [
        Picture(
            lambda theme, one=one, title=title: draw_history(one.series, title, theme),  # type: ignore[misc]
            f"{title} over time; the table has its figures",
            name=f"{number + 1}" if number else "",
        )
        for number, (one, title) in enumerate(repeated[-MOST_PICTURES:])
    ]
    sections.append(Section("", [*pictures, *_list_for_programs(titled, per)]))
    return Document("history", 1, "", sections, list(_warn(found)), main="records")


_HOW_TO_SEE_ONE = "-m and --test show fewer, and then each of their records."


def _note_singles(n_found: int, n_repeated: int) -> str:
    n_singles = n_found - n_repeated
    if not n_singles:
        return ""
    if n_repeated:
        cells = "1 other cell was" if n_singles == 1 else f"{n_singles} other cells were"
        return f"{cells} measured once: no history yet."
    cells = "This cell was" if n_singles == 1 else f"Each of these {n_singles} cells was"
    return f"{cells} measured once: no history yet. Every `harness pp-tg` adds to it."


def _warn(found: Sequence[Named]) -> Iterator[str]:
    if n_backwards := sum(one.series.n_backwards for one in found):
        times = "once" if n_backwards == 1 else f"{n_backwards} times"
        yield f"The clock was set back {times} between records; they are in the order in which they were kept."


def _title(found: Sequence[Named]) -> list[str]:
    """What tells each series from the others: model, test, threads, what else differs, and the machine where there are several."""
    varied = [name for name in find_varied(one.series.latest.asked for one in found) if name not in NAMED_IN_TEST]
    several = len({one.series.latest.machine for one in found}) > 1
    titles = []
    for one in found:
        record = one.series.latest
        parts = [one.name, record.asked.test, format_settings(record.asked, varied)]
        parts += [record.machine.cpu] * several
        titles.append(" · ".join(filter(None, parts)))
    return titles


def _show_series(series: Series, per: Per) -> Iterator[Block]:
    spans = fold(series, per)
    is_cut = len(spans) > MOST_ROWS
    shown = spans[-MOST_ROWS:]
    versions = {point.harness_version for point in series.points}
    notes = [_MARK_NOTE] if any(not span.trusted for span in shown) else []
    if is_cut:
        notes.append(f"The latest {MOST_ROWS} of {len(spans)}; -o csv has all.")
    if any(0 < len(span.trusted) < len(span.points) for span in shown):
        notes.append("left out: records that are not to be trusted.")
    columns = [
        Column("time_utc", _TIMES[per], MINUTE, align="l"),
        Column("build"),
        *([Column("harness_version", "harness")] if len(versions) > 1 else []),
        *([] if per == "record" else [Column("n_trusted", "records", COUNT), Column("n_left_out", "left out", COUNT)]),
        Column("rate", "t/s", RATE, interval=INTERVAL),
        Column("change", "change", CHANGE),
    ]
    rows = [_row(series, span, per, with_version=len(versions) > 1) for span in shown]
    yield Table("rows", columns, rows, notes, missing="", is_for_people=True)
    yield from _show_stretches(series)


def _row(series: Series, span: Span, per: Per, *, with_version: bool) -> Line:
    first = span.points[0]
    time = first.time_utc
    n_left_out = len(span.points) - len(span.trusted)
    rate = Cell(instead="—")
    if span.median_ns is not None:
        rate = Cell(
            series.rate(span.median_ns), None, _rates(series, span.interval_ns), mark="" if span.trusted else _MARK
        )
    return [
        time[:10] if per == "day" else Cell(time),
        _builds(span),
        *([first.harness_version] if with_version else []),
        *([] if per == "record" else [len(span.trusted), n_left_out or None]),
        rate,
        None if span.change is None else span.change.value - 1,
    ]


def _builds(span: Span) -> str:
    """The build, or the first and the last of a day."""
    commits = list(dict.fromkeys(point.commit or "?" for point in span.points))
    return commits[0] if len(commits) == 1 else f"{commits[0]}–{commits[-1]}"


def _rates(series: Series, interval_ns: tuple[float, float] | None) -> tuple[float, float] | None:
    """An interval of durations as one of rates, the lower end first."""
    return None if interval_ns is None else (series.rate(interval_ns[1]), series.rate(interval_ns[0]))


def _show_stretches(series: Series) -> Iterator[Block]:
    """What stayed the same, and by how much it then changed; a sentence where nothing did."""
    stretches = series.stretches
    if not stretches:
        yield Prose(["No record of it is to be trusted."])
    elif len(stretches) == 1:
        (only,) = stretches
        yield Prose(
            [
                f"No change found over {format_count(only.n_trusted, 'trusted record')}: {_describe_stretch(series, only)}."
            ]
        )
    else:
        columns = [
            Column("since_utc", "stretch since", MINUTE, align="l"), Column("n_trusted", "trusted", COUNT),
            Column("rate", "t/s", RATE, interval=INTERVAL), Column("ratio", "to the one before", FINE_RATIO),
        ]  # fmt: skip
        rows: list[Line] = [
            [
                Cell(series.points[one.first].time_utc),
                one.n_trusted,
                _stretch_rate(series, one),
                _ratio(one.ratio),
            ]
            for one in stretches
        ]
        yield Table("stretches", columns, rows, missing="", is_for_people=True)


def _stretch_rate(series: Series, stretch: Stretch) -> Cell:
    ends = stretch.interval_ns.ends if stretch.interval_ns else None
    return Cell(series.rate(stretch.median_ns), None, _rates(series, ends))


def _ratio(ratio: Ratio | None) -> Cell:
    if ratio is None:
        return Cell()
    return Cell(ratio.value, interval=ratio.ends)


def _describe_stretch(series: Series, stretch: Stretch) -> str:
    rate = RATE.form(series.rate(stretch.median_ns))
    ends = _rates(series, stretch.interval_ns.ends if stretch.interval_ns else None)
    return f"median {rate} t/s" + (f", {INTERVAL} {format_interval(*ends, RATE, with_sign=False)}" if ends else "")


def _show_summaries(rows: Sequence[tuple[Named, str]]) -> Table:
    """A row a series: from when to when, the first and the last stretch, what changed in between."""
    columns = [
        Column("cell", wraps=True), Column("n_records", "records", COUNT, left_out=2),
        Column("first_utc", "first", left_out=3), Column("last_utc", "last", left_out=1),
        Column("first", "t/s first", RATE), Column("last", "t/s last", RATE), Column("n_changes", "changes", COUNT),
        Column("change", "last one", CHANGE),
    ]  # fmt: skip
    lines: list[Line] = []
    for one, title in rows:
        series, stretches = one.series, one.series.stretches
        ends = [series.rate(stretches[place].median_ns) for place in (0, -1)] if stretches else [None, None]
        mark = "" if stretches else _MARK
        change = next(reversed(series.changes.values()), None)
        lines.append([
            Cell(title, mark=mark), len(series.points), series.points[0].time_utc[:10], series.latest.time_utc[:10],
            *ends, len(series.changes), None if change is None else change.value - 1,
        ])  # fmt: skip
    notes = ["t/s: the medians of the first and the last stretch between changes; the last change by its ratio."]
    if any(not one.series.stretches for one, _ in rows):
        notes.append("! none of its records is to be trusted.")
    return Table("cells", columns, lines, notes, missing="", is_for_people=True)


def _list_for_programs(titled: Sequence[tuple[Named, str]], per: Per) -> tuple[Table, Table]:
    """What programs get of all series: every row, and every stretch."""

    def rows(one: Named, title: str) -> Iterator[Line]:
        series, record = one.series, one.series.latest
        about = (title, one.name, record.asked.file_name, record.asked.test, record.machine.cpu)
        for span in fold(series, per):
            rate = None if span.median_ns is None else series.rate(span.median_ns)
            first, last = span.points[0], span.points[-1]
            counts = (len(span.points), len(span.trusted))
            told = Cell(rate, RATE, _rates(series, span.interval_ns))
            yield [*about, first.time_utc, _builds(span), last.harness_version, *counts, told, _ratio(span.change)]

    names = ("cell", "model", "file", "test", "machine")
    records = Table(
        "records",
        [
            *for_programs(*names, "time_utc", "build", "harness_version", "n_records", "n_trusted"),
            Column("rate", unit=RATE, is_shown=False), Column("change_ratio", is_shown=False),
        ],
        RowsWhenAsked(lambda: [row for one, title in titled for row in rows(one, title)]),
    )  # fmt: skip
    stretches = Table(
        "stretches",
        [
            *for_programs("cell", "since_utc", "until_utc", "n_trusted"), Column("rate", unit=RATE, is_shown=False),
            Column("ratio", is_shown=False),
        ],
        RowsWhenAsked(lambda: [
            [
                title, _time(one.series.points[stretch.first]), _time(one.series.points[stretch.last]), stretch.n_trusted,
                _stretch_rate(one.series, stretch), _ratio(stretch.ratio),
            ]
            for one, title in titled
            for stretch in one.series.stretches
        ]),
    )  # fmt: skip
    return records, stretches


def _time(point: Point) -> str:
    return point.time_utc
