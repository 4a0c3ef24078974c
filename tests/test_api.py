"""What a script gets from `import harness`: the runs of the commands, typed, documented, and silent."""

from __future__ import annotations

import ast
import inspect
import pathlib
import sys
import types

import pytest

import harness
from harness import api
from harness.records.text import Figures, TextRun, TextSettings
from harness.runs import cells as runs_cells

from .conftest import HERE
from .gguf_bytes import llama_like

RECORDED = HERE / "recorded"


def test_every_public_name_is_there_documented_and_typed():
    stub = ast.parse((pathlib.Path(harness.__file__).parent / "__init__.pyi").read_text(encoding="utf-8"))
    stated = {
        (node.module, alias.asname) for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert stated == {(module, name) for module, names in harness._PUBLIC.items() for name in names}
    assert set(harness.__all__) <= set(dir(harness))
    for name in harness._HOME:
        thing = getattr(harness, name)
        assert inspect.getdoc(thing), f"{name} has no docstring"
    assert (pathlib.Path(harness.__file__).parent / "py.typed").exists()
    with pytest.raises(AttributeError, match="has no attribute 'mesure'"):
        _ = harness.mesure


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"n_gpu_layers": 0}, {"n_gpu_layers": (0,)}),
        ({"n_gpu_layers": "all"}, {"n_gpu_layers": (-1,)}),
        ({"n_gpu_layers": "0-8+4"}, {"n_gpu_layers": (0, 4, 8)}),
        ({"n_depth": range(3)}, {"n_depth": (0, 1, 2)}),
        ({"type_k": ("f16", "q8_0")}, {"type_k": ("f16", "q8_0")}),
        ({"repack": [True, False]}, {"repack": (True, False)}),
        ({"tensor_split": (3, 1)}, {"tensor_split": ((3.0, 1.0),)}),
        ({"tensor_split": [(3, 1), (1, 1)]}, {"tensor_split": ((3.0, 1.0), (1.0, 1.0))}),
        ({"devices": ("CUDA0", "RPC0")}, {"devices": (("CUDA0", "RPC0"),)}),
        ({"devices": [(), ("none",)]}, {"devices": ((), ("none",))}),
        ({"rpc": ("a:1", "b:2")}, {"rpc": (("a:1", "b:2"),)}),
        ({"n_threads": None}, {}),
    ],
)
def test_settings_are_values_lists_or_what_one_types(settings, expected):
    assert api.read_axes(settings) == expected


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n_gpu_layer": 1}, "no setting n_gpu_layer"),
        ({"type_k": "q9"}, "type_k='q9': 'q9' is not one of"),
        ({"n_batch": 0}, "n_batch=0: 0 is out of range"),
        ({"n_batch": 1.5}, "n_batch=1.5: '1.5' is not a number"),
        ({"repack": 7}, "repack=7: '7' is neither on nor off"),
        ({"n_pg": "8,2"}, "n_pg='8,2' is no list of pairs of lengths"),
        ({"n_pg": [(8, -2)]}, "is no list of pairs of lengths"),
        ({"repetitions": "2"}, "repetitions='2' is not a whole number"),
        ({"precision": "2%"}, "precision='2%' is not a number"),
    ],
)
def test_a_wrong_setting_is_one_sentence(settings, said):
    with pytest.raises(harness.UsageError, match=said):
        harness.measure(**settings)


def test_measuring_is_what_the_command_does(monkeypatch, tmp_path, capfd):
    asked = []
    monkeypatch.setattr("harness.runs.asking.find_file", lambda reference, on_event: tmp_path / "no.gguf")
    monkeypatch.setattr(
        runs_cells, "measure_cells", lambda request, session: asked.append((request, session.command)) or []
    )
    assert harness.measure("a.gguf", n_prompt=(8, 16), n_gen=0, n_gpu_layers=[0, 1], repetitions=2) == []
    ((request, command),) = asked
    assert command == "pp-tg"
    assert [(cell.n_gpu_layers, cell.test, cell.repetitions) for cell in request.cells] == [
        (0, "pp8", 2), (0, "pp16", 2), (1, "pp8", 2), (1, "pp16", 2),
    ]  # fmt: skip
    assert capfd.readouterr() == ("", "")


def test_a_model_is_looked_at_and_predicted_by_its_header(tmp_path, capfd):
    path = tmp_path / "a.gguf"
    path.write_bytes(llama_like(layers=2, vocab=300).build(data=True))
    assert harness.inspect(path).anatomy.n_layers == 2
    with pytest.raises(harness.UsageError, match=r"n_ubatch=\(1, 2\) is 2 values"):
        harness.account_memory(path, n_ubatch=(1, 2))
    with pytest.raises(harness.UsageError, match="n_ctx=1"):
        harness.account_memory(path, n_ctx=1)
    assert capfd.readouterr() == ("", "")


def test_accounting_for_memory_is_what_the_command_does(monkeypatch, tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(llama_like(layers=2, vocab=300).build(data=True))
    asked = []
    monkeypatch.setattr("harness.runs.memory.account_memory", lambda request, session: asked.append(request))
    harness.account_memory(path, n_ctx="64,128", type_k="q8_0", vram_bytes=5)
    (request,) = asked
    assert [spec.n_ctx for spec in request.specs] == [64, 128]
    assert {spec.type_k for spec in request.specs} == {"q8_0"}
    assert (request.vram_bytes, request.is_measured) == (5, False)


def test_sweeping_and_timing_are_what_the_commands_do(monkeypatch, tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(llama_like(layers=2, vocab=300).build(data=True))
    asked = []
    monkeypatch.setattr(
        "harness.runs.placements.sweep_placements", lambda request, session: asked.append((request, session.command))
    )
    harness.sweep(path, n_prompt=(8, 16), goal="chat", n_gpu_layers=(0, 1))
    ((request, command),) = asked
    assert (request.model, request.n_prompt, request.n_gen, command) == (str(path), (8, 16), None, "sweep")
    assert request.axes == {"n_gpu_layers": (0, 1)}
    assert request.goal is not None
    assert request.goal.name == "chat"
    with pytest.raises(harness.UsageError, match="no setting talk; there are tg, pp, chat"):
        harness.sweep(path, goal="talk")
    timed = []
    monkeypatch.setattr(
        "harness.runs.token_time.measure_token_time", lambda request, session, **more: timed.append((request, more))
    )
    harness.account_time(path, depths=0, rounds=2, n_ubatch=64, roof_bytes_per_s=1e9)
    ((plan, more),) = timed
    assert (plan.plan.depths, plan.plan.rounds, plan.plan.spec.n_ubatch) == ((0,), 2, 64)
    assert more == {"roof_bytes_per_s": 1e9}


def test_a_text_is_kept_without_its_words_unless_asked(monkeypatch, tmp_path, recorded):
    run = TextRun(
        "run",
        recorded[0].time_utc,
        recorded[0].machine,
        "0",
        TextSettings(),
        "hash",
        Figures(1),
        "stop",
        prompt="why",
        text="so",
    )
    monkeypatch.setattr("harness.runs.text.plan_text", lambda *asked: asked)
    monkeypatch.setattr("harness.runs.text.write_text", lambda request, session, on_text, **more: run)
    assert harness.write_text("why", results=tmp_path, seed=3).text == "so"
    assert harness.write_text("why", results=tmp_path, keep_text=True).text == "so"
    kept = harness.read_records(tmp_path)
    assert [(type(one), one.prompt, one.text) for one in kept] == [(TextRun, None, None), (TextRun, "why", "so")]
    with pytest.raises(harness.UsageError, match="no setting sead"):
        harness.write_text("why", sead=3)


def test_a_prediction_is_what_the_command_says(tmp_path, capfd):
    prediction = harness.predict(machine="M4 Pro", size_bytes=4_000_000_000, results=tmp_path)
    assert [answer.machine for answer in prediction.answers] == ["M4 Pro 16-core GPU", "M4 Pro 20-core GPU"]
    with pytest.raises(harness.UsageError, match="no setting machines; there are"):
        harness.predict(machines="M4 Pro")
    assert capfd.readouterr() == ("", "")


def test_an_interrupted_question_ends_as_python_does(monkeypatch, tmp_path):
    monkeypatch.setattr("harness.runs.asking.find_file", lambda reference, on_event: tmp_path / "no.gguf")

    def interrupt(request, session):
        with session.until_interrupted():
            raise KeyboardInterrupt
        return []

    monkeypatch.setattr(runs_cells, "measure_cells", interrupt)
    with pytest.raises(KeyboardInterrupt):
        harness.measure()


def test_records_are_read_from_files_and_folders_and_damage_is_told(tmp_path):
    (tmp_path / "a.jsonl").write_text((RECORDED / "pp-tg.jsonl").read_text(encoding="utf-8") + "{\n", encoding="utf-8")
    told = []
    records = harness.read_records(tmp_path, on_event=told.append)
    assert [record.asked.test for record in records] == ["pp64", "tg16", "pp9000000"]
    assert [type(event) for event in told] == [harness.Remark]
    assert records == harness.read_records(RECORDED / "pp-tg.jsonl")
    with pytest.raises(harness.UsageError, match="There is no file or folder"):
        harness.read_records(tmp_path / "nowhere")


def test_records_become_plain_values():
    values = harness.to_dicts(harness.read_records(RECORDED))
    assert [value["kind"] for value in values] == ["result", "result", "failure"]
    assert values[0]["asked"]["n_prompt"] == 64


def test_records_become_a_table_where_pandas_is(monkeypatch):
    """pandas itself is not among the dependencies: a stand-in takes the rows."""
    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=list))
    cells = harness.read_records(RECORDED)
    frame = harness.to_frame(cells)
    assert [(row["n_prompt"], row["n_gen"]) for row in frame] == [(64, 0), (0, 16)]
    assert frame[0]["median_ts"] == pytest.approx(harness.summarize(cells[0]).rate_tok_per_s)
    assert {"ci95_low_ts", "n_gpu_layers", "model_type"} <= set(frame[0])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(harness.HarnessError, match="needs pandas"):
        harness.to_frame(cells)


@pytest.mark.engine
def test_a_script_measures_the_embedded_model(tmp_path, capfd):
    told = []
    (record,) = harness.measure(n_prompt=8, n_gen=0, repetitions=1, results=tmp_path, on_event=told.append)
    assert harness.summarize(record).rate_tok_per_s > 0
    assert [event.content for event in told if isinstance(event, harness.Measured)] == [record]
    assert [harness.to_dicts([kept]) for kept in harness.read_records(tmp_path)] == [harness.to_dicts([record])]
    assert capfd.readouterr() == ("", "")
