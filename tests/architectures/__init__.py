"""A tiny model of every architecture that llama.cpp can load: `models.json` says what each must hold, and here it becomes a file.

`python -m tests.architectures.derive` finds out what to write there by asking the engine itself.
"""

from __future__ import annotations

import functools
import json
import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.gguf.types import tensor_type
from tests.gguf_bytes import HeaderBytes

DATA = pathlib.Path(__file__).with_name("models.json")

N_VOCAB = 288

#: Kept whole by llama-quantize, or used by operations that take no blocks. Source: llama-quant.cpp tensor_allows_quantization.
_WHOLE = (
    "_norm", "ffn_gate_inp", "altup", "laurel", "per_layer_model_proj", "position_embd", "token_types", "ssm_conv1d",
    "shortconv.conv", "time_mix", "attn_rel_b", "hc_", "compressor", "indexer", "conv", "posnet", "attn_sinks", "_res_",
)  # fmt: skip


_LAYERED = re.compile(r"((?:\w+\.)?\w+)\.([\d,-]+)\.(.+)")

#: The kernels of a convolution, which its operation takes in half precision. Source: ggml.c ggml_im2col.
_KERNELS = re.compile(r"conv1d\.weight|posnet\.\d+\.conv[12]\.weight|convnext\.\d+\.dw\.weight")

#: Arrays of 64-bit numbers. Source: src/models/qwen4exp.cpp.
_WIDE = ("layer_multipliers", "head_offsets", "head_vocab_sizes")


@dataclass(frozen=True, slots=True)
class Architecture:
    """What one architecture's smallest model holds: settings without the architecture's prefix, tensors by name.

    name is the architecture's, with what makes a variant of it behind a plus (``llama+experts``). kinds has the types of those tensors that are not numbers of the usual kind.
    """

    name: str
    settings: dict[str, Any]
    tensors: dict[str, tuple[int, ...]]
    kinds: dict[str, str]

    @property
    def architecture(self) -> str:
        return self.name.partition("+")[0]


@functools.cache
def load_architectures() -> dict[str, Architecture]:
    """Read the descriptions, by name."""
    found = {}
    for name, item in json.loads(DATA.read_text(encoding="utf-8")).items():
        tensors = {full: tuple(shape) for pattern, shape in item["tensors"].items() for full in expand_layers(pattern)}
        found[name] = Architecture(name, item["settings"], tensors, item.get("kinds", {}))
    return found


def expand_layers(pattern: str) -> Iterator[str]:
    """``blk.0-2,4.attn_q.weight`` stands for that tensor in layers 0, 1, 2 and 4."""
    match = _LAYERED.fullmatch(pattern)
    if match is None:
        yield pattern
        return
    for piece in match[2].split(","):
        first, _, last = piece.partition("-")
        for layer in range(int(first), int(last or first) + 1):
            yield f"{match[1]}.{layer}.{match[3]}"


def describe_header(model: Architecture, quantization: str = "Q4_0") -> HeaderBytes:
    """Write an architecture's header: its settings, a vocabulary of made-up words, its tensors."""
    made = HeaderBytes()
    made.add("general.architecture", "str", model.architecture).add("general.name", "str", "Tiny")
    for key, value in model.settings.items():
        _add_setting(made, key if key.startswith(("tokenizer.", "xielu.")) else f"{model.architecture}.{key}", value)
    _add_vocabulary(made, model.settings)
    for name, shape in model.tensors.items():
        made.add_tensor(name, model.kinds.get(name) or choose_type(name, shape, quantization), *shape)
    return made


def choose_type(name: str, shape: tuple[int, ...], quantization: str) -> str:
    """The type in which a tensor is stored: blocks for matrices whose rows they divide, plain numbers for the rest."""
    if _KERNELS.fullmatch(name):
        return "F16"
    if (
        len([extent for extent in shape if extent > 1]) < 2
        or not name.endswith("weight")
        or any(p in name for p in _WHOLE)
    ):
        return "F32"
    return quantization if shape[0] % tensor_type(quantization).block_elements == 0 else "F16"


def _add_setting(made: HeaderBytes, key: str, value: Any) -> None:
    if isinstance(value, list):
        made.add_array(key, "u64" if ".ple." in key and key.rpartition(".")[2] in _WIDE else _kind(value[0]), value)
    else:
        made.add(key, _kind(value), value)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "u32" if value >= 0 else "i32"
    return "f32" if isinstance(value, float) else "str"


def _add_vocabulary(made: HeaderBytes, settings: dict[str, Any]) -> None:
    """Words by their number, with a line feed among them, as a sentencepiece vocabulary has them."""
    n_words = settings.get("vocab_size", N_VOCAB)
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += [f"\u2581w{index}" for index in range(len(words), n_words)]
    kinds = [2, 3, 3] + [6] * 256 + [1] * n_words
    made.add("tokenizer.ggml.model", "str", "llama")
    made.add_array("tokenizer.ggml.tokens", "str", words[:n_words])
    made.add_array("tokenizer.ggml.scores", "f32", [0.0] * n_words)
    made.add_array("tokenizer.ggml.token_type", "i32", kinds[:n_words])
