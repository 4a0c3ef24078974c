"""Write docs/record.md from the dataclasses of records: what every line holds. Meanings are the ``#:`` comments of fields."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import functools
import inspect
import pathlib
import re
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any

from harness.codec import FilePath, UtcTime
from harness.records.kinds import KINDS, schema_of
from harness.records.share import SCHEMA as SHARE_SCHEMA
from harness.records.share import Share
from harness.spec import parameters

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "record.md"

INTRODUCTION = """\
# What a line of a journal holds

This page is made from the dataclasses by `scripts/record_docs.py`, and a test holds it true.

A journal is `bench_results/<machine>/<UTC time>-<command>.jsonl`: one JSON object a line, in the order in which they were measured,
each on the disk as soon as its cell ended. `kind` says what a line is and `schema` which edition of it; older ones are read for ever.
A line of any kind may have a `label`, what its user calls it (`--label`, `harness label`).
Numbers are raw: whole nanoseconds, bytes, tokens, layers. What follows from them (medians, rates, intervals, sums) is worked out on
reading and not stored. `null` is what is not known or was not measured; a field that older lines do not have is read as its default.
Of a file only the name is kept, never its folder. `harness.read_records` gives the same as objects of these classes, and
`harness.to_dicts` as plain values.
"""

#: What a name's ending says of its unit.
UNITS = {
    "_tok_per_s": "tokens/s", "_bytes_per_s": "bytes/s", "_flops_per_s": "FLOP/s", "_per_s": "1/s", "_ns_per_token": "ns/token",
    "_ns": "ns", "_s": "s", "_bytes": "bytes", "_mhz": "MHz", "_max_c": "°C", "joules": "J", "_share": "0…1", "_flops": "FLOP",
    "_tokens": "tokens", "_layers": "layers", "_w": "W",
}  # fmt: skip

#: What fields of these names mean in every class that has them.
COMMON = {
    "schema": "edition of this kind of line", "command": "the command that measured", "time_utc": "when it began",
    "machine": "the machine that measured", "harness_version": "version of harness", "build": "the engine that ran",
    "model": "the file that ran", "resolved": "what really ran", "asked": "what was asked for",
    "warnings": "what qualifies the numbers", "cautions": "what qualifies the numbers", "failure": "why there is no result",
    "file_sha256": "SHA-256 of the file; of a split one over those of its parts", "is_synthetic": "whether the weights are random",
    "flash_attn": "whether it is on; null: not known", "load_mode": "how the file is read, as llama.cpp's log says",
    "layers_by_device": "how many llama.cpp put where", "device": "its name, CPU for host memory", "architecture": "the header's",
    "n_ctx": "tokens of context", "n_ctx_train": "tokens of context that it was trained for", "notes": "what qualifies it",
    "harness_share": "edition of this kind of file",
    "file_name": "the file's name", "load": "what it took to get ready", "telemetry": "what the hardware did meanwhile",
}  # fmt: skip
_SIMPLE = {
    str: "text",
    bool: "true/false",
    int: "whole number",
    float: "number",
    Any: "any",
    dict: "object",
    type(None): "null",
}


def unit_of(name: str) -> str:
    """The unit that a field's name carries; empty where it is a count or has none."""
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")


@functools.cache
def comments_of(kind: type) -> dict[str, str]:
    """The ``#:`` comments of a dataclass by field: behind it, or on the lines above it."""
    found, above = {}, []
    classes = [one for one in reversed(kind.__mro__) if dataclasses.is_dataclass(one)]
    for line in [line for one in classes for line in inspect.getsource(one).splitlines()]:
        comment = re.match(r"\s*#: (.*)", line)
        field = re.match(r"    (\w+): .*?(?:#: (.*))?$", line)
        if comment:
            above.append(comment[1].strip())
        elif field:
            found[field[1]] = field[2] or " ".join(above)
            above = []
        else:
            above = []
    helps = {name: parameter.help for name, parameter in parameters().items()} if kind.__name__ == "RunSpec" else {}
    return {name: text or helps.get(name) or COMMON.get(name, "") for name, text in found.items()}


def describe_type(hint: Any) -> str:
    """A type in words, with links to the parts."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        marks = {UtcTime: "UTC time", FilePath: "file name"}
        return marks.get(hint, describe_type(inside[0]))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe_type(item) for item in inside)
    if origin in (tuple, frozenset):
        return f"list of {describe_type(inside[0])}"
    if origin in (collections.abc.Mapping, dict):
        return f"object of {describe_type(inside[1])}"
    if origin is typing.Literal:
        return ", ".join(f"`{item}`" for item in inside)
    if inspect.isclass(hint) and issubclass(hint, enum.Enum):
        return ", ".join(f"`{item.value}`" for item in hint)
    if inspect.isclass(hint) and dataclasses.is_dataclass(hint):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    return _SIMPLE[hint]


def parts_of(hint: Any) -> Iterator[type]:
    """The dataclasses in a type."""
    if inspect.isclass(hint) and dataclasses.is_dataclass(hint):
        yield typing.cast("type", hint)
    for inner in typing.get_args(hint):
        yield from parts_of(inner)


def stored_fields(kind: type) -> list[tuple[str, Any]]:
    """The fields of a class and their types."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return [(item.name, hints[item.name]) for item in dataclasses.fields(kind)]


def classes() -> list[type]:
    """Every class that is a part of a line or of a shared file, the lines' own first, in the order in which they are met."""
    found = dict.fromkeys((*KINDS.values(), Share))
    for kind in (waiting := list(found)):
        for part in (part for _, hint in stored_fields(kind) for part in parts_of(hint)):
            if part not in found:
                found[part] = None
                waiting.append(part)
    return list(found)


def undocumented() -> list[str]:
    """Fields of which nothing says what they mean: no comment, no unit in the name, no mention in the class's docstring."""
    return [
        f"{kind.__name__}.{name}"
        for kind in classes()
        for name, _ in stored_fields(kind)
        if not (comments_of(kind).get(name) or unit_of(name) or name in (kind.__doc__ or ""))
    ]


def describe_class(kind: type) -> Iterator[str]:
    """A class as a heading, what it is, and a table of its fields."""
    names = [f"`{name}`" for name, item in KINDS.items() if item is kind]
    yield f"\n## {kind.__name__}\n"
    if kind is Share:
        yield f"A file of `harness report --share` ([share.md](share.md)), schema {SHARE_SCHEMA}; no line of a journal.\n"
    if names:
        yield f"Lines of kind {' and '.join(names)}, schema {schema_of(names[0].strip('`'))}.\n"
    doc = re.split(r"\n\s*(?:Raises|Parameters)\n", inspect.getdoc(kind) or "")[0]
    yield re.sub(r"``(.+?)``", r"`\1`", doc).strip() + "\n"
    yield "| field | type | unit | meaning |\n|---|---|---|---|"
    for name, hint in stored_fields(kind):
        meaning = comments_of(kind).get(name, "")
        cells = (f"`{name}`", describe_type(hint), unit_of(name), re.sub(r"``(.+?)``", r"`\1`", meaning))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def render() -> str:
    """The page."""
    return INTRODUCTION + "\n".join(line for kind in classes() for line in describe_class(kind)) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8", newline="\n")
