"""Which weights the CPU backend stores anew: by type, by shape, by CPU."""

from __future__ import annotations

import pytest

from harness.gguf.header import Tensor
from harness.gguf.types import tensor_size_bytes, tensor_type
from harness.memory.repack import CpuFeatures, find_layout, find_repacked_types, output_duplicate, read_features
from tests.shapes import catalog_header, small_header

AVX512 = "CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 1 | AVX512_VNNI = 1 | LLAMAFILE = 1 | OPENMP = 1 | REPACK = 1"
AVX2 = "CPU : AVX = 1 | AVX2 = 1 | FMA = 1 | REPACK = 1"
OLD_XEON = "CPU : SSE3 = 1 | SSSE3 = 1 | AVX = 1 | REPACK = 1"
APPLE_M1 = "Metal : EMBED_LIBRARY = 1 | CPU : NEON = 1 | ARM_FMA = 1 | DOTPROD = 1 | ACCELERATE = 1 | REPACK = 1"
APPLE_M4 = "CPU : NEON = 1 | ARM_FMA = 1 | MATMUL_INT8 = 1 | DOTPROD = 1 | SME = 1 | REPACK = 1"
RASPBERRY_4 = "CPU : NEON = 1 | ARM_FMA = 1 | REPACK = 1"
GRAVITON_3 = "CPU : NEON = 1 | MATMUL_INT8 = 1 | SVE = 1 | DOTPROD = 1 | SVE_CNT = 32 | REPACK = 1"
SAPPHIRE_RAPIDS = "CPU : AVX2 = 1 | AVX512 = 1 | AVX512_VNNI = 1 | AMX_INT8 = 1 | REPACK = 1"


def matrix(kind: str, columns: int = 512, rows: int = 1024, *more: int, name: str = "blk.0.ffn_up.weight") -> Tensor:
    number = tensor_type(kind).type_id
    shape = (columns, rows, *more)
    return Tensor(name, shape, number, kind, 0, tensor_size_bytes(shape, number))


def layout(kind: str, cpu: str, *shape: int, name: str = "blk.0.ffn_up.weight") -> str | None:
    found = find_layout(matrix(kind, *shape, name=name), read_features(cpu))
    return found and found.name


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        (AVX512, {"Q4_0": "q4_0_8x8", "Q4_K": "q4_k_8x8", "Q2_K": "q2_k_8x8", "IQ4_NL": "iq4_nl_8x8", "MXFP4": "mxfp4_8x8"}),
        (AVX2, {"Q4_0": "q4_0_8x8", "Q4_K": "q4_k_8x8", "IQ4_NL": "iq4_nl_8x8", "MXFP4": "mxfp4_8x8"}),
        (OLD_XEON, {}),
        (RASPBERRY_4, {}),
        (APPLE_M1, {"Q4_0": "q4_0_4x4", "Q4_K": "q4_k_8x4", "Q5_K": "q5_k_8x4", "Q6_K": "q6_k_8x4", "IQ4_NL": "iq4_nl_4x4",
                    "MXFP4": "mxfp4_4x4", "Q8_0": "q8_0_4x4", "Q1_0": "q1_0_4x4"}),
        (APPLE_M4, {"Q4_0": "q4_0_4x8", "Q4_K": "q4_k_8x8", "Q5_K": "q5_k_8x8", "Q6_K": "q6_k_8x8", "IQ4_NL": "iq4_nl_4x4",
                    "MXFP4": "mxfp4_4x4", "Q8_0": "q8_0_4x8", "Q1_0": "q1_0_4x8"}),
        (GRAVITON_3, {"Q4_0": "q4_0_8x8", "Q4_K": "q4_k_8x8", "Q5_K": "q5_k_8x8", "Q6_K": "q6_k_8x8", "IQ4_NL": "iq4_nl_4x4",
                      "MXFP4": "mxfp4_4x4", "Q8_0": "q8_0_4x8", "Q1_0": "q1_0_4x8"}),
    ],
)  # fmt: skip
def test_the_table_of_types_by_cpu(cpu, expected):
    kinds = [
        "F32",
        "F16",
        "BF16",
        "Q4_0",
        "Q4_1",
        "Q5_0",
        "Q5_1",
        "Q8_0",
        "Q2_K",
        "Q3_K",
        "Q4_K",
        "Q5_K",
        "Q6_K",
        "IQ4_NL",
        "IQ4_XS",
        "MXFP4",
        "Q1_0",
    ]
    assert {kind: name for kind in kinds if (name := layout(kind, cpu))} == expected


def test_rows_must_come_in_groups():
    assert layout("Q4_0", AVX2, 64, 12) is None  # interleaved by eight
    assert layout("Q4_0", AVX2, 64, 16) == "q4_0_8x8"
    assert layout("Q4_0", APPLE_M4, 64, 12) == "q4_0_4x8"  # by four
    assert layout("Q4_0", APPLE_M4, 64, 10) is None


def test_a_build_without_repacking_repacks_nothing():
    assert layout("Q4_0", AVX2.replace("REPACK = 1", "")) is None
    assert layout("Q4_0", AVX2.replace("REPACK = 1", "REPACK = 0")) is None


def test_only_what_is_multiplied_with_is_repacked():
    assert layout("Q4_0", AVX2, 512, 1024, name="token_embd.weight") is None
    assert layout("Q4_0", AVX2, 512, 1024, name="per_layer_token_embd.weight") is None
    assert layout("Q4_0", AVX2, 512, 1024, name="output.weight") == "q4_0_8x8"
    assert layout("Q4_0", AVX2, 512, 1024, 8, name="blk.0.ffn_gate_exps.weight") == "q4_0_8x8"
    assert layout("Q4_0", AVX2, 512, 1024, 8, name="blk.0.attn_k_b.weight") is None  # three dimensions, not experts


def test_amx_comes_first_and_takes_more_room():
    found = find_layout(matrix("Q4_0"), read_features(SAPPHIRE_RAPIDS))
    assert (found.buffer, found.size_bytes) == ("AMX", 512 * 1024 * 18 // 32)
    # One 32-bit sum for each block of Q8_0; four bytes for each of Q4_K's.
    assert find_layout(matrix("Q8_0"), read_features(SAPPHIRE_RAPIDS)).size_bytes == 512 * 1024 // 32 * (34 + 4)
    assert find_layout(matrix("Q4_K"), read_features(SAPPHIRE_RAPIDS)).size_bytes == 512 * 1024 // 256 * (144 + 4)
    assert find_layout(matrix("F16"), read_features(SAPPHIRE_RAPIDS)).buffer == "AMX"
    # Rows in no multiple of 64, and experts, are repacked after all.
    assert layout("Q4_0", SAPPHIRE_RAPIDS, 512, 40) == "q4_0_8x8"
    assert layout("Q4_0", SAPPHIRE_RAPIDS, 512, 1024, 8, name="blk.0.ffn_up_exps.weight") == "q4_0_8x8"


def test_what_the_build_does_that_is_not_known_here():
    assert read_features(APPLE_M4 + " | KLEIDIAI = 1").unknown_layouts == "KLEIDIAI"
    assert read_features(APPLE_M4).unknown_layouts is None


def test_llama_1b_by_hand():
    """Sixteen blocks of q, k, v, o and gate, up, down; the tied embeddings are Q6_K, which AVX2 leaves as it is."""
    block = 2048 * 2048 * 2 + 2048 * 512 * 2 + 2048 * 8192 * 3
    (found,) = find_repacked_types(catalog_header("llama3.2:1b:q4_0"), read_features(AVX512))
    assert (found.type_name, found.layout, found.size_bytes) == ("Q4_0", "q4_0_8x8", 16 * block * 18 // 32)
    assert round(found.size_bytes / 2**20, 2) == 522.00


def test_embeddings_that_are_the_output_count_once_more_where_they_are_repacked():
    header = catalog_header("llama3.2:1b:q8_0")
    m1 = find_repacked_types(header, read_features(APPLE_M1))
    matrices = sum(t.size_bytes for t in header.tensors if t.type_name == "Q8_0")
    assert [(item.type_name, item.size_bytes) for item in m1] == [("Q8_0", matrices)]  # the embeddings as the output
    assert output_duplicate(header).name == "output.weight"
    assert output_duplicate(small_header("untied")) is None
    assert CpuFeatures(frozenset()).has_repack is False
