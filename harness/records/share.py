"""Speeds to be handed on: what `harness report --share` writes, and how such a file of a stranger is read.

It holds what was measured on which hardware by which build, and no name of a person, host, file or folder, no address, label or
prompt. What it says is worked out of records and stored nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from harness.codec import Malformed, Positive, PositiveNumber, decode, encode
from harness.errors import UsageError
from harness.records.trust import Trust
from harness.untrusted import harmless

#: History of the format. 1 (2026-11): first.
SCHEMA = 1

#: The name by which such a file is known, and its schema.
MARK = "harness_share"

#: A file larger than this is not read; more entries than these are not used, and no longer text.
MOST_BYTES, MOST_SPEEDS, MOST_MACHINES, LONGEST_TEXT = 4 * 1024 * 1024, 5000, 200, 120

#: So many entries that cannot be believed are told one by one; of all there is one sentence more.
_MOST_TOLD = 3

#: No machine has a higher rate.
HIGHEST_RATE = 1e7

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class SharedMachine:
    """The hardware and the system, without names of people or hosts."""

    cpu: str  #: its name
    n_cores_physical: Positive  #: cores that were ours
    n_cores_logical: Positive  #: hardware threads of the whole machine
    memory_bytes: Positive  #: in whole GiB
    os: str = ""  #: its name and the numbers of its release
    arch: str = ""  #: of the processor


@dataclass(frozen=True, slots=True)
class SharedBuild:
    """The engine: versions, and what it was compiled for."""

    llama_cpp_python: str = ""  #: version
    ggml_version: str = ""  #: version
    commit: str = ""  #: of llama.cpp
    backends: tuple[str, ...] = ()  #: ggml's backends that were loaded
    cpu_features: tuple[str, ...] = ()  #: compiled in


@dataclass(frozen=True, slots=True)
class SharedSpeed:
    """One test of a model with its settings: of several records the one that speaks for them.

    machine and build are places in the file's lists, from 0. model is a name of the catalog, or what llama.cpp calls a file that
    the catalog does not know. settings are those that are not as usual; of those that are lists of texts, how many there are.
    """

    machine: int
    model: str
    test: str  #: llama-bench's name of it: pp512, tg128 @ d4096
    test_kind: str  #: pp, tg or pp+tg
    rate_tok_per_s: PositiveNumber  #: by the median of the repetitions
    n_samples: Positive  #: repetitions
    trust: Trust  #: how far it may be believed
    day: str  #: when, in UTC: 2026-11-28
    build: int | None = None
    rate_low_tok_per_s: PositiveNumber | None = None  #: 95 % interval
    rate_high_tok_per_s: PositiveNumber | None = None  #: 95 % interval
    quantization: str | None = None  #: of most weights, as llama.cpp names it
    size_bytes: int | None = None  #: of the tensors
    n_params: int | None = None  #: parameters
    is_synthetic: bool = False  #: whether the weights are random
    is_default: bool = False  #: as `harness pp-tg` runs without options
    n_depth: int = 0  #: tokens that were in the cache
    n_threads: int | None = None  #: threads that computed
    device: str | None = None  #: what held the layers, where that was not the CPU alone
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Share:
    """All of a file. Each speed stands on a line of its own."""

    harness_version: str
    machines: tuple[SharedMachine, ...]  #: that measured
    builds: tuple[SharedBuild, ...]  #: that ran
    speeds: tuple[SharedSpeed, ...]  #: what was measured
    harness_share: int = SCHEMA


def write_share(share: Share) -> str:
    """The file: JSON, one speed a line, so that two of them can be compared line by line."""
    values = encode(share)
    rows = ",\n  ".join(harmless.json_text(speed, indent=None) for speed in values.pop("speeds"))
    head = {MARK: values.pop(MARK), **values}
    return harmless.json_text(head).rstrip("}\n ") + f',\n "speeds": [\n  {rows}\n ]\n}}\n'


def is_share(values: Any) -> bool:
    """Whether JSON is such a file, of whatever schema."""
    return isinstance(values, Mapping) and MARK in values


def read_share(values: Any, warn: Callable[[str], None]) -> Share:
    """Read what a stranger's file holds; an entry that cannot be believed is named in a sentence, and the others are used.

    Raises
    ------
    Malformed : it is no such file, or of a later schema.
    """
    if not is_share(values):
        raise Malformed(f"has no {MARK}: it is no file of `harness report --share`")
    schema = values[MARK]
    if type(schema) is not int or schema < 1:
        raise Malformed(f"has {MARK} {str(schema)[:20]!r}, which is no schema")
    if schema > SCHEMA:
        raise Malformed(f"has schema {schema}, and this harness knows up to {SCHEMA}: update harness")
    machines = [_read(SharedMachine, item) for item in _list(values, "machines", MOST_MACHINES)]
    builds = [_read(SharedBuild, item) for item in _list(values, "builds", MOST_MACHINES)]
    speeds, n_refused = [], 0
    given = values.get("speeds")
    for at, item in enumerate(_list(values, "speeds", MOST_SPEEDS)):
        try:
            speeds.append(_check(_read(SharedSpeed, item), len(machines), len(builds)))
        except (Malformed, UsageError) as error:
            n_refused += 1
            if n_refused <= _MOST_TOLD:
                warn(f"speeds[{at}]: {str(error).rstrip('.')}; it is left out")
    if n_refused > _MOST_TOLD:
        warn(f"{n_refused} of its speeds are left out, of which the first {_MOST_TOLD} are told")
    if isinstance(given, list) and len(given) > MOST_SPEEDS:
        warn(f"it has {len(given)} speeds, of which the first {MOST_SPEEDS} are used")
    version = values.get("harness_version")
    return Share(_text(version) if isinstance(version, str) else "", tuple(machines), tuple(builds), tuple(speeds))


def _list(values: Mapping[str, Any], name: str, most: int) -> list[Any]:
    found = values.get(name)
    if not isinstance(found, list):
        raise Malformed(f"has no list {name}")
    return found[:most]


def _read(kind: type[Part], values: Any) -> Part:
    """A part of the file, whose texts are short and harmless."""
    found = decode(kind, values)
    for item in fields(found):  # type: ignore[arg-type]
        value = getattr(found, item.name)
        if isinstance(value, str) and not isinstance(value, Trust):
            object.__setattr__(found, item.name, _text(value))
        elif isinstance(value, tuple):
            object.__setattr__(found, item.name, tuple(_text(one) for one in value[:LONGEST_TEXT]))
    return found


def _text(text: str) -> str:
    if len(text) > LONGEST_TEXT:
        raise Malformed(f"a text of it has {len(text)} characters, more than {LONGEST_TEXT}")
    return harmless.line(text).strip()


def _check(speed: SharedSpeed, n_machines: int, n_builds: int) -> SharedSpeed:
    """What the types do not say.

    Raises
    ------
    Malformed : it cannot be so.
    """
    low, rate, high = speed.rate_low_tok_per_s, speed.rate_tok_per_s, speed.rate_high_tok_per_s
    if not 0 <= speed.machine < n_machines:
        raise Malformed(f"is of machine {speed.machine}, and there are {n_machines}")
    if speed.build is not None and not 0 <= speed.build < n_builds:
        raise Malformed(f"is of build {speed.build}, and there are {n_builds}")
    if rate > HIGHEST_RATE:
        raise Malformed(f"has {rate:g} tokens/s, which no machine has")
    if (low is None) != (high is None) or (low is not None and high is not None and not low <= rate <= high):
        raise Malformed("has an interval that does not hold its rate")
    if speed.test_kind not in ("pp", "tg", "pp+tg"):
        raise Malformed(f"is of the kind {speed.test_kind!r}, which there is not")
    return speed
