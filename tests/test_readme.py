"""The README's commands are run, as written."""

from __future__ import annotations

import pathlib
import re
import shlex

import pytest

from .test_cli import harness

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ harness (.+)$", README, re.MULTILINE)


def test_there_are_commands_to_run():
    assert len(COMMANDS) >= 4


@pytest.mark.engine
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_runs(command, tmp_path, model):
    (tmp_path / "llama-3.2-1b-q4_0.gguf").symlink_to(model)
    # One repetition: what is tested is that the words are right.
    quick = ("-r", "1", "--no-warmup") if command.startswith("pp-tg") else ()
    code, out, _ = harness(*shlex.split(command), *quick, cwd=tmp_path)
    assert code in (0, 5)
    assert out.strip()


def test_the_readme_names_files_that_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target
