"""Which file is meant, by names as repositories have them."""

from __future__ import annotations

import pytest

from harness.sources.choice import (
    Chosen,
    byte_split_of,
    choose,
    explain_byte_split,
    find_same_name,
    is_byte_split,
    name_quantizations,
)


@pytest.mark.parametrize(
    ("names", "asked", "chosen"),
    [
        (["m-BF16.gguf", "m-F16.gguf"], "F16", "m-F16.gguf"),
        (["m-BF16.gguf"], "F16", None),
        (["m-fp16.gguf", "m-bf16.gguf"], "f16", "m-fp16.gguf"),
        (["m-f16-Q4_K_M.gguf", "m-f16.gguf"], "F16", "m-f16.gguf"),
        (["m-TQ1_0.gguf", "m-Q1_0.gguf"], "Q1_0", "m-Q1_0.gguf"),
        (["m-TQ1_0.gguf"], "Q1_0", None),
        (["m-IQ4_XS.gguf"], "Q4_XS", None),
        (["m-Q4_K_M.gguf", "m-Q4_K_S.gguf"], "Q4_K", None),
        (["m-Q4_0_4_4.gguf"], "Q4_0", None),
        (["BF16/m-00001-of-00002.gguf", "Q4_K_M/model.gguf"], "Q4_K_M", "Q4_K_M/model.gguf"),
        (["Q4_K_M/m-00001-of-00002.gguf", "Q4_K_M/m-00002-of-00002.gguf"], "q4_k_m", "Q4_K_M/m-00001-of-00002.gguf"),
        (["m-UD-Q4_K_M/x.gguf"], "Q4_K_M", "m-UD-Q4_K_M/x.gguf"),
        (["m.Q4_K_M.gguf"], "Q4_K_M", "m.Q4_K_M.gguf"),
        (["m.i1-Q4_K_M.gguf"], "Q4_K_M", "m.i1-Q4_K_M.gguf"),
        (["ggml-model_Q4_0.gguf"], "q4_0", "ggml-model_Q4_0.gguf"),
        (["q4_0.gguf"], "Q4_0", "q4_0.gguf"),
        (["m-Q4_0.GGUF"], "Q4_0", "m-Q4_0.GGUF"),
        (["gpt-oss-20b-MXFP4.gguf"], "mxfp4", "gpt-oss-20b-MXFP4.gguf"),
        (["m-Q8_0.gguf", "m-Q4_0.gguf"], None, "m-Q8_0.gguf"),
        (["m-Q5_0.gguf", "m-Q4_0.gguf"], None, "m-Q5_0.gguf"),
        ([], None, None),
        (["README.md"], None, None),
    ],
)
def test_a_quantization_is_a_whole_word(names, asked, chosen):
    found = choose(names, asked)
    assert (found.name if found else None) == chosen


def test_another_mixture_of_the_name_is_taken_only_alone_and_said():
    both = ["m-UD-Q4_K_M.gguf", "z-Q4_K_M.gguf"]
    assert choose(both, "Q4_K_M") == Chosen("z-Q4_K_M.gguf")
    assert choose(both[:1], "Q4_K_M") == Chosen("m-UD-Q4_K_M.gguf", is_near=True)
    assert choose(both, "UD-Q4_K_M") == Chosen("m-UD-Q4_K_M.gguf")
    assert choose([*both[:1], "m-Q8_0.gguf"], None) == Chosen("m-UD-Q4_K_M.gguf", is_near=True)
    assert choose(["Q4_K_M/m-UD-Q4_K_M.gguf", "x/m-Q4_K_M.gguf"], "Q4_K_M") == Chosen("x/m-Q4_K_M.gguf")


@pytest.mark.parametrize(
    "name",
    ["mmproj-Q4_K_M.gguf", "MMPROJ-model-Q4_K_M.gguf", "m.mmproj-Q4_K_M.gguf", "mmproj/m-Q4_K_M.gguf", "a-Draft-Q4_K_M.gguf",
     "draft/m-Q4_K_M.gguf", "lora/m-Q4_K_M.gguf", "m-LoRA-Q4_K_M.gguf", "m-Q4_K_M.imatrix.gguf", "iMatrix/m-Q4_K_M.gguf",
     "mtp-m-Q4_K_M.gguf", "eagle3-m-Q4_K_M.gguf", "a-Q4_K_M-00002-of-00002.gguf"],
)  # fmt: skip
def test_accessories_are_no_models(name):
    assert choose([name, "z-Q4_K_M.gguf"], "Q4_K_M") == Chosen("z-Q4_K_M.gguf")


@pytest.mark.parametrize("name", ["Qwen3.5-27B-mtp-Q4_K_M.gguf", "Explora-7B-Q4_K_M.gguf", "overdrafted-Q4_K_M.gguf"])
def test_models_with_such_letters_are_models(name):
    assert choose([name], "Q4_K_M") == Chosen(name)


def test_a_repository_of_drafts_has_models():
    assert choose(["M-DRAFT-0.5B-Q4_0.gguf"], "Q4_0") == Chosen("M-DRAFT-0.5B-Q4_0.gguf")
    assert choose(["m-lora-F16.gguf"], "F16") is None


def test_names_differ_by_case_alone():
    assert find_same_name("gpt-oss-20b-mxfp4.gguf", ["x", "gpt-oss-20b-MXFP4.gguf"]) == "gpt-oss-20b-MXFP4.gguf"
    assert find_same_name("a", ["b"]) is None


def test_pieces_cut_by_bytes_are_told():
    for name in ("m.gguf.part1of2", "m.Q4_K_M.gguf.part2of5", "m.gguf-split-a", "m.gguf.part-aa"):
        assert is_byte_split(name)
    for name in ("m.gguf", "m-00001-of-00002.gguf", "part1of2.gguf"):
        assert not is_byte_split(name)
    assert "`cat m.gguf.part* > m.gguf`" in explain_byte_split("m.gguf.part1of2")
    assert "`cat m.gguf-split* > m.gguf`" in explain_byte_split("m.gguf-split-a")
    names = ["m.Q4_K_M.gguf.part1of2", "m.Q4_K_M.gguf.part2of2", "m.Q8_0.gguf"]
    assert byte_split_of(names, "Q4_K_M") == names[0]
    assert byte_split_of(names, "Q8_0") is None


def test_what_a_repository_has_is_named():
    names = ["m-Q4_K_M.gguf", "UD-Q2_K_XL/m-00001-of-00002.gguf", "BF16/model.gguf", "mmproj-F16.gguf", "m.gguf"]
    assert name_quantizations(names) == ["BF16", "Q4_K_M", "UD-Q2_K_XL"]
