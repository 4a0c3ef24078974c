"""JSON from outside: what is nested too deep is refused, however it is written, and nothing else is."""

from __future__ import annotations

import pytest

from harness.untrusted.json import MAX_DEPTH, is_count, read_json


@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("beside", ["", "[],", "{}," * 200])
@pytest.mark.parametrize("kind", [str, str.encode, lambda text: bytearray(text, "utf-16")])
def test_the_bound_is_the_same_for_every_text(begin, end, beside, kind):
    def nested(depth):
        inner = f"[{beside}1]"
        return kind(begin * (depth - 1) + inner + end * (depth - 1))

    deepest = MAX_DEPTH - bool(beside)  # what lies beside the number is one deeper
    read_json(nested(deepest))
    with pytest.raises(ValueError, match="nested too deep"):
        read_json(nested(deepest + 1))


def test_brackets_in_a_text_are_no_depth():
    assert read_json('"' + "[{" * 200 + '"') == "[{" * 200
    assert read_json('{"' + "[" * 200 + '": [1]}') == {"[" * 200: [1]}


def test_thousands_of_values_side_by_side_are_read():
    assert read_json("[" + ",".join(["[1, {}]"] * 5000) + "]") == [[1, {}]] * 5000


def test_a_count_is_a_whole_number_within_its_bound():
    assert [value for value in (0, 1, 2**63 - 1, 2**63, -1, True, False, 1.0, "1", None, [1]) if is_count(value)] == [
        0,
        1,
        2**63 - 1,
    ]
    assert is_count(65535, 2**16)
    assert not is_count(65536, 2**16)
