"""Models that other programs have downloaded, found where they lie and listed."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from harness.errors import UsageError
from harness.sources import local
from harness.sources.references import parse_reference
from tests.gguf_bytes import llama_like

from .test_cli import harness
from .test_gguf_file import write_split
from .test_ollama_store import add

MODEL = llama_like().build(data=True)
COMMIT, OTHER = "a" * 40, "b" * 40


def put(path: pathlib.Path, data: bytes | str = MODEL) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Empty places of all programs below one home."""
    monkeypatch.setattr(pathlib.Path, "home", lambda: tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("LLAMA_CACHE", str(tmp_path / "llama"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(local, "lm_studio_folders", lambda: [tmp_path / ".lmstudio" / "models", tmp_path / "old"])
    return tmp_path


def listed() -> dict[str, str | None]:
    return {model.name: model.note for model in local.list_local()}


def in_cache(root: pathlib.Path, repository: str, name: str, commit: str = COMMIT, ref: str | None = "main"):
    storage = root / f"models--{repository.replace('/', '--')}"
    if ref:
        put(storage / "refs" / ref, commit)
    return put(storage / "snapshots" / commit / name)


def test_nothing_is_nothing(places):
    assert local.list_local() == []
    code, out, _ = harness("models", "--local")
    assert (code, out.strip()) == (0, "no models on this disk, 0 B")


def test_hugging_faces_cache_is_listed_by_what_dash_m_takes(places):
    in_cache(places / "hub", "o/r", "m-Q4_K_M.gguf")
    in_cache(places / "hub", "o/r", "m-UD-Q2_K_XL.gguf")
    in_cache(places / "hub", "o/r", "mmproj-F16.gguf")
    in_cache(places / "hub", "o/r", "strange.gguf")
    in_cache(places / "hub", "o/r", "old-Q8_0.gguf", OTHER, None)
    in_cache(places / "hub", "o/pr", "x/m-Q8_0.gguf", ref="refs/pr/3")
    assert list(listed()) == [
        "hf:o/pr@refs/pr/3:Q8_0", "hf:o/r:Q4_K_M", "hf:o/r:UD-Q2_K_XL", "hf:o/r/strange.gguf", f"hf:o/r@{OTHER}:Q8_0",
    ]  # fmt: skip
    for model in local.list_local():
        assert parse_reference(model.name).open() == model.path


def test_split_models_are_one_and_missing_parts_are_told(places, tmp_path):
    (tmp_path / "made").mkdir()
    first = write_split(tmp_path / "made")
    for part in sorted(first.parent.iterdir()):
        in_cache(places / "hub", "o/r", f"Q4_0/{part.name}").write_bytes(part.read_bytes())
    (model,) = local.list_local()
    assert model.name == "hf:o/r:Q4_0"
    assert model.size_bytes == sum(part.stat().st_size for part in first.parent.iterdir())
    model.path.with_name("m-00002-of-00003.gguf").unlink()
    assert listed() == {"hf:o/r:Q4_0": "1 of its files are missing"}


def test_lm_studios_folders_are_listed_and_serve_names_of_the_hub(places):
    first = put(places / ".lmstudio" / "models" / "owner" / "repo-GGUF" / "m-Q4_K_M.gguf")
    put(places / ".lmstudio" / "models" / "owner" / "repo-GGUF" / "mmproj-m-F16.gguf")
    old = put(places / "old" / "owner" / "other" / "n.gguf")
    assert [model.path for model in local.list_local()] == [first, old]
    if os.name != "nt":
        assert next(iter(listed())) == "~/.lmstudio/models/owner/repo-GGUF/m-Q4_K_M.gguf"
    for text in ("hf:owner/repo-GGUF:Q4_K_M", "hf:owner/repo-GGUF", "hf:owner/repo-GGUF/M-q4_k_m.gguf"):
        assert parse_reference(text).open() == first
    for text in ("hf:owner/repo-GGUF:Q8_0", "hf:owner/repo-GGUF@main2:Q4_K_M", "hf:owner/none"):
        with pytest.raises(UsageError, match="is not on this disk"):
            parse_reference(text).open()


def test_llama_cpps_cache_of_both_ages(places):
    new = in_cache(places / "llama", "o/new", "m-Q4_0.gguf")
    noted = put(places / "llama" / "o_noted_sub_m-Q8_0.gguf")
    put(places / "llama" / "manifest=o=noted=Q8_0.json", json.dumps({"ggufFile": {"rfilename": "sub/m-Q8_0.gguf"}}))
    plain = put(places / "llama" / "o_plain_m-Q5_0.gguf")
    assert {model.name: model.path for model in local.list_local()} == {
        "hf:o/new:Q4_0": new,
        "hf:o/noted:Q8_0": noted,
        local._home_path(plain): plain,
    }
    assert parse_reference("hf:o/new:Q4_0").open() == new
    assert parse_reference("hf:o/noted:Q8_0").open() == parse_reference("hf:o/noted/sub/m-Q8_0.gguf").open() == noted
    assert parse_reference("hf:o/plain:Q5_0").open() == plain


@pytest.mark.parametrize(
    "text",
    ["", "[" * 100_000, "{}", '{"ggufFile": 3}', '{"ggufFile": {"rfilename": "../../secret.gguf"}}',
     '{"ggufFile": {"rfilename": "/etc/passwd"}}'],
)  # fmt: skip
def test_a_note_of_llama_cpp_that_is_none_leads_nowhere(places, text):
    put(places / "secret.gguf")
    put(places / "llama" / "manifest=o=r=Q4_0.json", text)
    put(places / "llama" / "manifest=..=..=Q4_0.json", json.dumps({"ggufFile": {"rfilename": "x.gguf"}}))
    assert local.list_local() == []


def test_ollamas_models_are_listed_with_those_that_have_no_file(places, model):
    add(places / "ollama", "registry.ollama.ai/library/smollm2/135m", model)
    manifest = put(
        places / "ollama" / "manifests" / "registry.ollama.ai" / "library" / "x" / "cloud", '{"layers": null}'
    )
    names = listed()
    assert names["ollama:smollm2:135m"] is None
    assert "runs at Ollama's cloud" in names["ollama:x:cloud"]
    manifest.unlink()
    assert parse_reference(next(iter(listed()))).open() == next((places / "ollama" / "blobs").iterdir())


def test_a_file_that_two_programs_share_is_listed_once(places, monkeypatch):
    in_cache(places / "hub", "o/r", "m-Q4_0.gguf")
    monkeypatch.setenv("LLAMA_CACHE", str(places / "hub"))
    assert list(listed()) == ["hf:o/r:Q4_0"]


def test_folders_with_odd_names_are_passed_over(places):
    in_cache(places / "hub", "o/r", "m-Q4_0.gguf")
    put(places / "hub" / "models--..--.." / "snapshots" / COMMIT / "m.gguf")
    put(places / "hub" / "models--o--r" / "snapshots" / "main" / "m.gguf")
    put(places / "hub" / "datasets--o--d" / "snapshots" / COMMIT / "m.gguf")
    if os.name != "nt":
        put(places / "hub" / "models--o--r" / "snapshots" / COMMIT / "a\x1b[2Jb.gguf")
    assert [name for name in listed() if "\x1b" not in name] == ["hf:o/r:Q4_0"]


def test_a_catalog_model_of_another_program_is_not_pulled_again(places):
    repository, name = "bartowski/Llama-3.2-1B-Instruct-GGUF", "Llama-3.2-1B-Instruct-Q4_0.gguf"
    path = put(places / ".lmstudio" / "models" / repository / name)
    assert parse_reference("llama3.2:1b:q4_0").open() == path


def test_the_page_and_the_json(places):
    in_cache(places / "hub", "o/r", "m-Q4_K_M.gguf")
    code, out, _ = harness("models", "--local")
    assert code == 0
    assert out.splitlines()[:2] == ["Hugging Face's cache:", "  hf:o/r:Q4_K_M"]
    code, out, _ = harness("models", "--local", "-o", "json")
    (row,) = json.loads(out)["models"]
    assert (row["name"], row["size_bytes"], row["note"]) == ("hf:o/r:Q4_K_M", len(MODEL), None)
    assert harness("models", "--local", "--check")[0] == 2


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_file_of_an_odd_name_is_listed_by_its_path(places):
    put(places / ".lmstudio" / "models" / "owner" / "repo-GGUF" / "what: Q4_0?.gguf")
    in_cache(places / "hub", "owner/other", "m-Q4_0.gguf")
    in_cache(places / "hub", "owner/other", "a:b.gguf")
    assert set(listed()) == {
        "hf:owner/other:Q4_0",
        "~/.lmstudio/models/owner/repo-GGUF/what: Q4_0?.gguf",
        f"~/hub/models--owner--other/snapshots/{COMMIT}/a:b.gguf",
    }
