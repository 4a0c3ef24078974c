"""The ledger on the real engine: predicted against llama.cpp's own log, measured against what the OS says; and every trouble."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pathlib
import subprocess
import sys
from collections import Counter

import pytest
from click.testing import CliRunner

from harness.cli import overhead as cli
from harness.errors import HarnessError, NativeError, UsageError
from harness.gguf.header import BytesSource, read_header
from harness.host.machine import predict_features
from harness.memory.causes import HOST, Cause
from harness.memory.repack import read_features
from harness.memory.resident import cause_of_log, device_of_buffer
from harness.records.cells import Failure
from harness.records.kinds import read_line
from harness.runs import memory as overhead
from harness.runs.dry_run import run_dry
from harness.runs.memory import (
    MemoryRequest,
    Model,
    account_memory,
    check_room,
    find_fits,
    find_model,
    fit_cards,
    forecast,
    make_spec,
)
from harness.runs.session import Session
from harness.sources.sparse import HeaderFile, write_sparse
from harness.sources.synthetic import make_header_bytes, write_synthetic
from harness.units import MIB
from harness.views.memory import describe_note
from tests.hub.fixtures import hub  # noqa: F401
from tests.rpc_server import rpc_server
from tests.shapes import SMALL_SHAPES

pytestmark = pytest.mark.engine

ROOT = pathlib.Path(__file__).parent.parent
#: llama.cpp's log rounds to 0.01 MiB.
LOG_STEP = 0.0051 * MIB


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> str:
    """A small model whose matrices this CPU may repack."""
    shape = dataclasses.replace(SMALL_SHAPES["llama"], vocab_size=4096, block_count=6, head_count_kv=1)
    return str(write_synthetic(shape, "Q4_0", tmp_path_factory.mktemp("small") / "small.gguf", name="small"))


def from_shape(name: str, quantization: str = "Q4_0") -> Model:
    """A model of which there is only a header."""
    data, size = make_header_bytes(SMALL_SHAPES[name], quantization, name=name)
    return Model(name, read_header(BytesSource(data)), (HeaderFile("m.gguf", data, size),), None)


def logged_buffers(specs, servers=None) -> list[Counter]:
    """What llama.cpp really allocates for each spec, by cause and device; servers names the devices of RPC servers."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.real_buffers"], input=json.dumps([spec.to_dict() for spec in specs]),
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = []
    for buffers in json.loads(done.stdout):
        sizes: Counter = Counter()
        for item in buffers:
            key = cause_of_log(item["cause"], item["buffer"]), device_of_buffer(item["buffer"], servers)
            sizes[key] += item["size_bytes"]
        found.append(sizes)
    return found


def predicted_buffers(item) -> Counter:
    sizes: Counter = Counter()
    for line in item.lines:
        sizes[line.cause, line.device] += line.size_bytes
    return sizes


def assert_equal(predicted: Counter, logged: Counter, what: object) -> None:
    """Every buffer within 0.1 % of the log, or of the 0.01 MiB that it is rounded to."""
    assert predicted.keys() == logged.keys(), what
    for key, size in logged.items():
        assert abs(predicted[key] - size) <= max(1e-3 * size, LOG_STEP), (what, key)


def test_predicted_is_what_llama_cpp_allocates_over_a_grid(model, small):
    """Two models, three contexts, two cache types, repacking on and off, two micro-batches: 48 real contexts."""
    n_buffers = 0
    for path in (model, small):
        found = find_model(path, weights=True)
        for repack in (True, False):
            grid = itertools.product((512, 3000, 8192), ("f16", "q8_0"), (512, 96))
            specs = [
                make_spec(found, n_ctx, {"repack": repack, "type_k": kind, "type_v": kind, "n_ubatch": n_ubatch})
                for n_ctx, kind, n_ubatch in grid
            ]
            forecasts, _host = forecast(found, specs)
            for item, logged in zip(forecasts, logged_buffers(specs), strict=True):
                assert item.notes == ()
                assert_equal(predicted_buffers(item), logged, item.n_ctx)
                n_buffers += len(logged)
    assert n_buffers >= 4 * 48


@pytest.mark.parametrize(
    ("name", "quantization", "load_mode"),
    [
        ("untied", "Q4_K_M", "none"), ("qwen2", "Q8_0", "auto"), ("qwen3", "IQ4_NL", "auto"), ("mixtral", "Q4_0", "auto"),
        ("qwen3moe", "Q4_K_M", "auto"), ("gemma2", "Q4_0", "none"), ("gemma3", "Q2_K", "auto"),
    ],
)  # fmt: skip
def test_other_architectures_too(name, quantization, load_mode, tmp_path):
    path = write_synthetic(SMALL_SHAPES[name], quantization, tmp_path / "m.gguf", name=name)
    found = find_model(str(path), weights=True)
    specs = [
        make_spec(found, 4096, {"load_mode": load_mode}),
        make_spec(found, 3000, {"load_mode": load_mode, "flash_attn": "off", "n_ubatch": 128}),
    ]
    forecasts, _ = forecast(found, specs)
    for item, logged in zip(forecasts, logged_buffers(specs), strict=True):
        assert item.notes == ()
        assert_equal(predicted_buffers(item), logged, item.n_ctx)


def test_repacking_is_predicted_where_the_cpu_repacks(small):
    """So that the grid's comparison is not one of nothing with nothing."""
    features = predict_features()
    if features is None or (not features.has("AVX2") and not features.has("NEON", "DOTPROD")):
        pytest.skip("needs a CPU that repacks Q4_0")
    (item,), _ = forecast(find_model(small, weights=True), [make_spec(find_model(small, weights=True), 512, {})])
    assert predicted_buffers(item)[Cause.REPACKED, HOST] > 1 * MIB


def test_a_split_model_is_planned_from_all_its_headers(tmp_path):
    """Two files: the first with the metadata and half of the tensors, the second with the rest."""
    import gguf

    whole = from_shape("llama")
    names = [tensor.name for tensor in whole.header.tensors]
    paths = [tmp_path / f"m-0000{part}-of-00002.gguf" for part in (1, 2)]
    reader_path = write_synthetic(SMALL_SHAPES["llama"], "Q4_0", tmp_path / "whole.gguf", name="whole")
    reader = gguf.GGUFReader(reader_path)
    for part, path in enumerate(paths):
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_uint16("split.no", part)
        writer.add_uint16("split.count", 2)
        writer.add_int32("split.tensors.count", len(names))
        if part == 0:
            _copy_fields(reader, writer)
        half = reader.tensors[: len(names) // 2] if part == 0 else reader.tensors[len(names) // 2 :]
        for tensor in half:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    found = find_model(str(paths[0]), weights=True)
    assert [item.name for item in found.files] == [path.name for path in paths]
    spec = make_spec(found, 512, {})
    (item,), _ = forecast(found, [spec])
    assert item.notes == ()
    assert_equal(predicted_buffers(item), logged_buffers([spec])[0], "split")


def _copy_fields(reader, writer) -> None:
    import gguf

    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        if kind == gguf.GGUFValueType.ARRAY:
            writer.add_key_value(field.name, field.contents(), kind, sub_type=field.types[-1])
        else:
            writer.add_key_value(field.name, field.contents(), kind)


def examine(model, specs, **more):
    """The answer to one question, of which nothing is kept."""
    return account_memory(MemoryRequest(model, tuple(specs), **more), Session("overhead"))


def said(item) -> list[str]:
    """The remarks on a forecast or a ledger, as people read them."""
    return list(map(describe_note, item.notes))


@pytest.fixture(scope="module")
def report(model):
    """A real ledger of the embedded model at 8192 tokens; a short prompt will do."""
    found = find_model(model, weights=True)
    spec = make_spec(found, 8192, {})
    return examine(found, [dataclasses.replace(spec, n_prompt=64, n_depth=8192 - 65)])


def test_the_ledger_adds_up_and_explains_the_growth(report):
    measured = report.measurement
    assert measured is not None, report.failure
    rows = report.ledger
    assert [reading.step for reading in measured.readings] == [
        "interpreter", "imports", "backend", "model", "context", "first prompt", "first token", "after",
    ]  # fmt: skip
    sizes = [reading.rss_bytes for reading in measured.grown]
    assert sizes == sorted(sizes)
    if measured.weights_resident_bytes is None:
        pytest.skip("needs an OS that tells mappings apart (Linux)")
    assert sum(row.measured_bytes for row in rows if row.measured_bytes is not None) == measured.account.growth_bytes
    assert measured.account.explained_share >= 0.98
    for row in rows:
        if row.cause.is_buffer:
            assert abs(row.error) < 1e-3 or abs(row.predicted_bytes - row.measured_bytes) <= LOG_STEP
            assert 0 <= row.resident_bytes <= row.measured_bytes + 2 * 4096
    by_cause = {row.cause: row for row in rows}
    # The cache is cleared when it is made, so all of it is there; most of the compute buffer waits.
    assert by_cause[Cause.KV].resident_bytes == by_cause[Cause.KV].measured_bytes
    assert by_cause[Cause.COMPUTE].resident_bytes < 0.5 * by_cause[Cause.COMPUTE].measured_bytes
    assert by_cause[Cause.UNEXPLAINED].measured_bytes >= 0
    assert measured.readings[-1].rss_bytes < measured.resident_bytes - 100 * MIB


def test_the_whole_process_is_predicted_within_two_percent(report):
    totals = report.totals
    assert totals.predicted_bytes == pytest.approx(totals.measured_bytes, rel=0.02)


@pytest.mark.parametrize(
    ("n_ctx", "options"),
    [(1024, {"flash_attn": "off", "load_mode": "none", "repack": False}), (4096, {"type_k": "q8_0"})],
)
def test_the_process_is_predicted_with_other_settings_too(model, n_ctx, options):
    found = find_model(model, weights=True)
    report = examine(found, [make_spec(found, n_ctx, options)])
    assert report.measurement is not None, report.failure
    if report.measurement.weights_resident_bytes is None:
        pytest.skip("needs an OS that tells mappings apart (Linux)")
    totals = report.totals
    assert totals.predicted_bytes == pytest.approx(totals.measured_bytes, rel=0.02)
    assert any("without flash attention" in remark for remark in said(report)) == ("flash_attn" in options)


def test_a_model_of_405b_needs_no_weights():
    found = find_model("llama3.1:405b:q4_0", weights=False)
    report = examine(found, [make_spec(found, 8192, {})], predict_only=True, vram_bytes=8 * 10**9)
    sizes = predicted_buffers(report.forecast)
    assert sizes[Cause.KV, HOST] == 8192 * 126 * 2 * 16 * 128 * 2
    assert sizes[Cause.COMPUTE, HOST] > 100 * MIB
    assert sizes[Cause.OUTPUT, HOST] == pytest.approx(128256 * 4, abs=LOG_STEP)
    assert report.fits[0].needed_bytes > 231 * 10**9
    (card,) = report.cards[-1:]
    assert card.n_layers == 127
    assert 1 <= card.n_fitting <= 4  # each layer has 1.79 GB in Q4_0, the output more
    assert card.used_bytes <= 8 * 10**9 < card.used_bytes + 1.9 * 10**9


def test_several_contexts_have_a_slope():
    found = from_shape("llama")
    report = examine(found, [make_spec(found, n_ctx, {}) for n_ctx in (8192, 16384, 32768)])
    assert report.measurement is None
    row = 4 * 2 * 128 * 2  # layers, K and V, two heads of 64, two bytes
    assert (
        row <= report.context_slope <= 3 * row + 1024 * 2
    )  # and at most the mask's 512 f16 a cell in the compute buffer
    assert any("trained for 4096" in remark for remark in said(report))


@pytest.fixture
def hub_files(hub):  # noqa: F811
    """A model that is only on the hub."""
    data, size = make_header_bytes(SMALL_SHAPES["qwen3moe"], "Q4_0", name="far")
    hub.add("owner/far-GGUF", "far-Q4_0.gguf", data + bytes(size - len(data)))
    return hub


def test_a_model_that_is_only_on_the_hub(hub_files):
    found = find_model("hf:owner/far-GGUF/far-Q4_0.gguf", weights=False)
    assert found.path is None
    near = from_shape("qwen3moe")
    assert found.header.tensors == near.header.tensors
    assert len(found.files[0].data) == found.header.table_bytes  # and not the padding behind
    spec = make_spec(found, 2048, {})
    report = examine(found, [spec], predict_only=True)
    assert predicted_buffers(report.forecast) == predicted_buffers(forecast(near, [make_spec(near, 2048, {})])[0][0])
    assert report.model.origin == "server"
    assert find_model("hf:owner/far-GGUF/far-Q4_0.gguf", weights=True).path is None


def test_a_model_that_llama_cpp_cannot_run_has_its_arithmetic():
    found = find_model("llama3.2-vision:11b", weights=False)
    report = examine(found, [make_spec(found, 2048, {})], predict_only=True, vram_bytes=8 * 10**9)
    assert any("does not know the architecture mllama" in remark for remark in said(report.forecast))
    assert report.forecast.on(HOST) > 5 * 10**9
    assert (report.forecast.is_whole, report.cards[-1].is_estimated) == (False, True)


# --- trouble ----------------------------------------------------------------------------------------------------------


def test_an_architecture_that_llama_cpp_does_not_know_takes_only_its_lines_along():
    known = from_shape("llama")
    data = (
        known.files[0]
        .data.replace(b"llama.", b"lemur.")
        .replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lemur")
    )
    header = read_header(BytesSource(data))
    unknown = Model("lemur", header, (dataclasses.replace(known.files[0], data=data),), None)
    (item,), _ = forecast(unknown, [make_spec(unknown, 512, {})])
    sizes = predicted_buffers(item)
    assert sizes[Cause.KV, HOST] == 512 * 4 * 2 * 128 * 2
    assert (Cause.COMPUTE, HOST) not in sizes
    assert any("unknown model architecture" in remark for remark in said(item))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.attention.head_count", 0),
        ("llama.embedding_length", 3),
        ("llama.block_count", 400),
        ("llama.vocab_size", 7),
    ],
)
def test_a_header_that_lies_cannot_crash_the_parent(key, value):
    honest = from_shape("llama")
    data = bytearray(honest.files[0].data)
    at = data.index(key.encode()) + len(key) + 4
    data[at : at + 4] = value.to_bytes(4, "little")
    lying = Model(
        "liar", read_header(BytesSource(bytes(data))), (dataclasses.replace(honest.files[0], data=bytes(data)),), None
    )
    (item,), _ = forecast(lying, [make_spec(lying, 512, {})])
    assert any(remark.startswith("compute and output buffers:") for remark in said(item)) or key == "llama.vocab_size"


def test_tensors_that_are_not_what_they_should_be():
    honest = from_shape("llama")
    data = honest.files[0].data.replace(b"blk.0.attn_q.weight", b"blk.0.attn_Q.weight")
    lying = Model("liar", read_header(BytesSource(data)), (dataclasses.replace(honest.files[0], data=data),), None)
    (item,), _ = forecast(lying, [make_spec(lying, 512, {})])
    assert any("not found" in remark or "missing tensor" in remark for remark in said(item)), said(item)
    assert predicted_buffers(item)[Cause.KV, HOST] > 0


def test_a_worker_that_dies_is_a_remark(monkeypatch):
    found = from_shape("llama")
    dead = run_dry(found.files, [make_spec(found, 512, {})], [sys.executable, "-c", "import os; os.abort()"])
    assert "abort" in dead.trouble
    assert dead.build is None
    monkeypatch.setattr(overhead, "run_dry", lambda *_: dead)
    (item,), host = forecast(found, [make_spec(found, 512, {})])
    assert predicted_buffers(item)[Cause.KV, HOST] > 0
    assert any("abort" in remark for remark in said(item))
    assert host.features == predict_features()


def test_a_death_while_measuring_is_told(model):
    found = find_model(model, weights=True)
    session = Session("overhead", worker_command=[sys.executable, "-c", "import os; os.abort()"])
    assert overhead.measure(found, make_spec(found, 512, {}), session) is None
    assert session.failure is not None
    assert session.failure.cause == "abort"


def test_a_worker_that_cannot_be_started_is_said(model, monkeypatch):
    def refuse(_command, **_):
        raise NativeError("The measuring process cannot be started (too many); close some programs and try again.")

    found = find_model(model, weights=True)
    monkeypatch.setattr("harness.runs.session.Worker", refuse)
    with pytest.raises(NativeError, match="cannot be started"):
        overhead.measure(found, make_spec(found, 512, {}), Session("overhead"))


def test_a_file_longer_than_can_be(tmp_path):
    found = from_shape("llama")
    endless = dataclasses.replace(found, files=(dataclasses.replace(found.files[0], size_bytes=2**62),))
    with pytest.raises(HarnessError, match="TMPDIR"):
        write_sparse(endless.files, tmp_path)
    (item,), _ = forecast(endless, [make_spec(endless, 512, {})])
    assert any("dry run cannot be made" in remark for remark in said(item))


def test_a_sparse_file_takes_no_room(tmp_path):
    path = write_sparse((HeaderFile("m.gguf", b"x" * 5000, 10**12),), tmp_path)
    assert path.stat().st_size == 10**12
    if hasattr(path.stat(), "st_blocks"):
        assert path.stat().st_blocks * 512 < 10**6


def test_more_than_there_is_is_refused_before_loading(model, monkeypatch):
    found = find_model(model, weights=True)
    spec = make_spec(found, 8192, {})
    monkeypatch.setattr(overhead, "available_memory_bytes", lambda: 100 * 10**6)
    monkeypatch.setattr(overhead, "measure", lambda *_: pytest.fail("loaded all the same"))
    with pytest.raises(UsageError, match=r"are needed in memory and 95 MiB are free: .* too much"):
        examine(found, [spec])
    measured = []
    monkeypatch.setattr(
        overhead,
        "measure",
        lambda _model, _spec, session: measured.append(1) or session.fail(Failure("load", "as far as that", "refused")),
    )
    assert examine(found, [spec], force=True).failure.message == "as far as that"
    assert measured == [1]
    (item,), host = forecast(found, [spec])
    assert "too much" in check_room(find_fits(found, spec, item, host)[0])


def test_the_cpu_by_its_own_word_is_the_cpu_that_llama_cpp_was_built_for():
    """Then `harness inspect`, which asks the CPU, and the ledger, which asks llama.cpp, agree on what is repacked."""
    mine = predict_features()
    if mine is None:
        pytest.skip("needs an OS that tells the CPU's features")
    found = from_shape("llama")
    dry = run_dry(found.files, [make_spec(found, 512, {})])
    names = {"AVX2", "AVX512", "AVX512_VNNI", "AMX_INT8", "NEON", "DOTPROD", "MATMUL_INT8", "REPACK"}
    assert mine.names & names == read_features(dry.build.system_info).names & names


def test_cards_count_their_layers():
    found = from_shape("llama")
    spec = make_spec(found, 512, {})
    (item,), host = forecast(found, [spec])
    large, none = fit_cards(found, spec, item, host, 10**12)[-1], fit_cards(found, spec, item, host, 10**6)[-1]
    assert (large.n_fitting, none.n_fitting, large.n_layers) == (5, 0, 5)
    assert none.used_bytes == 0


# --- the command ------------------------------------------------------------------------------------------------------


def invoke(*arguments: str):
    return CliRunner().invoke(cli.command, list(arguments))


def test_the_command_measures_keeps_and_draws(results, small, tmp_path):
    done = invoke("-m", small, "--ctx", "1024", "-o", "json", "--plot", str(tmp_path / "l.svg"))
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert {"cause", "device", "measured_bytes", "predicted_bytes"} <= data["ledger"][0].keys()
    assert data["explained_bytes"] == pytest.approx(data["explained_share"] * data["resident_growth_bytes"])
    assert data["steps"][0]["step"] == "interpreter"
    (journal,) = results.rglob("*-overhead.jsonl")
    line = json.loads(journal.read_text(encoding="utf-8"))
    assert (line["kind"], line["schema"]) == ("overhead", 2)
    kept = read_line(line).content
    assert [row.measured_bytes for row in kept.ledger] == [row["measured_bytes"] for row in data["ledger"]]
    assert str(pathlib.Path(small).parent) not in journal.read_text(encoding="utf-8")
    assert (tmp_path / "l.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_predicting_keeps_nothing_and_needs_one_value_each(results):
    done = invoke("-m", "llama3.1:8b:q4_0", "--predict-only", "--vram", "8GB")
    assert done.exit_code == 0, done.output
    assert "layers fit" in done.stdout
    assert not results.exists()
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    wrong = invoke("-m", "llama3.1:8b:q4_0", "--predict-only", "-ub", "64,128")
    assert isinstance(wrong.exception, UsageError)
    assert isinstance(invoke("-m", "a.gguf", "-m", "b.gguf").exception, UsageError)
    assert invoke("--vram", "eight").exit_code == 2
    assert invoke("--ctx", "3").exit_code == 2


def test_ollamas_account_stands_behind_the_ledger(results):
    wanted = ("-m", "llama3.1:8b:q4_0", "--predict-only", "--ollama-2024")
    assert invoke(*wanted, "-o", "csv").stdout.startswith("cause,device,")
    account = json.loads(invoke(*wanted, "-o", "json").stdout)["ollama_2024"]
    assert (account["size_bytes"], account["size"], account["processor"]) == (6_654_289_920, "6.7 GB", "100% GPU")
    assert {"layers", "graph_bytes", "size_vram_bytes", "terms"} <= account.keys()


@pytest.mark.skipif(os.name == "nt", reason="the server is ended by POSIX signals")
def test_devices_behind_rpc_are_predicted_and_measured(model, tmp_path, results):
    """Layers, shares, named devices, a cache and experts on the host: buffer by buffer on two loopback servers as on none."""
    moe = str(write_synthetic(SMALL_SHAPES["mixtral"], "Q4_0", tmp_path / "moe.gguf", name="moe"))
    with rpc_server() as first, rpc_server() as second:
        both = (first.endpoint, second.endpoint)
        servers = {first.endpoint: ["RPC0"], second.endpoint: ["RPC1"]}
        for path, options in (
            (model, {"n_gpu_layers": 10, "rpc": both[:1]}),
            (model, {"n_gpu_layers": -1, "rpc": both, "tensor_split": (3.0, 1.0)}),
            (model, {"n_gpu_layers": 20, "rpc": both, "devices": ("RPC1",)}),
            (model, {"n_gpu_layers": 20, "rpc": both[:1], "no_kv_offload": True}),
            (moe, {"n_gpu_layers": -1, "rpc": both[:1], "n_cpu_moe": 1}),
            (moe, {"n_gpu_layers": -1, "rpc": both[:1], "override_tensors": (r"blk\.[01]\..*_exps=CPU",)}),
            (
                moe,
                {
                    "n_gpu_layers": 2,
                    "rpc": both[:1],
                    "override_tensors": (f"_down_exps=RPC0[{first.endpoint}]",),
                    "n_cpu_moe": 9,
                },
            ),
            (
                moe,
                {
                    "n_gpu_layers": 0,
                    "rpc": both[:1],
                    "override_tensors": ("token_embd=RPC0", "attn=RPC0"),
                    "load_mode": "none",
                },
            ),
        ):
            found = find_model(path, weights=True)
            spec = make_spec(found, 512, options)
            (item,), _ = forecast(found, [spec])
            predicted, (logged,) = predicted_buffers(item), logged_buffers([spec], servers)
            assert any(device != HOST for _, device in logged)
            if "tensor_split" in options:
                assert said(item)[0].startswith("compute buffers: of several devices llama.cpp plans")
                for key in [key for key in logged if key[0] == Cause.COMPUTE]:
                    size = logged.pop(key)
                    assert -LOG_STEP <= predicted.pop(key) - size <= 0.05 * size + LOG_STEP
            else:
                assert item.notes == (), options
            assert_equal(predicted, logged, options)
        asked = ["-m", model, "--rpc", first.endpoint, "-ngl", "10", "-c", "512", "-o", "json", "--no-save"]
        done = CliRunner().invoke(cli.command, asked)
    assert done.exit_code == 0, done.output
    rows = {(row["cause"], row["device"]): row for row in json.loads(done.stdout)["ledger"]}
    for cause in ("weights copied", "KV cache", "compute buffer"):
        row = rows[cause, "RPC0"]
        assert row["predicted_bytes"] == pytest.approx(row["measured_bytes"], abs=LOG_STEP)
    assert ("driver's context", "RPC0") not in rows, "what a server has free is a whole machine's"


def test_a_server_that_is_not_there_is_one_sentence(model):
    done = CliRunner().invoke(
        cli.command, ["-m", model, "--rpc", "127.0.0.1:1", "-ngl", "10", "-c", "512", "--no-save"]
    )
    assert isinstance(done.exception, HarnessError)
    assert "No RPC server can be reached" in str(done.exception)
