"""The GGUF header: metadata and tensor table, read from any byte source, in bounded memory and time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class ByteSource(Protocol):
    """Random access to bytes that may be a local file, a remote one, or a test's."""

    @property
    def size_bytes(self) -> int | None:
        """Total size, or None where it is not known."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only where the source ends."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One row of the tensor table.

    shape is in GGUF's own order (ne[0], the contiguous dimension, first); type_name is llama.cpp's, in capitals (``Q4_0``);
    offset is in bytes from `Header.data_offset`; size_bytes follows from shape and type.
    """

    name: str
    shape: tuple[int, ...]
    type_id: int
    type_name: str
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says before its weights begin.

    metadata holds scalars and strings as Python values; arrays are `ArrayValue`s that know their length and are read only when asked.
    data_offset is the byte at which tensor data begins; size_bytes the end of the last tensor (what the file must at least have).
    """

    version: int
    byte_order: str
    metadata: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    alignment: int
    data_offset: int

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", "unknown"))

    def hparam(self, key: str, default: Any = None) -> Any:
        """Look up ``<architecture>.<key>``, as llama.cpp does (``block_count``, ``attention.head_count_kv``, …)."""
        return self.metadata.get(f"{self.architecture}.{key}", default)
