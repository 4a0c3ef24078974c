"""Files to be handed on hold no names; files of strangers are read within bounds and stand in the table beside one's own."""

from __future__ import annotations

import dataclasses
import json
import os
import socket

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.codec import Malformed
from harness.errors import HarnessError, UsageError
from harness.records import share as shares
from harness.records.cells import Device
from harness.records.journal import Journal
from harness.records.kinds import read_line, to_json
from harness.records.share import HIGHEST_RATE, SCHEMA, read_share, write_share
from harness.records.trust import Trust
from harness.runs.share import read_shares
from harness.sources.user_catalog import load_catalog
from harness.speed.rates import collect
from harness.speed.sharing import make_share, shared_rows
from harness.units import GIB
from tests.places import strings_of, with_value

CATALOG = load_catalog()
MARK = "planted-by-a-test"


def share_of(records):
    return make_share(collect(records, CATALOG), "1.2.3")


@pytest.fixture
def values(recorded):
    """A shared file as JSON."""
    return json.loads(write_share(share_of(recorded)))


#: What says on which hardware it was measured and, of a file that the catalog does not know, what llama.cpp calls it.
MEANT = {("machine", "cpu"), ("model", "description"), ("build", "devices", 0, "description")}


@pytest.fixture
def with_card(recorded):
    """The recorded generation with layers on a card and every text filled in that a record may have."""
    record = recorded[1]
    card = Device("CUDA0", "NVIDIA RTX 3090", "gpu", None, 24 * GIB)
    return dataclasses.replace(
        record,
        build=dataclasses.replace(record.build, devices=(card, *record.build.devices), backends=("CPU", "CUDA")),
        resolved=dataclasses.replace(record.resolved, layers_by_device={"CPU": 1, "CUDA0": 30}),
        asked=dataclasses.replace(
            record.asked, devices=("CUDA0",), rpc=("10.0.0.7:50052",), override_tensors=("exps=CPU",)
        ),
    )


def test_no_text_of_a_record_is_shared_but_what_says_on_what_it_ran(with_card):
    unknown = dataclasses.replace(with_card.model, file_name="own.gguf", n_params=7, file_sha256="ab" * 32)
    asked = dataclasses.replace(with_card.asked, model="own.gguf")
    line = {**to_json(dataclasses.replace(with_card, model=unknown, asked=asked)), "label": "my label"}
    places = [path for path in strings_of(line) if path[0] != "samples"]
    shared, n_planted = set(), 0
    for path in places:
        try:
            record = read_line(json.loads(json.dumps(with_value(line, path, MARK)))).content
        except (Malformed, UsageError):
            record = None
        if record is None:  # of no kind that is known
            continue
        text = write_share(share_of([record]))
        n_planted += 1
        if MARK in text:
            shared.add(path)
    assert shared == MEANT
    assert n_planted > 20
    whole = write_share(share_of([with_card]))
    for private in (socket.gethostname(), "10.0.0.7", "exps", "my label", with_card.asked.file_name, os.sep + "home"):
        assert private not in whole or private in "CPU"


def test_an_address_of_a_server_is_no_name_of_a_device(with_card):
    device = Device("RPC0", "192.168.1.7:50052", "gpu", None, None)
    build = dataclasses.replace(with_card.build, devices=(device,), backends=("CPU", "RPC[192.168.1.7:50052]"))
    resolved = dataclasses.replace(with_card.resolved, layers_by_device={"CPU": 1, "RPC0": 30})
    share = share_of([dataclasses.replace(with_card, build=build, resolved=resolved)])
    assert [speed.device for speed in share.speeds] == ["RPC server"]
    assert "192.168" not in write_share(share)


def test_a_processor_beside_a_card_is_told_by_its_layers_and_not_by_names(with_card):
    card = Device("CUDA0", "APU + CPU", "gpu", None, None)
    for n_on_cpu, name in ((1, "APU + CPU"), (15, "APU + CPU + CPU")):
        resolved = dataclasses.replace(with_card.resolved, layers_by_device={"CPU": n_on_cpu, "CUDA0": 16})
        build = dataclasses.replace(with_card.build, devices=(card,))
        (speed,) = share_of([dataclasses.replace(with_card, build=build, resolved=resolved)]).speeds
        assert speed.device == name


def test_a_file_of_ones_own_that_no_catalog_knows_has_no_name(with_card):
    model = dataclasses.replace(with_card.model, file_name="divorce-letters.gguf", n_params=7, file_sha256="ab" * 32)
    asked = dataclasses.replace(with_card.asked, model="divorce-letters.gguf")
    text = write_share(share_of([dataclasses.replace(with_card, model=model, asked=asked)]))
    assert "divorce" not in text
    assert "abab" not in text
    assert with_card.model.description in text


def test_what_is_written_is_read_again(recorded):
    share = share_of(recorded)
    assert [speed.test for speed in share.speeds] == ["pp64", "tg16"]
    assert read_share(json.loads(write_share(share)), pytest.fail) == share
    lines = write_share(share).splitlines()
    assert sum(line.startswith('  {"machine"') for line in lines) == 2, "one a line"


def test_of_several_records_of_a_cell_one_is_shared(recorded):
    twice = dataclasses.replace(recorded[1], samples=(*recorded[1].samples, *recorded[1].samples[-3:]))
    assert [speed.n_samples for speed in share_of([recorded[1], twice]).speeds] == [len(twice.timed)]


def test_settings_that_are_not_as_usual_are_shared(recorded):
    asked = dataclasses.replace(recorded[1].asked, type_k="q8_0", tensor_split=(3.0, 1.0), n_gpu_layers=4)
    (speed,) = share_of([dataclasses.replace(recorded[1], asked=asked)]).speeds
    assert speed.settings == {"type_k": "q8_0", "tensor_split": "3/1", "n_gpu_layers": 4}
    assert not speed.is_default


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rate_tok_per_s": "fast"}, "not a number"),
        ({"rate_tok_per_s": -1.0}, "not a number above 0"),
        ({"rate_tok_per_s": HIGHEST_RATE * 2}, "which no machine has"),
        ({"rate_low_tok_per_s": 1e6}, "interval"),
        ({"rate_low_tok_per_s": None}, "interval"),
        ({"machine": 7}, "of machine 7"),
        ({"build": -1}, "of build -1"),
        ({"trust": "very"}, "not one of"),
        ({"test_kind": "xx"}, "kind"),
        ({"model": "x" * 1000}, "characters"),
        ({"n_samples": 0}, "n_samples"),
    ],
)
def test_a_bad_entry_costs_itself_and_is_told(values, change, words):
    values["speeds"][0] |= change
    troubles = []
    found = read_share(values, troubles.append)
    assert [speed.test for speed in found.speeds] == ["tg16"]
    (trouble,) = troubles
    assert trouble.startswith("speeds[0]")
    assert words in trouble


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({shares.MARK: SCHEMA + 1}, "update harness"),
        ({shares.MARK: "x"}, "no schema"),
        ({shares.MARK: 0}, "no schema"),
        ({"machines": {}}, "no list machines"),
        ({"speeds": None}, "no list speeds"),
    ],
)
def test_a_file_that_is_none_is_refused(values, change, words):
    with pytest.raises(Malformed, match=words):
        read_share({**values, **change}, pytest.fail)
    with pytest.raises(Malformed, match="no harness_share"):
        read_share([], pytest.fail)


def test_of_many_bad_entries_some_are_told_and_their_number(values):
    told = []
    read_share({**values, "speeds": [{"machine": 0}] * 900}, told.append)
    assert len(told) == 4
    assert told[-1] == "900 of its speeds are left out, of which the first 3 are told"


def test_no_more_than_so_many_entries_are_used(values, monkeypatch):
    monkeypatch.setattr(shares, "MOST_SPEEDS", 3)
    values["speeds"] *= 5
    troubles = []
    assert len(read_share(values, troubles.append).speeds) == 3
    assert troubles == ["it has 10 speeds, of which the first 3 are used"]


def test_what_does_harm_to_a_terminal_is_taken_out(values):
    values["machines"][0]["cpu"] = "EPYC\x1b[31m\u202e\n<script>"
    found = read_share(values, pytest.fail)
    assert "\x1b" not in found.machines[0].cpu
    assert "\u202e" not in found.machines[0].cpu


def test_a_row_a_machine_by_the_speed_that_speaks_for_it(values):
    first = values["speeds"][1]
    values["speeds"] = [
        {**first, "rate_tok_per_s": rate, "rate_low_tok_per_s": None, "rate_high_tok_per_s": None, **more}
        for rate, more in (
            (10.0, {"trust": Trust.NOT_TRUSTED.value, "n_samples": 99}),
            (20.0, {"is_default": True}),
            (30.0, {"n_depth": 512}),
            (60.0, {"test": "tg128 x4", "settings": {"n_parallel": 4}, "n_samples": 99}),
            (70.0, {"test": "tg128 after 4096", "settings": {"n_prefix": 4096}, "n_samples": 99}),
            (40.0, {"device": "RTX 3090"}),
        )
    ]
    rows = shared_rows(read_share(values, pytest.fail), "theirs.json", "tg")
    assert [(row.kind, [cell.rate_tok_per_s for cell in row.cells.values()]) for row in rows] == [
        ("cpu", [20.0]),
        ("gpu", [40.0]),
    ]
    assert {row.shared_in for row in rows} == {"theirs.json"}
    assert shared_rows(read_share(values, pytest.fail), "theirs.json", "pp") == []


def test_two_quantizations_of_a_friends_model_are_two_columns(values):
    first = {**values["speeds"][1], "model": "llama3.2:1b"}
    values["speeds"] = [{**first, "quantization": name} for name in ("Q4_0", "Q8_0")]
    (row,) = shared_rows(read_share(values, pytest.fail), "theirs.json", "tg", CATALOG)
    usual = CATALOG.entries["llama3.2:1b"].default_quantization
    other = {"Q4_0": "Q8_0", "Q8_0": "Q4_0"}[usual]
    assert {name: cell.quantization for name, cell in row.cells.items()} == {
        "llama3.2:1b": usual,
        f"llama3.2:1b {other}": other,
    }


# --- the commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, recorded):
    """One's own results, and a folder with a friend's file and other things."""
    with Journal(tmp_path / "own" / "machine", "pp-tg") as journal:
        for record in recorded:
            journal.append(record)
    friends = tmp_path / "friends"
    friends.mkdir()
    (friends / "notes.json").write_text("[1, 2]")
    (friends / "broken.json").write_text("{")
    return tmp_path


def run(folder, *words):
    done = CliRunner().invoke(cli, [*map(str, words), "--results", str(folder / "own")])
    if done.exception and not isinstance(done.exception, SystemExit):
        assert isinstance(done.exception, HarnessError), done.exception
        return str(done.exception), 2
    return done.output, done.exit_code


def test_a_file_goes_from_one_to_the_other(folder):
    friend = folder / "friends" / "friend.json"
    text, code = run(folder, "report", "--share", friend)
    assert code == 0
    assert "nothing was sent anywhere" in text
    assert not (folder / "report.html").exists()
    values = json.loads(friend.read_text())
    values["machines"][0]["cpu"] = "Another 9000"
    values["speeds"].append({"machine": 0})
    friend.write_text(json.dumps(values))
    text, code = run(folder, "table", folder / "friends", "--no-published")
    assert code == 0
    assert "› Another 9000" in text
    assert "» AMD EPYC" in text, "one's own beside it"
    assert "speeds[2]: has no model" in text
    assert "broken.json: no JSON; it is skipped." in text
    assert "notes.json" not in text, "JSON of another kind"
    assert "shared by others, unchecked: friend.json" in text
    rows, code = run(folder, "table", friend, "--no-published", "-o", "json")
    found = json.loads(rows[rows.index("{") :])["figures"]
    assert [row["shared_in"] for row in found] == ["friend.json", None] or {row["shared_in"] for row in found} == {
        "friend.json",
        None,
    }


def test_what_is_named_and_no_such_file_is_one_sentence(folder, monkeypatch):
    for name, words in (("notes.json", "has no harness_share"), ("broken.json", "is no JSON")):
        text, code = run(folder, "table", folder / "friends" / name)
        assert code == 2
        assert words in text
    monkeypatch.setattr("harness.runs.share.MOST_BYTES", 3)
    told = []
    assert read_shares([folder / "friends"], told.append) == ([], [folder / "friends"])
    assert "notes.json: larger than" in " ".join(told)
    with pytest.raises(UsageError, match="is larger than"):
        read_shares([folder / "friends" / "notes.json"], pytest.fail)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "pipe.json")
    with pytest.raises(UsageError, match="is no file"):
        read_shares([folder / "pipe.json"], pytest.fail)


def test_a_page_is_written_too_where_it_is_asked_for(folder):
    _, code = run(folder, "report", "--share", folder / "me.json", "-o", folder / "page.html")
    assert code == 0
    assert (folder / "me.json").exists()
    assert (folder / "page.html").exists()


def test_nothing_measured_is_nothing_to_share(tmp_path, recorded):
    with Journal(tmp_path / "own" / "machine", "pp-tg") as journal:
        journal.append(recorded[2])
    text, code = run(tmp_path, "report", "--share", tmp_path / "me.json")
    assert code == 2
    assert "no measured cell" in text
