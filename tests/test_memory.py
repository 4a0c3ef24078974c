"""Bytes from a header: numbers worked out by hand, and some that llama.cpp's log gave."""

from __future__ import annotations

import dataclasses

import pytest

from harness.errors import HarnessError
from harness.gguf.attention import describe_attention
from harness.gguf.caches import window_cells
from harness.gguf.header import Part
from harness.memory.causes import HOST, Cause, Note, Remark
from harness.memory.fit import fit_layers, price_layers
from harness.memory.forecast import (
    DeviceRules,
    Host,
    WeightPlan,
    device_rules,
    predict_memory,
    round_context,
    work_bytes,
)
from harness.memory.placement import place_layers
from harness.memory.repack import read_features
from harness.sources.gguf_file import read_file_header
from harness.spec import RunSpec
from tests.gguf_bytes import HeaderBytes
from tests.shapes import catalog_header, small_header

HERE = Host(read_features("AVX2 = 1 | AVX512 = 1 | REPACK = 1"))
MIB = 2**20


def spec(n_ctx=8192, **changes):
    return RunSpec("m", **{"n_prompt": n_ctx, "n_gpu_layers": 0, **changes})


def mib(size_bytes):
    return round(size_bytes / MIB, 2)


def test_llama_1b_at_8192_by_hand():
    found = predict_memory(catalog_header("llama3.2:1b:q4_0"), spec(), HERE)
    assert found.of(Cause.REPACKED) == 16 * (2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 8192) * 18 // 32  # 522 MiB
    assert (
        found.of(Cause.KV) == 8192 * 16 * 2 * 512 * 2
    )  # cells, layers, K and V, eight heads of 64, two bytes: 256 MiB
    assert found.notes == ()


def test_a_smaller_cache_type_and_a_context_that_is_rounded_up():
    header = catalog_header("llama3.2:1b:q4_0")
    assert round_context(1) == 256
    assert round_context(8192) == 8192
    found = predict_memory(header, spec(3000, type_k="q8_0", type_v="q8_0"), HERE)
    assert found.of(Cause.KV) == 3072 * 16 * 2 * (512 // 32 * 34)


def test_without_repacking_the_file_is_mapped_and_nothing_else():
    header = catalog_header("llama3.2:1b:q4_0")
    first = min(tensor.offset for tensor in header.tensors)
    last = max(tensor.offset + tensor.size_bytes for tensor in header.tensors)
    found = predict_memory(header, spec(repack=False), HERE)
    assert found.of(Cause.REPACKED) == 0
    assert found.of(Cause.MAPPED) == last - first


def test_copied_weights_are_rounded_up_to_32_bytes_each():
    header = small_header("llama")
    found = predict_memory(header, spec(load_mode="none", repack=False), HERE)
    assert found.of(Cause.MAPPED) == 0
    assert found.of(Cause.COPIED) == sum(-(-tensor.size_bytes // 32) * 32 for tensor in header.tensors)


def test_the_span_of_a_mapping_holds_what_lies_between():
    """With the first and last tensor left in the file, the repacked ones between them are still within its range."""
    builder = HeaderBytes().add("general.architecture", "str", "llama").add("llama.block_count", "u32", 1)
    for key, value in (("embedding_length", 64), ("attention.head_count", 1)):
        builder.add(f"llama.{key}", "u32", value)
    builder.add_tensor("token_embd.weight", "F32", 64, 8).add_tensor("blk.0.ffn_up.weight", "Q4_0", 64, 8)
    builder.add_tensor("output.weight", "F32", 64, 8)
    from harness.gguf.header import BytesSource, read_header

    header = read_header(BytesSource(builder.build()))
    found = predict_memory(header, spec(), HERE)
    assert (found.of(Cause.MAPPED), found.of(Cause.REPACKED)) == (2048 + 288 + 2048, 288)


def test_each_file_of_a_split_model_has_a_span_of_its_own():
    header = small_header("llama")
    names = [tensor.name for tensor in header.tensors]
    half = len(names) // 2
    cut = header.tensors[half].offset
    tensors = tuple(
        dataclasses.replace(tensor, part=index >= half, offset=tensor.offset - (cut if index >= half else 0))
        for index, tensor in enumerate(header.tensors)
    )
    split = dataclasses.replace(header, tensors=tensors, parts=(Part("a", 0, 1), Part("b", 0, 1)))
    whole = predict_memory(header, spec(repack=False), HERE).of(Cause.MAPPED)
    # The padding between the two halves is in neither span.
    gap = cut - (header.tensors[half - 1].offset + header.tensors[half - 1].size_bytes)
    assert predict_memory(split, spec(repack=False), HERE).of(Cause.MAPPED) == whole - gap


def test_layers_go_to_the_device_from_the_end():
    assert place_layers(4, 0, (1.0,)) == (None,) * 5
    assert place_layers(4, 1, (1.0,)) == (None, None, None, None, 0)
    assert place_layers(4, 3, (1.0,)) == (None, None, 0, 0, 0)
    assert place_layers(4, -1, (1.0,)) == place_layers(4, 99, (1.0,)) == (0,) * 5
    assert place_layers(4, -1, ()) == (None,) * 5


def test_layers_are_shared_by_the_splits():
    assert place_layers(9, -1, (1.0, 1.0)) == (0,) * 5 + (1,) * 5
    assert place_layers(9, -1, (3.0, 1.0)).count(0) == 8  # 10 layers: 0 to 7 lie below three quarters
    assert set(place_layers(9, -1, (1.0, 0.0))) == {0}
    assert place_layers(9, 4, (1.0, 1.0)) == (None,) * 6 + (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("n_gpu_layers", "weights", "cache"), [(10, 47.71, 3.38), (20, 68.85, 7.12), (30, 89.99, 10.88), (31, 92.10, 11.25)]
)
def test_layers_on_a_device_as_llama_cpp_logged_them(model, n_gpu_layers, weights, cache):
    """SmolLM2 in a context of 512 on an RPC device, whose buffers llama.cpp logged so."""
    host = dataclasses.replace(HERE, devices=(device_rules("RPC0"),))
    found = predict_memory(read_file_header(model), spec(512, n_gpu_layers=n_gpu_layers), host)
    device = host.devices[0].name
    assert (mib(found.of(Cause.COPIED, device)), mib(found.of(Cause.KV, device))) == (weights, cache)


def test_an_unsplit_model_knows_only_the_main_card():
    cards = (device_rules("CUDA0", memory_bytes=10**10), device_rules("CUDA1", memory_bytes=10**10))
    host = dataclasses.replace(HERE, devices=cards)
    both = predict_memory(small_header("llama"), spec(n_gpu_layers=-1), host)
    assert both.on("CUDA0") > 0 < both.on("CUDA1")
    one = predict_memory(small_header("llama"), spec(n_gpu_layers=-1, split_mode="none", main_gpu=1), host)
    assert one.on("CUDA0") == 0 < one.on("CUDA1")
    rows = predict_memory(small_header("llama"), spec(n_gpu_layers=-1, split_mode="row"), host)
    assert rows.notes[0] == Note(Remark.SPLIT_WITHIN_LAYERS, Cause.COPIED, "row")


def test_the_cache_may_stay_on_the_host():
    host = dataclasses.replace(HERE, devices=(device_rules("CUDA0"),))
    found = predict_memory(small_header("llama"), spec(n_gpu_layers=-1, no_kv_offload=True), host)
    assert found.of(Cause.KV, "CUDA0") == 0
    assert found.of(Cause.KV, HOST) == 8192 * 4 * 2 * 128 * 2


def test_a_card_with_pinned_memory_leaves_nothing_to_repack():
    header, host = small_header("llama"), dataclasses.replace(HERE, devices=(device_rules("CUDA0"),))
    assert predict_memory(header, spec(), HERE).of(Cause.REPACKED) > 0
    assert predict_memory(header, spec(), host).of(Cause.REPACKED) == 0
    copied = predict_memory(header, spec(load_mode="none"), host)
    assert [line.buffer for line in copied.lines if line.cause == Cause.COPIED] == ["CUDA_Host"]
    metal = dataclasses.replace(HERE, devices=(device_rules("MTL0"),))
    assert predict_memory(header, spec(), metal).of(Cause.REPACKED) > 0
    mapped = predict_memory(header, spec(n_gpu_layers=-1), metal)
    assert {line.buffer for line in mapped.lines if line.cause == Cause.MAPPED} == {"CPU_Mapped", "MTL0_Mapped"}


def test_cuda_rounds_the_rows_of_quantized_tensors():
    header = small_header("llama")
    cuda = predict_memory(header, spec(n_gpu_layers=-1), Host(None, (device_rules("CUDA0"),))).on("CUDA0")
    plain = predict_memory(header, spec(n_gpu_layers=-1), Host(None, (DeviceRules("CUDA0", 128),))).on("CUDA0")
    # Rows of 256 are 256 short of 512: once for each of the tensors with such rows, the output among them.
    short = [t for t in header.tensors if t.shape[0] == 256 and t.type_name in ("Q4_0", "Q6_K")]
    assert cuda - plain >= len(short) * 256 * 18 // 32 - 128 * len(short)
    assert cuda > plain


def test_windowed_layers_stop_growing():
    header = small_header("gemma3")  # six layers, the last of them without the window of 512
    geometry = describe_attention(header)
    assert [layer.windowed for layer in geometry.layers] == [True] * 5 + [False]
    row = 2 * 128 * 2
    assert window_cells(spec(4096), 512) == 1024  # window and micro-batch, rounded up to 256
    assert window_cells(spec(512), 512) == 512  # no more than the context
    assert window_cells(spec(4096, n_ubatch=100), 512) == 768
    assert predict_memory(header, spec(4096), HERE).of(Cause.KV) == row * (5 * 1024 + 4096)
    assert [layer.windowed for layer in describe_attention(small_header("gemma2")).layers] == [True, False] * 2
    assert not any(layer.windowed for layer in describe_attention(small_header("llama")).layers)


def test_without_flash_attention_v_takes_the_width_of_the_widest_layer():
    geometry = describe_attention(small_header("llama"))
    layers = (*geometry.layers[:3], dataclasses.replace(geometry.layers[3], n_embd_v=256))
    layers = tuple(dataclasses.replace(layer, widest_v=256) for layer in layers)
    from harness.memory.forecast import price_cache

    uneven = dataclasses.replace(geometry, layers=layers)
    place = (None,) * 5
    (with_flash,) = price_cache(uneven, spec(256), place, HERE)
    (without,) = price_cache(uneven, spec(256, flash_attn="off"), place, HERE)
    assert with_flash.size_bytes == 256 * 2 * (4 * 128 + 3 * 128 + 256)
    assert without.size_bytes == 256 * 2 * (4 * 128 + 4 * 256)


def test_what_cannot_be_known_is_said():
    header = small_header("llama")
    assert predict_memory(header, spec(), Host(None)).notes[0].remark is Remark.REPACKING_UNKNOWN
    kleidi = Host(read_features("NEON = 1 | REPACK = 1 | KLEIDIAI = 1"))
    assert predict_memory(header, spec(), kleidi).notes == (Note(Remark.LAYOUTS_UNKNOWN, Cause.REPACKED, "KLEIDIAI"),)
    mamba = dataclasses.replace(header, metadata={**header.metadata, "general.architecture": "mamba"})
    mamba = dataclasses.replace(mamba, metadata={**mamba.metadata, "mamba.block_count": 4})
    found = predict_memory(mamba, spec(), HERE)
    assert "state" in found.notes[0].detail
    assert [gap.cause for gap in found.notes] == [Cause.KV]


def test_a_cache_type_that_does_not_divide_a_head():
    header = small_header("llama")
    odd = dataclasses.replace(
        header, metadata={**header.metadata, "llama.attention.key_length": 80, "llama.attention.value_length": 80}
    )
    found = predict_memory(odd, spec(type_k="q4_0"), HERE)
    assert found.of(Cause.KV) == 0
    assert "use -ctk f16" in found.notes[0].detail


def test_every_layer_count_has_a_price_that_only_grows():
    header = small_header("mixtral")
    prices = price_layers(header, spec(), device_rules("CUDA0"))
    assert [price.n_gpu_layers for price in prices] == list(range(6))
    sizes = [price.device_bytes for price in prices]
    assert sizes[0] == 0
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == len(sizes)
    everything = predict_memory(
        header, spec(n_gpu_layers=-1), dataclasses.replace(HERE, devices=(device_rules("CUDA0"),))
    )
    assert sizes[-1] == everything.on("CUDA0")


def test_how_many_layers_fit():
    prices = price_layers(small_header("llama"), spec(), device_rules("CUDA0"))
    enough = prices[3].device_bytes + 1000

    def count(memory_bytes):
        return fit_layers(prices, "a card", memory_bytes, 600, 400).n_fitting

    assert [count(size) for size in (enough, enough - 1, 10**15, 999)] == [3, 2, 5, 0]


def test_a_header_that_states_no_layers_is_refused():
    header = small_header("llama")
    for count in (0, 10**6, None):
        lying = dataclasses.replace(header, metadata={**header.metadata, "llama.block_count": count})
        with pytest.raises(HarnessError, match="block_count"):
            WeightPlan(lying, HERE)


def test_work_is_the_widest_product_of_a_micro_batch():
    assert work_bytes(catalog_header("llama3.2:1b:q4_0"), spec()) == 512 * 8192 * 34 // 32
    assert work_bytes(catalog_header("llama3.2:1b:q4_0"), spec(n_ubatch=64)) == 64 * 8192 * 34 // 32


def test_without_flash_attention_the_scores_are_work_too():
    header = catalog_header("llama3.2:1b:q4_0")
    assert work_bytes(header, spec(), n_cells=8000) == 8192 * 512 * 32 * 2  # cells, tokens, heads, f16
    assert work_bytes(header, spec(n_ubatch=64), n_cells=512) == 512 * 64 * 32 * 2
