"""Encoders, text diffusion, encoder-decoders and learned positions on the real engine, with tiny models of zeros made here."""

from __future__ import annotations

import json

import pytest

from .kind_files import RUNNABLE
from .test_cli import harness, one_sentence

pytestmark = pytest.mark.engine


@pytest.fixture
def files(tmp_path):
    for name, make in RUNNABLE.items():
        (tmp_path / f"{name}.gguf").write_bytes(make().build(data=True))
    return tmp_path


def test_each_kind_is_measured_as_far_as_it_goes(files, results):
    models = [argument for name in RUNNABLE for argument in ("-m", str(files / f"{name}.gguf"))]
    code, out, err = harness("pp-tg", *models, "-r", "1", "--no-save", "-o", "json")
    assert code in (0, 5)
    found = [
        (row["model_filename"].rpartition("/")[2], row["n_prompt"], row["n_gen"], row["embeddings"])
        for row in json.loads(out)
    ]
    assert found == [
        ("llama.gguf", 512, 0, False),
        ("llama.gguf", 0, 128, False),
        ("pooled.gguf", 512, 0, True),
        ("bert.gguf", 128, 0, True),
        ("gpt2.gguf", 64, 0, False),
        ("gpt2.gguf", 0, 64, False),
        ("llada.gguf", 512, 0, False),
        ("t5.gguf", 512, 0, False),
        ("t5encoder.gguf", 512, 0, True),
    ]
    assert (
        "t5.gguf is an encoder-decoder model, which generates only after it has encoded a text: tg128 is left out"
        in err
    )
    assert "bert.gguf has 128 learned positions: pp128 instead of pp512" in err


def test_a_prompt_longer_than_the_physical_batch_raises_it_for_what_reads_at_once(files, results):
    models = [argument for name in ("t5encoder", "t5", "llada") for argument in ("-m", str(files / f"{name}.gguf"))]
    code, out, _ = harness("pp-tg", *models, "-p", "3000", "-r", "1", "--no-save", "-o", "json")
    assert code in (0, 5)
    assert [(row["n_batch"], row["n_ubatch"], row["resolved"]["n_ubatch"]) for row in json.loads(out)] == [
        (3000, 3000, 3000)
    ] * 3


def test_embeddings_of_a_language_model_and_logits_of_an_encoder(files, results):
    code, out, _ = harness(
        "pp-tg", "-m", str(files / "llama.gguf"), "-embd", "0,1", "-p", "32", "-n", "4", "-r", "1", "-o", "json"
    )
    assert code in (0, 5)
    assert [row["embeddings"] for row in json.loads(out)] == [False, False, True, True]
    code, out, _ = harness("pp-tg", "-m", str(files / "bert.gguf"), "-embd", "off", "-p", "32", "-r", "1", "-o", "json")
    assert code in (0, 5)
    assert [row["embeddings"] for row in json.loads(out)] == [False]


def test_positions_that_are_not_there_are_refused_and_not_aborted_over(files, results):
    code, out, err = harness("pp-tg", "-m", str(files / "gpt2.gguf"), "-p", "65")
    assert (code, out) == (2, "")
    assert "64 learned positions and pp65 needs 65" in one_sentence(err)


@pytest.mark.parametrize("name", ["bert", "t5encoder", "t5", "llada"])
def test_the_memory_of_what_reads_at_once_is_that_of_its_whole_context(files, results, name):
    code, out, _ = harness("overhead", "-m", str(files / f"{name}.gguf"), "--ctx", "128", "--no-save", "-o", "json")
    assert code == 0
    (compute,) = (row for row in json.loads(out)["ledger"] if row["cause"] == "compute buffer")
    # A log rounds to 0.01 MiB.
    assert abs(compute["predicted_bytes"] - compute["measured_bytes"]) <= 0.011 * 1024**2
