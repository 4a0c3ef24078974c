"""`harness synth` as a user types it, with an entry of the user's own."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from harness.cli.synth import command
from harness.errors import UsageError
from harness.sources.synthetic import read_mark
from harness.sources.user_catalog import user_catalog_path

TINY = """
[models."tiny:1m".shape]
architecture = "llama"
block_count = 2
embedding_length = 256
feed_forward_length = 512
head_count = 4
head_count_kv = 2
head_dim = 64
vocab_size = 320
context_length = 512
tied_embeddings = false
rope_freq_base = 10000
"""


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("APPDATA", str(tmp_path / "config"))
    user_catalog_path().parent.mkdir(parents=True)
    user_catalog_path().write_text(TINY, encoding="utf-8")
    return lambda *arguments: CliRunner().invoke(command, arguments)


@pytest.mark.parametrize(
    ("text", "quantization"),
    [("tiny:1m:q4_k", "Q4_K_M"), ("tiny:1m", "Q4_0"), ("Tiny:1M:Q8_0", "Q8_0")],
)
def test_a_last_part_that_is_a_quantization_is_one(run, tmp_path, text, quantization):
    assert run(text).exit_code == 0
    (path,) = (tmp_path / "cache" / "synth").iterdir()
    assert read_mark(path).quantization == quantization


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


def test_it_never_writes_over_what_is_not_its_own(run, tmp_path):
    real = tmp_path / "real.gguf"
    real.write_bytes(b"GGUF and somebody's weights")
    refused = run("tiny:1m", "-o", str(real))
    assert isinstance(refused.exception, UsageError)
    assert "is not written over" in str(refused.exception)
    assert real.read_bytes() == b"GGUF and somebody's weights"
    own = tmp_path / "own.gguf"
    assert [run("tiny:1m", "-o", str(own)).exit_code for _ in range(2)] == [0, 0]
