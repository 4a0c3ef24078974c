"""No record, answer, failure or page holds a name of a person, host or folder, a token or a prompt: marks are planted and looked for.

Every command of the tree is run, among them those that fail, in one folder; whatever it writes to a stream or a file is read. The rule that
says what may be told where is docs/reliability.md's chapter on privacy; `may` below are its exceptions.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

from harness.cli import _PLACES, COMMANDS
from harness.runs import worker
from harness.sources.synthetic import write_synthetic

from .kind_files import llama
from .shapes import TINY

ROOT = pathlib.Path(__file__).parent.parent

pytestmark = pytest.mark.engine

#: What must be nowhere but where the user put it.
MARKS = {
    "a home": "mark-home", "a user": "mark-user", "a host": "mark-host", "a token": "hf_marktoken", "a folder of models": "mark-folder",
    "a prompt": "mark prompt", "a system message": "mark system", "a server's password": "mark-password", "a secret": "mark-secret",
    "the environment of Python": sys.prefix, "the folder of the program": str(ROOT), "a place of the build": "vendor/llama.cpp",
}  # fmt: skip

#: Run before everything in each process, the worker's too: the operating system tells the marks.
_PLANT = """
import getpass, os, platform, socket
socket.gethostname = socket.getfqdn = platform.node = lambda *_: "mark-host"
getpass.getuser = lambda: "mark-user"
try:
    import pwd
    pwd.getpwuid = lambda uid: pwd.struct_passwd(("mark-user", "x", uid, uid, "mark-user", "/mark-home", "/bin/sh"))
    told = os.uname()
    os.uname = lambda: os.uname_result((told.sysname, "mark-host", told.release, told.version, told.machine))
except ImportError:
    pass
"""


class Place:
    """A folder to work in, and models in another one whose name is nobody's business: a whole one, and one that was cut off."""

    def __init__(self, folder: pathlib.Path, model: str) -> None:
        self.models, self.work, self.home = folder / "mark-folder", folder / "work", folder / "mark-home"
        for one in (self.models, self.work, self.home, folder / "planted"):
            one.mkdir()
        (folder / "planted" / "sitecustomize.py").write_text(_PLANT, encoding="utf-8")
        write_synthetic(TINY, "Q8_0", self.models / "model.gguf", name="x:1b")
        (self.models / "real.gguf").symlink_to(model)
        (self.models / "dies.gguf").write_bytes(
            llama().build(data=True)
        )  # llama.cpp asks its vocabulary for what it lacks
        with open(model, "rb") as file:
            (self.models / "cut.gguf").write_bytes(file.read(5_000_000))
        (self.models / "no.gguf").write_bytes(b"nothing of a model")
        (self.models / "text.txt").write_text("mark prompt " * 60, encoding="utf-8")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HARNESS", "XDG", "HF_", "OLLAMA"))},
            "PYTHONPATH": os.pathsep.join([str(folder / "planted"), str(ROOT)]), "HOME": str(self.home), "USER": "mark-user",
            "LOGNAME": "mark-user", "HOSTNAME": "mark-host", "HF_TOKEN": "hf_marktoken", "HUGGING_FACE_HUB_TOKEN": "hf_marktoken",
            "AWS_SECRET_ACCESS_KEY": "mark-secret", "OPENAI_API_KEY": "mark-secret", "OLLAMA_HOST": "http://me:mark-password@127.0.0.1:9",
            "HF_HUB_OFFLINE": "1", "HTTPS_PROXY": "http://me:mark-password@127.0.0.1:9", "XDG_CONFIG_HOME": str(self.home / "config"),
        }  # fmt: skip

    def run(self, *words: str, seconds: float = 60):
        words = [word.format(models=self.models) for word in words]
        done = subprocess.run(
            [sys.executable, "-m", "harness", *words], capture_output=True, text=True, encoding="utf-8", cwd=self.work, input="",
            env=self.environment, timeout=seconds,
        )  # fmt: skip
        assert not re.search("Traceback|No such option|Missing argument|unexpected extra", done.stderr), done.stderr
        return done

    def files(self):
        """What commands have written so far, wherever: records, pages, pictures, and their caches and settings."""
        return [
            path
            for folder in (self.work, self.home)
            for path in folder.rglob("*")
            if path.is_file() and path.stat().st_size < 2**24
        ]


def leaks(data, but=()):
    """Which marks a text or a file holds."""
    data = data if isinstance(data, bytes) else data.encode()
    return [what for what, mark in MARKS.items() if mark.encode() in data and what not in but]


@pytest.fixture(scope="module")
def place(tmp_path_factory, model):
    """With a journal in it, so that commands that read records have some whichever test is run."""
    place = Place(tmp_path_factory.mktemp("privacy"), model)
    assert place.run(*CASES["pp-tg"]).returncode in (0, 5)
    return place


QUICK = ("-m", "{models}/model.gguf")
REAL = ("-m", "{models}/real.gguf")
SMALL = (*QUICK, "-p", "8", "-n", "2", "-r", "2", "-t", "1")

#: What is run of each command: one line, or several by what they are about. Every command of the tree is here.
CASES = {
    "pp-tg": ("pp-tg", *SMALL, "-o", "json"),
    "pp-tg as a page": ("pp-tg", *SMALL, "-o", "html", "--plot", "a.svg"),
    "pp-tg as sql": ("pp-tg", *SMALL, "-o", "sql", "--plot", "a.png"),
    "pp-tg of a file that was cut off": ("pp-tg", "-m", "{models}/cut.gguf", "-p", "8", "-n", "0", "-r", "1"),
    "pp-tg of a file that is none": ("pp-tg", "-m", "{models}/no.gguf", "-p", "8", "-n", "0", "-r", "1"),
    "pp-tg of nothing": ("pp-tg", "-m", "{models}/nothing.gguf"),
    "pp-tg of too large a context": ("pp-tg", *REAL, "-p", "8", "-n", "0", "-r", "1", "-d", "9000000"),
    "pp-tg on a server that is not there": ("pp-tg", *SMALL, "--rpc", "127.0.0.1:9"),
    "ab": ("ab", *SMALL, "--max-time", "1", "--", "--", "-b", "32"),
    "tune": ("tune", *QUICK, "--time", "1", "-c", "256", "-o", "json"),
    "sweep": ("sweep", *SMALL, "-ngl", "0", "-o", "json"),
    "run": ("run", *REAL, "--max-tokens", "2", "--system", "mark system", "mark prompt"),
    "run of a model at which llama.cpp dies": ("run", "-m", "{models}/dies.gguf", "--max-tokens", "2", "mark prompt"),
    "run as json": ("run", *REAL, "--max-tokens", "2", "-o", "json", "--system", "mark system", "mark prompt"),
    "score": ("score", *QUICK, "--quick", "--budget", "1"),
    "ollama": ("ollama", "nothing"),
    "speculate": ("speculate", *QUICK, "--text", "mark prompt", "-n", "4", "-r", "1", "--n-draft", "1", "--max-time", "2"),
    "quality": ("quality", *QUICK, "--text", "{models}/text.txt", "-c", "32", "--chunks", "1"),
    "noise": ("noise", *QUICK, "--time", "1", "-t", "1"),
    "reference": ("reference", "-m", "smollm2:135m", "--max-tokens", "2"),
    "overhead": ("overhead", *QUICK, "-c", "64", "-o", "json"),
    "token-time": ("token-time", *QUICK, "--tokens", "2", "-r", "1", "--no-load", "--no-app"),
    "roofline": ("roofline", "--size", "2MB", "-r", "6", "-t", "1"),
    "plot": ("plot", "size", "-o", "size.svg"),
    "report": ("report", "-o", "page.html", "--share", "mine.json"),
    "predict": ("predict", *QUICK, "-o", "json"),
    "fit": ("fit", *QUICK, "-o", "json"),
    "models": ("models",),
    "models that are here": ("models", "--local"),
    "pull": ("pull", "hf:owner/repo:Q4_0"),
    "inspect": ("inspect", "{models}/model.gguf", "-o", "json"),
    "inspect of a file that is none": ("inspect", "{models}/no.gguf"),
    "synth": ("synth", "nothing:1b"),
    "table": ("table", "-o", "json"),
    "devices": ("devices", "-o", "json"),
    "doctor": ("doctor", "-o", "json"),
    "rpc-server": ("rpc-server", "--device", "NOTHING9"),
    "compare": ("compare", "last", "last", "-o", "json"),
    "list": ("list", "-o", "json"),
    "history": ("history", "-o", "json"),
    "label": ("label", "last", "new fan"),
    "delete": ("delete", "last"),
    "man": ("man",),
}  # fmt: skip

#: What is told though it is a mark, and where: by the rule's exceptions.
MAY = {
    # The list of what is on this disk is a list of places.
    "models that are here": ("a home",),
}


def test_every_command_is_tried():
    assert {words[0] for words in CASES.values()} == {*COMMANDS, *_PLACES}


@pytest.mark.parametrize("name", CASES)
def test_no_command_tells_what_is_private(name, place):
    before = set(place.files())
    done = place.run(*CASES[name])
    may = MAY.get(name, ())
    # llama-bench's own field has the file as it was asked for, and so has the title of what is inspected.
    assert (
        leaks(done.stdout.replace(f"{place.models}/model.gguf", "").replace(f"{place.models}/real.gguf", ""), may) == []
    ), done.stdout[-2000:]
    # A sentence may name the file that was asked for, and where something is kept.
    told = done.stderr.replace(str(place.work), "").replace(f"{place.home}/config/harness/tuned", "")
    assert leaks(told, (*may, "a folder of models")) == [], done.stderr[-2000:]
    for path in place.files():
        if path not in before or path.suffix == ".jsonl":
            is_cache = place.home in path.parents
            assert leaks(path.read_bytes(), ("a home", "a folder of models") if is_cache else ()) == [], path.name


def test_nothing_that_was_kept_or_made_of_it_does(place):
    """After all of the above: journals, the list, the page, the file to be shared."""
    place.run(*CASES["report"])
    made = [path for path in place.files() if place.work in path.parents]
    assert {path.suffix for path in made} >= {".jsonl", ".html", ".json"}
    for path in made:
        assert leaks(path.read_bytes()) == [], path.name


def test_the_worker_is_given_no_secret(monkeypatch):
    """Whatever dies with it can tell none."""
    for name in (
        "HF_TOKEN",
        "GITHUB_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "OPENAI_API_KEY",
        "PGPASSWORD",
        "DB_PASSWORD",
        "hf_token",
    ):
        monkeypatch.setenv(name, "mark-secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    given = worker._environment()
    assert "mark-secret" not in given.values()
    assert given["CUDA_VISIBLE_DEVICES"] == "0"


def test_marks_are_planted(place):
    """The test itself: the processes of harness are told the marks, and a mark is found."""
    asked = "import socket, getpass, os; print(socket.gethostname(), getpass.getuser(), os.environ['HF_TOKEN'])"
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, env=place.environment, timeout=60
    )
    assert set(leaks(done.stdout)) == {"a host", "a user", "a token"}
    assert not re.search("mark", " ".join(COMMANDS))
