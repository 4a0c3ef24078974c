"""What many lines have in common is worked out once, and never for another part."""

from __future__ import annotations

import gc

import pytest

from harness.records import shared_parts
from harness.records.shared_parts import OncePerParts, collector_at_rest


def test_it_is_made_once_for_the_same_objects():
    made = []
    once = OncePerParts(lambda *parts: made.append(parts) or len(made))
    one, equal = ["a"], ["a"]
    assert [once(one, None), once(one, None), once(equal, None), once(one, one)] == [1, 1, 2, 3]


def test_an_object_that_is_gone_is_never_taken_for_another(monkeypatch):
    monkeypatch.setattr(shared_parts, "_KNOWN", 8)
    once = OncePerParts(lambda part: part[0])
    assert [once([number]) for number in range(1000)] == [*range(1000)]


def test_few_are_remembered(monkeypatch):
    monkeypatch.setattr(shared_parts, "_KNOWN", 8)
    once = OncePerParts(lambda part: part[0])
    for number in range(100):
        once([number])
        assert len(once._known) <= 8


@pytest.mark.parametrize("is_enabled", [True, False])
def test_the_collector_is_left_as_it_was(is_enabled):
    was = gc.isenabled()
    (gc.enable if is_enabled else gc.disable)()
    try:
        with pytest.raises(KeyError), collector_at_rest():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() is is_enabled
    finally:
        (gc.enable if was else gc.disable)()
