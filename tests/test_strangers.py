"""Records of strangers: whatever stands in any of their texts, no command that shows them does harm, in no format.

Every text of every line of real journals is replaced as far as the line can still be read; then each command that reads records is run
on them in each of its formats.
"""

from __future__ import annotations

import copy
import csv
import html.parser
import io
import json
import re
import sqlite3
import unicodedata

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.errors import HarnessError
from harness.records.bench_terms import TABLE
from harness.records.journal import read_lines
from harness.records.kinds import KINDS, read_line, to_json
from harness.sources.user_catalog import load_catalog
from harness.untrusted import harmless
from harness.views.formats import render
from harness.views.report import Material, read_material
from harness.views.report.chapters import CHAPTERS
from tests.places import strings_of, with_value

from .conftest import HERE
from .gguf_bytes import HeaderBytes
from .kind_files import settings, tensors, tokenizer

JOURNALS = HERE.parent / "bench_results" / "amd-epyc-2c-24g"
#: Escape sequences, a mark that turns the direction, line ends, markup, a link, SQL, and a beginning that spreadsheets calculate.
SPITEFUL = "=1+1\x1b[31m\x1b]0;title\x07\u202e\u2028\x85<script>alert(1)</script><img src=x onerror=alert(1)>](x)'; DROP TABLE llama_bench;--|`$x_2$`"
FORMATS = ("table", "md", "csv", "json", "jsonl", "html")


def spoil(line):
    """A line with every text replaced of which the line may still be read, and how many these are."""
    spoilt, n_spoilt = copy.deepcopy(line), 0
    for path in strings_of(line):
        tried = with_value(spoilt, path, SPITEFUL)
        try:
            is_kept = read_line(json.loads(json.dumps(tried))).content is not None
        except (HarnessError, ValueError):
            is_kept = False
        if is_kept:
            spoilt, n_spoilt = tried, n_spoilt + 1
    if layers := (spoilt.get("resolved") or {}).get("layers_by_device"):
        spoilt["resolved"]["layers_by_device"] = {SPITEFUL: sum(layers.values())}
    return spoilt, n_spoilt


def lines_of(pattern, n=2):
    """The first lines of the latest such journal."""
    path = sorted(JOURNALS.glob(f"{pattern}.jsonl"))[-1]
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file][:n]


@pytest.fixture(scope="module")
def journals(tmp_path_factory, recorded):
    """Two journals with a spoilt line of every kind that was ever kept here, and a spoilt file that was shared."""
    folder = tmp_path_factory.mktemp("strangers")
    lines = [to_json(record) for record in recorded]
    lines += [{**to_json(record), "command": "sweep"} for record in recorded[:2]]
    for pattern in ("*overhead*", "*roofline*", "*time-ledger*", "*-parity*", "*-sweep*", "*-pp-tg*"):
        lines += lines_of(pattern)
    # Short runs of the commands that no journal is kept of.
    lines += map(json.loads, (HERE / "strangers" / "kinds.jsonl").read_text(encoding="utf-8").splitlines())
    spoilt, counts = zip(*map(spoil, [{**line, "label": "l"} for line in lines]), strict=True)
    assert min(counts) >= 4, "a text of each line can be anything"
    for name in ("20261124T000000Z-a.jsonl", "20261125T000000Z-b.jsonl"):
        # Bare, as others write it: our own escapes.
        (folder / name).write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in spoilt), "utf-8")
    shared = {
        "harness_share": 1, "harness_version": SPITEFUL,
        "machines": [{"cpu": SPITEFUL[:110], "n_cores_physical": 1, "n_cores_logical": 1, "memory_bytes": 2**30}],
        "builds": [],
        "speeds": [
            {"machine": 0, "model": SPITEFUL[at:110], "test": SPITEFUL[:90], "test_kind": "tg", "rate_tok_per_s": 1.0,
             "n_samples": 6, "trust": "quiet", "day": SPITEFUL[:90], "quantization": SPITEFUL[:90], "device": device}
            for at, device in ((0, None), (1, SPITEFUL[:90]))
        ],
    }  # fmt: skip
    (folder / "friends").mkdir()
    (folder / "friends" / f"a{SPITEFUL[4:12]}b.json".replace("/", "")).write_text(json.dumps(shared), "utf-8")
    return folder


def harm_in(text):
    return sorted({c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t"})


#: Attributes that a browser follows or runs; in others text is text.
RUNS = ("href", "src", "style", "action", "srcset", "xlink:href")


class Page(html.parser.HTMLParser):
    """What a browser would run or load."""

    def __init__(self, text):
        super().__init__()
        self.found, self._inside = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self._inside = tag
        self.found += [
            f"{tag} {name}"
            for name, value in attributes
            if name.startswith("on") or (name in RUNS and "alert(1)" in (value or ""))
        ]

    def handle_data(self, data):
        if self._inside in ("script", "style") and "alert(1)" in data:
            self.found.append(self._inside)

    def handle_endtag(self, tag):
        self._inside = ""


def is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def check(text, form):
    """What a format must not hold."""
    assert harm_in(text) == []
    if form == "html":
        assert Page(text).found == []
    elif form == "md":
        text = "".join(re.split(r"(?ms)^(```+)\n.*?^\1\n", text)[::2])  # code is as it is
        assert "<script" not in text
        assert "<img" not in text
        assert "](x)" not in text.replace("\\](x)", "")
    elif form == "csv":
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        assert [cell for cell in cells if cell.lstrip().startswith(("=", "+", "-", "@")) and not is_number(cell)] == []
    elif form in ("json", "jsonl"):
        for part in text.splitlines() if form == "jsonl" else [text]:
            json.loads(part)


def run(*words):
    done = CliRunner().invoke(cli, list(map(str, words)))
    if done.exception and not isinstance(done.exception, SystemExit):
        assert isinstance(done.exception, HarnessError), done.exception
    return done


COMMANDS = {
    "list": ("list", "{a}"),
    "list of runs": ("list",),
    "table": ("table", "{a}"),
    "table of prompts": ("table", "{a}", "--test", "pp"),
    "table of others": ("table", "{friends}", "--no-published"),
    "history": ("history", "{a}", "{b}"),
    "compare": ("compare", "{a}", "{b}"),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_does_harm_in_any_format(name, form, journals):
    places = {
        "a": journals / "20261124T000000Z-a.jsonl",
        "b": journals / "20261125T000000Z-b.jsonl",
        "friends": journals / "friends",
    }
    words = [word.format(**places) for word in COMMANDS[name]]
    done = run(*words, "-o", form, "--results", journals)
    assert done.exit_code in (0, 5), done.output
    assert done.stdout.strip()
    check(done.stdout, form)
    check(done.stderr, "table")


def test_nor_does_benchstat(journals):
    done = run(
        "compare", journals / "20261124T000000Z-a.jsonl", journals / "20261125T000000Z-b.jsonl", "-o", "benchstat"
    )
    check(done.stdout, "table")


def test_nor_does_a_report(journals, tmp_path):
    page = tmp_path / "page.html"
    done = run("report", journals, "-o", page, "--results", journals)
    assert done.exit_code == 0, done.output
    check(page.read_text(encoding="utf-8"), "html")
    check(done.output, "table")


def test_nor_does_a_file_to_be_shared(journals, tmp_path):
    done = run("report", journals, "--share", tmp_path / "mine.json", "--results", journals)
    assert done.exit_code == 0, done.output
    check((tmp_path / "mine.json").read_text(encoding="utf-8"), "json")
    check(run("table", tmp_path / "mine.json", "--results", journals).stdout, "table")


@pytest.mark.parametrize("form", ["csv", "json", "jsonl", "sql", "md", "table", "html"])
def test_nor_does_an_export_of_cells(form, recorded):
    from harness.views.cells import write_cells

    records = [read_line(spoil(to_json(record))[0]).content for record in recorded]
    text = write_cells(records, form)
    check(text, form)
    if form == "sql":
        database = sqlite3.connect(":memory:")
        database.executescript(text)
        assert database.execute(f"SELECT count(*) FROM {TABLE}").fetchone() == (2,)
        (name,) = database.execute(f"SELECT model_filename FROM {TABLE} LIMIT 1").fetchone()
        assert "DROP TABLE" in name


def test_the_texts_are_spoilt(journals):
    """The test itself: what is shown comes from the spoilt lines."""
    text = run("list", journals / "20261124T000000Z-a.jsonl", "-o", "json", "--results", journals).stdout
    assert "alert(1)" in text


# --- headers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def header(tmp_path_factory):
    """A model whose header says what it likes wherever it may say anything."""
    made = settings(HeaderBytes(), "llama")
    for name in (
        "name",
        "author",
        "organization",
        "license",
        "description",
        "basename",
        "finetune",
        "size_label",
        "url",
    ):
        made.add(f"general.{name}", "str", SPITEFUL)
    made.add(f"general.{SPITEFUL}", "str", SPITEFUL).add("tokenizer.chat_template", "str", SPITEFUL)
    made.add("tokenizer.ggml.pre", "str", SPITEFUL).add_array("general.tags", "str", [SPITEFUL] * 3)
    tensors(tokenizer(made)).add_tensor(f"blk.0.{SPITEFUL[:40]}.weight", "F32", 64)
    path = tmp_path_factory.mktemp("header") / "a.gguf"
    path.write_bytes(made.build(data=True))
    return path


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "words",
    [("inspect", "{}"), ("overhead", "-m", "{}", "--predict-only"), ("predict", "-m", "{}", "--machine", "M4 Pro")],
)
def test_no_header_does_harm_in_any_format(words, form, header, tmp_path):
    done = run(
        *[word.format(header) for word in words],
        "-o",
        form,
        *(() if words[0] == "inspect" else ("--results", tmp_path)),
    )
    assert done.exit_code == 0, (done.output, done.exception)
    check(done.stdout, form)
    check(done.stderr, "table")


def test_lines_of_nearly_every_kind_are_spoilt(journals):
    kinds = {json.loads(line)["kind"] for line in open(journals / "20261124T000000Z-a.jsonl", encoding="utf-8")}
    assert set(KINDS) - kinds <= {"ollama-comparison"}


@pytest.mark.parametrize("form", FORMATS)
def test_no_document_of_any_kind_does_harm(form, journals):
    """What a command shows of what it measured is the document that the report has of it."""
    lines = read_material(read_lines([journals / "20261124T000000Z-a.jsonl"], pytest.fail))
    material = Material(lines, made_utc="2026-11-28T12:00:00Z", harness_version="0.1", catalog=load_catalog())
    shown = [document for make, _ in CHAPTERS.values() for document in make(material)]
    assert len(shown) > 10
    for document in shown:
        check(harmless.lines(render(document, form)), form)  # as cli/terminal.show writes it
