"""What each layer keeps, against arithmetic done by hand; all architectures are held against llama.cpp in test_architectures."""

from __future__ import annotations

import dataclasses

import pytest

from harness.errors import HarnessError
from harness.gguf.attention import describe_attention
from harness.gguf.blocks import count_layers, loaded_tensors
from harness.gguf.caches import Context, round_context
from harness.gguf.header import BytesSource, read_header
from harness.memory.causes import HOST, Cause
from harness.memory.forecast import Host, device_rules, predict_memory, price_cache
from harness.memory.placement import place_layers
from harness.spec import RunSpec
from tests.gguf_bytes import HeaderBytes, llama_like
from tests.test_anatomy import LLAMA, header_of

GIB = 1024**3


def test_a_layer_takes_heads_times_head_size_twice():
    kv = describe_attention(header_of("llama", **LLAMA))
    assert kv.bytes_per_token("f16") == 4 * 2 * (2 * 64) * 2
    assert kv.bytes_per_token("f16", "q8_0") == 4 * (128 * 2 + 128 // 32 * 34)


def test_heads_for_keys_and_values_default_to_all_heads():
    settings = {key: value for key, value in LLAMA.items() if "kv" not in key}
    assert describe_attention(header_of("llama", **settings)).bytes_per_token("F16") == 4 * 2 * 512 * 2


def test_stated_head_lengths_win():
    kv = describe_attention(header_of("llama", **LLAMA, attention__key_length=128, attention__value_length=96))
    assert kv.bytes_per_token("f32") == 4 * 2 * (128 + 96) * 4


def test_heads_may_differ_by_layer():
    settings = LLAMA | {"attention__head_count_kv": [2, 0, 8, 1]}
    kv = describe_attention(header_of("deci", **settings))
    assert kv.bytes_per_token("f16") == (2 + 0 + 8 + 1) * 64 * 2 * 2
    assert "without flash attention" in kv.notes[0]
    assert kv.layers is not None
    assert kv.layers[1].n_embd_k == 0


def test_a_type_whose_blocks_do_not_divide_a_head_is_refused():
    kv = describe_attention(header_of("phi2", block_count=2, embedding_length=160, attention__head_count=2))
    assert kv.bytes_per_token("f16") == 2 * 2 * 160 * 2
    assert kv.bytes_per_token("q8_0") is None, "a head of 80 is no whole number of 32"
    kv = describe_attention(header_of("llama", **LLAMA, attention__key_length=80, attention__value_length=64))
    assert kv.bytes_per_token("f16", "q8_0") == 4 * 2 * (80 * 2 + 64 // 32 * 34)
    assert kv.bytes_per_token("q8_0", "f16") is None


def test_latent_attention_keeps_keys_only():
    settings = LLAMA | {"attention__head_count_kv": 1, "attention__key_length": 576, "attention__value_length": 512}
    kv = describe_attention(
        header_of("deepseek2", **settings, attention__key_length_mla=192, attention__value_length_mla=128)
    )
    assert kv.bytes_per_token("f16") == 4 * 576 * 2
    assert "latent" in kv.notes[0]


def test_windowed_layers_are_noted_and_may_have_other_heads():
    kv = describe_attention(header_of("gemma3", **LLAMA, attention__sliding_window=1024))
    assert (kv.window_tokens, kv.bytes_per_token("f16")) == (1024, 4 * 2 * 128 * 2)
    assert "4 of 4 caches look back only 1024 tokens" in kv.notes[0]
    assert describe_attention(header_of("phi3", **LLAMA, attention__sliding_window=2047)).window_tokens is None
    other = {"attention__key_length_swa": 32, "attention__value_length_swa": 32}
    assert "heads" in (describe_attention(header_of("mimo2", **LLAMA, **other)).reason or "")
    kv = describe_attention(
        header_of("gemma4", **LLAMA, **other, attention__sliding_window_pattern=[True, True, True, False])
    )
    assert kv.bytes_per_token("f16") == (3 * 32 + 64) * 2 * 2 * 2


def test_layers_that_share_a_cache_or_only_predict_have_none():
    shared = header_of("gemma4", **LLAMA, attention__shared_kv_layers=3)
    assert describe_attention(shared).bytes_per_token("f16") == 1 * 2 * 128 * 2
    block = HeaderBytes().add_tensor("blk.3.attn_q.weight", "F16", 512, 512)
    ahead = header_of("glm4moe", block, **LLAMA, nextn_predict_layers=1)
    assert describe_attention(ahead).bytes_per_token("f16") == 3 * 2 * 128 * 2
    assert "use the caches of earlier ones" in describe_attention(shared).notes[0]
    assert describe_attention(ahead).skipped == (3,)
    assert "in the file, not in memory, not read by a token" in describe_attention(ahead).notes[0]
    left_out = describe_attention(header_of("glm4moe", **LLAMA, nextn_predict_layers=1))
    assert (left_out.bytes_per_token("f16"), left_out.skipped, left_out.notes) == (3 * 2 * 128 * 2, (), ())
    many = LLAMA | {"block_count": 30}
    assert describe_attention(header_of("gemma3n", **many)).bytes_per_token("f16") == 20 * 2 * 128 * 2


def test_gemma_3_27b_at_131072_tokens_takes_10_61_gib_and_not_62():
    settings = {
        "block_count": 62, "embedding_length": 5376, "attention__head_count": 32, "attention__head_count_kv": 16,
        "attention__key_length": 128, "attention__value_length": 128, "attention__sliding_window": 1024, "context_length": 131072,
    }  # fmt: skip
    attention = describe_attention(header_of("gemma3", **settings))
    row = 2 * 16 * 128 * 2
    assert attention.size_bytes(Context(131072)) == row * (10 * 131072 + 52 * 1536)
    assert round(attention.size_bytes(Context(131072)) / GIB, 2) == 10.61
    cost = attention.cost("f16")
    assert cost.size_bytes(Context(131072)) == attention.size_bytes(Context(131072))
    assert cost.read_bytes(131072) == row * (10 * 131072 + 52 * 1024), "attention reads no further back than the window"
    assert cost.read_bytes(1000) == 62 * row * 1000
    assert cost.flops(2000) == 2 * 2 * 32 * 128 * (10 * 2000 + 52 * 1024)
    looked = sum(min(depth, 1024) for depth in range(4096)) / 4096
    assert cost.prompt_flops(4096) == pytest.approx(2 * 2 * 32 * 128 * (10 * 2048 + 52 * looked), rel=1e-3)


SSM = {
    "ssm__conv_kernel": 4,
    "ssm__inner_size": 1024,
    "ssm__state_size": 16,
    "ssm__time_step_rank": 8,
    "ssm__group_count": 2,
}
MAMBA = (3 * (1024 + 2 * 2 * 16), 16 * 1024)
PLAIN_MAMBA = (3 * 1024, 16 * 1024)
KDA = {"kda__head_dim": 64, "ssm__conv_kernel": 4, "attention__key_length_mla": 64, "attention__value_length_mla": 64}
KDA_STATE = (3 * 3 * 8 * 64, 64 * 64 * 8)
HEADLESS = {"attention__head_count_kv": [0, 2, 0, 2]}
WKV = {"wkv__head_size": 64, "attention__head_count": 0, "attention__head_count_kv": 0}
ALL, NONE = (0, 1, 2, 3), ()


@pytest.mark.parametrize(
    ("arch", "extra", "cached", "kept", "state"),
    [
        ("qwen3next", {**SSM, "full_attention_interval": 2}, (1, 3), (0, 2), MAMBA),
        ("qwen35", SSM, (3,), (0, 1, 2), MAMBA),
        ("qwen35moe", {**SSM, "nextn_predict_layers": 1}, NONE, (0, 1, 2), MAMBA),
        ("qwen35", {**SSM, "attention__recurrent_layers": [True, False, False, True]}, (1, 2), (0, 3), MAMBA),
        ("granitehybrid", {**SSM, **HEADLESS}, (1, 3), (0, 2), MAMBA),
        ("nemotron_h", {**SSM, **HEADLESS, "feed_forward_length": [0, 0, 512, 0]}, (1, 3), (0,), MAMBA),
        ("nemotron_h_moe", {**SSM, **HEADLESS, "feed_forward_length": [0, 0, 512, 64]}, (1,), (0,), MAMBA),
        ("jamba", {**SSM, **HEADLESS}, (1, 3), (0, 2), PLAIN_MAMBA),
        ("plamo2", {**SSM, **HEADLESS}, (1, 3), (0, 2), MAMBA),
        ("falcon-h1", SSM, ALL, ALL, MAMBA),
        ("lfm2", {**HEADLESS, "shortconv__l_cache": 3}, (1, 3), (0, 2), (2 * 512, 0)),
        ("lfm2moe", {**HEADLESS, "shortconv__l_cache": 3}, (1, 3), (0, 2), (2 * 512, 0)),
        ("kimi-linear", {**HEADLESS, **KDA}, (1, 3), (0, 2), KDA_STATE),
        ("minimax-01", {"full_attention_interval": 4}, (3,), (0, 1, 2), (0, 64 * 64 * 8)),
        ("mamba", SSM, NONE, ALL, PLAIN_MAMBA),
        ("mamba2", SSM, NONE, ALL, MAMBA),
        ("rwkv6", WKV, NONE, ALL, (2 * 512, 64 * 512)),
        ("rwkv6qwen2", {**WKV, "token_shift_count": 1}, NONE, ALL, (512, 64 * 512)),
        ("rwkv7", WKV, NONE, ALL, (2 * 512, 64 * 512)),
    ],
)  # fmt: skip
def test_hybrids_keep_a_state_in_some_layers_and_a_cache_in_others(arch, extra, cached, kept, state):
    found = describe_attention(header_of(arch, **(LLAMA | extra)))
    assert found.reason is None
    assert tuple(layer.layer for layer in found.layers) == cached
    assert tuple(item.layer for item in found.states) == kept
    assert {(item.n_embd_r, item.n_embd_s) for item in found.states} == {state}
    assert found.state_bytes == 4 * len(kept) * sum(state)
    assert found.size_bytes(Context(512)) == 512 * found.bytes_per_token("f16") + found.state_bytes
    assert found.cost("f16").read_bytes(0) == 2 * found.state_bytes, "a state is read and written"


def test_a_state_lies_where_its_layer_lies():
    found = describe_attention(header_of("qwen35", **LLAMA, **SSM))
    host = Host(None, (device_rules("CUDA0"),))
    spec = RunSpec("m", n_prompt=512, n_gen=0, n_gpu_layers=3)
    placement = place_layers(4, 3, (1.0,))
    assert placement == (None, None, 0, 0, 0)
    sizes = {(line.cause, line.device): line.size_bytes for line in price_cache(found, spec, placement, host)}
    one = 4 * sum(MAMBA)
    assert sizes == {
        (Cause.KV, "CUDA0"): 512 * 2 * 128 * 2,
        (Cause.RECURRENT, HOST): 2 * one,
        (Cause.RECURRENT, "CUDA0"): one,
    }
    kept = dataclasses.replace(spec, no_kv_offload=True)
    sizes = {(line.cause, line.device): line.size_bytes for line in price_cache(found, kept, placement, host)}
    assert sizes == {(Cause.KV, HOST): 512 * 2 * 128 * 2, (Cause.RECURRENT, HOST): 3 * one}


def test_a_state_that_the_header_does_not_state_is_not_nothing():
    found = describe_attention(header_of("mamba", **LLAMA))
    assert (found.layers, found.bytes_per_token("f16")) == (None, None)
    assert "does not state how large" in found.reason


@pytest.mark.parametrize(
    ("arch", "said"), [("dflash", "drafts for another model"), ("gemma4-assistant", "uses that model's cache")]
)
def test_says_why_it_cannot_tell(arch, said):
    found = describe_attention(header_of(arch, **LLAMA))
    assert (found.layers, found.bytes_per_token("f16")) == (None, None)
    assert said in (found.reason or "")


def test_an_encoder_has_no_cache_and_says_so():
    found = describe_attention(header_of("bert", **LLAMA))
    assert (found.layers, found.size_bytes(Context(512))) == ((), 0)
    assert "makes no cache" in found.notes[0]


def test_an_indexer_keeps_its_keys_beside():
    settings = LLAMA | {"attention__indexer__key_length": 32, "attention__indexer__head_count": 4}
    found = describe_attention(header_of("minimax-m3", **settings, leading_dense_block_count=1))
    row = 2 * 128 * 2
    assert found.bytes_per_token("f16") == 4 * row + 3 * (32 + 64) * 2


def test_compressed_rows_grow_by_their_ratio_and_compressors_keep_a_state():
    settings = LLAMA | {
        "attention__head_count_kv": 1, "attention__key_length": 64, "attention__sliding_window": 300,
        "attention__compress_ratios": [0, 4, 128, 0], "attention__indexer__key_length": 32, "attention__indexer__head_count": 4,
    }  # fmt: skip
    found = describe_attention(header_of("deepseek4", **settings))
    window, csa, hca = 4 * 128 * 1024, 512 * (128 + 64), 256 * 128
    states = 4 * 2 * (2 * 64 * 8 + 2 * 32 * 8 + 64 * 128)
    assert found.size_bytes(Context(2048)) == window + csa + hca + states
    assert found.size_bytes(Context(2048, swa_full=True)) == 2 * window + csa + hca + states
    assert found.cost("f16").size_bytes(Context(2048)) == found.size_bytes(Context(2048))
    assert found.cost("f16").read_bytes(2000) == 4 * 128 * 300 + 2000 / 4 * 192 + 2000 / 128 * 128 + 2 * states


def test_looped_blocks_keep_a_cache_each_time_and_a_router_keeps_one_more():
    looped = header_of("nanbeige", **LLAMA, num_loops=3)
    assert count_layers(looped) == 12
    with pytest.raises(HarnessError, match="4 blocks make 8589934592 layers"):
        describe_attention(header_of("nanbeige", **LLAMA, num_loops=2**31))
    assert describe_attention(looped).bytes_per_token("f16") == 12 * 2 * 128 * 2
    router = header_of("graniteswitch", **LLAMA)
    assert count_layers(router) == 5
    assert describe_attention(router).bytes_per_token("f16") == 4 * 2 * 128 * 2 + 2 * 64 * 2


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(HarnessError, match="full_attention_interval is 0"):
        describe_attention(header_of("qwen35", **LLAMA, **SSM, full_attention_interval=0))


def test_blocks_that_only_predict_are_in_the_file_and_not_in_memory():
    made = llama_like(layers=3, arch="glm4moe").add("glm4moe.nextn_predict_layers", "u32", 1)
    header = read_header(BytesSource(made.build()))
    loaded = loaded_tensors(header)
    last = [tensor for tensor in header.tensors if tensor.name.startswith("blk.2.")]
    assert last
    assert set(header.tensors) - set(loaded) == set(last)
    assert count_layers(header) == 3, "-ngl counts it nevertheless"
    spec = RunSpec("m", n_prompt=512, n_gen=0, repack=False, load_mode="none")
    weights = sum(line.size_bytes for line in predict_memory(header, spec, Host(None)).lines if "weights" in line.cause)
    assert weights == sum(-(-tensor.size_bytes // 32) * 32 for tensor in loaded)


def test_a_context_is_rounded_up():
    assert [round_context(n) for n in (1, 256, 257)] == [256, 256, 512]
