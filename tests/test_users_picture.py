"""The picture of many users: a line a test and model, each number of users once, in two panels of what all and each of them get."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import pytest

from harness.errors import UsageError
from harness.records.statistics import digest
from harness.views.cells import describe_cells
from harness.views.document import Bars, Picture
from harness.views.figures.style import to_bytes
from harness.views.figures.users import describe_series, draw_users, find_series
from tests.measured import draw, with_durations


def cells(recorded, counts=(1, 2, 4), **asked):
    """Generations of 32 tokens of so many users, each step of which takes as long however many there are."""
    return [
        with_durations(recorded[0], draw(10**9), n_prompt=0, n_gen=32, n_parallel=count, **asked) for count in counts
    ]


def series_of(records):
    return find_series([digest(record) for record in records], lambda record: record.asked.file_name)


def test_cells_that_differ_by_the_users_alone_are_a_line(recorded):
    records = [*cells(recorded), *cells(recorded, type_k="q8_0"), *cells(recorded, (2,), n_depth=64)]
    series = series_of(records)
    assert list(series) == [("tg", "tg32, type_k f16"), ("tg", "tg32, type_k q8_0")], "one number of users is no line"
    [line, _] = series.values()
    assert [one.record.asked.n_parallel for one in line] == [1, 2, 4]


def test_a_single_user_begins_the_line_of_a_shared_prompt_too(recorded):
    records = [*cells(recorded, (1, 2), n_depth=8), *cells(recorded, (4,), n_depth=8, is_prompt_shared=True)]
    lines = {name: [one.record.asked.n_parallel for one in line] for (_, name), line in series_of(records).items()}
    assert lines == {"tg32 @ d8": [1, 2], "tg32 @ d8 shared": [1, 4]}


def test_prompt_and_generation_as_one_test_have_panels_of_their_own(recorded):
    both = [with_durations(recorded[0], draw(10**9), n_prompt=8, n_gen=8, n_parallel=n) for n in (1, 2)]
    figure = draw_users(series_of(both))
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        "Prompt and generation, t/s of all users", "Prompt and generation, t/s of each user",
    ]  # fmt: skip


def test_of_a_cell_that_was_repeated_the_one_that_speaks_is_drawn(recorded):
    records = cells(recorded)
    again = dataclasses.replace(records[1], time_utc="2027-01-01T00:00:00Z")
    [line] = series_of([*records, again]).values()
    assert [one.record.time_utc for one in line].count("2027-01-01T00:00:00Z") == 1
    assert len(line) == 3


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_panels_show_what_there_is(recorded, theme):
    prompts = [with_durations(recorded[0], draw(10**9), n_prompt=64, n_gen=0, n_parallel=n) for n in (1, 3)]
    figure = draw_users(series_of([*cells(recorded), *prompts]), theme)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == [
        "Prompts, t/s of all users", "Prompts, t/s of each user", "Generation, t/s of all users", "Generation, t/s of each user",
    ]  # fmt: skip
    total, each = (axis.lines[0].get_ydata() for axis in figure.axes[2:])
    assert list(total) == pytest.approx([32, 64, 128], rel=0.01)
    assert list(each) == pytest.approx([32, 32, 32], rel=0.01)
    ElementTree.fromstring(to_bytes(figure, "svg"))


def test_a_run_over_users_is_drawn_as_that(recorded):
    document = describe_cells(cells(recorded))
    [picture] = document.blocks(Picture)
    assert picture.name == "users"
    assert not list(document.blocks(Bars))
    assert list(describe_cells(cells(recorded, (4,))).blocks(Bars)), "a single number of users is bars, as ever"
    assert list(describe_cells(cells(recorded), is_kept=True).blocks(Bars)), "what was kept has a chapter of its own"
    said = describe_series(series_of(cells(recorded)))
    assert "1 user 32" in said
    assert "2 users 64" in said


def test_nothing_to_draw_says_what_to_run(recorded):
    with pytest.raises(UsageError, match="-np 1,2,4,8"):
        draw_users(series_of(cells(recorded, (1,))))
