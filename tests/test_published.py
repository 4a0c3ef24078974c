"""Published figures: every row of the data is there, with its source, and empty fields are None."""

import csv
import pathlib

import pytest

from harness.gguf.cost import cost_of_shape
from harness.speed import published

DATA = pathlib.Path(published.__file__).parent / "data"


def rows(name):
    return list(csv.DictReader((DATA / name).read_text(encoding="utf-8").splitlines()))


def test_every_row_loads():
    assert len(published.load_machines()) == len(rows("machines.csv")) == 15
    assert len(published.load_bandwidths()) == len(rows("bandwidth.csv")) == 34
    assert len(published.load_apple_chips()) == len(rows("apple_silicon.csv")) == 28
    assert len(published.load_accuracy()) == len(rows("model_accuracy.csv")) == 77


def test_figures_are_the_articles():
    machines = {machine.name: machine for machine in published.load_machines()}
    assert machines["GTX 960"].rates_tok_per_s["llama3.1:8b"] == 4.15
    assert machines["RTX 4050 Laptop"].rates_tok_per_s["llama3.1:8b"] is None
    figures = [rate for machine in machines.values() for rate in machine.rates_tok_per_s.values()]
    assert sum(rate is not None for rate in figures) == 57
    assert 0 not in figures


def test_every_row_has_a_source():
    for table in (
        published.load_machines(),
        published.load_bandwidths().values(),
        published.load_apple_chips(),
        published.load_accuracy(),
    ):
        assert all(row.source.strip() for row in table)


def test_every_machine_has_a_bandwidth_and_every_card_its_memory():
    for machine in published.load_machines():
        peak = published.load_bandwidths()[machine.name]
        assert peak.kind == machine.kind
        assert (peak.vram_bytes is not None) == (machine.kind == "gpu")


def test_what_is_missing_is_none():
    first = published.load_apple_chips()[0]
    assert (first.chip, first.gpu_cores, first.tg_tok_per_s["F16"]) == ("M1", 7, None)
    assert any(score.shots is None for score in published.load_accuracy())


@pytest.mark.parametrize(("kind", "gib"), [("F16", 12.55), ("Q8_0", 6.67), ("Q4_0", 3.56)])
def test_llama_7b_has_the_sizes_that_the_discussion_gives(kind, gib):
    assert cost_of_shape(published.LLAMA_7B, kind).size_bytes / 1024**3 == pytest.approx(gib, abs=0.005)


def test_cautions_are_about_machines_that_are_there():
    names = {machine.name for machine in published.load_machines()}
    assert set(published.CAUTIONS) <= names
    for machine, model in published.FIGURE_CAUTIONS:
        assert machine in names
        assert model in published.ARTICLE_MODELS
