"""Lines of journals: those of the first edition stay readable, and a damaged one costs itself and nothing else."""

from __future__ import annotations

import cProfile
import dataclasses
import json
import os
import pathlib
import tracemalloc

import pytest

from harness.codec import Malformed, decode
from harness.errors import HarnessError
from harness.records.ab import Ab, Arm, Block, Side, Stop
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Conditions, Record
from harness.records.failures import describe_failure
from harness.records.journal import LONGEST_LINE_BYTES, Journal, each_record, read_lines, read_records
from harness.records.journal_files import journal_order
from harness.records.kinds import KINDS, Line, read_line, schema_of, to_json
from harness.records.noise import NoiseBlock, NoiseRecord, Tuning
from harness.records.ollama import Answer, Comparison, DirectText, Loaded, Round, Task
from harness.records.quality import Divergence, QualityRecord, Reference, TextFacts, Window
from harness.records.roofline import Roof
from harness.records.speculation import Manner, Member, Passage, Speculation
from harness.records.text import Figures, TextRun, TextSettings
from harness.records.tuning import LeftOut, Part, ShortTests, TuneBlock, TuneCandidate, TuneRace, TuneRecord, Why, Work
from harness.records.upgrades import UPGRADES
from harness.sources.user_catalog import load_catalog
from harness.speed.rates import collect
from harness.speed.standings import measured_rows
from harness.views.formats import render
from harness.views.machines import describe_machines
from harness.views.report import Material, read_material
from harness.views.report.chapters import CHAPTERS
from tests.places import with_value

from .conftest import HERE

KEPT = sorted([*(HERE.parent / "bench_results").rglob("*.jsonl"), *(HERE / "recorded").glob("*.jsonl")])


def first_lines() -> dict[str, dict]:
    """One line of each kind that was kept, the shortest one."""
    found: dict[str, str] = {}
    for path in KEPT:
        for text in path.read_bytes().decode("utf-8").split("\n"):
            if (text and (kind := json.loads(text)["kind"]) not in found) or (text and len(text) < len(found[kind])):
                found[kind] = text
    return {kind: json.loads(text) for kind, text in found.items()}


def made_lines(result: dict) -> dict[str, dict]:
    """The kinds of which none was kept, as they are written."""
    record = decode(Record, result)
    figures = Figures(2 * 10**9, 10**8, 30, 3 * 10**8, 100, 10**9, 4 * 10**8)
    text = TextRun(
        "run", record.time_utc, record.machine, "0.1", TextSettings(n_ctx=64), "hash", figures, "stop", model=record.model,
        build=record.build, resolved=record.resolved, token_ns=(5, 6), warnings=(Caution(CautionCause.SENTENCE, "y"),),
    )  # fmt: skip
    answer = Answer(10**9, 10**8, 30, 10**8, 100, 10**9, wall_ns=2 * 10**9)
    rounds = (Round(DirectText(figures, (5, 6), warnings=text.warnings), answer, 10**8),)
    comparison = Comparison(
        Task("llama3.2:1b", "sha256-0", 64, 1, None, 30, 100, 1), rounds, record.machine, record.time_utc, ollama_version="0.5.1",
        ollama_loaded=Loaded(5, 0, None), model=record.model, build=record.build, resolved=record.resolved,
    )  # fmt: skip
    block = NoiseBlock(record.asked, 0, record.samples)
    noise = NoiseRecord(
        record.time_utc, record.machine, "0.1", 30.0, (block,), Tuning(governors=("powersave",), core_cpus=(0, 1)), record.build,
        record.model, record.resolved, warnings=text.warnings,
    )  # fmt: skip
    side = Side(record.asked, record.model, record.build, record.resolved, record.load)
    blocks = (Block(Arm.B, record.samples), Block(Arm.A, record.samples))
    ab = Ab("ab", record.time_utc, record.machine, "0.1", side, side, Stop.TIME, blocks, elapsed_ns=5)
    apart = Divergence(5.0, 6.0, 5.5, 0.1, 0.2, 0.05, -1e-6, 0.01, 0.002, 1e-5, 0.3, 2)
    quality = QualityRecord(
        "quality", record.time_utc, record.asked, record.machine, "0.1", TextFacts("alice.txt", "ab", 5, True, 9), 2,
        (Window(3, 5.5, 7.0, apart), Window(3, None, None)), {"0": 1, "900": 2}, Reference(record.asked, record.model), record.model,
        record.build, record.resolved, warnings=text.warnings,
    )  # fmt: skip
    passage = Passage(0, 0, 2, (2, 0), (1, 0), (5, 0), (7, 6), (3, 0), 3, "length")
    member = Member(record.asked, record.model, record.resolved, 5)
    speculation = Speculation(
        record.time_utc, record.machine, "0.1", member, member, Manner(lengths=(2,)), "partial", passages=(passage,), build=record.build,
        warnings=text.warnings,
    )  # fmt: skip
    race = TuneRace(
        ("n_ubatch",), (TuneCandidate(record.asked), TuneCandidate(record.asked)), (TuneBlock(0, Part.PROMPT, (5, 6)),)
    )
    tuning = TuneRecord(
        "tune", record.time_utc, record.machine, "0.1", record.asked, Work("chat", 512, 256, 0, 4096), ShortTests(64, 8, 0),
        baseline=(TuneBlock(0, Part.PROMPT, (5,), (Conditions(9, 2, 2),)),), races=(race,), left_out=(LeftOut(("poll",), Why.NO_EFFECT),),
        model=record.model, build=record.build, resolved=record.resolved, warnings=text.warnings,
    )  # fmt: skip
    return {
        "tuning": to_json(tuning),
        "speculation": to_json(speculation),
        "run": to_json(text),
        "ollama-comparison": to_json(comparison),
        "noise": to_json(noise),
        "ab": to_json(ab),
        "quality": to_json(quality),
    }


LINES = first_lines()
LINES = json.loads(json.dumps({**LINES, **made_lines(LINES["result"])}))


def write(path: pathlib.Path, *lines: dict | str) -> pathlib.Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8", newline="\n")
    return path


def test_every_line_of_the_first_edition_is_readable():
    lines = list(read_lines(KEPT, pytest.fail))
    assert len(lines) == sum(path.read_bytes().count(b"\n") for path in KEPT)
    first = {"result", "failure", "overhead", "time-ledger", "roofline", "parity"}
    assert {line.kind for line in lines} >= first
    assert set(LINES) == set(KINDS)
    assert all(line.content is not None for line in lines)


@pytest.mark.parametrize("kind", sorted(LINES))
def test_a_newer_schema_is_refused_by_its_number(tmp_path, kind):
    journal = write(tmp_path / "a.jsonl", {**LINES[kind], "schema": schema_of(kind) + 1}, LINES[kind])
    told: list[str] = []
    assert [line.kind for line in read_lines([journal], told.append)] == [kind]
    (sentence,) = told
    assert f"{journal}:1:" in sentence
    assert f"it has schema {schema_of(kind) + 1} of kind {kind}" in sentence
    assert "update harness" in sentence


@pytest.mark.parametrize("kind", sorted(set(LINES) - {"result", "failure"}))
def test_a_line_of_one_kind_is_none_of_another(kind):
    with pytest.raises(Malformed):
        read_line({**LINES["result"], "kind": kind})


def test_each_kind_knows_the_way_from_every_older_schema():
    assert {name: len(UPGRADES.get(name, ())) + 1 for name in KINDS} == {name: schema_of(name) for name in KINDS}
    assert set(UPGRADES) <= set(KINDS)


def test_what_a_cause_says_is_not_stored_beside_it(recorded):
    failure = {
        "phase": "load",
        "message": "the worker ended by itself with exit code 9",
        "cause": "exit",
        "exit_code": 9,
    }
    older = {**to_json(recorded[0]), "schema": 1, "kind": "failure", "failure": failure}
    read = read_line(older).content.failure
    assert (read.message, describe_failure(read)) == (None, failure["message"])


def test_an_older_line_is_brought_up_before_it_is_read(monkeypatch):
    line = LINES["roofline"]
    older = {**line, "tests": None, "pieces": line["tests"]}
    monkeypatch.setitem(UPGRADES, "roofline", (lambda values: {**values, "tests": values["pieces"]},))
    assert read_line(older).content == decode(Roof, {**line, "schema": schema_of("roofline")})
    with pytest.raises(Malformed, match="is not what schema 1 of kind roofline holds"):
        read_line(line)


@pytest.mark.parametrize("kind", sorted(LINES))
def test_what_was_read_is_written_again_and_reads_the_same(kind):
    content = read_line(LINES[kind]).content
    again = json.loads(json.dumps(to_json(content)))
    assert list(again)[:2] == ["schema", "kind"]
    assert read_line(again).content == content


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "0", "-5"])
def test_a_duration_that_cannot_be_costs_its_line(tmp_path, literal):
    good = LINES["result"]
    duration = f'"duration_ns": {good["samples"][0]["duration_ns"]}'
    journal = write(tmp_path / "a.jsonl", json.dumps(good).replace(duration, f'"duration_ns": {literal}'), good)
    told: list[str] = []
    assert len(list(read_lines([journal], told.append))) == 1
    assert len(told) == 1


def test_a_line_ends_at_a_line_feed_only(tmp_path, recorded):
    name = "a\u2028b\u0085c\x0b\x1c.gguf"
    line = json.loads(json.dumps(to_json(recorded[0])))
    line["asked"]["model"] = line["model"]["file_name"] = name
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    (record,) = each_record([path], pytest.fail)
    assert record.model is not None
    assert record.model.file_name == name


def test_a_name_that_is_not_utf_8_comes_back_as_it_was(tmp_path, recorded):
    name = b"caf\xe9.gguf".decode("utf-8", "surrogateescape")
    named = dataclasses.replace(recorded[0], model=dataclasses.replace(recorded[0].model, file_name=name))
    with Journal(tmp_path, "pp-tg") as journal:
        journal.append(named)
    journal.path.read_bytes().decode("ascii")
    (record,) = each_record([journal.path], pytest.fail)
    assert record.model is not None
    assert record.model.file_name == name


def test_lines_that_are_no_json_and_nested_beyond_reason_cost_themselves(tmp_path, recorded):
    journal = write(tmp_path / "a.jsonl", "{", "[" * 100_000, "[]", '"x"', "", json.dumps(to_json(recorded[0])))
    told: list[str] = []
    assert len(list(read_lines([journal], told.append))) == 1
    assert len(told) == 4


# One value of another type, everywhere.

WRONG = (None, "x", "\x1b]0;y\x07\u202e\ud800", -1, 0, 2**70, 1.5, True, [], {}, ["x"], {"x": 1})


def test_a_line_that_does_not_end_is_gone_past_in_little_memory(tmp_path, recorded):
    """As a file system leaves them after a crash, and as somebody leaves them who means harm: zero bytes without end."""
    good = json.dumps(to_json(recorded[0])).encode() + b"\n"
    path = tmp_path / "x.jsonl"
    path.write_bytes(good + bytes(LONGEST_LINE_BYTES + 5_000_000) + b"\n" + good)
    warnings = []
    tracemalloc.start()
    try:
        numbers = [line.number for line in read_lines([path], warnings.append)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert numbers == [1, 3]
    assert warnings == [f"{path}:2: not a record (longer than 64 MiB); the line is skipped."]
    assert peak < 2.5 * LONGEST_LINE_BYTES


def test_a_file_that_never_ends_a_line_is_left(tmp_path, recorded):
    path = tmp_path / "x.jsonl"
    path.write_bytes(json.dumps(to_json(recorded[0])).encode() + b"\n")
    try:
        os.truncate(path, 2**40)
    except OSError:
        pytest.skip("this file system has no file of a terabyte with nothing in it")
    warnings = []
    assert [line.number for line in read_lines([path], warnings.append)] == [1]
    assert warnings == [f"{path}:2: not a record (longer than 64 MiB); the line is skipped."]


def test_a_byte_order_mark_costs_no_line(tmp_path, recorded):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(to_json(recorded[0])).encode() + b"\n")
    assert len([*read_lines([path], pytest.fail)]) == 1


def places(value, path=()):
    """Every place in a JSON value, of lists only the first item."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def shorten(line):
    """The line with at most two of everything: what is wrong in the third is wrong in the first."""
    if isinstance(line, dict):
        return {key: shorten(value) for key, value in line.items()}
    return [shorten(value) for value in line[:2]] if isinstance(line, list) else line


def shorten_times(line):
    """A time ledger of one round, two depths and a few nodes; whole blocks, for what is derived needs all of their kinds."""
    blocks = [
        block for block in line["blocks"] if block["round"] == 0 and block["depth"] in line["asked"]["depths"][:2]
    ]
    for block in blocks:
        for name in ("node_ns", "node_count"):
            if name in block:
                block[name] = {node: block[name][node] for node in sorted(block[name])[:3]}
    first = {(block["variant"], block["round"], block["depth"]): block for block in blocks}
    blocks = sorted(first.values(), key=lambda block: len(block), reverse=True)
    return {**line, "blocks": blocks, "build": None, "applications": line["applications"][:4][::-1]}


CATALOG = load_catalog()


def show(line: Line) -> None:
    show_all([line])


def show_all(found: list[Line]) -> None:
    """Put lines on a page, in the table, and let the pictures be described; drawing them takes too long for so many."""
    lines = read_material(found)
    material = Material(lines, [], ["a.jsonl"], "2026-11-24T12:00:00Z", "0.1", catalog=CATALOG)
    for make, _ in CHAPTERS.values():
        list(make(material))
    for kind in ("pp", "tg"):
        if rows := measured_rows(material.measured, kind):
            render(describe_machines(rows, kind), "table")


@pytest.mark.parametrize("kind", sorted(LINES))
def test_one_value_of_another_type_ends_nothing(kind):
    line = shorten_times(LINES[kind]) if kind == "time-ledger" else shorten(LINES[kind])
    show(read_line(line))
    n_refused = n_shown = 0
    for path in places(line):
        for value in WRONG[:: 2 if kind == "time-ledger" else 1]:  # each of them takes a ledger
            changed = with_value(line, path, value)
            try:
                found = read_line(changed)
            except (ValueError, HarnessError):
                n_refused += 1
                continue
            try:
                show(found)
            except Exception as error:
                pytest.fail(f"{kind}: {'.'.join(map(str, path))} = {value!r} is read and cannot be shown: {error!r}")
            n_shown += 1
    assert n_refused > n_shown / 10, "most places have a type"


# Order and growth.


def test_a_clock_that_was_set_back_does_not_confuse_which_journal_is_last(tmp_path, recorded):
    names = ["20260101T000000Z-sweep.jsonl", "20990101T000000Z-pp-tg.jsonl", "20990101T000000Z-sweep-2.jsonl"]
    for name in names:
        write(tmp_path / name, to_json(recorded[0]))
    made = []
    for command in ("sweep", "pp-tg", "sweep"):
        with Journal(tmp_path, command) as journal:
            journal.append(recorded[0])
        made.append(journal.path)
    everything = sorted(tmp_path.glob("*.jsonl"), key=journal_order)
    assert [path.name for path in everything[:3]] == names
    assert everything[3:] == made
    assert made[0].name == "20990101T000000Z-sweep-3.jsonl"


def test_the_tenth_of_a_second_comes_after_the_second_of_it():
    names = ["20260101T000000Z-a.jsonl", "20260101T000000Z-a-2.jsonl", "20260101T000000Z-a-10.jsonl"]
    paths = [pathlib.Path(name) for name in names]
    assert sorted((paths[2], paths[0], paths[1]), key=journal_order) == paths


def test_a_journal_of_another_name_counts_by_when_it_was_written(tmp_path):
    mine = write(tmp_path / "mine.jsonl", "")
    os.utime(mine, (1_800_000_000, 1_800_000_000))  # 2027-01-15
    before, after = tmp_path / "20260101T000000Z-a.jsonl", tmp_path / "20280101T000000Z-a.jsonl"
    assert sorted([after, mine, before], key=journal_order) == [before, mine, after]


#: A prompt on this very machine's CPU.
PROMPT = json.loads((HERE / "recorded" / "pp-tg.jsonl").read_bytes().split(b"\n")[0])


def many(tmp_path, n):
    """A journal of n cells of many kinds: depths, days, two machines."""
    line = PROMPT
    lines = []
    for at in range(n):
        asked = {**line["asked"], "n_depth": at % 49, "n_gpu_layers": at % 3}
        machine = {**line["machine"], "n_cores_physical": 1 + at % 2}
        lines.append({**line, "asked": asked, "machine": machine, "time_utc": f"2026-11-{1 + at % 28:02}T00:00:00Z"})
    return write(tmp_path / f"{n}.jsonl", *lines)


def count_calls(work, *arguments):
    profile = cProfile.Profile()
    profile.runcall(work, *arguments)
    return sum(entry.callcount for entry in profile.getstats())


def make_report(journal):
    show_all([*read_lines([journal], pytest.fail)])


def make_table(journal):
    rows = measured_rows(collect(each_record([journal], pytest.fail), CATALOG), "pp")
    assert len(rows) == 2
    render(describe_machines(rows, "pp"), "table")


@pytest.mark.parametrize("work", [make_report, make_table], ids=["report", "table"])
def test_work_grows_with_the_records_and_not_with_their_square(tmp_path, work):
    small, large = many(tmp_path, 200), many(tmp_path, 400)
    work(small)  # whatever is made once
    assert count_calls(work, large) < 2.5 * count_calls(work, small)


def with_tokens(n):
    """A line of a text generation of n tokens, ten times."""
    samples = [
        {"duration_ns": 10**9, "prompt_ns": None, "token_ns": [10**7 + at for at in range(n)], "is_warmup": False}
    ] * 10
    return {**PROMPT, "asked": {**PROMPT["asked"], "n_prompt": 0, "n_gen": n}, "samples": samples}


@pytest.mark.parametrize("read", [read_records, lambda paths, warn: collect(each_record(paths, warn), CATALOG)])
def test_a_token_time_costs_no_call_of_its_own(tmp_path, read):
    few, many_ = (write(tmp_path / f"{n}.jsonl", *[with_tokens(n)] * 5) for n in (10, 1000))
    read([few], pytest.fail)
    assert count_calls(read, [many_], pytest.fail) < 1.5 * count_calls(read, [few], pytest.fail)


def test_what_many_records_say_alike_is_read_and_kept_once(tmp_path):
    first, *others = read_records([many(tmp_path, 8)], pytest.fail)
    for record in others:
        assert record.build is first.build
        assert record.model is first.model
        assert record.resolved is first.resolved
    assert len({id(record.machine) for record in (first, *others)}) == 2
    assert len({id(record.asked) for record in (first, *others)}) == 8


def test_what_is_held_of_a_record_is_less_than_its_samples(tmp_path):
    samples = [
        {"duration_ns": 10**9, "prompt_ns": None, "token_ns": [10**7 + at for at in range(1000)], "is_warmup": False}
    ]
    line = {**PROMPT, "asked": {**PROMPT["asked"], "n_prompt": 0, "n_gen": 1000}, "samples": samples}

    def held(n):
        journal = write(tmp_path / f"{n}.jsonl", *[line] * n)
        tracemalloc.start()
        try:
            kept = collect(each_record([journal], pytest.fail), CATALOG)
            assert len(kept) == n
            return tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    held(1)
    (small, _), (large, peak) = held(20), held(120)
    token_times = 1000 * 32  # an int each
    assert (large - small) / 100 < token_times / 2
    assert peak - large < 20 * token_times, "and no more than some lines are held on the way"
