"""Everything that the commands do with a file before they load it, for every kind of file and every architecture; and what once went wrong.

`scripts/fuzz-header` does the same with 100,000 spoilt headers.
"""

from __future__ import annotations

import json
import random

import pytest

from harness.errors import HarnessError
from harness.gguf.header import BytesSource, read_header
from harness.records.failures import Cause, Failure, describe_end
from harness.runs import needs
from harness.spec import RunSpec

from .architectures import describe_header, load_architectures
from .gguf_bytes import HeaderBytes, llama_like
from .gguf_parts import CHANGES, Parts, change, take_apart
from .kind_files import FILES, llama, settings, tensors, tokenizer
from .whole_files import ACTS, ENGINES, OTHERS, Asker, fake_engine, write_file


@pytest.fixture(scope="module", autouse=True)
def engine():
    with fake_engine():
        yield


def asked(tmp_path, data, form="json"):
    """How many commands answered; whatever is no HarnessError escapes."""
    path = tmp_path / "model.gguf"
    size_bytes = len(data)
    try:
        size_bytes = read_header(BytesSource(data)).size_bytes
    except HarnessError:
        pass
    write_file(path, data, size_bytes)
    with fake_engine(), Asker(form, report=False) as asker:
        return asker.ask(path)


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file(name, tmp_path):
    assert asked(tmp_path, FILES[name][0]().build(), OTHERS[len(name) % len(OTHERS)]) > 0


@pytest.mark.parametrize("name", list(load_architectures())[::12])
def test_an_architecture(name, tmp_path):
    assert asked(tmp_path, describe_header(load_architectures()[name]).build(), "csv") >= 4


@pytest.mark.parametrize("how", ENGINES)
def test_whatever_the_engine_says_in_every_format(how, tmp_path):
    data = llama().build()
    write_file(tmp_path / "model.gguf", data, read_header(BytesSource(data)).size_bytes)
    with fake_engine(how), Asker() as asker:
        assert asker.ask(tmp_path / "model.gguf") == len(ACTS) - 1  # it is no projector


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_of_structure_is_answered_or_refused(change, tmp_path):
    rng = random.Random(change.__name__)
    parts = take_apart(llama().build())
    change(parts, rng)
    asked(tmp_path, parts.build())


# --- pieces -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [llama_like, lambda: llama_like(endian=">"), lambda: llama_like(version=2), llama])
def test_what_is_put_together_again_is_what_it_was(make):
    data = make().build()
    assert take_apart(data, keep=1000).build() == data


def test_changes_are_the_same_for_ever_and_leave_the_original_alone():
    parts = take_apart(llama().build())
    before = parts.build()
    made = [change(parts, random.Random(seed)).build() for seed in range(50)]
    assert made[:5] == [change(parts, random.Random(seed)).build() for seed in range(5)]
    assert parts.build() == before
    assert len(set(made)) > 45


def test_a_header_ends_at_any_boundary():
    whole = take_apart(llama().build()).build()
    cuts = set()
    for end in range(60):
        parts = take_apart(llama().build())
        parts.end = end
        cuts.add(len(parts.build()))
        assert whole.startswith(parts.build())
    assert len(cuts) > 30


def test_nothing_at_all_is_put_together():
    assert Parts().build()[:4] == b"GGUF"


# --- what once went wrong ---------------------------------------------------------------------------------------------


def test_two_models_neither_of_which_says_for_how_long_it_was_trained(tmp_path):
    made = HeaderBytes().add("general.architecture", "str", "llama")
    for key, value in {
        "block_count": 2,
        "embedding_length": 64,
        "attention.head_count": 4,
        "feed_forward_length": 128,
    }.items():
        made.add(f"llama.{key}", "u32", value)
    data = tensors(tokenizer(made)).build()
    write_file(tmp_path / "model.gguf", data, read_header(BytesSource(data)).size_bytes)
    with Asker("json") as asker:
        asker.speculate(tmp_path / "model.gguf")


@pytest.mark.parametrize("kind", ["u32", "numbers"])
def test_a_draft_whose_vocabulary_is_no_list_of_texts(kind, tmp_path):
    made = settings(HeaderBytes(), "llama").add("tokenizer.ggml.model", "str", "llama")
    if kind == "u32":
        made.add("tokenizer.ggml.tokens", "u32", 32000)
    else:
        made.add_array("tokenizer.ggml.tokens", "u32", [1, 2, 3])
    data = tensors(made).build()
    write_file(tmp_path / "model.gguf", data, read_header(BytesSource(data)).size_bytes)
    with Asker() as asker:
        asker.fit(tmp_path / "model.gguf")


@pytest.mark.parametrize("key", ["embedding_length", "attention.head_count", "attention.head_count_kv"])
def test_a_file_that_llama_cpp_will_refuse_does_not_end_the_cells_of_others(key, tmp_path):
    made = HeaderBytes().add("general.architecture", "str", "llama")
    for name in ("block_count", "embedding_length", "attention.head_count"):
        if name != key:
            made.add(f"llama.{name}", "u32", 2)
    made.add_array(f"llama.{key}", "f32", [0.5, 1.5, 2.5])
    path = tmp_path / "model.gguf"
    path.write_bytes(tensors(tokenizer(made)).build(data=True))
    assert needs.estimate_needs(RunSpec(str(path), n_prompt=4)) is None


def test_a_cache_larger_than_a_record_may_hold_is_refused(tmp_path):
    made = settings(HeaderBytes(), "llama", attention__key_length=2**31, attention__head_count_kv=2**31)
    asked(tmp_path, tensors(tokenizer(made)).build())


def test_a_sentence_that_quotes_an_architecture_is_one_line(tmp_path):
    data = llama(architecture="a\n\r\tb\u2028c").build()
    write_file(tmp_path / "model.gguf", data, read_header(BytesSource(data)).size_bytes)
    with Asker("md") as asker:
        asker.ask(tmp_path / "model.gguf")


def test_a_refusal_that_quotes_a_file_is_one_line():
    failure = Failure(
        "load", "llama.cpp cannot load it: unknown tokenizer: '\n\r\t\x0b'.", Cause.REFUSED, reason="a\n b"
    )
    assert describe_end(failure) == "llama.cpp cannot load it: unknown tokenizer: ' '."
    assert failure.reason == "a b"
    assert "\\n" not in json.dumps(failure.message)
