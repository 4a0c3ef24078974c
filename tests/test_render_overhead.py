"""The ledger as text, as data and as a picture, on made-up numbers of every kind."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

import pytest

from harness.memory.fit import CardFit, Fit, LayerPrice
from harness.memory.forecast import COMPUTE, COPIED, HOST, KV, MAPPED, OUTPUT, REPACKED, Line
from harness.memory.ledger import (
    DRIVER_CONTEXT,
    Forecast,
    Measurement,
    Report,
    Row,
    Subject,
    make_ledger,
)
from harness.memory.resident import (
    LIBRARIES,
    PYTHON_HEAP,
    TABLES,
    UNEXPLAINED,
    UNREAD,
    UNTOUCHED,
    WORK,
    DeviceReading,
    MapShare,
    MemoryReading,
    NativeBuffer,
    Share,
    account_growth,
)
from harness.spec import RunSpec
from harness.views.figures.memory import PARTS, draw_ledger
from harness.views.figures.style import to_bytes
from harness.views.memory import FORMATS, export_report, render_csv, render_table, total_bytes

MIB = 2**20
LINES = (
    Line(MAPPED, HOST, "CPU_Mapped", 700 * MIB),
    Line(REPACKED, HOST, "CPU_REPACK", 500 * MIB),
    Line(KV, HOST, "CPU", 256 * MIB),
    Line(COMPUTE, HOST, "CPU", 250 * MIB),
    Line(OUTPUT, HOST, "CPU", MIB // 2),
)
RUNTIME = (Share(LIBRARIES, 16 * MIB), Share(PYTHON_HEAP, 14 * MIB), Share(TABLES, 20 * MIB), Share(WORK, 4 * MIB))
CARD = DeviceReading("CUDA0", 6000 * MIB, 8000 * MIB)
BUFFERS = (
    NativeBuffer(MAPPED, HOST, "CPU_Mapped", 700 * MIB),
    NativeBuffer(REPACKED, HOST, "CPU_REPACK", 500 * MIB, 500 * MIB),
    NativeBuffer(KV, HOST, "CPU", 256 * MIB, 256 * MIB),
    NativeBuffer(COMPUTE, HOST, "CPU", 250 * MIB, 60 * MIB),
    NativeBuffer(OUTPUT, HOST, "CPU", MIB // 2, MIB // 2),
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
    account = account_growth(grown, buffers, ["/m.gguf"])
    return Measurement(tuple(readings), tuple(buffers), account, 8192, True, "mmap", {"CPU": 17})


SPEC = RunSpec("m", n_prompt=512, n_gen=1, n_depth=8192 - 513, n_threads=2)
FORECAST = Forecast(SPEC, LINES, RUNTIME, 16 * MIB, True)
PRICES = (LayerPrice(4, 300 * MIB, 64 * MIB), LayerPrice(17, 728 * MIB, 256 * MIB))
REPORT = Report(
    subject=Subject("synth:llama3.2:1b:q4_0", "file", "llama", 765 * MIB, 16, 131072, is_synthetic=True),
    forecasts=(FORECAST,),
    fits=(Fit(HOST, 1800 * MIB, 20_000 * MIB, 24_000 * MIB),),
    cards=(CardFit("a card of 2.0 GB", 2 * 10**9, 17, 4, 250 * MIB, 457 * MIB, *PRICES),),
    measurement=make_measurement(),
)  # fmt: skip
ON_CARD = dataclasses.replace(
    REPORT,
    forecasts=(
        dataclasses.replace(
            FORECAST, lines=(*LINES, Line(COPIED, "CUDA0", "CUDA0", 900 * MIB), Line(KV, "CUDA0", "CUDA0", 90 * MIB))
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
        (*BUFFERS, NativeBuffer(COPIED, "CUDA0", "CUDA0", 900 * MIB), NativeBuffer(KV, "CUDA0", "CUDA0", 90 * MIB)),
    ),
    fits=(*REPORT.fits, Fit("CUDA0", 10**10, None, None), Fit("CUDA1", 10**10, 7 * 10**9, 8 * 10**9)),
)
PREDICTED = dataclasses.replace(REPORT, measurement=None)
RANGE = dataclasses.replace(
    PREDICTED,
    forecasts=tuple(
        dataclasses.replace(
            FORECAST,
            spec=dataclasses.replace(SPEC, n_depth=n_ctx - 513),
            lines=(*LINES[:2], Line(KV, HOST, "CPU", n_ctx * 32768), *LINES[3:]),
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
    failure="the kernel killed the worker because memory ran out",
    remarks=("a remark that is so long that it does not fit into one line of eighty columns, and more \x1b[31m" * 2,),
)
UNPLANNED = dataclasses.replace(
    PREDICTED,
    forecasts=(Forecast(SPEC, LINES[:3], (), None, None, ("compute and output buffers: unknown model architecture",)),),
    cards=(dataclasses.replace(REPORT.cards[0], compute_bytes=None),),
    fits=(dataclasses.replace(REPORT.fits[0], is_partial=True),),
)
ALL = {
    "measured": REPORT, "card": ON_CARD, "predicted": PREDICTED, "range": RANGE, "blind": BLIND, "failed": FAILED,
    "unplanned": UNPLANNED,
}  # fmt: skip


def by_cause(report, device=HOST) -> dict[str, Row]:
    return {row.cause: row for row in make_ledger(report.forecast, report.measurement) if row.device == device}


@pytest.mark.parametrize("name", ALL)
def test_a_page_fits_80_columns(name):
    page = render_table(ALL[name])
    assert max(len(line) for line in page.splitlines()) <= 80
    assert not any(line != line.rstrip() for line in page.splitlines())
    assert "\x1b" not in page
    assert "None" not in page


def test_the_lines_add_up_to_the_growth():
    data = export_report(REPORT)
    assert sum(row["measured_bytes"] or 0 for row in data["ledger"]) == data["resident_growth_bytes"]
    assert data["explained_bytes"] + data["unexplained_bytes"] == data["resident_growth_bytes"]
    on_card = export_report(ON_CARD)
    host = sum(row["measured_bytes"] or 0 for row in on_card["ledger"] if row["device"] == HOST)
    assert host == on_card["resident_growth_bytes"]


def test_what_is_not_in_memory_is_taken_back():
    rows = by_cause(REPORT)
    assert (rows[UNREAD].measured_bytes, rows[UNTOUCHED].measured_bytes) == (-5 * MIB, -190 * MIB)
    assert rows[MAPPED].resident_bytes == 695 * MIB
    assert rows[COMPUTE].resident_bytes == 60 * MIB
    assert rows[UNEXPLAINED].predicted_bytes is None
    assert rows[KV].error == 0


def test_the_whole_process():
    totals = total_bytes(REPORT)
    assert totals["predicted_bytes"] == FORECAST.on(HOST) == round((700 + 500 + 256 + 250 + 0.5 + 54 + 16) * MIB)
    assert totals["resident_bytes"] == READINGS[3].rss_bytes
    # Growth, the interpreter before it, and the pages that are still to be touched or read.
    assert totals["measured_bytes"] == READINGS[3].rss_bytes + 195 * MIB
    assert total_bytes(PREDICTED)["measured_bytes"] is None


def test_a_card_has_lines_and_a_driver_of_its_own():
    rows = by_cause(ON_CARD, "CUDA0")
    assert rows[COPIED].measured_bytes == 900 * MIB
    assert rows[DRIVER_CONTEXT].measured_bytes == (7900 - 6000 - 990) * MIB
    page = render_table(ON_CARD)
    assert "device" in page
    assert "CUDA0 free" in page
    assert "its memory cannot be read" in page


def test_nvml_knows_what_this_process_has():
    readings = list(ON_CARD.measurement.readings)
    readings[3] = dataclasses.replace(readings[3], devices=(dataclasses.replace(CARD, process_bytes=1200 * MIB),))
    report = dataclasses.replace(
        ON_CARD, measurement=dataclasses.replace(ON_CARD.measurement, readings=tuple(readings))
    )
    assert by_cause(report, "CUDA0")[DRIVER_CONTEXT].measured_bytes == (1200 - 990) * MIB


def test_where_the_os_tells_little_the_rest_stands():
    page = render_table(BLIND)
    assert "does not tell PSS" in page
    assert "llama.cpp's word alone" in page
    data = export_report(BLIND)
    assert (data["explained_bytes"], data["explained_share"]) == (None, None)
    assert data["resident_growth_bytes"] > 0
    assert data["steps"][0]["pss_bytes"] is None


def test_a_range_has_a_slope_and_says_what_fits():
    page = render_table(RANGE)
    assert "Each further token of context takes 32768 bytes" in page
    rows = [line.split() for line in page.splitlines() if line.lstrip().startswith(("2048", "131072", "1048576"))]
    assert [row[-1] for row in rows] == ["yes", "yes", "no"]
    assert export_report(RANGE)["context_slope_bytes_per_token"] == 32768
    assert [int(row["n_ctx"]) for row in csv.DictReader(io.StringIO(render_csv(RANGE)))] == [2048, 131072, 1048576]


def test_what_is_not_known_is_neither_counted_nor_promised():
    page = render_table(UNPLANNED)
    assert "more than 1.9 GB needed" in page
    assert "may fit" in page
    assert "compute not known" in page
    assert export_report(UNPLANNED)["fits"][0]["is_lower_bound"] is True


def test_a_synthetic_model_is_marked():
    assert "(synthetic)" in render_table(REPORT).splitlines()[0]
    assert export_report(REPORT)["is_synthetic"] is True


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ALL)
def test_every_format_takes_every_report(form, name):
    text = FORMATS[form](ALL[name])
    assert text.endswith("\n")
    if form == "json":
        assert json.loads(text)["schema"] == 1
    if form == "csv":
        assert len(list(csv.reader(io.StringIO(text)))) > 1


def test_csv_has_the_ledger():
    rows = list(csv.DictReader(io.StringIO(render_csv(REPORT))))
    kv = next(row for row in rows if row["cause"] == KV)
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
    assert totals["measured"] == pytest.approx((total_bytes(REPORT)["measured_bytes"] - READINGS[0].rss_bytes) / MIB)
    growth = REPORT.measurement.account.growth_bytes / MIB
    assert totals["now"] == pytest.approx(growth)
    assert set(PARTS) >= {container.get_label() for container in axis.containers}


def test_the_title_stays_in_the_picture():
    figure = draw_ledger(dataclasses.replace(REPORT, subject=dataclasses.replace(REPORT.subject, label="m" * 200)))
    figure.draw_without_rendering()
    (axis,) = figure.axes
    assert axis.title.get_window_extent().x1 <= figure.bbox.x1


def test_the_heading_says_which_quantization_it_is_about():
    """A catalog name without one does not."""
    subject = dataclasses.replace(REPORT.subject, file_type="Q4_K - Medium")
    assert "layers · Q4_K - Medium · file" in render_table(dataclasses.replace(REPORT, subject=subject))
    assert "None" not in render_table(REPORT).splitlines()[1]
