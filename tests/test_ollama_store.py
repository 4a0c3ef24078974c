"""Ollama's store, made as Ollama makes it: a manifest for each name, and blobs by digest."""

from __future__ import annotations

import json
import os
import pathlib
import shutil

import pytest

from harness.errors import UsageError
from harness.sources.model_file import hash_file
from harness.sources.ollama_store import find_ollama, list_ollama, parse_ollama_name, store_folders
from harness.sources.references import parse_reference

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
        ("localhost:5000/me/m:tag", "localhost:5000/me/m/tag", "localhost:5000/me/m:tag"),
        ("localhost:5000/me/m", "localhost:5000/me/m/latest", "localhost:5000/me/m:latest"),
        ("https://hf.co/Owner/Repo", "hf.co/Owner/Repo/latest", "hf.co/Owner/Repo:latest"),
        ("registry.ollama.ai/library/llama3.2:1b", "registry.ollama.ai/library/llama3.2/1b", "llama3.2:1b"),
    ]:
        name = parse_ollama_name(text)
        assert f"{name.host}/{name.namespace}/{name.model}/{name.tag}" == path
        assert str(name) == shown
    for text in (
        "",
        ":",
        "a/b/c/d",
        "../x",
        "a:../b",
        "a b",
        "a:",
        "..:x",
        "a:1/b:2",
        "h:x/n/m",
        "a/b:1/c",
        "h:123456/n/m",
    ):
        with pytest.raises(UsageError, match="not a name of Ollama's"):
            parse_ollama_name(text)


@pytest.mark.parametrize("text", ["SmolLM2:135M", "Library/smollm2:135m", "REGISTRY.ollama.ai/library/SMOLLM2:135m"])
def test_case_makes_no_difference(store, text):
    assert find_ollama(text) == next((store / "blobs").iterdir())


def test_a_host_with_a_port_and_a_name_in_capitals_are_listed_and_found(store, model):
    add(store, "hf.co/Owner/Repo-GGUF/Q4_K_M", model)
    if os.name != "nt":
        add(store, "localhost:5000/me/mine/latest", model)
    for name in list_ollama():
        assert find_ollama(str(name)).is_file()
        assert find_ollama(str(name).lower()).is_file()
    assert "hf.co/Owner/Repo-GGUF:Q4_K_M" in map(str, list_ollama())


def test_a_catalog_model_that_only_ollama_has_is_pointed_out(store, model, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(UsageError, match=r"is not on this disk; run `harness pull"):
        parse_reference("llama3.2:1b").open()
    add(store, "registry.ollama.ai/library/llama3.2/1b", model)
    with pytest.raises(UsageError, match=r"measure Ollama's own with -m ollama:llama3\.2:1b, run `harness pull"):
        parse_reference("llama3.2:1b").open()


def add_fileless(store, name, config, kinds=()):
    """A model without a GGUF file: its configuration, and layers of other kinds."""
    digest = "c" * 64
    (store / "blobs" / f"sha256-{digest}").write_text(json.dumps(config), encoding="utf-8")
    manifest = store / "manifests" / "registry.ollama.ai" / "library" / name
    manifest.parent.mkdir(parents=True)
    layers = [{"mediaType": kind, "digest": "sha256:" + "d" * 64} for kind in kinds]
    manifest.write_text(json.dumps({"config": {"digest": f"sha256:{digest}"}, "layers": layers or None}))


def test_a_model_of_the_cloud_is_told(store):
    add_fileless(store, "gpt-oss/120b-cloud", {"remote_host": "https://ollama.com:443", "remote_model": "gpt-oss:120b"})
    with pytest.raises(UsageError, match=r"runs at https://ollama\.com:443 and not here.*`ollama pull gpt-oss:120b`"):
        parse_reference("ollama:gpt-oss:120b-cloud").open()
    (store / "blobs" / ("sha256-" + "c" * 64)).unlink()
    with pytest.raises(UsageError, match=r"runs at Ollama's cloud and not here.*`ollama pull gpt-oss:120b`"):
        parse_reference("ollama:gpt-oss:120b-cloud").open()


def test_a_model_for_mlx_is_told(store):
    add_fileless(
        store, "qwen3.5/4b-nvfp4", {"model_format": "safetensors"}, ["application/vnd.ollama.image.tensor"] * 3
    )
    with pytest.raises(UsageError, match="made for its MLX engine, in safetensors"):
        parse_reference("ollama:qwen3.5:4b-nvfp4").open()


def test_names_in_the_store_that_are_none_are_left_out(store):
    odd = store / "manifests" / "registry.ollama.ai" / "library" / "a\x1b[2Jb"
    odd.mkdir()
    (odd / "latest").write_text("{}")
    assert [str(name) for name in list_ollama()] == ["smollm2:135m"]


def test_a_model_is_found_where_it_lies(store, model):
    place = next((store / "blobs").iterdir())
    assert find_ollama("smollm2:135m") == parse_reference("ollama:smollm2:135m").open() == place
    assert parse_reference("ollama:smollm2:135m").header().path == place
    assert hash_file(place) == hash_file(pathlib.Path(model))


def test_its_hash_is_its_name(store, tmp_path):
    place = store / "blobs" / ("sha256-" + "a" * 64)
    place.write_bytes(b"GGUF")
    assert hash_file(place) == "a" * 64


def test_what_is_missing_is_told(store, monkeypatch, tmp_path):
    with pytest.raises(UsageError, match=r"did you mean ollama:smollm2:135m\?"):
        parse_reference("ollama:smollm2:1.7b").open()
    next((store / "blobs").iterdir()).unlink()
    with pytest.raises(UsageError, match=r"is gone; run `ollama pull smollm2:135m` again"):
        parse_reference("ollama:smollm2:135m").open()
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "none"))
    with pytest.raises(
        UsageError, match=r"no Ollama model in .*none; run `ollama pull llama3\.2:1b`, or set OLLAMA_MODELS"
    ):
        parse_reference("ollama:llama3.2:1b").open()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"layers": 3}', '{"layers": [{}]}', '{"layers": []}', "\x00", "[" * 100_000, '{"layers": [3]}',
     '{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../etc/passwd"}]}'],
)  # fmt: skip
def test_a_damaged_manifest_is_told(store, text):
    (store / "manifests/registry.ollama.ai/library/smollm2/135m").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"run `ollama pull smollm2:135m` again"):
        parse_reference("ollama:smollm2:135m").open()


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
