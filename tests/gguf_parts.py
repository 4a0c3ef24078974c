"""A GGUF header taken apart, changed by its structure, and put together again, so that what is spoilt gets past the first check.

`tests/gguf_bytes.mutate` changes bytes blindly; here types and values of settings change, counts, lengths, names, shapes, types and offsets
of tensors, arrays, duplicates, nested arrays, split fields, huge strings, alignment, versions, byte order, and files end at the boundaries.
"""

from __future__ import annotations

import functools
import itertools
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from harness.gguf.header import ArrayValue, BytesSource, read_header
from harness.gguf.types import TENSOR_TYPES, tensor_size_bytes

from .gguf_bytes import VALUE_TYPES, HeaderBytes
from .kind_files import SETTINGS

#: What is no array.
PLAIN_KINDS = tuple(kind for kind in VALUE_TYPES if kind != "arr")

#: Numbers at the edges of what something may be.
NUMBERS = (
    0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 63, 64, 127, 128, 255, 256, 511, 512, 513, 1000, 4096, 2**15, 2**16 - 1, 2**16, 2**20, 2**24,
    2**30, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -1, -2, -(2**31), -(2**63),
)  # fmt: skip

FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 1e30, 3.4e38, float("inf"), float("-inf"), float("nan"))

TEXTS = (
    b"", b"\0", b"a\0b", b"llama", b"gpt2", b"bert", b"mamba", b"clip", b"none", b"no_vocab", b"\xff\xfe", b"\xed\xa0\x80", b"../../etc/passwd",
    b"\x1b[2J\x1b]0;x\x07", "\u202e\u2066".encode(), b"=1+1", b"<script>alert(1)</script>", b"{{" * 200, b"[" * 5000, b"'; --",
    b"%s%n", b"x" * 70000, "\U0001f600".encode() * 40, b"\n\r\t", b"1", b"true", b"nan",
)  # fmt: skip

#: Settings that something is decided by, beside those of `SETTINGS`; a model's are under its architecture's name.
GENERAL = (
    "general.architecture", "general.type", "general.alignment", "general.file_type", "general.name", "general.size_label", "split.no",
    "split.count", "split.tensors.count", "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens", "tokenizer.ggml.merges",
    "tokenizer.ggml.bos_token_id", "tokenizer.ggml.add_bos_token", "tokenizer.chat_template", "harness.synthetic", "adapter.type",
    "general.quantization_version", "general.base_model.count", "tokenizer.ggml.token_type", "tokenizer.ggml.scores",
)  # fmt: skip
OWN = (
    *(name.replace("__", ".") for name in SETTINGS), "block_count", "context_length", "embedding_length", "feed_forward_length",
    "attention.head_count", "attention.head_count_kv", "vocab_size", "pooling_type", "attention.causal", "expert_feed_forward_length",
    "expert_shared_count", "rope.dimension_sections", "attention.key_length_mla", "attention.value_length_mla", "attention.indexer.key_length",
    "decoder_block_count", "attention.recurrent_layers", "attention.chunk_size", "rope.freq_base", "rope.scaling.type", "deepstack_layers",
    "embedding_length_per_layer_input", "attention.key_length_swa", "convnext.block_count", "posnet.block_count", "kda.head_dim",
    "swin_norm", "interleave_moe_layer_step", "altup.num_inputs", "token_shift_count", "time_mix_extra_dim", "moe_every_n_layers",
)  # fmt: skip

#: Names that a tensor has a role by.
TENSOR_NAMES = (
    "token_embd.weight", "output.weight", "output_norm.weight", "position_embd.weight", "rope_freqs.weight", "blk.0.attn_q.weight",
    "blk.0.attn_qkv.weight", "blk.1.ffn_down_exps.weight", "blk.0.ffn_gate.0.weight", "blk.511.ffn_up.weight", "blk.99999.attn_k.weight",
    "blk.-1.attn_k.weight", "blk.0.ssm_in.weight", "blk.18446744073709551616.attn_v.weight", "v.patch_embd.weight", "dec.blk.0.attn_q.weight",
    "blk.0.attn_q.weight.lora_a", "direction.1", "model.diffusion_model.out.2.weight", "", "blk.", "blk.x", ".", "a" * 63, "a" * 64, "a" * 5000,
    "blk.٣.attn_q.weight", "cls.weight", "per_layer_token_embd.weight",
)  # fmt: skip


@dataclass
class Setting:
    """A key, its value's type by name, and the value: a list where it is an array, whose items' type is item_type."""

    key: bytes
    kind: str
    value: Any
    item_type: str = "u32"
    raw: bytes | None = None  #: in place of type and value


@dataclass
class Row:
    """A row of the tensor table; without an offset it lies where it is due."""

    name: bytes
    shape: list[int]
    type_id: int
    offset: int | None = None


@dataclass
class Parts:
    """A header in pieces."""

    version: int = 3
    endian: str = "<"
    magic: bytes = b"GGUF"
    settings: list[Setting] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    n_settings: int | None = None
    n_rows: int | None = None
    end: int | None = None  #: the boundary between pieces at which the file ends, of all that there are (modulo)
    beyond: int = 0  #: bytes that it ends beyond that, or before
    tail: bytes = b""

    @property
    def architecture(self) -> str:
        found = [one.value for one in self.settings if one.key == b"general.architecture"]
        return found[0].decode("utf-8", "replace") if found and isinstance(found[0], bytes) else "llama"

    def find(self, rng: random.Random) -> Setting:
        return rng.choice(self.settings or [Setting(b"general.name", "str", b"x")])

    def build(self) -> bytes:
        """The file: its header, padded, without weights."""
        made = HeaderBytes(self.endian)
        alignment = self._find_alignment()
        pieces = [self.magic, made.pack("I", self.version % 2**32)]
        counts = (
            len(self.rows) if self.n_rows is None else self.n_rows,
            len(self.settings) if self.n_settings is None else self.n_settings,
        )
        pieces += [made.pack("Q", count % 2**64) for count in counts]
        pieces += [self._pack_setting(made, one) for one in self.settings]
        at = 0
        for row in self.rows:
            offset = at if row.offset is None else row.offset
            shape = [size % 2**64 for size in row.shape]
            pieces.append(
                made.text(row.name)
                + made.pack(f"I{len(shape)}QIQ", len(shape), *shape, row.type_id % 2**32, offset % 2**64)
            )
            at = -(-(offset + _size_of(row)) // alignment) * alignment
        if self.end is not None:
            whole = b"".join(pieces[: 1 + self.end % len(pieces)])
            return whole[: self.beyond] if self.beyond < 0 else whole + pieces[self.end % len(pieces)][: self.beyond]
        whole = b"".join(pieces)
        padding = -len(whole) % alignment if alignment <= 2**16 else 0
        return whole + bytes(padding) + self.tail

    def _find_alignment(self) -> int:
        found = [one.value for one in self.settings if one.key == b"general.alignment" and one.kind == "u32"]
        return found[0] if found and 0 < found[0] < 2**32 else 32

    def _pack_setting(self, made: HeaderBytes, one: Setting) -> bytes:
        if one.raw is not None:
            return made.text(one.key) + one.raw
        if one.kind != "arr":
            return made.text(one.key) + made.pack("I", VALUE_TYPES[one.kind]) + _pack(made, one.kind, [one.value])
        head = made.pack("IIQ", VALUE_TYPES["arr"], VALUE_TYPES[one.item_type], len(one.value))
        return made.text(one.key) + head + _pack(made, one.item_type, one.value)


def _pack(made: HeaderBytes, kind: str, values: list[Any]) -> bytes:
    """Values as what they are said to be, cut down to it where they are something else."""
    return made.items(kind, [_as(kind, value) for value in values])


def _as(kind: str, value: Any) -> Any:
    if kind == "str":
        return value if isinstance(value, bytes) else str(value)
    if isinstance(value, (bytes, list)):
        value = len(value)
    if kind in ("f32", "f64"):
        number = float(value)
        return number if kind == "f64" or abs(number) <= 3.4e38 or number != number else 3.4e38
    if isinstance(value, float):
        value = int(value) if abs(value) < 1e18 else 0
    if kind == "bool":
        return value % 256
    sign, bits = kind[0], int(kind[1:])
    return (value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) if sign == "i" else value % 2**bits


def _size_of(row: Row) -> int:
    kind = TENSOR_TYPES.get(row.type_id)
    if kind is None or 0 in row.shape or not all(0 <= size < 2**63 for size in row.shape):
        return 0
    if (row.shape or [1])[0] % kind.block_elements:
        return 0
    return min(tensor_size_bytes(tuple(row.shape), row.type_id), 2**62)


def take_apart(data: bytes, keep: int = 24) -> Parts:
    """The pieces of a good header; of longer arrays only the first items are kept."""
    source = BytesSource(data)
    header = read_header(source)
    settings = []
    for key, kind in header.metadata_types.items():
        value = header.metadata[key]
        if isinstance(value, ArrayValue):
            items = [item.encode() if isinstance(item, str) else item for item in value.read(source)[:keep]]
            settings.append(Setting(key.encode(), kind, items, value.item_type))
        else:
            settings.append(Setting(key.encode(), kind, value.encode() if isinstance(value, str) else value))
    rows = [Row(one.name.encode(), list(one.shape), one.type_id) for one in header.tensors]
    return Parts(header.version, "<" if header.byte_order == "little" else ">", settings=settings, rows=rows)


def copy_parts(parts: Parts) -> Parts:
    """A copy that may be changed."""
    made = Parts(parts.version, parts.endian)
    made.settings = [Setting(one.key, one.kind, one.value, one.item_type, one.raw) for one in parts.settings]
    made.rows = [Row(one.name, list(one.shape), one.type_id, one.offset) for one in parts.rows]
    return made


def change(parts: Parts, rng: random.Random, times: int | None = None) -> Parts:
    """A copy with so many changes of any kind, one to four unless told."""
    made = copy_parts(parts)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4)) if times is None else times):
        rng.choice(CHANGES)(made, rng)
    return made


# --- settings ---------------------------------------------------------------------------------------------------------


def _odd(rng: random.Random, kind: str) -> Any:
    if kind == "str":
        return rng.choice(TEXTS)
    return rng.choice(FLOATS) if kind in ("f32", "f64") else rng.choice(NUMBERS)


def _own(parts: Parts, rng: random.Random) -> bytes:
    """The key of a setting that something is decided by."""
    if rng.random() < 0.3:
        return rng.choice(GENERAL).encode()
    return f"{parts.architecture}.{rng.choice(OWN)}".encode()


def change_value(parts: Parts, rng: random.Random) -> None:
    one = parts.find(rng)
    if one.kind == "arr" and one.value:
        items = list(one.value)
        items[rng.randrange(len(items))] = _odd(rng, one.item_type)
        one.value = items
    elif one.kind != "arr":
        one.value = _odd(rng, one.kind)


def change_type(parts: Parts, rng: random.Random) -> None:
    one = parts.find(rng)
    one.kind = rng.choice(PLAIN_KINDS)
    one.value = one.value if rng.random() < 0.5 else _odd(rng, one.kind)


def make_array(parts: Parts, rng: random.Random) -> None:
    """One number becomes one for each layer, or for fewer or more than there are."""
    one = parts.find(rng)
    one.kind, one.item_type = "arr", rng.choice(PLAIN_KINDS)
    length = rng.choice((0, 1, 2, 3, 4, 5, 8, 32, 511, 512, 513, 4000))
    one.value = [
        rng.choice((one.value, 0, 1, 64)) if rng.random() < 0.9 else _odd(rng, one.item_type) for _ in range(length)
    ]


def nest(parts: Parts, rng: random.Random) -> None:
    """An array of arrays, as deep as it gets."""
    made, depth = HeaderBytes(parts.endian), rng.choice((1, 2, 100, 5000))
    inner = made.pack("IQ", VALUE_TYPES["u8"], 0)
    parts.find(rng).raw = (
        made.pack("I", VALUE_TYPES["arr"]) + made.pack("IQ", VALUE_TYPES["arr"], rng.choice((1, 2**40))) * depth + inner
    )


def lie_about_length(parts: Parts, rng: random.Random) -> None:
    """A string or an array that is longer or shorter than it says."""
    made, length = HeaderBytes(parts.endian), rng.choice(NUMBERS) % 2**64
    rest = rng.randbytes(rng.choice((0, 1, 8, 64)))
    kind = rng.choice(list(VALUE_TYPES.values()))
    array = made.pack("IIQ", VALUE_TYPES["arr"], kind, length) + rest
    parts.find(rng).raw = array if rng.random() < 0.6 else made.pack("IQ", VALUE_TYPES["str"], length) + rest


def unknown_type(parts: Parts, rng: random.Random) -> None:
    parts.find(rng).raw = struct.pack(parts.endian + "I", rng.choice((13, 14, 255, 2**31, 2**32 - 1))) + rng.randbytes(
        8
    )


def drop_setting(parts: Parts, rng: random.Random) -> None:
    if parts.settings:
        del parts.settings[rng.randrange(len(parts.settings))]


def repeat_setting(parts: Parts, rng: random.Random) -> None:
    one = parts.find(rng)
    parts.settings.insert(rng.randrange(len(parts.settings) + 1), Setting(one.key, one.kind, one.value, one.item_type))


def add_setting(parts: Parts, rng: random.Random) -> None:
    kind = rng.choice(PLAIN_KINDS)
    key, value = _own(parts, rng), _odd(rng, kind)
    parts.settings = [one for one in parts.settings if one.key != key or rng.random() < 0.1]
    if rng.random() < 0.3:
        parts.settings.append(
            Setting(key, "arr", [_odd(rng, kind) for _ in range(rng.choice((0, 1, 2, 4, 512, 600)))], kind)
        )
    else:
        parts.settings.append(Setting(key, kind, value))


def set_count(parts: Parts, rng: random.Random) -> None:
    """A setting that is a count has another one, of the type that is due."""
    key = _own(parts, rng)
    parts.settings = [one for one in parts.settings if one.key != key]
    parts.settings.append(Setting(key, "u32", rng.choice(NUMBERS)))


def rename_setting(parts: Parts, rng: random.Random) -> None:
    parts.find(rng).key = rng.choice((_own(parts, rng), rng.choice(TEXTS), b"k" * 65535, b"k" * 65536))


def rename_architecture(parts: Parts, rng: random.Random) -> None:
    """Another architecture, to which the settings may go along."""
    from harness.gguf.model_kinds import KNOWN_ARCHITECTURES

    old, new = parts.architecture.encode(), rng.choice((*_sorted(KNOWN_ARCHITECTURES), "", "x" * 300, "llama."))
    goes_along = rng.random() < 0.7
    for one in parts.settings:
        if one.key == b"general.architecture":
            one.value = new.encode()
        elif goes_along and one.key.startswith(old + b"."):
            one.key = new.encode() + one.key[len(old) :]


@functools.cache
def _sorted(names: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


def align(parts: Parts, rng: random.Random) -> None:
    parts.settings = [one for one in parts.settings if one.key != b"general.alignment"]
    kind = rng.choice(("u32", "u32", "u32", "u64", "i32", "str", "f32"))
    value: Any = rng.choice((0, 1, 2, 3, 7, 8, 32, 64, 4096, 2**20, 2**30, 2**31, 2**32 - 1))
    parts.settings.append(Setting(b"general.alignment", kind, value))


def split(parts: Parts, rng: random.Random) -> None:
    for name in ("no", "count", "tensors.count"):
        if rng.random() < 0.8:
            kind = rng.choice(("u16", "u16", "i32", "u32", "str", "f32", "u64"))
            parts.settings.append(
                Setting(f"split.{name}".encode(), kind, rng.choice((0, 1, 2, 3, 65535, -1, 2**31, len(parts.rows))))
            )


def huge_text(parts: Parts, rng: random.Random) -> None:
    one = parts.find(rng)
    one.kind, one.value = (
        "str",
        rng.choice((b"[", b"{%", b"\xff", "é".encode(), b"\0", b"a ")) * rng.choice((1000, 30000, 400000)),
    )


def shuffle_settings(parts: Parts, rng: random.Random) -> None:
    rng.shuffle(parts.settings)


# --- tensors ----------------------------------------------------------------------------------------------------------


def _row(parts: Parts, rng: random.Random) -> Row:
    if not parts.rows:
        parts.rows.append(Row(b"token_embd.weight", [64, 32], 0))
    return rng.choice(parts.rows)


def reshape(parts: Parts, rng: random.Random) -> None:
    row = _row(parts, rng)
    if rng.random() < 0.5 and row.shape:
        row.shape[rng.randrange(len(row.shape))] = rng.choice((*NUMBERS, 32, 64, 96, 256, 12800))
    else:
        row.shape = [rng.choice((0, 1, 2, 32, 64, 256, 2**16, 2**31, 2**40, 2**63)) for _ in range(rng.randrange(6))]


def retype(parts: Parts, rng: random.Random) -> None:
    rows = parts.rows if rng.random() < 0.3 else [_row(parts, rng)]
    number = rng.choice((*range(44), 139, 255, 2**31, 2**32 - 1))
    for row in rows:
        row.type_id = number


def rename_tensor(parts: Parts, rng: random.Random) -> None:
    row = _row(parts, rng)
    row.name = rng.choice((*(name.encode() for name in TENSOR_NAMES), *TEXTS, _row(parts, rng).name))


def move_tensor(parts: Parts, rng: random.Random) -> None:
    _row(parts, rng).offset = rng.choice((*NUMBERS, 32, 96, 4096))


def drop_tensors(parts: Parts, rng: random.Random) -> None:
    if parts.rows:
        at = rng.randrange(len(parts.rows))
        del parts.rows[at : at + rng.choice((1, 1, 1, 5, 1000))]


def repeat_tensor(parts: Parts, rng: random.Random) -> None:
    row = _row(parts, rng)
    parts.rows.insert(rng.randrange(len(parts.rows) + 1), Row(row.name, list(row.shape), row.type_id))


def add_tensors(parts: Parts, rng: random.Random) -> None:
    """A few more, or as many blocks as a model may have."""
    if rng.random() < 0.8:
        name = rng.choice(TENSOR_NAMES)
        parts.rows.append(
            Row(
                name.encode(),
                [rng.choice((32, 64, 256)) for _ in range(rng.choice((1, 2, 3, 4)))],
                rng.choice(range(31)),
            )
        )
        return
    role = rng.choice(("attn_q.weight", "ffn_down_exps.weight", "ssm_in.weight"))
    have = {row.name for row in parts.rows}
    names = (f"blk.{number}.{role}".encode() for number in itertools.count())
    names = itertools.islice((name for name in names if name not in have), rng.choice((8, 64, 600)))
    parts.rows += [Row(name, [64, 32, 4], 8) for name in names]


def shuffle_tensors(parts: Parts, rng: random.Random) -> None:
    rng.shuffle(parts.rows)


# --- the whole --------------------------------------------------------------------------------------------------------


def count_wrong(parts: Parts, rng: random.Random) -> None:
    true = len(parts.rows), len(parts.settings)
    wrong = [rng.choice((count - 1, count + 1, count, rng.choice(NUMBERS))) for count in true]
    parts.n_rows, parts.n_settings = wrong


def change_version(parts: Parts, rng: random.Random) -> None:
    parts.version = rng.choice((0, 1, 2, 2, 2, 3, 4, 2**16, 2**24, 3 * 2**24, 2**32 - 1))


def turn(parts: Parts, _rng: random.Random) -> None:
    """The other byte order, right down to the values."""
    parts.endian = ">" if parts.endian == "<" else "<"


def cut(parts: Parts, rng: random.Random) -> None:
    """The file ends where a piece does, or some bytes about it."""
    parts.end, parts.beyond = rng.randrange(2**16), rng.choice((0, 0, 0, -1, 1, 4, 8, -8))


def append(parts: Parts, rng: random.Random) -> None:
    parts.tail = rng.randbytes(rng.choice((1, 31, 4096)))


def change_magic(parts: Parts, rng: random.Random) -> None:
    parts.magic = rng.choice((b"GGUf", b"FUGG", b"\0\0\0\0", b"PK\x03\x04", b"lmgg"))


#: Every change; those of settings and tensors that leave a readable file are the most.
CHANGES: tuple[Callable[[Parts, random.Random], None], ...] = (
    change_value, change_value, change_type, make_array, make_array, nest, lie_about_length, unknown_type, drop_setting, drop_setting,
    repeat_setting, add_setting, add_setting, set_count, set_count, rename_setting, rename_architecture, align, split, huge_text,
    shuffle_settings, reshape, reshape, retype, retype, rename_tensor, rename_tensor, move_tensor, drop_tensors, repeat_tensor,
    add_tensors, shuffle_tensors, count_wrong, change_version, turn, cut, cut, append, change_magic,
)  # fmt: skip
