"""GGUF files with a real model's shape, tensor types and layout, and random weights: to time a model nobody downloaded.

Speed should not depend on weights: ggml's CPU matrix products (quants.c, vec.cpp, repack.cpp, sgemm.cpp) have
no branch on them. Attention has one on scores (ops.cpp, flash attention rescales at each new maximum), a small share of
the work. What does matter is kept: dimensions, types, the order of tensors in the file, and finite scales of a usual
size, so that nothing overflows to Inf or NaN. Blocks are random and not zero, because a compressing file system or swap
would shrink zeros, and because an expert router of zeros would choose the same experts for every token.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import struct
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

from harness.catalog import Shape
from harness.errors import HarnessError, UsageError
from harness.events import OnBytes
from harness.gguf.header import DEFAULT_ALIGNMENT, SYNTHETIC_KEY, Tensor
from harness.gguf.layout import ARCHITECTURES, tensor_table
from harness.gguf.roles import find_role
from harness.gguf.shapes import list_hyperparameters
from harness.gguf.types import FILE_TYPE_NUMBERS, find_quantization, pad, tensor_type
from harness.sources.cache_folder import cache_folder
from harness.sources.fetching import check_space
from harness.sources.gguf_file import read_file_header
from harness.sources.looking import find_in
from harness.units import MIB

if TYPE_CHECKING:  # both take a tenth of a second, and only what is written needs them
    import gguf
    import numpy as np

#: Raised whenever the bytes of a file for the same shape change, so that a cached one is written anew.
SYNTHETIC_VERSION = 1

_POOL_BYTES = 8 * MIB
_HEAD_BYTES = 4096  # where our own keys are looked for: they are the first ones in the file
_QUANTIZATION_VERSION = 2  # ggml.h GGML_QNT_VERSION
_WEIGHT_STD = 0.02

_KEY_NAME = f"{SYNTHETIC_KEY}.name"
_KEY_QUANTIZATION = f"{SYNTHETIC_KEY}.quantization"
_KEY_FINGERPRINT = f"{SYNTHETIC_KEY}.fingerprint"
_KEY_FILE_SIZE = f"{SYNTHETIC_KEY}.file_size_bytes"


@dataclass(frozen=True, slots=True)
class SyntheticFile:
    """A synthetic model on disk, as its own first bytes describe it."""

    path: Path
    name: str
    quantization: str
    size_bytes: int
    fingerprint: str


def default_cache_dir() -> Path:
    """Return where synthetic files are kept: ``synth`` in $HARNESS_CACHE_DIR, else in the user's cache directory."""
    return cache_folder("synth")


def synthetic_path(cache_dir: Path, name: str, quantization: str) -> Path:
    """Return the file that holds this model: ``llama3.2:1b`` in Q4_0 is ``llama3.2-1b.Q4_0.synthetic.gguf``."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
    return cache_dir / f"{stem}.{find_quantization(quantization)}.synthetic.gguf"


def list_synthetic(cache_dir: Path) -> tuple[SyntheticFile, ...]:
    """List the complete synthetic files of a directory by name; an absent directory holds none."""
    found = (read_mark(path) for path in find_in(cache_dir, "*.gguf"))
    return tuple(mark for mark in found if mark is not None and mark.path.stat().st_size == mark.size_bytes)


def read_mark(path: Path) -> SyntheticFile | None:
    """Read what a synthetic file says of itself; None for any other file. size_bytes is what the file should have."""
    try:
        metadata = read_file_header(path, check_size=False).metadata
    except HarnessError:
        return None
    values: list[Any] = [metadata.get(key) for key in (_KEY_NAME, _KEY_QUANTIZATION, _KEY_FILE_SIZE, _KEY_FINGERPRINT)]
    is_ours = [type(value) for value in values] == [str, str, int, str]
    return SyntheticFile(path, *values) if is_ours else None


def ensure_synthetic(
    shape: Shape, quantization: str, cache_dir: Path, *, name: str, seed: int = 0, progress: OnBytes | None = None
) -> Path:
    """Return the cached file for this model, writing it first where there is none, or only a cut-off or outdated one.

    Raises
    ------
    HarnessError : as `write_synthetic`.
    """
    path = synthetic_path(cache_dir, name, quantization)
    mark = read_mark(path)
    fingerprint = _fingerprint(shape, find_quantization(quantization), name, seed)
    if mark is not None and mark.fingerprint == fingerprint and path.stat().st_size == mark.size_bytes:
        return path
    return write_synthetic(shape, quantization, path, name=name, seed=seed, progress=progress)


def write_synthetic(
    shape: Shape, quantization: str, path: Path, *, name: str, seed: int = 0, progress: OnBytes | None = None
) -> Path:
    """Write a GGUF of this shape and quantization with random weights, and return its path.

    The file appears under its name only when it is complete and on disk (so that no writing back disturbs what is
    timed next); an interrupted one leaves nothing. Memory stays below 300 MiB: weights are slices of one pool per type.
    The same arguments give the same bytes.

    Parameters
    ----------
    name     : the model's catalog name, kept in the metadata
    progress : called with bytes written and bytes in all, about every 8 MiB

    Raises
    ------
    UsageError   : unknown architecture or quantization, or a vocabulary too small to make up.
    HarnessError : the disk lacks the space, the file cannot be written.
    """
    quantization = find_quantization(quantization)
    if shape.architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UsageError(
            f"llama.cpp could not run a file of architecture {shape.architecture!r}; synth writes {known}."
        )
    tensors = tensor_table(shape, quantization)
    vocabulary = _make_vocabulary(shape)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        need_bytes = _data_bytes(tensors) + 64 * shape.vocab_size + MIB
        check_space(path.parent, need_bytes, "the model", "choose another folder")
        _write_header(partial, shape, quantization, tensors, vocabulary, name, seed)
        _append_weights(partial, tensors, seed, progress)
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise HarnessError(f"could not write {path}: {reason}; free space there or choose another file") from error
    finally:
        # After success it is gone already; after anything else, Ctrl-C included, it goes now.
        with contextlib.suppress(OSError):
            partial.unlink()
    return path


def make_header_bytes(shape: Shape, quantization: str, *, name: str, vocabulary: bool = True) -> tuple[bytes, int]:
    """Make the header that `write_synthetic` would write, and the size of its file, without any weights.

    Without a vocabulary it says how many tokens there are and none of them, of which llama.cpp loads everything but a tokenizer.

    Raises
    ------
    UsageError : unknown architecture or quantization, or a vocabulary too small to make up.
    """
    quantization = find_quantization(quantization)
    tensors = tensor_table(shape, quantization)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "header.gguf"
        words = _make_vocabulary(shape) if vocabulary else None
        _write_header(path, shape, quantization, tensors, words, name, 0)
        data = path.read_bytes()
    return data, len(data) + _data_bytes(tensors)


def _data_bytes(tensors: Sequence[Tensor]) -> int:
    return sum(pad(tensor.size_bytes, DEFAULT_ALIGNMENT) for tensor in tensors)


def _fingerprint(shape: Shape, quantization: str, name: str, seed: int) -> str:
    """Identify everything that decides a file's bytes."""
    identity = repr((SYNTHETIC_VERSION, astuple(shape), quantization, name, seed))
    return hashlib.sha256(identity.encode()).hexdigest()


def _remove_abandoned(path: Path) -> None:
    """Delete what killed writers of the same file left behind."""
    import psutil

    for leftover in path.parent.glob(f"{path.name}.*.partial"):
        owner = leftover.name[len(path.name) + 1 : -len(".partial")]
        if owner.isdecimal() and (int(owner) == os.getpid() or not psutil.pid_exists(int(owner))):
            leftover.unlink(missing_ok=True)


def _write_header(
    path: Path,
    shape: Shape,
    quantization: str,
    tensors: Sequence[Tensor],
    vocabulary: _Vocabulary | None,
    name: str,
    seed: int,
) -> None:
    """Write everything up to the first byte of tensor data, with the finished file's size in it."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, shape.architecture)
    writer.add_bool(SYNTHETIC_KEY, True)
    writer.add_uint64(_KEY_FILE_SIZE, 0)
    writer.add_string(_KEY_FINGERPRINT, _fingerprint(shape, quantization, name, seed))
    writer.add_string(_KEY_QUANTIZATION, quantization)
    writer.add_string(_KEY_NAME, name)
    writer.add_name(f"{name} {quantization} (synthetic: random weights)")
    writer.add_type("model")
    add_hyperparameters(writer, shape)
    writer.add_file_type(FILE_TYPE_NUMBERS[quantization])
    writer.add_quantization_version(_QUANTIZATION_VERSION)
    if vocabulary is None:
        writer.add_tokenizer_model("no_vocab")
    else:
        _add_vocabulary(writer, vocabulary)
    for tensor in tensors:
        kind = gguf.GGMLQuantizationType(tensor.type_id)
        # The dtype is only a stand-in: raw_dtype decides, and the library turns shapes round to ne[0] first.
        writer.add_tensor_info(
            tensor.name, tuple(reversed(tensor.shape)), np.dtype(np.float32), tensor.size_bytes, raw_dtype=kind
        )
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()
    with path.open("r+b") as file:
        key = struct.pack("<Q", len(_KEY_FILE_SIZE)) + _KEY_FILE_SIZE.encode()
        position = file.read(_HEAD_BYTES).index(key) + len(key) + 4  # behind the value's type
        header_bytes = file.seek(0, os.SEEK_END)
        file.write(bytes(pad(header_bytes, DEFAULT_ALIGNMENT) - header_bytes))
        file.seek(position)
        file.write(struct.pack("<Q", pad(header_bytes, DEFAULT_ALIGNMENT) + _data_bytes(tensors)))


def add_hyperparameters(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """Write the hyperparameters that a computed header of the same shape has."""
    for key, value in list_hyperparameters(shape).items():
        name = f"{shape.architecture}.{key}"
        if isinstance(value, tuple):
            writer.add_array(name, list(value))
        elif isinstance(value, float):
            writer.add_float32(name, value)
        else:
            writer.add_uint32(name, value)


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """A BPE vocabulary of made-up words that has a real one's size and special tokens' ids.

    control_ids are the tokens that are no text; the other ids hold the 256 bytes, then words.
    """

    size: int
    pre: str
    control_ids: range
    bos: int
    eos: int
    add_bos: bool


def _make_vocabulary(shape: Shape) -> _Vocabulary:
    """Choose the special tokens by the vocabulary's size: as the real model has them where it is known, else two at its end.

    Gemma and Mixtral, whose real vocabularies are SentencePiece, get BPE too: the tokenizer is not part of what is timed.
    Source: the models' published tokenizer configurations; llama-vocab.cpp for what each pre-tokenizer implies.
    """
    size = shape.vocab_size
    if size == 128256:
        return _Vocabulary(size, "llama-bpe", range(128000, size), bos=128000, eos=128009, add_bos=True)
    if size in (151936, 152064):
        return _Vocabulary(size, "qwen2", range(151643, size), bos=151643, eos=151645, add_bos=False)
    if size == 49152:
        return _Vocabulary(size, "smollm", range(17), bos=1, eos=2, add_bos=False)
    if size < 258:
        raise UsageError(f"a synthetic vocabulary needs 258 tokens and this shape has {size}; raise its vocab_size")
    return _Vocabulary(size, "llama-bpe", range(size - 2, size), bos=size - 2, eos=size - 1, add_bos=True)


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: _Vocabulary) -> None:
    import gguf

    tokens = list(_make_tokens(vocabulary))
    control, normal = int(gguf.TokenType.CONTROL), int(gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(tokens)
    writer.add_token_types([control if i in vocabulary.control_ids else normal for i in range(vocabulary.size)])
    # llama.cpp refuses BPE without merges; one is enough, as no text is tokenized with it.
    writer.add_token_merges(["Ġ a"])
    writer.add_bos_token_id(vocabulary.bos)
    writer.add_eos_token_id(vocabulary.eos)
    writer.add_add_bos_token(vocabulary.add_bos)


def _make_tokens(vocabulary: _Vocabulary) -> Iterator[str]:
    """Yield every token's text in the order of ids, all different (llama.cpp asserts that)."""
    named = {vocabulary.bos: "<|begin_of_text|>", vocabulary.eos: "<|end_of_text|>"}
    n_text = vocabulary.size - len(vocabulary.control_ids)
    words = ("Ġ" + "".join(letters) for letters in product(ascii_lowercase, repeat=5))
    text = iter([*_byte_tokens(), *islice(words, n_text - 256)])
    for i in range(vocabulary.size):
        yield named.get(i, f"<|reserved_special_token_{i}|>") if i in vocabulary.control_ids else next(text)


def _byte_tokens() -> list[str]:
    """The 256 printable characters that stand for bytes in byte-level BPE. Source: unicode.cpp unicode_byte_to_utf8_map."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)]


#: For each type, as ggml-common.h lays out its blocks: where the scale d is (a half), and the minimum, where there is one; the standard
#: deviation of (weight / d) over random bits, and the minimum as a multiple of d that centres the weights on 0. Checked by
#: dequantizing in tests/test_synth.py.
_SCALES: dict[str, tuple[int, int | None, float, float]] = {
    "Q4_0": (0, None, 4.6, 0), "Q4_1": (0, 2, 4.6, -7.5), "Q5_0": (0, None, 9.2, 0), "Q5_1": (0, 2, 9.2, -15.5),
    "Q8_0": (0, None, 74, 0), "IQ4_NL": (0, None, 72, 0), "Q2_K": (80, 82, 14, 1.5), "Q3_K": (108, None, 42, 0),
    "Q4_K": (0, 2, 255, 7.5), "Q5_K": (0, 2, 524, 15.5), "Q6_K": (208, None, 1370, 0), "IQ4_XS": (0, None, 1330, 0),
}  # fmt: skip


def _append_weights(path: Path, tensors: Sequence[Tensor], seed: int, progress: OnBytes | None) -> None:
    """Stream all tensors' data behind the header, each from another place of its pool on, and flush to the disk."""
    import numpy as np

    total = path.stat().st_size + _data_bytes(tensors)
    random = np.random.default_rng(seed)
    pools: dict[str, memoryview] = {}
    with path.open("ab") as file:
        for tensor in tensors:
            # What a tensor's values come from is named by its type, or by what its few F32 numbers mean.
            meaning = {"rope": "ones", "norms": "norm"}.get(find_role(tensor.name).work or "", tensor.type_name)
            kind = "decay" if tensor.name.endswith("ssm_a") else meaning
            if kind not in pools:
                # One generator per pool, so that its bytes do not depend on which tensor came first.
                pools[kind] = memoryview(_make_pool(kind, np.random.default_rng([seed, *kind.encode()])))
            unit_bytes, left = tensor_type(tensor.type_name).block_bytes, tensor.size_bytes
            start = int(random.integers(len(pools[kind]) // unit_bytes)) * unit_bytes
            while left:  # round the pool
                piece = pools[kind][start : start + left]
                file.write(piece)
                start, left = 0, left - len(piece)
                if progress is not None:
                    progress(file.tell(), total)
            file.write(bytes(pad(tensor.size_bytes, DEFAULT_ALIGNMENT) - tensor.size_bytes))
        file.flush()
        os.fsync(file.fileno())


def _make_pool(kind: str, random: np.random.Generator) -> bytes:
    """Make about 8 MiB of valid blocks.

    Their number is odd: rows of 2^n blocks then begin at another place of the pool each time, and do not repeat.
    """
    import numpy as np

    if kind in ("ones", "decay"):  # decay is -exp(A_log): a state fades, or it would grow without bound
        return np.full(4096, 1 if kind == "ones" else -1, dtype="<f4").tobytes()
    if kind == "norm":
        return (1 + 0.1 * random.standard_normal(65537, dtype=np.float32)).astype("<f4").tobytes()
    n_blocks = _POOL_BYTES // tensor_type(kind).block_bytes | 1
    if kind in ("F32", "F16", "BF16"):
        values = _WEIGHT_STD * random.standard_normal(n_blocks, dtype=np.float32)
        if kind == "BF16":  # the upper half of a float
            return (values.view(np.uint32) >> 16).astype("<u2").tobytes()
        return values.astype("<f4" if kind == "F32" else "<f2").tobytes()
    return _make_blocks(kind, n_blocks, random)


def _make_blocks(type_name: str, n_blocks: int, random: np.random.Generator) -> bytes:
    """Make quantized blocks: random bits, and finite scales that spread the weights like a trained model's (0.02)."""
    import numpy as np

    size = tensor_type(type_name).block_bytes
    blocks = np.frombuffer(bytearray(random.bytes(n_blocks * size)), dtype=np.uint8).reshape(n_blocks, size)
    if type_name == "MXFP4":
        # The scale is a power of two: 2^(e - 128) times integers up to 12, whose root mean square is 5.85. Two scales in these
        # shares spread the weights like the other types. Source: ggml-impl.h ggml_e8m0_to_fp32_half; ggml-common.h kvalues_mxfp4.
        blocks[:, 0] = 119 + (random.random(n_blocks) < 0.69)
        return blocks.tobytes()
    at, minimum_at, spread, minimum = _SCALES[type_name]
    scale = random.uniform(0.75, 1.25, n_blocks) * _WEIGHT_STD / spread
    blocks[:, at : at + 2] = scale.astype("<f2")[:, None].view(np.uint8)
    if minimum_at is not None:
        blocks[:, minimum_at : minimum_at + 2] = (minimum * scale).astype("<f2")[:, None].view(np.uint8)
    return blocks.tobytes()
