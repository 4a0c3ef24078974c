"""The README's own flow, one command after the other in one folder, on the real engine."""

from __future__ import annotations

import json
import pathlib

import pytest

from harness.records.journal import read_lines
from harness.records.kinds import KINDS

from .test_cli import harness

pytestmark = pytest.mark.engine

#: Each command with lengths that keep it short; 5 is a busy machine.
FLOW = (
    ("pp-tg", "-p", 8, "-n", 2, "-r", 2),
    ("pp-tg", "-p", 8, "-n", 2, "-r", 2, "-ngl", "0,20"),
    ("pp-tg", "-p", 8, "-n", 0, "-r", 1, "-d", "0,16", "-o", "json"),
    ("ab", "-p", 0, "-n", 2, "--max-time", 1, "--", "-t", 1, "--", "-t", 2),
    ("sweep", "-p", 8, "-n", 2, "-r", 1),
    ("sweep", "-p", 8, "-n", 2, "-r", 1, "-ngl", "0,5"),
    ("sweep", "-p", 8, "-n", 2, "-r", 1, "-ngl", "0,5", "--resume"),
    ("run", "--max-tokens", 3, "hello"),
    ("overhead", "--ctx", 256),
    ("overhead", "--time", "-d", "0,32", "--rounds", 1, "--tokens", 2, "--no-load", "--no-app"),
    ("roofline", "--size", "2MiB", "-r", 1, "-t", 1),
    ("noise", "--time", 1),
)
READERS = (
    ("table",),
    ("table", "--test", "pp", "-o", "json"),
    ("history",),
    ("predict",),
    ("roofline", "--saved"),
    ("report", "-o", "report.html"),
    ("plot", "machines", "-o", "machines.svg"),
    ("plot", "history", "-o", "history.svg"),
    ("plot", "depth", "-o", "depth.svg"),
    ("plot", "layers", "-o", "layers.svg"),
    ("plot", "ledger", "-o", "ledger.svg"),
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder in which everything was measured once."""
    folder = tmp_path_factory.mktemp("flow")
    for command in FLOW:
        code, _, err = harness(command[0], "--results", folder / "results", *command[1:], cwd=folder)
        assert code in (0, 5), (command, err)
    return folder


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_what_was_measured_can_be_read_by_every_command(measured, command):
    code, _, err = harness(*command, "--results", measured / "results", cwd=measured)
    assert code == 0, err
    assert "not a record" not in err
    assert "not show" not in err


def test_what_was_measured_is_one_kind_of_line_each_and_names_nobody(measured):
    journals = list((measured / "results").rglob("*.jsonl"))
    assert {line.kind for line in read_lines(journals, pytest.fail)} >= {
        "result", "run", "overhead", "time-ledger", "roofline",
    }  # fmt: skip
    for journal in journals:
        text = journal.read_text(encoding="utf-8")
        assert str(measured) not in text
        assert str(pathlib.Path.home()) not in text
    page = (measured / "report.html").read_text(encoding="utf-8")
    assert "Not shown: " not in page
    assert set(KINDS) >= {line.kind for line in read_lines(journals, pytest.fail)}


def sweep(results, *more):
    code, _, err = harness(
        "sweep", "-p", 4, "-n", 0, "-r", 1, "-ngl", 0, "-o", "json", "--results", results, *more, cwd=results
    )
    assert code in (0, 5), err
    return err


def rewrite(results, change):
    (journal,) = results.rglob("*sweep*.jsonl")
    lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        change(line)
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return journal


def count(journal):
    return len(list(read_lines([journal], pytest.fail)))


def test_a_resumed_sweep_takes_its_own_cells(tmp_path):
    sweep(tmp_path)
    journal = rewrite(tmp_path, lambda line: None)
    assert count(journal) == 1
    assert "which has 1 of the cells asked for" in sweep(tmp_path, "--resume", journal)
    assert count(journal) == 1


@pytest.mark.parametrize("whose", ["another file", "another machine"])
def test_a_resumed_sweep_leaves_the_cells_of_others(tmp_path, whose):
    def change(line):
        if whose == "another machine":
            line["machine"]["cpu"] = "Another CPU"
        else:
            line["model"]["file_sha256"] = line["file_sha256"] = "0" * 64

    sweep(tmp_path)
    journal = rewrite(tmp_path, change)
    err = sweep(tmp_path, "--resume", journal)
    assert "of another file or another machine" in err
    assert "known" not in err
    assert count(journal) == 2, "it was measured here"
