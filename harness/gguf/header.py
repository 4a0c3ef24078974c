"""The GGUF header: metadata and tensor table, read from any byte source, in bounded memory and time.

A header is read forwards in few, large pieces: what a piece must at least hold is known from the counts that the header
itself states, so a remote file costs a handful of requests and less than `chunk_bytes` beyond its header. Arrays are
skipped, not decoded. Every limit here exists because a file may lie.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from harness.errors import HarnessError, UsageError
from harness.gguf.cursor import (
    ARRAY,
    BOOL,
    ENDIAN,
    KEPT_ARRAY_BYTES,
    LETTERS,
    SCALARS,
    STRING,
    ByteSource,
    Cursor,
    decode_text,
    describe_damage,
)
from harness.gguf.strangers import MAGIC, describe_stranger
from harness.gguf.types import TENSOR_TYPES, ForeignType, TensorType, extent, foreign_type, pad, tensor_size_bytes
from harness.units import MIB, format_gb

#: Source: ggml/include/gguf.h GGUF_VERSION, GGUF_DEFAULT_ALIGNMENT; ggml/include/ggml.h GGML_MAX_DIMS, GGML_MAX_NAME.
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMS = 4
MAX_TENSOR_NAME_BYTES = 63

#: The key, with the value true, by which a file says that its weights were made up (`harness synth`).
SYNTHETIC_KEY = "harness.synthetic"

#: GGUF's own bound on a key (ggml/docs/gguf.md: at most 2^16 - 1 bytes).
MAX_KEY_BYTES = 2**16 - 1
#: Bounds of ours: twice what the largest models have, or more (1800 tensors, 515,000 merges, 300 kB of texts besides), since llama.cpp
#: itself takes seconds and a gigabyte for what lies far beyond them. MAX_TEXT_BYTES holds of all keys and texts together.
MAX_STRING_BYTES = 4 * MIB
MAX_TEXT_BYTES = 8 * MIB
MAX_KEYS = 2**16
MAX_TENSORS = 2**12
MAX_STRINGS = 2**20
#: The most that `ArrayValue.read` takes into memory unless told otherwise.
MAX_ARRAY_READ_BYTES = 64 * MIB

#: What a key and value, or a row of the tensor table, takes at the very least; how much to read ahead follows from it.
_MIN_KEY_VALUE_BYTES = 8 + 1 + 4 + 1
_MIN_TENSOR_BYTES = 8 + 4 + 4 + 8


@dataclass(frozen=True, slots=True)
class Fetched:
    """What reading a remote header cost: bytes of content, and requests with their redirections."""

    size_bytes: int
    n_requests: int


@dataclass(slots=True)
class BytesSource:
    """Bytes in memory as a source, which counts what was asked of it."""

    data: bytes
    size_known: bool = True
    reads: list[tuple[int, int]] = field(default_factory=list)

    @property
    def size_bytes(self) -> int | None:
        return len(self.data) if self.size_known else None

    def read_at(self, offset: int, size: int) -> bytes:
        piece = self.data[offset : offset + size]
        self.reads.append((offset, len(piece)))
        return piece


@dataclass(frozen=True, slots=True)
class ArrayValue:
    """An array of the metadata: where it lies, and its items only when asked.

    item_type is llama.cpp's name (``str``, ``i32``, …); offset is where the first item begins in the file, size_bytes
    all items together (with their length fields, for strings). data holds the bytes of small arrays.
    """

    item_type: str
    length: int
    offset: int
    size_bytes: int
    byte_order: str = "little"
    data: bytes | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return self.length

    def read(self, source: ByteSource | None = None, *, max_bytes: int = MAX_ARRAY_READ_BYTES) -> list[Any]:
        """Read the items as Python values.

        Parameters
        ----------
        source    : where the header came from; small arrays need none (see `KEPT_ARRAY_BYTES`)
        max_bytes : refuse to take a larger array into memory

        Raises
        ------
        HarnessError : no source was given and the bytes were not kept, the array is larger than max_bytes, the source
            is shorter than the header said, or a bool is neither 0 nor 1.
        """
        data = self.data
        if data is None:
            if self.size_bytes > max_bytes:
                raise HarnessError(
                    f"the array at byte {self.offset} is {format_gb(self.size_bytes)}, above the limit of "
                    f"{format_gb(max_bytes)}; raise max_bytes to read it"
                )
            if source is None:
                raise HarnessError(f"the array at byte {self.offset} was skipped; give the source to read it from")
            data = source.read_at(self.offset, self.size_bytes)
        if len(data) < self.size_bytes:
            raise UsageError(
                f"the array at byte {self.offset} ends after {len(data)} of {self.size_bytes} bytes; "
                "download the file again"
            )
        return self._decode_strings(data) if self.item_type == "str" else self._decode_scalars(data)

    def _decode_scalars(self, data: bytes) -> list[Any]:
        values = list(struct.unpack_from(f"{ENDIAN[self.byte_order]}{self.length}{LETTERS[self.item_type]}", data))
        for index, value in enumerate(values if self.item_type == "bool" else ()):
            if value > 1:
                raise UsageError(describe_damage("the array", self.offset + index, f"a bool is {value}, not 0 or 1"))
        return list(map(bool, values)) if self.item_type == "bool" else values

    def _decode_strings(self, data: bytes) -> list[str]:
        length_of = struct.Struct(ENDIAN[self.byte_order] + "Q").unpack_from
        items, at = [], 0
        for _ in range(self.length):
            # The source may have changed since its header was read, so the lengths are not trusted a second time.
            size = length_of(data, at)[0] if at + 8 <= len(data) else len(data)
            if at + 8 + size > len(data):
                raise UsageError(describe_damage("the array", self.offset + at, "a string reaches beyond its array"))
            items.append(decode_text(data[at + 8 : at + 8 + size]))
            at += 8 + size
        return items


@dataclass(frozen=True, slots=True)
class Tensor:
    """One row of the tensor table.

    shape is in GGUF's own order (ne[0], the contiguous dimension, first); type_name is llama.cpp's, in capitals
    (``Q4_0``); offset is in bytes from `Header.data_offset`; size_bytes follows from shape and type, and is the room up to
    the next tensor (or the file's end) where this llama.cpp does not read the type. part is the file of a split model that
    holds the tensor (0 where there is one file); the offset counts from that part's data_offset.
    """

    name: str
    shape: tuple[int, ...]
    type_id: int
    type_name: str
    offset: int
    size_bytes: int
    part: int = 0

    @property
    def n_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def foreign(self) -> ForeignType | None:
        """Whose the tensor's type is where this llama.cpp does not read it."""
        return foreign_type(self.type_id)


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a split model: where its tensor data begins, the bytes that it must at least have, and where its table ends."""

    name: str
    data_offset: int
    size_bytes: int
    table_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says before its weights begin.

    metadata holds scalars and strings as Python values; arrays are `ArrayValue`s that know their length and are read
    only when asked. metadata_types names each value's type as llama.cpp does (``u32``, ``str``, ``arr``).
    data_offset is the byte at which tensor data begins, and table_bytes the end of the tensor table, from which padding leads there
    (0 where no file was read): an alignment may make that gigabytes. parts is empty unless headers of a split model were joined;
    then metadata, data_offset and the offsets of arrays are the first part's.
    """

    version: int
    byte_order: str
    metadata: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    alignment: int
    data_offset: int
    metadata_types: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    table_bytes: int = 0

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", "unknown"))

    @property
    def is_synthetic(self) -> bool:
        return self.metadata.get(SYNTHETIC_KEY) is True

    @property
    def size_bytes(self) -> int:
        """The end of the last tensor: what the file, or all parts together, must at least have."""
        if self.parts:
            return sum(part.size_bytes for part in self.parts)
        return self.data_offset + max((tensor.offset + tensor.size_bytes for tensor in self.tensors), default=0)

    def find_tensor(self, name: str) -> Tensor | None:
        return next((tensor for tensor in self.tensors if tensor.name == name), None)

    def hparam(self, key: str, default: Any = None) -> Any:
        """Look up ``<architecture>.<key>``, as llama.cpp does (``block_count``, ``attention.head_count_kv``, …)."""
        return self.metadata.get(f"{self.architecture}.{key}", default)


def read_header(source: ByteSource, *, name: str = "the file", chunk_bytes: int = MIB) -> Header:
    """Read one file's header, by a few forward reads, without its arrays' items.

    Parameters
    ----------
    name        : what errors call the source
    chunk_bytes : how far a read may go beyond what the header needs by its own counts; all reads together fetch at most
                  the header and this (llama3's 8 MB take four reads at 1 MiB)

    Raises
    ------
    UsageError : it is not a GGUF file, or llama.cpp would refuse it, or it passes a limit of this module; the message
        names the byte. Whether the tensor data is there is `check_complete`'s question.

    Source: ggml/src/gguf.cpp gguf_init_from_reader. Stricter here: bools other than 0 and 1 are refused. Wider here:
    big-endian files are read on any machine, and types of other programs are noted, though only they can read them.
    """
    cursor = Cursor(source, name, chunk_bytes)
    version, byte_order = _read_preamble(cursor)
    tensor_count = cursor.read_count("tensors", MAX_TENSORS, _MIN_TENSOR_BYTES)
    key_count = cursor.read_count("keys", MAX_KEYS, _MIN_KEY_VALUE_BYTES)
    metadata, types = _read_metadata(cursor, key_count, tensor_count * _MIN_TENSOR_BYTES)
    alignment = _find_alignment(cursor, metadata, types)
    tensors = _read_tensors(cursor, tensor_count, alignment)
    cursor.confirm()
    data_offset = pad(cursor.at, alignment) if tensors else cursor.at
    if tensors and tensors[-1].foreign and source.size_bytes is not None:  # it has what is left of the file
        left_bytes = max(source.size_bytes - data_offset - tensors[-1].offset, 0)
        tensors = (*tensors[:-1], replace(tensors[-1], size_bytes=left_bytes))
    return Header(
        version=version,
        byte_order=byte_order,
        metadata=MappingProxyType(metadata),
        tensors=tensors,
        alignment=alignment,
        data_offset=data_offset,
        metadata_types=MappingProxyType(types),
        table_bytes=cursor.at,
    )


def check_complete(header: Header, file_size_bytes: int, name: str = "the file") -> None:
    """Refuse a file that is shorter than its own header says.

    Raises
    ------
    UsageError : bytes of the last tensors are missing.
    """
    missing = header.size_bytes - file_size_bytes
    if missing > 0:
        raise UsageError(
            f"{name} is cut off: its header describes {header.size_bytes} bytes and it has {file_size_bytes} "
            f"({format_gb(missing)} missing); download it again"
        )


def _read_preamble(cursor: Cursor) -> tuple[int, str]:
    """Check magic and version; the version's own bytes tell the byte order, as in gguf_init_from_reader."""
    opening = cursor.take(4, "the magic number")
    if opening != MAGIC:
        raise UsageError(describe_stranger(cursor.name, cursor.take_opening(64)))
    version = cursor.take_number(4, "the version")
    byte_order = "little"
    if version & 0xFFFF == 0 and version:
        byte_order = "big"
        version = int.from_bytes(version.to_bytes(4, "little"), "big")
        cursor.use_byte_order("big")
    if version not in VERSIONS:
        cursor.fail(4, f"the version is {version}, and llama.cpp reads {VERSIONS[0]} and {VERSIONS[-1]}")
    return version, byte_order


def _read_metadata(cursor: Cursor, count: int, table_bytes: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Read the key-value pairs, in the file's order; table_bytes is what the tensor table takes at least."""
    metadata: dict[str, Any] = {}
    types: dict[str, str] = {}
    text_bytes = 0
    for index in range(count):
        cursor.ahead_bytes = (count - index - 1) * _MIN_KEY_VALUE_BYTES + table_bytes
        start = cursor.at
        key = cursor.take_name(MAX_KEY_BYTES, f"key {index}")
        if not key:
            cursor.fail(start, f"key {index} is empty")
        if key in metadata:
            cursor.fail(start, f"key {key!r} is there twice")
        type_at = cursor.at
        type_number = cursor.take_number(4, f"the type of {key!r}")
        if type_number == ARRAY:
            metadata[key], types[key] = _read_array(cursor, key), "arr"
        elif type_number == STRING:
            metadata[key], types[key] = cursor.take_text(MAX_STRING_BYTES, f"the value of {key!r}"), "str"
        elif type_number in SCALARS:
            metadata[key], types[key] = _read_scalar(cursor, type_number, key), SCALARS[type_number][0]
        else:
            cursor.fail(type_at, f"{key!r} has value type {type_number}, which does not exist")
        text_bytes += (cursor.at if types[key] == "str" else type_at) - start
        if text_bytes > MAX_TEXT_BYTES:
            cursor.fail(start, f"keys and texts take {text_bytes} bytes by now, above the limit of {MAX_TEXT_BYTES}")
    return metadata, types


def _read_scalar(cursor: Cursor, type_number: int, key: str) -> Any:
    start = cursor.at
    value = cursor.take_number(type_number, f"the value of {key!r}")
    if type_number != BOOL:
        return value
    if value > 1:
        cursor.fail(start, f"{key!r} is a bool of {value}, not 0 or 1")
    return bool(value)


def _read_array(cursor: Cursor, key: str) -> ArrayValue:
    """Note an array and go past it."""
    type_at = cursor.at
    type_number = cursor.take_number(4, f"the item type of {key!r}")
    length = cursor.take_number(10, f"the length of {key!r}")
    start = cursor.at
    what = f"{key!r} with {length} items"
    cursor.hold()
    if type_number == STRING:
        item_type = "str"
        cursor.skip_strings(length, what)
        if length > MAX_STRINGS:
            cursor.fail(start - 8, f"{key!r} has {length} texts, above the limit of {MAX_STRINGS}")
    elif type_number in SCALARS:
        item_type, letter = SCALARS[type_number]
        size = length * struct.calcsize("<" + letter)
        if size <= KEPT_ARRAY_BYTES:
            cursor.require(size, what)
        cursor.skip(size, what)
    elif type_number == ARRAY:
        cursor.fail(type_at, f"{key!r} is an array of arrays, which llama.cpp does not read")
    else:
        cursor.fail(type_at, f"{key!r} has item type {type_number}, which does not exist")
    return ArrayValue(item_type, length, start, cursor.at - start, cursor.byte_order, cursor.release())


def _find_alignment(cursor: Cursor, metadata: Mapping[str, Any], types: Mapping[str, str]) -> int:
    key = "general.alignment"
    if key not in metadata:
        return DEFAULT_ALIGNMENT
    alignment = metadata[key]
    if types[key] != "u32":
        cursor.fail(cursor.at, f"{key!r} is of type {types[key]}, not u32")
    if alignment == 0 or alignment & (alignment - 1):
        cursor.fail(cursor.at, f"{key!r} is {alignment}, not a power of two")
    return int(alignment)


def _read_tensors(cursor: Cursor, count: int, alignment: int) -> tuple[Tensor, ...]:
    """Read the tensor table; in the data, tensors follow each other with no gap but padding, as llama.cpp demands."""
    tensors: list[Tensor] = []
    names: set[str] = set()
    expected_offset = 0
    for index in range(count):
        cursor.ahead_bytes = (count - index - 1) * _MIN_TENSOR_BYTES
        start = cursor.at
        name = cursor.take_name(MAX_TENSOR_NAME_BYTES, f"the name of tensor {index}")
        if name in names:
            cursor.fail(start, f"tensor {name!r} is there twice")
        names.add(name)
        tensor = _read_tensor(cursor, name)
        if tensors and tensors[-1].foreign and tensor.offset >= expected_offset and tensor.offset % alignment == 0:
            tensors[-1] = replace(tensors[-1], size_bytes=tensor.offset - expected_offset)
            expected_offset = tensor.offset
        if tensor.offset != expected_offset:
            cursor.fail(cursor.at - 8, f"tensor {name!r} is at offset {tensor.offset} where {expected_offset} is due")
        expected_offset += pad(tensor.size_bytes, alignment)
        if expected_offset >= 2**63:
            cursor.fail(cursor.at - 8, f"tensor {name!r} makes the data larger than 2^63 bytes")
        tensors.append(tensor)
    return tuple(tensors)


def _read_tensor(cursor: Cursor, name: str) -> Tensor:
    start = cursor.at
    n_dims = cursor.take_number(4, f"the number of dimensions of {name!r}")
    if n_dims > MAX_DIMS:
        cursor.fail(start, f"tensor {name!r} has {n_dims} dimensions, more than {MAX_DIMS}")
    shape = tuple(cursor.take_number(10, f"the shape of {name!r}") for _ in range(n_dims))
    if math.prod(shape) >= 2**63 or any(size >= 2**63 for size in shape):
        cursor.fail(start, f"tensor {name!r} has the shape {shape}, which no tensor can have")
    type_at = cursor.at
    type_id = cursor.take_number(4, f"the type of {name!r}")
    kind = TENSOR_TYPES.get(type_id) or foreign_type(type_id)
    if kind is None:
        cursor.fail(type_at, f"tensor {name!r} has type {type_id}, which does not exist")
    size_bytes = 0
    if isinstance(kind, TensorType):
        if (row := extent(shape, 0)) % kind.block_elements:
            multiple = f"{kind.name}'s {kind.block_elements}"
            cursor.fail(start, f"tensor {name!r} has rows of {row}, not a multiple of {multiple}")
        size_bytes = tensor_size_bytes(shape, type_id)
    return Tensor(name, shape, type_id, kind.name, cursor.take_number(10, f"the offset of {name!r}"), size_bytes)
