"""The manual page is made of every command's help, and roff reads it."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from click.testing import CliRunner

from harness.cli import COMMANDS, cli
from harness.cli.manual import write_manual
from harness.errors import Outcome

LINES = "\n".join(write_manual()).split("\n")


def test_the_page_has_every_command_with_its_options_and_examples():
    page = "\n".join(LINES)
    for name in COMMANDS:
        part = page.split(f".SS harness {name}\n".replace("-", r"\-"))[1].split("\n.S")[0]
        assert ".TP" in part or ".nf" in part
        assert "Examples:" in part
    assert r"\-ngl" in page
    assert r".B \-h, \-\-help" in page, "help's own names are the group's"
    assert sum(line.startswith(".SH ") for line in LINES) == 6


def test_every_exit_code_is_explained():
    ends = LINES[LINES.index(".SH EXIT STATUS") : LINES.index(".SH ENVIRONMENT")]
    assert {line.removeprefix(".B ") for line in ends if line.startswith(".B ")} == {str(int(end)) for end in Outcome}


def test_every_line_is_a_request_or_text_of_plain_characters():
    for line in LINES:
        assert line.isascii()
        assert not line.startswith("'")
        assert not line.startswith(".") or line.split()[0] in (".TH", ".SH", ".SS", ".PP", ".TP", ".B", ".nf", ".fi")


def test_the_command_writes_it():
    done = CliRunner().invoke(cli, ["man"])
    assert done.exit_code == 0
    assert done.output.rstrip("\n") == "\n".join(LINES)


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_roff_has_nothing_to_say():
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww"], input="\n".join(LINES), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if "can't break" not in line and "cannot" not in line] == []
