"""Resident memory explained: every line by an independent fact, the rest by none."""

from __future__ import annotations

import dataclasses

import pytest

from harness.memory.causes import HOST, Cause
from harness.memory.resident import (
    MapShare,
    MemoryReading,
    NativeBuffer,
    account_growth,
    cause_of_log,
    device_of_buffer,
    explain_growth,
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
    NativeBuffer(Cause.MAPPED, HOST, "CPU_Mapped", 95_000),
    NativeBuffer(Cause.KV, HOST, "CPU", 40_000, 40_000),
    NativeBuffer(Cause.COMPUTE, HOST, "CPU", 30_000, 9_000),
    NativeBuffer(Cause.KV, "CUDA0", "CUDA0", 77_000),
)


def account(readings, buffers, files):
    """What is explained, and the shares that explain it beside the buffers."""
    runtime, weights_resident = explain_growth(readings, buffers, files)
    found = account_growth(readings[-1].rss_bytes - readings[0].rss_bytes, buffers, runtime, weights_resident)
    return found, {share.cause: share.size_bytes for share in (*runtime, *found.corrections)}


def test_each_byte_is_named_by_a_fact():
    found, shares = account(READINGS, BUFFERS, [MODEL])
    assert shares == {
        Cause.LIBRARIES: 2_000,
        Cause.LLAMA_LIBRARIES: 5_000,
        Cause.PYTHON_HEAP: 1_000 + 4_000,  # malloc's before the model, and Python's objects
        Cause.TABLES: 11_000,
        Cause.WORK: 2_000,
        Cause.UNREAD: -5_000,
        Cause.UNTOUCHED: -21_000,
    }
    # 73,000 are of no file: 16,000 heap, 7,000 Python's, 40,000 and 9,000 of buffers leave 1,000; 5,000 before left none.
    assert found.unexplained_bytes == 1_000
    assert found.growth_bytes == 177_000 - 12_000
    assert found.explained_bytes == 164_000
    assert found.explained_share == pytest.approx(164 / 165)


def test_the_lines_add_up_to_the_growth():
    found, shares = account(READINGS, BUFFERS, [MODEL])
    host = sum(buffer.size_bytes for buffer in BUFFERS if buffer.device == HOST)
    assert host + sum(shares.values()) + found.unexplained_bytes == found.growth_bytes


def test_memory_that_nobody_claims_stays_unexplained():
    last = READINGS[-1]
    maps = (*last.maps[:-1], MapShare("", 123_000, 123_000))
    grown = dataclasses.replace(last, rss_bytes=last.rss_bytes + 50_000, maps=maps)
    found, _ = account((*READINGS[:-1], grown), BUFFERS, [MODEL])
    assert found.unexplained_bytes == 51_000
    assert found.explained_share < 0.8


def test_python_takes_no_more_than_its_allocator_holds():
    stingy = [dataclasses.replace(item, python_bytes=100) for item in READINGS]
    found, shares = account(stingy, BUFFERS, [MODEL])
    assert shares[Cause.PYTHON_HEAP] == 1_000
    assert found.unexplained_bytes == 1_000 + 4_000


def test_too_much_explained_is_an_error_too():
    greedy = [*BUFFERS, NativeBuffer(Cause.REPACKED, HOST, "CPU_REPACK", 60_000, 60_000)]
    found, _ = account(READINGS, greedy, [MODEL])
    assert found.unexplained_bytes < 0
    assert found.explained_bytes == found.growth_bytes - abs(found.unexplained_bytes)


def test_where_mappings_cannot_be_read_only_the_growth_is_known():
    blind = [dataclasses.replace(item, maps=()) for item in READINGS]
    found, shares = account(blind, BUFFERS, [MODEL])
    assert found.growth_bytes == 165_000
    assert shares == {}
    assert (found.unexplained_bytes, found.explained_bytes, found.explained_share) == (None, None, None)


def test_a_buffer_of_which_nobody_knows_the_pages_counts_whole():
    unknown = [dataclasses.replace(item, resident_bytes=None) for item in BUFFERS]
    assert Cause.UNTOUCHED not in account(READINGS, unknown, [MODEL])[1]


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("/venv/llama_cpp/lib/libggml-cpu.so.0", Cause.LLAMA_LIBRARIES),
        ("/venv/llama_cpp/lib/libllama.so.0", Cause.LLAMA_LIBRARIES),
        ("C:\\venv\\llama_cpp\\lib\\ggml-base.dll", Cause.LLAMA_LIBRARIES),
        ("/usr/lib/libcuda.so.1", Cause.DRIVERS),
        ("/dev/nvidiactl", Cause.DRIVERS),
        ("/usr/lib/libc.so.6", Cause.LIBRARIES),
        ("/usr/bin/python3.11", Cause.LIBRARIES),
    ],
)
def test_files_belong_to_somebody(path, group):
    assert group_of(path) == group


@pytest.mark.parametrize(
    ("cause", "buffer", "expected", "device"),
    [
        ("model", "CPU_Mapped", Cause.MAPPED, HOST),
        ("model", "MTL0_Mapped", Cause.MAPPED, "MTL0"),
        ("model", "CPU_REPACK", Cause.REPACKED, HOST),
        ("model", "AMX", Cause.REPACKED, HOST),
        ("model", "CPU", Cause.COPIED, HOST),
        ("model", "CUDA0", Cause.COPIED, "CUDA0"),
        ("model", "CUDA_Host", Cause.COPIED, HOST),
        ("kv", "RPC0[127.0.0.1:50052]", Cause.KV, "RPC0"),
        ("recurrent", "CPU", Cause.RECURRENT, HOST),
        ("compute", "CUDA0", Cause.COMPUTE, "CUDA0"),
        ("output", "CUDA_Host", Cause.OUTPUT, HOST),
    ],
)
def test_buffers_of_the_log_have_a_cause_and_a_device(cause, buffer, expected, device):
    assert cause_of_log(cause, buffer) == expected
    assert device_of_buffer(buffer) == device
