"""Lines of cells, read ten times as fast: what a hundred thousand of them take decides how long one waits for a report.

msgspec reads a line in one go and checks it against stand-ins, which are made from the annotations of `cells.Record` and its parts with
the bounds of `harness.codec`. What many lines have in common stays text, and equal text is read once. Samples stay stand-ins: they have
a sample's fields and cost a tenth of one, and whoever reads lines so looks at them once and lets them go.

Nothing is refused here. A line that is unusual in any way, of an older schema, with a field that is not known or of another type, not
UTF-8 or no JSON, is None, and `journal` reads it as it reads all others and says what is wrong with it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import sys
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from harness.codec import (
    FORMERLY,
    LARGEST,
    MOST_SHARED,
    MOST_SHARED_BYTES,
    FilePath,
    Shared,
    UtcTime,
    find_bounds,
    reader_of,
    split_marks,
    without_null,
)
from harness.errors import HarnessError
from harness.records.cells import SCHEMA, Conditions, Load, Record, Sample
from harness.records.kinds import KINDS, Line
from harness.records.upgrades import CHANGED_OF_CELLS
from harness.spec import RunSpec
from harness.untrusted.json import MAX_DEPTH, count_brackets, read_json

#: Parts that differ from line to line, for which a class of msgspec stands in.
_OWN = (Conditions, Load, Sample)


class _Unusual(ValueError):
    """The line is for others to read."""


_CHANGED = operator.attrgetter(*CHANGED_OF_CELLS)


@dataclass(frozen=True, slots=True)
class _Reader:
    """What reads lines: decode reads a text and raises one of errors; values takes a record's values from what it gave, in their order;
    converts say what some of them become, by their place."""

    decode: Callable[[bytes], Any]
    errors: tuple[type[Exception], ...]
    values: Callable[[Any], tuple[Any, ...]]
    converts: tuple[tuple[int, Callable[[Any], Any]], ...]


def read_quickly(raw: bytes, kinds: Collection[str] | None, without: frozenset[str], number: int) -> Line | None:
    """A line of a cell, the so manieth of its file, with stand-ins for samples; None where it is unusual or of none of the kinds.

    Parameters
    ----------
    without : fields that are not looked at and get their defaults
    """
    reader = _make_reader(without)
    try:
        cell = reader.decode(raw)
        if KINDS.get(cell.kind) is not Record or (kinds is not None and cell.kind not in kinds):
            return None
        values = list(reader.values(cell))
        for place, convert in reader.converts:
            values[place] = convert(values[place])
        record = Record(*values)
    except reader.errors:
        return None
    if cell.schema != SCHEMA and not (0 < cell.schema < SCHEMA and not any(_CHANGED(record))):
        return None
    return Line(cell.kind, cell.schema, record.machine, record.harness_version, cell.label, record, number)


@functools.cache
def _make_reader(without: frozenset[str]) -> _Reader:
    """The reader of lines without some fields."""
    import msgspec

    hints = typing.get_type_hints(Record, include_extras=True)
    members: list[tuple[Any, ...]] = [("kind", str), ("label", str | None, None)]
    converts: list[tuple[int, Callable[[Any], Any]]] = []
    fields = dataclasses.fields(Record)
    for place, field in enumerate(fields):
        hint = hints[field.name]
        convert: Callable[[Any], Any] | None = None
        found = None if field.name in without else _member(field, hint)
        if field.name == "schema":  # the line's own is needed, and becomes the latest
            found, convert = (field.name, int), lambda _: SCHEMA
        elif found is None:
            found = (field.name, msgspec.Raw, msgspec.Raw())
            convert = _leave_out(field) if field.name in without else _read_once(field, hint)
        elif without_null(hint) is Load:
            convert = _make_load
        elif hint == UtcTime:
            convert = functools.lru_cache(MOST_SHARED)(reader_of(hint, field.name))
        members.append(found)
        if convert is not None:
            converts.append((place, convert))
    # Those that have no default come first.
    cell = msgspec.defstruct("Cell", sorted(members, key=len), forbid_unknown_fields=True)
    values = operator.attrgetter(*(field.name for field in fields))
    errors = (msgspec.MsgspecError, ValueError, HarnessError, RecursionError)
    return _Reader(msgspec.json.Decoder(cell).decode, errors, values, tuple(converts))


def _member(field: dataclasses.Field[Any], hint: Any) -> tuple[Any, ...] | None:
    """A field as msgspec takes it, so that it holds what `codec` lets it hold; None for one that is not as simple as that."""
    meant, may_be_null = without_null(hint), type(None) in typing.get_args(hint)
    kind = None if field.metadata.get(FORMERLY) else _stand_in(meant, field.name)
    if kind is None or field.default_factory is not dataclasses.MISSING:
        return None
    # Null means the default; where that is another value, `codec` knows.
    if field.default is None or (may_be_null and field.default is dataclasses.MISSING):
        return field.name, kind | None, None
    return (field.name, kind) if field.default is dataclasses.MISSING else (field.name, kind, field.default)


def _stand_in(hint: Any, name: str) -> Any:
    """What stands in for an annotation that is not None; None where nothing does."""
    import msgspec

    plain, marks = split_marks(hint)
    if plain in (int, float):
        least, _ = find_bounds(plain, name, marks)
        whole = Annotated[int, msgspec.Meta(ge=math.ceil(least), le=LARGEST - 1)]
        if plain is int:
            return whole
        end = float(LARGEST)
        bounds = msgspec.Meta(gt=-end, lt=end) if least < 0 else msgspec.Meta(ge=float(least), lt=end)
        return Annotated[float, bounds] | whole
    if hint in (str, bool, UtcTime, FilePath):
        return plain
    if typing.get_origin(hint) is tuple:
        inside = typing.get_args(hint)[0]
        item = _stand_in(inside, name) if inside in (int, float, str, *_OWN) else None
        return None if item is None else tuple[item, ...]  # type: ignore[valid-type]
    return _stand_in_of(hint) if hint in _OWN else None


@functools.cache
def _stand_in_of(kind: Any) -> Any:
    """A class of msgspec with the fields of a dataclass all of which are simple."""
    import msgspec

    hints = typing.get_type_hints(kind, include_extras=True)
    members = [_member(field, hints[field.name]) for field in dataclasses.fields(kind)]
    fields: list[Any] = sorted(filter(None, members), key=len)
    assert len(fields) == len(members), f"{kind} has a field for which nothing stands in"
    return msgspec.defstruct(kind.__name__, fields, forbid_unknown_fields=True, gc=False)


_load_values = operator.attrgetter(*Load.__slots__)


def _make_load(found: Any) -> Load | None:
    return None if found is None else Load(*_load_values(found))


def _read_once(field: dataclasses.Field[Any], hint: Any) -> Callable[[Any], Any]:
    """What reads the text of a field as `codec` does, and equal ones once."""
    read, quick = reader_of(without_null(hint), field.name), _make_quick(without_null(hint))
    is_needed = field.default is dataclasses.MISSING and type(None) not in typing.get_args(hint)
    default = None if field.default is dataclasses.MISSING else field.default

    def read_text(text: bytes) -> Any:
        if count_brackets(text) >= MAX_DEPTH:  # the line is one deeper
            raise _Unusual
        if quick is not None and text and (found := quick(text)) is not None:
            return found
        value = read_json(text.decode("utf-8", "replace")) if text else None
        if value is None and is_needed:
            raise _Unusual
        return default if value is None else read(value)

    known = functools.lru_cache(MOST_SHARED)(read_text)
    latest: tuple[bytes, Any] = (b"", None)

    def convert(raw: Any) -> Any:
        nonlocal latest
        text = bytes(raw)
        if text != latest[0] or not text:  # to compare takes less than to hash
            latest = (text, known(text) if len(text) <= MOST_SHARED_BYTES else read_text(text))
        return latest[1]

    return convert


def _make_quick(hint: Any) -> Callable[[bytes], Any] | None:
    """What reads a text that many lines have no other like; of one that is unusual it makes None. None: the part has no such reader."""
    if hint != Shared[RunSpec]:
        return None
    import msgspec

    hints = typing.get_type_hints(RunSpec, include_extras=True)
    fields = dataclasses.fields(RunSpec)
    former = {item.name: item.metadata[FORMERLY] for item in fields if item.metadata.get(FORMERLY)}
    members = [_member(item, hints[item.name]) for item in fields if item.name not in former]
    assert None not in members, "what is asked has a field for which nothing stands in"
    # None where it is called as it was formerly, which is looked up then.
    names = dict.fromkeys([*former, *(name for names in former.values() for name in names)])
    members += [(name, str | None, None) for name in names]
    kind: Any = msgspec.defstruct("Asked", sorted(filter(None, members), key=len), forbid_unknown_fields=True, gc=False)
    decode = msgspec.json.Decoder(kind).decode
    values = operator.attrgetter(*(item.name for item in fields))
    later = [(place, item) for place, item in enumerate(fields) if item.name in former]
    words = [place for place, item in enumerate(fields) if without_null(hints[item.name]) in (str, FilePath)]

    def read(text: bytes) -> RunSpec | None:
        try:
            found = decode(text)
        except (msgspec.MsgspecError, RecursionError):
            return None
        own = list(values(found))
        for place, item in later:
            if own[place] is None:
                try:
                    own[place] = _read_former(former[item.name], found, item.default)
                except KeyError:  # `codec` says what it may be
                    return None
        for place in words:
            own[place] = sys.intern(own[place])
        return RunSpec(*own)

    return read


def _read_former(former: Mapping[str, Mapping[str, Any]], found: Any, default: Any) -> Any:
    """The value of a field by what it was called formerly, its default where it was not there either."""
    for name, meanings in former.items():
        if (value := getattr(found, name)) is not None:
            return meanings[value]
    return default


def _leave_out(field: dataclasses.Field[Any]) -> Callable[[Any], Any]:
    """What gives a field its default, unless its text is one that no reader of JSON takes: too deep, or a number of too many digits."""

    def convert(raw: Any) -> Any:
        text = bytes(raw)
        if len(text) >= 4000 or (len(text) > MAX_DEPTH and count_brackets(text) >= MAX_DEPTH):
            raise _Unusual
        return field.default

    return convert
