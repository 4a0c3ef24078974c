"""Synthetic models: the bytes on disk, and llama.cpp loading and decoding them."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest

from harness.errors import HarnessError, UsageError
from harness.gguf.header import Header
from harness.gguf.layout import tensor_table
from harness.gguf.types import DEFAULT_TYPES
from harness.sources import synthetic as synth
from harness.sources.synthetic import (
    ensure_synthetic,
    list_synthetic,
    read_mark,
    synthetic_path,
    write_synthetic,
)
from tests.shapes import count_parameters

from .shapes import MODERN, TINY

CHILD = Path(__file__).parent / "llama_child.py"

ARCHITECTURES = {
    "llama": TINY,
    "llama tied, rope factors": dataclasses.replace(TINY, tied_embeddings=True, rope_factors=True),
    "llama bias": dataclasses.replace(TINY, attention_bias=True),
    "llama 8 experts": dataclasses.replace(TINY, expert_count=8, expert_used_count=2),
    "llama odd rows": dataclasses.replace(TINY, embedding_length=576, head_count=9, head_count_kv=3),
    "llama rows of no block": dataclasses.replace(TINY, embedding_length=72, head_count=2, head_dim=36),
    "qwen2": dataclasses.replace(TINY, architecture="qwen2", attention_bias=True, tied_embeddings=True),
    "qwen3": dataclasses.replace(TINY, architecture="qwen3", head_dim=128),
    "qwen3moe": dataclasses.replace(TINY, architecture="qwen3moe", expert_count=16, expert_used_count=4),
    "gemma2": dataclasses.replace(TINY, architecture="gemma2", tied_embeddings=True, sliding_window=32),
    "gemma3": dataclasses.replace(TINY, architecture="gemma3", tied_embeddings=True, sliding_window=32, block_count=7),
    **MODERN,
}
LLAMA3_VOCABULARY = dataclasses.replace(TINY, vocab_size=128256, embedding_length=64, head_dim=16)


def decode(path, n_tokens=8):
    child = subprocess.run(
        [sys.executable, CHILD, "decode", str(path), str(n_tokens)], capture_output=True, text=True, timeout=120
    )
    assert child.returncode == 0, child.stderr[-2000:]
    return json.loads(child.stdout)


def assert_loads_and_decodes(shape, quantization, path):
    write_synthetic(shape, quantization, path, name="tiny")
    tensors = tensor_table(shape, quantization)
    run = decode(path)
    assert run["codes"] == [0] * 8
    assert run["finite"]
    assert min(run["spread"]) > 0.01, "the logits are all alike: the weights do nothing"
    assert run["n_vocab"] == shape.vocab_size
    n_rope = sum(t.n_elements for t in tensors if t.name == "rope_freqs.weight")
    assert run["n_params"] == count_parameters(tensors) + n_rope
    assert run["size_bytes"] == sum(t.size_bytes for t in tensors)
    return run


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_llama_cpp_decodes_every_architecture(name, tmp_path):
    assert_loads_and_decodes(ARCHITECTURES[name], "Q4_K_M", tmp_path / "tiny.gguf")


@pytest.mark.parametrize("quantization", DEFAULT_TYPES)
def test_llama_cpp_decodes_every_quantization(quantization, tmp_path):
    assert_loads_and_decodes(TINY, quantization, tmp_path / "tiny.gguf")


@pytest.mark.parametrize(
    ("vocab_size", "bos", "eos", "add_bos"),
    [(128256, 128000, 128009, True), (151936, 151643, 151645, False), (49152, 1, 2, False), (258, 256, 257, True)],
)
def test_special_tokens_are_the_real_models(vocab_size, bos, eos, add_bos, tmp_path):
    shape = dataclasses.replace(LLAMA3_VOCABULARY, vocab_size=vocab_size)
    run = assert_loads_and_decodes(shape, "Q8_0", tmp_path / "tiny.gguf")
    assert (run["bos"], run["eos"], run["add_bos"]) == (bos, eos, add_bos)


def test_the_file_is_header_and_tensors_and_nothing_else(tmp_path):
    path = write_synthetic(TINY, "Q5_K_M", tmp_path / "tiny.gguf", name="tiny:1m")
    reader = gguf.GGUFReader(path)
    read = [(t.name, tuple(map(int, t.shape)), t.tensor_type.name) for t in reader.tensors]
    assert read == [(t.name, t.shape, t.type_name) for t in tensor_table(TINY, "Q5_K_M")]
    assert reader.tensors[-1].data_offset + -(-reader.tensors[-1].n_bytes // 32) * 32 == path.stat().st_size
    fields = {key: field.contents() for key, field in reader.fields.items()}
    assert fields["harness.synthetic"] is True
    assert "synthetic" in fields["general.name"]
    assert (fields["general.file_type"], fields["general.quantization_version"]) == (17, 2)
    assert len(set(fields["tokenizer.ggml.tokens"])) == TINY.vocab_size


@pytest.mark.parametrize("type_name", [*synth._SCALES, "MXFP4"])
def test_blocks_hold_weights_like_a_trained_models(type_name):
    """Dequantized by the gguf library, independently: finite, centred, spread about 0.02."""
    raw = np.frombuffer(synth._make_blocks(type_name, 2000, np.random.default_rng(1)), dtype=np.uint8)
    kind = gguf.GGMLQuantizationType[type_name]
    weights = gguf.quants.dequantize(raw.reshape(2000, gguf.GGML_QUANT_SIZES[kind][1]), kind)
    assert np.isfinite(weights).all()
    assert abs(float(weights.mean())) < 0.003  # Q4_0 itself is lopsided: 8 steps below zero, 7 above
    assert float(weights.std()) == pytest.approx(0.02, rel=0.1)


def test_rows_of_a_matrix_do_not_repeat(tmp_path):
    shape = dataclasses.replace(TINY, block_count=1, vocab_size=20_000)  # 20,000 rows of 512 bytes: more than a pool
    path = write_synthetic(shape, "F16", tmp_path / "tiny.gguf", name="tiny")
    table = next(t for t in gguf.GGUFReader(path).tensors if t.name == "token_embd.weight").data
    assert table.nbytes > synth._POOL_BYTES
    assert len(np.unique(table, axis=0)) == len(table)


def test_norms_are_near_one_and_rope_factors_are_one(tmp_path):
    shape = ARCHITECTURES["llama tied, rope factors"]
    path = write_synthetic(shape, "Q4_0", tmp_path / "tiny.gguf", name="tiny")
    tensors = {t.name: t.data for t in gguf.GGUFReader(path).tensors}
    assert float(tensors["blk.0.ffn_norm.weight"].mean()) == pytest.approx(1, abs=0.1)
    assert (tensors["rope_freqs.weight"] == 1).all()


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    files = [
        write_synthetic(TINY, "Q4_K_M", tmp_path / f"{i}.gguf", name="tiny", seed=seed)
        for i, seed in enumerate((7, 7, 8))
    ]
    first, again, other = (file.read_bytes() for file in files)
    assert first == again
    assert first != other


def test_progress_ends_with_the_files_size(tmp_path):
    seen = []
    path = write_synthetic(
        TINY, "F16", tmp_path / "a.gguf", name="tiny", progress=lambda done, all_: seen.append((done, all_))
    )
    size = path.stat().st_size
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {all_ for _, all_ in seen} == {size}
    assert size - 32 < seen[-1][0] <= size


def test_memory_does_not_grow_with_the_file(tmp_path):
    shape = dataclasses.replace(
        TINY, vocab_size=128256, embedding_length=1024, head_dim=256
    )  # 263 MB of F16 embeddings
    shape = dataclasses.replace(shape, tied_embeddings=True)
    gc.collect()
    tracemalloc.start()
    path = write_synthetic(shape, "F16", tmp_path / "a.gguf", name="tiny")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 250 * 2**20
    assert peak_bytes < 150 * 2**20
    path.unlink()


class StopHereError(Exception):
    pass


@pytest.mark.parametrize("error", [StopHereError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_file_leaves_nothing(error, tmp_path):
    path = tmp_path / "a.gguf"

    def stop(done, total):
        assert done < total
        assert not path.exists()
        raise error

    with pytest.raises(error):
        write_synthetic(TINY, "F16", path, name="tiny", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_file_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(b"old")

    def stop(done, total):
        raise StopHereError

    with pytest.raises(StopHereError):
        write_synthetic(TINY, "F16", path, name="tiny", progress=stop)
    assert path.read_bytes() == b"old"


def test_what_a_killed_writer_left_is_removed_and_a_living_ones_is_not(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead = tmp_path / f"a.gguf.{child.pid}.partial"
    alive = tmp_path / f"a.gguf.{os.getppid()}.partial"
    dead.write_bytes(b"x")
    alive.write_bytes(b"x")
    write_synthetic(TINY, "Q4_0", tmp_path / "a.gguf", name="tiny")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gguf", alive.name]


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("harness.sources.fetching.shutil.disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(HarnessError, match=r"1\.0 MB free and the model needs \d") as caught:
        write_synthetic(TINY, "F16", tmp_path / "a.gguf", name="tiny")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synth.os, "fsync", fail)
    with pytest.raises(HarnessError, match="No space left"):
        write_synthetic(TINY, "F16", tmp_path / "a.gguf", name="tiny")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HarnessError, match="could not write"):
        write_synthetic(TINY, "F16", tmp_path / "file" / "a.gguf", name="tiny")


def test_a_vocabulary_smaller_than_the_bytes_is_refused(tmp_path):
    with pytest.raises(UsageError, match="258"):
        write_synthetic(dataclasses.replace(TINY, vocab_size=257), "F16", tmp_path / "a.gguf", name="tiny")


# --- the cache --------------------------------------------------------------------------------------------------------


def test_a_complete_file_is_used_again(tmp_path):
    path = ensure_synthetic(TINY, "q4_0", tmp_path, name="tiny:1m")
    before = path.stat().st_mtime_ns

    def fail(done, total):
        raise AssertionError("written again")

    assert ensure_synthetic(TINY, "Q4_0", tmp_path, name="tiny:1m", progress=fail) == path
    assert path.stat().st_mtime_ns == before
    assert path.name == "tiny-1m.Q4_0.synthetic.gguf"


@pytest.mark.parametrize("damage", ["cut off", "grown", "other shape", "other seed", "not a model", "empty"])
def test_any_other_file_of_that_name_is_written_anew(damage, tmp_path):
    path = ensure_synthetic(TINY, "Q4_0", tmp_path, name="tiny:1m")
    right = path.read_bytes()
    if damage == "cut off":
        path.write_bytes(right[:-32])
    elif damage == "grown":
        path.write_bytes(right + bytes(32))
    elif damage == "other shape":
        write_synthetic(dataclasses.replace(TINY, rope_freq_base=2e4), "Q4_0", path, name="tiny:1m")
    elif damage == "other seed":
        write_synthetic(TINY, "Q4_0", path, name="tiny:1m", seed=1)
    else:
        path.write_bytes(b"GGUF not really" if damage == "not a model" else b"")
    assert path.read_bytes() != right
    ensure_synthetic(TINY, "Q4_0", tmp_path, name="tiny:1m")
    assert path.read_bytes() == right


def test_the_list_holds_complete_synthetic_files_only(tmp_path):
    assert list_synthetic(tmp_path / "absent") == ()
    path = ensure_synthetic(TINY, "Q4_0", tmp_path, name="tiny:1m")
    ensure_synthetic(TINY, "Q8_0", tmp_path, name="tiny:1m")
    cut = ensure_synthetic(TINY, "F16", tmp_path, name="tiny:1m")
    cut.write_bytes(cut.read_bytes()[:-1])
    (tmp_path / "other.gguf").write_bytes(b"GGUF" + bytes(5000))
    listed = list_synthetic(tmp_path)
    assert [(f.name, f.quantization) for f in listed] == [("tiny:1m", "Q4_0"), ("tiny:1m", "Q8_0")]
    assert (listed[0].path, listed[0].size_bytes) == (path, path.stat().st_size)


def test_a_mark_cut_anywhere_is_no_mark(tmp_path):
    path = write_synthetic(TINY, "Q4_0", tmp_path / "a.gguf", name="tiny")
    head = path.read_bytes()[:1200]
    complete = read_mark(path)
    for length in range(len(head)):
        path.write_bytes(head[:length])
        assert read_mark(path) in (None, complete)


@pytest.mark.parametrize(
    ("name", "file"), [("llama3.2:1b", "llama3.2-1b"), ("../a b", "a-b"), ("hf:o/r", "hf-o-r"), ("::", "model")]
)
def test_names_make_portable_file_names(name, file, tmp_path):
    assert synthetic_path(tmp_path, name, "q4_k") == tmp_path / f"{file}.Q4_K_M.synthetic.gguf"


def test_only_our_own_key_says_synthetic():
    header = Header(3, "little", {"harness.synthetic": True}, (), 32, 0)
    assert header.is_synthetic
    assert not dataclasses.replace(header, metadata={"general.name": "synthetic"}).is_synthetic


def test_the_cache_directory_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))
    assert synth.default_cache_dir() == tmp_path / "synth"
    monkeypatch.delenv("HARNESS_CACHE_DIR")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert synth.default_cache_dir() == tmp_path / "harness" / "synth"
