"""The tensor types that llama.cpp reads: name, elements in a block, bytes of a block; and whose the others are that files carry."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import HarnessError, UsageError


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
        (0, "F32", 1, 4), (1, "F16", 1, 2), (2, "Q4_0", 32, 18), (3, "Q4_1", 32, 20), (6, "Q5_0", 32, 22),
        (7, "Q5_1", 32, 24), (8, "Q8_0", 32, 34), (9, "Q8_1", 32, 36), (10, "Q2_K", 256, 84), (11, "Q3_K", 256, 110),
        (12, "Q4_K", 256, 144), (13, "Q5_K", 256, 176), (14, "Q6_K", 256, 210), (15, "Q8_K", 256, 292),
        (16, "IQ2_XXS", 256, 66), (17, "IQ2_XS", 256, 74), (18, "IQ3_XXS", 256, 98), (19, "IQ1_S", 256, 50),
        (20, "IQ4_NL", 32, 18), (21, "IQ3_S", 256, 110), (22, "IQ2_S", 256, 82), (23, "IQ4_XS", 256, 136),
        (24, "I8", 1, 1), (25, "I16", 1, 2), (26, "I32", 1, 4), (27, "I64", 1, 8), (28, "F64", 1, 8),
        (29, "IQ1_M", 256, 56), (30, "BF16", 1, 2), (34, "TQ1_0", 256, 54), (35, "TQ2_0", 256, 66),
        (39, "MXFP4", 32, 17), (40, "NVFP4", 64, 36), (41, "Q1_0", 128, 18), (42, "Q2_0", 64, 18),
    )
}  # fmt: skip


class Origin(enum.Enum):
    """Whose a type is that this llama.cpp does not read."""

    OLLAMA = "Ollama's own engine"
    BITNET = "BitNet (bitnet.cpp)"
    IK_LLAMA = "ik_llama.cpp"
    REMOVED = "an older llama.cpp"
    UNKNOWN = "a newer llama.cpp or another program"


@dataclass(frozen=True, slots=True)
class ForeignType:
    """A type that files carry and this llama.cpp does not read; known_name is None where nobody has told."""

    type_id: int
    origin: Origin
    known_name: str | None = None

    @property
    def name(self) -> str:
        return f"{self.known_name} ({self.type_id})" if self.known_name else f"type {self.type_id}"


#: Numbers that llama.cpp itself once gave out and takes no more (ggml/include/ggml.h enum ggml_type), and those that other programs
#: gave a meaning. Ollama put gpt-oss's MXFP4 where Q4_2 was, which no GGUF file ever had (fs/ggml/type.go
#: of ollama/ollama); 36 to 38 are BitNet's in files, for llama.cpp's own repacked types of these numbers never were in one
#: (ggml.h of microsoft/BitNet's llama.cpp); the rest is ggml.h of ikawrakow/ik_llama.cpp.
_FOREIGN = {
    Origin.REMOVED: {5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8"},
    Origin.OLLAMA: {4: "MXFP4"},
    Origin.BITNET: {36: "I2_S", 37: "I8_S", 38: "TL1"},
    Origin.IK_LLAMA: {
        133: "Q6_0", 134: "IQ1_BN", 135: "IQ2_BN", 136: "Q8_K64", 137: "IQ2_K", 138: "IQ3_K", 139: "IQ4_K", 140: "IQ5_K",
        141: "IQ6_K", 144: "IQ4_KS", 145: "IQ2_KS", 146: "IQ4_KSS", 152: "IQ5_KS", 153: "IQ2_KT", 154: "IQ3_KT", 155: "IQ4_KT",
        156: "IQ3_KS", 157: "IQ2_KL", 158: "IQ1_KT",
    },
}  # fmt: skip

#: ik_llama.cpp numbers its types from 97, and those that are interleaved by rows (…_R4, …_R8) from 200.
_IK_NUMBERS = range(97, 400)

#: No program is known to number its types beyond this: such a number is a spoilt byte.
MAX_TYPE_ID = 1023


def foreign_type(type_id: int) -> ForeignType | None:
    """Say whose a type is that this llama.cpp does not read; None for one that it reads, and for numbers that nobody has."""
    if type_id in TENSOR_TYPES or not 0 <= type_id <= MAX_TYPE_ID:
        return None
    for origin, names in _FOREIGN.items():
        if type_id in names:
            return ForeignType(type_id, origin, names[type_id])
    return ForeignType(type_id, Origin.IK_LLAMA if type_id in _IK_NUMBERS else Origin.UNKNOWN)


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


@dataclass(frozen=True, slots=True)
class FileType:
    """What a file's tensors are mostly of, in each of its spellings: one of llama-quantize's targets.

    number is ``general.file_type``, title llama.cpp's name for it, quantization llama-quantize's. default_type is what most tensors
    get, None where llama-quantize needs an importance matrix for it, or where it is not laid out here.
    """

    number: int
    title: str
    quantization: str
    default_type: str | None = None


#: Source: include/llama.h llama_ftype; src/llama-model-loader.cpp llama_ftype_name; tools/quantize/quantize.cpp QUANT_OPTIONS;
#: src/llama-quant.cpp llama_ftype_get_default_type.
FILE_TYPES = {
    row[0]: FileType(*row)
    for row in (
        (0, "all F32", "F32", "F32"), (1, "F16", "F16", "F16"), (2, "Q4_0", "Q4_0", "Q4_0"), (3, "Q4_1", "Q4_1", "Q4_1"),
        (7, "Q8_0", "Q8_0", "Q8_0"), (8, "Q5_0", "Q5_0", "Q5_0"), (9, "Q5_1", "Q5_1", "Q5_1"),
        (10, "Q2_K - Medium", "Q2_K", "Q2_K"), (11, "Q3_K - Small", "Q3_K_S", "Q3_K"), (12, "Q3_K - Medium", "Q3_K_M", "Q3_K"),
        (13, "Q3_K - Large", "Q3_K_L", "Q3_K"), (14, "Q4_K - Small", "Q4_K_S", "Q4_K"), (15, "Q4_K - Medium", "Q4_K_M", "Q4_K"),
        (16, "Q5_K - Small", "Q5_K_S", "Q5_K"), (17, "Q5_K - Medium", "Q5_K_M", "Q5_K"), (18, "Q6_K", "Q6_K", "Q6_K"),
        (19, "IQ2_XXS - 2.0625 bpw", "IQ2_XXS"), (20, "IQ2_XS - 2.3125 bpw", "IQ2_XS"), (21, "Q2_K - Small", "Q2_K_S"),
        (22, "IQ3_XS - 3.3 bpw", "IQ3_XS"), (23, "IQ3_XXS - 3.0625 bpw", "IQ3_XXS"), (24, "IQ1_S - 1.5625 bpw", "IQ1_S"),
        (25, "IQ4_NL - 4.5 bpw", "IQ4_NL", "IQ4_NL"), (26, "IQ3_S - 3.4375 bpw", "IQ3_S"), (27, "IQ3_S mix - 3.66 bpw", "IQ3_M"),
        (28, "IQ2_S - 2.5 bpw", "IQ2_S"), (29, "IQ2_M - 2.7 bpw", "IQ2_M"), (30, "IQ4_XS - 4.25 bpw", "IQ4_XS", "IQ4_XS"),
        (31, "IQ1_M - 1.75 bpw", "IQ1_M"), (32, "BF16", "BF16", "BF16"), (36, "TQ1_0 - 1.69 bpw ternary", "TQ1_0"),
        (37, "TQ2_0 - 2.06 bpw ternary", "TQ2_0"), (38, "MXFP4 MoE", "MXFP4_MOE", "MXFP4"), (39, "NVFP4", "NVFP4"),
        (40, "Q1_0", "Q1_0"), (41, "Q2_0", "Q2_0"),
    )
}  # fmt: skip

#: The quantizations that can be laid out here: what most tensors get.
DEFAULT_TYPES = {kind.quantization: kind.default_type for kind in FILE_TYPES.values() if kind.default_type}
#: The number of each file type, by its quantization.
FILE_TYPE_NUMBERS = {kind.quantization: kind.number for kind in FILE_TYPES.values()}

#: Shorter names of quantizations: llama-quantize's, and that of Hugging Face's files of gpt-oss.
_SHORT = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "MXFP4": "MXFP4_MOE"}


def find_quantization(text: str) -> str:
    """Return the quantization's own spelling: any case, and llama-quantize's short names (``q4_k`` is Q4_K_M).

    Raises
    ------
    UsageError : no such quantization, or one that llama.cpp makes only with an importance matrix.
    """
    name = _SHORT.get(text.upper(), text.upper())
    if name not in DEFAULT_TYPES:
        raise UsageError(f"{text!r} is not a quantization known here; use one of {', '.join(DEFAULT_TYPES)}")
    return name


def pad(size: int, multiple: int) -> int:
    """Round up to a multiple. Source: ggml.h GGML_PAD."""
    return -(-size // multiple) * multiple


def extent(shape: Sequence[int], axis: int) -> int:
    """How far a tensor reaches along an axis: 1 beyond its last, as ggml has it (a file may state fewer dimensions than are meant)."""
    return shape[axis] if axis < len(shape) else 1


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
    row = extent(shape, 0)
    if row % kind.block_elements:
        raise HarnessError(
            f"a row of {row} elements is not a whole number of {kind.name} blocks of {kind.block_elements}; "
            "choose another type for this tensor"
        )
    return row // kind.block_elements * kind.block_bytes * math.prod(shape[1:])
