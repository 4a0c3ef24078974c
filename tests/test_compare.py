"""llama.cpp's own scripts/compare-llama-bench.py reads our files and compares them with llama-bench's."""

from __future__ import annotations

import pathlib
import sqlite3
import subprocess
import sys
import tarfile

import pytest

from harness.views.cells import write_cells

ROOT = pathlib.Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"
SCRIPT = "vendor/llama.cpp/scripts/compare-llama-bench.py"


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The script out of the source distribution that the set-up compiled llama.cpp from."""
    archives = sorted((ROOT / ".cache" / "sdist").glob("llama_cpp_python-*.tar.gz"))
    if not archives:
        pytest.skip(
            "needs .cache/sdist/llama_cpp_python-*.tar.gz, which scripts/test leaves when it compiles llama.cpp"
        )
    path = tmp_path_factory.mktemp("script") / "compare-llama-bench.py"
    with tarfile.open(archives[-1]) as archive:
        member = archive.extractfile(f"{archives[-1].name.removesuffix('.tar.gz')}/{SCRIPT}")
        path.write_bytes(member.read())
    return path


def compare(script, files, folder):
    inputs = [argument for file in files for argument in ("-i", str(file))]
    command = [sys.executable, str(script), "-t", "llama-bench", "-b", "0c1e570", "-c", "1111111", *inputs]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_other_build(text):
    """Ours under another commit, so that the script has two builds to compare, and with llama-bench's tests."""
    return text.replace("0c1e570-dirty", "1111111").replace("0c1e570", "1111111")


@pytest.fixture
def same_tests(recorded):
    """The recorded run with the tests of the recorded llama-bench run: pp16 and tg4."""
    import dataclasses

    sizes = [(16, 0), (0, 4)]
    return [
        dataclasses.replace(record, asked=dataclasses.replace(record.asked, n_prompt=p, n_gen=g))
        for record, (p, g) in zip(recorded[:2], sizes, strict=True)
    ]


@pytest.mark.parametrize("name", ["json", "jsonl", "csv"])
def test_files_of_both_tools_are_compared(script, same_tests, tmp_path, name):
    ours, theirs = tmp_path / f"ours.{name}", tmp_path / f"theirs.{name}"
    ours.write_text(as_other_build(write_cells(same_tests, name)), encoding="utf-8")
    theirs.write_text((GOLDEN / f"llama-bench.{name}").read_text(encoding="utf-8"), encoding="utf-8")
    if name == "jsonl":  # the script takes one JSONL file
        ours.write_text(theirs.read_text(encoding="utf-8") + ours.read_text(encoding="utf-8"), encoding="utf-8")
        table = compare(script, [ours], tmp_path)
    else:
        table = compare(script, [theirs, ours], tmp_path)
    assert "pp16" in table
    assert "tg4" in table
    assert "Speedup" in table


def test_one_database_holds_both_tools(script, same_tests, tmp_path):
    with sqlite3.connect(tmp_path / "both.sqlite") as database:
        database.executescript((GOLDEN / "llama-bench.sql").read_text(encoding="utf-8"))
        database.executescript(as_other_build(write_cells(same_tests, "sql")))
    database.close()
    table = compare(script, [tmp_path / "both.sqlite"], tmp_path)
    assert "pp16" in table
    assert "tg4" in table
