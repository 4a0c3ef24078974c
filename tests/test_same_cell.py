"""One key says when two cells are the same, and everybody who groups, resumes or compares asks it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from harness.records.cells import record_key
from harness.records.kinds import read_line, to_json
from harness.records.placements import index_records, look_key
from harness.sources.user_catalog import load_catalog
from harness.spec import MANNER, RunSpec, cell_key, parameters
from harness.speed.rates import collect
from harness.views.cells import describe_cells
from harness.views.document import Bars
from harness.views.figures import speed as plots
from harness.views.render_json import plain_values
from harness.views.report import Material, read_material
from harness.views.report.documents import show_memory
from harness.views.report.speeds import show_speeds

#: A value of each field that is not its default.
OTHER: dict[str, Any] = {
    "model": "/elsewhere/other.gguf", "n_gpu_layers": 7, "split_mode": "none", "main_gpu": 1, "tensor_split": (3.0, 1.0), "n_cpu_moe": 2,
    "devices": ("CUDA1",), "rpc": ("192.0.2.7:50052",), "load_mode": "none", "repack": False, "n_batch": 64, "n_ubatch": 32,
    "type_k": "q8_0", "type_v": "bf16", "no_kv_offload": True, "flash_attn": "on", "n_threads": 61, "n_depth": 32,
    "n_prompt": 77, "n_gen": 9, "numa": "isolate", "priority": -1, "override_tensors": ("exps=CPU",), "n_threads_batch": 3, "cpu_mask": "0x3",
}  # fmt: skip

FIELDS = [item.name for item in dataclasses.fields(RunSpec) if item.name not in MANNER]


def other_value(name: str) -> Any:
    """A value that the field does not have; made up for one that this file does not know yet."""
    if name in OTHER:
        return OTHER[name]
    default = next(item.default for item in dataclasses.fields(RunSpec) if item.name == name)
    return not default if isinstance(default, bool) else 3 if isinstance(default, int) else "another"


def pair(record, name):
    """The record, and one that differs from it by one field of what was asked."""
    changed = dataclasses.replace(record, asked=dataclasses.replace(record.asked, **{name: other_value(name)}))
    if name == "model":
        other = dataclasses.replace(record.model, file_sha256="another file's", file_name="other.gguf")
        changed = dataclasses.replace(changed, model=other, file_sha256="another file's")
    return [record, dataclasses.replace(changed, time_utc="2026-12-01T00:00:00Z")]


@pytest.fixture
def record(recorded):
    found = next(item for item in recorded if item.asked.n_gen and not item.failure)
    return dataclasses.replace(found, command="sweep")


def material(records):
    lines = read_material(read_line(to_json(record)) for record in records)
    return Material(lines, [], ["a.jsonl"], "2026-11-24T12:00:00Z", "0.1")


@dataclasses.dataclass(frozen=True)
class Wider(RunSpec):
    """A cell with a parameter that does not exist yet."""

    made_up: int = 0


def test_a_new_parameter_is_part_of_the_key():
    assert cell_key(Wider("m", n_gen=1)) != cell_key(Wider("m", n_gen=1, made_up=1))


def test_manner_and_folders_are_not():
    spec = RunSpec("/a/m.gguf", n_gen=1)
    assert cell_key(spec) == cell_key(dataclasses.replace(spec, model="C:\\b\\m.gguf", repetitions=3, seed=7))
    assert cell_key(spec, but=("n_gen",)) == cell_key(dataclasses.replace(spec, n_gen=9), but=("n_gen",))


def test_every_measured_parameter_is_in_it():
    assert {*parameters(), "model", "n_prompt", "n_gen"} <= set(FIELDS)
    assert {"repetitions", "warmup", "delay_s", "seed", "precision", "max_time_s"} == MANNER


@pytest.mark.parametrize("name", FIELDS)
def test_cells_that_differ_by_one_field_are_two_cells_everywhere(name, record):
    first, second = pair(record, name)
    assert cell_key(first.asked) != cell_key(second.asked)
    assert look_key(second.asked) not in index_records([first], 1)
    assert record_key(first) != record_key(second)
    rows = [str(row) for row in plain_values(describe_cells([first, second]))["cells"]]
    assert len(rows) == len(set(rows)) == 2, "they can be told apart"


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in ("model", "n_depth", "n_prompt", "n_gen")])
def test_bars_and_curves_of_two_cells_are_two(name, record):
    records = [dataclasses.replace(item, command="pp-tg") for item in pair(record, name)]
    (document,) = show_speeds(material(records))
    (bars,) = document.blocks(Bars)
    assert len({bar.label for bar in bars.bars}) == 2
    deep = [dataclasses.replace(item, asked=dataclasses.replace(item.asked, n_depth=64)) for item in records]
    drawn = plots.depth_series(collect([*records, *deep], load_catalog()))
    assert len(drawn) == 2, "a series of each"
    assert len({label for _, label in drawn}) == len(drawn)


def ledger(record, **changes):
    """A memory ledger's line as a journal keeps it, as far as the page needs it."""
    asked = {key: value for key, value in to_json(record)["asked"].items() if key != "model"}
    return {
        "schema": 1, "kind": "overhead", "model": "m.gguf", "n_ctx": 512, "asked": {**asked, **changes}, "ledger": [],
        "machine": to_json(record)["machine"],
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in ("model", "n_prompt", "n_gen", "n_depth")])
def test_ledgers_that_differ_by_one_parameter_are_both_shown(name, record):
    lines = [ledger(record), ledger(record, **{name: other_value(name)})]
    documents = show_memory(
        Material([read_line(line) for line in lines], [], ["a.jsonl"], "2026-11-24T12:00:00Z", "0.1")
    )
    assert sum(document.kind == "overhead" for document in documents) == 2


def test_a_ledger_that_was_made_again_with_other_repetitions_is_the_same(record):
    lines = [ledger(record), ledger(record, seed=3)]
    documents = show_memory(
        Material([read_line(line) for line in lines], [], ["a.jsonl"], "2026-11-24T12:00:00Z", "0.1")
    )
    assert sum(document.kind == "overhead" for document in documents) == 1
