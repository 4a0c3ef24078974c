"""docs/licences.md has every locked package with its licence, and none that would bind harness."""

from __future__ import annotations

import importlib.metadata
import re

import pytest

pytest.importorskip("packaging", reason="comes with hatchling and huggingface-hub")

from licences import BY_FILE, ELSEWHERE, LOCK, PAGE, PERMISSIVE, USES, locked, read_licence, read_page, words_of

AGAIN = "run scripts/licences.py"
TEXT = PAGE.read_text(encoding="utf-8")
PACKAGES = read_page()
VERSIONS = set(re.findall(r"^([a-z0-9_.-]+)==(\S+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE))


def test_the_page_is_that_of_the_lock():
    assert set(PACKAGES) == locked(), AGAIN
    assert {(one.name, one.version) for one in PACKAGES.values()} <= VERSIONS, AGAIN
    assert len(PACKAGES) > 40


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_licence_is_what_the_package_says(name):
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = None
    if version != PACKAGES[name].version:
        pytest.skip(f"{name} {PACKAGES[name].version} is not installed here")
    assert words_of(read_licence(name)) & words_of(PACKAGES[name].licence), AGAIN
    if name not in ELSEWHERE:
        assert read_licence(name) == PACKAGES[name].licence, AGAIN


def test_nothing_is_under_a_licence_that_would_bind_harness():
    words = {name: words_of(one.licence) for name, one in PACKAGES.items()}
    free = {name for name, found in words.items() if found <= PERMISSIVE}
    by_file = {name for name, found in words.items() if found & BY_FILE and found <= PERMISSIVE | BY_FILE}
    assert set(words) - free - by_file == {"httpx2-jsfetch"}, "said on the page, as it is nowhere installed"
    said = set(re.findall(r"[\w-]+", "".join(part for part in TEXT.split("\n\n") if "Mozilla" in part)))
    assert by_file <= said
    assert by_file == {"certifi", "tqdm", "pathspec"}


def test_words_of_licences_are_told_apart():
    assert words_of("MPL-2.0 AND MIT") == {"MPL-2.0", "MIT"}
    assert not words_of("GPL-3.0-only") <= PERMISSIVE | BY_FILE


def test_what_is_said_of_a_use_is_of_a_package_that_there_is():
    assert set(USES) | set(ELSEWHERE) <= locked()
    assert all(one.use for one in PACKAGES.values())
