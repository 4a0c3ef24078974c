"""Readers that have had enough, disks that are full and streams that are closed, under every command in every format: one sentence, the
right exit code, and nothing of what was measured is lost."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import sys

import click
import pytest

from harness.cli import _PLACES, COMMANDS, cli
from harness.records.journal import Journal

from . import zygote
from .gguf_bytes import llama_like
from .hub.server import Hub
from .test_catalog import GOOD

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="needs fork and POSIX pipes"),
    pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a device that is always full"),
]

#: Every command with what it is asked here; {journal} holds records, {model} is the embedded one. A new command is a line here.
ASKED = {
    "predict": "-m llama3.1:8b:q4_0 --bandwidth 500GB/s",
    "fit": "-m {model} --vram 8GB",
    "models": "",
    "inspect": "-m {model}",
    "overhead": "-m llama3.1:8b --predict-only",
    "table": "{journal}",
    "compare": "{journal} {other}",
    "list": "",
    "history": "{journal}",
    "label": "last fan",
    "delete": "last --yes",
    "plot": "size -o size.svg",
    "report": "{journal} --no-predict -o page.html",
    "synth": "tiny:1b -o tiny.gguf",
    "pull": "hf:them/tiny/tiny.gguf",
    "man": "",
}

#: Those that measure, with a worker that makes repetitions up.
MEASURED = {
    "pp-tg": ("-p 8 -n 4 -r 2", "quiet"),
    "ab": ("-m {model} -p 8 -n 0 --max-time 1 -- -t 1 -- -t 2", "equal"),
    "score": ("-r 1", "quiet"),
    "noise": ("--time 1", "quiet"),
}

#: Those that need the engine itself: tests/test_pipes_measured.py.
WITH_ENGINE = {
    "tune",
    "sweep",
    "run",
    "ollama",
    "speculate",
    "quality",
    "reference",
    "token-time",
    "roofline",
    "devices",
    "doctor",
    "rpc-server",
}

CATALOG = GOOD.replace("mine:1b", "tiny:1b")


def formats_of(name: str) -> list[str]:
    """What its -o takes, where that is a format."""
    command = cli.get_command(click.Context(cli), name)
    kinds = [parameter.type for parameter in command.params if "-o" in parameter.opts]
    return list(kinds[0].choices) if kinds and isinstance(kinds[0], click.Choice) else []


def cases():
    for name in (*ASKED, *MEASURED):
        for form in formats_of(name) or [""]:
            yield pytest.param(name, form, id=f"{name} {form}".strip())


#: Every command in every format, and every command.
CASES = list(cases())
PLAIN = [case for case in CASES if case.values[1] in ("", "table")]

#: Those that show nothing, but write files or say what they did.
SILENT = ("label", "plot", "report")


def test_every_command_is_tried():
    assert {*ASKED, *MEASURED, *WITH_ENGINE} == {*COMMANDS, *_PLACES}


@pytest.fixture(scope="module")
def hub_url():
    """A hub with one small model."""
    with contextlib.closing(Hub()) as hub:
        hub.add("them/tiny", "tiny.gguf", llama_like().build(data=True))
        yield hub.url


@dataclasses.dataclass
class Run:
    """What a command came to: its exit code, what it showed (as far as it was read) and said, and how many records it kept."""

    code: int
    out: bytes
    err: str
    n_kept: int


@pytest.fixture
def run(forker, tmp_path, recorded, model, hub_url):
    """A function that runs a command in a folder of its own with a kind of stdout."""

    def made(name: str, form: str, out: str = "a file", err: str = "a file", stdin: str = "nothing") -> Run:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        (folder / "config" / "harness").mkdir(parents=True)
        (folder / "config" / "harness" / "models.toml").write_text(CATALOG, encoding="utf-8")
        paths = []
        for _ in range(2):
            with Journal(folder / "results" / "machine", "pp-tg") as journal:
                journal.append(recorded[0])
                journal.append(recorded[1])
            paths.append(journal.path)
        asked, worker = MEASURED.get(name, (ASKED.get(name, ""), None))
        words = [name, *(word.format(journal=paths[0], other=paths[1], model=model) for word in asked.split())]
        if form:
            words[1:1] = ["-o", form]
        environment = {
            **os.environ, "PYTHONPATH": str(zygote.ROOT), "HARNESS_RESULTS": str(folder / "results"), "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "config"), "HARNESS_CACHE_DIR": str(folder / "cache"), "COLUMNS": "80",
            "HF_ENDPOINT": hub_url, "HF_HOME": str(folder / "hf"),
        }  # fmt: skip
        script = "tests.ab_worker" if name == "ab" else "tests.noisy_worker"
        program = worker and (sys.executable, "-m", script, worker)
        return start(forker, words, environment, folder, (stdin, out, err), program)

    return made


def start(forker, words, environment, folder, kinds, program) -> Run:
    """Run it with streams of some kinds; what was kept beyond what was there is counted."""
    stdin, out, err = kinds
    n_before = count_records(folder)
    reading, writing = os.pipe()
    streams: list[int | None] = [
        None if stdin == "closed" else os.open(os.devnull, os.O_RDONLY),
        {
            "a file": lambda: os.open(folder / "out", os.O_WRONLY | os.O_CREAT),
            "full": lambda: os.open("/dev/full", os.O_WRONLY),
        }.get(out, lambda: os.dup(writing))(),
        None
        if err == "closed"
        else os.open("/dev/full" if err == "full" else folder / "err", os.O_WRONLY | os.O_CREAT),
    ]
    if out == "closed":
        os.close(streams[1])
        streams[1] = None
    os.close(writing)
    if out == "gone":
        os.close(reading)
    forker.start(words, streams, environment, folder, program)
    for stream in streams:
        if stream is not None:
            os.close(stream)
    read = b""
    if out == "head -1":
        with open(reading, "rb", buffering=0) as file:
            while not read.endswith(b"\n") and (piece := file.read(1)):
                read += piece
    elif out != "gone":
        os.close(reading)
    code = forker.wait()
    told = (folder / "err").read_text(encoding="utf-8") if err == "a file" else ""
    shown = (folder / "out").read_bytes() if out == "a file" else read
    return Run(code, shown, told, count_records(folder) - n_before)


def count_records(folder: pathlib.Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (folder / "results").rglob("*.jsonl"))


def check_words(done: Run) -> None:
    assert "Traceback" not in done.err, done.err
    assert "Exception ignored" not in done.err, done.err
    assert "please report" not in done.err, done.err


def check_kept(name: str, done: Run) -> None:
    if name in MEASURED:
        assert done.n_kept >= 1, done.err
        assert "kept in" in done.err or not done.err


@pytest.mark.parametrize(("name", "form"), CASES)
def test_a_reader_that_has_gone_is_nobodys_failure(name, form, run):
    done = run(name, form, "gone")
    check_words(done)
    check_kept(name, done)
    assert done.code in (0, 5), done.err
    if name not in (*SILENT, "noise"):  # whose main table may be empty
        assert done.err.count("has gone") == 1, done.err


@pytest.mark.parametrize(("name", "form"), PLAIN)
def test_a_reader_of_one_line_gets_it(name, form, run):
    done = run(name, form, "head -1")
    check_words(done)
    check_kept(name, done)
    assert done.code in (0, 5), done.err
    assert done.out.endswith(b"\n") or name in SILENT


@pytest.mark.parametrize(("name", "form"), PLAIN)
@pytest.mark.parametrize(("out", "said"), [("full", "no space left on device"), ("closed", "it is closed")])
def test_a_full_disk_or_a_closed_stdout_is_a_sentence_and_a_failure(name, form, out, said, run):
    done = run(name, form, out)
    check_words(done)
    check_kept(name, done)
    if name in SILENT:  # they show nothing
        assert done.code == 0, done.err
    else:
        assert done.code in (1, 5), done.err
        assert done.err.count(said) == 1, done.err


#: What each came to with all its streams.
_usual: dict[str, Run] = {}


@pytest.mark.parametrize(("name", "form"), PLAIN)
@pytest.mark.parametrize(
    ("err", "stdin"),
    [("closed", "nothing"), ("full", "nothing"), ("a file", "closed")],
    ids=["stderr closed", "stderr full", "stdin closed"],
)
def test_the_answer_is_the_same_whatever_becomes_of_the_other_streams(name, form, err, stdin, run):
    usual = _usual[name] = _usual.get(name) or run(name, form)
    done = run(name, form, err=err, stdin=stdin)
    check_words(usual)
    check_words(done)
    check_kept(name, done)
    assert usual.code in (0, 5), usual.err
    assert done.code in ((0, 5) if name in MEASURED else (usual.code,)), done.err
    assert done.out.count(b"\n") == usual.out.count(b"\n") or name in MEASURED


@pytest.mark.parametrize("name", [*COMMANDS, ""])
@pytest.mark.parametrize("out", ["gone", "full"])
def test_the_help_of_every_command(name, out, forker, tmp_path):
    words = [*([name] if name else []), "--help"]
    done = start(forker, words, {**os.environ}, tmp_path, ("nothing", out, "a file"), None)
    check_words(done)
    assert done.code == (0 if out == "gone" else 1), done.err
