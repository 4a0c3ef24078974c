"""Text from strangers does no harm wherever it is shown."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import sqlite3
import unicodedata
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.untrusted import harmless
from harness.views.cells import write_cells
from harness.views.figures.style import add_legend, new_figure, to_bytes

HARMFUL = {
    "a colour": "\x1b[31mred",
    "the screen cleared": "\x1b[2J\x1b[H",
    "a title set": "\x1b]0;evil\x07",
    "C1": "\x9b31m",
    "DEL": "a\x7fb",
    "right to left": "abc\u202egpj.exe",
    "an isolate": "\u2066a\u2069",
    "zero width": "a\u200bb\u2060c\ufeffd",
    "a tag": "a\U000e0041b",
    "half a surrogate pair": "name\udcff.gguf",
    "a backspace": "a\b\b\bb",
}


def harm_in(text: str) -> list[str]:
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t"]


@pytest.mark.parametrize("text", HARMFUL.values(), ids=HARMFUL.keys())
@pytest.mark.parametrize(
    "make",
    [harmless.line, harmless.lines, harmless.prose, harmless.markdown, harmless.markdown_sentence, harmless.csv_cell],
)
def test_nothing_that_does_harm_is_left(make, text):
    found = make(text)
    assert harm_in(found) == []
    assert len(found) >= len(text)
    found.encode("utf-8")


def test_a_line_is_one_line():
    assert harmless.line("a\nb\r\nc\u2028d\x85e\tf") == "a b c d e f"
    assert len(harmless.line("a\v\f\u2029b").splitlines()) == 1


def test_a_page_keeps_its_lines_and_its_letters():
    assert harmless.lines("pp512 – 3 µs\n\tnaïve 模型 é\u0301\n") == "pp512 – 3 µs\n\tnaïve 模型 é\u0301\n"
    assert len(harmless.lines("a\u2028b\x85c").splitlines()) == 1


def test_generated_text_keeps_lines_tabs_and_joined_letters():
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    persian = "می\u200cخواهم"
    assert harmless.prose(f"{family}\n\t{persian}\r\n") == f"{family}\n\t{persian}\n"
    assert harmless.prose("99 %\rdone") == "99 %done"


@given(st.text())
def test_json_loses_nothing(text):
    shown = harmless.json_text({text: [text]})
    assert harm_in(shown) == []
    assert json.loads(shown) == {text: [text]}


def test_json_keeps_what_does_no_harm():
    assert harmless.json_text({"a": "模型 – µ"}) == '{\n  "a": "模型 – µ"\n}'
    assert harmless.json_text("a\u202eb\x9bc\udcff", indent=None) == '"a\\u202eb\\u009bc\\udcff"'


@pytest.mark.parametrize("text", ["a|b", "a\\|b", "<img src=x>", "`code`", "a\nb", "![x](http://t/)", "[x](http://t/)"])
def test_markdown_shows_a_name_as_text(text):
    found = harmless.markdown(text)
    assert "\n" not in found
    assert "<" not in found
    assert "](" not in found
    bare = found.replace("\\\\", "")
    for mark in "|`":
        assert bare.count(mark) == bare.count("\\" + mark)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("in it; `harness ab` measures both.", "in it; `harness ab` measures both."),
        ("Every `harness pp-tg -np 1,2,4,8` adds.", "Every `harness pp-tg -np 1,2,4,8` adds."),
        ("`harness pull a_b:q4_0`, a|b", "`harness pull a_b:q4_0`, a\\|b"),
        ("`harnessed`, `rm x`", "\\`harnessed\\`, \\`rm x\\`"),
        ("`harness pull <b>`", "\\`harness pull &lt;b>\\`"),
        ("$`harness ab`$", "\\$\\`harness ab\\`\\$"),
        ("``harness ab``", "\\`\\`harness ab\\`\\`"),
        ("\\`harness ab`", "\\\\\\`harness ab\\`"),
        ("evil` `harness ab` `", "evil\\` `harness ab` \\`"),
    ],
)
def test_a_command_of_ours_is_code_in_a_sentence_and_nothing_else_is(text, shown):
    assert harmless.markdown_sentence(text) == shown
    assert "`" not in harmless.markdown(text).replace("\\`", "")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("x")', "\t=1"])
def test_a_cell_of_csv_is_no_formula(text):
    stream = io.StringIO()
    csv.writer(stream, quoting=csv.QUOTE_ALL).writerow([harmless.csv_cell(text)])
    (found,) = next(csv.reader(io.StringIO(stream.getvalue())))
    assert not found.lstrip().startswith(("=", "+", "-", "@"))


def test_names_and_numbers_in_csv_stay_as_they_are():
    for text in ("llama 1B Q4_0", "AMD EPYC", "/models/a.gguf", "", "0.5"):
        assert harmless.csv_cell(text) == text


@given(st.text())
def test_sql_reads_back_what_was_written(text):
    (found,) = sqlite3.connect(":memory:").execute(f"SELECT {harmless.sql_text(text)}").fetchone()
    assert found == harmless.lines(text)


def test_a_picture_of_any_name_is_a_drawing():
    pytest.importorskip("matplotlib")
    name = "m\x1b[31m\x00\udcff\u202e<b>&\u2028"
    for form in ("svg", "png"):
        figure, axis = new_figure()
        axis.plot([1, 2], [1, 2], label=name)
        axis.set_yticks([1, 2], [name, name])
        axis.set_title(name)
        axis.set_xlabel(name)
        axis.annotate(name, (1, 1))
        add_legend(axis)
        data = to_bytes(figure, form)
        if form == "svg":
            assert ElementTree.fromstring(data) is not None
            assert harm_in(data.decode("utf-8")) == []


@pytest.mark.parametrize("name", ["table", "md", "csv", "json", "jsonl", "sql"])
@pytest.mark.parametrize("text", [*HARMFUL.values(), "a|b<c>`d`\ne", "=1+1"], ids=[*HARMFUL, "markup", "a formula"])
def test_an_export_of_any_name_can_be_shown_and_read(name, text, recorded):
    record = recorded[0]
    model = dataclasses.replace(record.model, description=text, file_name=text)
    other = dataclasses.replace(record, model=model, asked=dataclasses.replace(record.asked, model=f"/models/{text}"))
    shown = write_cells([other, record], name)
    assert harm_in(shown) == []
    if name == "md":
        rows = [line for line in shown.splitlines() if line.startswith("|")]
        assert len(rows) == 4
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
        assert "<" not in shown
    if name == "csv":
        first, second = list(csv.DictReader(io.StringIO(shown)))
        assert not first["model_type"].startswith(("=", "+", "-", "@"))
        assert second["model_type"] == record.model.description
    if name in ("json", "jsonl"):
        read = json.loads(shown if name == "json" else shown.splitlines()[0])
        assert (read[0] if name == "json" else read)["model_type"] == text
