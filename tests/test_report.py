"""The report: what it says, that it says it safely, and that a browser shows it and sorts it."""

from __future__ import annotations

import dataclasses
import html
import json
import os
import pathlib
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from harness.codec import encode
from harness.gguf.header import BytesSource, read_header
from harness.gguf.reads import count_reads
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Conditions, Failure
from harness.records.journal import read_lines
from harness.records.kinds import KINDS, Line, read_line, to_json
from harness.records.roofline import Roof
from harness.records.statistics import summarize
from harness.records.text import Figures, TextRun, TextSettings
from harness.records.trust import Trust
from harness.records.verdict import JUDGED, JUDGES, judge
from harness.sources.user_catalog import load_catalog
from harness.speed.machines import known_machines
from harness.speed.prediction import Question, cost_of_entry, predict_by_bandwidth
from harness.units import format_duration
from harness.views.document import Column, Document, Picture, Prose, Section, Table
from harness.views.drawing import to_svg
from harness.views.formats import render
from harness.views.report import Material, read_material, render_report, speeds
from harness.views.report.chapters import CHAPTERS
from harness.views.report.material import CONDENSED, condense
from harness.views.values import RATE

from .gguf_bytes import llama_like
from .test_bandwidth import made
from .test_cli import harness, one_sentence
from .test_time_arithmetic import build_ledger, make_raw

EVIL = """<script>document.title = "broken into"</script>"'&amp;--><b>$x_2$"""


def material(values, troubles=()):
    lines = read_material(read_line(json.loads(json.dumps(value))) for value in values)
    return Material(lines, troubles, ["a.jsonl"], "2026-11-24T12:00:00Z", "0.1")


def with_rate(record, factor, **model):
    """The same cell, so many times as fast."""
    samples = tuple(
        dataclasses.replace(sample, duration_ns=round(sample.duration_ns / factor)) for sample in record.samples
    )
    return dataclasses.replace(record, samples=samples, model=dataclasses.replace(record.model, **model))


@pytest.fixture
def measured(recorded):
    return [record for record in recorded if record.failure is None]


@pytest.fixture
def text_run(measured):
    figures = Figures(2 * 10**9, 10**8, 30, 3 * 10**8, 100, 10**9, 4 * 10**8)
    return TextRun(
        "run", "2026-11-24T12:00:00Z", measured[0].machine, "0.1", {}, "hash", figures, "stop", model=measured[0].model
    )


def one_block(block):
    return Document("test", 1, "t", [Section("s", [block])])


class Text(HTMLParser):
    """The text of a page, its tags, and its attributes."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.tags, self.attributes = [], [], []
        self._inside = []
        self.feed(page)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self._inside.append(tag)

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self._inside):
            self.texts.append(data)


def test_the_summary_says_what_there_is(recorded):
    page = Text(render_report(material(map(to_json, recorded))))
    assert "This page shows 2 measured cells of 1 model on 1 machine." in page.text
    assert "Prompts went in at up to" in page.text
    assert "Text came out at up to" in page.text
    assert "1 cell failed" in page.text
    assert "Failures" in page.text


def test_the_quickest_is_named_with_its_interval(measured):
    slow, quick = (
        with_rate(measured[0], 1),
        with_rate(measured[0], 3, file_name="quick model.gguf", file_sha256="0" * 64),
    )
    page = Text(render_report(material(map(to_json, [slow, quick]))))
    (sentence,) = re.findall(r"Prompts went in at up to [^:]*: [^.]*\.", page.text)
    assert "quick model" in sentence
    assert "95 % interval" in sentence


def test_the_quickest_is_of_one_user_where_there_is_one(measured):
    alone, together = (
        dataclasses.replace(
            with_rate(measured[0], rate), asked=dataclasses.replace(measured[0].asked, n_parallel=count)
        )
        for rate, count in ((1, 1), (3, 4))
    )
    both, one = (
        Text(render_report(material(map(to_json, records)))).text for records in ([alone, together], [together])
    )
    assert not re.search(r"Prompts went in at up to [^:]*: pp\d+ x4", both)
    assert re.search(r"Prompts went in at up to [^:]*: pp\d+ x4", one)


def test_the_quickest_is_told_with_its_devices_and_doubts(measured):
    resolved = dataclasses.replace(measured[0].resolved, layers_by_device={"CPU": 1, "CUDA0": 30})
    busy = dataclasses.replace(
        measured[0], resolved=resolved, warnings=(Caution(CautionCause.BUSY_MACHINE, "busy", distrust=True),)
    )
    assert "layers: 1 CPU + 30 CUDA0; not to be trusted." in Text(render_report(material([to_json(busy)]))).text
    plain_text = Text(render_report(material([to_json(measured[0])]))).text
    assert "layers: " not in plain_text
    assert "not to be trusted." not in plain_text


def test_every_kind_has_its_section_and_an_empty_one_is_left_out(measured, text_run):
    page = Text(render_report(material([to_json(measured[0])])))
    assert "Texts" not in page.text
    page = Text(render_report(material([to_json(measured[0]), to_json(text_run)])))
    assert "Texts" in page.text
    assert "100.00" in page.text, "100 tokens in a second"


def test_a_kind_without_a_section_is_named(measured):
    other = {"schema": 1, "kind": "not-heard-of", "machine": to_json(measured[0])["machine"]}
    page = Text(render_report(material([to_json(measured[0]), other, other])))
    assert "Not shown: 2 lines of kind not-heard-of" in page.text


def test_a_section_is_one_function_and_one_line(measured, monkeypatch):
    monkeypatch.setitem(
        CHAPTERS, "Mine", (lambda all_of_it: [one_block(Prose([f"{len(all_of_it.of('mine'))} of mine"]))], ("mine",))
    )
    mine = {"schema": 1, "kind": "mine", "machine": to_json(measured[0])["machine"]}
    page = Text(render_report(material([mine])))
    assert "1 of mine" in page.text
    assert "Not shown" not in page.text


def test_cautions_are_footnotes_and_warnings(measured):
    busy = dataclasses.replace(
        measured[0], warnings=(Caution(CautionCause.BUSY_MACHINE, "busy as a bee", distrust=True),)
    )
    page = Text(render_report(material([to_json(busy)])))
    assert page.text.count("busy as a bee") == 2
    assert "[1]" in page.text
    assert "1 figure is not to be trusted" in page.text


def test_synthetic_figures_are_marked(measured):
    page = Text(render_report(material([to_json(with_rate(measured[0], 1, is_synthetic=True))])))
    assert "(synthetic)" in page.text
    assert "random weights" in page.text


def test_an_offload_sweep_is_a_section(measured):
    cells = []
    for layers in (0, 10, 31):
        by_device = {"CPU": 31 - layers, "CUDA0": layers} if layers else {"CPU": 31}
        cells.append(
            dataclasses.replace(
                with_rate(measured[1], 1 + layers),
                asked=dataclasses.replace(measured[1].asked, n_gpu_layers=layers),
                resolved=dataclasses.replace(measured[1].resolved, layers_by_device=by_device),
            )
        )
    page = Text(render_report(material(map(to_json, cells))))
    assert "Layers on the GPU" in page.text
    assert "layers on the device (-ngl)" in page.text
    assert "21 CPU + 10 CUDA0" in page.text


def test_the_same_machine_after_an_update_is_one(measured):
    later = dataclasses.replace(measured[0], machine=dataclasses.replace(measured[0].machine, os="Linux 99"))
    other = dataclasses.replace(measured[0], machine=dataclasses.replace(measured[0].machine, n_cores_physical=77))
    one = material(map(to_json, [measured[0], later]))
    assert len(one.machines) == 1
    assert "Linux 99" in Text(render_report(one)).text
    assert "77 cores" in Text(render_report(material(map(to_json, [measured[0], other])))).text


def evil_records(measured, text_run):
    machine = dataclasses.replace(measured[0].machine, cpu=EVIL)
    record = dataclasses.replace(
        with_rate(measured[0], 1, description=EVIL, file_name=EVIL),
        machine=machine,
        warnings=(Caution(CautionCause.SENTENCE, EVIL),),
    )
    failure = dataclasses.replace(record, samples=(), failure=Failure(EVIL, EVIL, "refused", log=(EVIL,)))
    run = dataclasses.replace(
        text_run, machine=machine, model=record.model, warnings=(Caution(CautionCause.SENTENCE, EVIL),)
    )
    return [
        to_json(record),
        to_json(failure),
        to_json(run),
        {"schema": 1, "kind": EVIL, "machine": to_json(record)["machine"]},
    ]


def test_what_records_hold_is_text(measured, text_run):
    page = render_report(material(evil_records(measured, text_run), troubles=[EVIL]))
    parsed = Text(page)
    assert parsed.tags.count("script") == 1, "the page's own"
    assert "b" not in parsed.tags
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]
    assert 'document.title = "broken into"' in parsed.text
    assert "$x_2$" in page, "and a dollar sign is no formula"


def test_nothing_is_fetched(measured):
    page = Text(render_report(material(map(to_json, measured))))
    links = [
        value for name, value in page.attributes if name in ("src", "href", "xlink:href", "srcset", "data", "poster")
    ]
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert "default-src 'none'" in dict(page.attributes)["content"] or any(
        "default-src 'none'" in str(v) for _, v in page.attributes
    )


def test_the_same_records_give_the_same_page(measured):
    values = [to_json(record) for record in measured]
    assert render_report(material(values)) == render_report(material(values))


def test_pictures_do_not_share_ids(measured):
    page = render_report(material(map(to_json, measured)))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for used in re.findall(r"url\(#([^)]+)\)", page) + re.findall(r'xlink:href="#([^"]+)"', page):
        assert used in ids


def test_a_picture_that_is_more_than_a_drawing_is_refused():
    class Figure:
        axes = ()

        def findobj(self, _kind):
            return []

        def savefig(self, stream, **_):
            stream.write(b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>')

    with pytest.raises(ValueError, match="script"):
        to_svg(Figure(), "a")


# --- what stands beside the records -----------------------------------------------------------------------------------


def beside(measured, lines=(), **extra):
    """Material with the models of the catalog recognised."""
    found = material([*map(to_json, measured), *lines])
    return dataclasses.replace(found, catalog=load_catalog(), **extra)


def test_records_stand_under_the_latest_roof(measured):
    old = Roof(
        "2026-01-01T00:00:00Z",
        measured[0].machine,
        "0.1",
        measured[0].build,
        (made(duration=10**9), made(work="multiply")),
    )
    new = dataclasses.replace(
        old,
        time_utc="2026-02-01T00:00:00Z",
        tests=(made(), made(work="multiply")),
        warnings=(Caution(CautionCause.BUSY_MACHINE, "busy roof"),),
    )
    page = Text(render_report(beside(measured, [to_json(old), to_json(new)])))
    best = new.best("read", "CPU")
    assert f"{best.rate_per_s / 1e9:.1f} GB/s" in page.text
    assert f"{old.best('read', 'CPU').rate_per_s / 1e9:.1f} GB/s" not in page.text
    assert "operations for each byte" in page.text, "the picture"
    assert "busy roof" in page.text
    above = Text(render_report(beside(measured, [to_json(old)])))
    assert "more than the roof" in above.text


def test_memory_ledgers_have_every_line_and_the_sum(measured):
    row = {
        "cause": "KV cache",
        "device": "CPU",
        "predicted_bytes": 2**20,
        "measured_bytes": 3 * 2**20,
        "resident_bytes": None,
        "error": 2,
    }
    line = {
        "schema": 1, "kind": "overhead", "machine": to_json(measured[0])["machine"], "model": "a model", "is_synthetic": True,
        "n_ctx": 777, "asked": {"n_gpu_layers": 3}, "ledger": [row], "warnings": ["mind the gap"],
        "steps": [{"rss_bytes": 2 * 2**20}, {"rss_bytes": 5 * 2**20}],
    }  # fmt: skip
    page = Text(render_report(material([line])))
    assert "a model (synthetic)" in page.text
    assert "context 777" in page.text
    assert "KV cache 1.00 3.00 -66.67 %" in page.text
    assert "process, all touched 1.00 5.00 -80.00 % 5.00" in page.text
    assert "mind the gap" in page.text


def memory_line(measured, **changes):
    row = {
        "cause": "KV cache",
        "device": "CPU",
        "predicted_bytes": 2**20,
        "measured_bytes": 2**20,
        "resident_bytes": 2**20,
    }
    return {
        "schema": 1, "kind": "overhead", "machine": to_json(measured[0])["machine"], "model": "a model", "n_ctx": 512,
        "asked": {"n_gpu_layers": 0, "type_k": "q8_0", "repack": False}, "ledger": [row], "warnings": [],
        "totals": {}, "steps": [{"rss_bytes": 7 * 2**20}], "time_utc": "2026-11-24T12:00:00Z", **changes,
    }  # fmt: skip


def test_of_the_same_question_the_latest_ledger_is_shown(measured):
    new = memory_line(measured, time_utc="2026-11-25T12:00:00Z")
    page = Text(render_report(material([memory_line(measured), memory_line(measured, n_ctx=4096), new])))
    assert page.text.count("K q8_0") == page.text.count("repack off") == 2, "what is not the usual is told"
    assert "2026-11-25 12:00" in page.text
    assert "1 older one of the same is left out" in page.text
    assert "the interpreter's 7.00 MiB besides" in page.text


def time_line(measured, **changes):
    """A line as `harness overhead --time` writes it, with the bytes of a header."""
    header = read_header(BytesSource(llama_like().build()))
    raw = json.loads(json.dumps(make_raw()))
    asked = {**raw["asked"], "spec": {**raw["asked"]["spec"], "n_threads": 3}}
    return {
        **raw, "schema": 1, "kind": "time-ledger", "machine": to_json(measured[0])["machine"], "time_utc": "2026-11-24T12:00:00Z",
        "asked": asked, "model": {"file_name": "tiny.gguf", "is_synthetic": True}, "remarks": ["depth 9 is left out"],
        "cautions": [{"code": "busy-machine", "text": "busy as an ant", "distrust": True}],
        "reads": encode(count_reads(header, asked["cache_types"])), "roof_bytes_per_s": 5e9,
        "resolved": {
            **to_json(measured[0])["resolved"], "flash_attn": True, "layers_by_device": {"CPU": 3}, "repacked_bytes": 0,
        }, **changes,
    }  # fmt: skip


def test_a_time_ledger_has_parts_operations_cache_loads_and_the_gap(measured):
    line = time_line(measured)
    page = Text(render_report(material([line])))
    ledger = build_ledger(line, read_header(BytesSource(llama_like().build())), 5e9)
    assert "Not shown" not in page.text
    assert "tiny (synthetic)" in page.text
    for depth in ledger.depths:
        assert f"{format_duration(depth.bare.median_ns)}" in page.text
    operation = next(one for one in ledger.depths[-1].operations if one.bandwidth_bytes_per_s)
    shown = (
        f"{operation.touched_bytes / 1e6:.2f} {operation.bandwidth_bytes_per_s / 1e9:.2f} {operation.roof_share:.1%}"
    )
    assert f"{operation.share:.1%} {shown}".replace("%", " %") in page.text
    for words in (
        "a whole token",
        "one more token in the cache adds",
        "create_completion(stream=True)",
        "depth 9 is left out",
    ):
        assert words in page.text
    assert "ms a generated token" in page.text, "the picture"
    assert page.text.count("busy as an ant") == 2, "at the ledger and among the warnings"


@pytest.mark.parametrize(
    "missing", ["blocks", "loads", "applications", "reads", "roof_bytes_per_s", "resolved", "cautions"]
)
def test_a_time_ledger_that_was_interrupted_is_shown_as_far_as_it_goes(measured, missing):
    line = {name: value for name, value in time_line(measured).items() if name != missing}
    page = Text(render_report(material([line])))
    assert "A token's time" in page.text
    assert ("of roof" in page.text) == (missing not in ("roof_bytes_per_s", "blocks"))


def test_bars_say_what_ran_and_show_the_latest_of_the_same(measured):
    old, new = with_rate(measured[0], 1), with_rate(measured[0], 2)
    here = render_report(material([to_json(old), to_json(new)]))
    assert here.count(f"{summarize(old).rate_tok_per_s:.2f}") > 0
    (alt,) = re.findall(r'aria-label="(Prompt processing:[^"]*)"', here)
    assert f"{summarize(new).rate_tok_per_s:.2f}" in alt
    assert f"{summarize(old).rate_tok_per_s:.2f}" not in alt


def test_a_server_s_address_is_no_part_of_the_engine(measured):
    build = dataclasses.replace(measured[0].build, backends=("CPU", "RPC[127.0.0.1:50052]", "RPC[other:1]"))
    page = Text(render_report(material([to_json(dataclasses.replace(measured[0], build=build))])))
    assert ", RPC" in page.text
    assert "RPC[" not in page.text


def test_measured_machines_stand_among_published_ones(measured):
    page = Text(render_report(beside(measured, with_published=True)))
    assert "Among published machines" in page.text
    assert "RTX 3060 Ti" in page.text
    assert f"» {measured[0].machine.cpu}" in page.text
    without = Text(render_report(beside(measured)))
    assert "Among published machines" not in without.text


def test_predictions_are_marked_as_such(measured):
    catalog = load_catalog()
    cost, _ = cost_of_entry(catalog.find("llama3.1:8b"), "Q4_0")
    answer = predict_by_bandwidth("apple", 273e9, Question(cost, memory_bytes=48 * 10**9), known_machines(catalog))
    page = Text(render_report(beside(measured, answers=[answer])))
    assert "Nothing here was measured." in page.text
    assert f"{answer.tg.rate_tok_per_s:.3g}" in page.text
    assert "llama3.1:8b Q4_0" in page.text


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def journal(results, measured, text_run):
    path = results / "here" / "20261124T120000Z-pp-tg.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in (*map(to_json, measured), to_json(text_run))))
    return path


def test_the_command_reads_the_folder_of_results(journal, tmp_path):
    code, out, err = harness("report", cwd=tmp_path)
    assert (code, out) == (0, "")
    assert "3 records of 1 file in report.html" in err
    assert "<!doctype html>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_records_without_a_machine_are_one_sentence_each(journal, tmp_path, measured):
    nobody = to_json(measured[0])
    del nobody["machine"]
    with open(journal, "a", encoding="utf-8") as file:
        file.write(json.dumps(nobody) + "\n")
    code, _, err = harness("report", "-o", tmp_path / "r.html")
    assert code == 0
    assert f"{journal.name}:4: not a record (has no machine); the line is skipped." in err
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "has no machine" in page
    assert str(tmp_path) not in page, "paths name people"


def test_only_such_records_are_exit_2(results, tmp_path):
    (tmp_path / "x.jsonl").write_text('{"kind": "result", "schema": 1}\n')
    code, _, err = harness("report", tmp_path / "x.jsonl", "-o", tmp_path / "r.html")
    assert code == 2
    assert "There are no records in" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere"], 2, "There is no file or folder nowhere"),
        (["-o", "no/such/folder/r.html"], 2, "There is no folder"),
        (["-o", "."], 2, "is a directory"),
        (["-o", "r.html", "--share", "./r.html"], 2, "one file cannot be"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(journal, tmp_path, arguments, code, words):
    got, _, err = harness("report", *arguments, cwd=tmp_path)
    assert got == code
    assert words in one_sentence(err)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_page_that_cannot_be_written_is_exit_4(journal):
    code, _, err = harness("report", "-o", "/dev/full")
    assert code == 4
    assert "Cannot write /dev/full" in one_sentence(err)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user who may not write everywhere (not root)")
def test_a_read_only_folder_is_exit_4(journal, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    code, _, err = harness("report", "-o", folder / "r.html")
    assert code == 4
    assert "choose another place" in one_sentence(err)


def test_reading_all_kinds_tells_why_a_line_was_refused(journal):
    warned = []
    lines = list(read_lines([journal], warned.append))
    assert [line.kind for line in lines] == ["result", "result", "run"]
    assert warned == []


# --- in a browser -----------------------------------------------------------------------------------------------------

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

in_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome (Debian's package chromium)")


def browse(address: str, tmp_path: pathlib.Path, *flags: str) -> tuple[str, list[str]]:
    """Open a page without a window: (its DOM after scripts ran, what the console said)."""
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr", "--virtual-time-budget=5000", *flags, "--dump-dom", address,
        ],
        capture_output=True, text=True, encoding="utf-8", timeout=120,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def drive(page: str, tmp_path: pathlib.Path, script: str) -> tuple[str, list[str]]:
    """Put a page into a frame of another page, whose script plays the reader and writes what it sees into its own body.

    The frame has the very bytes of the report (srcdoc), policy included; nothing in the report knows that it is being watched.
    """
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(
        f"""<!doctype html><meta charset="utf-8"><iframe srcdoc="{html.escape(page)}" width="1000" height="800"></iframe><pre></pre>
<script>document.querySelector("iframe").addEventListener("load", event => {{
  const page = event.target.contentDocument, seen = [], see = value => seen.push(value);
  {script}
  document.querySelector("pre").textContent = "SEEN" + JSON.stringify(seen) + "END";
}});</script>""",
        encoding="utf-8",
    )
    dom, console = browse(wrapper.as_uri(), tmp_path)
    match = re.search(r"SEEN(.*)END</pre>", dom, re.DOTALL)
    assert match, f"the reader's script did not end: {console}"
    return json.loads(html.unescape(match[1])), console


@in_browser
def test_a_page_with_an_error_would_be_noticed(tmp_path):
    """The instrument itself: a console error is heard, and a blocked script too."""
    (tmp_path / "bad.html").write_text("<script>nonsense()</script>")
    assert browse((tmp_path / "bad.html").as_uri(), tmp_path)[1]
    policy = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'"><script>1</script>"""
    (tmp_path / "blocked.html").write_text(policy)
    assert browse((tmp_path / "blocked.html").as_uri(), tmp_path)[1]


@in_browser
def test_it_opens_without_an_error(tmp_path, measured, text_run):
    page = tmp_path / "report.html"
    page.write_text(render_report(material([*map(to_json, measured), to_json(text_run)])), encoding="utf-8")
    dom, console = browse(page.as_uri(), tmp_path)
    assert console == []
    assert "Language models on" in dom
    assert dom.count('class="bar"') == 2, "bars are drawn by the page"


@in_browser
def test_no_section_is_wider_than_a_phone(tmp_path, measured, text_run):
    lines = [*map(to_json, measured), to_json(text_run), memory_line(measured), time_line(measured)]
    page = render_report(material(lines))
    script = """
      event.target.width = 400;
      const box = page.documentElement;
      see(box.clientWidth); see(box.scrollWidth);
      see(Array.from(page.querySelectorAll("figure svg"), svg => svg.getBoundingClientRect().width).filter(w => w > 0 && w < 500));
    """
    (width, needed, small), console = drive(page, tmp_path, script)
    assert console == []
    assert 0 < width <= 400
    assert needed <= width
    assert small == [], "a picture scrolls rather than shrink until it cannot be read"


@in_browser
def test_a_model_named_script_is_text_in_a_browser(tmp_path, measured, text_run):
    page = render_report(material(evil_records(measured, text_run)))
    seen, console = drive(
        page,
        tmp_path,
        "see(page.title); see(page.scripts.length); see(page.querySelectorAll('.facts')[1].textContent);",
    )
    assert console == []
    title, scripts, cell = seen
    assert title == f"Language models on {EVIL}"
    assert scripts == 1
    assert cell.startswith(EVIL)


@in_browser
def test_a_click_on_a_heading_sorts(tmp_path):
    rows = [["b2", 9.5], ["b10", 100], ["a", None], ["C", 20]]
    page = render(one_block(Table("t", [Column("name"), Column("number", unit=RATE)], rows)), "html")
    script = """
      const column = at => Array.from(page.querySelectorAll("tbody tr"), row => row.cells[at].textContent);
      const heads = page.querySelectorAll("th"), click = at => heads[at].querySelector("button").click();
      see(column(0));
      click(1); see(column(1)); see(heads[1].getAttribute("aria-sort"));
      click(1); see(column(1)); see(heads[1].getAttribute("aria-sort"));
      click(0); see(column(0)); see(heads[1].getAttribute("aria-sort"));
    """
    seen, console = drive(page, tmp_path, script)
    assert console == []
    assert seen == [
        ["b2", "b10", "a", "C"],
        ["9.5", "20.00", "100.00", "—"], "ascending",
        ["100.00", "20.00", "9.5", "—"], "descending",
        ["a", "b2", "b10", "C"], None,
    ]  # fmt: skip


@in_browser
def test_a_picture_has_the_colours_of_the_page(tmp_path, measured):
    page = render_report(material([*map(to_json, measured), time_line(measured)]))
    script = """
      const style = element => page.defaultView.getComputedStyle(element);
      see([style(page.querySelector("figure svg text")).fill, style(page.body).color]);
    """
    (((inside, around)),), _ = drive(page, tmp_path, script)
    assert inside == around


def test_a_picture_is_drawn_once_for_light_and_dark():
    from harness.views.figures.style import new_figure

    drawn = []

    def draw(theme):
        drawn.append(theme)
        return new_figure(theme=theme)[0]

    page = render(one_block(Picture(draw, 'alt "text"')), "html")
    assert drawn == ["page"]
    assert 'aria-label="alt &#34;text&#34;"' in page
    assert "var(--ink)" in page
    assert "#01020" not in page


def test_a_condensed_record_is_judged_as_it_was_measured(measured, text_run):
    stalls = tuple([10**6] * 20 + [9 * 10**6] * 6)
    text_run = dataclasses.replace(text_run, asked=TextSettings())
    disturbed = Conditions(wall_ns=10**9, n_cpus=2, n_cores=2, busy_s=2.0, own_s=0.4, waited_ns=9 * 10**8)
    samples = tuple(dataclasses.replace(sample, conditions=disturbed) for sample in measured[0].samples)
    cells = (dataclasses.replace(measured[0], samples=samples), measured[0])
    for whole in (dataclasses.replace(text_run, token_ns=stalls), text_run, *cells):
        line = condense(read_line(json.loads(json.dumps(to_json(whole)))))
        assert judge(line.content) == judge(whole)
    assert judge(cells[0]).trust is Trust.NOT_TRUSTED
    assert judge(dataclasses.replace(text_run, token_ns=stalls)).trust is not Trust.QUIET


@pytest.mark.parametrize("kind", sorted(set(KINDS.values()), key=lambda kind: kind.__name__))
def test_what_is_condensed_knows_its_verdict(kind, recorded, text_run):
    """Of each class of record: either it stays as it is, or what is held of it has a judge that needs nothing of what was let go."""
    text_run = dataclasses.replace(text_run, asked=TextSettings())
    example = {type(one): one for one in (recorded[0], text_run)}.get(kind)
    held = condense(Line("", 1, recorded[0].machine, content=example)).content
    assert type(held) is CONDENSED.get(kind, type(example))
    assert CONDENSED.get(kind, kind) in {**JUDGES, **JUDGED}


def test_a_text_that_stalled_is_so_in_the_report(text_run):
    page = render_report(
        material([to_json(dataclasses.replace(text_run, token_ns=tuple([10**6] * 20 + [9 * 10**6] * 6)))])
    )
    assert "1 ledger, text or comparison is not to be trusted" in Text(page).text


def test_a_table_without_rows_is_left_out_with_its_heading_and_notes():
    made = [
        Section(f"about {name}", [Table(name, [Column("a")], rows, ["what a is"])])
        for name, rows in (("x", []), ("y", [[1]]))
    ]
    page = render(Document("test", 1, "t", made), "html")
    assert "about x" not in page
    assert "about y" in page
    assert page.count("what a is") == 1


def test_of_very_many_cells_those_that_speak_are_shown(measured, monkeypatch):
    """Somebody's hundred thousand records are a page that a browser opens, and it says what it leaves out."""
    monkeypatch.setattr(speeds, "MOST_ROWS", 5)
    many = [dataclasses.replace(measured[0], time_utc=f"2026-11-24T12:00:{at:02}Z") for at in range(7)]
    shown = Text(render_report(material(map(to_json, [*many, measured[1]])))).text
    assert "Of 8 measured cells 2 are shown: of each the record that speaks for it, the latest." in shown
    few = Text(render_report(material(map(to_json, many[:5])))).text
    assert "are shown: of each" not in few
