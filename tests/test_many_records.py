"""Records are read by the hundred thousand: each is decoded, judged and looked at for a warm-up once. Counted, and never timed."""

from __future__ import annotations

import collections
import dataclasses
import json

import pytest

from harness.cli import journals
from harness.records import cell_verdict, cells, disturbed, history, measurements, statistics
from harness.records.cells import Conditions
from harness.records.history import group_series
from harness.records.journal import TOKEN_TIMES, Journal, read_lines
from harness.records.kinds import to_json
from harness.records.verdict import judge
from harness.runs.bench_files import read_measurements
from harness.sources.user_catalog import load_catalog
from harness.views.report import Material, read_material

from .same import plain

N = 5


@pytest.fixture
def journal(tmp_path, recorded):
    """A journal of several records as they are made today, and the number of timed repetitions in each."""
    seen = Conditions(wall_ns=10**9, n_cpus=2, n_cores=2, busy_s=2.0, own_s=2.0, waited_ns=0)
    samples = tuple(dataclasses.replace(one, conditions=seen) for one in recorded[1].samples)
    asked = dataclasses.replace(recorded[1].asked, repetitions=None, warmup=None)
    record = dataclasses.replace(recorded[1], samples=samples, asked=asked)
    with Journal(tmp_path, "pp-tg") as file:
        for _ in range(N):
            file.append(record)
    return file.path, record


@pytest.fixture
def counted(monkeypatch):
    """How often what costs is called."""
    counts = collections.Counter()

    def count(module, name):
        real = getattr(module, name)

        def counting(*args, **given):
            counts[name] += 1
            return real(*args, **given)

        monkeypatch.setattr(module, name, counting)

    for module in (statistics, history, measurements):
        count(module, "judge_cell")
    count(cells, "count_warmups")
    count(disturbed, "find_disturbances")
    return counts


def read_for_table(path):
    journals.read_measured([path], load_catalog())


def read_for_report(path):
    lines = read_material(read_lines([path], pytest.fail, without=(TOKEN_TIMES,)))
    material = Material(lines)
    assert [judge(line.content) for line in lines] == [cell.summary.verdict for cell in material.cells]


def read_for_history(path):
    group_series(line.content for line in read_lines([path], pytest.fail))


def read_for_compare(path):
    list(read_measurements(path, pytest.fail))


@pytest.mark.parametrize("read", [read_for_table, read_for_report, read_for_history, read_for_compare])
def test_each_record_is_looked_at_once(read, journal, counted):
    path, record = journal
    n_timed = len(cell_verdict.mark(record))
    counted.clear()
    read(path)
    assert counted["judge_cell"] == N
    assert counted["count_warmups"] == N
    assert counted["find_disturbances"] == N * n_timed


def test_times_of_tokens_are_left_out_and_nothing_else(journal):
    path, record = journal
    (whole, *_), (bare, *_) = read_lines([path], pytest.fail), read_lines([path], pytest.fail, without=(TOKEN_TIMES,))
    without = tuple(dataclasses.replace(one, token_ns=()) for one in record.samples)
    assert whole.content == record
    assert plain(bare.content) == plain(dataclasses.replace(record, samples=without))
    assert any(one.token_ns for one in record.samples)


def test_what_looks_like_times_of_tokens_inside_a_name_stays(tmp_path, recorded):
    name = 'a "token_ns":[1,2].gguf'
    record = dataclasses.replace(recorded[1], asked=dataclasses.replace(recorded[1].asked, model=name))
    path = tmp_path / "20261128T000000Z-pp-tg.jsonl"
    path.write_text(json.dumps(to_json(record)) + "\n", encoding="utf-8")
    (line,) = read_lines([path], pytest.fail, without=(TOKEN_TIMES,))
    assert line.content.asked.model == name
