"""Names from hubs, manifests, catalogs and caches, all the way to the disk: nothing is read or written outside the caches."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.sources import downloads, hub_cache
from harness.sources import hub as hub_listing
from harness.sources.hub_cache import HubFile, find_cached, make_place
from harness.sources.ollama_store import find_ollama
from harness.sources.references import parse_reference
from harness.sources.synthetic import synthetic_path
from harness.sources.user_catalog import load_catalog
from harness.untrusted.names import below, is_component, is_relative_name

from .hub.fixtures import hub  # noqa: F401
from .hub.server import Fault
from .test_catalog import GOOD
from .test_hub import MODEL, NAME, REPO

#: Ways out of a folder, and names that some system takes for something else than a file in it.
HOSTILE = [
    "../evil-Q4_0.gguf", "../../../../evil-Q4_0.gguf", "/evil-Q4_0.gguf", "//host/share/evil-Q4_0.gguf", "a/../../evil-Q4_0.gguf",
    "a/./evil-Q4_0.gguf", "..\\evil-Q4_0.gguf", "\\\\host\\share\\evil-Q4_0.gguf", "C:\\evil-Q4_0.gguf", "C:evil-Q4_0.gguf",
    "evil-Q4_0.gguf:stream-Q4_0.gguf", "evil\x00-Q4_0.gguf", "evil\x1b[2J-Q4_0.gguf", "evil\n-Q4_0.gguf", "CON/evil-Q4_0.gguf",
    "aux.gguf", "NUL .gguf", "com¹.gguf", "CONIN$.gguf", "lpt9.Q4_0.gguf", "evil./x-Q4_0.gguf", "evil /x-Q4_0.gguf", " /evil-Q4_0.gguf",
    "evil//x-Q4_0.gguf", "x" * 300 + "-Q4_0.gguf", "a/" * 600 + "evil-Q4_0.gguf", "evil\ud800-Q4_0.gguf", "evil?-Q4_0.gguf",
    "evil|-Q4_0.gguf", "<evil>-Q4_0.gguf", "~/evil-Q4_0.gguf/../../../evil-Q4_0.gguf", "../m-Q4_0-00001-of-00002.gguf",
]  # fmt: skip


def everything(folder: pathlib.Path) -> set[pathlib.Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_in_a_listing_writes_nothing_outside(hub, tmp_path, name):  # noqa: F811
    assert not is_relative_name(name)
    hub.add(REPO, "README.md", b"a repository")
    listing = {"sha": "a" * 40, "siblings": [{"rfilename": name, "size": len(MODEL), "lfs": {"sha256": "b" * 64}}]}
    hub.faults.append(Fault("/api/", body=json.dumps(listing).encode()))
    before = everything(tmp_path)
    for text in (f"hf:{REPO}:q4_0", f"hf:{REPO}"):
        with pytest.raises(HarnessError, match="has no GGUF file"):
            parse_reference(text).pull()
        with pytest.raises(HarnessError, match="has no GGUF file"):
            parse_reference(text).header()
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_is_typed_or_in_a_catalog_writes_nothing_outside(hub, tmp_path, monkeypatch, name):  # noqa: F811
    before = everything(tmp_path)
    with pytest.raises(HarnessError):
        parse_reference(f"hf:{REPO}/{name}").pull()
    with pytest.raises(HarnessError):
        HubFile(REPO, name)
    if "\ud800" not in name:
        catalog = tmp_path / "mine.toml"
        files = (
            f'[[models."mine:1b".files]]\nquantization = "Q4_0"\nrepository = "{REPO}"\nfiles = [{json.dumps(name)}]\n'
        )
        catalog.write_text(GOOD + files, encoding="utf-8")
        monkeypatch.setenv("HARNESS_CATALOG", str(catalog))
        with pytest.raises(HarnessError):
            parse_reference("mine:1b:q4_0").pull()
        catalog.unlink()
    assert everything(tmp_path) == before
    assert hub.asked == []


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "..", "C:\\evil", "a\x00b", "aux", "\x1b[2J"])
def test_a_models_name_in_a_catalog_is_no_path(name, tmp_path):
    path = synthetic_path(tmp_path, name, "Q4_0")
    assert path.parent == tmp_path
    assert is_component(path.name) or name == "aux"  # which has an ending of ours behind it


@pytest.mark.parametrize(
    "digest", ["sha256:../../evil", "sha256:" + "/" * 64, "../evil", "sha256:" + "a" * 63 + "\n", "C:\\evil", "\x00"]
)
def test_a_digest_in_a_manifest_is_no_path(tmp_path, monkeypatch, digest):
    store = tmp_path / "ollama"
    manifest = store / "manifests" / "registry.ollama.ai" / "library" / "m" / "latest"
    manifest.parent.mkdir(parents=True)
    (tmp_path / "evil").write_bytes(MODEL)
    (store / "blobs").mkdir()
    layers = [{"mediaType": "application/vnd.ollama.image.model", "digest": digest}]
    manifest.write_text(json.dumps({"layers": layers}))
    monkeypatch.setenv("OLLAMA_MODELS", str(store))
    with pytest.raises(HarnessError, match="is gone; run `ollama pull m:latest` again"):
        find_ollama("m")


@given(st.lists(st.text(max_size=40) | st.sampled_from(HOSTILE), min_size=1, max_size=3))
def test_no_name_leaves_its_folder_on_any_system(names):
    """Whatever passes is one name below, for POSIX and for Windows, and no other name reads as it when endings are cut off."""
    try:
        path = below(pathlib.Path("cache"), *names)
    except HarnessError:
        return
    for part in path.parts[1:]:
        assert part == part.rstrip(". ")
        assert not set(part) & set('\\/:*?"<>|')
        assert pathlib.PureWindowsPath(part).name == part
        assert (
            not pathlib.PureWindowsPath(part).is_reserved() if hasattr(pathlib.PureWindowsPath, "is_reserved") else True
        )
    assert os.path.normpath(path) == str(path)
    assert pathlib.PureWindowsPath("C:/cache", *names).is_relative_to("C:/cache")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=60), st.text(alphabet="ab/.%\\ \x00é", max_size=30))
def test_an_address_is_kept_below_its_folder(tmp_path, name, path):
    try:
        place = downloads.place_of(f"https://host/{path}/{name}.gguf", tmp_path)
    except HarnessError:
        return
    assert place.is_relative_to(tmp_path)
    assert len(place.relative_to(tmp_path).parts) == 2
    assert is_component(place.name)


def test_addresses_of_two_files_are_two_places(tmp_path):
    urls = [f"https://host/x/{name}.gguf" for name in ("a b", "a_b", "a%20%20b", "a(b", "é", "è")]
    assert len({downloads.place_of(url, tmp_path) for url in urls}) == len(urls)


def test_a_listing_of_traps_is_read_in_bounds(monkeypatch):
    """Names as long as they may be, of as many parts, of as many quantizations: a sentence of some hundred characters."""
    monkeypatch.setattr(hub_listing, "MAX_LISTED", 200)
    long = "Q4_K_M-" * 20
    names = [
        f"{long}/{long}{index}-Q4_{'A' * 40}{index}-00001-of-01024.gguf"
        for index in range(hub_listing.MAX_LISTED + 500)
    ]
    siblings = [{"rfilename": name, "size": 5, "lfs": {"sha256": "b" * 64}} for name in [*HOSTILE, *names]]
    body = json.dumps({"sha": "a" * 40, "siblings": siblings}).encode()
    monkeypatch.setattr(hub_listing, "ask_small", lambda *arguments, **options: (None, body))
    assert len(hub_listing.list_files(REPO)) == hub_listing.MAX_LISTED
    assert len(parse_reference(f"hf:{REPO}").list_variants()) <= hub_listing.MAX_LISTED
    for act in (parse_reference(f"hf:{REPO}:q5_1").pull, lambda: hub_listing.find_other_case(HubFile(REPO, "x.gguf"))):
        with pytest.raises(HarnessError) as caught:
            act()
        assert len(str(caught.value)) < 1000


# --- links in the cache -----------------------------------------------------------------------------------------------


def storage(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "hf" / "hub" / f"models--{REPO.replace('/', '--')}"


@pytest.mark.skipif(os.name == "nt", reason="links need a right here")
def test_a_beginning_that_is_a_link_is_not_written_through(hub, tmp_path):  # noqa: F811
    hub.add(REPO, NAME, MODEL)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    blobs = storage(tmp_path) / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hashlib.sha256(MODEL).hexdigest()}.incomplete").symlink_to(victim)
    assert parse_reference(f"hf:{REPO}/{NAME}").pull()[0].read_bytes() == MODEL
    assert victim.read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="links need a right here")
def test_a_reference_that_is_a_link_is_not_written_through(hub, tmp_path):  # noqa: F811
    hub.add(REPO, NAME, MODEL)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (storage(tmp_path) / "refs").mkdir(parents=True)
    (storage(tmp_path) / "refs" / "main").symlink_to(victim)
    assert parse_reference(f"hf:{REPO}/{NAME}").pull()[0].read_bytes() == MODEL
    assert victim.read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="links need a right here")
def test_a_folder_of_a_snapshot_that_is_a_link_leads_nowhere(hub, tmp_path):  # noqa: F811
    hub.add(REPO, f"Q4_0/{NAME}", MODEL)
    outside = tmp_path / "outside"
    outside.mkdir()
    snapshot = storage(tmp_path) / "snapshots" / hub.commit(REPO)
    snapshot.mkdir(parents=True)
    (snapshot / "Q4_0").symlink_to(outside)
    with pytest.raises(HarnessError, match="is a link that leads out of the cache; remove it"):
        parse_reference(f"hf:{REPO}/Q4_0/{NAME}").pull()
    assert list(outside.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="links need a right here")
def test_a_cache_on_another_disk_by_a_link_is_used(hub, tmp_path):  # noqa: F811
    """People put models elsewhere by a link to the whole cache, to a repository's folder, or to its blobs."""
    hub.add(REPO, NAME, MODEL)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "blobs").mkdir(parents=True)
    storage(tmp_path).mkdir(parents=True)
    (storage(tmp_path) / "blobs").symlink_to(elsewhere / "blobs")
    (path,) = parse_reference(f"hf:{REPO}/{NAME}").pull()
    assert path.read_bytes() == MODEL
    assert len(list((elsewhere / "blobs").iterdir())) == 1


def test_names_that_differ_by_case_alone_are_not_one_file(tmp_path, monkeypatch):
    """A file system that takes two names for one is put in the place of this one's."""
    (tmp_path / "Model.gguf").write_bytes(b"one")
    real = os.path.lexists
    monkeypatch.setattr(
        hub_cache.os.path, "lexists", lambda path: real(path) or pathlib.Path(path).name.lower() == "model.gguf"
    )
    with pytest.raises(HarnessError, match=r"another file that this file system takes for model\.gguf"):
        make_place(tmp_path, "model.gguf")
    assert make_place(tmp_path, "Model.gguf") == tmp_path / "Model.gguf"


def test_a_pointer_to_something_else_is_put_right(hub, tmp_path):  # noqa: F811
    hub.add(REPO, NAME, MODEL)
    snapshot = storage(tmp_path) / "snapshots" / hub.commit(REPO)
    snapshot.mkdir(parents=True)
    (snapshot / NAME).write_bytes(b"GGUF of somebody else")
    assert find_cached([HubFile(REPO, NAME)]) is None  # no reference yet
    assert parse_reference(f"hf:{REPO}/{NAME}").pull()[0].read_bytes() == MODEL


def test_our_own_catalog_names_nothing_hostile():
    for entry in load_catalog().entries.values():
        for files in entry.files:
            for name in files.files:
                HubFile(files.repository, name)
