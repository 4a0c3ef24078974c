"""`harness synth` as a user types it, with the catalog stubbed."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from harness.catalog import Shape
from harness.cli import synth as command
from harness.errors import UsageError
from harness.synth import read_mark

TINY = Shape("llama", 2, 256, 512, 4, 2, 64, 320, 512, False, 1e4)


@pytest.fixture
def run(monkeypatch, tmp_path):
    def find_shape(name):
        if name != "tiny:1m":
            raise UsageError(f"{name!r} is not in the catalog")
        return TINY

    monkeypatch.setattr(command, "find_shape", find_shape)
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    return lambda *arguments: CliRunner().invoke(command.synth, arguments)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("llama3.2:1b:q4_k", ("llama3.2:1b", "Q4_K_M")),
        ("llama3.2:1b", ("llama3.2:1b", "Q4_0")),
        ("tiny:Q8_0", ("tiny", "Q8_0")),
        ("tiny", ("tiny", "Q4_0")),
        ("q8_0", ("q8_0", "Q4_0")),
        (":q8_0", (":q8_0", "Q4_0")),
    ],
)
def test_a_last_part_that_is_a_quantization_is_one(text, parts):
    assert command.split_reference(text) == parts


def test_it_writes_into_the_cache_and_says_where(run, tmp_path):
    result = run("tiny:1m:q8_0")
    path = tmp_path / "cache" / "synth" / "tiny-1m.Q8_0.synthetic.gguf"
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{path}  1.4 MB  Q8_0  synthetic\n"
    assert result.stderr == ""  # no bar where nobody watches
    assert read_mark(path).name == "tiny:1m"


def test_it_uses_what_the_cache_has(run, tmp_path):
    first = run("tiny:1m")
    (path,) = (tmp_path / "cache" / "synth").iterdir()
    before = path.stat().st_mtime_ns
    assert run("tiny:1m").stdout == first.stdout
    assert path.stat().st_mtime_ns == before


def test_output_names_the_file(run, tmp_path):
    path = tmp_path / "mine.gguf"
    assert run("tiny:1m:f16", "-o", str(path), "--seed", "3").exit_code == 0
    assert read_mark(path).quantization == "F16"
    assert not (tmp_path / "cache").exists()


def test_an_unknown_name_is_an_error_for_the_commands_above(run):
    assert isinstance(run("no-such").exception, UsageError)


def test_help_has_examples(run):
    output = run("--help").output
    assert "harness synth llama3.1:8b:q4_k_m" in output
    assert all(len(line) <= 80 for line in output.splitlines())
    assert isinstance(command.synth, click.Command)
