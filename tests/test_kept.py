"""What was kept is found, labelled and deleted, and nothing else is."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.errors import HarnessError, StoreError, UsageError
from harness.host.machine import machine_slug
from harness.records import journal as journals
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Failure
from harness.records.failures import Cause
from harness.records.journal import Journal, edit_lines, read_lines, set_label
from harness.records.journal_files import journal_order
from harness.records.kept import Kept, summarize_line
from harness.records.kinds import Line
from harness.records.verdict import judge
from harness.views import page
from harness.views.formats import render
from harness.views.kept import describe_kept


@pytest.fixture
def kept(tmp_path, recorded):
    """A results folder with two runs of the recorded machine: two records each, the second one labelled."""
    folder = tmp_path / machine_slug(recorded[0].machine)
    for label in (None, "new fan"):
        with Journal(folder, "pp-tg", label=label) as journal:
            for record in recorded[:2]:
                journal.append(record)
    return tmp_path


def run(kept, *words, answer=""):
    done = CliRunner().invoke(cli, [*words, "--results", str(kept)], input=answer)
    if done.exception and not isinstance(done.exception, SystemExit):
        assert isinstance(done.exception, HarnessError), done.exception
        done.exit_code = done.exception.outcome
    return done


def listed(kept, *words):
    return json.loads(run(kept, "list", *words, "-o", "json").stdout)["records"]


def lines_of(kept):
    return [list(read_lines([path], pytest.fail)) for path in sorted(kept.rglob("*.jsonl"), key=journal_order)]


def test_every_run_is_listed_the_latest_below(kept):
    rows = listed(kept)
    assert [(row["name"], row["kind"], row["n_records"], row["label"]) for row in rows] == [
        ("last~1", "pp-tg", 2, None),
        ("last", "pp-tg", 2, "new fan"),
    ]
    assert [os.path.exists(row["file"]) for row in rows] == [True, True]


def test_a_narrow_list_stays_one_table(recorded):
    one = Kept(
        1,
        "token-time",
        "2026-11-24T12:00:00Z",
        recorded[0].machine,
        "SmolLM2-135M-Instruct",
        failed=True,
        label="new fan",
    )
    with page.of_width(60):
        lines = render(describe_kept([("last~30", "x.jsonl", [one])]), "table").split("\n")
    assert [line.split()[0] for line in lines if line].count("name") == 1
    assert "new fan" in "\n".join(lines)


def test_a_run_is_listed_by_its_records(kept):
    assert [(row["name"], row["test"]) for row in listed(kept, "last")] == [("last:1", "pp64"), ("last:2", "tg16")]
    assert [row["name"] for row in listed(kept, "last~1:2")] == ["last~1:2"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--label", "FAN"], ["last"]),
        (["--label", "none of these"], []),
        (["--about", "tg16"], ["last~1", "last"]),
        (["--about", "roofline"], []),
    ],
)
def test_records_are_found_by_label_and_by_what_they_are_about(kept, words, names):
    assert [row["name"] for row in listed(kept, *words)] == names


@pytest.mark.parametrize(("kind", "command"), [("time-ledger", "token-time"), ("overhead", "overhead")])
def test_a_record_is_found_by_the_command_that_made_it(kind, command, recorded):
    one = summarize_line(Line(kind, 1, recorded[0].machine))
    assert one.kind == command
    assert one.is_about(command)


def test_what_was_cut_short_has_not_failed(recorded, tmp_path):
    """It has the samples until then, and every table shows them."""
    failures = [None, Failure("repetition", "after 5 of 6", Cause.INTERRUPTED), Failure("load", "gone", Cause.REFUSED)]
    with Journal(tmp_path / "machine", "pp-tg") as journal:
        for failure in failures:
            journal.append(dataclasses.replace(recorded[0], failure=failure))
    assert [row["n_failed"] for row in listed(tmp_path, "last")] == [None, None, 1]


def test_a_label_is_given_changed_and_taken_away(kept):
    before = lines_of(kept)
    assert run(kept, "label", "last:2", "door open").exit_code == 0
    assert run(kept, "label", "last~1", "old fan").exit_code == 0
    assert [[line.label for line in lines] for lines in lines_of(kept)] == [["old fan"] * 2, ["new fan", "door open"]]
    for name in ("last", "last~1"):
        run(kept, "label", name, "")
    after = lines_of(kept)
    assert {line.label for lines in after for line in lines} == {None}
    assert [[line.content for line in lines] for lines in after] == [
        [line.content for line in lines] for lines in before
    ]


def test_a_measuring_command_labels_what_it_keeps(kept, recorded):
    context = cli.get_command(None, "pp-tg").make_context("pp-tg", ["--label", "door open"])
    from harness.cli.options import given_label

    with context:
        assert given_label() == "door open"
    assert given_label() is None


@pytest.mark.parametrize("text", ["a\nb", "x" * 201, "\x1b[31mred"])
def test_a_label_is_one_short_line(kept, text):
    assert run(kept, "label", "last", text).exit_code == 2


@pytest.mark.parametrize("command", [["delete", "last"], ["list", "last", "--delete"]])
def test_a_run_is_deleted_after_asking(kept, command):
    assert "Nothing was deleted" in run(kept, *command, answer="n\n").output
    asked = run(kept, *command)
    assert (asked.exit_code, "nobody answered" in str(asked.exception)) == (2, True)
    assert len(lines_of(kept)) == 2
    assert run(kept, *command, answer="y\n").exit_code == 0
    assert [[line.label for line in lines] for lines in lines_of(kept)] == [[None, None]]


def test_a_record_is_deleted_and_the_others_stay_to_the_byte(kept):
    path = sorted(kept.rglob("*.jsonl"), key=journal_order)[-1]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{damaged\n" + lines[1])
    assert run(kept, "delete", "last:1", "--yes").exit_code == 0
    assert path.read_bytes() == b"{damaged\n" + lines[1]
    assert list(path.parent.glob(".*")) == []
    assert run(kept, "delete", "last:1", "--yes").exit_code == 2, "what is no record has no name"
    assert run(kept, "delete", "last", "--yes").exit_code == 0
    assert not path.exists(), "nothing but rubbish was left"


def test_what_is_found_by_its_label_is_deleted_alone(kept):
    run(kept, "label", "last:2", "wrong")
    assert run(kept, "list", "--label", "wrong", "--delete", "--yes").exit_code == 0
    assert [len(lines) for lines in lines_of(kept)] == [2, 1]


def test_a_journal_that_is_being_written_is_refused(kept, recorded):
    if journals.fcntl is None:
        pytest.skip("Windows refuses by itself to replace an open file")
    path = sorted(kept.rglob("*.jsonl"), key=journal_order)[-1]
    with Journal(path.parent, "pp-tg", resume=path):
        for attempt in (
            lambda: edit_lines(path, None, set_label("x")),
            lambda: Journal(path.parent, "pp-tg", resume=path),
        ):
            with pytest.raises(StoreError, match="is being written"):
                attempt()
    assert edit_lines(path, None, set_label("x")) == 2


def test_files_of_others_are_not_touched(kept, recorded, tmp_path):
    mine = sorted(kept.rglob("*.jsonl"))[0]
    strange = mine.with_name("notes.jsonl")
    strange.write_bytes(mine.read_bytes())
    link = mine.with_name("20990101T000000Z-pp-tg.jsonl")
    link.symlink_to(mine)
    empty = mine.with_name("20990101T000001Z-pp-tg.jsonl")
    empty.write_text("my own notes\n")
    for path in (strange, link):
        with pytest.raises(UsageError, match="not touched"):
            edit_lines(path, None, lambda _: b"")
    assert edit_lines(empty, None, lambda _: b"") == 0
    assert empty.read_text() == "my own notes\n"
    assert strange.read_bytes() == mine.read_bytes()


def test_a_disk_that_is_full_changes_nothing(kept, monkeypatch):
    path = sorted(kept.rglob("*.jsonl"))[0]
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journals.os, "replace", fail)
    with pytest.raises(StoreError, match="it is as it was"):
        edit_lines(path, {1}, lambda _: b"")
    assert path.read_bytes() == before
    assert list(path.parent.glob(".*")) == []


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="needs Linux's list of open files")
def test_what_is_taken_back_is_closed_before_as_windows_wants_it(kept, monkeypatch):
    path = sorted(kept.rglob("*.jsonl"))[0]
    unlink, removed = pathlib.Path.unlink, []

    def fail(_):
        raise OSError(28, "No space left on device")

    def look(gone, **options):
        open_now = [os.path.realpath(link) for link in pathlib.Path("/proc/self/fd").iterdir()]
        removed.append(os.path.realpath(gone) in open_now)
        unlink(gone, **options)

    monkeypatch.setattr(journals.os, "fsync", fail)
    monkeypatch.setattr(pathlib.Path, "unlink", look)
    with pytest.raises(StoreError, match="it is as it was"):
        edit_lines(path, {1}, lambda _: b"")
    assert removed == [False]


@pytest.mark.parametrize("words", [["table"], ["report", "-o", "page.html"], ["plot", "machines", "-o", "x.png"]])
def test_last_names_a_journal_wherever_records_are_read(kept, words, monkeypatch):
    monkeypatch.chdir(kept)
    assert run(kept, *words, "last~1").exit_code == 0
    done = run(kept, *words, "last~2")
    assert done.exit_code == 2
    assert "last~2 is not there: 2 journals kept" in str(done.exception)


def test_names_that_mean_nothing_are_one_sentence(kept):
    for name in ("lsat", "last:9", "last~9:1"):
        assert run(kept, "list", name).exit_code == 2


def test_each_run_has_the_verdict_on_the_least_of_its_records(kept, recorded):
    folder = next(path for path in kept.iterdir() if path.is_dir())
    doubtful = dataclasses.replace(recorded[0], warnings=(Caution(CautionCause.SENTENCE, distrust=True, said="busy"),))
    with Journal(folder, "pp-tg") as journal:
        for record in (recorded[1], doubtful, recorded[2]):
            journal.append(record)
    assert [row["trust"] for row in listed(kept)] == ["noisy", "noisy", "not-to-be-trusted"]
    assert [row["trust"] for row in listed(kept, "last")] == [judge(recorded[1]).trust.value, "not-to-be-trusted", None]
    assert [row["name"] for row in listed(kept, "--trust", "not-to-be-trusted")] == ["last"]
    assert [row["name"] for row in listed(kept, "last", "--trust", "not-to-be-trusted")] == ["last:2"]
    assert "not trusted 1/3" in " ".join(run(kept, "list").stdout.split())
