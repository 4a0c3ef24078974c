"""What the allocators of this process hold: the C library's malloc, and Python's own."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import struct
import sys
import tempfile
from collections.abc import Iterator, Sequence

from harness.host.process_memory import MemoryMap, count_resident_bytes, resident_pages

#: Bytes of a chunk's header, where they may begin in its first page (posix_memalign aligns what follows to 64), and the bit that
#: marks a chunk with a mapping of its own. Source: glibc malloc/malloc.c, struct malloc_chunk, IS_MMAPPED, _int_memalign.
_HEADER = struct.Struct("=QQ")
_OFFSETS = (0, 16, 32, 48)
_IS_MMAPPED, _FLAGS = 0x2, 0x7
#: A chunk of a buffer is larger than the buffer by its header, alignment and the rest of a page, and the log rounds to 0.01 MiB.
_SLACK_BYTES = 2 * mmap.PAGESIZE + 5243


def heap_bytes(maps: Sequence[MemoryMap], buffers: Sequence[int]) -> int:
    """Resident bytes of malloc without llama.cpp's buffers: the heap, and blocks with mappings of their own by their headers.

    Parameters
    ----------
    buffers : sizes of the buffers that llama.cpp had from malloc, in bytes to the 0.01 MiB of its log

    Where the C library is not glibc, only what the kernel calls the heap is found.
    """
    total = sum(item.rss_bytes for item in maps if item.path == "[heap]")
    wanted = sorted(buffers)
    for start, size in (chunk for item in maps if not item.path for chunk in find_blocks(item)):
        match = next((held for held in wanted if 0 <= size - held + 5243 <= _SLACK_BYTES + 5243), None)
        if match is None:
            total += count_resident_bytes(start, size) or 0
        else:
            wanted.remove(match)
    # What has no block of its own is too small for one and lies in the heap, or in another arena's, whose pages are not told apart.
    return max(total - sum(wanted), 0)


def find_blocks(item: MemoryMap) -> Iterator[tuple[int, int]]:
    """Find the blocks of malloc in a mapping that is of no file, as (address, bytes).

    A page that is not in memory has no header and is not looked at, so that looking changes nothing.
    """
    page = mmap.PAGESIZE
    present = resident_pages(item.start // page, (item.stop - item.start) // page) or b""
    index = present.find(1)
    while index >= 0:
        at = item.start + index * page
        size = _block_at(at, item.stop)
        if size:
            yield at, size
        index = present.find(1, index + (size // page or 1))


def _block_at(start: int, stop: int) -> int:
    """The size of the block that begins on this page, or 0."""
    page = ctypes.string_at(start, _OFFSETS[-1] + _HEADER.size)
    for offset in _OFFSETS:
        before, head = _HEADER.unpack_from(page, offset)
        size = (head & ~_FLAGS) + offset
        if (
            before == offset
            and head & _FLAGS == _IS_MMAPPED
            and size
            and not size % mmap.PAGESIZE
            and start + size <= stop
        ):
            return size
    return 0


_ARENAS = re.compile(rb"(\d+) arenas \* (\d+) bytes/arena")


def python_bytes() -> int | None:
    """Bytes that Python's allocator of small objects has from the OS; None where it does not say.

    Source: sys._debugmallocstats, which prints to the C library's stderr.
    """
    show = getattr(sys, "_debugmallocstats", None)
    if show is None:
        return None
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        try:
            os.dup2(file.fileno(), 2)
            show()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        match = _ARENAS.search(file.read())
    return int(match[1]) * int(match[2]) if match else None
