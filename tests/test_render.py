"""Golden outputs of a recorded run. After a wanted change: UPDATE_GOLDEN=1 scripts/test tests/test_render.py, then read the diff."""

import csv
import dataclasses
import io
import json
import os
import pathlib
import sqlite3

import pytest

from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Failure, Power, Sample, Telemetry
from harness.records.failures import describe_failure
from harness.views.cells import write_cells
from harness.views.llama_bench import bench_fields

GOLDEN = pathlib.Path(__file__).parent / "golden"

#: llama-bench's own output for the same model and tests, recorded from the llama-bench of the same source.
THEIRS = json.loads((GOLDEN / "llama-bench.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["table", "md", "csv", "json", "jsonl", "sql"])
def test_output_is_the_golden_one(name, recorded):
    text = write_cells(recorded, name)
    path = GOLDEN / f"pp-tg.{name}"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["table", "md"])
def test_a_failed_cell_is_a_row_with_its_reason(name, recorded):
    text = write_cells(recorded, name)
    assert "failed [" in text
    assert describe_failure(recorded[-1].failure) in " ".join(text.split())


def test_the_plain_table_fits_eighty_columns(recorded):
    reason = "error loading model: check_tensor_dims: tensor 'blk.0.attn_q.weight' has wrong shape"
    failure = dataclasses.replace(recorded[-1].failure, message=reason)
    for records in (recorded[:2], [dataclasses.replace(recorded[-1], failure=failure)]):
        text = write_cells(records, "table")
        assert max(map(len, text.splitlines())) <= 80


def test_fields_are_llama_benchs_in_order_and_type(recorded):
    ours = json.loads(write_cells(recorded, "json"))[0]
    theirs = THEIRS[0]
    assert list(ours)[: len(theirs)] == list(theirs)
    assert {key: type(ours[key]) for key in theirs} == {key: type(value) for key, value in theirs.items()}


def test_every_setting_of_llama_bench_is_written_as_it_writes_it(recorded):
    """Source: test::get_values in llama-bench.cpp."""
    settings = {
        "cpu_mask": "0x3", "cpu_strict": True, "poll": 0, "load_mode": "mmap+mlock", "no_op_offload": True, "no_host": True,
        "override_tensors": (r"blk\.1\..*=CPU", "exps=CUDA0"),
    }  # fmt: skip
    asked = dataclasses.replace(recorded[0].asked, **settings)
    record = dataclasses.replace(recorded[0], asked=asked)
    names = ("cpu_mask", "cpu_strict", "poll", "tensor_buft_overrides", "load_mode", "no_op_offload", "no_host")
    (row,) = csv.DictReader(io.StringIO(write_cells([record], "csv")))
    assert [row[name] for name in names] == ["0x3", "1", "0", r"blk\.1\..*=CPU;exps=CUDA0", "mmap+mlock", "1", "1"]
    (row,) = json.loads(write_cells([record], "json"))
    assert [row[name] for name in names] == ["0x3", True, 0, r"blk\.1\..*=CPU;exps=CUDA0", "mmap+mlock", 1, True]
    assert type(row["no_op_offload"]) is int, "as llama-bench has it, unlike no_host"


def test_rows_of_both_tools_pair(recorded):
    """All of llama-bench's 28 key properties are equal for the same question, but for the file's place."""
    ours, theirs = bench_fields(recorded[0]), THEIRS[0]
    own = {"model_filename", "build_number", "test_time", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts", "n_prompt"}
    assert {key: ours[key] for key in ours if key not in own} == {key: theirs[key] for key in ours if key not in own}


def test_sql_fills_a_database_that_llama_bench_began(recorded):
    database = sqlite3.connect(":memory:")
    database.executescript((GOLDEN / "llama-bench.sql").read_text(encoding="utf-8"))
    database.executescript(write_cells(recorded, "sql"))
    rows = database.execute("SELECT n_prompt, n_gen, typeof(avg_ts), typeof(model_size) FROM llama_bench").fetchall()
    assert [row[:2] for row in rows] == [(16, 0), (0, 4), (64, 0), (0, 16)]
    assert {row[2:] for row in rows} == {("real", "integer")}
    assert database.execute("SELECT count(*) FROM harness_bench WHERE median_ts > 0").fetchone() == (2,)


def test_hostile_names_stay_text(recorded):
    model = dataclasses.replace(recorded[0].model, description='a\'); DROP TABLE llama_bench;-- "<b>"\n')
    record = dataclasses.replace(recorded[0], model=model)
    database = sqlite3.connect(":memory:")
    database.executescript(write_cells([record], "sql"))
    assert database.execute("SELECT model_type FROM llama_bench").fetchone() == (model.description,)
    assert json.loads(write_cells([record], "json"))[0]["model_type"] == model.description


def test_few_samples_and_cautions_become_numbered_footnotes(recorded):
    few = dataclasses.replace(
        recorded[0],
        samples=recorded[0].samples[:4],
        warnings=(Caution(CautionCause.BUSY_MACHINE, "busy machine: somebody"),),
    )
    text = write_cells([few, few], "table")
    assert "[1] busy machine: somebody\n[2] need >= 6 samples for a 95 % interval" in text
    assert text.count("[1,2]") == 2
    assert "95 % interval  " not in text, "a column of nothing is none"


def test_an_interrupted_cell_shows_what_it_has(recorded):
    cut = dataclasses.replace(
        recorded[0],
        failure=Failure("repetition", "interrupted after 6 of 10 repetitions", "interrupted"),
        warnings=(Caution(CautionCause.INTERRUPTED, "interrupted after 6 of 10 repetitions"),),
    )
    text = write_cells([cut], "table")
    assert "failed" not in text
    assert "[1] interrupted after 6 of 10 repetitions" in text


def test_what_varies_gets_a_column_and_what_does_not_none(recorded):
    other = dataclasses.replace(recorded[0], asked=dataclasses.replace(recorded[0].asked, n_ubatch=64))
    text = write_cells([recorded[0], other], "md")
    assert " n_ubatch |" in text.splitlines()[0]
    assert "type_k" not in text
    assert " n_ubatch |" not in write_cells([recorded[0]], "md")


def test_the_median_is_not_the_mean(recorded):
    samples = tuple(Sample(ns, ns, (), False) for ns in (100, 100, 100, 100, 100, 1000))
    row = json.loads(write_cells([dataclasses.replace(recorded[0], samples=samples)], "json"))[0]
    assert row["median_ns"] == 100
    assert row["avg_ns"] == 250


def test_energy_is_a_column_where_something_told_it_and_none_elsewhere(recorded):
    assert "J/token" not in write_cells(recorded, "table")
    assert "joules" not in write_cells(recorded, "json") + write_cells(recorded, "csv")
    watched = dataclasses.replace(
        recorded[0], telemetry=Telemetry(power=(Power("rapl:package-0", 100.0, 2.0),), sampler_share=0.004)
    )
    for name in ("table", "md"):
        text = write_cells([watched, recorded[1]], name)
        assert "J/token by rapl:package-0; watching took 0.40 % of one CPU" in text
        assert max(map(len, write_cells([watched], "table").splitlines())) <= 80
    first, second = json.loads(write_cells([watched, recorded[1]], "json"))
    assert first["joules_per_token"] > 0
    assert "joules_per_token" not in second
    assert write_cells([watched, recorded[1]], "csv").splitlines()[0].endswith(",joules_per_token")
