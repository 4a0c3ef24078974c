"""GGUF headers written byte by byte, valid or not, and ways to spoil them."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field, replace
from typing import Any

from harness.gguf.header import ArrayValue, BytesSource, Header, read_header
from harness.gguf.types import tensor_size_bytes, tensor_type

VALUE_TYPES = {
    "u8": 0, "i8": 1, "u16": 2, "i16": 3, "u32": 4, "i32": 5, "f32": 6, "bool": 7, "str": 8, "arr": 9, "u64": 10, "i64": 11,
    "f64": 12,
}  # fmt: skip
LETTERS = {
    "u8": "B",
    "i8": "b",
    "u16": "H",
    "i16": "h",
    "u32": "I",
    "i32": "i",
    "f32": "f",
    "bool": "B",
    "u64": "Q",
    "i64": "q",
    "f64": "d",
}


@dataclass
class HeaderBytes:
    """A header under construction: pieces are appended as given, so that any of them may be wrong."""

    endian: str = "<"
    version: int = 3
    alignment: int = 32
    keys: list[bytes] = field(default_factory=list)
    tensors: list[bytes] = field(default_factory=list)
    offset: int = 0
    key_count: int | None = None
    tensor_count: int | None = None

    def pack(self, letter: str, *values: Any) -> bytes:
        return struct.pack(self.endian + letter, *values)

    def text(self, text: str | bytes) -> bytes:
        data = text.encode() if isinstance(text, str) else text
        return self.pack("Q", len(data)) + data

    def items(self, kind: str, values: list[Any]) -> bytes:
        if kind == "str":
            return b"".join(self.text(value) for value in values)
        return self.pack(f"{len(values)}{LETTERS[kind]}", *values)

    def add(self, key: str | bytes, kind: str, value: Any) -> HeaderBytes:
        """Add a scalar or a string."""
        self.keys.append(self.text(key) + self.pack("I", VALUE_TYPES[kind]) + self.items(kind, [value]))
        return self

    def add_array(self, key: str, kind: str, values: list[Any]) -> HeaderBytes:
        head = self.pack("IIQ", VALUE_TYPES["arr"], VALUE_TYPES[kind], len(values))
        self.keys.append(self.text(key) + head + self.items(kind, values))
        return self

    def add_raw(self, key: str, rest: bytes) -> HeaderBytes:
        self.keys.append(self.text(key) + rest)
        return self

    def add_tensor(
        self, name: str, kind: str, *shape: int, offset: int | None = None, type_id: int | None = None
    ) -> HeaderBytes:
        """Add a tensor at the next free offset, unless another offset or type is given."""
        number = tensor_type(kind).type_id if type_id is None else type_id
        at = self.offset if offset is None else offset
        self.tensors.append(self.text(name) + self.pack(f"I{len(shape)}QIQ", len(shape), *shape, number, at))
        if type_id is None and 0 not in shape:
            self.offset += -(-tensor_size_bytes(shape, number) // self.alignment) * self.alignment
        return self

    def build(self, data: bool = False) -> bytes:
        """Return the header, padded; with zeros for the tensors where data is asked for."""
        counts = self.pack(
            "QQ",
            len(self.tensors) if self.tensor_count is None else self.tensor_count,
            len(self.keys) if self.key_count is None else self.key_count,
        )
        head = b"GGUF" + self.pack("I", self.version) + counts + b"".join(self.keys) + b"".join(self.tensors)
        return head + bytes(-len(head) % self.alignment) + (bytes(self.offset) if data else b"")


def llama_like(
    endian: str = "<", version: int = 3, vocab: int = 12, layers: int = 2, arch: str = "llama"
) -> HeaderBytes:
    """A small model of the usual kind, with every type of value in its metadata."""
    made = HeaderBytes(endian, version)
    made.add("general.architecture", "str", arch).add("general.name", "str", "Tiny ü").add(
        "general.file_type", "u32", 2
    )
    for key, value in {
        "block_count": layers, "context_length": 512, "embedding_length": 64, "feed_forward_length": 128,
        "attention.head_count": 2, "attention.head_count_kv": 1, "vocab_size": vocab,
    }.items():  # fmt: skip
        made.add(f"{arch}.{key}", "u32", value)
    for kind, value in {
        "u8": 255,
        "i8": -1,
        "u16": 65535,
        "i16": -2,
        "i32": -3,
        "f32": 0.5,
        "u64": 2**63,
        "i64": -4,
        "f64": 0.1,
    }.items():
        made.add(f"test.{kind}", kind, value).add_array(f"test.{kind}s", kind, [value] * 3)
    made.add("test.bool", "bool", 1).add_array("test.bools", "bool", [0, 1]).add_array("test.none", "i32", [])
    made.add("tokenizer.ggml.model", "str", "gpt2").add("tokenizer.chat_template", "str", "{{ messages }}")
    made.add_array("tokenizer.ggml.tokens", "str", [f"token{i}" for i in range(vocab)])
    made.add_array("tokenizer.ggml.token_type", "i32", [1] * vocab)
    made.add_tensor("token_embd.weight", "Q8_0", 64, vocab)
    for layer in range(layers):
        made.add_tensor(f"blk.{layer}.attn_norm.weight", "F32", 64)
        made.add_tensor(f"blk.{layer}.attn_q.weight", "Q4_0", 64, 64).add_tensor(
            f"blk.{layer}.attn_k.weight", "Q4_0", 64, 32
        )
        made.add_tensor(f"blk.{layer}.attn_v.weight", "Q4_0", 64, 32).add_tensor(
            f"blk.{layer}.attn_output.weight", "Q4_0", 64, 64
        )
        made.add_tensor(f"blk.{layer}.ffn_down.weight", "Q4_1", 128, 64)
    return made.add_tensor("output_norm.weight", "F32", 64)


def shorten_vocabulary(data: bytes, keep: int = 20) -> bytes:
    """Write the header of a real file again with its long arrays cut, so that mutating it is quick."""
    source = BytesSource(data)
    header: Header = read_header(source)
    made = HeaderBytes(version=header.version)
    for key, kind in header.metadata_types.items():
        value = header.metadata[key]
        if kind == "arr":
            made.add_array(key, value.item_type, value.read(source)[:keep])
        else:
            made.add(key, kind, value)
    for tensor in header.tensors:
        made.add_tensor(tensor.name, tensor.type_name, *tensor.shape)
    return made.build()


_TELLING = (
    0,
    1,
    2,
    3,
    7,
    8,
    9,
    31,
    255,
    2**16,
    2**20,
    2**30,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**40,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Spoil a header in one to three ways: flipped bits, cuts, moved pieces, edited numbers and lengths."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if len(made) < 16:
            break
        rng.choice((_flip, _truncate, _splice, _edit_number, _edit_length, _edit_length))(made, rng)
    return bytes(made)


def _flip(made: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 8)):
        made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)


def _truncate(made: bytearray, rng: random.Random) -> None:
    del made[rng.randrange(len(made)) :]


def _splice(made: bytearray, rng: random.Random) -> None:
    start, size, to = rng.randrange(len(made)), rng.randint(1, 64), rng.randrange(len(made))
    piece = made[start : start + size]
    made[to : to + rng.choice((0, size))] = piece if rng.random() < 0.8 else rng.randbytes(size)


def _edit_number(made: bytearray, rng: random.Random) -> None:
    size = rng.choice((4, 8))
    at = rng.randrange(len(made) - size + 1)
    value = rng.choice((rng.choice(_TELLING), len(made), len(made) - at))
    made[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, rng.choice(("little", "big")))


def _edit_length(made: bytearray, rng: random.Random) -> None:
    """Change a number that looks like a length or a count: eight bytes that are small in either byte order."""
    start = rng.randrange(len(made) - 8)
    for at in range(start, min(start + 200, len(made) - 8)):
        for order in ("little", "big"):
            value = int.from_bytes(made[at : at + 8], order)
            if 0 < value <= len(made):
                changed = rng.choice((value + rng.choice((-1, 1, 8, 1000)), rng.choice(_TELLING)))
                made[at : at + 8] = max(changed, 0).to_bytes(8, order)
                return


def unsettle(header: Header, rng: random.Random) -> Header:
    """Change settings and tensors of a header that is readable, so that what reads them is tried and not the reader."""
    metadata, tensors = dict(header.metadata), list(header.tensors)
    for _ in range(rng.choice((1, 1, 2, 3))):
        key = rng.choice(list(metadata) or ["general.name"])
        at = rng.randrange(len(tensors)) if tensors else 0
        choice = rng.randrange(6)
        if choice == 0:
            metadata.pop(key, None)
        elif choice < 4 or not tensors:
            metadata[key] = _odd_value(rng)
        elif choice == 4:
            tensors[at] = replace(
                tensors[at], shape=tuple(rng.choice((0, 1, 2, 32, 256, 2**31)) for _ in range(rng.randrange(5)))
            )
        else:
            tensors = tensors[at : at + 1] if rng.random() < 0.3 else tensors[:at] + tensors[at + 1 :]
    return replace(header, metadata=metadata, tensors=tuple(tensors))


def _odd_value(rng: random.Random) -> Any:
    kind = rng.randrange(8)
    if kind < 4:
        return rng.choice(_TELLING)
    if kind == 4:
        return rng.choice((-1, True, False, 0.0, -1.5, float("nan"), float("inf"), "", "mamba", "clip"))
    values = [rng.choice((0, 1, 2, 64, 2**31)) for _ in range(rng.choice((0, 1, 2, 4, 5, 600)))]
    if kind == 5:
        data = struct.pack(f"<{len(values)}f", *map(float, values))
        return ArrayValue("f32", len(values), 0, len(data), "little", data)
    data = struct.pack(f"<{len(values)}I", *values)
    return ArrayValue("u32", len(values), 0, len(data), "little", data)
