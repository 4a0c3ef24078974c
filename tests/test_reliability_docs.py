"""docs/reliability.md states the figures that the scripts left in bench_results/reliability, and no other ones."""

from __future__ import annotations

import fnmatch
import re

import proven_by_tests
import pytest
from figures import GOALS, RELIABILITY, RELIABILITY_FOLDER, ROOT, read
from reliability_docs import PAGE, render

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_page_is_that_of_the_results():
    assert render(TEXT) == TEXT, "run scripts/reliability_docs.py"


def test_no_figure_belongs_to_two_pages():
    assert set(GOALS) & set(RELIABILITY) == set()


def test_every_figure_kept_is_one_of_the_page():
    kept = {name for results in read(RELIABILITY_FOLDER).values() for name in results.figures}
    assert kept <= set(RELIABILITY)


def test_the_list_of_results_names_each_file():
    listed = re.findall(r"`(reliability/[^`]+)`", (ROOT / "bench_results" / "README.md").read_text(encoding="utf-8"))
    kept = [f"reliability/{path.name}" for path in RELIABILITY_FOLDER.glob("*")]
    assert [name for name in kept if not any(fnmatch.fnmatch(name, one) for one in listed)] == []


def test_every_script_and_test_that_the_page_names_is_there():
    named = set(re.findall(r"`((?:scripts|tests)/[\w/-]+(?:\.\w+)?)", TEXT))
    assert {name for name in named if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize("name", proven_by_tests.PROOFS)
def test_what_tests_prove_is_a_figure_and_its_tests_are_there(name):
    assert name in RELIABILITY
    assert [file for file in proven_by_tests.PROOFS[name] if not (ROOT / file).exists()] == []


def test_cases_are_counted_with_those_that_failed_and_without_the_skipped():
    xml = '<testsuites><testsuite tests="12" failures="1" errors="2" skipped="3"/></testsuites>'
    figure = proven_by_tests.count_cases(xml)
    assert (figure.value, figure.n) == (3, 9)
