"""No record, answer, failure or page holds a name of a person, host or folder, a token or a prompt: marks are planted and looked for."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

pytestmark = pytest.mark.engine

#: What must be nowhere but where the user put it.
MARKS = {
    "a home": "mark-home", "a user": "mark-user", "a host": "mark-host", "a token": "hf_marktoken", "a folder of models": "mark-folder",
    "a prompt": "mark prompt", "a system message": "mark system", "a server's password": "mark-password",
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory, model):
    """A folder to work in, and models in another one whose name is nobody's business: a whole one and one that was cut off."""
    folder = tmp_path_factory.mktemp("mark-folder")
    (folder / "model.gguf").symlink_to(model)
    with open(model, "rb") as file:
        (folder / "cut.gguf").write_bytes(file.read(5_000_000))
    (folder / "text.txt").write_text("mark prompt " * 60, encoding="utf-8")
    return tmp_path_factory.mktemp("work"), folder


def run(place, *words):
    work, folder = place
    home = folder / "mark-home"
    home.mkdir(exist_ok=True)
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home), "USER": "mark-user", "LOGNAME": "mark-user", "HOSTNAME": "mark-host",
        "HF_TOKEN": "hf_marktoken", "OLLAMA_HOST": "http://me:mark-password@127.0.0.1:9", "HF_HUB_OFFLINE": "1",
        "XDG_CONFIG_HOME": str(home / "config"),
    }  # fmt: skip
    words = [word.format(folder=folder) for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "harness", *words], capture_output=True, text=True, encoding="utf-8", cwd=work, env=environment,
        timeout=150,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


def leaks(text):
    """Which marks a text holds, the names of this very host and user among them."""
    found = [what for what, mark in MARKS.items() if mark in text]
    host = socket.gethostname()
    return found + (["this host"] if len(host) > 3 and host in text else [])


QUICK = ("-m", "{folder}/model.gguf")

COMMANDS = {
    "pp-tg": ("pp-tg", *QUICK, "-p", "8", "-n", "2", "-r", "1", "-o", "json"),
    "pp-tg as a page": ("pp-tg", *QUICK, "-p", "8", "-n", "0", "-r", "1", "-o", "html"),
    "pp-tg of a file that was cut off": ("pp-tg", "-m", "{folder}/cut.gguf", "-p", "8", "-n", "0", "-r", "1"),
    "run": ("run", *QUICK, "--max-tokens", "2", "--system", "mark system", "mark prompt"),
    "overhead": ("overhead", *QUICK, "-c", "64", "-o", "json"),
    "inspect": ("inspect", "{folder}/model.gguf", "-o", "json"),
    "speculate": (
        "speculate",
        *QUICK,
        "--text",
        "mark prompt",
        "-n",
        "4",
        "-r",
        "1",
        "--n-draft",
        "1",
        "--max-time",
        "2",
    ),
    "quality": ("quality", *QUICK, "--text", "{folder}/text.txt", "-c", "32", "--chunks", "1"),
    "fit": ("fit", *QUICK, "-o", "json"),
    "ollama": ("ollama", "nothing"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_tells_what_is_private(name, place):
    work, _ = place
    done = run(place, *COMMANDS[name])
    # llama-bench's own field has the file as it was asked for, and so has the title of what is inspected.
    assert leaks(done.stdout.replace(f"{place[1]}/model.gguf", "")) == []
    assert leaks(done.stderr.replace(str(work), "")) in ([], ["a folder of models"]), (
        "a sentence may name the file that was asked for"
    )
    for journal in work.rglob("*.jsonl"):
        assert leaks(journal.read_text(encoding="utf-8")) == [], journal.name


def test_nothing_that_was_kept_or_made_of_it_does(place):
    """After all of the above: journals, the list, the page, the file to be shared."""
    work, _ = place
    run(place, *COMMANDS["pp-tg"])
    run(place, *COMMANDS["run"])
    run(place, *COMMANDS["pp-tg of a file that was cut off"])
    assert run(place, "report", "-o", "page.html", "--share", "mine.json").returncode == 0
    made = [*work.rglob("*.jsonl"), work / "page.html", work / "mine.json"]
    assert len(made) >= 5
    for path in made:
        assert leaks(path.read_text(encoding="utf-8")) == [], path.name
    assert leaks(run(place, "list", "-o", "json").stdout.replace(str(work), "")) == []


def test_a_mark_is_found():
    assert leaks("/tmp/mark-folder/model.gguf and hf_marktoken") == ["a token", "a folder of models"]
