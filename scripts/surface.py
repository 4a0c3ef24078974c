"""What a version promises, as it can be seen from outside: written to tests/golden/surface.json, and held against it.

    python scripts/surface.py               add what is new to the recorded surface; refuses where something was taken away or changed
    python scripts/surface.py --breaking    record that too: the version's first number goes up with it (docs/promises.md)

The surface is plain values: names lead to names, and at the end to texts, numbers and truth values. What is only more than was promised
breaks nothing; what is required and was not there does.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import pathlib
import re
import sys
import typing
from collections.abc import Iterator
from typing import Any

import click
from figures import ROOT
from record_docs import classes, describe_type, stored_fields

import harness
from harness.cli import _PLACES, COMMANDS, cli, options
from harness.cli.output import PICTURE_FILE
from harness.errors import HarnessError, Outcome
from harness.records.kinds import KINDS, schema_of
from harness.records.share import SCHEMA as SHARE_SCHEMA

Surface = dict[str, Any]

PAGE = ROOT / "tests" / "golden" / "surface.json"

#: What an option takes, by the class of its type; the first that fits.
_TAKES = (
    (options.Values, "values"), (options.Pair, "pair"), (options.Percent, "share"), (options.Amount, "amount"),
    (options.One, "one value"), (click.types.FloatParamType, "number"), (click.types.IntParamType, "whole number"),
    (click.Path, "path"),
)  # fmt: skip


# What there is


def describe_surface() -> Surface:
    """Everything that is promised but the names in JSON, which `surface_documents` finds by running commands."""
    return {
        "options": {name: _describe_command(command) for name, command in _commands()},
        "exit codes": {outcome.name: int(outcome) for outcome in Outcome},
        "python": {
            name: _describe_name(getattr(harness, name)) for name in vars(harness)["__all__"] if name != "__version__"
        },
        "records": _describe_records(),
    }


def _commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(cli, **cli.context_settings)
    for name in (*COMMANDS, *_PLACES):
        command = cli.get_command(context, name)
        assert command is not None
        yield name, command


def _describe_command(command: click.Command) -> Surface:
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    found = {_name_option(one): _describe_option(one) for one in command.params if isinstance(one, click.Option)}
    return {
        "arguments": {one.human_readable_name: {"nargs": one.nargs, "required": one.required} for one in arguments},
        "options": found,
    }


def _name_option(option: click.Option) -> str:
    """Its first long spelling; others may be added."""
    return next((one for one in option.opts if one.startswith("--")), option.opts[0])


def _describe_option(option: click.Option) -> Surface:
    said: Surface = {
        "spellings": dict.fromkeys((*option.opts, *option.secondary_opts), True),
        "takes": _say_what_it_takes(option),
        "required": option.required,
        "many": option.multiple,
    }
    if isinstance(option.type, click.Choice):
        said["choices"] = dict.fromkeys(map(str, option.type.choices), True)
    if isinstance(option.default, str | int | float | pathlib.Path):
        said["default"] = str(option.default)
    if option.envvar:
        said["variable"] = str(option.envvar)
    return said


def _say_what_it_takes(option: click.Option) -> str:
    if option.is_flag or option.count:
        return "nothing"
    if isinstance(option.type, click.Choice):
        return "choice"
    if option.type is PICTURE_FILE:
        return "path"
    return next((said for kind, said in _TAKES if isinstance(option.type, kind)), "text")


def _describe_name(thing: Any) -> Surface:
    """A name of the Python API: a function by its parameters, a class by what may be read of it and called on it."""
    if inspect.isclass(thing) and issubclass(thing, HarnessError):
        parents = [one.__name__ for one in thing.__mro__ if issubclass(one, HarnessError)]
        return {"kind": "error", "is a": dict.fromkeys(parents, True), "exit code": int(thing.outcome)}
    if inspect.isclass(thing):
        return {"kind": "class", **_describe_class(thing)}
    if inspect.isfunction(thing):
        return {"kind": "function", **_describe_call(thing), "returns": str(thing.__annotations__.get("return"))}
    return {"kind": "type", "of": dict.fromkeys((one.__name__ for one in typing.get_args(thing)), True)}


def _describe_class(kind: type) -> Surface:
    methods, readable = {}, {}
    for name, thing in inspect.getmembers(kind):
        if name.startswith("_"):
            continue
        if inspect.isfunction(thing) or inspect.ismethod(thing):
            methods[name] = _describe_call(thing)
        elif isinstance(thing, property):
            readable[name] = True
    fields = {}
    if dataclasses.is_dataclass(kind):
        # Fields of records are under "records", with their types.
        fields = {} if kind in classes() else {item.name: True for item in dataclasses.fields(kind)}
        made = _describe_call(kind, by_place=False) if kind.__name__ in ("RunSpec", "PredictRequest") else {}
        return {"fields": fields, "properties": readable, "methods": methods, **made}
    return {"properties": readable, "methods": methods}


def _describe_call(function: Any, *, by_place: bool = True) -> Surface:
    """The parameters of a function: how each is given, where it stands (unless all are given by name), and its default."""
    found = {}
    parameters = [one for one in inspect.signature(function).parameters.values() if one.name not in ("self", "cls")]
    for place, one in enumerate(parameters):
        said: Surface = {
            "given": one.kind.description,
            "required": one.default is one.empty and one.kind < one.VAR_KEYWORD,
        }
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            said["required"] = False
        if by_place and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD):
            said["place"] = place
        if isinstance(one.default, str | int | float | tuple | None):
            said["default"] = repr(one.default)
        found[one.name] = said
    return {"parameters": found}


def _describe_records() -> Surface:
    kinds = {name: {"class": kind.__name__, "schema": schema_of(name)} for name, kind in KINDS.items()}
    return {
        "kinds": {**kinds, "(shared file)": {"class": "Share", "schema": SHARE_SCHEMA}},
        "classes": {kind.__name__: {"fields": dict(_describe_fields(kind))} for kind in classes()},
    }


def _describe_fields(kind: type) -> Iterator[tuple[str, Surface]]:
    needed = {
        item.name
        for item in dataclasses.fields(kind)
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    }
    for name, hint in stored_fields(kind):
        said = re.sub(r"\[(\w+)\]\(#\w+\)", r"\1", describe_type(hint))
        words = re.findall(r"`([^`]*)`", said)
        described: Surface = {"type": re.sub(r"`[^`]*`(, `[^`]*`)*", "one word", said), "required": name in needed}
        yield name, {**described, "words": dict.fromkeys(words, True)} if words else described


# What was promised


def find_breaks(promised: Any, now: Any, place: str = "") -> list[str]:
    """What a user of the promised surface would miss, a line each: what is gone, is another one, or is required and was not there."""
    if not isinstance(promised, dict) or not isinstance(now, dict):
        return [] if _suits(promised, now, place) else [f"{place}: was {promised!r} and is {now!r}"]
    found = [
        line
        for name, value in promised.items()
        for line in (find_breaks(value, now[name], f"{place}/{name}") if name in now else [f"{place}/{name}: is gone"])
    ]
    return found + [
        f"{place}/{name}: is required, and was not there"
        for name, value in now.items()
        if name not in promised and isinstance(value, dict) and value.get("required") is True
    ]


def _suits(promised: Any, now: Any, place: str) -> bool:
    """Whether whoever relies on a value at the end may find the other: the same, fewer kinds of it, or what was never known before."""
    if place.endswith("/required"):
        return bool(promised) or not now
    if promised == now or promised == "null":
        return True
    return isinstance(promised, str) and isinstance(now, str) and set(now.split(" or ")) <= set(promised.split(" or "))


def find_additions(promised: Any, now: Any, place: str = "") -> list[str]:
    """Where there is more than was promised."""
    if not isinstance(promised, dict) or not isinstance(now, dict):
        return []
    return [
        line
        for name, value in now.items()
        for line in (
            find_additions(promised[name], value, f"{place}/{name}") if name in promised else [f"{place}/{name}"]
        )
    ]


def write(surface: Any, indent: str = "") -> str:
    """As JSON, sorted; what fits stands in one line, so that a change is a line."""
    whole = json.dumps(surface, sort_keys=True, ensure_ascii=False)
    if not isinstance(surface, dict) or len(indent) + len(whole) < 140:
        return whole
    inside = ",\n".join(
        f"{indent} {json.dumps(name)}: {write(value, indent + ' ')}" for name, value in sorted(surface.items())
    )
    return f"{{\n{inside}\n{indent}}}"


def read_promised() -> Surface:
    """The recorded surface; ``version`` is that of which it was recorded."""
    promised: Surface = json.loads(PAGE.read_text(encoding="utf-8"))
    return promised


def _is_larger(promised: str) -> bool:
    """Whether the first number of this version is larger than that of the recorded one."""
    return int(harness.__version__.split(".")[0]) > int(promised.split(".")[0])


def main() -> int:
    """Record the surface of today."""
    sys.path.insert(0, str(ROOT))
    from surface_documents import describe_documents

    now = {"version": harness.__version__, **describe_surface(), "documents": describe_documents()}
    promised = read_promised() if PAGE.exists() else {}
    breaks = find_breaks({**promised, "version": harness.__version__}, now)
    if breaks and ("--breaking" not in sys.argv or not _is_larger(promised["version"])):
        print(*breaks, sep="\n")
        print(
            "Nothing was recorded: these break what was promised. If they are meant, the first number of the version goes up"
        )
        print("(harness/__init__.py), and scripts/surface.py --breaking records them.")
        return 1
    PAGE.write_text(write(now) + "\n", encoding="utf-8")
    print(*find_additions(promised, now) if promised else [], sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
