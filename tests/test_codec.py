"""Values from JSON are of the annotated types all the way down, or refused with the place of what is wrong."""

from __future__ import annotations

import enum
import json
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from harness.codec import (
    NOT_EMPTY,
    FilePath,
    Malformed,
    Positive,
    PositiveNumber,
    Shared,
    Signed,
    UtcTime,
    decode,
    encode,
)


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Whole:
    duration_ns: Positive
    token_ns: tuple[int, ...]
    parts: tuple[Part, ...] = ()
    by_name: Mapping[str, int] | None = None
    is_good: bool = False
    rate: float = 1.0
    n_layers: int = 0
    change_bytes: Signed | None = None
    time_utc: UtcTime = "2026-11-24T10:59:57Z"
    some: Annotated[tuple[str, ...], NOT_EMPTY] = ("x",)
    window_s: PositiveNumber = 1.0
    anything: Any = None


GOOD: dict[str, Any] = {"duration_ns": 5, "token_ns": [1, 2]}


def test_a_value_comes_back_with_tuples_mappings_and_nested_values():
    values = {
        **GOOD, "parts": [{"name": "a", "size_bytes": None}, {"name": "b"}], "by_name": {"CPU": 3}, "rate": 2,
        "change_bytes": -7, "n_layers": -1, "later_field": [{}],
    }  # fmt: skip
    found = decode(Whole, values)
    assert found == Whole(5, (1, 2), (Part("a"), Part("b")), {"CPU": 3}, False, 2, -1, -7)
    assert decode(Whole, {**GOOD, "parts": None, "rate": None}) == Whole(5, (1, 2)), "null where there is a default"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"duration_ns": 0}, "duration_ns is 0, not a whole number above 0"),
        ({"duration_ns": -5}, "duration_ns is -5, not"),
        ({"duration_ns": True}, "duration_ns is True, not"),
        ({"duration_ns": 54.5}, "duration_ns is 54.5, not"),
        ({"duration_ns": 2**63}, "duration_ns is 9223372036854775808, not"),
        ({"duration_ns": None}, "duration_ns is None, not"),
        ({"token_ns": [1, -1]}, r"token_ns\[1\] is -1, not a whole number from 0 on"),
        ({"token_ns": [1, 2.0]}, r"token_ns\[1\] is 2.0"),
        ({"token_ns": 3}, "token_ns is 3, not a list"),
        ({"token_ns": "12"}, "token_ns is '12', not a list"),
        ({"parts": [{"name": "a"}, {}]}, r"parts\[1\] has no name"),
        ({"parts": [{"name": "a", "size_bytes": -1}]}, r"parts\[0\]\.size_bytes is -1"),
        ({"parts": ["a"]}, r"parts\[0\] is 'a', not an object"),
        ({"by_name": []}, r"by_name is \[\], not an object"),
        ({"by_name": {"CPU": "3"}}, "by_name.CPU is '3'"),
        ({"is_good": 1}, "is_good is 1, not true or false"),
        ({"rate": math.nan}, "rate is nan, not a number"),
        ({"rate": math.inf}, "rate is inf, not a number"),
        ({"rate": "1"}, "rate is '1'"),
        ({"window_s": 0.0}, "window_s is 0.0, not a number above 0"),
        ({"time_utc": "2026-02-30T00:00:00Z"}, "time_utc is '2026-02-30T00:00:00Z', not a time"),
        ({"time_utc": "yesterday"}, "time_utc is 'yesterday', not a time"),
        ({"some": []}, "some is empty"),
        ({"n_layers": "x" * 99}, "n_layers is 'x+…, not"),
    ],
)
def test_another_type_is_refused_with_its_place(changed, expected):
    with pytest.raises(Malformed, match=f"^{expected}"):
        decode(Whole, {**GOOD, **changed})


def test_what_is_missing_is_named():
    with pytest.raises(Malformed, match=r"^has no token_ns$"):
        decode(Whole, {"duration_ns": 5})
    with pytest.raises(Malformed, match=r"^is \[\], not an object$"):
        decode(Whole, [])


class Colour(enum.Enum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Written:
    model: FilePath
    colour: Colour
    way: Literal["on", "off"]
    causes: frozenset[str]
    files: tuple[FilePath, ...] = ()
    part: Part | None = None
    beside: FilePath | None = None


WRITTEN = Written("/home/me/a.gguf", Colour.RED, "on", frozenset({"b", "a"}), ("C:\\me\\a.gguf", "b.gguf"), Part("x"))


def test_what_is_written_can_be_read_and_names_no_folder():
    values = encode(WRITTEN)
    assert values == {
        "model": "a.gguf", "colour": "red", "way": "on", "causes": ["a", "b"], "files": ["a.gguf", "b.gguf"],
        "part": {"name": "x", "size_bytes": None}, "beside": None,
    }  # fmt: skip
    assert encode(decode(Written, json.loads(json.dumps(values)))) == values


def test_to_a_worker_of_ours_goes_the_whole_path():
    assert decode(Written, json.loads(json.dumps(encode(WRITTEN, keep_paths=True)))) == WRITTEN


@pytest.mark.parametrize(
    "changed", [{"colour": "blue"}, {"way": "perhaps"}, {"way": True}, {"colour": []}, {"causes": "a"}]
)
def test_what_is_none_of_the_choices_is_refused(changed):
    with pytest.raises(Malformed):
        decode(Written, {**encode(WRITTEN), **changed})


# The same values again and again, and many of them.


@dataclass(frozen=True, slots=True)
class Line:
    part: Shared[Part]
    token_ns: tuple[int, ...] = ()
    perhaps: Shared[Part] | None = None


def test_equal_values_of_a_shared_field_are_one_object_and_others_are_not():
    first = decode(Line, {"part": {"name": "a"}, "perhaps": {"name": "b"}})
    second = decode(Line, {"part": {"name": "a"}, "perhaps": {"name": "b"}})
    assert first.part is second.part
    assert first.perhaps is second.perhaps
    assert decode(Line, {"part": {"name": "b"}}).part == Part("b")
    assert decode(Line, {"part": {"name": "a"}, "perhaps": None}).perhaps is None


@pytest.mark.parametrize("size", [True, 1.0, -1, "1"])
def test_what_equals_a_shared_value_and_is_of_another_type_is_refused_each_time(size):
    decode(Line, {"part": {"name": "a", "size_bytes": 1}})
    for _ in range(2):
        with pytest.raises(Malformed, match=r"^part\.size_bytes is "):
            decode(Line, {"part": {"name": "a", "size_bytes": size}})


def test_a_shared_value_that_is_no_json_or_long_is_read_all_the_same():
    assert decode(Line, {"part": types.MappingProxyType({"name": "a"})}).part == Part("a")
    long = {"name": "a" * 100_000}
    assert decode(Line, {"part": long}).part is not decode(Line, {"part": long}).part, "nothing long is kept"
    with pytest.raises(Malformed, match=r"^part is <object object"):
        decode(Line, {"part": object()})


@pytest.mark.parametrize("wrong", [True, 2.0, -1, 2**63, None, "x"])
def test_one_wrong_value_among_many_is_named(wrong):
    with pytest.raises(Malformed, match=rf"^token_ns\[500\] is {wrong!r}, not a whole number from 0 on$"):
        decode(Line, {"part": {"name": "a"}, "token_ns": [5] * 500 + [wrong] + [5] * 500})


def test_many_large_values_are_read_though_their_sum_is_beyond_all_bounds():
    assert decode(Line, {"part": {"name": "a"}, "token_ns": [2**62] * 4}).token_ns == (2**62,) * 4
