"""Which weights llama.cpp stores a second time, in a layout of its own for the CPU's SIMD, and how large they become.

The rules are those of llama.cpp 0c1e570 (in llama-cpp-python 0.3.36). They depend on a tensor's type and shape, on what is done
with it, and on the CPU features that ggml was compiled for.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from dataclasses import dataclass, replace

from harness.gguf.header import Header, Tensor
from harness.gguf.roles import OUTPUT, TOKEN_EMBEDDING, find_role
from harness.gguf.settings import name_set
from harness.gguf.types import TENSOR_TYPES

#: Names of llama.cpp's buffer types for such weights, as its log has them.
REPACK_BUFFER, AMX_BUFFER = "CPU_REPACK", "AMX"


@dataclass(frozen=True, slots=True)
class CpuFeatures:
    """What ggml's CPU backend was compiled for and runs on, by the names of llama_print_system_info.

    names has ``AVX2``, ``AVX512``, ``NEON``, ``MATMUL_INT8``, ``DOTPROD``, ``SVE``, ``VXE``, ``RISCV_V``, ``AMX_INT8``, … and
    ``REPACK`` where that is compiled in. sve_bytes is the length of an SVE vector, riscv_bits that of a RISC-V one; 0 where unknown.
    """

    names: frozenset[str]
    sve_bytes: int = 0
    riscv_bits: int = 0

    def has(self, *names: str) -> bool:
        return self.names.issuperset(names)

    @property
    def has_repack(self) -> bool:
        return self.has("REPACK")

    @property
    def has_amx(self) -> bool:
        """Whether ggml registers AMX buffers. Source: ggml-cpu.cpp ggml_backend_cpu_get_extra_buffer_types."""
        return self.has("AMX_INT8", "AVX512_VNNI")

    @property
    def unknown_layouts(self) -> str | None:
        """The name of a backend extension whose rules this module does not have; None where all are known."""
        return next((name for name in ("KLEIDIAI", "SPACEMIT") if name in self.names), None)


_FEATURE = re.compile(r"\b(\w+) = (\d{1,9})\b")


@functools.lru_cache(64)  # a hundred thousand records are of a few builds
def read_features(system_info: str) -> CpuFeatures:
    """Read the line that llama_print_system_info gives: ``CPU : SSE3 = 1 | AVX2 = 1 | … | REPACK = 1``.

    Source: llama.cpp llama_print_system_info; ggml-cpu.cpp ggml_backend_cpu_get_features (only what is there is listed).
    """
    found = {name: int(value) for name, value in _FEATURE.findall(system_info)}
    names = frozenset(name for name, value in found.items() if value)
    return CpuFeatures(names, found.get("SVE_CNT", 0), found.get("RVV_VLEN", 0) * 8)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one tensor goes: the buffer, the name of its layout there (``q4_0_8x8``), and its size in bytes."""

    buffer: str
    name: str
    size_bytes: int


def find_layout(tensor: Tensor, features: CpuFeatures) -> Layout | None:
    """Say how the CPU backend would store a tensor that is multiplied with; None where it stays as it is in the file.

    AMX comes before repacking, in the order in which the backend offers its buffers.

    Source: ggml-cpu.cpp ggml_backend_cpu_get_extra_buffer_types, ggml_backend_cpu_device_supports_op; llama-model-loader.cpp
    select_weight_buft.
    """
    if not is_matrix_product(tensor):
        return None
    if features.has_amx and _fits_amx(tensor):
        # Source: mmq.cpp ggml_backend_amx_get_alloc_size.
        n_blocks = tensor.n_elements // TENSOR_TYPES[tensor.type_id].block_elements
        size = tensor.size_bytes + n_blocks * _AMX_EXTRA_BYTES.get(tensor.type_name, 0)
        return Layout(AMX_BUFFER, f"{tensor.type_name.lower()}_amx", size)
    if features.has_repack and (name := _choose_interleaving(tensor, features)):
        return Layout(REPACK_BUFFER, name, tensor.size_bytes)
    return None


def is_matrix_product(tensor: Tensor) -> bool:
    """Whether llama.cpp multiplies with this tensor: a matrix, or a stack of experts' matrices.

    Source: repack.cpp extra_buffer_type::supports_op (two dimensions for MUL_MAT, three for MUL_MAT_ID).
    """
    role = find_role(tensor.name)
    # Dimensions count up to the last that is larger than 1. Source: ggml.c ggml_n_dims.
    n_dimensions = max((index + 1 for index, extent in enumerate(tensor.shape) if extent > 1), default=1)
    return role.is_multiplied and n_dimensions == (3 if role.is_stack else 2)


def _choose_interleaving(tensor: Tensor, features: CpuFeatures) -> str | None:
    """Name the interleaved layout of a matrix, such as ``q4_0_8x8``; None where this CPU has none for its type and rows.

    Source: ggml/src/ggml-cpu/repack.cpp ggml_repack_get_optimal_repack_type.
    """
    kind, rows = tensor.type_name, tensor.shape[1]
    avx2, avx512 = features.has("AVX2"), features.has("AVX512")
    int8 = features.has("NEON", "MATMUL_INT8")
    dot = features.has("NEON", "DOTPROD")
    sve = kind == "Q4_0" and features.has("SVE", "MATMUL_INT8") and features.sve_bytes == 32
    choices = {
        "Q4_0": [(avx2 or sve, 8, "8x8"), (int8, 4, "4x8"), (dot, 4, "4x4"), (features.has("VXE"), 4, "4x4")],
        "Q4_K": [(avx2, 8, "8x8"), (int8, 8, "8x8"), (dot, 8, "8x4")],
        "Q2_K": [(avx512, 8, "8x8")],
        "Q5_K": [(int8, 8, "8x8"), (dot, 8, "8x4")],
        "Q6_K": [(int8, 8, "8x8"), (dot, 8, "8x4")],
        "IQ4_NL": [(avx2, 8, "8x8"), (dot, 4, "4x4")],
        "MXFP4": [(avx2, 8, "8x8"), (dot, 4, "4x4")],
        "Q8_0": [(int8, 4, "4x8"), (dot, 4, "4x4")],
        "Q1_0": [(int8, 4, "4x8"), (dot, 4, "4x4")],
    }.get(kind, [])
    if kind in ("Q4_0", "Q4_K", "Q2_K", "IQ4_NL", "Q8_0"):
        choices.append((features.has("RISCV_V") and features.riscv_bits == 256, 16, "16x1"))
    fitting = (name for usable, multiple, name in choices if usable and rows % multiple == 0)
    found = next(fitting, None)
    return None if found is None else f"{kind.lower()}_{found}"


#: The width of the rows that AMX takes, by type. Source: amx.cpp extra_buffer_type::supports_op (TILE_K 32, QK_K 256).
_AMX_WIDTHS = {"Q4_0": 32, "Q4_1": 32, "Q8_0": 32, "Q4_K": 256, "Q5_K": 256, "Q6_K": 256, "IQ4_XS": 256, "F16": 16}
#: Bytes that AMX adds to each block. Source: mmq.cpp get_row_size, do_compensate.
_AMX_EXTRA_BYTES = {"Q8_0": 4, "Q4_K": 4, "Q5_K": 4, "IQ4_XS": 2}


def _fits_amx(tensor: Tensor) -> bool:
    width, (n_in, n_out) = _AMX_WIDTHS.get(tensor.type_name), tensor.shape[:2]
    return width is not None and not find_role(tensor.name).is_stack and n_in % width == 0 and n_out % 64 == 0


@dataclass(frozen=True, slots=True)
class RepackedType:
    """The weights of one type that go into one layout."""

    type_name: str
    layout: str
    size_bytes: int


def find_repacked_types(header: Header, features: CpuFeatures) -> tuple[RepackedType, ...]:
    """Add up what this CPU would repack of a model that runs on it whole, the largest first."""
    found: Counter[tuple[str, str]] = Counter()
    for tensor in filter(None, (*header.tensors, output_duplicate(header))):
        if layout := find_layout(tensor, features):
            found[tensor.type_name, layout.name] += layout.size_bytes
    return tuple(RepackedType(*key, size) for key, size in found.most_common())


#: Architectures that load no output matrix: most encoders, and bitnet, which multiplies with the token embeddings where they lie.
#: Source: src/models/*.cpp load_arch_tensors.
_WITHOUT_OUTPUT = name_set(
    "bert jina-bert-v2 jina-bert-v3 nomic-bert nomic-bert-moe neo-bert eurobert modern-bert bitnet clip wavtokenizer-dec"
)


#: Architectures that load the output matrix before the token embeddings, and so have both in memory where nothing is mapped.
#: Source: src/models/gemma3n.cpp, gemma4.cpp load_arch_tensors; llama-model-loader.cpp create_tensor (TENSOR_DUPLICATED).
OUTPUT_FIRST = frozenset({"gemma3n", "gemma4"})


def output_duplicate(header: Header) -> Tensor | None:
    """The output matrix of a model that has none of its own: the token embeddings, used once more under that name.

    Source: src/models/*.cpp load_arch_tensors (TENSOR_DUPLICATED); llama-model-loader.cpp create_tensor, which then asks for a buffer
    as for LLM_TENSOR_OUTPUT.
    """
    if header.architecture in _WITHOUT_OUTPUT:
        return None
    embedding = header.find_tensor(TOKEN_EMBEDDING)
    return None if embedding is None or header.find_tensor(OUTPUT) else replace(embedding, name=OUTPUT)
