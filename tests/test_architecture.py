"""docs/architecture.md names what there is: every path, every function of a module, every module."""

from __future__ import annotations

import ast
import collections
import pathlib
import re

from scripts import house_docs

from .test_layers import FLOORS, MODULES, PACKAGE

ROOT = PACKAGE.parent
PAGE = house_docs.PAGE.read_text(encoding="utf-8")
WORDS = set(re.findall(r"`([^`\n]+)`", PAGE.partition(house_docs.HEADING)[0]))

#: Modules by their last name, which is unambiguous where it is written as `module.thing`.
BY_NAME = collections.defaultdict(list)
for one in MODULES:
    BY_NAME[one.stem].append(one)


def names_of(path: pathlib.Path) -> set[str]:
    """What a module defines at its top."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def test_every_module_is_named_with_what_it_is():
    assert house_docs.PAGE.read_text(encoding="utf-8") == house_docs.render(), "run scripts/house_docs.py"
    assert all(
        line.count("|") > 2 and not line.endswith("|  |")
        for line in house_docs.list_modules().splitlines()
        if "| `" in line
    )


def test_every_path_exists():
    paths = {word for word in WORDS if re.fullmatch(r"[a-z_0-9]+(/[a-z_0-9]+)*(/|\.py)", word)}
    assert len(paths) > 30
    missing = {word for word in paths if not (PACKAGE / word).exists() and not (ROOT / word).exists()}
    assert missing == set()


def test_every_function_that_is_named_exists():
    named = {
        word.partition("(")[0]
        for word in WORDS
        if re.fullmatch(r"[a-z_0-9]+\.[A-Za-z_]+(\(.*\))?", word) and not word.endswith(".py")
    }
    known = {word for word in named if word.split(".")[0] in BY_NAME}
    assert len(known) > 5
    missing = {
        word for word in known if not any(word.split(".")[1] in names_of(path) for path in BY_NAME[word.split(".")[0]])
    }
    assert missing == set()


def test_every_room_is_drawn():
    drawn = PAGE.partition("## Who owns")[0]
    for room in FLOORS:
        if room != "harness":
            assert f"`{room.removeprefix('harness.')}" in drawn, room


def test_every_fact_has_an_owner():
    table = PAGE.partition("| fact | owner |")[2].partition("\n\n")[0]
    assert [line for line in table.strip().splitlines()[1:] if "`" not in line.split("|")[2]] == []
