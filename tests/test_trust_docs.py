"""docs/trust.md states the figures that the scripts left in bench_results/trust, and no other ones."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex

import click
import pytest
from figure_tables import NOT_MEASURED
from figures import GOALS, ROOT, Figure, Goal, keep, read, share_of

from harness.cli import cli
from harness.codec import Malformed
from scripts.trust_docs import PAGE, render


def test_the_page_is_that_of_the_results():
    text = PAGE.read_text(encoding="utf-8")
    assert text == render(text), "run scripts/trust_docs.py"


def test_the_list_of_results_names_each_file():
    listed = re.findall(r"`(trust/[^`]+)`", (ROOT / "bench_results" / "README.md").read_text(encoding="utf-8"))
    kept = [f"trust/{path.name}" for path in (ROOT / "bench_results" / "trust").glob("*")]
    assert [name for name in kept if not any(fnmatch.fnmatch(name, one) for one in listed)] == []


def test_every_script_that_the_page_names_is_there():
    named = set(re.findall(r"`(scripts/[a-z_]+(?:\.py)?)", PAGE.read_text(encoding="utf-8")))
    assert len(named) >= 5
    assert {name for name in named if not (ROOT / name).exists()} == set()


COMMANDS = re.findall(r"^\$ harness (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_page_shows_commands():
    assert len(COMMANDS) >= 3


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_is_one_and_has_these_options(line):
    name, *words = shlex.split(line, comments=True)
    context = click.Context(cli, **cli.context_settings)
    command = cli.get_command(context, name)
    assert command is not None, name
    command.make_parser(click.Context(command, parent=context, **cli.context_settings)).parse_args(words)


def test_a_figure_is_stated_with_its_interval_its_goal_and_its_command(tmp_path):
    keep(
        "trials",
        {"ab.false_alarms": Figure(0.035, 0.014, 0.0708, 200)},
        folder=tmp_path / "trust",
        command=["scripts/ab_trials.py", "--runs", "200"],
    )
    (row,) = [
        line for line in render(PAGE.read_text(encoding="utf-8"), tmp_path).splitlines() if "A against A that" in line
    ]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:] == ["≤ 5 %", "3.5 % [1.4 %, 7.08 %] of 200", "yes", "`scripts/ab_trials.py --runs 200`"]


def test_what_nobody_measured_has_no_figure(tmp_path):
    assert "\n\nNot measured yet.\n\n" in render(PAGE.read_text(encoding="utf-8"), tmp_path)
    rows = [line for line in render(PAGE.read_text(encoding="utf-8"), tmp_path).splitlines() if NOT_MEASURED in line]
    assert len(rows) == len(GOALS)


def test_results_are_read_as_they_were_written(tmp_path):
    figures = {"ab.found_3_percent": share_of(19, 20), "ab.median_s_of_aa": Figure(12.5)}
    keep("some", figures, details={"nan": float("nan"), "list": [1, 2]}, folder=tmp_path, command=["scripts/x.py"])
    results = read(tmp_path)["some"]
    assert dict(results.figures) == figures
    assert results.details == {"nan": None, "list": [1, 2]}
    assert results.machine is None


def test_a_figure_that_no_goal_names_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no figure ab\.flase_alarms"):
        keep("some", {"ab.flase_alarms": Figure(0.1)}, folder=tmp_path)
    (tmp_path / "some.json").write_text(
        json.dumps({"command": "x", "time_utc": "2026-11-28T00:00:00Z", "figures": {"ab.false_alarms": {}}})
    )
    with pytest.raises(Malformed):
        read(tmp_path)


@pytest.mark.parametrize(
    ("goal", "value", "is_met"),
    [
        (Goal("", "share", at_most=0.05), 0.05, True), (Goal("", "share", at_most=0.05), 0.051, False),
        (Goal("", "share", at_least=0.9), 0.9, True), (Goal("", "share", at_least=0.9), 0.89, False), (Goal("", "s"), 1, None),
    ],
)  # fmt: skip
def test_a_goal_is_met_at_its_bound(goal, value, is_met):
    assert goal.is_met(value) is is_met


def test_an_exact_interval_of_a_share():
    """5 of 100: 1.64 % to 11.28 %, as tables of Clopper and Pearson have it."""
    share = share_of(5, 100)
    assert (share.low, share.high) == pytest.approx((0.0164, 0.1128), abs=1e-4)
    assert share_of(0, 10).low == 0
    assert share_of(10, 10).high == 1
