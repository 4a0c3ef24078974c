"""What docs/promises.md promises is still there: options, exit codes, the Python API, records and the names in JSON.

`scripts/surface.py` records it in tests/golden/surface.json.
"""

from __future__ import annotations

import copy
import json
import re

import pytest
from surface import PAGE, describe_surface, find_additions, find_breaks, read_promised, write
from surface_documents import describe_documents

import harness
from harness.cli import COMMANDS
from harness.errors import Outcome
from harness.sources.tuned_settings import tuned_path
from harness.sources.user_catalog import user_catalog_path

from .conftest import HERE

PROMISES = HERE.parent / "docs" / "promises.md"

BREAKING = """
This breaks what version {version} promises:
  {breaks}
If it is not meant, bring it back: an option or a name may stay as another spelling, a field may have a default.
If it is meant: the first number of the version goes up (harness/__init__.py), CHANGELOG.md says it under Removed or Changed, and
`python scripts/surface.py --breaking` records it."""

RECORD = "Run `python scripts/surface.py`: a version promises what was added before it."


@pytest.fixture(scope="module")
def promised():
    return read_promised()


@pytest.fixture(scope="module")
def now():
    return {**describe_surface(), "documents": describe_documents()}


@pytest.mark.parametrize("part", ["options", "exit codes", "python", "records", "documents"])
def test_what_was_promised_is_still_there(part, promised, now):
    breaks = find_breaks(promised[part], now[part], part)
    assert not breaks, BREAKING.format(version=promised["version"], breaks="\n  ".join(breaks))


def test_a_version_promises_what_there_is_when_it_is_made(promised):
    assert promised["version"] == harness.__version__, RECORD


def test_every_command_and_kind_of_record_is_held(promised):
    assert {"pp-tg", "label", "man"} <= set(promised["options"]) <= {*COMMANDS, "man"}
    assert len(promised["options"]) >= 31
    assert len(promised["documents"]) >= 25
    assert promised["options"]["pp-tg"]["options"]["--n-prompt"]["spellings"] == {"--n-prompt": True, "-p": True}
    assert promised["documents"]["machines"]["names"]["figures"]["each"]


def test_the_page_has_every_exit_code_and_says_how_the_surface_is_recorded():
    text = PROMISES.read_text(encoding="utf-8")
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert codes == {int(outcome) for outcome in Outcome}
    assert "scripts/surface.py" in text


def test_files_lie_where_the_page_says(tmp_path, monkeypatch, promised):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path))
    assert user_catalog_path() == tmp_path / "harness" / "models.toml"
    assert tuned_path(tmp_path / "model.gguf").parent == tmp_path / "harness" / "tuned"
    results = promised["options"]["pp-tg"]["options"]["--results"]
    assert (results["default"], results["variable"]) == ("bench_results", "HARNESS_RESULTS")
    text = PROMISES.read_text(encoding="utf-8")
    assert {"`models.toml`", "`tuned/`", "`HARNESS_RESULTS`"} <= set(re.findall(r"`[^`]+`", text))


# What breaks, and what does not

SURFACE = {
    "options": {"-p": {"takes": "values", "required": False, "choices": {"a": True}}},
    "codes": {"OK": 0},
    "fields": {"n": {"type": "number or null", "required": True}, "x": "null"},
}


def changed(path, value=None):
    """The made-up surface with one place set to a value, or without it."""
    surface = copy.deepcopy(SURFACE)
    *way, last = path.split("/")
    place = surface
    for name in way:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return surface


@pytest.mark.parametrize(
    ("surface", "said"),
    [
        (changed("options/-p"), "/options/-p: is gone"),
        (changed("options/-p/choices/a"), "/options/-p/choices/a: is gone"),
        (changed("options/-p/takes", "number"), "/options/-p/takes: was 'values' and is 'number'"),
        (changed("options/-p/required", True), "/options/-p/required: was False and is True"),
        (changed("options/-q", {"required": True}), "/options/-q: is required, and was not there"),
        (changed("codes/OK", 1), "/codes/OK: was 0 and is 1"),
        (changed("fields/n/type", "number or text"), "/fields/n/type: was 'number or null' and is 'number or text'"),
        (changed("fields/n", "text"), "/fields/n: was"),
    ],
)
def test_what_is_gone_changed_or_newly_required_breaks(surface, said):
    (line,) = find_breaks(SURFACE, surface)
    assert line.startswith(said)


@pytest.mark.parametrize(
    "surface",
    [
        SURFACE,
        changed("options/-q", {"required": False}),
        changed("options/-p/choices/b", True),
        changed("codes/MORE", 7),
        changed("fields/n/type", "number"),
        changed("fields/x", {"deep": "number"}),
        changed("fields/n/required", False),
    ],
)
def test_what_is_more_breaks_nothing(surface):
    assert find_breaks(SURFACE, surface) == []


def test_what_was_added_is_named():
    assert find_additions(SURFACE, changed("options/-q", {"required": False})) == ["/options/-q"]


def test_an_option_of_a_real_command_is_missed(now, promised):
    less = copy.deepcopy(now["options"])
    del less["pp-tg"]["options"]["--n-prompt"]["spellings"]["-p"]
    assert find_breaks(promised["options"], less, "options") == [
        "options/pp-tg/options/--n-prompt/spellings/-p: is gone"
    ]


def test_the_recorded_surface_is_written_as_the_script_writes_it(promised):
    assert PAGE.read_text(encoding="utf-8") == write(promised) + "\n"
    assert json.loads(write(promised)) == promised
