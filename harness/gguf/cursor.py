"""A position in a source of bytes, which reads forwards in few, large pieces. Every limit here exists because a file may lie."""

from __future__ import annotations

import struct
from collections.abc import Callable
from operator import length_hint
from typing import Any, NoReturn, Protocol

from harness.errors import UsageError
from harness.units import MIB

#: More than twice the largest header known to exist (about 25 MB).
MAX_HEADER_BYTES = 64 * MIB
#: The most that one read asks for beyond what the next item needs: keeps memory flat whatever the header promises.
MAX_AHEAD_BYTES = 8 * MIB
#: Arrays up to this size (per-layer settings, languages) keep their bytes, so that they need no source later.
KEPT_ARRAY_BYTES = 16 * 1024

STRING, ARRAY, BOOL = 8, 9, 7
#: Value types by number: name as llama.cpp prints it, and struct's letter. Source: ggml/src/gguf.cpp GGUF_TYPE_NAME.
SCALARS: dict[int, tuple[str, str]] = {
    0: ("u8", "B"), 1: ("i8", "b"), 2: ("u16", "H"), 3: ("i16", "h"), 4: ("u32", "I"), 5: ("i32", "i"),
    6: ("f32", "f"), BOOL: ("bool", "B"), 10: ("u64", "Q"), 11: ("i64", "q"), 12: ("f64", "d"),
}  # fmt: skip
LETTERS = dict(SCALARS.values())
ENDIAN = {"little": "<", "big": ">"}


class ByteSource(Protocol):
    """Random access to bytes that may be a local file, a remote one, or a test's."""

    @property
    def size_bytes(self) -> int | None:
        """Total size, or None where it is not known (a remote file may know it only after its first answer)."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only where the source ends."""


def describe_damage(name: str, offset: int, problem: str) -> str:
    """Say where a file cannot be read, and why."""
    return f"{name} is not a readable GGUF file: at byte {offset}, {problem}; download it again, or ask who made it"


def decode_text(data: bytes, errors: str = "replace") -> str:
    """Text as llama.cpp takes it, which asks for no encoding: what is not UTF-8 gets a replacement character."""
    return data.decode("utf-8", errors)


class Cursor:
    """A position in a source, with the bytes around it in memory and a plan for the next read.

    `ahead_bytes` is what the header must at least hold beyond the item at hand; reads take it along, and `chunk_bytes`.
    """

    def __init__(self, source: ByteSource, name: str, chunk_bytes: int) -> None:
        self._source = source
        self.name = name
        self._chunk_bytes = max(chunk_bytes, 1)
        self._buffer = b""
        self._base = 0
        self._learn_size()
        self._held_from: int | None = None
        self.at = 0
        self.ahead_bytes = 0
        self.use_byte_order("little")

    def _learn_size(self) -> None:
        size_bytes = self._source.size_bytes
        self._size_known = size_bytes is not None
        self._end = MAX_HEADER_BYTES if size_bytes is None else min(size_bytes, MAX_HEADER_BYTES)
        self._end_is_limit = size_bytes is None or size_bytes > MAX_HEADER_BYTES

    def use_byte_order(self, byte_order: str) -> None:
        self.byte_order = byte_order
        endian = ENDIAN[byte_order]
        self._structs = {number: struct.Struct(endian + letter) for number, (_, letter) in SCALARS.items()}
        self.unpack_length = self._structs[10].unpack_from

    def fail(self, offset: int, problem: str) -> NoReturn:
        raise UsageError(describe_damage(self.name, offset, problem))

    def require(self, size: int, what: str) -> None:
        """Have the next `size` bytes in memory; `what` names them, should they not exist."""
        stop = self.at + size
        if stop > self._end:
            self._fail_beyond(self.at, size, what)
        if stop > self._base + len(self._buffer):
            self._fetch(size, what)

    def _fetch(self, size: int, what: str) -> None:
        held = self._held_from
        first = self.at if held is None or self.at - held > KEPT_ARRAY_BYTES else held
        kept = self._buffer[first - self._base :]
        start = max(self.at, first + len(kept))
        if start > first + len(kept):  # an array was passed without being read, so nothing before it adjoins
            first, kept = start, b""
        stop = min(self.at + size + min(self.ahead_bytes, MAX_AHEAD_BYTES) + self._chunk_bytes, self._end)
        piece = bytes(self._source.read_at(start, stop - start))[: stop - start]
        self._buffer = kept + piece
        self._base = first
        if not self._size_known:
            self._learn_size()
        if len(self._buffer) < self.at - first + size:
            # The source ends here, whatever its size was said to be.
            self._end, self._end_is_limit = start + len(piece), False
            self._fail_beyond(self.at, size, what)

    def _fail_beyond(self, offset: int, size: int, what: str) -> NoReturn:
        bound = "the most that a header may take" if self._end_is_limit else "where the file ends"
        self.fail(offset, f"{what} takes {size} bytes and would pass byte {self._end}, {bound}")

    def take(self, size: int, what: str) -> bytes:
        self.require(size, what)
        start = self.at - self._base
        self.at += size
        return self._buffer[start : start + size]

    def take_number(self, type_number: int, what: str) -> Any:
        layout = self._structs[type_number]
        self.require(layout.size, what)
        value = layout.unpack_from(self._buffer, self.at - self._base)[0]
        self.at += layout.size
        return value

    def take_text(self, limit_bytes: int, what: str, errors: str = "replace") -> str:
        start = self.at
        size = self.take_number(10, f"the length of {what}")
        if size > limit_bytes:
            self.fail(start, f"the length of {what} is {size}, above the limit of {limit_bytes}")
        return decode_text(self.take(size, what), errors)

    def take_name(self, limit_bytes: int, what: str) -> str:
        """Take a text that must stay apart from others like it, whatever its bytes are."""
        return self.take_text(limit_bytes, what, "backslashreplace")

    def read_count(self, what: str, limit: int, item_bytes: int) -> int:
        """Read how many keys or tensors follow; a number that cannot be true is refused before anything is made."""
        start = self.at
        count: int = self.take_number(10, f"the number of {what}")
        if count > limit:
            self.fail(start, f"the number of {what} is {count}, above the limit of {limit}")
        self.check_room(start, count * item_bytes, f"{count} {what}")
        self.ahead_bytes += count * item_bytes
        return count

    def check_room(self, offset: int, size: int, what: str) -> None:
        if self.at + size > self._end:
            self._fail_beyond(offset, size, what)

    def skip(self, size: int, what: str) -> None:
        self.check_room(self.at, size, what)
        self.at += size

    def hold(self) -> None:
        """Keep what is read from here on in memory, up to `KEPT_ARRAY_BYTES`, so that `release` can return it."""
        self._held_from = self.at

    def release(self) -> bytes | None:
        """Return the bytes since `hold`, or None where they were too many."""
        first = -1 if self._held_from is None else self._held_from - self._base
        size = 0 if self._held_from is None else self.at - self._held_from
        self._held_from = None
        if size > KEPT_ARRAY_BYTES or not 0 <= first <= len(self._buffer) - size:
            return None
        return self._buffer[first : first + size]

    def confirm(self) -> None:
        """Make sure that what was skipped last exists, in a source whose size is not known."""
        if self.at > self._base + len(self._buffer):
            self.at -= 1
            self.take(1, "the last array")

    def take_opening(self, size: int) -> bytes:
        """Return the file's first bytes, as far as the first read brought them."""
        return self._buffer[:size] if self._base == 0 else b""

    def skip_strings(self, count: int, what: str) -> None:
        """Go past `count` strings by their lengths alone; no object is kept per string."""
        self.check_room(self.at, 8 * count, what)
        beyond, total, start = self.ahead_bytes, count, self.at
        while count:
            self.ahead_bytes = beyond + (count - 1) * _expect_string_bytes(total - count, self.at - start)
            self.require(8, what)
            passed, last, position = _walk_strings(self._buffer, self.at - self._base, count, self.unpack_length)
            count -= passed
            last_at, self.at = self._base + last, self._base + position
            if self.at > self._end:
                self._fail_beyond(last_at, self.at - last_at, f"a string of {what}")
        self.ahead_bytes = beyond


def _expect_string_bytes(n_passed: int, size_bytes: int) -> int:
    """Estimate from below what one more string takes, by those passed: its length field and half of their mean text.

    Vocabularies and merges are sorted by rank, so later strings are longer; half is far on the safe side, and a file
    that is otherwise only makes a read too long, by no more than `MAX_AHEAD_BYTES`.
    """
    return 8 + (size_bytes // n_passed - 8) // 2 if n_passed >= 1000 else 8


def _walk_strings(
    buffer: bytes, position: int, count: int, unpack: Callable[[bytes, int], tuple[Any, ...]]
) -> tuple[int, int, int]:
    """Follow up to `count` length fields; return how many, where the last one was, and where the next one is.

    The hot loop of the module: half a million strings in a large vocabulary. struct refuses an offset outside the
    buffer, which is the loop's end condition; nothing is checked twice.
    """
    last = position
    remaining = iter(range(count))
    try:
        for _ in remaining:
            following = position + 8 + unpack(buffer, position)[0]
            last, position = position, following
    except (struct.error, OverflowError):
        return count - length_hint(remaining) - 1, last, position
    return count, last, position
