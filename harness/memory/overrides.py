"""Which tensors lie elsewhere than their layer does because -ot says so by their names.

The rules are those of llama.cpp 0c1e570 (in llama-cpp-python 0.3.36): the first pattern that is found in a tensor's name decides, and
the patterns of -ncmoe come behind them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

from harness.errors import UsageError
from harness.memory.causes import HOST
from harness.parsers import split_override
from harness.spec import RunSpec


class Buffers(Protocol):
    """A device by ggml's name, and the name of the buffers that weights lie in there."""

    @property
    def name(self) -> str: ...
    @property
    def buffer(self) -> str: ...


class Home(Enum):
    """Where a tensor lies that is on none of the devices at hand by number."""

    ITS_LAYER = "where its layer runs"
    ELSEWHERE = "on a device that is not among those"


def refuse_buffer(name: str, known: Sequence[str]) -> UsageError:
    """The error for a buffer type that an override names and that there is not."""
    return UsageError(
        f"There is no buffer type {name} to put tensors into; there are {', '.join(dict.fromkeys(known))}."
    )


def check_overrides(spec: RunSpec, devices: Sequence[Buffers]) -> None:
    """See to it that every buffer type of -ot is the CPU's or one of the devices'.

    Raises
    ------
    UsageError : one is not, which llama.cpp's tools refuse too.

    Source: parse_cmd_params in llama-bench.cpp.
    """
    known = [HOST, *(device.buffer for device in devices)]
    for text in spec.override_tensors:
        _, buffer = split_override(text)
        if buffer not in known and buffer not in [device.name for device in devices]:
            raise refuse_buffer(buffer, known)


def find_home(
    name: str, overrides: Sequence[tuple[re.Pattern[str], str]], devices: Sequence[Buffers]
) -> int | Home | None:
    """Where a tensor of this name is put: on a device by its place among `devices`, into host memory (None), or a `Home`.

    Source: llama-model-loader.cpp create_tensor (std::regex_search).
    """
    for pattern, buffer in overrides:
        if pattern.search(name):
            if buffer == HOST:
                return None
            found = (place for place, device in enumerate(devices) if buffer in (device.buffer, device.name))
            return next(found, Home.ELSEWHERE)
    return Home.ITS_LAYER
