"""Lines that are read quickly say what they say when they are read slowly, and what is spoilt is told as ever."""

from __future__ import annotations

import json
import pathlib
import random

import pytest

from harness.records import journal
from harness.records.cells import Load, Record
from harness.records.journal import DETAILS, TOKEN_TIMES, read_lines
from harness.records.quick_lines import read_quickly
from harness.records.upgrades import CHANGED_OF_CELLS, UPGRADES

from .conftest import HERE
from .same import plain

KEPT = sorted([*(HERE.parent / "bench_results").rglob("*.jsonl"), *(HERE / "recorded").glob("*.jsonl")])
#: What readers leave out.
WITHOUT = {"table": (TOKEN_TIMES, "load", "dispatch_ns_per_token"), "report": (TOKEN_TIMES,), "history": tuple(DETAILS)}

#: What may stand in the place of any value.
JUNK = [
    b"null", b"-1", b"0", b"1.5", b"1e400", b"1e5", b"-0.0", b"1.0", b"true", b'""', b'"x"', b"[]", b"{}", b"[1]", b"NaN", b"nul",
    b"-Infinity", b"9223372036854775807", b"9223372036854775808", b"1" * 5000, b"01", b"1,", b'"\\ud800"', b'"\xff"', b'"\x01"',
    b'"2026-02-30T00:00:00Z"', b'"2026-02-28T00:00:00Z"', b'{"a":[1]}', *(b"[" * n + b"]" * n for n in (60, 97, 98, 99, 100, 101, 2000)),
]  # fmt: skip


def cells() -> list[bytes]:
    """A few lines of cells of every edition, the shortest of each journal."""
    lines = ([line for line in path.read_bytes().splitlines(True) if journal._CELL.match(line)] for path in KEPT)
    return [min(found, key=len) for found in lines if found]


CELLS = cells()


@pytest.fixture
def read_both(tmp_path, monkeypatch):
    """Read a line quickly and slowly: what it holds, and what is told of it."""
    path = tmp_path / "one.jsonl"

    def read(line: bytes, without):
        path.write_bytes(line)
        answers = []
        for quick in (read_quickly, lambda *_: None):
            monkeypatch.setattr(journal, "read_quickly", quick)
            told: list[str] = []
            found = [plain(one) for one in read_lines([path], told.append, ("result", "failure"), without)]
            answers.append((found, told))
        return answers

    return read


def places(value, place=()):
    """Where values are in a line; of a list the first two."""
    yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*place, key))


@pytest.mark.parametrize("name", WITHOUT)
@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_what_was_kept_is_read_the_same(path, name, tmp_path, monkeypatch):
    def warn(text):
        pytest.fail(text)

    quick = [plain(line) for line in read_lines([path], warn, without=WITHOUT[name])]
    monkeypatch.setattr(journal, "read_quickly", lambda *_: None)
    assert [plain(line) for line in read_lines([path], warn, without=WITHOUT[name])] == quick


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: junk[:30])
@pytest.mark.parametrize("name", WITHOUT)
def test_anything_in_any_place_is_told_as_ever(name, junk, read_both):
    draw = random.Random(repr((name, junk)))
    for line in CELLS:
        values = json.loads(line)
        for place in draw.sample([place for place in places(values) if place], 6):
            spoilt, mark = json.loads(line), "\u2026mark\u2026"
            at = spoilt
            for key in place[:-1]:
                at = at[key]
            at[place[-1]] = mark
            text = json.dumps(spoilt, separators=(",", ":"), ensure_ascii=False).replace(f'"{mark}"', "@").encode()
            quick, slow = read_both(text.replace(b"@", junk), WITHOUT[name])
            assert quick == slow, place


@pytest.mark.parametrize("seed", range(8))
def test_spoilt_bytes_are_told_as_ever(seed, read_both):
    draw = random.Random(seed)
    for _ in range(60):
        line = bytearray(draw.choice(CELLS))
        for _ in range(draw.choice((1, 1, 2))):
            place = draw.randrange(len(line))
            line[place : place + draw.choice((0, 1, 1, 3))] = bytes([draw.choice(b'x"{},\xff-.0\\\x00 e]')])
        quick, slow = read_both(bytes(line.replace(b"\n", b" ")), WITHOUT[draw.choice([*WITHOUT])])
        assert quick == slow


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace(b'"command":', b'"later":{"a":[1]},"command":'),
        lambda line: line.replace(b'"command":', b'"samples":7,"command":'),
        lambda line: line.replace(b'"command":', b'"label":"mine","command":'),
        lambda line: line.replace(b'"command":', b'"label":null,"command":'),
        lambda line: line.replace(b'"command":', b'"label":["mine"],"command":'),
        lambda line: line.replace(b'"is_warmup":', b'"later":1,"is_warmup":'),
        lambda line: line.replace(b'"kind":"result"', b'"kind":"failure"'),
        lambda line: line.replace(b'"kind":"result"', b'"kind":"roofline"'),
        lambda line: line.replace(b'{"schema":', b'{"schema":9'),
        lambda line: line.replace(b'{"schema":', b'{"schema":0'),
        lambda line: line[: len(line) // 2],
        lambda line: line.rstrip() + b"}\n",
        lambda line: b"\xef\xbb\xbf" + line,
        lambda line: line.replace(b'"machine":{', b'"machine":{"os":1,'),
        lambda line: line.replace(b'"is_warmup":false', b'"is_warmup":null'),
        lambda line: line.replace(b'"is_warmup":false', b'"is_warmup":0'),
    ],
)
def test_other_lines_are_told_as_ever(change, read_both):
    for line in CELLS:
        for without in WITHOUT.values():
            quick, slow = read_both(change(line), without)
            assert quick == slow


def test_it_is_quick_where_it_can_be():
    told = [read_quickly(journal._TOKEN_TIMES.sub(b'"token_ns":[]', line), None, frozenset(), 1) for line in CELLS]
    assert sum(line is not None for line in told) > 0.9 * len(told)
    loads = [line.content.load for line in told if line is not None and isinstance(line.content, Record)]
    assert any(isinstance(load, Load) for load in loads)


def test_equal_parts_are_one_object(tmp_path):
    path = pathlib.Path(tmp_path / "two.jsonl")
    path.write_bytes(CELLS[0].rstrip() + b"\n" + CELLS[0])
    one, other = (line.content for line in read_lines([path], pytest.fail, without=(TOKEN_TIMES,)))
    for part in ("asked", "machine", "build", "model", "resolved"):
        assert getattr(one, part) is getattr(other, part)


@pytest.mark.parametrize("kind", ["result", "failure"])
def test_steps_of_cells_change_only_what_is_named(kind):
    """A line of an older schema without these is read as one of the latest."""
    values = {**json.loads(CELLS[0]), **dict.fromkeys(CHANGED_OF_CELLS)}
    for upgrade in UPGRADES[kind]:
        assert upgrade(values) is values
