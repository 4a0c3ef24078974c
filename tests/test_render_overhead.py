"""The ledger as text, as data and as a picture, on made-up numbers of every kind."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import pathlib

import pytest

from harness.memory.causes import HOST, Cause, Note, Remark
from harness.memory.fit import CardFit, Fit, LayerPrice
from harness.memory.forecast import Forecast, Line, Share
from harness.memory.ledger import Measurement, Row
from harness.memory.resident import DeviceReading, MapShare, MemoryReading, NativeBuffer, explain_growth
from harness.records.cells import Failure, Machine
from harness.records.kinds import read_line, to_json
from harness.records.memory import MemoryRecord, Subject
from harness.spec import RunSpec
from harness.views.figures.memory import PARTS, draw_ledger
from harness.views.figures.style import to_bytes
from harness.views.formats import format_names, render
from harness.views.memory import describe_memory, describe_note

MIB = 2**20
LINES = (
    Line(Cause.MAPPED, HOST, "CPU_Mapped", 700 * MIB),
    Line(Cause.REPACKED, HOST, "CPU_REPACK", 500 * MIB),
    Line(Cause.KV, HOST, "CPU", 256 * MIB),
    Line(Cause.COMPUTE, HOST, "CPU", 250 * MIB),
    Line(Cause.OUTPUT, HOST, "CPU", MIB // 2),
)
RUNTIME = (
    Share(Cause.LIBRARIES, 16 * MIB),
    Share(Cause.PYTHON_HEAP, 14 * MIB),
    Share(Cause.TABLES, 20 * MIB),
    Share(Cause.WORK, 4 * MIB),
)
CARD = DeviceReading("CUDA0", 6000 * MIB, 8000 * MIB)
BUFFERS = (
    NativeBuffer(Cause.MAPPED, HOST, "CPU_Mapped", 700 * MIB),
    NativeBuffer(Cause.REPACKED, HOST, "CPU_REPACK", 500 * MIB, 500 * MIB),
    NativeBuffer(Cause.KV, HOST, "CPU", 256 * MIB, 256 * MIB),
    NativeBuffer(Cause.COMPUTE, HOST, "CPU", 250 * MIB, 60 * MIB),
    NativeBuffer(Cause.OUTPUT, HOST, "CPU", MIB // 2, MIB // 2),
)


def reading(step, anonymous, heap, files, **more):
    maps = (
        *(MapShare(path, size * MIB, 0) for path, size in files.items()),
        MapShare("", anonymous * MIB, anonymous * MIB),
    )
    size = (anonymous + sum(files.values())) * MIB
    return MemoryReading(
        step, size, pss_bytes=size - MIB, uss_bytes=size - 2 * MIB, swap_bytes=0, anonymous_bytes=anonymous * MIB,
        file_bytes=size - anonymous * MIB, heap_bytes=heap * MIB, python_bytes=2 * MIB, maps=maps, **more,
    )  # fmt: skip


READINGS = (
    reading("interpreter", 10, 8, {"/bin/python": 6}),
    reading("backend", 24, 22, {"/bin/python": 20}),
    reading("context", 800, 42, {"/bin/python": 20, "/m.gguf": 695}),
    reading("first token", 869, 48, {"/bin/python": 22, "/m.gguf": 695}),
    reading("after", 50, 48, {"/bin/python": 22}),
)


def make_measurement(readings=READINGS, buffers=BUFFERS) -> Measurement:
    grown = [item for item in readings if item.step != "after"]
    runtime, weights_resident = explain_growth(grown, buffers, ["/m.gguf"])
    kept = tuple(dataclasses.replace(item, maps=()) for item in readings)
    return Measurement(kept, tuple(buffers), runtime, weights_resident, True, "mmap", {"CPU": 17})


SPEC = RunSpec("m", n_prompt=512, n_gen=1, n_depth=8192 - 513, n_threads=2)
FORECAST = Forecast(8192, LINES, RUNTIME, 16 * MIB, True)
PRICES = (LayerPrice(4, 300 * MIB, 64 * MIB), LayerPrice(17, 728 * MIB, 256 * MIB))
REPORT = MemoryRecord(
    asked=SPEC,
    machine=Machine("a CPU", 2, 2, 2**34, "Linux", "x86_64", "3.12"),
    model=Subject("synth:llama3.2:1b:q4_0", "file", "llama", 765 * MIB, 16, 131072, is_synthetic=True),
    forecasts=(FORECAST,),
    fits=(Fit(HOST, 1800 * MIB, 20_000 * MIB, 24_000 * MIB),),
    cards=(CardFit(None, 2 * 10**9, 17, 4, 250 * MIB, 457 * MIB, *PRICES),),
    measurement=make_measurement(),
)  # fmt: skip
ON_CARD = dataclasses.replace(
    REPORT,
    forecasts=(
        dataclasses.replace(
            FORECAST,
            lines=(*LINES, Line(Cause.COPIED, "CUDA0", "CUDA0", 900 * MIB), Line(Cause.KV, "CUDA0", "CUDA0", 90 * MIB)),
        ),
    ),
    measurement=make_measurement(
        (
            READINGS[0],
            dataclasses.replace(READINGS[1], devices=(dataclasses.replace(CARD, free_bytes=7900 * MIB),)),
            dataclasses.replace(READINGS[2], devices=(CARD,)),
            dataclasses.replace(READINGS[3], devices=(CARD,)),
            READINGS[4],
        ),
        (
            *BUFFERS,
            NativeBuffer(Cause.COPIED, "CUDA0", "CUDA0", 900 * MIB),
            NativeBuffer(Cause.KV, "CUDA0", "CUDA0", 90 * MIB),
        ),
    ),
    fits=(*REPORT.fits, Fit("CUDA0", 10**10, None, None), Fit("CUDA1", 10**10, 7 * 10**9, 8 * 10**9)),
)
PREDICTED = dataclasses.replace(REPORT, measurement=None)
RANGE = dataclasses.replace(
    PREDICTED,
    forecasts=tuple(
        dataclasses.replace(
            FORECAST,
            n_ctx=n_ctx,
            lines=(*LINES[:2], Line(Cause.KV, HOST, "CPU", n_ctx * 32768), *LINES[3:]),
        )
        for n_ctx in (2048, 131072, 1048576)
    ),
)
BLIND = dataclasses.replace(
    REPORT,
    measurement=make_measurement(
        [dataclasses.replace(item, pss_bytes=None, uss_bytes=None, maps=(), file_bytes=None, anonymous_bytes=None) for item in READINGS],
        [dataclasses.replace(item, resident_bytes=None) for item in BUFFERS],
    ),
)  # fmt: skip
FAILED = dataclasses.replace(
    PREDICTED,
    failure=Failure("load", "the kernel killed the worker because memory ran out", "out of memory"),
    notes=(
        Note(
            Remark.TEXT,
            detail="a remark that is so long that it does not fit into one line of eighty columns, and more \x1b[31m"
            * 2,
        ),
    ),
)
UNPLANNED = dataclasses.replace(
    PREDICTED,
    forecasts=(Forecast(8192, LINES[:3], notes=(Note(Remark.NOT_PLANNED, detail="unknown model architecture"),)),),
    cards=(dataclasses.replace(REPORT.cards[0], compute_bytes=None),),
)
ALL = {
    "measured": REPORT, "card": ON_CARD, "predicted": PREDICTED, "range": RANGE, "blind": BLIND, "failed": FAILED,
    "unplanned": UNPLANNED,
}  # fmt: skip


def page_of(record) -> str:
    return render(describe_memory(record), "table")


def data_of(record) -> dict:
    return json.loads(render(describe_memory(record), "json"))


def by_cause(record, device=HOST) -> dict[str, Row]:
    return {row.cause: row for row in record.ledger if row.device == device}


@pytest.mark.parametrize("name", ALL)
def test_a_page_fits_80_columns(name):
    page = page_of(ALL[name])
    assert max(len(line) for line in page.splitlines()) <= 80
    assert not any(line != line.rstrip() for line in page.splitlines())
    assert "\x1b" not in page
    assert "None" not in page


def test_the_lines_add_up_to_the_growth():
    data = data_of(REPORT)
    assert sum(row["measured_bytes"] or 0 for row in data["ledger"]) == data["resident_growth_bytes"]
    assert data["explained_bytes"] + data["unexplained_bytes"] == data["resident_growth_bytes"]
    on_card = data_of(ON_CARD)
    host = sum(row["measured_bytes"] or 0 for row in on_card["ledger"] if row["device"] == HOST)
    assert host == on_card["resident_growth_bytes"]


def test_what_is_not_in_memory_is_taken_back():
    rows = by_cause(REPORT)
    assert (rows[Cause.UNREAD].measured_bytes, rows[Cause.UNTOUCHED].measured_bytes) == (-5 * MIB, -190 * MIB)
    assert rows[Cause.MAPPED].resident_bytes == 695 * MIB
    assert rows[Cause.COMPUTE].resident_bytes == 60 * MIB
    assert rows[Cause.UNEXPLAINED].predicted_bytes is None
    assert rows[Cause.KV].error == 0


def test_the_whole_process():
    totals = REPORT.totals
    assert totals.predicted_bytes == FORECAST.on(HOST) == round((700 + 500 + 256 + 250 + 0.5 + 54 + 16) * MIB)
    assert totals.resident_bytes == READINGS[3].rss_bytes
    # Growth, the interpreter before it, and the pages that are still to be touched or read.
    assert totals.measured_bytes == READINGS[3].rss_bytes + 195 * MIB
    assert PREDICTED.totals.measured_bytes is None


def test_a_prediction_says_what_its_total_has_besides_the_lines():
    assert "The process has the interpreter's 16.00 MiB besides." in render(describe_memory(PREDICTED), "table")


def test_a_card_has_lines_and_a_driver_of_its_own():
    rows = by_cause(ON_CARD, "CUDA0")
    assert rows[Cause.COPIED].measured_bytes == 900 * MIB
    assert rows[Cause.DRIVER_CONTEXT].measured_bytes == (7900 - 6000 - 990) * MIB
    page = page_of(ON_CARD)
    assert "device" in page
    assert "free" in page
    assert "its memory cannot be read" in page


def test_nvml_knows_what_this_process_has():
    readings = list(ON_CARD.measurement.readings)
    readings[3] = dataclasses.replace(readings[3], devices=(dataclasses.replace(CARD, process_bytes=1200 * MIB),))
    report = dataclasses.replace(
        ON_CARD, measurement=dataclasses.replace(ON_CARD.measurement, readings=tuple(readings))
    )
    assert by_cause(report, "CUDA0")[Cause.DRIVER_CONTEXT].measured_bytes == (1200 - 990) * MIB


def test_where_the_os_tells_little_the_rest_stands():
    page = page_of(BLIND)
    assert "does not tell PSS" in page
    assert "llama.cpp's word alone" in page
    data = data_of(BLIND)
    assert (data["explained_bytes"], data["explained_share"]) == (None, None)
    assert data["resident_growth_bytes"] > 0
    assert data["steps"][0]["pss_bytes"] is None


def test_a_range_has_a_slope_and_says_what_fits():
    page = page_of(RANGE)
    assert "Each further token of context takes 32768 bytes" in page
    rows = [line.split() for line in page.splitlines() if line.lstrip().startswith(("2048", "131072", "1048576"))]
    assert [row[-1] for row in rows] == ["yes", "yes", "no"]
    assert data_of(RANGE)["context_slope_bytes_per_token"] == 32768
    assert [int(row["n_ctx"]) for row in csv.DictReader(io.StringIO(render(describe_memory(RANGE), "csv")))] == [
        2048,
        131072,
        1048576,
    ]


def test_what_is_not_known_is_neither_counted_nor_promised():
    page = page_of(UNPLANNED)
    assert "maybe: not all that it needs is known" in " ".join(page.split())
    assert "at most 4 of 17 layers fit" in page
    assert "not known" in page
    assert data_of(UNPLANNED)["fits"][0]["is_lower_bound"] is True


def test_a_synthetic_model_is_marked():
    assert "(synthetic)" in page_of(REPORT).splitlines()[0]
    assert data_of(REPORT)["is_synthetic"] is True


@pytest.mark.parametrize("form", format_names())
@pytest.mark.parametrize("name", ALL)
def test_every_format_takes_every_report(form, name):
    text = render(describe_memory(ALL[name]), form)
    assert "None" not in text or form == "html"
    if form == "json":
        assert json.loads(text)["schema"] == 2
    if form == "csv":
        assert len(list(csv.reader(io.StringIO(text)))) > 1


def test_csv_has_the_ledger():
    rows = list(csv.DictReader(io.StringIO(render(describe_memory(REPORT), "csv"))))
    kv = next(row for row in rows if row["cause"] == Cause.KV)
    assert (kv["predicted_bytes"], kv["measured_bytes"]) == (str(256 * MIB), str(256 * MIB))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ALL)
def test_a_picture_of_every_report(name, theme):
    figure = draw_ledger(
        ALL[name], theme=theme, others={"Ollama, 2024": {"KV cache": 500 * MIB, "never allocated": 81 * MIB}}
    )
    text = to_bytes(figure, "svg").decode()
    assert "Ollama, 2024" in text
    assert "never allocated" in text
    assert "weights as in the file" in text


def test_bars_are_as_long_as_what_they_stand_for():
    (axis,) = draw_ledger(REPORT).axes
    totals = {}
    for container in axis.containers:
        for position, bar in zip(("predicted", "measured", "now"), container, strict=True):
            totals[position] = totals.get(position, 0) + bar.get_width()
    assert totals["predicted"] == pytest.approx((FORECAST.on(HOST) - 16 * MIB) / MIB)
    assert totals["measured"] == pytest.approx((REPORT.totals.measured_bytes - READINGS[0].rss_bytes) / MIB)
    growth = REPORT.measurement.account.growth_bytes / MIB
    assert totals["now"] == pytest.approx(growth)
    assert {part.legend for part in PARTS} >= {container.get_label() for container in axis.containers}


def test_the_title_stays_in_the_picture():
    figure = draw_ledger(dataclasses.replace(REPORT, model=dataclasses.replace(REPORT.model, label="m" * 200)))
    figure.draw_without_rendering()
    (axis,) = figure.axes
    assert axis.title.get_window_extent().x1 <= figure.bbox.x1


def test_the_heading_says_which_quantization_it_is_about():
    """A catalog name without one does not."""
    model = dataclasses.replace(REPORT.model, file_type="Q4_K - Medium")
    assert "layers · Q4_K - Medium · file" in page_of(dataclasses.replace(REPORT, model=model))
    assert "None" not in page_of(REPORT).splitlines()[1]


@pytest.mark.parametrize("name", ALL)
def test_a_record_is_written_and_read(name):
    record = ALL[name]
    again = read_line(json.loads(json.dumps(to_json(record)))).content
    assert again == record
    assert page_of(again) == page_of(record)
    assert "/m.gguf" not in json.dumps(to_json(record)), "maps name people"


FIRST_EDITION = sorted((pathlib.Path(__file__).parent.parent / "bench_results").rglob("*-overhead.jsonl"))


@pytest.mark.parametrize("path", FIRST_EDITION, ids=lambda path: path.name)
def test_a_ledger_of_schema_1_is_made_again_of_what_it_was_made_of(path):
    line = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    record = read_line(line).content
    names = ("cause", "device", "predicted_bytes", "measured_bytes", "resident_bytes", "error")
    found = [{name: getattr(row, name) for name in names} for row in record.ledger]
    if line["schema"] == 1:
        assert json.loads(json.dumps(found)) == line["ledger"]
        assert dataclasses.asdict(record.totals) == line["totals"]
        account = record.measurement.account
        for name in ("explained_bytes", "explained_share", "unexplained_bytes"):
            assert getattr(account, name) == line[name]
        assert [fit.needed_bytes for fit in record.fits] == [fit["needed_bytes"] for fit in line["fits"]]
    assert "= process, all touched" in page_of(record)


def test_every_remark_has_its_sentence():
    for remark in Remark:
        note = Note(remark, Cause.KV, "detail", 2**20, 2**21, 9000, 4096, 2)
        assert len(describe_note(note)) > 5
        assert "{" not in describe_note(note)


@pytest.mark.parametrize(
    ("mode", "cause", "said"),
    [
        ("auto", Cause.MAPPED, "MiB of it are pages of the file, which the OS may drop and read again."),
        ("mmap+mlock", Cause.MAPPED, "MiB of it are pages of the file, which are locked: the OS cannot drop them."),
        ("mlock", Cause.COPIED, "MiB of it are locked: the OS can neither drop nor swap them."),
        (
            "none",
            Cause.COPIED,
            "MiB of it came through the OS's cache of files, which has them once more as long as there is room;",
        ),
        ("dio", Cause.COPIED, None),
    ],
)
def test_what_becomes_of_weights_is_said_by_how_the_file_was_read(mode, cause, said):
    lines = tuple(line for line in LINES if line.cause not in (Cause.MAPPED, Cause.COPIED))
    forecast = dataclasses.replace(FORECAST, lines=(Line(cause, HOST, "CPU", 695 * MIB), *lines))
    report = dataclasses.replace(REPORT, asked=dataclasses.replace(SPEC, load_mode=mode), forecasts=(forecast,))
    text = " ".join(render(describe_memory(report), "table").split())
    endings = ("the OS may drop", "are locked", "cache of files")
    assert (said in text) if said else not any(ending in text for ending in endings)
    unlocked = dataclasses.replace(report, measurement=dataclasses.replace(report.measurement, is_unlocked=True))
    text = " ".join(render(describe_memory(unlocked), "table").split())
    assert ("Not all weights could be locked in memory" in text) == ("mlock" in mode)
