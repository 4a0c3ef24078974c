"""Pictures: every kind, both themes, both formats, from published data and records; names in them are text."""

import dataclasses
import xml.etree.ElementTree as ElementTree

import pytest

from harness.errors import UsageError
from harness.records.roofline import Roof
from harness.sources.user_catalog import load_catalog
from harness.speed.published import load_machines
from harness.speed.rates import collect
from harness.speed.roofline import hold_against
from harness.speed.standings import measured_rows, published_rows, size_models
from harness.views.figures import speed as plots
from harness.views.figures.roofline import draw_roofline
from harness.views.figures.style import THEMES, add_legend, new_figure, to_bytes
from harness.views.formats import render
from harness.views.roofline import describe_roofline

from .test_bandwidth import made

CATALOG = load_catalog()


@pytest.fixture
def measured(recorded):
    """The recorded tests at three depths and three times."""
    records = []
    for record in recorded[:2]:
        for number in range(3):
            asked = dataclasses.replace(record.asked, n_depth=512 * number)
            records.append(dataclasses.replace(record, asked=asked))
            records.append(dataclasses.replace(record, time_utc=f"2026-12-0{number + 1}T00:00:00Z"))
    return collect(records, CATALOG)


def rows(measured):
    return [*published_rows(CATALOG), *measured_rows(measured, "tg")]


def roof(recorded):
    tests = (made(), made(type_name="Q4_0"), made(work="multiply"))
    return Roof("2026-01-01T00:00:00Z", recorded[0].machine, "0.1.0", recorded[0].build, tests)


def draw(kind, measured, recorded, theme):
    return {
        "machines": lambda: plots.draw_machines(rows(measured), "tg", theme),
        "size": lambda: plots.draw_sizes(rows(measured), size_models(rows(measured), measured, CATALOG), theme),
        "bandwidth": lambda: plots.draw_bandwidth(theme),
        "accuracy": lambda: plots.draw_accuracy(theme),
        "depth": lambda: plots.draw_depth(measured, theme),
        "history": lambda: plots.draw_history(measured, theme),
        "roofline": lambda: draw_roofline(roof(recorded), hold_against(measured, roof(recorded)), theme),
    }[kind]()


KINDS = ("machines", "size", "bandwidth", "accuracy", "depth", "history", "roofline")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("theme", THEMES)
def test_every_picture_is_drawn_in_its_theme(kind, theme, measured, recorded):
    figure = draw(kind, measured, recorded, theme)
    svg = to_bytes(figure, "svg").decode()
    ElementTree.fromstring(svg)
    assert THEMES[theme].background in svg
    # No text in the other theme's ink, which would not be seen.
    other = next(name for name in THEMES if name != theme)
    assert THEMES[other].ink not in svg
    assert "fill: #000000" not in svg.lower()


def test_png_is_a_png(measured, recorded):
    assert to_bytes(draw("machines", measured, recorded, "light"), "png").startswith(b"\x89PNG")


def test_every_machine_and_the_users_own_are_in_the_picture(measured, recorded):
    svg = to_bytes(draw("machines", measured, recorded, "light"), "svg").decode()
    for machine in load_machines():
        assert machine.name in svg
    assert "» AMD EPYC" in svg


def test_a_name_with_markup_or_formula_is_text(measured, recorded):
    bad = [dataclasses.replace(item, machine_label="<script>$x^2$ & co") for item in measured]
    for figure in (plots.draw_machines(rows(bad), "tg"), plots.draw_depth(bad), plots.draw_history(bad)):
        svg = to_bytes(figure, "svg").decode()
        root = ElementTree.fromstring(svg)
        assert "<script" not in svg
        assert any("<script>$x^2$ & co" in "".join(node.itertext()) for node in root.iter())


def test_a_line_by_depth_is_one_test_in_one_place(recorded):
    record = next(one for one in recorded if one.asked.n_prompt)
    here = dataclasses.replace(
        record, resolved=dataclasses.replace(record.resolved, layers_by_device={"CPU": 16, "RPC0": 15})
    )
    short = dataclasses.replace(record, asked=dataclasses.replace(record.asked, n_prompt=16, n_depth=64))
    with pytest.raises(UsageError, match="two depths"):
        plots.draw_depth(collect([record, short], CATALOG))
    deep = dataclasses.replace(here, asked=dataclasses.replace(here.asked, n_depth=64))
    drawn = to_bytes(plots.draw_depth(collect([record, here, deep], CATALOG)), "svg").decode()
    assert "16 CPU + 15 RPC0" in drawn
    assert f"pp{record.asked.n_prompt}" in drawn


def test_nothing_to_draw_is_a_sentence(recorded):
    once = collect(recorded, CATALOG)
    with pytest.raises(UsageError, match="-d 0,1024"):
        plots.draw_depth(once)
    with pytest.raises(UsageError, match="measured twice"):
        plots.draw_history(once)


def test_a_legend_of_nothing_is_left_out_without_a_warning(recwarn):
    figure, axis = new_figure()
    add_legend(axis)
    assert axis.get_legend() is None
    axis.plot([1, 2], label="something")
    add_legend(axis)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["something"]
    to_bytes(figure, "svg")
    assert not recwarn.list


def test_records_are_held_against_the_roof_of_their_device(measured, recorded):
    under = hold_against(measured, roof(recorded))
    assert {item.asked.test for item in under} >= {"pp64", "tg16", "tg16 @ d1024"}
    one = next(item for item in under if item.asked.test == "tg16")
    assert one.share == pytest.approx(one.rate_tok_per_s * one.bytes_per_token / 1e9)
    deep = next(item for item in under if item.asked.test == "tg16 @ d1024")
    assert deep.bytes_per_token - one.bytes_per_token == 1024 * 23040  # K and V in F16: 30 layers, 3 heads of 64


def test_a_share_above_the_roof_blames_the_roof(measured, recorded):
    low = dataclasses.replace(roof(recorded), tests=(made(duration=10**9), made(work="multiply")))
    assert "more than the roof" in render(describe_roofline(low, hold_against(measured, low)), "table")
    assert "more than the roof" not in render(describe_roofline(low, []), "table")
