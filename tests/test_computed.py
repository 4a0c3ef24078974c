"""Headers made from shapes say what files of these shapes say."""

from __future__ import annotations

import dataclasses

import pytest

from harness.cli import cli
from harness.errors import UsageError
from harness.gguf.anatomy import describe_model
from harness.gguf.header import ArrayValue
from harness.gguf.layout import tensor_table
from harness.gguf.shapes import COMPUTED_KEY, compute_header
from harness.sources.gguf_file import read_file_header
from harness.sources.synthetic import write_synthetic
from harness.sources.user_catalog import load_catalog
from tests.shapes import count_parameters

from .test_gguf import assert_agreement
from .test_synth import ARCHITECTURES

VISION = "llama3.2-vision:11b"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_computed_header_is_that_of_a_file(name, tmp_path):
    """And the header reader agrees with the gguf library on a synthetic file of every architecture."""
    shape = ARCHITECTURES[name]
    path = write_synthetic(shape, "Q4_K_M", tmp_path / "a.gguf", name="tiny")
    assert_agreement(path)
    read, made = read_file_header(path), compute_header(shape, "q4_k_m", "tiny")
    assert made.tensors == read.tensors
    assert made.size_bytes == read.size_bytes - read.data_offset
    for key, value in made.metadata.items():
        if key not in (COMPUTED_KEY, "general.name"):
            expected = read.metadata[key]
            if isinstance(value, ArrayValue):  # which also knows where it stands in its file
                assert (value.item_type, value.read()) == (expected.item_type, expected.read()), key
                continue
            assert value == (pytest.approx(expected, rel=1e-6) if isinstance(value, float) else expected), key
            assert made.metadata_types[key] == read.metadata_types[key], key
    ours, theirs = describe_model(made), describe_model(read)
    assert ours.kv_bytes_per_token == theirs.kv_bytes_per_token
    assert (ours.by_part, ours.layers, ours.n_params) == (theirs.by_part, theirs.layers, theirs.n_params)


def test_every_catalog_model_has_a_header_without_a_file():
    for entry in load_catalog().entries.values():
        header = compute_header(entry.shape, "Q4_0", entry.name)
        assert entry.parameters == pytest.approx(count_parameters(tensor_table(entry.shape, "Q4_0")), abs=200)
        assert describe_model(header).n_layers == entry.shape.block_count
        assert not header.is_synthetic


def test_the_vision_models_text_part_is_what_ollama_told_of_it():
    entry = load_catalog().find(VISION)
    anatomy = describe_model(compute_header(entry.shape, "Q4_K_M", VISION))
    # `ollama show llama3.2-vision` says 9.8B parameters, and its page 6.0 GB for the text part.
    assert round(anatomy.n_params / 1e9, 1) == 9.8
    assert round(anatomy.file_bytes / 1e9, 1) == 6.0
    assert not anatomy.architecture_known
    kv = anatomy.attention
    assert [layer.layer for layer in kv.layers] == [i for i in range(40) if i not in (3, 8, 13, 18, 23, 28, 33, 38)]
    assert anatomy.kv_bytes_per_token["F16"] == 32 * 2 * 8 * 128 * 2
    assert "8 cross-attention layers" in kv.notes[0]


def test_cross_attention_blocks_are_read_from_any_header():
    header = compute_header(load_catalog().find(VISION).shape, "Q8_0", VISION)
    value = header.metadata["mllama.attention.cross_attention_layers"]
    assert isinstance(value, ArrayValue)
    assert value.read() == [3, 8, 13, 18, 23, 28, 33, 38]
    without = {key: value for key, value in header.metadata.items() if "cross" not in key}
    assert len(describe_model(dataclasses.replace(header, metadata=without)).attention.layers) == 40


def test_what_llama_cpp_cannot_run_is_not_written(tmp_path):
    with pytest.raises(UsageError, match="could not run a file of architecture 'mllama'"):
        write_synthetic(load_catalog().find(VISION).shape, "Q4_0", tmp_path / "a.gguf", name=VISION)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reference", [VISION, f"synth:{VISION}:q4_0"])
def test_it_is_inspected_and_not_measured(reference, monkeypatch, tmp_path):
    from click.testing import CliRunner

    from harness.sources.references import parse_reference

    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))
    done = CliRunner().invoke(cli, ["inspect", reference], catch_exceptions=False)
    assert done.exit_code == 0
    assert "from the catalog's shape; no file was read" in done.stdout
    assert "is computed from the catalog's shape" in " ".join(done.stdout.split())
    with pytest.raises(UsageError, match="does not know the architecture mllama"):
        parse_reference(reference).open()
