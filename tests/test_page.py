"""Every page keeps to its width, whatever the names in it are."""

from __future__ import annotations

import dataclasses

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from harness.cli import cli
from harness.gguf.header import BytesSource, read_header
from harness.host import system as host_os
from harness.host.machine import describe_machine
from harness.memory.causes import Note, Remark
from harness.memory.fit import Need
from harness.memory.ollama_2024 import Request, give_account
from harness.memory.ollama_graph import read_figures
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Device
from harness.records.placements import make_result
from harness.records.roofline import Roof, RoofTest
from harness.records.text import Skip, Skipped, TextRun, TextSettings
from harness.runs.devices import Absence, Cards, NoGpu, Survey
from harness.runs.inspection import Inspection
from harness.runs.models import Row
from harness.sources.catalog_check import Verdict
from harness.sources.user_catalog import load_catalog
from harness.spec import RunSpec
from harness.speed import crosscheck
from harness.speed.models import Estimate
from harness.speed.prediction import Answer, Basis, Place, Prediction, PromptBasis, Room, Split
from harness.speed.rates import collect
from harness.speed.roofline import UnderRoof
from harness.speed.standings import measured_rows, published_rows
from harness.views import page
from harness.views.cells import write_cells
from harness.views.devices import describe_devices
from harness.views.formats import render
from harness.views.inspect import describe_inspection
from harness.views.machines import describe_machines
from harness.views.memory import describe_memory
from harness.views.models import describe_check, describe_models
from harness.views.ollama import describe_comparison
from harness.views.ollama_2024 import describe_account
from harness.views.placements import describe_placements
from harness.views.predict import describe_check as describe_prediction_check
from harness.views.predict import describe_prediction
from harness.views.roofline import describe_roofline
from harness.views.text import describe_reference, describe_texts
from harness.views.token_time import describe_token_time

from . import machines as machines_of_tests
from . import test_devices, test_inspect, test_render_overhead, test_roofline, test_time_arithmetic
from .gguf_bytes import llama_like
from .test_ollama_comparison import comparison  # noqa: F401 - a fixture

CPU = "Intel(R) Xeon(R) Platinum 8481C CPU with Built-in Accelerators @ 2.70GHz, a virtual machine of 4 sockets"
GPU = "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition with 96 GB of GDDR7"
MODEL = "Mistral-Small-3.2-24B-Instruct-2506-abliterated-uncensored-heretic-i1-imatrix.Q4_K_M-00001-of-00002.gguf"
WIDE = "通义千问2.5-超长上下文-一百万词元-指令微调-量化版本-非常非常长的名字-Q4_K_M.gguf"
WIDTHS = [60, 80, 120]

CATALOG = load_catalog()


def long_records(recorded, name):
    """The recorded run on another machine, of another file, with everything in its heading or its columns."""
    changed = []
    for number, record in enumerate(recorded):
        model = record.model and dataclasses.replace(record.model, description=name, file_name=name)
        asked = dataclasses.replace(
            record.asked, model=f"/models/{name}", type_k="q8_0", type_v="q8_0", n_ubatch=1024, n_gpu_layers=number,
            tensor_split=(3.0, 1.0), no_kv_offload=True, main_gpu=1, devices=("CUDA0", "CUDA1"), load_mode="none", repack=False,
            n_depth=131072,
        )  # fmt: skip
        build = record.build and dataclasses.replace(record.build, backends=("CUDA", "Vulkan", "RPC"))
        machine = dataclasses.replace(record.machine, cpu=CPU)
        remark = Caution(CautionCause.SENTENCE, f"while {name} was measured on {CPU}, something else was at work")
        changed.append(
            dataclasses.replace(record, model=model, asked=asked, build=build, machine=machine, warnings=(remark,))
        )
    return changed


def speeds(recorded, name):
    yield write_cells(long_records(recorded, name), "table")
    same = [
        dataclasses.replace(r, asked=dataclasses.replace(r.asked, n_gpu_layers=0)) for r in long_records(recorded, name)
    ]
    yield write_cells(same[:1], "table")


def layers(recorded, name):
    rows = [
        make_result([record], ["n_gpu_layers", "type_k", "tensor_split"]) for record in long_records(recorded, name)
    ]
    memory = {
        f"RPC0[{number}.168.100.200:50052]": dict.fromkeys(("model", "kv", "compute"), 10**12) for number in range(4)
    }
    rows = [dataclasses.replace(row, memory_bytes=memory) for row in rows]
    title = f"{name} · {GPU}, {GPU} · 5 repetitions"
    yield render(describe_placements(rows, title, [f"network to {name}: a note about {GPU}"]), "table")


def devices(_recorded, name):
    seen = test_devices.survey(
        ("CPU", "CUDA"),
        devices=(Device("CUDA0", GPU, "gpu", 7 << 30, 8 << 30), Device("RPC0", name, "gpu", None, None)),
    )
    flags = "-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=120-real -DGGML_CUDA_FA_ALL_QUANTS=ON"
    absence = Absence(NoGpu.SILENT_DRIVER, "CMAKE_ARGS=-DGGML_VULKAN=ON scripts/harness devices", CPU)
    yield render(describe_devices(dataclasses.replace(seen, build_flags=flags), absence), "table")


def roof(recorded, name):
    machine = dataclasses.replace(recorded[0].machine, cpu=CPU)
    tests = [
        RoofTest(work, device, described, kind, "Q4_0", n, 10**12, 10**15, (10**6,) * 6, 1.0, 1e-3, device == "CPU")
        for work in ("read", "multiply", "numpy")
        for device, described, kind, n in (("CPU", CPU, "cpu", 128), ("CUDA0", GPU, "gpu", None))
    ]
    found = Roof(
        "2026-01-01T00:00:00Z",
        machine,
        "0",
        recorded[0].build,
        tuple(tests),
        (Caution(CautionCause.SENTENCE, f"{CPU} was busy"),),
    )
    asked = RunSpec("m", n_prompt=512, n_depth=131072, type_k="q8_0", type_v="q8_0")
    item = UnderRoof(name, "Q4_K_M", True, GPU, asked, ("type_k", "type_v"), 128, 1e5, 1e10, 1e13, 1e4)
    for under in ([item, dataclasses.replace(item, asked=RunSpec("m", n_gen=128))], []):
        yield render(describe_roofline(found, under), "table")


def side_by_side(recorded, name, comparison):  # noqa: F811
    task = dataclasses.replace(comparison.task, name=name)
    changed = dataclasses.replace(
        comparison, task=task, warnings=(Caution(CautionCause.SENTENCE, f"{name} and {GPU}"),)
    )
    yield render(describe_comparison(changed), "table")


def models(_recorded, name):
    rows = [
        Row(name, 405 * 10**9, "Q4_K_M", 10**12, True, "synthetic", False, f"{name} cannot run here", True, True, False)
    ]
    yield render(describe_models(rows), "table")
    yield render(
        describe_check([Verdict(name, "Q4_K_M", name, (f"{name} is not there",), 10**12, ("0" * 64,), False)]), "table"
    )


def predictions(_recorded, name):
    cost = dataclasses.replace(test_roofline.cost("llama3.1:8b"), name=name)
    estimate = Estimate(12345.6, 10000.0, 20000.0)
    room = Room(Need(10**12, 10**10, 10**9, 10**9), 8 * 10**9, Place.VRAM, 33)
    answers = [
        Answer(
            f"{GPU} {i}",
            "gpu",
            1e12,
            Basis((name,) * 3, n_machines=12, cautions=(CPU,)),
            cost,
            4096,
            0,
            estimate,
            99999.9,
            estimate,
            PromptBasis.PUBLISHED,
            (room,),
            Split(33, 80, CPU),
        )
        for i in range(2)
    ]
    yield render(describe_prediction(Prediction(tuple(answers), header_note=f"a remark on {name}")), "table")
    yield render(describe_prediction_check(crosscheck.check_predictions(CATALOG)), "table")


def machines(recorded, name):
    measured = collect(long_records(recorded, name), CATALOG)
    yield render(describe_machines([*published_rows(CATALOG), *measured_rows(measured, "tg")], "tg"), "table")


def reference(_recorded, name, comparison):  # noqa: F811
    run = TextRun(
        "run", comparison.time_utc, comparison.machine, "0", TextSettings(), "hash", comparison.rounds[0].direct.figures, "length",
        model=comparison.model, warnings=(Caution(CautionCause.SENTENCE, f"{CPU} was busy"),),
    )  # fmt: skip
    skipped = [Skipped(name, Skip.NO_TEXT, f"it needs more than {CPU} has"), Skipped(name, Skip.NOT_HERE)]
    yield render(describe_reference([(name, run)], skipped), "table")
    yield render(describe_texts([(name, run)], with_time=True), "table")


def account(_recorded, name):
    header = read_header(BytesSource(llama_like().build()))
    for request in (Request(), Request(free_vram_bytes=1, num_gpu=99), Request(library="cpu", num_gpu=0)):
        account = give_account(read_figures(header), request)
        yield render(describe_account(account, name, file_bytes=10**12, synthetic=True), "table")


def token_time(_recorded, name):
    header = read_header(BytesSource(llama_like().build()))
    raw = test_time_arithmetic.make_raw(depths=(0, 512, 4096, 32768, 131072))
    raw["remarks"] = [{"cause": "sentence", "said": f"{name} was left out"}]
    yield render(describe_token_time(test_time_arithmetic.make_record(raw, header, 12e9), name), "table")


def anatomy(_recorded, name):
    for made in (test_inspect.tiny(), test_inspect.large()):
        made = dataclasses.replace(made, name=name, file_type=name)
        yield render(describe_inspection(Inspection(f"/models/{name}" * 3, made, repacked=())), "table")


def ledger(_recorded, name):
    for report in test_render_overhead.ALL.values():
        model = dataclasses.replace(report.model, label=name, architecture=name)
        notes = (Note(Remark.TEXT, detail=f"{name} on {CPU}"),)
        yield render(describe_memory(dataclasses.replace(report, model=model, notes=notes)), "table")


PAGES = [speeds, layers, devices, roof, side_by_side, models, predictions, machines, reference, account, token_time, anatomy, ledger]  # fmt: skip


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("make", PAGES, ids=lambda make: make.__name__)
def test_every_page_keeps_to_its_width(make, columns, recorded, comparison):  # noqa: F811
    more = (comparison,) if "comparison" in make.__code__.co_varnames[: make.__code__.co_argcount] else ()
    for name in (MODEL, WIDE, "a\x1b[31m|b\u202e\n<c>`d`"):
        with page.of_width(columns):
            texts = list(make(recorded, name, *more))
        assert texts
        for text in texts:
            wide = [line for line in text.splitlines() if page.columns_of(line) > columns]
            assert wide == []
            assert "\x1b" not in text
            assert "\u202e" not in text


def test_a_table_fits_by_the_mildest_means():
    heads, sides = ["name", "t/s", "95 % interval"], "lrr"
    with page.of_width(120):
        wide = page.table(heads, [["short", "123.45", "1 – 2"]], sides)
        assert wide.splitlines()[0].startswith("name       t/s    95 % interval"), (
            "air around headings where there is room"
        )
    text = page.table(heads, [[MODEL, "123.45", "1 – 2"]], sides)
    assert "123.45" in text
    assert "1 – 2" in text
    assert "Mistral-Small" in text
    assert "of-00002.gguf" in text, "a name loses its middle"
    assert max(map(len, text.splitlines())) == 80


def test_a_table_of_many_numbers_is_taken_apart_with_its_first_column():
    heads = ["device", *(f"column {i}" for i in range(12))]
    rows = [[f"d{n}", *(f"{10**9 + i}" for i in range(12))] for n in range(3)]
    with page.of_width(60):
        text = page.table(heads, rows, "l" + "r" * 12)
    assert max(map(len, text.splitlines())) <= 60
    parts = text.split("\n\n")
    assert len(parts) > 1
    for part in parts:
        assert [line.split()[0] for line in part.splitlines()[-3:]] == ["d0", "d1", "d2"]
    for i in range(12):
        assert str(10**9 + i) in text


@given(
    st.lists(st.lists(st.text(max_size=90), min_size=3, max_size=3), min_size=1, max_size=4),
    st.integers(page.NARROWEST, page.WIDEST),
)
def test_no_table_is_wider_than_its_page(cells, columns):
    with page.of_width(columns):
        text = page.table(["a", "b b", "c"], cells, "lrl")
    assert all(page.columns_of(line) <= columns for line in text.split("\n"))


@given(st.text(), st.integers(page.NARROWEST, page.WIDEST), st.integers(1, 50))
def test_nothing_that_is_wrapped_or_cut_is_wider_than_asked(text, columns, few):
    with page.of_width(columns):
        assert all(page.columns_of(line) <= columns for line in page.fill(text).split("\n"))
    for cut in (page.cut, page.cut_middle):
        assert page.columns_of(cut(text, few)) <= few


def test_a_narrow_page_is_not_narrower_than_tables_are_made_for():
    with page.of_width(20):
        assert page.width() == page.NARROWEST
    with page.of_width(1000):
        assert page.width() == page.WIDEST
    assert page.width() == page.USUAL


def test_a_cell_of_markdown_keeps_its_table():
    text = page.markdown(["a|b", "c"], [["x|y\nz", "<img>"]], "lr")
    assert len(text.splitlines()) == 3
    assert "x\\|y z" in text
    assert "<img" not in text


@pytest.mark.parametrize("columns", WIDTHS)
def test_every_machine_keeps_to_the_page(identity, columns, recorded):
    """Headings, rows and predictions of machines as their systems name them."""
    machine = describe_machine()
    here = [dataclasses.replace(record, machine=machine) for record in recorded]
    test = RoofTest(
        "read", "CPU", machine.cpu, "cpu", "Q4_0", machine.n_cores_physical, 10**9, 10**9, (10**6,) * 6, 0.0, 1.0
    )
    build = recorded[0].build
    device = Device("CPU", machine.cpu, "cpu", machine.memory_bytes, machine.memory_bytes)
    with_device = dataclasses.replace(build, devices=(device,))
    with page.of_width(columns):
        texts = [
            render(describe_machines(measured_rows(collect(here, CATALOG), "tg"), "tg"), "table"),
            write_cells(here, "table"),
            render(describe_roofline(Roof("2026-01-01T00:00:00Z", machine, "0", build, (test,)), []), "table"),
            render(describe_devices(Survey(with_device, {}, ("CPU",), Cards(), None), None), "table"),
        ]
    assert [line for text in texts for line in text.splitlines() if page.columns_of(line) > columns] == []


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize(
    "arguments",
    [["models"], ["models", "--local"], ["table"], ["predict", "--check"],
     ["predict", "-m", "llama3.1:70b:q4_0", "--machine", "M4 Pro", "--machine", "RTX 3070 Ti"],
     ["overhead", "-m", "llama3.1:405b:q4_0", "--predict-only", "--ollama-2024", "--vram", "8GB"],
     ["overhead", "-m", "llama3.1:8b:q4_0", "--predict-only", "-c", "2048,131072"], ["inspect", "llama3.1:405b:q4_0"]],
    ids=" ".join,
)  # fmt: skip
def test_a_command_keeps_to_the_page_on_a_machine_of_long_names(arguments, columns, monkeypatch, tmp_path):
    monkeypatch.setattr(host_os, "_system", machines_of_tests.Identity("xeon-platinum"))
    environment = {
        "COLUMNS": str(columns),
        "HARNESS_RESULTS": str(tmp_path),
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path),
    }
    done = CliRunner().invoke(cli, arguments, env=environment)
    assert done.exit_code == 0, done.output
    assert [line for line in done.stdout.splitlines() if page.columns_of(line) > columns] == []


def test_parts_of_a_table_repeat_what_tells_its_rows_apart(monkeypatch):
    monkeypatch.setattr(page, "width", lambda: 40)
    rows = [[threads, test, *["123456789"] * 4] for threads in "12" for test in ("pp64", "tg16")]
    text = page.table(["threads", "test", "first", "second", "third", "fourth"], rows, "rlrrrr")
    parts = text.split("\n\n")
    assert len(parts) > 1
    for part in parts:
        assert [line.split()[:2] for line in part.splitlines()[2:]] == [row[:2] for row in rows]
