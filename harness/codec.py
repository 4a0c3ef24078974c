"""A frozen dataclass from and to JSON values, by its fields' own types: `decode` refuses what is not of them, `encode` writes them.

A value that came from a file may be anything: edited by hand, cut off, written by another program. Whoever reads it gets a value of the
right types all the way down, or `Malformed` with the place of the first thing that is wrong. Keys that a class does not know are
ignored, so that a line of a later version which only added fields can be read; null for a field that has a default means that default.

A field is checked by its annotation: str, bool, int (no truth value), float (finite), ``Literal``, an enum (by its value),
``X | None``, ``tuple[X, ...]``, ``frozenset[X]``, ``Mapping[str, X]``, ``Any``, another dataclass, or one of the annotations below.
Units are a part of names here, so a name says more:
durations and sizes (``…_ns``, ``…_s``, ``…_bytes``) are not below 0.
"""

from __future__ import annotations

import calendar
import collections.abc
import dataclasses
import enum
import functools
import marshal
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

Value = TypeVar("Value")
Reader = Callable[[Any], Any]

#: A duration that is divided by.
Positive = Annotated[int, "above 0"]
PositiveNumber = Annotated[float, "above 0"]
#: A difference, which may be below 0 whatever its unit.
Signed = Annotated[int, "signed"]
#: A file's path, of which a record keeps the name alone: folders name people.
FilePath = Annotated[str, "path"]
#: A time in UTC to the second, ``2026-11-24T10:59:57Z``.
UtcTime = Annotated[str, "utc-time"]
#: Behind a tuple: at least one.
NOT_EMPTY = "not empty"

#: Around a dataclass of which many lines hold the same value, such as their machine: it is read and kept once for all of them.
Shared = Annotated[Value, "shared"]

#: In a field's metadata: what it was called, and what each of its values was then (``{"mmap": {"on": "mmap"}}``); read, never written.
FORMERLY = "formerly"

#: How many of the latest values of a shared field are known again, and how long one may be.
MOST_SHARED, MOST_SHARED_BYTES = 256, 16 * 1024

#: The version of marshal's format that writes equal values alike; the later ones mark what is referred to twice.
_PLAIN = 2

#: Numbers beyond these were never measured.
LARGEST = 2**63

_QUANTITIES = ("_ns", "_s", "_bytes")
_UTC = re.compile(r"((?!0000)\d{4})-(0[1-9]|1[0-2])-(\d\d)T([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ")


class Malformed(ValueError):
    """What is wrong, and where: ``samples[3].duration_ns is 'x', not a whole number``."""

    def __init__(self, problem: str, place: str = "") -> None:
        super().__init__(f"{place} {problem}".strip())
        self.problem, self.place = problem, place

    def inside(self, place: str) -> Malformed:
        """The same, seen from outside."""
        dot = "." if self.place and not self.place.startswith("[") else ""
        return Malformed(self.problem, f"{place}{dot}{self.place}")


def decode(kind: type[Value], values: Any) -> Value:
    """Read a value of a dataclass from what JSON gave.

    Raises
    ------
    Malformed : something is missing or of another type.
    UsageError : the dataclass itself refuses what its fields say together.
    """
    found: Value = _object_reader(typing.cast("Any", kind))(values)
    return found


def decode_shared(kind: type[Value], values: Any) -> Value:
    """As `decode`, and one object for all that are equal: for what hundreds of values hold that are kept."""
    found: Value = _shared_object_reader(typing.cast("Any", kind))(values)
    return found


@functools.cache
def _shared_object_reader(kind: Any) -> Reader:
    return _shared_reader(_object_reader(kind))


def reader_of(hint: Any, name: str) -> Reader:
    """What reads the value of a field, by its annotation without None and by its name; raises what `decode` raises."""
    return _reader(hint, name)


def encode(value: Any, *, keep_paths: bool = False) -> Any:
    """The plain JSON values of a dataclass, which `decode` reads; of a `FilePath` only the file's name, unless paths are kept."""
    if dataclasses.is_dataclass(value):
        found = {}
        for name, is_path in _written(typing.cast("Any", type(value))):
            item = getattr(value, name)
            found[name] = encode(item, keep_paths=keep_paths)
            if is_path and not keep_paths and item:
                found[name] = file_name(item) if isinstance(item, str) else list(map(file_name, item))
        return found
    if isinstance(value, list | tuple):
        if set(map(type, value)) <= {int}:  # thousands of token times
            return list(value)
        return [encode(item, keep_paths=keep_paths) for item in value]
    if isinstance(value, Mapping):
        return {str(key): encode(item, keep_paths=keep_paths) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(encode(item, keep_paths=keep_paths) for item in value)
    return value.value if isinstance(value, enum.Enum) else value


@functools.cache
def _written(kind: Any) -> tuple[tuple[str, bool], ...]:
    """The fields of a dataclass, and which of them are paths."""
    hints = typing.get_type_hints(kind, include_extras=True)
    meant = {name: without_null(hint) for name, hint in hints.items()}
    return tuple(
        (item.name, meant[item.name] == FilePath or FilePath in typing.get_args(meant[item.name]))
        for item in dataclasses.fields(kind)
    )


def file_name(path: str) -> str:
    """The name of a file without its folders, whichever system wrote the path."""
    return path.replace("\\", "/").rpartition("/")[2]


@functools.cache
def _object_reader(kind: Any) -> Reader:
    """What reads a dataclass; made once a class, since its annotations take far longer to look up than a value to be read."""
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = [
        (
            field.name,
            _reader(without_null(hints[field.name]), field.name),
            type(None) in typing.get_args(hints[field.name]),
            (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING),
            field.metadata.get(FORMERLY) or None,
        )
        for field in dataclasses.fields(kind)
        if field.init
    ]

    def read(values: Any) -> Any:
        """Field by field, so that the first thing that is wrong can be named."""
        if type(values) is not dict and not isinstance(values, Mapping):
            raise _wrong(values, "an object")
        found: dict[str, Any] = {}
        get, name = values.get, ""
        try:
            for name, read_value, may_be_null, has_default, former in fields:
                value = get(name)
                if value is None and former is not None:
                    value = _read_former(former, values)
                if value is not None:
                    found[name] = read_value(value)
                elif has_default:
                    continue
                elif may_be_null:
                    found[name] = None
                elif name in values:
                    found[name] = read_value(None)
                else:
                    break
            else:
                return kind(**found)
        except Malformed as problem:
            raise problem.inside(name) from None
        raise Malformed(f"has no {name}")

    return _compile(kind, hints, read)


def _compile(kind: Any, hints: Mapping[str, Any], read: Reader) -> Reader:
    """The same reader as one piece of code without a call a number, for what lines hold by the thousand.

    It takes what is right and hands everything else, from the beginning, to `read`, which alone decides what is wrong.
    """
    known: dict[str, Any] = {"kind": kind, "read": read, "Malformed": Malformed}
    lines = [
        "def read_quickly(values):",
        " if type(values) is not dict: return read(values)",
        " get = values.get",
        " try:",
    ]
    fields = [field for field in dataclasses.fields(kind) if field.init]
    for at, field in enumerate(fields):
        hint, name = hints[field.name], field.name
        lines.append(f"  v{at} = get({name!r})")
        if field.metadata.get(FORMERLY):
            instead = "return read(values)"
        elif field.default is not dataclasses.MISSING:
            known[f"d{at}"] = field.default
            instead = f"v{at} = d{at}"
        else:
            is_null = type(None) in typing.get_args(hint) and field.default_factory is dataclasses.MISSING
            instead = "pass" if is_null else "return read(values)"
        lines.append(f"  if v{at} is None: {instead}")
        meant = without_null(hint)
        if (test := _quick_test(meant, name, f"v{at}")) is not None:
            lines.append(f"  elif not ({test}): return read(values)")
        else:
            known[f"r{at}"] = _reader(meant, name)
            lines.append(f"  else: v{at} = r{at}(v{at})")
    # A base's fields come first, though some of them may be given by name alone.
    by_place = [f"v{at}" for at, field in enumerate(fields) if not field.kw_only]
    by_name = [f"{field.name}=v{at}" for at, field in enumerate(fields) if field.kw_only]
    given = ", ".join([*by_place, *by_name])
    lines += [" except Malformed: return read(values)", f" return kind({given})"]
    exec("\n".join(lines), known)
    quick: Reader = known["read_quickly"]
    return quick


def _quick_test(hint: Any, name: str, value: str) -> str | None:
    """What of a plain value has to be true, as Python writes it; None for what is no plain value."""
    plain, marks = split_marks(hint)
    if plain in (int, float) and type(plain) is type:
        least, _ = find_bounds(plain, name, marks)
        kinds = f"type({value}) is int" if plain is int else f"(type({value}) is float or type({value}) is int)"
        return f"{kinds} and {least!r} <= {value} < {LARGEST}"
    if plain in (str, bool) and "utc-time" not in marks:
        return f"type({value}) is {plain.__name__}"
    return None


def _read_former(former: Mapping[str, Mapping[str, Any]], values: Mapping[str, Any]) -> Any:
    """The value of a field that was called otherwise when it was written; None where it was not there either."""
    for name, meanings in former.items():
        value = values.get(name)
        if isinstance(value, str):
            if value not in meanings:
                raise _wrong(value, f"one of {', '.join(meanings)}")
            return meanings[value]
    return None


def _reader(hint: Any, name: str, marks: tuple[Any, ...] = ()) -> Reader:
    """How a value of an annotation is read; name is the field's, whose unit says more."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _reader(inside[0], name, hint.__metadata__)
    if origin in (typing.Union, types.UnionType):
        (other,) = [item for item in inside if item is not type(None)]
        read = _reader(other, name, marks)
        return lambda value: None if value is None else read(value)
    if origin in (tuple, frozenset):
        make = _list_reader(_reader(inside[0], name), inside[0], name, must_hold_some=NOT_EMPTY in marks)
        return make if origin is tuple else lambda values: frozenset(make(values))
    if origin is typing.Literal or (isinstance(hint, type) and issubclass(hint, enum.Enum)):
        return _choice_reader({item: item for item in inside} or {item.value: item for item in hint})
    if origin in (collections.abc.Mapping, dict):
        return _mapping_reader(_reader(inside[1], name))
    if dataclasses.is_dataclass(hint):
        reader = _object_reader(typing.cast("Any", hint))
        return _shared_reader(reader) if "shared" in marks else reader
    if hint in (int, float):
        return _number_reader(hint, name, marks)
    if "utc-time" in marks:
        return _read_utc
    simple = {str: _plain_reader(str, "text"), bool: _plain_reader(bool, "true or false"), Any: _read_any}
    return simple[hint]


def split_marks(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """What an annotation is without its marks, and they."""
    marks = hint.__metadata__ if typing.get_origin(hint) is Annotated else ()
    return (typing.get_args(hint)[0] if marks else hint), marks


def without_null(hint: Any) -> Any:
    """X of ``X | None``: what a field's value is where there is one."""
    inside = typing.get_args(hint)
    return next(item for item in inside if item is not type(None)) if type(None) in inside else hint


def _shared_reader(reader: Reader) -> Reader:
    """Reads equal values once and gives the same object for them; a value is known by its bytes, which tell 1 from 1.0 and true."""

    @functools.lru_cache(maxsize=MOST_SHARED)
    def read_packed(packed: bytes) -> Any:
        return reader(marshal.loads(packed))

    def read(value: Any) -> Any:
        try:
            packed = marshal.dumps(value, _PLAIN)
        except ValueError:  # no plain JSON
            return reader(value)
        return read_packed(packed) if len(packed) <= MOST_SHARED_BYTES else reader(value)

    return read


def _list_reader(reader: Reader, item: Any, name: str, *, must_hold_some: bool) -> Reader:
    is_counts = item is int and name.endswith(_QUANTITIES)

    def read(values: Any) -> tuple[Any, ...]:
        if not isinstance(values, list | tuple):
            raise _wrong(values, "a list")
        if not values:
            if must_hold_some:
                raise Malformed("is empty")
            return ()
        # A record holds thousands of token times: the usual case is checked all at once.
        if is_counts and set(map(type, values)) == {int} and min(values) >= 0 and sum(values) < LARGEST:
            return tuple(values)
        found: list[Any] = []
        try:
            for value in values:
                found.append(reader(value))
        except Malformed as problem:
            raise problem.inside(f"[{len(found)}]") from None
        return tuple(found)

    return read


def _mapping_reader(reader: Reader) -> Reader:
    def read(values: Any) -> dict[str, Any]:
        if not isinstance(values, Mapping):
            raise _wrong(values, "an object")
        found, key = {}, ""
        try:
            for key, value in values.items():
                found[str(key)] = reader(value)
        except Malformed as problem:
            raise problem.inside(str(key)) from None
        return found

    return read


def _number_reader(kind: type[int] | type[float], name: str, marks: tuple[Any, ...]) -> Reader:
    least, what = find_bounds(kind, name, marks)
    kinds = (int,) if kind is int else (int, float)

    # A truth value is an int to Python and no number to anybody else; NaN is within no bounds.
    def read(value: Any) -> Any:
        if type(value) in kinds and least <= value < LARGEST:
            return value
        raise _wrong(value, what)

    return read


def find_bounds(kind: type[int] | type[float], name: str, marks: tuple[Any, ...]) -> tuple[float, str]:
    """The least value that a number may have, by its field's name and marks, and what it is called."""
    is_whole, is_positive = kind is int, "above 0" in marks
    is_quantity = name.endswith(_QUANTITIES) and "signed" not in marks
    what = "a whole number" if is_whole else "a number"
    what += " above 0" if is_positive else " from 0 on" if is_quantity else ""
    return (1 if is_whole else math.ulp(0.0)) if is_positive else 0 if is_quantity else 1 - LARGEST, what


def _plain_reader(kind: type, expected: str) -> Reader:
    def read(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        raise _wrong(value, expected)

    return read


def _choice_reader(choices: Mapping[Any, Any]) -> Reader:
    """Reads one of some values."""
    expected = "one of " + ", ".join(map(str, choices))

    def read(value: Any) -> Any:
        if type(value) in map(type, choices) and value in choices:
            return choices[value]
        raise _wrong(value, expected)

    return read


def _read_any(value: Any) -> Any:
    """Whatever it is, as long as its numbers are finite."""
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(value, "a finite number")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _read_any(item)
    return value


def _read_utc(value: Any) -> str:
    match = _UTC.fullmatch(value) if isinstance(value, str) else None
    day = int(match[3]) if match else 0
    if match is None or not (1 <= day <= 28 or 28 < day <= calendar.monthrange(int(match[1]), int(match[2]))[1]):
        raise _wrong(value, "a time such as 2026-11-24T10:59:57Z")
    return str(value)


def _wrong(value: Any, expected: str) -> Malformed:
    shown = repr(value)
    return Malformed(f"is {shown if len(shown) <= 40 else shown[:39] + '…'}, not {expected}")
