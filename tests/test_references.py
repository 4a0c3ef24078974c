import json
import pathlib
import shutil

import pytest

from harness.errors import UsageError
from harness.model_file import default_model, hash_file, is_synthetic
from harness.references import load_catalog, resolve, user_catalog_path

from .test_catalog import GOOD
from .test_cli import harness


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Nobody's cache and configuration but the test's."""
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_path_is_a_path(model, tmp_path, monkeypatch):
    assert resolve(model) == pathlib.Path(model)
    monkeypatch.chdir(tmp_path)
    shutil.copy(model, "here")
    assert resolve("here") == pathlib.Path("here")
    with pytest.raises(UsageError, match="There is no file"):
        resolve("gone.gguf")


def test_the_embedded_model_has_its_name():
    assert resolve("smollm2:135m") == resolve("smollm2:135m:q4_1") == default_model()


def test_what_is_not_here_says_how_to_get_it():
    with pytest.raises(UsageError, match=r"`harness pull llama3\.2:1b:q8_0`.*synth:llama3\.2:1b:q8_0"):
        resolve("llama3.2:1b")
    with pytest.raises(UsageError, match="mllama"):
        resolve("llama3.2-vision:11b")


def test_the_users_own_entries_are_found():
    path = user_catalog_path()
    path.parent.mkdir(parents=True)
    path.write_text(GOOD, encoding="utf-8")
    assert load_catalog().find("mine:1b").shape.block_count == 2


def test_a_synthetic_model_is_written_once_and_marked():
    path = user_catalog_path()
    path.parent.mkdir(parents=True)
    path.write_text(GOOD, encoding="utf-8")
    made = resolve("synth:mine:1b")
    written = made.stat().st_mtime_ns
    assert resolve("synth:mine:1b:q4_0") == made
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
    mine = next(row for row in json.loads(out) if row["name"] == "mine:1b")
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
    made = resolve("synth:mine:1b")
    assert harness("models", "--prune", input="n\n")[0] == 130
    assert made.exists()
    assert harness("models", "--prune", input="y\n")[0] == 0
    assert not made.exists()
