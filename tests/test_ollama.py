"""Ollama's account of October 2024: the article's two figures to the byte, the offload tables, the words around them."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib

import click
import pytest
from click.testing import CliRunner

from harness.cli.ollama_options import find_account, ollama_options
from harness.errors import HarnessError, UsageError
from harness.gguf.header import ArrayValue, Header, Tensor
from harness.gguf.layout import tensor_table
from harness.gguf.types import tensor_type
from harness.memory.ollama_2024 import Request, estimate, format_ollama, give_account, name_processor
from harness.memory.ollama_graph import Figures, read_figures, size_graph
from harness.sources.user_catalog import load_catalog
from harness.views.formats import render
from harness.views.ollama_2024 import describe_account, export_account
from harness.views.page import USUAL as WIDTH

HERE = pathlib.Path(__file__).parent
MIB = 2**20


def header_of(name: str, quantization: str, **metadata) -> Header:
    """The header that a model of the catalog would have, as far as the account reads it."""
    shape = load_catalog().find(name).shape
    arch, offset, tensors = shape.architecture, 0, []
    for row in tensor_table(shape, quantization):
        kind = tensor_type(row.type_name)
        tensors.append(Tensor(row.name, row.shape, kind.type_id, row.type_name, offset, row.size_bytes))
        offset += row.size_bytes
    stated = {
        "general.architecture": arch, f"{arch}.block_count": shape.block_count,
        f"{arch}.embedding_length": shape.embedding_length, f"{arch}.attention.head_count": shape.head_count,
        f"{arch}.attention.head_count_kv": shape.head_count_kv, f"{arch}.feed_forward_length": shape.feed_forward_length,
        "tokenizer.ggml.tokens": ArrayValue("str", shape.vocab_size, 0, 0),
    }  # fmt: skip
    return Header(3, "little", stated | metadata, tuple(tensors), 32, 7_829_504)


def show_account(account, label, **facts) -> str:
    return render(describe_account(account, label, **facts), "table")


@pytest.fixture(scope="module")
def small() -> Figures:
    return read_figures(header_of("llama3.2:1b", "Q8_0"))


@pytest.fixture(scope="module")
def middle() -> Figures:
    return read_figures(header_of("llama3.1:8b", "Q4_0"))


@pytest.fixture(scope="module")
def large() -> Figures:
    return read_figures(header_of("llama3.1:70b", "Q4_0"))


# The article's two figures.


def test_the_2_7_gb_of_llama3_2_1b(small):
    found = estimate(small, Request())
    assert (found.size_bytes, found.size, found.processor) == (2_712_725_504, "2.7 GB", "100% GPU")
    terms = found.terms
    assert terms.block_bytes == 1_034_158_080
    assert terms.output_bytes == 279_093_248
    assert terms.kv_bytes == 268_435_456
    assert terms.graph_bytes == 570_427_392
    assert terms.minimum_bytes == 479_199_232
    assert terms.buffer_layer_bytes == 81_412_096
    assert (terms.projector_bytes, terms.uneven_bytes) == (0, 0)
    assert (found.layers, found.n_cells, found.parallel) == (17, 8192, 4)
    assert f"{found.graph.partial_bytes / MIB:.1f}" == "554.3"


def test_the_6_7_gb_of_llama3_1_8b(middle):
    found = estimate(middle, Request())
    assert (found.size_bytes, found.size, found.processor) == (6_654_289_920, "6.7 GB", "100% GPU")
    terms = found.terms
    assert terms.block_bytes == 3_926_917_120
    assert terms.output_bytes == 430_956_544
    assert terms.kv_bytes == 1_073_741_824
    assert terms.graph_bytes == 587_204_608
    assert terms.buffer_layer_bytes == 156_270_592
    assert f"{found.graph.partial_bytes / MIB:.1f}" == "677.5"


def test_one_slot(small, middle):
    assert estimate(small, Request(parallel=1)).size_bytes == 2_195_251_200
    assert estimate(middle, Request(parallel=1)).size_bytes == 5_507_670_016
    assert [estimate(figures, Request(parallel=1)).size for figures in (small, middle)] == ["2.2 GB", "5.5 GB"]


def test_a_public_log_of_llama3_2_3b():
    """Ollama issue 8098: llama3.2:3b Q4_K_M, parallel 4."""
    found = estimate(read_figures(header_of("llama3.2:3b", "Q4_K_M")), Request())
    assert f"{found.size_bytes / 2**30:.1f}" == "3.7"
    assert found.terms.kv_bytes == 896 * MIB
    assert f"{found.terms.output_bytes / MIB:.1f}" == "308.2"
    assert f"{found.graph.full_bytes / MIB:.1f}" == "424.0"
    assert f"{found.graph.partial_bytes / MIB:.1f}" == "570.7"
    assert found.layers == 29


# Free memory decides.


@pytest.mark.parametrize(
    ("name", "at_four", "at_one", "sizes"),
    [
        ("small", 2_723_473_408, 2_414_915_584, ("2.7 GB", "2.2 GB")),
        ("middle", 6_777_470_976, 5_946_998_784, ("6.7 GB", "5.5 GB")),
    ],
)
def test_thresholds_are_exact(name, at_four, at_one, sizes, request):
    figures = request.getfixturevalue(name)
    assert give_account(figures, Request()).needed_free_bytes == {4: at_four, 1: at_one}

    def outcome(free):
        found = estimate(figures, Request(free_vram_bytes=free))
        return found.size, found.parallel, found.is_complete

    assert outcome(at_four + 1) == (sizes[0], 4, True)
    assert outcome(at_four) == (sizes[1], 1, True)
    assert outcome(at_one + 1) == (sizes[1], 1, True)
    assert outcome(at_one)[1:] == (1, False)


def test_8b_below_its_threshold_prints_more(middle):
    assert estimate(middle, Request(free_vram_bytes=5_946_998_784)).size == "5.9 GB"


@pytest.mark.parametrize(
    ("free_mib", "layers", "size_vram_bytes", "processor"),
    [
        (6699.140625, 10, 7_024_558_080, "83%/17% CPU/GPU"),
        (7166.203125, 11, 7_514_308_608, "82%/18% CPU/GPU"),
        (7633.265625, 12, 8_004_059_136, "81%/19% CPU/GPU"),
    ],
)
def test_70b_on_a_card_of_8_gb(large, free_mib, layers, size_vram_bytes, processor):
    at = estimate(large, Request(free_vram_bytes=int(free_mib * MIB)))
    above = estimate(large, Request(free_vram_bytes=int(free_mib * MIB) + 1))
    assert at.layers == layers - 1  # strictly more must be free
    assert (above.layers, above.size_vram_bytes, above.processor) == (layers, size_vram_bytes, processor)
    assert (above.size_bytes, above.size, above.parallel) == (42_169_008_128, "42 GB", 1)
    assert above.terms.graph_bytes == 1_158_103_040
    assert above.size_bytes - above.size_vram_bytes == (80 - layers) * 489_750_528 + 861_913_088


def test_nothing_fits(large):
    found = estimate(large, Request(free_vram_bytes=1_000_000_000))
    assert (found.layers, found.size_vram_bytes, found.processor) == (0, 0, "100% CPU")
    assert found.terms.minimum_bytes == found.terms.graph_bytes == found.terms.buffer_layer_bytes == 0


# What the user may set.


def test_on_the_cpu_the_flat_figure_falls_away(small):
    found = estimate(small, Request(library="cpu"))
    assert (found.size_bytes, found.processor, found.parallel) == (2_712_725_504 - 479_199_232, "100% CPU", 4)


def test_num_gpu_0_leaves_the_output_and_the_graph_out(small):
    found = estimate(small, Request(num_gpu=0))
    assert (found.layers, found.processor) == (0, "100% CPU")
    assert found.size_bytes == 1_034_158_080 + 268_435_456 + 81_412_096


def test_num_gpu_of_some_layers(small):
    found = estimate(small, Request(num_gpu=5))
    assert (found.layers, found.parallel, found.terms.output_bytes) == (5, 4, 0)
    assert found.terms.graph_bytes == found.graph.partial_bytes
    assert found.size_vram_bytes == 479_199_232 + 6 * 81_412_096 + found.graph.partial_bytes


def test_num_gpu_of_too_many_layers_falls_back_to_one_slot(small):
    assert estimate(small, Request(num_gpu=17)).parallel == 4
    found = estimate(small, Request(num_gpu=999))
    assert (found.parallel, found.size_bytes, found.processor) == (1, 2_195_251_200, "100% GPU")


def test_num_ctx_scales_the_cache(small):
    assert estimate(small, Request(num_ctx=8192, parallel=1)).terms.kv_bytes == 268_435_456
    assert estimate(small, Request(num_ctx=8192)).terms.kv_bytes == 4 * 268_435_456
    assert estimate(small, Request(num_ctx=1, parallel=1)).n_cells == 4


def test_a_projector_forces_one_slot_and_goes_to_the_gpu(small):
    found = estimate(small, Request(projector_bytes=10**9, num_ctx=512))
    assert (found.parallel, found.n_cells) == (1, 2048)
    assert found.size_bytes == 2_195_251_200 + 10**9


def test_metal_has_another_minimum_and_no_partial_graph(small):
    found = estimate(small, Request(library="metal"))
    assert found.terms.minimum_bytes == 512 * MIB
    assert found.graph.partial_bytes == found.graph.full_bytes


def test_an_embedding_model_gets_one_slot():
    header = header_of("llama3.2:1b", "Q8_0", **{"llama.pooling_type": 1})
    assert estimate(read_figures(header), Request()).parallel == 1


def test_overhead_above_the_free_memory_wraps_around(middle):
    found = estimate(middle, Request(free_vram_bytes=10**9, gpu_overhead_bytes=2 * 10**9))
    assert found.is_complete
    assert not estimate(middle, Request(free_vram_bytes=10**9, gpu_overhead_bytes=10**9)).layers


def test_terms_add_up_whatever_is_asked(small, middle):
    uneven = dataclasses.replace(small, block_bytes=tuple(10**7 + 10**6 * i for i in range(16)))
    for figures, free, parallel, num_gpu in itertools.product(
        (small, middle, uneven), (None, 0, 10**9, 2 * 10**9, 5 * 10**9), (None, 1, 3), (-1, 0, 1, 16, 99)
    ):
        found = estimate(figures, Request(free_vram_bytes=free, parallel=parallel, num_gpu=num_gpu))
        assert sum(dataclasses.astuple(found.terms)) == found.size_bytes
        assert 0 <= found.size_vram_bytes <= found.size_bytes
        assert (found.size_vram_bytes == 0) == (found.layers == 0)
    partial = estimate(uneven, Request(num_gpu=4))
    assert partial.terms.uneven_bytes == sum(10**6 * (15 - i) for i in range(4, 16))


# Where the figures come from.


@pytest.mark.parametrize(
    "case", json.loads((HERE / "recorded" / "ollama_graphs.json").read_text()), ids=lambda c: c["architecture"]
)
def test_graph_formulas(case):
    """Against v0.3.14's GraphSize, run on random dimensions."""
    expected = case["partial_bytes"], case["full_bytes"]
    values = {name: value for name, value in case.items() if name not in ("n_cells", "partial_bytes", "full_bytes")}
    figures = Figures(**values, head_v=values["head_k"], block_bytes=(1,), output_bytes=1)
    found = size_graph(figures, case["n_cells"])
    assert (found.partial_bytes, found.full_bytes) == expected
    assert found.has_formula


def test_an_architecture_without_a_formula(small):
    figures = dataclasses.replace(small, architecture="granite")
    found = size_graph(figures, 2048)
    assert found.partial_bytes == found.full_bytes == 4 * figures.kv_bytes(2048) // 6
    assert not found.has_formula
    assert "no formula" in show_account(give_account(figures, Request()), "granite")


def test_a_header_without_counts_is_refused():
    header = header_of("llama3.2:1b", "Q8_0")
    bare = dataclasses.replace(header, metadata={"general.architecture": "llama"})
    with pytest.raises(HarnessError, match=r"block_count and embedding_length and attention\.head_count"):
        read_figures(bare)
    lists = dict(header.metadata) | {"llama.attention.head_count": ArrayValue("u32", 16, 0, 64, data=bytes(64))}
    with pytest.raises(HarnessError, match=r"one number for attention\.head_count"):
        read_figures(dataclasses.replace(header, metadata=lists))


def test_a_type_that_ollama_did_not_know_counts_as_nothing(small):
    header = header_of("llama3.2:1b", "Q8_0")
    later = tuple(
        dataclasses.replace(t, type_id=39, type_name="MXFP4") if t.name.endswith("ffn_up.weight") else t
        for t in header.tensors
    )
    figures = read_figures(dataclasses.replace(header, tensors=later))
    assert figures.unsized_types == ("MXFP4",)
    assert figures.block_bytes[0] == small.block_bytes[0] - 2048 * 8192 // 32 * 34
    assert "did not know MXFP4" in show_account(give_account(figures, Request()), "x").replace("\n", " ")


def test_nonsense_is_refused():
    for wrong in ({"library": "vulkan"}, {"num_ctx": 0}, {"parallel": 0}, {"num_gpu": -2}):
        with pytest.raises(UsageError):
            Request(**wrong)


# What is printed.


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(2_712_725_504, "2.7 GB"), (6_654_289_920, "6.7 GB"), (42_969_008_128, "42 GB"), (9_999_999_999, "10.0 GB"),
     (2 * 10**9, "2 GB"), (376_953_600, "376 MB"), (1500, "1.5 KB"), (999, "999 B"), (3 * 10**12, "3 TB")],
)  # fmt: skip
def test_sizes_as_ollama_prints_them(size_bytes, text):
    assert format_ollama(size_bytes) == text


@pytest.mark.parametrize(
    ("size", "vram", "text"),
    [(8, 0, "100% CPU"), (8, 8, "100% GPU"), (8, 9, "Unknown"), (200, 199, "1%/99% CPU/GPU"), (8, 2, "75%/25% CPU/GPU")],
)  # fmt: skip
def test_processor_as_ollama_prints_it(size, vram, text):
    assert name_processor(size, vram) == text


def test_the_text_says_what_each_part_is(small):
    text = show_account(give_account(small, Request()), "llama3.2:1b:q8_0", file_bytes=1_321_082_688)
    flat = " ".join(text.split())
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "2.7 GB (2,712,725,504 bytes)" in flat
    assert "a margin: nobody ever allocates it" in flat
    assert "allocated: 4 x 2048 cells" in flat
    assert "Nobody asked for them" in flat
    assert "With one slot SIZE is 2.2 GB (2,195,251,200 bytes)" in flat
    assert (
        "1.30 GiB more: scratch 544.00 MiB + cache 256.00 MiB + context 457.00 MiB + margin 77.64 MiB, less 7.47 MiB"
        in flat
    )
    assert "partly a coincidence" in flat


@pytest.mark.parametrize(
    "request_", [Request(free_vram_bytes=8 * 10**9), Request(num_gpu=0), Request(num_gpu=7), Request(num_gpu=999),
                 Request(library="metal"), Request(parallel=2, num_ctx=131072), Request(free_vram_bytes=0),
                 Request(projector_bytes=10**9), Request(free_vram_bytes=1, gpu_overhead_bytes=2)],
)  # fmt: skip
def test_no_text_is_wider_than_80_columns(large, request_):
    text = show_account(give_account(large, request_), "a-model-with-quite-a-long-name:70b-instruct:q4_0", file_bytes=39_969_745_000)  # fmt: skip
    assert max(map(len, text.splitlines())) <= WIDTH
    if request_.num_gpu == 0:
        assert "GPU monitor" not in text


def test_json(middle):
    data = json.loads(json.dumps(export_account(give_account(middle, Request()))))
    for key, value in {
        "layers": 33, "graph_bytes": 587_204_608, "size_vram_bytes": 6_654_289_920, "size_bytes": 6_654_289_920,
        "size": "6.7 GB", "processor": "100% GPU", "parallel": 4, "n_cells": 8192,
    }.items():  # fmt: skip
        assert data[key] == value
    assert sum(data["terms"].values()) == data["size_bytes"]
    assert data["one_slot"]["size"] == "5.5 GB"
    assert set(data["term_kinds"]) == set(data["terms"])


# The options.


@click.command()
@ollama_options
def probe(**options):
    account = find_account(header_of("llama3.1:70b", "Q4_0"), options)
    click.echo("nothing" if account is None else json.dumps(export_account(account)))


def test_the_options_reach_the_account():
    found = CliRunner().invoke(
        probe, ["--ollama-2024", "--free-vram", "7.5GiB", "--parallel", "1", "--num-ctx", "2048", "--num-gpu", "-1"]
    )
    data = json.loads(found.stdout)
    assert (data["layers"], data["processor"]) == (12, "81%/19% CPU/GPU")
    assert data["asked"]["free_vram_bytes"] == 7_680 * MIB


def test_without_the_flag_nothing_is_said_and_its_companions_are_refused():
    assert CliRunner().invoke(probe, []).stdout == "nothing\n"
    found = CliRunner().invoke(probe, ["--num-ctx", "4096"])
    assert isinstance(found.exception, UsageError)
    assert "--ollama-2024" in str(found.exception)


def test_a_size_that_is_none_is_refused():
    found = CliRunner().invoke(probe, ["--ollama-2024", "--free-vram", "lots"])
    assert found.exit_code == 2
    assert "7.6GiB" in found.stderr
