import json
import pathlib

import pytest
from click.testing import CliRunner

from harness.catalog import parse_catalog
from harness.cli import cli
from harness.errors import UsageError
from harness.gguf.anatomy import name_file_type
from harness.gguf.layout import tensor_table
from harness.gguf.types import find_quantization
from harness.sources.references import parse_reference
from harness.sources.user_catalog import load_catalog
from tests.shapes import count_parameters

OURS = parse_catalog((pathlib.Path(__file__).parent.parent / "models.toml").read_text(encoding="utf-8"), "models.toml")

#: Published parameter counts in millions, of the article's models; 405b with each of its 8 key heads twice, as its files have them.
PUBLISHED = {
    "qwen2.5:0.5b": 494, "llama3.2:1b": 1236, "llama3.2:3b": 3213, "llama3.1:8b": 8030, "llama3.1:70b": 70554,
    "llama3.1:405b": 410081, "smollm2:135m": 135,
}  # fmt: skip
#: Published counts in billions as the models' pages round them.
ROUNDED = {
    "qwen2.5:1.5b": 1.8, "qwen2.5:7b": 7.6, "qwen2.5:14b": 14.8, "qwen2.5:32b": 32.8, "qwen2.5:72b": 72.7, "qwen3:0.6b": 0.6,
    "qwen3:1.7b": 1.7, "qwen3:4b": 4.0, "qwen3:8b": 8.2, "qwen3:14b": 14.8, "qwen3:32b": 32.8, "qwen3:30b": 30.5,
    "gpt-oss:20b": 20.9, "gpt-oss:120b": 116.8, "gemma3:1b": 1.0, "gemma3:4b": 3.9, "gemma3:12b": 11.8, "gemma3:27b": 27.0,
    "smollm3:3b": 3.1, "phi4:14b": 14.7, "mistral-small3.2:24b": 23.6, "granite4:h-tiny": 6.9, "granite4:micro": 3.4,
    "smollm2:360m": 0.4, "smollm2:1.7b": 1.7, "llama3.3:70b": 70.6,
}  # fmt: skip

GOOD = """
[models."mine:1b"]
[models."mine:1b".shape]
architecture = "llama"
block_count = 2
embedding_length = 64
feed_forward_length = 128
head_count = 4
head_count_kv = 2
head_dim = 16
vocab_size = 300
context_length = 512
tied_embeddings = true
rope_freq_base = 10000
"""


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_give_the_published_counts(name):
    entry = OURS.find(name)
    counted = count_parameters(tensor_table(entry.shape, "F16"))
    # rope_freqs is a tensor but no parameter of the published model
    assert entry.parameters == pytest.approx(counted, abs=200)
    assert round(entry.parameters / 1e6) == PUBLISHED[name]


@pytest.mark.parametrize("name", ROUNDED)
def test_shapes_of_today_give_the_published_counts(name):
    assert round(OURS.find(name).parameters / 1e9, 1) == ROUNDED[name]


def test_a_quantization_that_nobody_named_is_the_usual_one():
    assert OURS.find("qwen3:0.6b").find_files(None).quantization == "Q4_K_M"
    assert OURS.find("gpt-oss:20b").find_files(None).quantization == "MXFP4", "there is no other"
    assert OURS.find("llama3.1:70b").default_quantization == "Q4_0", "Ollama's, of which no file is known"
    assert OURS.find("llama3.1:70b").find_files(None).quantization == "Q4_K_M"
    assert OURS.find("smollm2:135m").default_quantization == "Q4_1", "the embedded one"
    assert parse_catalog(GOOD, "mine").find("mine:1b").default_quantization == "Q4_0"


@pytest.mark.parametrize("name", ["qwen3.5:4b", "gpt-oss:20b", "llama3.2:1b"])
def test_every_command_takes_the_same_file_for_a_bare_name(name):
    """By the header, as inspect and overhead do, and by the shape, as predict does."""
    entry = OURS.find(name)
    kind = name_file_type(parse_reference(name).header().header)
    out = (
        CliRunner()
        .invoke(cli, ["predict", "-m", name, "--machine", "RTX 3060 Ti", "-o", "json"], catch_exceptions=False)
        .stdout
    )
    assert json.loads(out)["cost"]["quantization"] == find_quantization(entry.default_quantization)
    assert kind.upper().startswith(entry.default_quantization[:4])


def test_every_file_says_where_it_was_seen():
    """And digests are whole: one for each part."""
    for entry in OURS.entries.values():
        for files in entry.files:
            assert files.evidence, (entry.name, files.quantization)
            assert all(len(digest) == 64 for digest in files.sha256)
            assert len(files.sha256) in (0, len(files.files))


def test_every_model_of_the_article_is_there():
    assert set(PUBLISHED) | {"llama3.2-vision:11b"} <= set(OURS.entries)
    assert OURS.find("llama3.2:1b").find_files(None).quantization == "Q8_0", "what Ollama's name stood for"
    assert "mllama" in OURS.find("llama3.2-vision:11b").refused


def test_nothing_claims_to_be_verified():
    assert not any(files.verified for entry in OURS.entries.values() for files in entry.files)


def test_names_with_and_without_quantization():
    assert OURS.split("llama3.2:1b") == (OURS.find("llama3.2:1b"), None)
    assert OURS.split("Llama3.2:1B:q4_0") == (OURS.find("llama3.2:1b"), "Q4_0")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("llama3.2:2b", "llama3.2:3b"),
        ("lama3.1:8b", "llama3.1:8b"),
        ("qwen", "qwen3"),
        ("xyz", "`harness models` lists them"),
    ],
)
def test_a_wrong_name_suggests_the_nearest(wrong, right):
    with pytest.raises(UsageError, match=right):
        OURS.split(wrong)


def test_an_unknown_quantization_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"no Q2_K of llama3.2:1b; it has F16, Q4_0, Q4_K_M, Q8_0"):
        OURS.find("llama3.2:1b").find_files("Q2_K")


def test_the_users_entry_wins():
    mine = parse_catalog(GOOD.replace("mine:1b", "llama3.2:1b"), "mine")
    assert OURS.merged(mine).find("llama3.2:1b").shape.block_count == 2
    assert "mine:1b" in OURS.merged(parse_catalog(GOOD, "mine")).entries


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[models", "not valid TOML"),
        ("models = 1", "models is not a table"),
        ('[models."a"]\nparameters = 1', "has no shape"),
        (GOOD.replace("block_count = 2", ""), "shape has no block_count"),
        (GOOD.replace("block_count", "blok_count"), "unknown key blok_count"),
        (GOOD.replace("block_count = 2", 'block_count = "2"'), "shape.block_count is '2', not a whole number"),
        (GOOD.replace("block_count = 2", "block_count = true"), "shape.block_count is True, not a whole number"),
        (GOOD.replace("= true", "= 1"), "tied_embeddings is 1, not "),
        (GOOD + '[[models."mine:1b".files]]\nquantization = "Q4_0"', "files.0. has no repository"),
    ],
)
def test_a_wrong_catalog_names_file_entry_and_key(text, words):
    with pytest.raises(UsageError, match=words):
        parse_catalog(text, "mine.toml")


def test_a_catalog_nested_without_end_is_refused():
    with pytest.raises(UsageError, match="nested too deep"):
        parse_catalog("x = " + "[" * 100_000, "mine.toml")


def test_a_catalog_without_end_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "endless.toml"
    path.write_bytes(b"#" * (4 * 2**20 + 1))
    monkeypatch.setenv("HARNESS_CATALOG", str(path))
    with pytest.raises(UsageError, match="longer than any catalog"):
        load_catalog()
