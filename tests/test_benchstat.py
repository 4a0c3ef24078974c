"""What is exported for Go's benchstat is in the Go benchmark format, by a parser of what its reader takes."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from harness.records.measurements import Measurement, Subjects, measurement_of
from harness.speed.comparison import Side, split
from harness.views.benchstat import render_benchstat

from .measured import draw, with_durations


def parse(text):
    """Results as (settings, name, iterations, {unit: value}); anything that golang.org/x/perf/benchfmt calls an error fails.

    Source: Reader.Scan, parseKeyValueLine and parseBenchmarkLine in benchfmt/reader.go.
    """
    config, results, units = {}, [], {}
    for line in text.splitlines():
        if line.startswith("Benchmark"):
            name, iterations, *rest = line.removeprefix("Benchmark").split()
            assert re.fullmatch(r"[A-Z]\S*", name), "go test's names begin with a capital behind Benchmark"
            assert len(rest) >= 2
            assert len(rest) % 2 == 0
            values = {unit: float(value) for value, unit in zip(rest[::2], rest[1::2], strict=True)}
            results.append((dict(config), name, int(iterations), values))
        elif line.startswith("Unit "):
            _, unit, *pairs = line.split()
            units[unit] = dict(pair.split("=") for pair in pairs)
        else:
            match = re.fullmatch(r"([a-z][^\sA-Z:]*):[ \t]+(.*)", line)
            assert match, line
            config[match[1]] = match[2]
    return results, units


@pytest.fixture
def cell(recorded):
    return recorded[0]


def sides(*groups):
    subjects = Subjects()
    return [Side(name, [measurement_of(one, subjects) for one in cells]) for name, cells in groups]


def test_a_line_a_repetition(cell):
    text = render_benchstat(sides(("one", [with_durations(cell, [10**8, 2 * 10**8])])))
    results, units = parse(text)
    assert [(name, n, values) for _, name, n, values in results] == [
        ("Pp64/model=SmolLM2_135M_Instruct.Q4_1-2", 1, {"ns/op": 1e8, "tok/s": 640.0}),
        ("Pp64/model=SmolLM2_135M_Instruct.Q4_1-2", 1, {"ns/op": 2e8, "tok/s": 320.0}),
    ]
    assert results[0][0] == {"cpu": "AMD EPYC", "commit": "0c1e570"}
    assert units == {"tok/s": {"better": "higher"}, "ns/op": {"better": "lower"}}


def test_sides_stand_in_one_file(cell):
    named = sides(("the old fan", [with_durations(cell, [10**8])]), ("new", [with_durations(cell, [10**8])]))
    assert [config["side"] for config, *_ in parse(render_benchstat(named))[0]] == ["the old fan", "new"]


def test_what_differs_is_in_the_name_and_what_the_sides_are_by_is_not(cell):
    cells = [
        with_durations(cell, [10**8], type_k=kind, n_depth=9, n_threads=1, tensor_split=(3.0, 1.0))
        for kind in ("f16", "q8_0")
    ]
    (one,) = sides(("one", cells))
    names = [name for _, name, *_ in parse(render_benchstat([one]))[0]]
    assert names[1] == "Pp64/model=SmolLM2_135M_Instruct.Q4_1/depth=9/tensor_split=3_1/type_k=q8_0"
    by = parse(render_benchstat(split([one], ["type_k"])))[0]
    assert [(config["side"], "type_k" in name) for config, name, *_ in by] == [
        ("type_k f16", False),
        ("type_k q8_0", False),
    ]


def test_a_mean_is_one_line_of_as_many_iterations(cell):
    subject = Subjects().of(cell)
    for n, iterations in ((7, 7), (None, 1)):
        side = Side("x", [Measurement(subject, "", mean_tok_per_s=640.0, deviation_tok_per_s=1.0, n=n)])
        ((_, _, found, values),), _ = parse(render_benchstat([side]))
        assert (found, values["ns/op"]) == (iterations, 1e8)


def test_names_of_strangers_break_no_line(cell):
    strange = with_durations(cell, [10**8], model="a b\nBenchmark/x-9 \x1b[31m.gguf")
    (result,), _ = parse(render_benchstat(sides(("x\ny: z", [strange]))))
    assert "\x1b" not in result[1]


@pytest.mark.skipif(
    shutil.which("benchstat") is None, reason="needs Go's benchstat (golang.org/x/perf/cmd/benchstat) on the path"
)
def test_benchstat_reads_it(cell, tmp_path):
    named = sides(
        ("old", [with_durations(cell, draw(1e8, 10))]), ("new", [with_durations(cell, draw(1.1e8, 10, seed=1))])
    )
    (tmp_path / "both.txt").write_text(render_benchstat(named), encoding="utf-8")
    command = ["benchstat", "-col", "side", "-format", "csv", str(tmp_path / "both.txt")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip().count("\n")) == (0, 0), done.stderr
    assert "p=0.000 n=10" in done.stdout
