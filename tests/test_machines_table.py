"""The table of machines: published rows as given, measured ones marked, in every format."""

import csv
import dataclasses
import io
import json
import os
import pathlib
import re

import pytest

from harness.sources.user_catalog import load_catalog
from harness.speed.published import load_machines
from harness.speed.rates import collect
from harness.speed.standings import list_models, measured_rows, order_least, published_rows, sort_rows
from harness.views import page
from harness.views.formats import render
from harness.views.machines import describe_machines

CATALOG = load_catalog()
GOLDEN = pathlib.Path(__file__).parent / "golden"


def show(rows, form="table"):
    return render(describe_machines(rows, "tg"), form)


@pytest.fixture
def rows(recorded):
    """The article's machines and the recorded one."""
    return [*published_rows(CATALOG), *measured_rows(collect(recorded, CATALOG), "tg")]


def pretend(recorded, name, n_params, **model):
    """The recorded generation as if it had been another model's."""
    record = recorded[1]
    changed = dataclasses.replace(record.model, file_name=name, n_params=n_params, **model)
    return dataclasses.replace(record, model=changed)


@pytest.mark.parametrize("name", ["table", "md", "csv", "json"])
def test_output_is_the_golden_one(name, rows):
    text = show(sort_rows(rows), name)
    path = GOLDEN / f"machines.{name}"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_it_fits_eighty_columns_and_says_what_does_not(rows, recorded):
    more = [pretend(recorded, f"unknown-model-{i}.gguf", 7 * 10**9 + i * 10**6) for i in range(4)]
    text = show([*rows, *measured_rows(collect(more, CATALOG), "tg")])
    assert max(map(len, text.splitlines())) <= 80
    assert "left out for width: " in text


def test_what_is_left_out_is_never_all_that_a_machine_has(rows):
    own = next(row for row in rows if not row.is_published)
    wide = dataclasses.replace(own, machine="a name that is as wide as it can be")
    with page.of_width(60):
        text = show([*rows, wide])
    assert re.search("left out for width: .*llama3.1 70b", " ".join(text.split()))
    (line,) = [line for line in text.splitlines() if line.startswith("» a ")]
    assert re.search(r" \d+\.\d", line)


def test_what_was_measured_here_is_the_last_to_be_left_out(rows, recorded):
    mine = pretend(recorded, "mine.gguf", 7 * 10**9)
    order = order_least([*rows, *measured_rows(collect([mine], CATALOG), "tg")])
    assert set(order[-3:]) >= {"mine", "smollm2:135m"}
    assert order[0] == "llama3.1:70b"


def test_two_quantizations_of_a_model_are_two_columns(recorded):
    names = {"Q8_0": "llama 1B Q8_0", "Q4_0": "llama 1B Q4_0"}
    both = [
        pretend(recorded, f"llama-3.2-1b-{kind}.gguf", 1235814432, description=said) for kind, said in names.items()
    ]
    (row,) = measured_rows(collect(both, CATALOG), "tg")
    assert {model: cell.quantization for model, cell in row.cells.items()} == {
        "llama3.2:1b": "Q8_0", "llama3.2:1b Q4_0": "Q4_0",
    }  # fmt: skip
    (row,) = measured_rows(collect(both[1:], CATALOG), "tg")
    assert list(row.cells) == ["llama3.2:1b"], "the only one needs no telling apart"


def test_published_figures_are_as_given(rows):
    assert " 4.15 [" in show(rows)
    assert [row.machine for row in sort_rows(rows, "given")][:15] == [machine.name for machine in load_machines()]


def test_sorting_by_a_model_puts_those_without_it_last(rows):
    ordered = sort_rows(rows, "llama3.1:70b")
    rates = [row.cells["llama3.1:70b"].rate_tok_per_s for row in ordered if "llama3.1:70b" in row.cells]
    assert rates == sorted(rates, reverse=True)
    assert "llama3.1:70b" in ordered[len(rates) - 1].cells
    assert all("llama3.1:70b" not in row.cells for row in ordered[len(rates) :])


def test_a_measured_machine_stands_among_its_equals(recorded):
    fast = pretend(recorded, "llama-3.2-1b-q8_0.gguf", 1235814432, description="llama 1B Q8_0")
    rows = sort_rows([*published_rows(CATALOG), *measured_rows(collect([fast], CATALOG), "tg")])
    names = [row.machine for row in rows]
    rate = next(row for row in rows if not row.is_published).cells["llama3.2:1b"].rate_tok_per_s
    assert 37.6 < rate < 164.6
    assert names.index("RTX 3070 Ti") < names.index("AMD EPYC (2c, 24G)") < names.index("i7-13700T")


def test_a_synthetic_model_is_marked(recorded):
    made = pretend(recorded, "llama3.2-1b-q4_0.gguf", 1235814432, is_synthetic=True)
    rows = measured_rows(collect([made], CATALOG), "tg")
    for name in ("table", "md"):
        assert "random weights" in show(rows, name)
        assert "*" in show(rows, name).splitlines()[3 if name == "table" else 2]
    assert json.loads(show(rows, "json"))["figures"][0]["is_synthetic"] is True
    assert next(csv.DictReader(io.StringIO(show(rows, "csv"))))["is_synthetic"] == "1"


def test_hostile_names_stay_text(recorded):
    bad = pretend(recorded, "a|b<script>\nc.gguf", 999, description="llama 1B Q4_0")
    rows = measured_rows(collect([bad], CATALOG), "tg")
    assert list_models(rows) == ["a|b<script>\nc"]
    head = show(rows, "md").splitlines()[0]
    assert "a\\|b&lt;script> c" in head
    assert show(rows, "table").splitlines()[0].count("\n") == 0
    assert next(csv.DictReader(io.StringIO(show(rows, "csv"))))["model"] == "a|b<script>\nc"


def test_a_record_with_other_settings_says_so(recorded):
    (row,) = measured_rows(collect([dataclasses.replace(recorded[1], threads_source="asked")], CATALOG), "tg")
    assert "not with default settings" in row.cells["smollm2:135m"].remarks
    assert "not with default settings" in show([row])


def test_prompts_are_another_table(recorded):
    (row,) = measured_rows(collect(recorded, CATALOG), "pp")
    assert row.cells["smollm2:135m"].test == "pp64"
