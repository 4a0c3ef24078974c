"""Files are known by what is in them, whoever wrote them; what cannot be read costs a sentence, and the rest is used."""

from __future__ import annotations

import dataclasses
import json
import re
import sqlite3

import pytest

from harness.records.kinds import to_json
from harness.records.measurements import Evidence
from harness.records.trust import Trust
from harness.runs.bench_files import read_measurements
from harness.views.cells import write_cells

from .conftest import HERE
from .measured import draw, with_durations
from .test_comparison import DISTRUST

GOLDEN = HERE / "golden"


def read(path, *said):
    """What is in a file, and that exactly these things are said of it."""
    told: list[str] = []
    found = list(read_measurements(path, told.append))
    assert len(told) == len(said), told
    for sentence, pattern in zip(told, said, strict=True):
        assert re.search(pattern, sentence), sentence
        assert "\n" not in sentence
    return found


def database(path, *texts):
    with sqlite3.connect(path) as made:
        for text in texts:
            made.executescript(text)
    made.close()
    return path


@pytest.mark.parametrize("before", [b"\0" * 4096 + b"\n", b"[" * 5000 + b"\n", b"null\n", b"\xef\xbb\xbf"])
def test_a_journal_whose_beginning_is_damaged_is_read_on(before, tmp_path, recorded):
    path = tmp_path / "a.jsonl"
    path.write_bytes(before + "".join(json.dumps(to_json(one)) + "\n" for one in recorded[:2]).encode())
    said = [r"a\.jsonl:1: not a record"] if before.endswith(b"\n") else []
    assert [one.subject.spec.test for one in read(path, *said)] == ["pp64", "tg16"]


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "sql", "sqlite"])
@pytest.mark.parametrize("program", ["llama-bench", "pp-tg"])
def test_every_format_of_both_programs(program, form, tmp_path):
    path = tmp_path / "a-file-of-any-name.txt"
    if form == "sqlite":
        database(path, (GOLDEN / f"{program}.sql").read_text(encoding="utf-8"))
    else:
        path.write_bytes((GOLDEN / f"{program}.{form}").read_bytes())
    found = read(path)
    wanted = ["pp16", "tg4"] if program == "llama-bench" else ["pp64", "tg16"]
    assert [one.subject.spec.test for one in found] == wanted
    assert all(one.subject.commit == "0c1e570" and one.subject.hardware == "AMD EPYC" for one in found)
    assert all(one.subject.spec.n_threads == 2 and one.subject.spec.type_k == "f16" for one in found)
    samples = form in ("json", "jsonl")
    assert {one.evidence for one in found} == {Evidence.SAMPLES if samples else Evidence.SUMMARY}
    # llama-bench's CSV and SQL do not say how often; harness's do.
    known = {"llama-bench": 2 if samples else None, "pp-tg": 6}[program]
    assert {one.n for one in found} == {known}
    for one in found:
        assert one.centre_ns > 0


def test_a_journal_and_its_exports_are_the_same_cells(recorded, tmp_path):
    cells = [
        with_durations(
            recorded[0],
            draw(1e8),
            type_k="q8_0",
            n_gpu_layers=0,
            swa_full=True,
            flash_attn="on",
            tensor_split=(3.0, 1.0),
        )
    ]
    journal = tmp_path / "a.jsonl"
    journal.write_text("".join(json.dumps(to_json(cell)) + "\n" for cell in cells), encoding="utf-8")
    (own,) = read(journal)
    for form in ("json", "jsonl", "csv", "sql"):
        path = tmp_path / f"a.{form}"
        path.write_text(write_cells(cells, form), encoding="utf-8")
        (exported,) = read(path)
        facets = exported.subject.facets(is_coarse=True)
        assert facets == own.subject.facets(is_coarse=True), form
        assert exported.centre_ns == pytest.approx(own.centre_ns, rel=0.01)
        if form in ("json", "jsonl"):
            assert exported.durations_ns == own.durations_ns
            assert exported.subject.facets(is_coarse=False) == own.subject.facets(is_coarse=False)


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "sql"])
def test_an_export_of_what_is_not_to_be_trusted_is_not_either(recorded, tmp_path, form):
    cell = with_durations(recorded[0], draw(1e8))
    for warnings, is_distrusted in (((DISTRUST,), True), ((), False)):
        path = tmp_path / f"{is_distrusted}.{form}"
        path.write_text(write_cells([dataclasses.replace(cell, warnings=warnings)], form), encoding="utf-8")
        (exported,) = read(path)
        assert (exported.verdict.trust is Trust.NOT_TRUSTED) is is_distrusted


def test_settings_of_llama_bench_alone_keep_cells_apart(tmp_path):
    text = (GOLDEN / "llama-bench.json").read_text(encoding="utf-8")
    (tmp_path / "a").write_text(text.replace('"lazy_mode": "auto"', '"lazy_mode": "on"', 1), encoding="utf-8")
    first, second = read(tmp_path / "a")
    assert (first.subject.others, second.subject.others) == ((("lazy_mode", "on"),), ())
    assert first.subject.facets(is_coarse=True)["lazy_mode"] == "on"


def test_settings_of_both_are_read_as_ours(tmp_path):
    row = json.loads((GOLDEN / "llama-bench.json").read_text(encoding="utf-8"))[0]
    row |= {
        "cpu_mask": "0x3",
        "cpu_strict": True,
        "poll": 0,
        "tensor_buft_overrides": "a=CPU;b=CUDA0",
        "load_mode": "mmap+mlock",
    }
    row |= {"no_op_offload": 1, "no_host": True}
    (tmp_path / "a").write_text(json.dumps([row]), encoding="utf-8")
    (found,) = read(tmp_path / "a")
    spec = found.subject.spec
    assert (spec.cpu_mask, spec.cpu_strict, spec.poll, spec.load_mode) == ("0x3", True, 0, "mmap+mlock")
    assert (spec.override_tensors, spec.no_op_offload, spec.no_host) == (("a=CPU", "b=CUDA0"), True, True)
    assert found.subject.others == ()


def test_an_older_llama_bench_is_read(tmp_path):
    row = json.loads((GOLDEN / "llama-bench.json").read_text(encoding="utf-8"))[0]
    for name in ("load_mode", "lazy_mode", "n_depth", "fit_target", "devices", "n_cpu_moe"):
        del row[name]
    row |= {"use_mmap": True, "flash_attn": True, "cuda": False}
    (tmp_path / "a").write_text(json.dumps([row]), encoding="utf-8")
    (found,) = read(tmp_path / "a")
    assert (found.subject.spec.load_mode, found.subject.spec.flash_attn, found.subject.spec.n_depth) == (
        "mmap",
        "on",
        0,
    )


@pytest.mark.parametrize(
    ("row", "mode"),
    [({"use_mmap": 0}, "none"), ({"use_mmap": True, "use_direct_io": False}, "mmap"), ({"use_mmap": True, "use_direct_io": True}, "dio")],
)  # fmt: skip
def test_ways_to_read_a_file_have_had_several_columns(tmp_path, row, mode):
    golden = json.loads((GOLDEN / "llama-bench.json").read_text(encoding="utf-8"))[0]
    del golden["load_mode"]
    (tmp_path / "a").write_text(json.dumps([golden | row]), encoding="utf-8")
    assert read(tmp_path / "a")[0].subject.spec.load_mode == mode


def test_lines_of_both_programs_may_stand_in_one_file(recorded, tmp_path):
    theirs = (GOLDEN / "llama-bench.jsonl").read_text(encoding="utf-8")
    path = tmp_path / "mixed"
    path.write_text(json.dumps(to_json(recorded[0])) + "\nnot a line\n" + theirs, encoding="utf-8")
    found = read(path, r"mixed:2: not a record \(no JSON\)")
    assert [one.subject.spec.test for one in found] == ["pp64", "pp16", "tg4"]


def test_a_cut_json_gives_what_is_whole(tmp_path):
    text = (GOLDEN / "llama-bench.json").read_text(encoding="utf-8")
    (tmp_path / "a").write_text(text[:-500], encoding="utf-8")
    assert [one.subject.spec.test for one in read(tmp_path / "a", "is cut off; what is whole of it is used")] == [
        "pp16"
    ]


def test_a_cut_line_costs_itself(recorded, tmp_path):
    line = json.dumps(to_json(recorded[0]))
    (tmp_path / "a").write_text(line + "\n" + line[:300], encoding="utf-8")
    assert len(read(tmp_path / "a", r"a:2: not a record")) == 1


def test_a_newer_schema_costs_itself(recorded, tmp_path):
    line = json.dumps(to_json(recorded[0]))
    (tmp_path / "a").write_text(
        json.dumps({**to_json(recorded[0]), "schema": 99}) + "\n" + line + "\n", encoding="utf-8"
    )
    assert len(read(tmp_path / "a", "schema 99 of kind result.* update harness")) == 1


@pytest.mark.parametrize("duration", [0, -5, 1.5, "x", 2**70])
def test_a_clock_that_jumped_costs_the_line(recorded, tmp_path, duration):
    values = to_json(recorded[0])
    values["samples"][0]["duration_ns"] = duration
    line = json.dumps(to_json(recorded[0]))
    (tmp_path / "a").write_text(json.dumps(values) + "\n" + line + "\n", encoding="utf-8")
    assert len(read(tmp_path / "a", r"duration_ns is .*, not a whole number above 0")) == 1


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("avg_ts", "0.0", "a speed of 0.0"),
        ("avg_ts", "nan", "is nan, not a number"),
        ("avg_ts", "-3", "a speed of -3"),
        ("n_prompt", "-1", "Nothing to measure"),
        ("n_prompt", "many", "n_prompt is 'many'"),
        ("stddev_ts", "inf", "stddev_ts is inf"),
    ],
)
def test_a_row_that_cannot_be_is_skipped(tmp_path, field, value, said):
    heading, first, second = (GOLDEN / "llama-bench.csv").read_text(encoding="utf-8").splitlines()
    cells = first.split('","')
    at = heading.split(",").index(field)
    cells[at] = value + '"' * (at == len(cells) - 1)
    (tmp_path / "a").write_text("\n".join([heading, '","'.join(cells), second]), encoding="utf-8")
    assert [one.subject.spec.test for one in read(tmp_path / "a", f"row 1 is not a measurement .*{said}")] == ["tg4"]


@pytest.mark.parametrize("value", [[], {}, None, "\nx", -1, 1e300, [["a"]], True])
def test_no_value_of_any_field_ends_the_program(tmp_path, value):
    """A row with it is read or skipped, in one sentence, and the other rows are used."""
    rows = json.loads((GOLDEN / "pp-tg.json").read_text(encoding="utf-8"))
    for name in rows[0]:
        (tmp_path / "a").write_text(json.dumps([{**rows[0], name: value}, rows[1]]), encoding="utf-8")
        told: list[str] = []
        found = list(read_measurements(tmp_path / "a", told.append))
        assert len(found) + len(told) == 2, name
        assert "tg16" in [one.subject.spec.test for one in found]
        assert not any("\n" in sentence for sentence in told)
        assert hash(found[0].subject)


def test_a_cut_row_is_skipped(tmp_path):
    text = (GOLDEN / "llama-bench.csv").read_text(encoding="utf-8")
    (tmp_path / "a").write_text(text[:-300], encoding="utf-8")
    assert len(read(tmp_path / "a", "a:3: not a row")) == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_what_a_shell_of_windows_redirected_is_read(tmp_path, encoding):
    for form in ("json", "csv", "jsonl", "sql"):
        text = (GOLDEN / f"llama-bench.{form}").read_text(encoding="utf-8")
        (tmp_path / "a").write_text(text.replace("\n", "\r\n"), encoding=encoding)
        assert len(read(tmp_path / "a")) == 2, form


@pytest.mark.parametrize("data", [b"", b"hello", b"a,b\n1,2\n", b"\x00\xff\xfe", b"| model | size |\n"])
def test_other_files_are_said_to_be_none(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    assert read(tmp_path / "a", *([] if not data else ["a: neither a journal"])) == []


def test_json_of_another_program(tmp_path):
    (tmp_path / "a").write_text('[{"x": 1}, 3]', encoding="utf-8")
    assert read(tmp_path / "a", "2 rows of another program") == []
    (tmp_path / "a").write_text("[" * 5000, encoding="utf-8")
    assert read(tmp_path / "a", "is no JSON") == []


def test_sql_of_a_stranger_does_nothing_else(tmp_path):
    """A file that is called SQL may hold any: it writes no file, reads none, and ends."""
    target = tmp_path / "written"
    evil = [
        f"ATTACH DATABASE '{target}' AS other;",
        "CREATE VIEW llama_bench_2 AS SELECT 1;",
        "INSERT INTO llama_bench SELECT * FROM llama_bench;",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) INSERT INTO llama_bench(n_gen) SELECT x FROM n;",
        "PRAGMA journal_mode = wal;",
        "SELECT load_extension('x');",
    ]
    text = (GOLDEN / "llama-bench.sql").read_text(encoding="utf-8") + "\n".join(evil) + "\n"
    (tmp_path / "a").write_text(text, encoding="utf-8")
    assert len(read(tmp_path / "a", *["a statement of its SQL cannot be used"] * len(evil))) == 2
    assert not target.exists()


def test_a_database_without_the_table_or_with_a_view_in_its_place(tmp_path):
    read(database(tmp_path / "a", "CREATE TABLE x (y);"), "has no table llama_bench")
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS n_gen FROM n"
    read(database(tmp_path / "b", f"CREATE VIEW llama_bench AS {endless};"), "has no table llama_bench")
    broken = database(tmp_path / "c", (GOLDEN / "llama-bench.sql").read_text(encoding="utf-8"))
    broken.write_bytes(broken.read_bytes()[:3000])
    read(broken, "this database cannot be read")


def test_a_database_is_not_changed(tmp_path):
    path = database(tmp_path / "a", (GOLDEN / "llama-bench.sql").read_text(encoding="utf-8"))
    before = path.read_bytes()
    read(path)
    assert path.read_bytes() == before


def test_equal_subjects_are_one_object(recorded, tmp_path):
    path = tmp_path / "a"
    cells = [dataclasses.replace(recorded[0], time_utc=f"2026-11-24T12:00:0{n}Z") for n in range(5)]
    path.write_text("".join(json.dumps(to_json(cell)) + "\n" for cell in cells), encoding="utf-8")
    assert len({id(one.subject) for one in read(path)}) == 1
    path.write_text(write_cells(cells, "csv"), encoding="utf-8")
    assert len({id(one.subject) for one in read(path)}) == 1
