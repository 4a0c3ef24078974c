"""Resident memory explained: every line by an independent fact, the rest by none."""

from __future__ import annotations

import dataclasses

import pytest

from harness.memory.forecast import COMPUTE, COPIED, HOST, KV, MAPPED, OUTPUT, RECURRENT, REPACKED
from harness.memory.resident import (
    DRIVERS,
    LIBRARIES,
    LLAMA_LIBRARIES,
    PYTHON_HEAP,
    TABLES,
    UNREAD,
    UNTOUCHED,
    WORK,
    MapShare,
    MemoryReading,
    NativeBuffer,
    account_growth,
    cause_of_log,
    device_of_buffer,
    group_of,
)

MODEL = "/models/m.gguf"


def reading(step, *, anonymous, heap, python, files):
    maps = tuple(MapShare(path, size, 0) for path, size in files.items())
    rss = anonymous + sum(files.values())
    return MemoryReading(
        step, rss, heap_bytes=heap, python_bytes=python, maps=(*maps, MapShare("", anonymous, anonymous))
    )


#: Bytes of a small made-up process: 1000 of it are nobody's.
READINGS = (
    reading("interpreter", anonymous=5_000, heap=2_000, python=3_000, files={"/usr/bin/python": 7_000}),
    reading("backend", anonymous=9_000, heap=3_000, python=6_000, files={"/usr/bin/python": 9_000, "/x/libllama.so.0": 4_000}),
    reading("context", anonymous=61_000, heap=14_000, python=6_500,
            files={"/usr/bin/python": 9_000, "/x/libllama.so.0": 4_000, MODEL: 90_000}),
    reading("first token", anonymous=73_000, heap=16_000, python=7_000,
            files={"/usr/bin/python": 9_000, "/x/libllama.so.0": 5_000, MODEL: 90_000}),
)  # fmt: skip
BUFFERS = (
    NativeBuffer(MAPPED, HOST, "CPU_Mapped", 95_000),
    NativeBuffer(KV, HOST, "CPU", 40_000, 40_000),
    NativeBuffer(COMPUTE, HOST, "CPU", 30_000, 9_000),
    NativeBuffer(KV, "CUDA0", "CUDA0", 77_000),
)


def shares(account):
    return {share.cause: share.size_bytes for share in (*account.runtime, *account.corrections)}


def test_each_byte_is_named_by_a_fact():
    account = account_growth(READINGS, BUFFERS, [MODEL])
    assert shares(account) == {
        LIBRARIES: 2_000,
        LLAMA_LIBRARIES: 5_000,
        PYTHON_HEAP: 1_000 + 4_000,  # malloc's before the model, and Python's objects
        TABLES: 11_000,
        WORK: 2_000,
        UNREAD: -5_000,
        UNTOUCHED: -21_000,
    }
    # 73,000 are of no file: 16,000 heap, 7,000 Python's, 40,000 and 9,000 of buffers leave 1,000; 5,000 before left none.
    assert account.unexplained_bytes == 1_000
    assert account.growth_bytes == 177_000 - 12_000
    assert account.explained_bytes == 164_000
    assert account.explained_share == pytest.approx(164 / 165)


def test_the_lines_add_up_to_the_growth():
    account = account_growth(READINGS, BUFFERS, [MODEL])
    host = sum(buffer.size_bytes for buffer in BUFFERS if buffer.device == HOST)
    assert host + sum(shares(account).values()) + account.unexplained_bytes == account.growth_bytes


def test_memory_that_nobody_claims_stays_unexplained():
    last = READINGS[-1]
    maps = (*last.maps[:-1], MapShare("", 123_000, 123_000))
    grown = dataclasses.replace(last, rss_bytes=last.rss_bytes + 50_000, maps=maps)
    account = account_growth((*READINGS[:-1], grown), BUFFERS, [MODEL])
    assert account.unexplained_bytes == 51_000
    assert account.explained_share < 0.8


def test_python_takes_no_more_than_its_allocator_holds():
    stingy = [dataclasses.replace(item, python_bytes=100) for item in READINGS]
    account = account_growth(stingy, BUFFERS, [MODEL])
    assert shares(account)[PYTHON_HEAP] == 1_000
    assert account.unexplained_bytes == 1_000 + 4_000


def test_too_much_explained_is_an_error_too():
    greedy = [*BUFFERS, NativeBuffer(REPACKED, HOST, "CPU_REPACK", 60_000, 60_000)]
    account = account_growth(READINGS, greedy, [MODEL])
    assert account.unexplained_bytes < 0
    assert account.explained_bytes == account.growth_bytes - abs(account.unexplained_bytes)


def test_where_mappings_cannot_be_read_only_the_growth_is_known():
    blind = [dataclasses.replace(item, maps=()) for item in READINGS]
    account = account_growth(blind, BUFFERS, [MODEL])
    assert account.growth_bytes == 165_000
    assert (account.runtime, account.corrections) == ((), ())
    assert (account.unexplained_bytes, account.explained_bytes, account.explained_share) == (None, None, None)


def test_a_buffer_of_which_nobody_knows_the_pages_counts_whole():
    unknown = [dataclasses.replace(item, resident_bytes=None) for item in BUFFERS]
    assert UNTOUCHED not in shares(account_growth(READINGS, unknown, [MODEL]))


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("/venv/llama_cpp/lib/libggml-cpu.so.0", LLAMA_LIBRARIES),
        ("/venv/llama_cpp/lib/libllama.so.0", LLAMA_LIBRARIES),
        ("C:\\venv\\llama_cpp\\lib\\ggml-base.dll", LLAMA_LIBRARIES),
        ("/usr/lib/libcuda.so.1", DRIVERS),
        ("/dev/nvidiactl", DRIVERS),
        ("/usr/lib/libc.so.6", LIBRARIES),
        ("/usr/bin/python3.11", LIBRARIES),
    ],
)
def test_files_belong_to_somebody(path, group):
    assert group_of(path) == group


@pytest.mark.parametrize(
    ("cause", "buffer", "expected", "device"),
    [
        ("model", "CPU_Mapped", MAPPED, HOST),
        ("model", "MTL0_Mapped", MAPPED, "MTL0"),
        ("model", "CPU_REPACK", REPACKED, HOST),
        ("model", "AMX", REPACKED, HOST),
        ("model", "CPU", COPIED, HOST),
        ("model", "CUDA0", COPIED, "CUDA0"),
        ("model", "CUDA_Host", COPIED, HOST),
        ("kv", "RPC0[127.0.0.1:50052]", KV, "RPC0"),
        ("recurrent", "CPU", RECURRENT, HOST),
        ("compute", "CUDA0", COMPUTE, "CUDA0"),
        ("output", "CUDA_Host", OUTPUT, HOST),
    ],
)
def test_buffers_of_the_log_have_a_cause_and_a_device(cause, buffer, expected, device):
    assert cause_of_log(cause, buffer) == expected
    assert device_of_buffer(buffer) == device
