"""Whatever a header says, what harness makes of it is an answer or a HarnessError; the smallest forms of what was neither."""

from __future__ import annotations

import random
import re

import pytest

from harness.errors import HarnessError, UsageError
from harness.gguf.cost import cost_of_header
from harness.gguf.header import BytesSource, read_header
from harness.gguf.model_kinds import KNOWN_ARCHITECTURES
from harness.gguf.settings import read_per_layer
from harness.memory.ollama_2024 import Request, give_account
from harness.memory.ollama_graph import read_figures

from .examine import ACTS, examine, inspect
from .gguf_bytes import HeaderBytes, unsettle
from .kind_files import FILES, settings, settled, tensors, tokenizer


def sparse(**keys) -> HeaderBytes:
    made = HeaderBytes().add("general.architecture", "str", "llama")
    for key, value in {"block_count": 1, "embedding_length": 64, "attention.head_count": 2, **keys}.items():
        made.add(f"llama.{key}", "u32", value)
    return made


def header_of(made):
    return read_header(BytesSource(made.build()))


def test_no_heads_in_an_array_of_heads():
    made = HeaderBytes().add("general.architecture", "str", "mamba").add("mamba.block_count", "u32", 0)
    inspect(header_of(made.add_array("mamba.attention.head_count", "u32", [])))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("token_embd.weight", ()),
        ("blk.0.ffn_gate.0.weight", (32,)),
        ("blk.0.attn_qkv.bias", ()),
        ("token_embd.weight", (64,)),
    ],
)
def test_ollamas_account_of_tensors_with_fewer_dimensions_than_are_meant(name, shape):
    header = header_of(sparse().add_tensor(name, "F32", *shape))
    give_account(read_figures(header), Request())


@pytest.mark.parametrize("name", ["position_embd.weight", "rope_freqs.weight", "blk.0.attn_norm.weight", None])
def test_a_model_of_which_a_token_reads_no_matrix_has_no_speed(name):
    made = sparse() if name is None else sparse().add_tensor(name, "F32", 64)
    with pytest.raises(UsageError, match="no matrices that a token is multiplied with"):
        cost_of_header(header_of(made), "F32", "x")


def test_a_number_of_layers_that_is_a_lie_costs_nothing():
    header = header_of(sparse(block_count=2**31))
    with pytest.raises(HarnessError, match=r"block_count is 2147483648, outside llama\.cpp's 1 to 512"):
        read_per_layer(header, "attention.head_count", 2**31)


@pytest.mark.parametrize("architecture", sorted(KNOWN_ARCHITECTURES))
def test_every_architecture_with_settings_of_many(architecture):
    assert examine(settled(architecture).build(), 2**20)


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file(name):
    assert examine(FILES[name][0]().build(), 2**20)


@pytest.mark.parametrize("seed", range(8))
def test_settings_and_tensors_of_any_sort_are_answered_or_refused(seed):
    rng = random.Random(seed)
    names = [settled(architecture) for architecture in rng.sample(sorted(KNOWN_ARCHITECTURES), 12)]
    headers = [header_of(made) for made in [*names, tensors(tokenizer(settings(HeaderBytes(), "llama")))]]
    for _ in range(100):
        header = unsettle(rng.choice(headers), rng)
        for act in ACTS:
            try:
                act(header)
            except HarnessError as error:
                said = str(error)
            else:
                continue
            assert re.fullmatch(r"[^\n]{10,}", said), said
