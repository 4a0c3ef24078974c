"""What the operating system says of this process's memory: totals everywhere, single mappings and pages where there is /proc.

Nothing here imports anything large, so that a process can be read before it has loaded what is to be measured.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.memory.resident import MapShare, MemoryReading


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """One mapping of this address space and what of it is in memory, in bytes. path is empty for memory of no file."""

    start: int
    stop: int
    path: str
    rss_bytes: int
    pss_bytes: int
    private_bytes: int
    anonymous_bytes: int
    swap_bytes: int = 0


def read_memory(step: str, maps: Sequence[MemoryMap] | None) -> MemoryReading:
    """Sum up this process's memory; what the OS does not tell is None.

    Parameters
    ----------
    maps : from `read_maps` a moment ago

    Source: proc(5), /proc/pid/smaps; psutil memory_full_info.
    """
    if maps is None:
        return _read_by_psutil(step)
    rss = sum(item.rss_bytes for item in maps)
    anonymous = sum(item.anonymous_bytes for item in maps)
    return MemoryReading(
        step=step,
        rss_bytes=rss,
        pss_bytes=sum(item.pss_bytes for item in maps),
        uss_bytes=sum(item.private_bytes for item in maps),
        swap_bytes=sum(item.swap_bytes for item in maps),
        anonymous_bytes=anonymous,
        file_bytes=rss - anonymous,
        maps=_group(maps),
    )


def _group(maps: Sequence[MemoryMap]) -> tuple[MapShare, ...]:
    sizes: dict[str, tuple[int, int]] = {}
    for item in maps:
        rss, anonymous = sizes.get(item.path, (0, 0))
        sizes[item.path] = (rss + item.rss_bytes, anonymous + item.anonymous_bytes)
    return tuple(MapShare(path, *both) for path, both in sizes.items())


def _read_by_psutil(step: str) -> MemoryReading:
    import psutil

    process = psutil.Process()
    info: Any
    try:
        info = process.memory_full_info()
    except (psutil.Error, OSError):  # macOS asks for rights that not everybody has
        info = process.memory_info()
    return MemoryReading(
        step=step,
        rss_bytes=info.rss,
        pss_bytes=getattr(info, "pss", None),
        uss_bytes=getattr(info, "uss", None),
        swap_bytes=getattr(info, "swap", None),
    )


def read_maps() -> tuple[MemoryMap, ...] | None:
    """Read every mapping of this process that has something in memory; None where there is no /proc."""
    if sys.platform != "linux":
        return None
    try:
        # As bytes and in one piece: the reading should not change what is read.
        with open("/proc/self/smaps", "rb", buffering=0) as file:
            text = b"".join(iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return None
    return tuple(item for item in _parse_maps(text) if item.rss_bytes or item.swap_bytes)


def _parse_maps(text: bytes) -> Iterator[MemoryMap]:
    head: list[bytes] | None = None
    sizes: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(b":")
        if b"-" in name.split(b" ", 1)[0]:  # an address range: the next mapping
            if head is not None:
                yield _make_map(head, sizes)
            head, sizes = line.split(None, 5), {}
        elif rest.endswith(b" kB"):
            sizes[name.decode()] = int(rest[:-3]) * 1024
    if head is not None:
        yield _make_map(head, sizes)


def _make_map(head: list[bytes], sizes: dict[str, int]) -> MemoryMap:
    start, _, stop = head[0].partition(b"-")
    return MemoryMap(
        start=int(start, 16),
        stop=int(stop, 16),
        path=head[5].decode("utf-8", "replace") if len(head) > 5 else "",
        rss_bytes=sizes.get("Rss", 0),
        pss_bytes=sizes.get("Pss", 0),
        private_bytes=sizes.get("Private_Clean", 0) + sizes.get("Private_Dirty", 0),
        anonymous_bytes=sizes.get("Anonymous", 0),
        swap_bytes=sizes.get("Swap", 0),
    )


#: Marks each possible last byte of a pagemap entry: 1 where bit 63, "page present", is set. Source: proc(5), /proc/pid/pagemap.
_PRESENT = bytes(byte >> 7 for byte in range(256))
_ENTRY_BYTES = 8
_PAGES_AT_ONCE = 1 << 17


def resident_pages(first: int, count: int) -> bytes | None:
    """Say of `count` pages from page number `first` which are in memory: a byte of 1 or 0 each; None where the OS does not tell."""
    found = []
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as file:
            for at in range(first, first + count, _PAGES_AT_ONCE):
                size = min(_PAGES_AT_ONCE, first + count - at)
                entries = os.pread(file.fileno(), size * _ENTRY_BYTES, at * _ENTRY_BYTES)
                found.append(entries[_ENTRY_BYTES - 1 :: _ENTRY_BYTES].translate(_PRESENT))
    except (OSError, AttributeError):
        return None
    pages = b"".join(found)
    return pages if len(pages) == count else None


def count_resident_bytes(start: int, size_bytes: int) -> int | None:
    """Count the bytes of an address range that are in memory; None where the OS does not tell.

    Pages at the range's ends that it shares with its neighbours count with the part that is in the range.
    """
    page = mmap.PAGESIZE
    first, last = start // page, -(-(start + size_bytes) // page)
    pages = resident_pages(first, last - first)
    if pages is None or not size_bytes:
        return None if pages is None else 0
    resident = pages.count(1) * page
    resident -= (start - first * page) * pages[0]
    return resident - (last * page - start - size_bytes) * pages[-1]
