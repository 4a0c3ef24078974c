"""A cell's history: series, stretches between changes, what is not to be trusted, and how it is shown."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.errors import HarnessError
from harness.host.machine import machine_slug
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Sample
from harness.records.history import fold, group_series
from harness.records.journal import Journal
from harness.runs.history import Named
from harness.views.figures.style import to_bytes
from harness.views.formats import render
from harness.views.history import describe_history

from .conftest import HERE

BUSY = Caution(CautionCause.BUSY_MACHINE, distrust=True, cpus_lost=1.5, n_cpus=2, n_threads=2)
OLD, NEW = "0c1e570", "9f2d4aa"


@pytest.fixture(scope="module")
def tg16(recorded):
    return next(record for record in recorded if record.asked.n_gen == 16 and record.timed)


def remember(record, duration_ns, place, *, commit=OLD, is_busy=False, seed=1, time=None):
    """The record as it would be of another day: ten repetitions that scatter by 1 % around a duration."""
    draw = random.Random(1000 * seed + place)
    samples = tuple(Sample(round(duration_ns * draw.gauss(1, 0.01)), None, (), is_warmup=False) for _ in range(10))
    return dataclasses.replace(
        record, samples=samples, time_utc=time or f"2026-{1 + place // 28:02}-{1 + place % 28:02}T12:00:00Z",
        build=dataclasses.replace(record.build, ggml_commit=commit), warnings=(BUSY,) if is_busy else (),
        harness_version="0.1.0",
    )  # fmt: skip


def series_of(records):
    (series,) = group_series(records)
    return series


def stepped(record, n=20, step_at=10, ratio=1.06):
    """The second half takes longer, with another build."""
    return [
        remember(record, 1e8 * (ratio if place >= step_at else 1), place, commit=NEW if place >= step_at else OLD)
        for place in range(n)
    ]


def test_a_step_is_a_change_with_its_ratio(tg16):
    series = series_of(stepped(tg16))
    first, last = series.stretches
    assert abs(last.first - 10) <= 1
    assert list(series.changes) == [last.first]
    assert last.ratio.low <= 1 / 1.06 <= last.ratio.high
    assert last.ratio.value == pytest.approx(1 / 1.06, abs=0.01)
    assert series.rate(first.median_ns) > series.rate(last.median_ns)


@pytest.mark.parametrize("seed", range(10))
def test_noise_alone_is_no_change(tg16, seed):
    series = series_of([remember(tg16, 1e8, place, seed=seed + 5) for place in range(24)])
    assert (len(series.stretches), series.changes) == (1, {})
    assert series.stretches[0].n_trusted == 24


def test_what_is_not_to_be_trusted_decides_nothing_and_keeps_its_place(tg16):
    records = [
        remember(tg16, 3e8 if place in (4, 5, 6, 7, 8) else 1e8, place, is_busy=4 <= place <= 8) for place in range(20)
    ]
    series = series_of(records)
    assert len(series.points) == 20
    assert series.changes == {}
    (only,) = series.stretches
    assert (only.first, only.last, only.n_trusted) == (0, 19, 15)
    shown = render(describe_history([Named("m", series)]), "table")
    assert shown.count("!") == 6  # five rows and the note
    assert "decides nothing" in shown


def test_none_to_be_trusted_is_said(tg16):
    series = series_of([remember(tg16, 1e8, place, is_busy=True) for place in range(3)])
    assert series.stretches == ()
    assert "No record of it is to be trusted." in render(describe_history([Named("m", series)]), "table")


def test_one_record_is_no_history_yet(tg16):
    shown = render(describe_history([Named("m", series_of([remember(tg16, 1e8, 0)]))]), "table")
    assert "no history yet" in shown


def test_another_setting_or_test_is_another_series_and_the_latest_is_last(tg16):
    other = dataclasses.replace(tg16, asked=dataclasses.replace(tg16.asked, type_k="q8_0"))
    more = dataclasses.replace(tg16, asked=dataclasses.replace(tg16.asked, repetitions=3))
    records = [remember(one, 1e8, place) for place, one in enumerate((tg16, other, more))]
    found = group_series(records)
    assert [len(series.points) for series in found] == [1, 2]


def test_the_order_is_that_of_the_journals_where_the_clock_was_set_back(tg16):
    records = stepped(tg16)
    records[10] = dataclasses.replace(records[10], time_utc="2020-01-01T00:00:00Z")
    series = series_of(records)
    assert series.n_backwards == 1
    assert abs(series.stretches[-1].first - 10) <= 1
    assert "set back once" in " ".join(describe_history([Named("m", series)]).warnings)


@pytest.mark.parametrize(("per", "n_rows"), [("record", 20), ("day", 20), ("build", 2)])
def test_records_are_taken_together(tg16, per, n_rows):
    spans = fold(series_of(stepped(tg16)), per)
    assert len(spans) == n_rows
    assert sum(len(span.points) for span in spans) == 20
    if per == "build":
        old, new = spans
        assert old.interval_ns[0] < 1e8 < old.interval_ns[1]
        assert new.median_ns / old.median_ns == pytest.approx(1.06, abs=0.01)
        assert new.change is not None


@pytest.mark.parametrize("name", ["history.table", "history.json", "history-build.table"])
def test_output_is_the_golden_one(tg16, name):
    records = stepped(tg16, n=12, step_at=6)
    records[3] = remember(tg16, 2e8, 3, is_busy=True)
    document = describe_history(
        [Named("smollm2:135m Q4_1", series_of(records))], "build" if "build" in name else "record"
    )
    shown = render(document, name.partition(".")[2])
    golden = HERE / "golden" / name
    assert shown == golden.read_text(encoding="utf-8")
    assert max(map(len, shown.splitlines())) <= 80 or name.endswith("json")


def test_many_series_are_a_row_each(tg16):
    found = []
    for number in range(6):
        one = dataclasses.replace(tg16, asked=dataclasses.replace(tg16.asked, n_depth=64 * number))
        found.append(
            Named("smollm2:135m Q4_1", series_of([remember(one, 1e8, place, seed=number) for place in range(3)]))
        )
    shown = render(describe_history(found), "table")
    assert "tg16 @ d320" in shown
    assert "-m and --test" in shown
    assert len(json.loads(render(describe_history(found), "json"))["records"]) == 18


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_can_be_drawn(tg16, theme):
    from harness.views.figures.history import draw_history

    picture = to_bytes(draw_history(series_of(stepped(tg16)), "smollm2:135m · tg16", theme), "svg").decode()
    assert OLD in picture
    assert NEW in picture
    assert "median between changes" in picture


@pytest.fixture
def kept(tmp_path, tg16):
    """Three journals of a machine: 4, 4 and 4 records, with another test in the last."""
    records = stepped(tg16, n=12, step_at=6)
    for begin in (0, 4, 8):
        with Journal(tmp_path / machine_slug(tg16.machine), "pp-tg") as journal:
            for record in records[begin : begin + 4]:
                journal.append(record)
            journal.append(
                dataclasses.replace(records[begin], asked=dataclasses.replace(tg16.asked, n_prompt=8, n_gen=0))
            )
    return tmp_path


def run(kept, *words):
    done = CliRunner().invoke(cli, ["history", *words, "--results", str(kept)])
    if done.exception and not isinstance(done.exception, SystemExit):
        assert isinstance(done.exception, HarnessError), done.exception
        done.exit_code = done.exception.outcome
    return done


@pytest.mark.parametrize(
    ("words", "n_records"),
    [
        ((), 15), (("--test", "tg16"), 12), (("--test", "PP"), 3), (("-m", "smollm2:135m"), 15), (("-m", "SmolLM2-135M"), 15),
        (("--since", "2026-01-07"), 7), (("--since", "2026-01-12T12:00:00Z", "--test", "tg"), 1), (("--about", "epyc"), 15),
    ],
)  # fmt: skip
def test_what_is_wanted_is_chosen(kept, words, n_records):
    done = run(kept, *words, "-o", "json")
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["records"]) == n_records


@pytest.mark.parametrize("words", [("-m", "llama9"), ("--test", "tg17"), ("--since", "2027-01-01")])
def test_nothing_of_that_kind_is_said(kept, words):
    done = run(kept, *words)
    assert done.exit_code == 2
    assert "no such measured cell" in str(done.exception)


@pytest.mark.parametrize("form", ["table", "md", "csv", "json", "jsonl", "html"])
def test_every_format_is_written(kept, form):
    assert run(kept, "-o", form).exit_code == 0


def test_a_date_that_is_none_is_refused(kept):
    assert run(kept, "--since", "yesterday").exit_code == 2
