"""The README's commands are run, as written."""

from __future__ import annotations

import pathlib
import re
import shlex
import shutil

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
    kept = tmp_path / "bench_results" / "machine"
    kept.mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "recorded" / "pp-tg.jsonl", kept / "20261124T000000Z-pp-tg.jsonl")
    # One repetition: what is tested is that the words are right.
    quick = ("-r", "1", "--no-warmup") if command.startswith("pp-tg") else ()
    code, out, _ = harness(*shlex.split(command), *quick, cwd=tmp_path)
    assert code in (0, 5)
    assert out.strip()


def test_the_readme_names_files_that_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")], ids=lambda page: page.name)
def test_tables_and_headings_of_a_page_are_read_as_such(page):
    text = page.read_text(encoding="utf-8")
    prose = "".join(re.split(r"(?ms)^ *(```+).*?^ *\1$", text)[::2])
    for table in re.findall(r"(?m)(?:^\|.*\n?)+", prose):
        cells = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(cells) == 1, table.splitlines()[0]  # a bar in code ends a cell too
    assert re.findall(r"(?m)^.*\S.*\n#{1,6} .*$|^#{1,6} .*\n.*\S.*$|^(?!\|).*\S.*\n\|.*$", prose) == []


LAYERS = (ROOT / "docs" / "layers.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(-c [^`]+)` \| (\d+) \| ([\d.]+) GiB \|", LAYERS, re.MULTILINE)


def test_the_page_on_layers_has_a_table_of_a_card():
    assert len(ROWS) == 6


@pytest.mark.engine
@pytest.mark.parametrize(("options", "n_layers", "weights"), ROWS)
def test_the_layers_on_a_card_are_those_that_the_command_prints(options, n_layers, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = ("-m", "llama3.1:70b:q4_0", "--predict-only", "--vram", "8GB", *options.split())
    code, out, _ = harness("overhead", *asked, cwd=tmp_path)
    assert code == 0
    assert f"a card of 8 GiB: {n_layers} of 81 layers fit" in out
    assert f"a card {weights} GiB" in " ".join(out.split())
