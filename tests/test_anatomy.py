"""What is said of a model by its header, against llama.cpp itself and against arithmetic done by hand."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from harness.errors import HarnessError
from harness.gguf.anatomy import Share, describe_model
from harness.gguf.attention import describe_attention
from harness.gguf.header import BytesSource, read_header
from harness.gguf.types import tensor_type
from harness.sources.gguf_file import read_file_header
from tests.gguf_bytes import HeaderBytes, llama_like
from tests.test_gguf import smollm2


def header_of(arch: str, tensors: HeaderBytes | None = None, **hparams: object):
    """Make a header of these settings; dots in a key are written as two underscores, lists become arrays."""
    made = tensors or HeaderBytes()
    made.add("general.architecture", "str", arch)
    for key, value in hparams.items():
        name = f"{arch}.{key.replace('__', '.')}"
        if isinstance(value, list):
            made.add_array(name, "bool" if isinstance(value[0], bool) else "u32", value)
        else:
            made.add(name, "str" if isinstance(value, str) else "u32", value)
    return read_header(BytesSource(made.build()))


LLAMA = {"block_count": 4, "embedding_length": 512, "attention__head_count": 8, "attention__head_count_kv": 2}


def test_the_real_model():
    anatomy = describe_model(read_file_header(smollm2()))
    assert anatomy.n_params == 134_515_008
    assert anatomy.weights_bytes == 96_576_768
    assert anatomy.file_bytes == smollm2().stat().st_size
    assert anatomy.bits_per_weight == pytest.approx(5.7437, abs=1e-4)
    assert (anatomy.architecture, anatomy.architecture_known, anatomy.file_type) == ("llama", True, "Q4_1")
    assert (anatomy.n_layers, anatomy.context_length, anatomy.vocab_size) == (30, 8192, 49152)
    assert (anatomy.tokenizer, anatomy.tokenizer_pre, anatomy.has_chat_template) == ("gpt2", "smollm", True)
    assert anatomy.tied_output
    assert anatomy.by_part["token embeddings"] == Share(1, 576 * 49152, 576 * 49152 // 32 * 34)
    assert anatomy.kv_bytes_per_token["F16"] == 30 * 2 * 192 * 2 == 23040
    assert anatomy.kv_bytes_per_token["Q8_0"] == 30 * 2 * 192 // 32 * 34
    assert len({tuple(layer.by_part.items()) for layer in anatomy.layers}) == 1
    assert anatomy.n_params_active is None
    assert not anatomy.synthetic


LLAMA_CPP = """
import ctypes, sys
import llama_cpp
lines = []
@llama_cpp.llama_log_callback
def log(level, text, data):
    lines.append(text.decode(errors="replace"))
llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
params = llama_cpp.llama_model_default_params()
params.n_gpu_layers = 0
model = llama_cpp.llama_model_load_from_file(sys.argv[1].encode(), params)
print("n_params", llama_cpp.llama_model_n_params(model))
print("size", llama_cpp.llama_model_size(model))
for kind in (0, 1, 2, 8, 30):
    options = llama_cpp.llama_context_default_params()
    options.n_ctx, options.n_threads, options.n_threads_batch = 1024, 1, 1
    options.type_k = options.type_v = kind
    options.flash_attn_type = 1
    lines.clear()
    context = llama_cpp.llama_init_from_model(model, options)
    print("kv", kind, [line for line in lines if "KV buffer size" in line][0].strip())
    llama_cpp.llama_free(context)
"""


@pytest.mark.engine
def test_llama_cpp_counts_the_same():
    """Parameters, bytes and the cache's size, as the engine reports them for the real model."""
    pytest.importorskip("llama_cpp")
    done = subprocess.run(
        [sys.executable, "-c", LLAMA_CPP, str(smollm2())], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    anatomy = describe_model(read_file_header(smollm2()))
    assert f"n_params {anatomy.n_params}\n" in done.stdout
    assert f"size {anatomy.weights_bytes}\n" in done.stdout
    names = {0: "F32", 1: "F16", 2: "Q4_0", 8: "Q8_0", 30: "BF16"}
    found = re.findall(r"kv (\d+) .*= +([0-9.]+) MiB", done.stdout)
    assert len(found) == 5
    for kind, mib in found:
        assert float(mib) == pytest.approx(anatomy.kv_bytes_per_token[names[int(kind)]] * 1024 / 2**20, abs=0.005)


def test_sizes_add_up():
    anatomy = describe_model(read_header(BytesSource(llama_like(layers=3).build())))
    for shares in (anatomy.by_type, anatomy.by_part):
        assert sum(share.size_bytes for share in shares.values()) == anatomy.weights_bytes
        assert sum(share.n_params for share in shares.values()) == anatomy.n_params
    assert [layer.layer for layer in anatomy.layers] == [0, 1, 2]
    assert all(layer.size_bytes == sum(layer.by_part.values()) for layer in anatomy.layers)
    assert list(anatomy.by_part) == ["token embeddings", "attention", "ffn", "norms", "output"]
    assert anatomy.n_heads == (2,)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("token_embd.weight", "token embeddings"),
        ("per_layer_token_embd.weight", "token embeddings"),
        ("output.weight", "output"),
        ("output_norm.weight", "output"),
        ("blk.0.attn_q.weight", "attention"),
        ("blk.31.attn_q_norm.weight", "norms"),
        ("blk.0.ffn_norm.weight", "norms"),
        ("blk.0.post_attention_norm.weight", "norms"),
        ("blk.0.ffn_gate.weight", "ffn"),
        ("blk.0.ffn_gate_inp.weight", "ffn"),
        ("blk.0.ffn_gate_exps.weight", "experts"),
        ("blk.0.ffn_down_shexp.weight", "ffn"),
        ("blk.0.ssm_in.weight", "other"),
        ("dec.blk.3.cross_attn_k.weight", "attention"),
        ("rope_freqs.weight", "other"),
        ("v.blk.0.attn_q.weight", "other"),
    ],
)
def test_sorts_tensors_into_parts(name, part):
    anatomy = describe_model(header_of("llama", HeaderBytes().add_tensor(name, "F16", 64, 64)))
    assert anatomy.by_part == {part: Share(1, 4096, 8192)}


def test_experts_that_a_token_does_not_visit_are_not_active():
    made = (
        HeaderBytes()
        .add_tensor("blk.0.ffn_up_exps.weight", "Q4_0", 64, 32, 8)
        .add_tensor("output.weight", "F16", 64, 10)
    )
    anatomy = describe_model(header_of("llama", made, expert_count=8, expert_used_count=2, block_count=1))
    assert anatomy.n_params == 64 * 32 * 8 + 640
    assert anatomy.n_params_active == 64 * 32 * 2 + 640
    assert (anatomy.n_experts, anatomy.n_experts_used, anatomy.tied_output) == (8, (2,), False)


def test_the_file_type_is_guessed_where_it_is_not_stated():
    assert describe_model(header_of("llama", HeaderBytes().add_tensor("a", "Q6_K", 256))).file_type == "(guessed) Q6_K"
    assert describe_model(header_of("llama")).file_type is None
    assert (
        describe_model(header_of("llama", HeaderBytes().add("general.file_type", "u32", 15))).file_type
        == "Q4_K - Medium"
    )
    assert (
        describe_model(header_of("llama", HeaderBytes().add("general.file_type", "u32", 99))).file_type
        == "unknown file type 99"
    )


def test_what_is_not_stated_is_none():
    anatomy = describe_model(read_header(BytesSource(HeaderBytes().build())))
    assert anatomy.architecture == "unknown"
    assert not anatomy.architecture_known
    for field in (
        "name",
        "file_type",
        "bits_per_weight",
        "n_layers",
        "n_heads",
        "context_length",
        "tokenizer",
        "vocab_size",
    ):
        assert getattr(anatomy, field) is None
    assert set(anatomy.kv_bytes_per_token.values()) == {None}


def test_knows_a_synthetic_model_and_an_unknown_architecture():
    made = HeaderBytes().add("harness.synthetic", "bool", 1)
    assert describe_model(header_of("llama", made)).synthetic
    assert not describe_model(header_of("mllama")).architecture_known


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"block_count": 2**31}, "block_count is 2147483648, outside"),
        ({"block_count": 0}, "block_count is 0, outside"),
        ({"block_count": "four"}, "block_count is 'four', which is not a count"),
        ({"embedding_length": [1, 2]}, "embedding_length is an array of 2, which is not a count"),
        ({"attention__head_count_kv": [1, 2]}, "head_count_kv has 2 items for 4 layers"),
        ({"attention__head_count": "8"}, "head_count is '8', which is not a count"),
        ({"context_length": "long"}, "context_length is 'long'"),
    ],
)
def test_refuses_settings_that_cannot_be(change, said):
    with pytest.raises(HarnessError, match=said):
        describe_model(header_of("llama", **(LLAMA | change)))


def test_every_cache_type_is_a_tensor_type():
    kv = describe_attention(header_of("llama", **LLAMA))
    anatomy = describe_model(header_of("llama", **LLAMA))
    for name, size in anatomy.kv_bytes_per_token.items():
        assert size == kv.bytes_per_token(name) == round(4 * 2 * 128 * tensor_type(name).bits_per_element / 8)
