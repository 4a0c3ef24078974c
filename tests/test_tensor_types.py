"""The table of tensor types against the installed llama.cpp and the gguf library."""

from __future__ import annotations

import ctypes
import pathlib

import gguf
import pytest

from harness.errors import HarnessError
from harness.gguf.types import TENSOR_TYPES, Origin, foreign_type, tensor_size_bytes, tensor_type


def test_the_table_is_llama_cpps_own():
    llama_cpp = pytest.importorskip("llama_cpp")
    places = sorted((pathlib.Path(llama_cpp.__file__).parent / "lib").glob("*ggml-base*"))
    if not places:
        pytest.skip("llama.cpp's libraries lie elsewhere")
    library = ctypes.CDLL(str(places[0]))
    library.ggml_type_name.restype = ctypes.c_char_p
    library.ggml_type_size.restype = ctypes.c_size_t
    library.ggml_blck_size.restype = ctypes.c_int64
    for number in range(43):
        elements, size_bytes = library.ggml_blck_size(number), library.ggml_type_size(number)
        if number not in TENSOR_TYPES:
            assert elements == 0
            continue
        kind = TENSOR_TYPES[number]
        name = library.ggml_type_name(number).decode().upper()
        assert (kind.name, kind.block_elements, kind.block_bytes) == (name, elements, size_bytes)
    assert max(TENSOR_TYPES) == 42, "GGML_TYPE_COUNT of this llama.cpp is 43"


def test_the_gguf_library_agrees_on_the_types_it_knows():
    for kind, (elements, size_bytes) in gguf.GGML_QUANT_SIZES.items():
        if kind.name == "Q8_1":
            continue  # the library still has the size from before the two floats became halves
        ours = TENSOR_TYPES[kind.value]
        assert (ours.name, ours.block_elements, ours.block_bytes) == (kind.name, elements, size_bytes)


def test_looks_a_type_up_by_name_in_any_case():
    assert tensor_type("q4_k").type_id == tensor_type("Q4_K").type_id == 12
    assert tensor_type("bf16").bits_per_element == 16
    assert tensor_type("q4_0").bits_per_element == 4.5
    with pytest.raises(HarnessError, match=r"'q9' is not a tensor type.*F32, F16"):
        tensor_type("q9")


def test_counts_the_bytes_of_a_tensor():
    assert tensor_size_bytes((64, 3), 2) == 3 * 2 * 18
    assert tensor_size_bytes((256, 2, 5), 14) == 10 * 210
    assert tensor_size_bytes((), 0) == 4
    with pytest.raises(HarnessError, match="33 elements is not a whole number of Q4_0 blocks of 32"):
        tensor_size_bytes((33,), 2)
    with pytest.raises(HarnessError, match="tensor type 4 "):
        tensor_size_bytes((32,), 4)


@pytest.mark.parametrize(
    ("type_id", "origin", "name"),
    [
        (4, Origin.OLLAMA, "MXFP4 (4)"),
        (5, Origin.REMOVED, "Q4_3 (5)"),
        (31, Origin.REMOVED, "Q4_0_4_4 (31)"),
        (33, Origin.REMOVED, "Q4_0_8_8 (33)"),
        (36, Origin.BITNET, "I2_S (36)"),
        (38, Origin.BITNET, "TL1 (38)"),
        (43, Origin.UNKNOWN, "type 43"),
        (137, Origin.IK_LLAMA, "IQ2_K (137)"),
        (139, Origin.IK_LLAMA, "IQ4_K (139)"),
        (202, Origin.IK_LLAMA, "type 202"),
        (1023, Origin.UNKNOWN, "type 1023"),
    ],
)
def test_says_whose_a_type_is_that_llama_cpp_does_not_read(type_id, origin, name):
    found = foreign_type(type_id)
    assert found is not None
    assert (found.origin, found.name) == (origin, name)


def test_types_that_are_read_or_that_nobody_has_are_not_foreign():
    assert all(foreign_type(number) is None for number in TENSOR_TYPES)
    assert foreign_type(1024) is None
    assert foreign_type(2**32 - 1) is None
