"""Ollama's store, made as Ollama makes it: a manifest for each name, and blobs by digest."""

from __future__ import annotations

import json
import os
import pathlib
import shutil

import pytest

from harness.errors import UsageError
from harness.sources.headers import find_header
from harness.sources.model_file import hash_file
from harness.sources.ollama_store import find_ollama, list_ollama, parse_ollama_name, store_folders
from harness.sources.references import resolve

from .test_cli import harness

MODEL_TYPE = "application/vnd.ollama.image.model"


def add(store: pathlib.Path, name: str, blob: str | os.PathLike[str], how=os.symlink) -> pathlib.Path:
    """Put a model into a store: name is the manifest's path, such as ``registry.ollama.ai/library/llama3.2/1b``."""
    digest = hash_file(pathlib.Path(blob))
    manifest = store / "manifests" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    layers = [
        {"mediaType": MODEL_TYPE, "digest": f"sha256:{digest}", "size": os.path.getsize(blob)},
        {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:" + "1" * 64, "size": 5},
    ]
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}), encoding="utf-8")
    place = store / "blobs" / f"sha256-{digest}"
    place.parent.mkdir(exist_ok=True)
    if not place.exists():
        how(blob, place)
    return place


@pytest.fixture
def store(tmp_path, monkeypatch, model):
    folder = tmp_path / "ollama"
    monkeypatch.setenv("OLLAMA_MODELS", str(folder))
    add(folder, "registry.ollama.ai/library/smollm2/135m", model)
    return folder


def test_names_are_ollamas():
    for text, path, shown in [
        ("llama3.2", "registry.ollama.ai/library/llama3.2/latest", "llama3.2:latest"),
        ("llama3.2:1b", "registry.ollama.ai/library/llama3.2/1b", "llama3.2:1b"),
        ("user/model:q4", "registry.ollama.ai/user/model/q4", "user/model:q4"),
        ("hf.co/owner/repo:Q4_K_M", "hf.co/owner/repo/Q4_K_M", "hf.co/owner/repo:Q4_K_M"),
    ]:
        name = parse_ollama_name(text)
        assert name.relative_path.as_posix() == path
        assert str(name) == shown
    for text in ("", ":", "a/b/c/d", "../x", "a:../b", "a b", "a:", "..:x"):
        with pytest.raises(UsageError, match="not a name of Ollama's"):
            parse_ollama_name(text)


def test_a_model_is_found_where_it_lies(store, model):
    place = next((store / "blobs").iterdir())
    assert find_ollama("smollm2:135m") == resolve("ollama:smollm2:135m") == place
    assert find_header("ollama:smollm2:135m").path == place
    assert hash_file(place) == hash_file(pathlib.Path(model))


def test_its_hash_is_its_name(store, tmp_path):
    place = store / "blobs" / ("sha256-" + "a" * 64)
    place.write_bytes(b"GGUF")
    assert hash_file(place) == "a" * 64


def test_what_is_missing_is_told(store, monkeypatch, tmp_path):
    with pytest.raises(UsageError, match=r"did you mean ollama:smollm2:135m\?"):
        resolve("ollama:smollm2:1.7b")
    next((store / "blobs").iterdir()).unlink()
    with pytest.raises(UsageError, match=r"is gone; run `ollama pull smollm2:135m` again"):
        resolve("ollama:smollm2:135m")
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "none"))
    with pytest.raises(
        UsageError, match=r"no Ollama model in .*none; run `ollama pull llama3\.2:1b`, or set OLLAMA_MODELS"
    ):
        resolve("ollama:llama3.2:1b")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"layers": 3}', '{"layers": [{}]}', '{"layers": []}', "\x00",
     '{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../etc/passwd"}]}'],
)  # fmt: skip
def test_a_damaged_manifest_is_told(store, text):
    (store / "manifests/registry.ollama.ai/library/smollm2/135m").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"run `ollama pull smollm2:135m` again"):
        resolve("ollama:smollm2:135m")


def test_all_stores_are_listed(store, model):
    add(store, "hf.co/owner/repo/Q4_1", model)
    assert [str(name) for name in list_ollama()] == ["hf.co/owner/repo:Q4_1", "smollm2:135m"]


def test_the_store_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    assert store_folders() == [tmp_path]
    monkeypatch.delenv("OLLAMA_MODELS")
    assert store_folders()[0] == pathlib.Path.home() / ".ollama" / "models"


@pytest.mark.engine
@pytest.mark.parametrize("how", [os.symlink, os.link, shutil.copyfile])
def test_it_is_measured_in_place(results, model, how, tmp_path, monkeypatch):
    folder = tmp_path / "other"
    try:
        place = add(folder, "registry.ollama.ai/library/smol/latest", model, how)
    except OSError:
        pytest.skip("the model is on another disk, where a hard link cannot reach")
    monkeypatch.setenv("OLLAMA_MODELS", str(folder))
    before = set(tmp_path.rglob("*"))
    code, out, err = harness("pp-tg", "-m", "ollama:smol", "-p", "8", "-n", "2", "-r", "1", "-o", "json")
    assert code in (0, 5), err
    row = json.loads(out)[0]
    assert row["model_filename"].endswith(place.name)
    assert list(tmp_path.rglob("*.gguf")) == []
    new = set(tmp_path.rglob("*")) - before
    assert all(path.is_relative_to(results) for path in new), "nothing but records was written"
