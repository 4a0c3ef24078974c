"""What a byte of memory is for, and what qualifies an account of it: the one list of causes, and the one of remarks.

Here are the names by which records, tables, pictures and exports know them; sentences about them are `harness.views.memory`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from harness.gguf.caches import Keeping

#: What the host's memory is called as a device.
HOST = "CPU"


class _Named(str, Enum):
    """A text with a list of what it may be; it is written as its value."""

    def __str__(self) -> str:
        return str(self.value)

    def __format__(self, form: str) -> str:
        return format(str(self.value), form)


class Part(_Named):
    """Causes that are shown together where single ones are too fine: a column of a table, a part of a bar with its legend."""

    legend: str

    WEIGHTS = "weights", "weights as in the file"
    REPACKED = "repacked", "repacked copy"
    CACHE = "KV cache", "KV cache"
    COMPUTE = "compute", "compute, output"
    PROCESS = "process", "libraries, tables, Python"
    DRIVER = "driver", ""
    CORRECTION = "correction", ""
    UNEXPLAINED = "unexplained", "unexplained"

    def __new__(cls, name: str, legend: str) -> Part:
        member = str.__new__(cls, name)
        member._value_, member.legend = name, legend
        return member


class Cause(_Named):
    """What memory is taken for, in the order in which a ledger lists it; a new cause is one line here.

    Up to OUTPUT they are llama.cpp's buffers, then what surrounds them in the process. DRIVER_CONTEXT is what a device's driver keeps
    beside the buffers. UNREAD and UNTOUCHED are negative: they take back what is allocated and not in memory.
    """

    part: Part

    MAPPED = "weights mapped", Part.WEIGHTS
    COPIED = "weights copied", Part.WEIGHTS
    REPACKED = "weights repacked", Part.REPACKED
    KV = "KV cache", Part.CACHE
    INDEX = "indexer keys", Part.CACHE
    RECURRENT = "recurrent state", Part.CACHE
    COMPUTE = "compute buffer", Part.COMPUTE
    OUTPUT = "output buffer", Part.COMPUTE
    LIBRARIES = "Python, system libraries", Part.PROCESS
    LLAMA_LIBRARIES = "llama.cpp's libraries", Part.PROCESS
    DRIVERS = "GPU driver's libraries", Part.PROCESS
    PYTHON_HEAP = "Python's objects", Part.PROCESS
    TABLES = "vocabulary and graph", Part.PROCESS
    WORK = "work buffers", Part.PROCESS
    DRIVER_CONTEXT = "driver's context", Part.DRIVER
    UNREAD = "file pages not read in", Part.CORRECTION
    UNTOUCHED = "not touched yet", Part.CORRECTION
    UNEXPLAINED = "unexplained", Part.UNEXPLAINED

    def __new__(cls, name: str, part: Part) -> Cause:
        member = str.__new__(cls, name)
        member._value_, member.part = name, part
        return member

    @property
    def is_buffer(self) -> bool:
        """Whether it is a buffer of llama.cpp's."""
        return self.part in (Part.WEIGHTS, Part.REPACKED, Part.CACHE, Part.COMPUTE)

    @property
    def rank(self) -> int:
        return list(Cause).index(self)


#: The cause of each kind of thing that a layer keeps.
CACHE_CAUSES = {Keeping.KEYS_VALUES: Cause.KV, Keeping.STATE: Cause.RECURRENT, Keeping.INDEX: Cause.INDEX}


class Remark(_Named):
    """What qualifies a forecast or a ledger. Up to CACHE_UNKNOWN a cause is not known, or only in part."""

    HEADER_REFUSED = "header refused"  # detail: why weights and caches cannot be worked out
    SPLIT_WITHIN_LAYERS = "split within layers"  # detail: -sm
    REPACKING_UNKNOWN = "repacking unknown"
    LAYOUTS_UNKNOWN = "layouts unknown"  # detail: the backend extension
    CACHE_UNKNOWN = "cache unknown"  # detail: why
    NOT_PLANNED = "not planned"  # detail: why there is no dry run
    PLAN_DIFFERS = "plan differs"  # cause, size_bytes by the header, planned_bytes by llama.cpp
    SEVERAL_DEVICES = "several devices"
    SCORES_GROW = "scores grow"  # size_bytes at n_ctx tokens
    UNTRAINED = "untrained"  # n_ctx, n_ctx_train
    BLOCKS_SKIPPED = "blocks skipped"  # count
    STAND_IN_VOCABULARY = "stand-in vocabulary"
    SOURCE = "source"  # detail: where the header is from
    ENCODER = "encoder"  # size_bytes of what reads images
    HEADER_FETCHED = "header fetched"  # size_bytes
    NOT_PRICED = "not priced"  # detail: why no layers can be counted on a card
    TEXT = "text"  # detail: a sentence of an older record

    @property
    def is_gap(self) -> bool:
        return self in _GAPS


_GAPS = frozenset(list(Remark)[: list(Remark).index(Remark.CACHE_UNKNOWN) + 1])


@dataclass(frozen=True, slots=True)
class Note:
    """A remark with what it is about; which fields it has stands beside the remark's name."""

    remark: Remark
    cause: Cause | None = None  #: what of the memory it is about
    detail: str | None = None  #: a name or word that goes with it
    size_bytes: int | None = None
    planned_bytes: int | None = None
    n_ctx: int | None = None
    n_ctx_train: int | None = None
    count: int | None = None  #: how many
