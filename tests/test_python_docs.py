"""docs/python.md: its code runs, in its order, and it shows every function."""

from __future__ import annotations

import re

import pytest

import harness

from .conftest import HERE

PAGE = (HERE.parent / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_every_function_is_shown():
    functions = {
        *harness._PUBLIC["harness.api"],
        *harness._PUBLIC["harness.api_fit"],
        *harness._PUBLIC["harness.api_share"],
        *harness._PUBLIC["harness.api_tune"],
        "summarize",
    }
    assert {name for name in functions if f"harness.{name}(" not in PAGE} == set()


def test_no_name_is_made_up():
    shown = set(re.findall(r"\bharness\.([A-Za-z_]+)", "\n".join(BLOCKS)))
    assert {name for name in shown if not hasattr(harness, name)} == set()


@pytest.mark.engine
def test_the_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert "pp16" in capsys.readouterr().out
