"""llama.cpp's log: kept, passed on to stderr for the post-mortem, and read for what only it tells.

The wording is that of the versions of llama-cpp-python that were tried (`harness.native.versions`); `tests/test_log.py` holds lines
recorded from them.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator

import llama_cpp

from harness.gguf.caches import Keeping
from harness.records.cells import Buffer, MissingKernel
from harness.units import MIB

# enum ggml_log_level of ggml.h: NONE 0, DEBUG 1, INFO 2, WARN 3, ERROR 4, CONT 5.
_INFO, _ERROR = 2, 4

_BUFFER = re.compile(r"\s(\S+)\s+(model|KV|RS|compute|output|DSV4 \w+ state) buffer size\s*=\s*([0-9.]+) MiB")
_CAUSES = {"model": "model", "RS": "recurrent", "compute": "compute", "output": "output"}
_CACHE = re.compile(r"llama_kv_cache\w*: size =\s*([0-9.]+) MiB \(")
_CREATING = re.compile(r"creating .*?(\S+) KV cache")
_LAYER = re.compile(r"load_tensors: layer\s+(\d+) assigned to device (\S+),")
#: ``graph: nodes = 936, splits = 2,`` · ``graph (pp bs=512, tg bs=1): nodes = 936 / 900, splits = 63 / 2,``; and as it was before.
_SPLITS = re.compile(r"graph(?: \([^)]*\))?: nodes = [\d /]+, splits = (\d+)(?: / (\d+))?")
_OLDER_SPLITS = re.compile(r"graph splits = (\d+)(?: \(with bs=\d+\), (\d+) \(with bs=1\))?")
_MISMATCH = re.compile(r"layer \d+ is assigned to device (\S+) but (.+?) is assigned to device (\S+)")
_UNLOCKED = re.compile(r"failed to (?:mlock|VirtualLock)|mlock not supported")
_FLASH = re.compile(r"Flash Attention (enabled|not supported)|flash_attn\s*=\s*(enabled|disabled)")
_LOAD_MODE = re.compile(r"\(load_mode = ([a-z+]+)\)")
_OLDER_LOAD_MODE = re.compile(r"\(mmap = (true|false), direct_io = (true|false)\)")
_DEBUG_WORTH_KEEPING = "assigned to device"


#: Every callback that the library was ever given: it may call one as long as it is loaded, and a collected one is a segmentation fault.
_KEPT: list[object] = []


class Tape:
    """Records the log from now on."""

    def __init__(self, *, to_stderr: bool = True) -> None:
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._to_stderr = to_stderr
        callback = llama_cpp.llama_log_callback(self._take)
        _KEPT.append(callback)
        llama_cpp.llama_log_set(callback, None)

    def _take(self, level: int, text: bytes, _user_data: object) -> None:
        if level < _INFO and _DEBUG_WORTH_KEEPING.encode() not in text:
            return
        line = text.decode("utf-8", "replace").rstrip("\n")
        if not line.strip(" ."):
            return  # the loader's progress dots
        self.lines.append(line)
        if level == _ERROR:
            self.errors.append(line)
        if self._to_stderr and level >= _INFO:
            os.write(2, text if text.endswith(b"\n") else text + b"\n")

    def rewind(self) -> None:
        """Forget what was recorded so far."""
        self.lines.clear()
        self.errors.clear()

    def last_error(self) -> str | None:
        """The first error of the last failure: later ones only repeat that something failed."""
        return re.sub(r"^\w+: (error: )?", "", self.errors[0]) if self.errors else None


def read_buffers(lines: Iterable[str]) -> tuple[Buffer, ...]:
    """Find every buffer that was allocated, in bytes to the 0.01 MiB that the log prints."""
    return tuple(
        Buffer(kept if match[2] == "KV" else _CAUSES.get(match[2], "recurrent"), match[1], round(float(match[3]) * MIB))
        for line, kept in _with_kinds(lines)
        if (match := _BUFFER.search(line))
    )


def read_caches(lines: Iterable[str]) -> tuple[Buffer, ...]:
    """What KV caches say they take, allocated or not, in bytes to the log's 0.01 MiB, wherever it lies; () where there is none."""
    found = ((kept, _CACHE.search(line)) for line, kept in _with_kinds(lines))
    return tuple(Buffer(kept, "", round(float(match[1]) * MIB)) for kept, match in found if match)


def _with_kinds(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each line, and the kind of cache that is being made: a word of `Keeping`."""
    kept = Keeping.KEYS_VALUES.value
    for line in lines:
        if match := _CREATING.search(line):
            kept = next((kind.value for kind in Keeping if kind.value in match[1]), Keeping.KEYS_VALUES.value)
        yield line, kept


def read_layers(lines: Iterable[str]) -> dict[str, int]:
    """Count the layers (with the output layer) that each device was assigned."""
    return dict(Counter(list_layers(lines).values()))


def list_layers(lines: Iterable[str]) -> dict[int, str]:
    """The device of each layer, the output layer last."""
    found = (_LAYER.search(line) for line in lines)
    return {int(match[1]): match[2] for match in found if match}


def read_splits(lines: Iterable[str]) -> tuple[int | None, int | None]:
    """How many pieces the graphs of a token and of a micro-batch are cut into, by device; None if the log is silent."""
    found = [match for line in lines if (match := _SPLITS.search(line) or _OLDER_SPLITS.search(line))]
    if not found:
        return None, None
    batch, token = found[-1].groups()
    return int(token or batch), int(batch)


def read_missing_kernels(lines: Iterable[str]) -> tuple[MissingKernel, ...]:
    """What llama.cpp did without because a layer's device has no kernel for it. Source: llama_context::resolve_fused_ops."""
    found = (_MISMATCH.search(line) for line in lines)
    return tuple(dict.fromkeys(MissingKernel(match[2], match[1], match[3]) for match in found if match))


def read_unlocked(lines: Iterable[str]) -> bool:
    """Whether memory that was to be locked could not be. Source: llama_mlock in llama-mmap.cpp."""
    return any(_UNLOCKED.search(line) for line in lines)


def read_flash_attention(lines: Iterable[str]) -> bool | None:
    """Whether flash attention is on: what was asked, overruled by what `auto` was resolved to; None if the log is silent."""
    found = [match for match in map(_FLASH.search, lines) if match]
    return "enabled" in found[-1].groups() if found else None


def read_load_mode(lines: Iterable[str]) -> str | None:
    """How the file was read: mmap, none, mlock, …; before 0.3.35 the log does not say whether it was locked."""
    for line in lines:
        if match := _LOAD_MODE.search(line):
            return match[1]
        if match := _OLDER_LOAD_MODE.search(line):
            return "dio" if match[2] == "true" else "mmap" if match[1] == "true" else "none"
    return None
