"""docs/record.md says what the dataclasses of records say, and they say what every field means."""

from __future__ import annotations

from harness.records.kinds import KINDS
from scripts import record_docs


def test_the_page_is_that_of_the_dataclasses():
    assert record_docs.PAGE.read_text(encoding="utf-8") == record_docs.render(), "run scripts/record_docs.py"


def test_every_kind_and_every_field_is_explained():
    page = record_docs.render()
    for name in KINDS:
        assert f"`{name}`" in page
    assert record_docs.undocumented() == []
