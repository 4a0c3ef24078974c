"""What strangers call things, before it becomes a path; and what they nest, before it is read."""

from __future__ import annotations

import contextlib
import json
import pathlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import HarnessError, UsageError
from harness.sources import hub, local
from harness.sources.ollama_store import find_ollama
from harness.untrusted.json import MAX_DEPTH, read_json
from harness.untrusted.names import below, find_commit, find_digest, is_component, is_relative_name, is_repository

#: What the hub, Ollama and llama.cpp call things.
KEYS = [
    "siblings",
    "rfilename",
    "size",
    "lfs",
    "sha256",
    "blobId",
    "sha",
    "path",
    "oid",
    "layers",
    "mediaType",
    "digest",
    "config",
    "ggufFile",
]


@pytest.mark.parametrize("text", ["a" * 40, "0123456789abcdef0123456789ABCDEF01234567", " " + "b" * 40 + "\n"])
def test_a_commit_is_forty_digits(text):
    assert find_commit(text) == text.strip().lower()


@pytest.mark.parametrize(
    "text", ["", None, 3, "a" * 39, "a" * 41, "a" * 64, "/tmp/x", "../" + "a" * 37, "g" * 40, "é" * 40]
)
def test_anything_else_is_none(text):
    assert find_commit(text) is None


def test_a_digest_has_sixty_four_digits_or_forty():
    assert find_digest("A" * 64) == "a" * 64
    assert find_digest("a" * 40) == "a" * 40
    for text in ("a" * 63, "sha256:" + "a" * 64, "../../x", "", None):
        assert find_digest(text) is None


@pytest.mark.parametrize("text", ["o/r", "Qwen/Qwen2.5-0.5B-Instruct-GGUF", "_a/b.c-d_e"])
def test_repositories_by_the_hubs_rules(text):
    from huggingface_hub.utils import validate_repo_id

    assert is_repository(text)
    validate_repo_id(text)


@pytest.mark.parametrize(
    "text",
    ["o", "o/r/x", "../r", "o/..", "o/r.git", "o--x/r", "o/a..b", "/o/r", "o/r/", "o/r\n", "ö/r", "o/-r", "o/r.", "o/" + "r" * 95],
)  # fmt: skip
def test_what_is_no_repository(text):
    assert not is_repository(text)


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a/b", "a\\b", "C:", "a\0", "a\x1b[2J", "a\x85", "x" * 256, "é" * 128, "nul", "COM1.gguf", "a.", "a ", "\ud800"],
)  # fmt: skip
def test_what_is_no_name_in_a_folder(text):
    assert not is_component(text)
    assert not is_relative_name(f"a/{text}") or text == "a/b"


@pytest.mark.parametrize("text", ["model.gguf", "Q4_K_M/model (1) ü.gguf", "refs/pr/3", "..a", "console.gguf"])
def test_names_that_models_have(text, tmp_path):
    assert is_relative_name(text)
    assert below(tmp_path, text).is_relative_to(tmp_path)


@pytest.mark.parametrize("text", ["/etc/passwd", "../x", "a/../../x", "", "a//b", "C:\\x", "a/" * 600 + "a"])
def test_nothing_leaves_its_folder(text, tmp_path):
    with pytest.raises(UsageError, match="not a name inside a folder"):
        below(tmp_path, "sub", text)


def test_below_joins_folders_and_names():
    assert below(pathlib.Path("r"), "a/b", "c") == pathlib.Path("r/a/b/c")


def test_json_is_read_and_deep_json_is_refused():
    assert read_json(b'{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    assert read_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    for depth in (MAX_DEPTH + 1, 900, 10_000, 1_000_000):
        with pytest.raises(ValueError, match="nested too deep"):
            read_json("[" * depth + "]" * depth)
    with pytest.raises(ValueError, match="nested too deep"):
        read_json('{"a":' * 200 + "1" + "}" * 200)
    for text in ("", "{", b"\xff", "nope"):
        with pytest.raises(ValueError):
            read_json(text)


@given(st.lists(st.text(), min_size=1, max_size=3))
def test_whatever_a_stranger_says_stays_below(names):
    root = pathlib.Path("cache")
    try:
        path = below(root, *names)
    except UsageError:
        return
    assert path.parts[0] == "cache"
    assert ".." not in path.parts
    assert pathlib.PureWindowsPath("C:/cache", *names).is_relative_to("C:/cache")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just("m-Q4_0.gguf"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(VALUES)
def test_whatever_a_hub_or_a_manifest_says_is_a_sentence_at_worst(tmp_path, said):
    """The hub's two answers and the notes of Ollama and llama.cpp, as any JSON."""
    body = json.dumps(said).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "ask_small", lambda *arguments, **options: (None, body))
        with contextlib.suppress(HarnessError):
            hub.list_files("o/r")
    manifest = tmp_path / "ollama" / "manifests" / "registry.ollama.ai" / "library" / "m" / "latest"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_bytes(body)
    (tmp_path / "manifest=o=r=Q4_0.json").write_bytes(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
        patch.setenv("LLAMA_CACHE", str(tmp_path))
        with pytest.raises(UsageError):
            find_ollama("m")
        assert not [model for model in local._list_llama() if model.path]
