"""The tensor types that llama.cpp reads: name, elements in a block, bytes of a block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import HarnessError


@dataclass(frozen=True, slots=True)
class TensorType:
    """One way to store numbers: `block_elements` of them take `block_bytes` bytes."""

    type_id: int
    name: str
    block_elements: int
    block_bytes: int

    @property
    def bits_per_element(self) -> float:
        return 8 * self.block_bytes / self.block_elements


#: Every type of enum ggml_type that still has a layout, by its number; 4, 5, 31-33 and 36-38 are retired and left out.
#: Source: ggml/src/ggml.c `type_traits`, block structs in ggml/src/ggml-common.h (llama.cpp 0c1e570).
TENSOR_TYPES: dict[int, TensorType] = {
    row[0]: TensorType(*row)
    for row in (
        (0, "F32", 1, 4),
        (1, "F16", 1, 2),
        (2, "Q4_0", 32, 18),
        (3, "Q4_1", 32, 20),
        (6, "Q5_0", 32, 22),
        (7, "Q5_1", 32, 24),
        (8, "Q8_0", 32, 34),
        (9, "Q8_1", 32, 36),
        (10, "Q2_K", 256, 84),
        (11, "Q3_K", 256, 110),
        (12, "Q4_K", 256, 144),
        (13, "Q5_K", 256, 176),
        (14, "Q6_K", 256, 210),
        (15, "Q8_K", 256, 292),
        (16, "IQ2_XXS", 256, 66),
        (17, "IQ2_XS", 256, 74),
        (18, "IQ3_XXS", 256, 98),
        (19, "IQ1_S", 256, 50),
        (20, "IQ4_NL", 32, 18),
        (21, "IQ3_S", 256, 110),
        (22, "IQ2_S", 256, 82),
        (23, "IQ4_XS", 256, 136),
        (24, "I8", 1, 1),
        (25, "I16", 1, 2),
        (26, "I32", 1, 4),
        (27, "I64", 1, 8),
        (28, "F64", 1, 8),
        (29, "IQ1_M", 256, 56),
        (30, "BF16", 1, 2),
        (34, "TQ1_0", 256, 54),
        (35, "TQ2_0", 256, 66),
        (39, "MXFP4", 32, 17),
        (40, "NVFP4", 64, 36),
        (41, "Q1_0", 128, 18),
        (42, "Q2_0", 64, 18),
    )
}

#: Types that older files may carry and llama.cpp refuses, with what to do about it.
RETIRED_TYPES: dict[int, str] = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}

_BY_NAME = {kind.name: kind for kind in TENSOR_TYPES.values()}


def tensor_type(name: str) -> TensorType:
    """Look a type up by name, in any case.

    Raises
    ------
    HarnessError : llama.cpp has no such type.
    """
    try:
        return _BY_NAME[name.upper()]
    except KeyError:
        raise HarnessError(f"{name!r} is not a tensor type of llama.cpp; it knows {', '.join(_BY_NAME)}") from None


def tensor_size_bytes(shape: Sequence[int], type_id: int) -> int:
    """Count the bytes of one contiguous tensor.

    Parameters
    ----------
    shape   : ne[0] first, as in the file; () is one element

    Raises
    ------
    HarnessError : the type is unknown, or ne[0] is not a whole number of blocks.

    Source: ggml/src/ggml.c ggml_row_size, ggml_nbytes.
    """
    kind = TENSOR_TYPES.get(type_id)
    if kind is None:
        raise HarnessError(f"tensor type {type_id} is not one that llama.cpp reads; requantize the model")
    row = shape[0] if shape else 1
    if row % kind.block_elements:
        raise HarnessError(
            f"a row of {row} elements is not a whole number of {kind.name} blocks of {kind.block_elements}; "
            "choose another type for this tensor"
        )
    size_bytes = row // kind.block_elements * kind.block_bytes
    for extent in shape[1:]:
        size_bytes *= extent
    return size_bytes
