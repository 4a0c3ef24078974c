"""What a token costs: bytes and operations by a shape, by a file's header, by a size; and what fits."""

import dataclasses

import pytest

from harness.gguf.cost import cost_of_header, cost_of_shape, cost_of_size, prompt_roof_tok_per_s, roof_tok_per_s
from harness.memory.fit import fit_layers, metal_limit_bytes, need_in_memory, rough_prices
from harness.sources.gguf_file import read_file_header
from harness.sources.user_catalog import load_catalog

CATALOG = load_catalog()
GIB = 1024**3


def cost(name, quantization="Q4_0", **options):
    return cost_of_shape(CATALOG.entries[name].shape, quantization, name, **options)


def test_tied_embeddings_are_read_and_untied_ones_are_not():
    tied, untied = cost("llama3.2:1b"), cost("llama3.1:8b")
    assert tied.read_bytes == tied.size_bytes
    # Untied, in Q4_0: 128256 rows of 4096 elements, 18 bytes for 32.
    assert untied.size_bytes - untied.read_bytes == 128256 * 4096 // 32 * 18


def test_operations_are_two_a_weight_and_attention_grows_with_depth():
    one = cost("llama3.2:1b")
    assert one.flops_per_token() == pytest.approx(2 * 1.2357e9, rel=1e-3)
    # 16 layers, 2048 wide queries: 2 for q·k and 2 for the values, each.
    assert one.flops_per_token(100) - one.flops_per_token() == 4 * 2048 * 16 * 100


def test_the_cache_is_read_as_deep_as_it_is_filled():
    eight = cost("llama3.1:8b")
    assert eight.kv_bytes_per_token == 2 * 2 * 8 * 128 * 32
    assert eight.bytes_per_token(1000) - eight.bytes_per_token() == 1000 * 131072
    small = cost("llama3.1:8b", type_k="q8_0", type_v="q8_0")
    assert small.kv_bytes_per_token == 131072 * 34 // 64


def test_a_token_visits_only_its_share_of_the_experts():
    dense = dataclasses.replace(CATALOG.entries["llama3.2:1b"].shape)
    shape = dataclasses.replace(dense, expert_count=8, expert_used_count=2)
    all_read = dataclasses.replace(dense, expert_count=8, expert_used_count=8)
    some, every = cost_of_shape(shape, "Q8_0"), cost_of_shape(all_read, "Q8_0")
    assert some.size_bytes == every.size_bytes == every.read_bytes
    experts = 3 * 16 * 8 * 2048 * 8192 // 32 * 34
    assert every.read_bytes - some.read_bytes == experts * 6 // 8
    assert every.n_multiplied - some.n_multiplied == 3 * 16 * 6 * 2048 * 8192


def test_a_real_header_costs_what_its_shape_does(model):
    by_header = cost_of_header(read_file_header(model), "Q4_1", "smollm2:135m")
    by_shape = cost("smollm2:135m", "Q4_1")
    for name in ("n_layers", "n_embd", "n_vocab", "kv_bytes_per_token", "n_multiplied", "n_params"):
        assert getattr(by_header, name) == getattr(by_shape, name), name
    assert by_header.read_bytes == by_header.size_bytes  # tied


def test_a_size_alone_gets_the_layers_of_its_neighbours():
    known = [cost(name) for name in ("llama3.2:1b", "llama3.1:8b", "llama3.1:70b")]
    guess = cost_of_size(20 * 10**9, known)
    assert guess.read_bytes == guess.size_bytes == 20 * 10**9
    assert 32 < guess.n_layers < 80
    assert guess.is_estimate
    assert cost_of_size(10**8, known).n_layers < 16
    assert cost_of_size(10**12, known).n_layers > 80


def test_the_roofs():
    eight = cost("llama3.1:8b")
    assert roof_tok_per_s(eight, eight.read_bytes * 10.0) == pytest.approx(10)
    assert roof_tok_per_s(eight, 273e9, 4096) < roof_tok_per_s(eight, 273e9)
    assert prompt_roof_tok_per_s(eight, eight.flops_per_token(256) * 7, 512) == pytest.approx(7)


def test_working_memory_is_what_llama_cpp_reserves():
    """258.5 MiB were logged by llama.cpp 0c1e570 for a llama3.2:1b in Q4_0 with n_ctx 8192, and 256 MiB of cache."""
    need = need_in_memory(cost("llama3.2:1b"), 8192)
    assert need.compute_bytes / 1024**2 == 258.5
    assert need.cache_bytes == 256 * 1024**2


def test_layers_fit_one_by_one():
    big = cost("llama3.1:70b")
    counts = [
        fit_layers(rough_prices(big, 2048), "a card", gib * GIB, 300 * 1024**2, 457 * 1024**2).n_fitting
        for gib in (0, 1, 4, 8, 24, 48, 80)
    ]
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert 10 <= counts[3] <= 16
    assert counts[-2:] == [81, 81]


def test_a_mac_gives_its_gpu_a_part():
    """As llama.cpp logs recommendedMaxWorkingSetSize: in MB of 48 GiB, in MiB of the others."""
    assert metal_limit_bytes(48 * GIB) / 1e6 == pytest.approx(38654.71, abs=0.01)
    assert metal_limit_bytes(64 * GIB) / 1024**2 == pytest.approx(49152.00, abs=0.01)
    assert metal_limit_bytes(32 * GIB) / 1024**2 == pytest.approx(21845.34, abs=0.01)
    assert metal_limit_bytes(16 * GIB) / 1024**2 == pytest.approx(10922.67, abs=0.01)


def test_405b_is_larger_than_the_article_guessed():
    assert cost("llama3.1:405b").size_bytes == pytest.approx(231.2e9, rel=0.001)  # and what Ollama's page says of it
