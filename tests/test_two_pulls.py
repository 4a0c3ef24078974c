"""Several pulls at once, one that is killed, and caches that cannot be written: no file is fetched twice, mixed, or left half."""

from __future__ import annotations

import hashlib
import os
import pathlib
import signal
import threading
import time

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.errors import HarnessError, Outcome
from harness.sources.references import parse_reference
from harness.sources.remote_errors import RemoteError

from .hub.fixtures import hub  # noqa: F401
from .hub.server import Fault
from .test_hub import MODEL, NAME, REFERENCE, REPO, hear, start

OTHER = "other-Q8_0.gguf"


@pytest.fixture
def filled(hub):  # noqa: F811
    hub.add(REPO, NAME, MODEL)
    hub.add(REPO, OTHER, MODEL + b"x")
    return hub


def wait_for(condition, *processes):
    deadline = time.monotonic() + 60
    while not condition():
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < deadline
        time.sleep(0.02)


def plain(hub):  # noqa: F811
    """The address of a file for a process that takes the hub's own for a page of it."""
    return f"{hub.url.replace('127.0.0.1', 'localhost')}/plain/{REPO}/{NAME}"


def part_bytes(folder):
    return max(
        (path.stat().st_size for pattern in ("*.incomplete", "*.part") for path in folder.rglob(pattern)), default=0
    )


@pytest.mark.parametrize("kind", ["hub", "address"])
def test_one_that_is_killed_lets_the_other_go_on_where_it_was(filled, tmp_path, kind):
    """The second waits for the first, which dies in the middle, and fetches only the rest."""
    text = REFERENCE if kind == "hub" else plain(filled)
    where = "/store/" if kind == "hub" else "/plain/"
    gate = threading.Event()
    filled.faults += [Fault(where, times=1)] * (kind == "address")  # its first bytes
    filled.faults.append(Fault(where, cut_at=2_000_000, gate=gate, times=1))
    first = start("pull", text, hub=filled, folder=tmp_path)
    wait_for(lambda: part_bytes(tmp_path) == 2_000_000, first)
    kept = part_bytes(tmp_path)
    filled.forget()
    second = start("pull", text, hub=filled, folder=tmp_path)
    wait_for(lambda: kind == "address" or filled.asked, first, second)
    time.sleep(0.2)  # it comes to the lock
    first.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    first.communicate(timeout=30)
    out, err = second.communicate(timeout=60)
    gate.set()
    assert second.returncode == 0, err
    path = pathlib.Path(out.split("  ")[0])
    assert path.read_bytes() == MODEL
    assert part_bytes(tmp_path) == 0
    sent = [asked for asked in filled.asked if where in asked.path and asked.method == "GET"]
    assert sum(asked.sent_bytes for asked in sent if asked.range != "bytes=0-63") == len(MODEL) - kept


def test_two_pulls_of_one_address_fetch_it_once(filled, tmp_path):
    url = plain(filled)
    filled.faults.append(Fault("/plain/", slow_s=0.02))
    processes = [start("pull", url, hub=filled, folder=tmp_path) for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert pathlib.Path(out.split("  ")[0]).read_bytes() == MODEL
    assert filled.sent_bytes("hub") <= len(MODEL) + 2 * 64


def test_two_files_of_one_repository_at_once(filled, tmp_path):
    filled.faults.append(Fault("/store/", slow_s=0.01))
    processes = [start("pull", f"hf:{REPO}/{name}", hub=filled, folder=tmp_path) for name in (NAME, OTHER)]
    paths = []
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        paths.append(pathlib.Path(out.split("  ")[0]))
    assert [path.read_bytes() for path in paths] == [MODEL, MODEL + b"x"]
    assert paths[0].parent == paths[1].parent
    assert filled.sent_bytes() == 2 * len(MODEL) + 1


def test_a_file_that_is_being_fetched_is_not_there_yet(filled, tmp_path):
    """Whoever measures meanwhile is told to pull it, and neither reads the beginning nor waits."""
    gate = threading.Event()
    filled.faults.append(Fault("/store/", cut_at=2_000_000, gate=gate, times=1))
    puller = threading.Thread(target=parse_reference(REFERENCE).pull)
    puller.start()
    wait_for(lambda: part_bytes(tmp_path) > 1_900_000)
    with pytest.raises(HarnessError, match="is not on this disk; run `harness pull"):
        parse_reference(REFERENCE).open()
    gate.set()
    puller.join(60)
    assert parse_reference(REFERENCE).open().read_bytes() == MODEL


@pytest.mark.parametrize("left", ["sha.incomplete", "sha.a1b2c3.incomplete", "sha.lock", "etag.incomplete"])
def test_what_other_versions_left_does_no_harm(filled, tmp_path, left):
    """Beginnings of huggingface_hub 0 and 1 (by digest, by ETag) and 2 (of a random name)."""
    blobs = tmp_path / "hf" / "hub" / f"models--{REPO.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    sha = hashlib.sha256(MODEL).hexdigest()
    name = left.replace("sha", sha).replace("etag", "0" * 40)
    (blobs / name).write_bytes(MODEL[:1_000_000])
    assert parse_reference(REFERENCE).pull()[0].read_bytes() == MODEL
    resumed = 1_000_000 if left == "sha.incomplete" else 0
    assert filled.sent_bytes() == len(MODEL) - resumed


def test_a_beginning_that_is_a_folder_is_said(filled, tmp_path):
    blobs = tmp_path / "hf" / "hub" / f"models--{REPO.replace('/', '--')}" / "blobs"
    (blobs / f"{hashlib.sha256(MODEL).hexdigest()}.incomplete").mkdir(parents=True)
    with pytest.raises(HarnessError, match="cannot be written"):
        parse_reference(REFERENCE).pull()


@pytest.mark.parametrize("text", [REFERENCE, "address"])
def test_a_cache_that_cannot_be_written_is_said(filled, tmp_path, monkeypatch, text):
    """A file lies where the cache should be, which nobody's rights get around."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        HarnessError, match=r"cannot be written \(.*; set (HF_HOME|HARNESS_CACHE_DIR) to another folder"
    ):
        parse_reference(text.replace("address", f"{filled.url}/plain/{REPO}/{NAME}")).pull()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whom rights of folders bind")
def test_a_cache_that_may_only_be_read_is_said_and_still_read(filled, tmp_path):
    parse_reference(REFERENCE).pull()
    folders = [path for path in (tmp_path / "hf").rglob("*") if path.is_dir() and not path.is_symlink()]
    for folder in folders:
        folder.chmod(0o500)
    try:
        assert parse_reference(REFERENCE).pull()[0].read_bytes() == MODEL
        with pytest.raises(HarnessError, match="cannot be written"):
            parse_reference(f"hf:{REPO}/{OTHER}").pull()
    finally:
        for folder in folders:
            folder.chmod(0o700)


def test_a_remote_error_while_another_waits_frees_the_lock(filled):
    filled.faults.append(Fault("/store/", status=403))
    with pytest.raises(RemoteError):
        parse_reference(REFERENCE).pull()
    filled.faults.clear()
    said = []
    assert parse_reference(REFERENCE).pull(hear(on_remark=said.append))[0].read_bytes() == MODEL
    assert said == []


# --- offline ----------------------------------------------------------------------------------------------------------

HUB_MODEL = ("-m", REFERENCE)
OFFLINE = [
    ["pull", REFERENCE], ["pull", f"hf:{REPO}:q4_0"], ["pull", "https://example.org/m.gguf"], ["pull", "llama3.2:1b"],
    ["inspect", REFERENCE], ["inspect", f"hf:{REPO}"], ["inspect", "https://example.org/m.gguf"], ["models", "--check"],
    ["pp-tg", *HUB_MODEL], ["sweep", *HUB_MODEL], ["token-time", *HUB_MODEL], ["overhead", *HUB_MODEL], ["run", *HUB_MODEL, "hi"],
    ["overhead", *HUB_MODEL, "--predict-only"], ["fit", *HUB_MODEL], ["tune", *HUB_MODEL], ["quality", *HUB_MODEL],
    ["score", *HUB_MODEL], ["predict", *HUB_MODEL, "--machine", "RTX 3060 Ti"], ["ab", *HUB_MODEL, "--", "-t", "1", "--", "-t", "2"],
    ["speculate", *HUB_MODEL, "--draft", REFERENCE], ["pp-tg", "-m", "https://example.org/m.gguf"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", OFFLINE, ids=" ".join)
def test_offline_every_command_is_one_sentence_and_asks_nobody(filled, monkeypatch, tmp_path, arguments):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HARNESS_RESULTS", str(tmp_path / "results"))

    def refuse(*arguments, **options):
        raise AssertionError("somebody was asked")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    done = CliRunner().invoke(cli, arguments)
    assert isinstance(done.exception, HarnessError), (done.output, done.exception)
    assert done.exception.outcome in (Outcome.OTHER, Outcome.QUESTION)
    said = str(done.exception)
    assert "\n" not in said
    assert "HF_HUB_OFFLINE" in said or "is not on this disk" in said
    assert filled.asked == []


@pytest.mark.parametrize("arguments", [["inspect", "llama3.2:1b:q4_0"], ["models"]])
def test_offline_the_catalog_answers_for_itself(filled, monkeypatch, arguments):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert filled.asked == []
