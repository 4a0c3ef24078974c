"""Pull and inspect against a hub on loopback that does all that goes wrong with the real one, through the real client."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.errors import HarnessError, UsageError
from harness.events import Remark
from harness.gguf.header import BytesSource, read_header
from harness.sources import fetching, hub_cache, remote, remote_source, user_catalog
from harness.sources.references import parse_reference
from harness.sources.remote_errors import NotThereError, RemoteError

from .gguf_bytes import HeaderBytes, llama_like
from .hub.fixtures import TOKEN, environment, hub  # noqa: F401
from .hub.server import Fault
from .test_gguf_file import write_split

ROOT = pathlib.Path(__file__).parent.parent
REPO = "owner/tiny-GGUF"
NAME = "tiny-Q4_0.gguf"
REFERENCE = f"hf:{REPO}/{NAME}"


def big_model(size: int = 3_000_000) -> bytes:
    """A small header and so much random weight that a download has a middle."""
    made = (
        HeaderBytes()
        .add("general.architecture", "str", "llama")
        .add_tensor("token_embd.weight", "F16", 64, size // 128)
    )
    return made.build() + random.Random(1).randbytes(made.offset)


MODEL = big_model()


@pytest.fixture
def filled(hub):  # noqa: F811
    hub.add(REPO, NAME, MODEL)
    return hub


def pull(text=REFERENCE):
    return parse_reference(text).pull()


def hear(on_bytes=lambda done, total: None, on_remark=lambda text: None):
    """A callback that takes events apart."""
    return lambda event: on_remark(event.text) if isinstance(event, Remark) else on_bytes(event.done, event.total)


def find_header(text=REFERENCE):
    return parse_reference(text).header()


def leftovers(tmp_path):
    """Everything in the cache that is not the right file under the right name, a beginning of one, or bookkeeping."""
    files = [
        path for path in (tmp_path / "hf").rglob("*") if path.is_file() and path.suffix not in (".lock", ".incomplete")
    ]
    return [
        path
        for path in files
        if path.parent.name != "refs"
        and path.name not in ("CACHEDIR.TAG", ".agent_harnesses.json")
        and path.read_bytes() != MODEL
    ]


def incomplete(tmp_path):
    return list((tmp_path / "hf").rglob("*.incomplete"))


# --- what goes well ---------------------------------------------------------------------------------------------------


def test_pull_brings_the_file_where_every_client_finds_it(filled, tmp_path):
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    seen = []
    (path,) = parse_reference(REFERENCE).pull(hear(lambda done, total: seen.append((done, total))))
    assert path.read_bytes() == MODEL
    assert path.is_relative_to(tmp_path / "hf" / "hub" / "models--owner--tiny-GGUF" / "snapshots")
    assert path.resolve().name == hashlib.sha256(MODEL).hexdigest()
    assert seen[-1] == (len(MODEL), len(MODEL))
    assert seen == sorted(seen)
    cache = tmp_path / "hf" / "hub"
    assert try_to_load_from_cache(REPO, NAME, cache_dir=cache) == str(path)
    assert hf_hub_download(REPO, NAME, cache_dir=cache, endpoint=filled.url) == str(path)
    assert filled.sent_bytes() == len(MODEL)


def test_what_is_in_the_cache_costs_no_request(filled, monkeypatch):
    from huggingface_hub import constants

    first = pull()
    filled.forget()
    assert pull() == first
    assert pull(f"hf:{REPO}:q4_0") == first
    assert parse_reference(REFERENCE).open() == parse_reference(f"hf:{REPO}").open() == first[0]
    assert parse_reference(REFERENCE).header().path == first[0]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pull() == first
    assert filled.asked == []


def test_a_file_that_another_program_downloaded_is_used(filled, tmp_path):
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(REPO, NAME, cache_dir=tmp_path / "hf" / "hub", endpoint=filled.url)
    filled.forget()
    assert [str(found) for found in pull()] == [path]
    assert filled.asked == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"hf:{REPO}", "tiny-Q4_K_M.gguf"),
        (f"hf:{REPO}:q8_0", "folder/tiny.Q8_0.gguf"),
        (f"hf:{REPO}/folder/tiny.Q8_0.gguf", "folder/tiny.Q8_0.gguf"),
        (f"https://huggingface.co/{REPO}/blob/main/folder/tiny.Q8_0.gguf?x=1", "folder/tiny.Q8_0.gguf"),
    ],
)
def test_a_repository_is_searched_as_llama_cpp_does(hub, text, name):  # noqa: F811
    for each in ("README.md", "a-mmproj-Q4_K_M.gguf", "folder/tiny.Q8_0.gguf", "tiny-Q4_0.gguf", "tiny-Q4_K_M.gguf"):
        hub.add(REPO, each, llama_like().add("is", "str", each).build(data=True))
    (path,) = pull(text)
    assert path.as_posix().endswith(f"/{name}")
    assert path.read_bytes() == hub.repos[REPO][name]


def test_a_split_model_comes_whole_and_is_read_from_afar(hub, tmp_path):  # noqa: F811
    first = write_split(tmp_path)
    names = sorted(path.name for path in tmp_path.glob("m-*.gguf"))
    for name in names:
        hub.add(REPO, name, tmp_path / name)
    remote_header = parse_reference(f"hf:{REPO}/{names[0]}").header()
    assert remote_header.header == parse_reference(str(first)).header().header
    assert remote_header.fetched.n_requests == 2 * len(names)  # each with the hub's redirection
    paths = pull(f"hf:{REPO}/{names[0]}")
    assert [path.name for path in paths] == names
    assert all(path.read_bytes() == (tmp_path / path.name).read_bytes() for path in paths)
    with pytest.raises(HarnessError, match=r"later part .* m-00001-of-00003\.gguf"):
        pull(f"hf:{REPO}/{names[1]}")


def test_a_measuring_command_says_what_to_run_and_downloads_nothing(filled):
    with pytest.raises(UsageError, match=f"`harness pull {REFERENCE}`"):
        parse_reference(REFERENCE).open()
    with pytest.raises(UsageError, match=r"`harness pull llama3\.2:1b:q8_0`"):
        parse_reference("llama3.2:1b").open()
    assert filled.asked == []


# --- what goes wrong with a pull --------------------------------------------------------------------------------------


def test_cut_connections_are_taken_up_where_they_broke(filled):
    filled.faults.append(Fault("/store/", cut_at=1_000_000))
    (path,) = pull()
    assert path.read_bytes() == MODEL
    assert filled.sent_bytes() == len(MODEL)
    ranges = [asked.range for asked in filled.asked if asked.server == "store"]
    assert ranges[0] is None
    assert all(text.startswith("bytes=") for text in ranges[1:])
    assert len(ranges) >= 3


def test_a_connection_that_never_gives_anything_ends_with_a_sentence(filled, tmp_path):
    filled.faults.append(Fault("/store/", cut_at=500_000, times=1))
    filled.faults.append(Fault("/store/", cut_at=0))
    with pytest.raises(RemoteError, match=r"cannot be reached.*arrived are kept"):
        pull()
    assert leftovers(tmp_path) == []
    (part,) = incomplete(tmp_path)
    assert MODEL.startswith(part.read_bytes())
    assert part.stat().st_size > 0
    filled.faults.clear()
    filled.forget()
    kept = part.stat().st_size
    (path,) = pull()
    assert path.read_bytes() == MODEL
    assert filled.sent_bytes() == len(MODEL) - kept


def test_a_server_that_ignores_ranges_sends_all_again_and_nothing_is_spoilt(filled):
    filled.faults += [Fault("/store/", cut_at=700_000, times=1), Fault("/store/", no_ranges=True)]
    (path,) = pull()
    assert path.read_bytes() == MODEL


def test_wrong_bytes_are_removed(filled, tmp_path):
    filled.faults.append(Fault("/store/", flip_at=2_000_000))
    with pytest.raises(RemoteError, match=r"digest .* so it was removed; pull it again"):
        pull()
    assert leftovers(tmp_path) == incomplete(tmp_path) == []
    filled.faults.clear()
    assert pull()[0].read_bytes() == MODEL


def test_a_wrong_beginning_from_an_earlier_time_is_found_out(filled, tmp_path):
    blobs = tmp_path / "hf" / "hub" / "models--owner--tiny-GGUF" / "blobs"
    blobs.mkdir(parents=True)
    part = blobs / f"{hashlib.sha256(MODEL).hexdigest()}.incomplete"
    part.write_bytes(b"x" * 1000)
    said = []
    assert parse_reference(REFERENCE).pull(hear(on_remark=said.append))[0].read_bytes() == MODEL
    assert said == [f"what was here of {REPO}/{NAME} was not its beginning; it is fetched anew"]
    shutil.rmtree(tmp_path / "hf")
    blobs.mkdir(parents=True)
    part.write_bytes(b"x" * (len(MODEL) + 5))  # longer than the file: nothing of it can be used
    assert pull()[0].read_bytes() == MODEL


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("/store/", announce=100), "should have 3000064 bytes and its server offers 3000164"),
        (Fault("/store/", announce=-100), "its server offers 2999964"),
        (Fault("resolve", "HEAD", announce=100), "should have 3000164 bytes and its server offers 3000064"),
        (Fault("/store/", extra=100_000), "its server offers 3100064|its server sends more"),
        (Fault("/store/", wrong_range=True, cut_at=1), None),
    ],
)
def test_a_wrong_length_is_refused(filled, tmp_path, fault, said):
    filled.faults += [fault, Fault("/store/", wrong_range=True)] if said is None else [fault]
    if said is None:
        fault.times = 1
        said = "other bytes than those asked for"
    with pytest.raises(RemoteError, match=said):
        pull()
    assert leftovers(tmp_path) == []
    filled.faults.clear()
    assert pull()[0].read_bytes() == MODEL


def test_a_slow_server_is_waited_for(filled):
    filled.faults.append(Fault("/store/", slow_s=0.01))
    assert pull()[0].read_bytes() == MODEL


@pytest.mark.parametrize("where", ["resolve", "/store/"])
@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (429, {"Retry-After": "120"}, r"limits how often.*in 120 s"),
        (429, {"ratelimit": '"api";r=0;t=55'}, r"in 55 s, or set HF_TOKEN"),
        (429, {}, r"again later"),
        (500, {}, r"trouble of its own \(500\)"),
        (503, {"Retry-After": "120"}, r"trouble of its own \(503\)"),
        (403, {}, r"forbids owner/tiny-GGUF/tiny-Q4_0\.gguf \(403\); set HF_TOKEN"),
        (418, {}, "answers 418"),
    ],
)
def test_a_refusal_is_one_sentence(filled, tmp_path, where, status, headers, said):
    filled.faults.append(Fault(where, status=status, headers=headers))
    for act in (pull, lambda: parse_reference(REFERENCE).header()):
        with pytest.raises(RemoteError, match=said) as caught:
            act()
        assert "\n" not in str(caught.value)
        assert "http" not in str(caught.value)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("status", "headers"), [(429, {"Retry-After": "3"}), (500, {}), (503, {}), (408, {})])
@pytest.mark.parametrize("where", ["resolve", "/store/"])
def test_a_trouble_that_passes_is_waited_for(filled, monkeypatch, status, headers, where):
    waits = []
    monkeypatch.setattr(remote, "_sleep", waits.append)
    filled.faults.append(Fault(where, status=status, headers=headers, times=1))
    parse_reference(REFERENCE).header()
    filled.faults[0].times = 1
    assert pull()[0].read_bytes() == MODEL
    assert waits == [3.0 if status == 429 else 1.0] * 2


def test_what_is_not_there_is_told_from_what_may_not_be_seen(filled, monkeypatch):
    for act in (pull, find_header):
        with pytest.raises(NotThereError, match=rf"has no file tiny-q40\.gguf; did you mean {NAME}\?"):
            act(f"hf:{REPO}/tiny-q40.gguf")
    with pytest.raises(NotThereError, match="shows no repository for owner/none"):
        pull("hf:owner/none:q4_0")
    with pytest.raises(NotThereError, match="no GGUF file of Q5_0; it has Q4_0"):
        pull(f"hf:{REPO}:q5_0")
    with pytest.raises(NotThereError, match="at this revision"):
        pull(f"hf:{REPO}@old/{NAME}")
    filled.gated.add(REPO)
    filled.tokens[REPO] = TOKEN
    with pytest.raises(NotThereError, match="is gated: accept its terms"):
        pull()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(NotThereError, match="does not accept the token; correct HF_TOKEN") as caught:
        pull()
    assert "hf_wrong" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert pull()[0].read_bytes() == MODEL
    assert parse_reference(f"hf:{REPO}").header().path is not None


def test_a_token_stays_with_the_hub_and_out_of_sight(filled, tmp_path, monkeypatch):
    filled.gated.add(REPO)
    filled.tokens[REPO] = TOKEN
    done = run("inspect", REFERENCE, hub=filled, folder=tmp_path, HF_TOKEN=TOKEN)
    assert done.returncode == 0
    done_pull = run("pull", REFERENCE, hub=filled, folder=tmp_path, HF_TOKEN=TOKEN)
    assert done_pull.returncode == 0
    assert {asked.authorization for asked in filled.asked if asked.server == "store"} == {None}
    assert f"Bearer {TOKEN}" in {asked.authorization for asked in filled.asked if asked.server == "hub"}
    for text in (done.stdout, done.stderr, done_pull.stdout, done_pull.stderr):
        assert TOKEN not in text
        assert "Signature" not in text
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


def test_offline_is_said(filled, tmp_path):
    for command in ("pull", "inspect"):
        done = run(command, REFERENCE, hub=filled, folder=tmp_path, HF_HUB_OFFLINE="1")
        assert done.returncode == 1
        assert "HF_HUB_OFFLINE forbids" in done.stderr
    assert filled.asked == []


def test_nobody_there_is_said(filled, tmp_path):
    filled.close()
    for command in ("pull", "inspect"):
        done = run(command, REFERENCE, hub=filled, folder=tmp_path)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "cannot be reached" in done.stderr


def test_no_room_is_said_before_anything_is_fetched(filled, monkeypatch):
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(HarnessError, match=r"1\.0 MB free and owner/tiny-GGUF/tiny-Q4_0\.gguf needs 3\.0 MB more"):
        pull()
    assert filled.sent_bytes() == 0


def test_a_disk_that_fills_up_keeps_what_is_there_and_says_so(filled, tmp_path, monkeypatch):
    real = fetching._write

    def full(file, piece, part):
        if piece is not None and file.tell() > 1_000_000:

            class Full:
                def write(self, data):
                    raise OSError(28, "No space left on device")

            return real(Full(), piece, part)
        return real(file, piece, part)

    monkeypatch.setattr(fetching, "_write", full)
    with pytest.raises(HarnessError, match="No space left on device"):
        pull()
    assert leftovers(tmp_path) == []
    assert len(incomplete(tmp_path)) == 1


@pytest.mark.parametrize("digest", ["../../../escape", "short", ""])
def test_a_digest_that_is_none_is_refused(hub, tmp_path, digest):  # noqa: F811
    hub.add(REPO, NAME, MODEL, digest=digest)
    with pytest.raises(RemoteError, match="does not say its size and SHA-256"):
        pull()
    assert not list(tmp_path.rglob("escape*"))


@pytest.mark.parametrize("commit", ["../../../escape", "a" * 39, "a" * 64, "main", "{tmp}/escape"])
@pytest.mark.parametrize("text", [REFERENCE, f"hf:{REPO}:q4_0", f"hf:{REPO}/TINY-q4_0.gguf"])
def test_a_commit_that_is_none_is_refused_before_anything_is_written(filled, tmp_path, commit, text):
    commit = commit.format(tmp=tmp_path)
    filled.faults.append(Fault("/resolve/", say={"X-Repo-Commit": commit}))
    listing = {"sha": commit, "siblings": [{"rfilename": NAME, "size": len(MODEL), "lfs": {"sha256": "a" * 64}}]}
    filled.faults.append(Fault("/api/", body=json.dumps(listing).encode()))
    with pytest.raises(RemoteError, match="a commit, which is none; nothing was written"):
        pull(text)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink() or "escape" in path.name]


def test_a_commit_in_the_cache_that_is_none_names_no_folder(filled, tmp_path):
    refs = tmp_path / "hf" / "hub" / "models--owner--tiny-GGUF" / "refs"
    refs.mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / NAME).write_bytes(MODEL)
    for text in ("../../../../secret", str(secret)):
        (refs / "main").write_text(text)
        with pytest.raises(UsageError, match="is not on this disk"):
            parse_reference(REFERENCE).open()
        with pytest.raises(UsageError, match="is not on this disk"):
            parse_reference(f"hf:{REPO}:q4_0").open()


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 10_000 + b"]" * 10_000,
        b"[]",
        b"{}",
        b"3",
        b"\xff",
        b'{"siblings": 3}',
        b'{"siblings": [3, {"rfilename": 4, "size": "x"}]}',
        b'{"siblings": [{"rfilename": "m-Q4_K_M.gguf", "size": -5}, {"rfilename": "n.gguf", "size": true}]}',
    ],
)
def test_a_listing_that_is_none_is_said(filled, body):
    filled.faults.append(Fault("/api/", body=body))
    for act in (pull, find_header):
        with pytest.raises(RemoteError, match=r"does not speak as a Hugging Face hub|has no GGUF file"):
            act(f"hf:{REPO}")


def test_a_listing_without_end_is_not_listened_to(filled, monkeypatch):
    monkeypatch.setattr(remote, "SMALL_LIMIT_BYTES", 100_000)
    filled.faults.append(Fault("/api/", body=b" " * 5_000_000))
    with pytest.raises(RemoteError, match="sends more than 0 MiB where some KB are expected"):
        pull(f"hf:{REPO}")


# --- servers that take their time -------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch):
    """Limits of parts of a second, and a server that rests a tenth of one before each byte."""
    for name in ("HEAD_LIMIT_S", "SMALL_LIMIT_S", "STALL_S"):
        monkeypatch.setattr(remote, name, 0.5)


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize(("where", "text"), [("/api/", f"hf:{REPO}"), ("/resolve/", REFERENCE), ("/store/", REFERENCE)])
def test_a_byte_at_a_time_is_not_waited_for(filled, impatient, where, text, head):
    filled.faults.append(Fault(where, drip_s=0.1, drip_head=head, body=b"{" * 1000))
    for act in (pull, find_header):
        if (where, head) == ("/resolve/", False):
            continue  # the body of a redirection is not read
        began = time.monotonic()
        with pytest.raises(
            RemoteError, match=r"is too slow \((no answer|[0-9]+ bytes) in 0 s\)|is too slow \(no answer in 1 s"
        ):
            act(text)
        assert time.monotonic() - began < 20


def test_while_nothing_comes_the_bar_is_called(filled, monkeypatch):
    monkeypatch.setattr(remote, "STALL_S", 1.5)
    filled.faults.append(Fault("/store/", drip_s=0.4))
    seen = []
    with pytest.raises(RemoteError, match="is too slow"):
        parse_reference(REFERENCE).pull(hear(lambda done, total: seen.append(done)))
    assert len(seen) > len(set(seen))


def test_a_header_without_end_is_not_fetched(filled, monkeypatch):
    monkeypatch.setattr(remote_source, "HEADER_LIMIT_BYTES", 2**20)
    made = HeaderBytes().add("general.architecture", "str", "llama")
    made.add_array("tokenizer.ggml.tokens", "str", ["x" * 1000] * 5000)
    filled.add(REPO, NAME, made.build())
    with pytest.raises(RemoteError, match="goes on beyond 1 MiB"):
        parse_reference(REFERENCE).header()
    assert filled.sent_bytes() <= 2**20


# --- mirrors ----------------------------------------------------------------------------------------------------------

NO_LISTING = Fault("/api/", status=404)


def mirror(filled, **headers):
    """What a mirror leaves out of the hub's headers, or says otherwise."""
    plain = {"X-Repo-Commit": None, "X-Linked-Etag": None}
    filled.faults.append(Fault("/resolve/", say={**plain, **headers}))


def test_a_mirror_that_names_neither_commit_nor_digest_is_checked_by_its_listing(filled):
    mirror(filled, ETag='"5f3-60d"')
    (path,) = pull()
    assert path.resolve().name == hashlib.sha256(MODEL).hexdigest()
    assert path.parent.name == filled.commit(REPO)
    filled.forget()
    assert pull() == [path]
    assert filled.asked == []


def test_without_a_listing_the_file_is_kept_and_that_it_was_not_checked_is_said(filled):
    mirror(filled, ETag=f'"{"a" * 64}"')
    filled.faults.append(NO_LISTING)
    said = []
    (path,) = parse_reference(REFERENCE).pull(hear(on_remark=said.append))
    assert path.read_bytes() == MODEL
    assert path.resolve().name == hashlib.sha256(MODEL).hexdigest()
    (remark,) = said
    assert f"was not checked, for its server names no SHA-256; it has {path.resolve().name}" in remark
    assert parse_reference(REFERENCE).open() == path


def test_an_etag_that_turns_out_to_be_the_digest_is_a_check(filled):
    mirror(filled, ETag=f'"{hashlib.sha256(MODEL).hexdigest()}"')
    filled.faults.append(NO_LISTING)
    said = []
    assert parse_reference(REFERENCE).pull(hear(on_remark=said.append))[0].read_bytes() == MODEL
    assert said == []


def test_a_finished_file_is_not_deleted_for_a_wrong_header(filled, tmp_path):
    filled.faults.append(Fault("/resolve/", say={"X-Linked-Etag": f'"{"b" * 64}"'}))
    (path,) = pull()
    assert path.read_bytes() == MODEL
    assert path.resolve().name == hashlib.sha256(MODEL).hexdigest()
    assert leftovers(tmp_path) == incomplete(tmp_path) == []


def test_a_mirror_keeps_the_snapshot_that_is_there(filled):
    filled.add(REPO, "other-Q8_0.gguf", MODEL)
    (first,) = pull()
    mirror(filled)
    filled.faults.append(NO_LISTING)
    (other,) = pull(f"hf:{REPO}/other-Q8_0.gguf")
    assert other.parent == first.parent
    assert pull() == [first]


def test_a_mirror_below_a_path_is_used_by_its_full_address_too(filled, monkeypatch):
    from huggingface_hub import constants

    filled.prefix = "/hf/mirror"
    endpoint = f"{filled.url}/hf/mirror"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setenv("HF_ENDPOINT", endpoint + "/")
    (path,) = pull(f"{endpoint}/{REPO}/resolve/main/{NAME}?download=true")
    assert path.read_bytes() == MODEL
    assert pull(f"{endpoint}/{REPO}/tree/main") == pull(f"hf:{REPO}:q4_0") == [path]


def test_a_name_of_other_case_is_found(filled):
    text = f"hf:{REPO}/TINY-q4_0.gguf"
    assert parse_reference(text).header().header == read_header(BytesSource(MODEL))
    (path,) = pull(text)
    assert path.name == NAME
    filled.forget()
    assert parse_reference(text).open() == path
    assert pull(text) == [path]
    assert filled.asked == []


def test_a_pull_request_is_a_revision(filled):
    filled.revisions[REPO] = {"refs/pr/3"}
    for text in (f"hf:{REPO}@refs/pr/3/{NAME}", f"hf:{REPO}@refs/pr/3:q4_0"):
        assert parse_reference(text).header().header == read_header(BytesSource(MODEL))
        (path,) = pull(text)
        assert path.read_bytes() == MODEL
    with pytest.raises(UsageError, match="is not on this disk"):
        parse_reference(REFERENCE).open()


def test_what_comes_near_is_taken_and_said(hub):  # noqa: F811
    hub.add(REPO, "m-UD-Q4_K_M.gguf", MODEL)
    said = []
    assert parse_reference(f"hf:{REPO}:Q4_K_M").header().note.startswith(f"{REPO} has no plain Q4_K_M")
    (path,) = parse_reference(f"hf:{REPO}:Q4_K_M").pull(hear(on_remark=said.append))
    assert path.name == "m-UD-Q4_K_M.gguf"
    assert said == [f"{REPO} has no plain Q4_K_M; m-UD-Q4_K_M.gguf is another mixture of that name"]
    parse_reference(f"hf:{REPO}:Q4_K_M").open(hear(on_remark=said.append))
    assert len(said) == 2
    assert parse_reference(f"hf:{REPO}:Q4_K_M").header().note == f"{said[0]}."


def test_a_model_in_pieces_gets_a_sentence(hub):  # noqa: F811
    hub.add(REPO, "m.Q4_K_M.gguf.part1of2", MODEL)
    hub.add(REPO, "m.Q4_K_M.gguf.part2of2", MODEL)
    for text in (f"hf:{REPO}:Q4_K_M", f"hf:{REPO}"):
        with pytest.raises(NotThereError, match=r"part1of2 is a piece of a file that was cut by bytes"):
            pull(text)


def test_a_redirection_to_another_server_never_carries_the_token(filled, monkeypatch):
    """Twice: from the hub to itself under another name of this machine, and from there to the store."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    filled.gated.add(REPO)
    filled.tokens[REPO] = TOKEN
    other = filled.url.replace("127.0.0.1", "localhost")
    filled.faults.append(
        Fault("/resolve/", method="GET", status=302, headers={"Location": f"{other}/plain/{REPO}/{NAME}"})
    )
    parse_reference(REFERENCE).header()
    pull()
    assert {asked.authorization for asked in filled.asked if "/plain/" in asked.path} == {None}
    assert {asked.authorization for asked in filled.asked if "/resolve/" in asked.path} == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_a_file_that_changed_between_two_tries_is_not_mixed(filled, etag):
    """A server that says when the file was changed, to the second, and no strong ETag."""
    url = f"{filled.url}/plain/{REPO}/{NAME}"
    date = {"ETag": etag, "Last-Modified": "Sat, 28 Nov 2026 05:00:00 GMT"}
    other = MODEL[:200] + bytes(len(MODEL) - 200)

    def change(seconds):
        filled.add(REPO, NAME, other)

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(remote, "_sleep", change)
    filled.faults[:] = [
        Fault("/plain/", times=1, say=date),
        Fault("/plain/", cut_at=1_000_000, times=1, say=date),
        Fault("/plain/", say=date),
    ]
    try:
        assert parse_reference(url).open().read_bytes() == other
    finally:
        monkeypatch.undo()


def test_a_server_that_knows_no_if_range_is_found_out_by_its_etag(filled, monkeypatch):
    url = f"{filled.url}/plain/{REPO}/{NAME}"
    other = MODEL[:200] + bytes(len(MODEL) - 200)
    monkeypatch.setattr(remote, "_sleep", lambda seconds: filled.add(REPO, NAME, other))
    filled.faults[:] = [
        Fault("/plain/", times=1),
        Fault("/plain/", cut_at=1_000_000, times=1),
        Fault("/plain/", no_if_range=True),
    ]
    assert parse_reference(url).open().read_bytes() == other


def test_a_file_without_size_or_end_does_not_fill_the_disk(filled, tmp_path, monkeypatch):
    free = fetching.SPARE_BYTES + 1_000_000
    monkeypatch.setattr(
        fetching.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9 - free, free)
    )
    filled.faults.append(Fault("/plain/", no_ranges=True, say={"Content-Length": None}, cut_at=2_000_000))
    with pytest.raises(RemoteError, match="does not say how large it is and sends more than the disk takes"):
        parse_reference(f"{filled.url}/plain/{REPO}/{NAME}").open()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".gguf", ".part")]


def test_a_file_in_a_thousand_million_connections_is_given_up(filled):
    filled.faults.append(Fault("/store/", cut_at=10))
    with pytest.raises(RemoteError, match="cannot be reached"):
        pull()
    assert len([asked for asked in filled.asked if asked.server == "store"]) < 10


def test_names_from_a_listing_cannot_leave_the_cache(hub, tmp_path):  # noqa: F811
    hub.add(REPO, "../../../../evil-Q4_0.gguf", MODEL)
    with pytest.raises(NotThereError, match="has no GGUF file of Q4_0"):
        pull(f"hf:{REPO}:q4_0")
    with pytest.raises(UsageError, match="is not a file of a repository"):
        pull(f"hf:{REPO}/../../../../evil-Q4_0.gguf")
    assert not list(tmp_path.rglob("evil*"))


# --- processes --------------------------------------------------------------------------------------------------------


def start(*arguments, hub, folder, **more):  # noqa: F811
    command = [sys.executable, "-m", "harness", *map(str, arguments)]
    return subprocess.Popen(
        command,
        env=environment(hub, folder, **more),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job ignores Ctrl-C, and so would all that it starts.
        preexec_fn=None if os.name == "nt" else lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def run(*arguments, hub, folder, **more):  # noqa: F811
    process = start(*arguments, hub=hub, folder=folder, **more)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_pull_kill_pull_again_fetches_only_what_was_missing(filled, tmp_path):
    import threading

    gate = threading.Event()
    filled.faults.append(Fault("/store/", cut_at=2_000_000, gate=gate, times=1))
    process = start("pull", REFERENCE, hub=filled, folder=tmp_path)
    deadline = time.monotonic() + 60
    while not (parts := incomplete(tmp_path)) or parts[0].stat().st_size < 1_900_000:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()
    gate.set()
    assert leftovers(tmp_path) == []
    kept = incomplete(tmp_path)[0].stat().st_size
    filled.forget()
    done = run("pull", REFERENCE, hub=filled, folder=tmp_path)
    assert done.returncode == 0
    path = pathlib.Path(done.stdout.split("  ")[0])
    assert path.read_bytes() == MODEL
    assert incomplete(tmp_path) == []
    assert filled.sent_bytes() == len(MODEL) - kept
    assert [asked.range for asked in filled.asked if asked.server == "store"] == [f"bytes={kept}-"]
    blobs = [blob for blob in (tmp_path / "hf").rglob("blobs/*") if blob.is_file()]
    assert [blob.name for blob in blobs] == [hashlib.sha256(MODEL).hexdigest()]


def test_two_pulls_at_once_end_with_one_file(filled, tmp_path):
    filled.faults.append(Fault("/store/", slow_s=0.01))
    processes = [start("pull", REFERENCE, hub=filled, folder=tmp_path) for _ in range(2)]
    for process in processes:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert pathlib.Path(out.split("  ")[0]).read_bytes() == MODEL
    assert filled.sent_bytes() == len(MODEL)


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is no signal of a process here")
def test_ctrl_c_keeps_what_arrived_while_a_server_says_nothing(filled, tmp_path):
    import threading

    gate = threading.Event()
    filled.faults.append(Fault("/store/", cut_at=2_000_000, gate=gate))
    process = start("pull", REFERENCE, hub=filled, folder=tmp_path)
    deadline = time.monotonic() + 60
    while not (parts := incomplete(tmp_path)) or parts[0].stat().st_size < 1_900_000:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    gate.set()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert incomplete(tmp_path)[0].stat().st_size >= 1_900_000


def test_who_waits_for_another_process_says_so(filled, tmp_path):
    import threading

    from huggingface_hub.utils import WeakFileLock

    lock = tmp_path / "hf" / "hub" / ".locks" / "models--owner--tiny-GGUF" / f"{hashlib.sha256(MODEL).hexdigest()}.lock"
    lock.parent.mkdir(parents=True)
    said, waited = [], threading.Event()
    puller = threading.Thread(
        target=lambda: parse_reference(REFERENCE).pull(hear(on_remark=lambda text: (said.append(text), waited.set())))
    )
    with WeakFileLock(lock):
        puller.start()
        assert waited.wait(30)
    puller.join(30)
    assert said == [f"another process is fetching {REPO}/{NAME}; this one waits for it"]
    assert parse_reference(REFERENCE).open().read_bytes() == MODEL


@pytest.mark.engine
def test_a_pulled_model_is_measured_by_its_name(hub, tmp_path, model, results):  # noqa: F811
    hub.add(REPO, "smol-Q4_1.gguf", pathlib.Path(model))
    done = run("pull", "-hf", f"{REPO}:Q4_1", hub=hub, folder=tmp_path)
    assert done.returncode == 0
    hub.forget()
    measured = run(
        "pp-tg", "-hf", f"{REPO}:Q4_1", "-p", "8", "-n", "2", "-r", "1", "-o", "json",
        hub=hub, folder=tmp_path, HARNESS_RESULTS=str(results),
    )  # fmt: skip
    assert measured.returncode in (0, 5), measured.stderr
    assert json.loads(measured.stdout)[0]["n_prompt"] == 8
    assert hub.asked == []


# --- headers from afar ------------------------------------------------------------------------------------------------


def llama3_like_header() -> HeaderBytes:
    """About 8 MB of vocabulary and merges as llama3 has them, and the tensors of an 8B model in Q4_0 (4.7 GB)."""
    rng = random.Random(3)
    made = HeaderBytes().add("general.architecture", "str", "llama").add("llama.block_count", "u32", 32)
    letters = "abcdefghijklmnopqrstuvwxyzĠ"
    tokens = ["".join(rng.choices(letters, k=3 + index * 8 // 128256)) + str(index) for index in range(128256)]
    made.add_array("tokenizer.ggml.tokens", "str", tokens)
    made.add_array("tokenizer.ggml.token_type", "i32", [1] * 128256)
    made.add_array(
        "tokenizer.ggml.merges",
        "str",
        [f"{tokens[i % 128256][:4]} {tokens[-1 - i % 128256][:3]}" for i in range(280147)],
    )
    made.add_tensor("token_embd.weight", "Q4_0", 4096, 128256).add_tensor("output.weight", "Q6_K", 4096, 128256)
    for layer in range(32):
        for name, width in (("attn_q", 4096), ("attn_k", 1024), ("attn_v", 1024), ("attn_output", 4096)):
            made.add_tensor(f"blk.{layer}.{name}.weight", "Q4_0", 4096, width)
        for name, shape in (("ffn_gate", (4096, 14336)), ("ffn_up", (4096, 14336)), ("ffn_down", (14336, 4096))):
            made.add_tensor(f"blk.{layer}.{name}.weight", "Q4_0", *shape)
    return made


def test_the_header_of_a_remote_4_7_gb_file_costs_little(hub, tmp_path, monkeypatch):  # noqa: F811
    made = llama3_like_header()
    head = made.build()
    assert 7e6 < len(head) < 10e6
    path = tmp_path / "large.gguf"
    path.write_bytes(head)
    os.truncate(path, len(head) + made.offset)
    assert 4.5e9 < path.stat().st_size < 5e9
    hub.add(REPO, NAME, path, digest="a" * 64)
    hub.gated.add(REPO)
    hub.tokens[REPO] = TOKEN
    monkeypatch.setenv("HF_TOKEN", TOKEN)  # the store answers 400 to whoever shows it one
    for text in (REFERENCE, f"{hub.url}/plain/{REPO}/{NAME}"):
        hub.forget()
        found = parse_reference(text).header()
        assert found.header == read_header(BytesSource(head))
        assert found.fetched.size_bytes <= len(head) + 2**20
        assert found.fetched.n_requests == len(hub.asked) <= 5
        assert sum(asked.sent_bytes for asked in hub.asked) <= len(head) + 2**20
        assert found.fetched.size_bytes == sum(asked.sent_bytes for asked in hub.asked)
        for server in ("hub", "store"):
            assert len({asked.connection for asked in hub.asked if asked.server == server}) <= 1, "one connection, kept"
    done = CliRunner().invoke(cli, ["inspect", REFERENCE], catch_exceptions=False)
    assert "requests" in done.stdout
    data = json.loads(CliRunner().invoke(cli, ["inspect", REFERENCE, "-o", "json"], catch_exceptions=False).stdout)
    assert (data["fetched_bytes"], data["n_requests"]) == (found.fetched.size_bytes, 5)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("", no_ranges=True), "does not serve parts of files"),
        (Fault("", wrong_range=True), "sent other bytes than those asked for"),
        (Fault("", cut_at=10), "cannot be reached"),
        (Fault("", announce=-1_000_000), "is cut off: its header describes 3000064 bytes and it has 2000064"),
    ],
)
def test_inspect_refuses_what_a_server_does_wrong(filled, fault, said):
    fault.where = "/store/" if fault.cut_at is None else "/plain/"
    text = REFERENCE if fault.cut_at is None else f"{filled.url}/plain/{REPO}/{NAME}"
    filled.faults.append(fault)
    with pytest.raises(HarnessError, match=said):
        parse_reference(text).header()


def test_inspect_goes_on_after_one_cut_and_a_server_without_sizes(filled):
    filled.faults.append(Fault("/store/", cut_at=10, times=1))
    found = parse_reference(REFERENCE).header()
    assert found.header == read_header(BytesSource(MODEL))
    assert found.fetched.n_requests == 3


def test_inspect_says_of_a_web_page_what_it_is(hub):  # noqa: F811
    hub.add(REPO, "page.gguf", b"<!DOCTYPE html><html>log in</html>")
    with pytest.raises(HarnessError, match="a web page"):
        parse_reference(f"hf:{REPO}/page.gguf").header()
    with pytest.raises(RemoteError, match="is not a GGUF file but begins with"):
        parse_reference(f"{hub.url}/plain/{REPO}/page.gguf").open()


def test_a_catalog_model_that_the_hub_does_not_give_is_computed(hub):  # noqa: F811
    found = parse_reference("llama3.2:1b:q4_0").header()
    assert found.is_computed
    assert found.fetched is None
    assert "shows no repository" in found.note
    hub.add("bartowski/Llama-3.2-1B-Instruct-GGUF", "Llama-3.2-1B-Instruct-Q4_0.gguf", MODEL)
    found = parse_reference("llama3.2:1b:q4_0").header()
    assert not found.is_computed
    assert found.fetched.n_requests == 2
    # No file of this quantization is known, or none that runs: no request at all.
    hub.forget()
    assert parse_reference("llama3.1:405b:q4_0").header().is_computed
    assert parse_reference("llama3.2-vision:11b").header().header.architecture == "mllama"
    assert hub.asked == []


# --- addresses --------------------------------------------------------------------------------------------------------


def test_a_file_at_an_address_is_fetched_once_to_be_measured(filled, tmp_path):
    url = f"{filled.url.replace('//', '//user:pass@')}/plain/{REPO}/{NAME}?X-Amz-Signature=secret"
    path = parse_reference(url).open()
    assert path.read_bytes() == MODEL
    assert path.is_relative_to(tmp_path / "cache" / "downloads")
    filled.forget()
    assert parse_reference(url.replace("secret", "renewed")).open() == path
    assert filled.asked == []
    assert parse_reference(url).shown == f"{filled.url}/plain/{REPO}/{NAME}"
    assert not [file for file in tmp_path.rglob("*.json") if "secret" in file.read_text()]


def test_a_file_at_an_address_goes_on_unless_it_changed(filled, tmp_path):
    url = f"{filled.url}/plain/{REPO}/{NAME}"
    stop = [Fault("/plain/", times=1), Fault("/plain/", cut_at=1_000_000, times=1), Fault("/plain/", cut_at=0)]
    filled.faults[:] = stop
    with pytest.raises(RemoteError, match="kept"):
        parse_reference(url).open()
    filled.faults.clear()
    filled.forget()
    (part,) = (tmp_path / "cache").rglob("*.part")
    kept = part.stat().st_size
    path = parse_reference(url).open()
    assert path.read_bytes() == MODEL
    assert filled.sent_bytes("hub") == len(MODEL) - kept + 64  # and the first bytes, to see whether it is the same
    path.unlink()

    filled.faults[:] = [
        Fault("/plain/", times=1),
        Fault("/plain/", cut_at=1_000_000, times=1),
        Fault("/plain/", cut_at=0),
    ]
    with pytest.raises(RemoteError, match="kept"):
        parse_reference(url).open()
    filled.faults.clear()
    other = MODEL[:-100] + bytes(100)
    filled.add(REPO, NAME, other)
    assert parse_reference(url).open().read_bytes() == other


def test_a_beginning_that_nothing_vouches_for_is_not_gone_on_with(filled):
    url = f"{filled.url}/plain/{REPO}/{NAME}"
    filled.faults[:] = [
        Fault("/plain/", times=1, no_etag=True),
        Fault("/plain/", cut_at=1_000_000, times=1),
        Fault("/plain/", cut_at=0),
    ]
    with pytest.raises(RemoteError, match="cannot be reached") as caught:
        parse_reference(url).open()
    assert "kept" not in str(caught.value)
    filled.faults[:] = [Fault("/plain/", no_etag=True)]
    other = MODEL[:200] + bytes(len(MODEL) - 200)
    filled.add(REPO, NAME, other)
    assert parse_reference(url).open().read_bytes() == other


def test_a_file_at_an_address_that_is_not_whole_is_not_kept(filled, tmp_path):
    filled.add(REPO, NAME, MODEL[:-1000])
    with pytest.raises(HarnessError, match="is cut off"):
        parse_reference(f"{filled.url}/plain/{REPO}/{NAME}").open()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".gguf", ".part")]


def test_files_from_addresses_are_pruned_after_asking(filled):
    path = parse_reference(f"{filled.url}/plain/{REPO}/{NAME}").open()
    assert CliRunner().invoke(cli, ["models", "--prune"], input="n\n").exit_code == 0
    assert path.exists()
    done = CliRunner().invoke(cli, ["models", "--prune"], input="y\n")
    assert str(path) in done.stdout
    assert not path.exists()


# --- the catalog against the hub --------------------------------------------------------------------------------------


def write_catalog(tmp_path, files: str) -> pathlib.Path:
    from .test_catalog import GOOD

    path = tmp_path / "mine.toml"
    path.write_text(GOOD + files, encoding="utf-8")
    return path


FILES = """
[[models."mine:1b".files]]
quantization = "{quant}"
repository = "{repository}"
files = ["{name}"]
"""


def test_the_check_names_all_that_is_wrong(filled, tmp_path, monkeypatch):
    ours = user_catalog.load_catalog
    monkeypatch.setattr(
        user_catalog,
        "load_catalog",
        lambda extra: type(ours())({k: v for k, v in ours(extra).entries.items() if k == "mine:1b"}),
    )
    filled.add(REPO, "other-Q8_0.gguf", MODEL[:1000])
    good = f'size_bytes = {len(MODEL)}\nsha256 = ["{hashlib.sha256(MODEL).hexdigest()}"]\nverified = true\n'
    files = [
        FILES.format(quant="Q4_0", repository=REPO, name=NAME) + good,
        FILES.format(quant="Q4_1", repository=REPO, name="gone.gguf"),
        FILES.format(quant="Q5_0", repository="owner/none", name=NAME),
        FILES.format(quant="Q8_0", repository=REPO, name="other-Q8_0.gguf")
        + 'size_bytes = 999\nsha256 = ["'
        + "0" * 64
        + '"]\n',
        FILES.format(quant="F16", repository=REPO, name=NAME),
        FILES.format(quant="BF16", repository=REPO, name=NAME.upper().replace("GGUF", "gguf")),
    ]
    catalog = write_catalog(tmp_path, "".join(files))
    done = CliRunner().invoke(cli, ["models", "--check", "--catalog", str(catalog)])
    assert done.exit_code == 1
    text = " ".join(done.stdout.split())
    assert "mine:1b Q4_0: as the catalog says" in text
    assert f"mine:1b Q4_1: {REPO} has no gone.gguf" in text
    assert "mine:1b Q5_0: 127.0.0.1" in text
    assert "size_bytes is 999 in the catalog and 1000 at the hub" in text
    assert f"has the SHA-256 {hashlib.sha256(MODEL[:1000]).hexdigest()} at the hub and {'0' * 64}" in text
    assert "mine:1b F16: confirmed, not yet noted" in text
    assert f"to note of mine:1b F16: size_bytes = {len(MODEL)}" in text
    assert f"mine:1b BF16: {REPO} has no TINY-Q4_0.gguf but {NAME}" in text
    assert "6 quantizations asked of the hub, 4 of them wrong" in text
    data = json.loads(CliRunner().invoke(cli, ["models", "--check", "--catalog", str(catalog), "-o", "json"]).stdout)
    assert [bool(item["problems"]) for item in data["verdicts"]] == [False, True, True, True, False, True]
    good_only = write_catalog(tmp_path, files[0])
    assert CliRunner().invoke(cli, ["models", "--check", "--catalog", str(good_only)]).exit_code == 0


def pull_noted(filled, tmp_path, monkeypatch, digest):
    """Pull a catalog's model whose entry notes a digest, and return what was remarked."""
    text = FILES.format(quant="Q4_0", repository=REPO, name=NAME) + f'sha256 = ["{digest}"]\n'
    monkeypatch.setenv("HARNESS_CATALOG", str(write_catalog(tmp_path, text)))
    said = []
    assert parse_reference("mine:1b:q4_0").pull(hear(on_remark=said.append))[0].read_bytes() == MODEL
    return said


def test_a_download_is_held_against_the_catalogs_digest(filled, tmp_path, monkeypatch):
    assert pull_noted(filled, tmp_path, monkeypatch, hashlib.sha256(MODEL).hexdigest()) == []
    shutil.rmtree(tmp_path / "hf")
    (remark,) = pull_noted(filled, tmp_path, monkeypatch, "c" * 64)
    assert "is not the file that the catalog knows" in remark


def test_the_catalogs_digest_vouches_for_what_a_mirror_does_not(filled, tmp_path, monkeypatch):
    mirror(filled)
    filled.faults.append(NO_LISTING)
    assert pull_noted(filled, tmp_path, monkeypatch, hashlib.sha256(MODEL).hexdigest()) == []
    shutil.rmtree(tmp_path / "hf")
    (remark,) = pull_noted(filled, tmp_path, monkeypatch, "c" * 64)
    assert "was not checked" in remark


def test_the_check_of_our_own_catalog_asks_for_every_file(hub):  # noqa: F811
    catalog = user_catalog.load_catalog()
    for entry in catalog.entries.values():
        for files in entry.files:
            for name in files.files:
                hub.add(files.repository, name, MODEL)
    done = CliRunner().invoke(cli, ["models", "--check"])
    asked = [one for one in hub.asked if "/revision/" in one.path]
    assert len(asked) == len({files.repository for entry in catalog.entries.values() for files in entry.files})
    assert done.exit_code == 1  # the sizes are not these
    assert "has no" not in done.stdout


def test_the_server_is_bounded(hub):  # noqa: F811
    import socket

    from .hub.server import MAX_CONNECTIONS

    host, port = hub.url.removeprefix("http://").split(":")
    sockets = [socket.create_connection((host, int(port))) for _ in range(MAX_CONNECTIONS + 1)]
    try:
        sockets[-1].settimeout(10)
        assert sockets[-1].recv(1) == b""
    finally:
        for one in sockets:
            one.close()


def test_it_needs_no_hub_to_be_imported():
    code = "import sys, harness.sources.references; print('huggingface_hub' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_the_cache_is_huggingface_hubs_own():
    from huggingface_hub import constants

    assert str(hub_cache.cache_dir()) == constants.HF_HUB_CACHE
