"""Documents: the same answer in every format, with the same names, within the page."""

from __future__ import annotations

import csv
import functools
import io
import json
import pathlib
import re

import click
import pytest
from click.testing import CliRunner

from harness.cli.output import output_options, show
from harness.errors import UsageError
from harness.records.journal import read_lines
from harness.sources.user_catalog import load_catalog
from harness.views import page
from harness.views.document import (
    Bar,
    Bars,
    Cell,
    Code,
    Column,
    Document,
    Figure,
    KeyFigures,
    Picture,
    Prose,
    Row,
    Section,
    Table,
)
from harness.views.figures.bars import pictures_of
from harness.views.figures.style import to_bytes
from harness.views.formats import format_names, render
from harness.views.grid import write_figures, write_table
from harness.views.report import Material, read_material
from harness.views.report.chapters import CHAPTERS
from harness.views.values import (
    BYTES,
    CHANGE,
    COUNT,
    DURATION,
    INTERVAL,
    MIB_ALONE,
    PARAMS,
    RATE,
    SETTING,
    SHARE,
    format_interval,
    format_value,
)

from .conftest import HERE

SPITEFUL = "<script>alert(1)</script> \x1b[31m=1+1| `x`"


def make_document(**changes):
    table = Table(
        "tests",
        [
            Column("test"),
            Column("rate", "t/s", RATE, interval=INTERVAL),
            Column("n_threads", "threads", shared="{} threads"),
            Column("secret", is_shown=False),
            Column("never"),
        ],
        [
            ["pp512", Cell(338.4, interval=(335.1, 339.0)), 2, 1, None],
            ["tg128", Cell(None, instead="failed", notes=("decode: out of memory", SPITEFUL)), 2, 2, None],
            Row([SPITEFUL, Cell(12e6, DURATION), 2, 3, None], depth=1),
            Row(["all", Cell(0.5, SHARE), 2, 4, None], is_total=True),
        ],
        notes=["How to read it."],
    )
    figures = KeyFigures(
        [Figure("load", "loaded in", 87e6, DURATION), Figure("n_layers", "", 16, phrase="{} layers")], True
    )
    named = KeyFigures([Figure("size", "its size", 3 * 1024**2, MIB_ALONE), Figure("none", "none", None)], name="about")
    sections = [
        Section("", [figures, table]),
        Section("more", [named, Prose(["One.", "Two."], is_list=True), Code(["ollama ps"])]),
    ]
    values = {"warnings": ["The machine was busy."], "data": {"deep": [{"a": 1}]}} | changes
    return Document("speeds", 3, f"a title {SPITEFUL}", sections, **values)


def test_text_says_once_what_all_rows_share():
    lines = render(make_document(), "table").split("\n")
    assert lines[2:5] == ["2 threads", "loaded in 87 ms · 16 layers", ""]
    assert [line.split() for line in lines[7:9]] == [
        ["pp512", "338.40", "335.10", "–", "339.00"],
        ["tg128", "failed", "[1,2]"],
    ]
    assert lines[9].startswith("  <script>")
    assert lines[10].split() == ["=", "all", "50.0", "%", "—"]


@pytest.mark.parametrize("width", [60, 80, 140])
def test_text_keeps_to_the_page(width):
    with page.of_width(width):
        assert max(map(len, render(make_document(), "table").split("\n"))) <= width


def test_json_has_units_in_its_names_and_what_is_shown_to_nobody():
    values = json.loads(render(make_document(), "json"))
    assert (values["schema"], values["kind"], values["warnings"]) == (3, "speeds", ["The machine was busy."])
    assert (values["load_ns"], values["about"], values["deep"]) == (
        87e6,
        {"size_bytes": 3145728, "none": None},
        [{"a": 1}],
    )
    assert values["tests"][0] == {
        "test": "pp512", "rate_tok_per_s": 338.4, "rate_low_tok_per_s": 335.1, "rate_high_tok_per_s": 339.0,
        "n_threads": 2, "secret": 1, "never": None, "notes": [],
    }  # fmt: skip
    assert values["tests"][1]["notes"] == ["decode: out of memory", SPITEFUL]


def test_lines_and_cells_have_the_names_of_json():
    rows = json.loads(render(make_document(), "json"))["tests"]
    lines = [json.loads(line) for line in render(make_document(), "jsonl").splitlines()]
    assert lines == [{"schema": 3, "kind": "speeds", **row} for row in rows]
    cells = list(csv.DictReader(io.StringIO(render(make_document(), "csv"))))
    assert cells[0]["rate_tok_per_s"] == "338.4"
    assert set(cells[0]) == {name for row in rows for name in row}


@pytest.mark.parametrize("form", format_names())
def test_nothing_from_outside_does_harm_in_any_format(form):
    text = render(make_document(), form)
    assert "\x1b" not in text
    assert form not in ("md", "html") or "<script>alert" not in text


def test_columns_are_left_out_where_the_page_is_too_narrow_and_that_is_said():
    columns = [Column("machine"), *(Column(f"m{n}", f"alongname{n}", RATE, left_out=n) for n in range(1, 9))]
    document = Document("machines", 1, "", [Section("", [Table("rows", columns, [["here", *range(100, 108)]])])])
    text = render(document, "table")
    assert text.split("\n")[0].split()[:2] == ["machine", "alongname1"]
    assert "left out for width: alongname7, alongname8 (" in text
    with page.of_width(200):
        assert "left out" not in render(document, "table")


def test_only_a_column_that_takes_room_is_left_out_for_width():
    shared, empty = Column("cpu", shared="{}", left_out=2), Column("none", left_out=3)
    wide = [Column("name"), *(Column(f"m{n}", f"alongname{n}", RATE, left_out=1) for n in range(8))]
    rows = [[name, "an EPYC", None, *range(100, 108)] for name in ("here", "there")]
    table = Table("rows", [wide[0], shared, empty, *wide[1:]], rows)
    text = render(Document("machines", 1, "", [Section("", [table])]), "table")
    assert text.split("\n")[0] == "an EPYC"
    assert "left out for width: alongname0" in text


def test_a_row_that_does_not_fit_its_table_is_refused():
    with pytest.raises(ValueError, match="tests"):
        Table("tests", [Column("a"), Column("b")], [[1]]).lines()


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, RATE, ""), (338.4, RATE, "338.40 t/s"), (0.1234, SHARE, "12.3 %"), (-0.00001, CHANGE, "0.0 %"),
        (0.05, CHANGE, "+5.0 %"), (True, None, "yes"), (True, SETTING, "on"), ((), SETTING, "auto"), ((1.0, 2.5), SETTING, "1/2.5"),
        (-2e6, DURATION, "-2 ms"), (3 * 1024**2, MIB_ALONE, "3.00 MiB"), ("word", RATE, "word"),
    ],
)  # fmt: skip
def test_values_have_one_spelling(value, unit, text):
    assert format_value(value, unit) == text


def test_the_unit_of_an_interval_is_said_once_where_it_is_the_same():
    assert format_interval(22.9e6, 23.34e6, DURATION) == "22.9 – 23.3 ms"
    assert format_interval(998e3, 1.2e6, DURATION) == "998 µs – 1.2 ms"
    assert format_interval(1.0, 2.0, RATE) == "1 – 2 t/s"


def test_any_table_of_figures_can_be_drawn():
    (picture,) = pictures_of(make_document())
    assert isinstance(picture, Picture)
    assert "pp512 338.40 t/s" in picture.alt
    assert b"<svg" in to_bytes(picture.draw("light"), "svg")
    assert pictures_of(Document("words", 1, "", [Section("", [Table("rows", [Column("a")], [["b"]])])])) == []


@click.command()
@click.argument("name")
@output_options("other")
@click.option("--loud", is_flag=True)
def command(name, loud, output):
    show(make_document(), output, {"other": lambda: f"{name} {loud}\n"})


def invoke(*words):
    result = CliRunner().invoke(command, list(words))
    return result.exit_code, result.output, result.exception


def test_every_command_takes_the_same_formats_and_its_own():
    assert invoke("me", "--loud", "-o", "other")[:2] == (0, "me True\n")
    code, text, _ = invoke("me", "-o", "json")
    assert (code, json.loads(text)["kind"]) == (0, "speeds")


def test_a_picture_is_drawn_beside_any_format_and_refused_before_the_work(tmp_path):
    code, _, _ = invoke("me", "-o", "csv", "--plot", str(tmp_path / "bars.svg"))
    assert (code, b"<svg" in (tmp_path / "bars.svg").read_bytes()) == (0, True)
    assert isinstance(invoke("me", "--plot", str(tmp_path / "bars.doc"))[2], UsageError)
    assert isinstance(invoke("me", "--plot", str(tmp_path / "no" / "bars.svg"))[2], UsageError)


def test_bars_are_drawn_by_the_page_itself_and_in_a_file():
    bars = Bars("Speeds", RATE, [Bar("one", 50.0, (40.0, 55.0)), Bar(SPITEFUL, 100.0)], "How to read it.")
    document = Document("speeds", 1, "t", [Section("", [bars])])
    page = render(document, "html")
    assert "width:50.0%" in page
    assert "left:40.0%;width:15.0%" in page
    assert "one 50.00 t/s" in page
    assert "<svg" not in page
    (picture,) = pictures_of(document)
    assert b"How to read it" not in to_bytes(picture.draw("light"), "svg")
    assert render(document, "table") == "t\n"


# --- every kind that is kept ------------------------------------------------------------------------------------------

RESULTS = sorted((pathlib.Path(__file__).parent.parent / "bench_results").rglob("*.jsonl"))


@functools.cache
def kept_documents():
    """Title of the chapter, and each of its documents, of the report over every journal in the repository."""
    lines = read_material(read_lines([*RESULTS, HERE / "recorded" / "pp-tg.jsonl"], lambda trouble: None))
    material = Material(lines, with_published=True, catalog=load_catalog())
    return [(title, document) for title, (make, _) in CHAPTERS.items() for document in make(material)]


@pytest.mark.parametrize("form", format_names())
@pytest.mark.parametrize("width", [60, 80, 200])
def test_every_kept_kind_is_written_in_every_format(form, width):
    if form != "table" and width != 80:
        pytest.skip("only text has a width")
    for title, document in kept_documents():
        with page.of_width(width):
            text = render(document, form)
        if form == "table":
            assert max(map(page.columns_of, text.split("\n"))) <= width, title
        if form == "json":
            values = json.loads(text)
            assert {"schema", "kind", "warnings"} <= set(values), title
        if form == "jsonl":
            assert [json.loads(line)["kind"] for line in text.splitlines()] == [document.kind] * text.count("\n")
        if form == "csv":
            assert len({len(row) for row in csv.reader(io.StringIO(text))}) <= 1, title


#: A size in decimal units (a rate such as GB/s, which is decimal everywhere, is none), and one in binary units.
DECIMAL, BINARY = re.compile(r"[0-9] [kMGT]B(?![\w/])"), re.compile(r"[0-9] [KMGT]iB\b")


def test_one_screen_has_one_system_of_sizes():
    for title, document in kept_documents():
        text = render(document, "table")
        assert not (DECIMAL.search(text) and BINARY.search(text)), f"{title}: {document.title}"
        assert not re.search(r"[0-9]%(?! [CG]PU)", text), f"{title}: {document.title}: a percentage is written 9 %"
        assert "(synthetic) (synthetic)" not in " ".join([text, *(p.alt for p in pictures_of(document))])


def test_a_note_of_every_row_is_said_once_without_a_number():
    rows = [[Cell(f"r{n}", notes=("everywhere", *["here"] * (n == 2)))] for n in range(5)]
    text = render(Document("x", 1, "", [Section("", [Table("rows", [Column("a")], rows)])]), "table")
    assert text.split("\n")[2:] == ["r0", "r1", "r2 [1]", "r3", "r4", "", "everywhere", "[1] here", ""]


def test_bars_are_named_by_words_stand_at_whole_binary_sizes_and_say_how_many_are_left_out():
    columns = [Column("type"), Column("tensors", unit=COUNT), Column("params", unit=PARAMS), Column("size", unit=BYTES)]
    rows = [["Q4_0", 112, 10**9, 522 * 2**20], *[["F32", 3, 10**6, 2**20]] * 59]
    (picture,) = pictures_of(Document("x", 1, "a model", [Section("", [Table("rows", columns, rows)])]))
    assert picture.alt.startswith("a model · size · the first 40 of 60: Q4_0 522.00 MiB; F32 1.00 MiB")
    (axis,) = picture.draw("light").axes
    assert [tick.get_text() for tick in axis.get_xticklabels()][1:4] == ["0.00 MiB", "128.00 MiB", "256.00 MiB"]


@pytest.mark.parametrize(("count", "said"), [(1, "1 thread"), (2, "2 threads"), (11, "11 threads")])
def test_one_of_a_thing_is_not_several(count, said):
    figures = KeyFigures([Figure("n_threads", "", count, phrase="{} threads")], in_line=True)
    table = Table("t", [Column("n_threads", "threads", shared="{} threads"), Column("rate")], [[count, 1], [count, 2]])
    assert write_figures(figures)[0] == [("", said)]
    assert write_table(table, share=True).shared == [said]
