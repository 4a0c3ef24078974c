"""A parameter of a cell is in everything that is made of cells by being a field of `RunSpec`: one is made up and looked for."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from .conftest import HERE

#: Run with one parameter more (tests/made_up.py): where it is, by place.
PROBE = """
import dataclasses, json, pathlib, sys
import click
import harness
from harness.cli import cli
from harness.native.worker import RunSpec as WorkersSpec
from harness.records.cells import record_key
from harness.records.kinds import read_line, to_json
from harness.records.statistics import digest
from harness.runs.asking import plan_cells
from harness.grid import Grid
from harness.spec import RunSpec, cell_key, find_varied, parameters
from harness.speed.rates import is_default
from harness.views.cells import write_cells
from harness.views.llama_bench import flat_rows

first, second = harness.read_records(pathlib.Path(sys.argv[1]))[:2]
with_ = lambda record, value: dataclasses.replace(record, asked=dataclasses.replace(record.asked, made_up=value))
records = [with_(first, 41), with_(first, 42)]
line = json.loads(json.dumps(to_json(records[0])))
found = {
    "key of a cell": cell_key(records[0].asked) != cell_key(records[1].asked),
    "key of a record": record_key(records[0]) != record_key(records[1]),
    "what varies": find_varied(record.asked for record in records) == ["made_up"],
    "a journal's line": line["asked"]["made_up"] == 41 and read_line(line).content.asked.made_up == 41,
    "what a worker is asked": WorkersSpec.from_dict(records[0].asked.to_dict()).made_up == 41,
    "what is not the default": is_default(with_(dataclasses.replace(first, threads_source="physical cores"), 0))
        and not is_default(records[0]),
    "a script's settings": harness.api.read_axes({"made_up": "1-3"}) == {"made_up": (1, 2, 3)},
    "a grid": {cell.made_up for cell in Grid(["m"], {"made_up": (1, 2)}).cells()} == {1, 2},
    "rows of a DataFrame": [row["made_up"] for row in flat_rows(records)] == [41, 42],
}
for name in ("table", "md", "csv", "json", "jsonl", "sql", "html"):
    text = write_cells(records, name)
    found[f"-o {name}"] = "made_up" in text and "41" in text and "42" in text
context = click.Context(cli, **cli.context_settings)
for name in cli.list_commands(context):
    options = {option.name for option in cli.get_command(context, name).params}
    if "n_ubatch" in options:
        found[f"options of {name}"] = "made_up" in options
from harness.sources.user_catalog import load_catalog
from harness.views.report import Material, read_material, render_report
lines = read_material(read_line(json.loads(json.dumps(to_json(record)))) for record in records)
catalog = load_catalog()
page = render_report(Material(lines, [], ["a.jsonl"], "2026-11-24T12:00:00Z", "0.1", catalog=catalog))
found["the report"] = "made_up 41" in page and "made_up 42" in page
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, bool]:
    script = tmp_path_factory.mktemp("made-up") / "probe.py"
    script.write_text(PROBE, encoding="utf-8")
    words = [sys.executable, "-m", "tests.made_up", str(script), str(HERE / "recorded")]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", cwd=HERE.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_new_parameter_is_everywhere(found):
    assert [place for place, is_there in found.items() if not is_there] == []
    assert {"options of pp-tg", "options of sweep", "options of overhead", "-o table", "-o csv", "-o sql"} <= set(found)
