"""Readings of this very process, with memory of a known size planted in it."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys

import psutil  # before any test says that this is another OS
import pytest

from harness.host import process_memory
from harness.host.process_memory import count_resident_bytes, read_maps, read_memory
from harness.native import allocators
from harness.native.jobs.memory_steps import take_reading

PAGE = mmap.PAGESIZE
MIB = 2**20

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc (Linux)")

SMAPS = b"""\
55e000-55f000 r-xp 00001000 08:01 77   /usr/bin/some program
Size:                  4 kB
Rss:                   4 kB
Pss:                   1 kB
Shared_Clean:          4 kB
Private_Clean:         0 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me
7f0000-7f8000 rw-p 00000000 00:00 0
Size:                 32 kB
Rss:                  12 kB
Pss:                  12 kB
Private_Dirty:        12 kB
Anonymous:            12 kB
Swap:                  8 kB
8f0000-8f8000 rw-p 00000000 00:00 0
Rss:                   0 kB
"""


def plant(size: int, touched: int) -> tuple[mmap.mmap, int]:
    """Map memory of no file and write to its first pages; return it and its address."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, touched, PAGE):
        memory[at] = 1
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))


def test_smaps_is_read_mapping_by_mapping():
    program, anonymous, _ = process_memory._parse_maps(SMAPS)
    assert (program.path, program.rss_bytes, program.pss_bytes, program.private_bytes) == (
        "/usr/bin/some program",
        4096,
        1024,
        0,
    )
    assert (anonymous.start, anonymous.stop, anonymous.path) == (0x7F0000, 0x7F8000, "")
    assert (anonymous.rss_bytes, anonymous.anonymous_bytes, anonymous.swap_bytes) == (12288, 12288, 8192)


def test_a_reading_adds_up_and_groups_by_name():
    reading = read_memory("here", tuple(process_memory._parse_maps(SMAPS)))
    assert (reading.rss_bytes, reading.uss_bytes, reading.pss_bytes, reading.swap_bytes) == (16384, 12288, 13312, 8192)
    assert (reading.file_bytes, reading.anonymous_bytes) == (4096, 12288)
    assert {item.path: item.rss_bytes for item in reading.maps} == {"/usr/bin/some program": 4096, "": 12288}


def test_where_there_is_no_proc_the_totals_stand(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert read_maps() is None
    reading = take_reading("here")
    assert reading.rss_bytes > 0
    assert reading.maps == ()
    assert reading.heap_bytes is None


def test_where_psutil_may_not_look_closer_the_rest_stands(monkeypatch):
    def refuse(_self):
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "memory_full_info", refuse)
    reading = read_memory("here", None)
    assert reading.rss_bytes > 0
    assert (reading.pss_bytes, reading.uss_bytes) == (None, None)


@linux
def test_resident_pages_are_counted_to_the_byte():
    memory, start = plant(64 * PAGE, 10 * PAGE)
    assert count_resident_bytes(start, 64 * PAGE) == 10 * PAGE
    assert count_resident_bytes(start + 9 * PAGE, 4 * PAGE) == PAGE
    assert count_resident_bytes(start + 100, 200) == 200  # a part of a page
    assert count_resident_bytes(start + PAGE // 2, 10 * PAGE) == 10 * PAGE - PAGE // 2
    assert count_resident_bytes(start + 20 * PAGE + 5, 100) == 0
    del memory


@linux
def test_large_ranges_are_counted_in_pieces(monkeypatch):
    monkeypatch.setattr(process_memory, "_PAGES_AT_ONCE", 3)
    memory, start = plant(64 * PAGE, 10 * PAGE)
    assert count_resident_bytes(start, 64 * PAGE) == 10 * PAGE
    assert count_resident_bytes(start + 1, 64 * PAGE - 2) == 10 * PAGE - 1
    del memory


def test_without_a_pagemap_nothing_is_claimed(monkeypatch):
    def refuse(*_arguments, **_options):
        raise PermissionError

    monkeypatch.setattr("builtins.open", refuse)
    assert count_resident_bytes(0x1000, PAGE) is None


@linux
def test_blocks_of_malloc_are_found_and_other_memory_is_not():
    """64 MiB have a mapping of their own (glibc's threshold ends at 32); half of them are touched."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    libc.free.argtypes = (ctypes.c_void_p,)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("needs glibc")
    before = allocators.heap_bytes(read_maps(), [])
    block = libc.malloc(64 * MIB)
    ctypes.memset(block, 1, 32 * MIB)
    memory, start = plant(48 * MIB, 48 * MIB)
    maps = read_maps()
    grown = allocators.heap_bytes(maps, []) - before
    assert abs(grown - 32 * MIB) < MIB
    # A block that holds a buffer of llama.cpp is not heap: its size tells which.
    as_buffer = allocators.heap_bytes(maps, [64 * MIB]) - before
    assert abs(as_buffer) < MIB
    found = [
        size for item in maps if not item.path for at, size in allocators.find_blocks(item) if at <= block < at + size
    ]
    assert [64 * MIB <= size <= 64 * MIB + 2 * PAGE for size in found] == [True]
    assert not any(
        at <= start < at + size for item in maps if not item.path for at, size in allocators.find_blocks(item)
    )
    libc.free(block)
    del memory


@pytest.mark.skipif(not hasattr(sys, "_debugmallocstats"), reason="needs CPython")
def test_python_says_what_its_objects_take():
    """In a process of its own: this one may have free arenas from other tests, which a hoard fills first."""
    code = """
from harness.native import allocators
before = allocators.python_bytes()
hoard = [(index, index + 1) for index in range(200_000)]  # 56 bytes each, and the numbers
print(allocators.python_bytes() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert 10 * MIB < int(done.stdout) < 40 * MIB
    assert done.stderr == ""
