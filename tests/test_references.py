import json
import pathlib
import shutil

import pytest

from harness.cli.options import join_references
from harness.errors import UsageError
from harness.sources.model_file import default_model, hash_file, is_synthetic
from harness.sources.references import (
    CatalogReference,
    HubReference,
    OllamaReference,
    PathReference,
    SyntheticReference,
    UrlReference,
    parse_reference,
)
from harness.sources.user_catalog import load_catalog, user_catalog_path

from .test_catalog import GOOD
from .test_cli import harness


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Nobody's cache and configuration but the test's."""
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_path_is_a_path(model, tmp_path, monkeypatch):
    assert parse_reference(model).open() == pathlib.Path(model)
    monkeypatch.chdir(tmp_path)
    shutil.copy(model, "here")
    assert parse_reference("here").open() == pathlib.Path("here")
    with pytest.raises(UsageError, match="There is no file"):
        parse_reference("gone.gguf").open()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names nothing"),
        (" ", "names nothing"),
        ("a" * 5000, "too long"),
        ("a" * 300 + ".gguf", "too long"),
        ("file:///home/me/x.gguf", "give a path"),
        ("ftp://host/x.gguf", "give a path"),
    ],
)
def test_what_can_be_no_name_is_refused(text, said):
    with pytest.raises(UsageError, match=said):
        parse_reference(text)


def test_a_home_is_found_as_lists_show_it(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    shutil.copy(model, tmp_path / "mine.gguf")
    assert parse_reference("~/mine.gguf").open() == tmp_path / "mine.gguf"


def test_the_embedded_model_has_its_name():
    assert parse_reference("smollm2:135m").open() == parse_reference("smollm2:135m:q4_1").open() == default_model()


def test_what_is_not_here_says_how_to_get_it():
    with pytest.raises(UsageError, match=r"`harness pull llama3\.2:1b:q8_0`.*synth:llama3\.2:1b:q8_0"):
        parse_reference("llama3.2:1b").open()
    with pytest.raises(UsageError, match="mllama"):
        parse_reference("llama3.2-vision:11b").open()


def test_the_users_own_entries_are_found():
    path = user_catalog_path()
    path.parent.mkdir(parents=True)
    path.write_text(GOOD, encoding="utf-8")
    assert load_catalog().find("mine:1b").shape.block_count == 2


def test_an_own_catalog_can_be_named_by_the_environment(tmp_path, monkeypatch):
    path = tmp_path / "more.toml"
    monkeypatch.setenv("HARNESS_CATALOG", str(path))
    with pytest.raises(UsageError, match=r"more\.toml cannot be read"):
        load_catalog()
    path.write_text(GOOD, encoding="utf-8")
    assert parse_reference("mine:1b").entry.shape.block_count == 2


def test_a_synthetic_model_is_written_once_and_marked():
    path = user_catalog_path()
    path.parent.mkdir(parents=True)
    path.write_text(GOOD, encoding="utf-8")
    made = parse_reference("synth:mine:1b").open()
    written = made.stat().st_mtime_ns
    assert parse_reference("synth:mine:1b:q4_0").open() == made
    assert made.stat().st_mtime_ns == written
    assert is_synthetic(made)
    assert not is_synthetic(default_model())
    assert hash_file(made) != hash_file(default_model())


@pytest.mark.engine
def test_a_synthetic_model_is_measured_and_says_what_it_is(results):
    path = user_catalog_path()
    path.parent.mkdir(parents=True)
    path.write_text(GOOD, encoding="utf-8")
    code, out, _ = harness("pp-tg", "-m", "synth:mine:1b", "-ngl", "0", "-p", "8", "-n", "2", "-r", "1", "-oe", "jsonl")
    assert code in (0, 5)
    assert "(synthetic)" in out
    code, out, _ = harness("models", "-o", "json")
    mine = next(row for row in json.loads(out)["models"] if row["name"] == "mine:1b")
    assert (mine["place"], mine["quantization"]) == ("synthetic", "Q4_0")


def test_models_fits_a_terminal_and_marks_the_embedded_one():
    code, out, _ = harness("models")
    assert code == 0
    table = out.split("\n\n")[0].splitlines()
    assert max(map(len, table)) <= 80
    assert any("smollm2:135m" in line and "embedded" in line for line in table)


def test_prune_asks_first(tmp_path):
    code, out, _ = harness("models", "--prune")
    assert code == 0
    assert "There are no synthetic files" in out
    path = user_catalog_path()
    path.parent.mkdir(parents=True)
    path.write_text(GOOD, encoding="utf-8")
    made = parse_reference("synth:mine:1b").open()
    assert harness("models", "--prune", input="n\n")[0] == 0
    assert made.exists()
    code, _, said = harness("models", "--prune", input="")
    assert (code, "nothing was deleted" in said) == (2, True)
    assert made.exists()
    assert harness("models", "--prune", input="y\n")[0] == 0
    assert not made.exists()


def test_every_form_of_a_reference_is_read():
    catalog = load_catalog()
    one, smol = catalog.find("llama3.2:1b"), catalog.find("smollm2:135m")
    for text, expected in [
        ("a.gguf", PathReference(pathlib.Path("a.gguf"))),
        ("some/where", PathReference(pathlib.Path("some/where"))),
        ("llama3.2:1b", CatalogReference(one, None)),
        ("LLAMA3.2:1B:q4_0", CatalogReference(one, "Q4_0")),
        ("smollm2:135m", CatalogReference(smol, None)),
        ("synth:llama3.2:1b", SyntheticReference(one, "Q4_0")),
        ("synth:llama3.2:1b:q8_0", SyntheticReference(one, "Q8_0")),
        ("hf:o/r", HubReference("o/r")),
        ("hf:o/r:q4_k_m", HubReference("o/r", None, "Q4_K_M")),
        ("hf:o/r/f/m.gguf", HubReference("o/r", "f/m.gguf")),
        ("hf://o/r@abc/m.gguf", HubReference("o/r", "m.gguf", None, "abc")),
        ("https://huggingface.co/o/r/resolve/main/f/m%20x.gguf?download=true", HubReference("o/r", "f/m x.gguf")),
        ("https://huggingface.co/o/r/blob/abc/m.gguf", HubReference("o/r", "m.gguf", None, "abc")),
        ("https://huggingface.co/o/r", HubReference("o/r")),
        ("huggingface.co/o/r/", HubReference("o/r")),
        ("hf.co/o/r:q4_k_m", HubReference("o/r", None, "Q4_K_M")),
        ("https://huggingface.co/o/r/tree/main", HubReference("o/r")),
        ("https://huggingface.co/o/r/tree/abc/BF16", HubReference("o/r", None, None, "abc", "BF16")),
        ("https://huggingface.co/o/r/blob/refs%2Fpr%2F3/m.gguf", HubReference("o/r", "m.gguf", None, "refs/pr/3")),
        ("https://huggingface.co/o/r/blob/main/f/m.gguf", HubReference("o/r", "f/m.gguf")),
        ("https://huggingface.co/o/r?show_file_info=f%2Fm.gguf", HubReference("o/r", "f/m.gguf")),
        ("https://huggingface.co/o/r?library=gguf", HubReference("o/r")),
        ("hf:o/r@refs/pr/3", HubReference("o/r", None, None, "refs/pr/3")),
        ("hf:o/r@refs/pr/3:q8_0", HubReference("o/r", None, "Q8_0", "refs/pr/3")),
        ("hf:o/r@refs/pr/3/f/m.gguf", HubReference("o/r", "f/m.gguf", None, "refs/pr/3")),
        ("https://host/m.gguf?key=1", UrlReference("https://host/m.gguf?key=1")),
        ("ollama:llama3.2:1b", OllamaReference("llama3.2:1b")),
    ]:
        assert parse_reference(text) == expected, text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hf:", "not a model of the hub"),
        ("hf:owner", "not a model of the hub"),
        ("hf:o/r/config.json", "not a model of the hub"),
        ("https://host/", "not the address of a GGUF file"),
        ("https://user:secret@host/x.bin?key=secret", "https://host/x.bin is not the address"),
        ("llama3.2:1", r"did you mean llama3\.2:1b"),
        ("synth:lama3.2:1b", r"did you mean llama3\.2:1b"),
        ("https:///x.gguf", "not the address"),
        ("https://user:secret@[x/m.gguf", "address cannot be understood"),
        ("https://user:secret@host:99999/m.gguf", "address cannot be understood"),
        ("https://huggingface.co/datasets/o/d", "not the page of a model"),
        ("https://huggingface.co/spaces/o/s", "not the page of a model"),
        ("https://huggingface.co/o", "not the page of a model"),
        ("https://huggingface.co/o/r/blob/main/README.md", "is not a GGUF file"),
        ("hf:o/r@refs/pr/3/x/../y.bin", "not a model of the hub"),
    ],
)
def test_what_is_no_reference_is_refused_without_secrets(text, said):
    with pytest.raises(UsageError, match=said) as caught:
        parse_reference(text)
    assert "secret" not in str(caught.value)


def test_hub_names_that_could_leave_the_cache_are_refused():
    for text in (
        "hf:o/r/../../x.gguf",
        "hf:o/r//x.gguf",
        "hf:../r:q4_0",
        "hf:o/r@../x.gguf",
        "hf:o/..:q4_0",
        "hf:o/r/a\\b.gguf",
    ):
        with pytest.raises(UsageError):
            parse_reference(text).open()


def test_quant_goes_with_names_that_have_none():
    for text, expected in [
        ("llama3.2:1b", "llama3.2:1b:q4_0"),
        ("synth:llama3.2:1b", "synth:llama3.2:1b:q4_0"),
        ("hf:o/r", "hf:o/r:q4_0"),
        ("https://huggingface.co/o/r/tree/main", "https://huggingface.co/o/r/tree/main:q4_0"),
    ]:
        assert join_references([text], [], "q4_0") == (expected,)
        assert join_references([text], [], None) == (text,)
        with pytest.raises(UsageError, match="--quant goes with a name"):
            parse_reference(expected).with_quantization("q8_0")
    for text in ("a.gguf", "hf:o/r/m.gguf", "ollama:x", "https://host/m.gguf"):
        with pytest.raises(UsageError, match="--quant goes with a name"):
            parse_reference(text).with_quantization("q4_0")


def test_an_address_is_shown_without_what_grants_access():
    assert parse_reference("https://me:pw@host:8/m.gguf?sig=1#x").shown == "https://host:8/m.gguf"
    assert parse_reference("llama3.2:1b").shown == "llama3.2:1b"


def test_what_cannot_be_pulled_says_what_to_do_instead():
    user_catalog_path().parent.mkdir(parents=True)
    user_catalog_path().write_text(GOOD, encoding="utf-8")
    for text, said in [
        ("ollama:llama3.2:1b", r"run `ollama pull llama3\.2:1b`"),
        ("synth:llama3.2:1b:q8_0", r"run `harness synth llama3\.2:1b:q8_0`"),
        ("model.gguf", "is a file's name"),
        ("llama3.2-vision:11b", "mllama"),
        ("llama3.1:70b:q4_0", "has no Q4_0 of llama3.1:70b; it has Q4_K_M"),
        ("mine:1b", "names no file of mine:1b; give one as hf:OWNER/REPO:QUANT"),
    ]:
        with pytest.raises(UsageError, match=said):
            parse_reference(text).pull()
    assert parse_reference("smollm2:135m").pull() == [default_model()]


def test_inspect_takes_a_quantization_from_its_option():
    code, out, _ = harness("inspect", "synth:smollm2:135m", "--quant", "q8_0", "-o", "json")
    assert code == 0
    data = json.loads(out)
    assert (data["file_type"], data["computed"], data["has_chat_template"]) == ("Q8_0", True, None)


def test_pull_wants_a_name():
    code, _, err = harness("pull")
    assert code == 2
    assert "harness pull llama3.2:1b" in err
