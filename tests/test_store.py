import errno
import json
import os
import sys

import pytest

from harness.errors import StoreError
from harness.records.journal import Journal, read_records
from harness.records.kinds import to_json


def test_records_come_back_as_they_were(tmp_path, recorded):
    with Journal(tmp_path / "new" / "folder", "pp-tg") as journal:
        for record in recorded:
            journal.append(record)
    assert read_records([journal.path], pytest.fail) == recorded


def test_each_record_is_on_disk_before_append_returns(tmp_path, recorded):
    with Journal(tmp_path, "pp-tg") as journal:
        journal.append(recorded[0])
        assert json.loads(journal.path.read_text(encoding="utf-8")) == json.loads(json.dumps(to_json(recorded[0])))


def test_a_cut_off_line_is_skipped_with_file_and_line(tmp_path, recorded):
    with Journal(tmp_path, "pp-tg") as journal:
        journal.append(recorded[0])
        journal.append(recorded[1])
    text = journal.path.read_text(encoding="utf-8")
    journal.path.write_text(text[: len(text) - 40], encoding="utf-8")
    warnings = []
    assert read_records([journal.path], warnings.append) == recorded[:1]
    assert len(warnings) == 1
    assert f"{journal.path}:2:" in warnings[0]


def test_two_runs_in_one_second_get_two_files(tmp_path, recorded):
    with Journal(tmp_path, "pp-tg") as first, Journal(tmp_path, "pp-tg") as second:
        first.append(recorded[0])
        second.append(recorded[1])
    assert first.path != second.path
    assert len(read_records([first.path, second.path], pytest.fail)) == 2


def test_nothing_measured_leaves_no_file(tmp_path):
    with Journal(tmp_path, "pp-tg"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(StoreError, match=r"Cannot write records into .*results.*--no-save"):
        Journal(tmp_path / "results", "pp-tg")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device that is always full")
def test_a_full_disk_is_one_sentence_and_keeps_what_was_written(tmp_path, recorded):
    with Journal(tmp_path, "pp-tg") as journal:
        journal.append(recorded[0])
        journal._file.close()
        journal._file = open("/dev/full", "ab")
        with pytest.raises(StoreError, match=os.strerror(errno.ENOSPC)):
            journal.append(recorded[1])
    assert len(read_records([journal.path], pytest.fail)) == 1


def test_a_record_names_no_path(recorded):
    text = json.dumps(to_json(recorded[0]))
    assert os.path.expanduser("~") not in text
    assert os.path.dirname(sys.executable) not in text
    assert to_json(recorded[0])["asked"]["model"] == "SmolLM2-135M-Instruct.Q4_1.gguf"
