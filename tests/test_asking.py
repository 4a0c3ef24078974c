"""Every command before every kind of file: the sentence comes from the header, and nothing is started for it."""

from __future__ import annotations

import shutil

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.errors import HarnessError
from harness.gguf.types import foreign_type
from harness.records.text import Skip
from harness.runs import child, reference
from harness.sources.user_catalog import load_catalog

from .kind_files import FILES, learned, llama
from .test_ollama_store import add


class StartedError(Exception):
    """A worker was about to be started."""


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Run a command about a file, without any worker."""

    def refuse_to_start(*_args, **_kwargs):
        raise StartedError

    monkeypatch.setattr(child.subprocess, "Popen", refuse_to_start)
    monkeypatch.chdir(tmp_path)

    def run(made, command, *arguments):
        path = tmp_path / "x.gguf"
        path.write_bytes(made.build(data=True))
        return CliRunner().invoke(cli, [*command.split(), "-m", str(path), *arguments])

    return run


#: Commands that load a file, or predict how fast it would be.
COMMANDS = (
    "pp-tg --no-save",
    "sweep --no-save",
    "sweep --no-save --best",
    "run --no-save",
    "overhead --time --no-save",
    "predict --machine M4",
)
REFUSED = [
    name for name, (_, kind) in FILES.items() if kind not in ("TEXT", "EMBEDDING", "ENCODER_DECODER", "TEXT_DIFFUSION")
]


#: How fast a model of another program could be read is known by its bytes.
PAIRS = [
    (name, command)
    for name in REFUSED
    for command in COMMANDS
    if not (FILES[name][1] == "UNKNOWN" and command.startswith("predict"))
]


@pytest.mark.parametrize(("name", "command"), PAIRS)
def test_what_cannot_be_run_is_refused_before_anything_is_started(ask, name, command):
    result = ask(FILES[name][0](), command)
    assert isinstance(result.exception, HarnessError)
    assert result.exception.outcome == 2
    said = str(result.exception)
    assert said.startswith("x.gguf ")
    assert "\n" not in said
    assert "again" not in said


@pytest.mark.parametrize(
    "command", ["run --no-save", "overhead --time --no-save", "sweep --best", "predict --machine M4"]
)
@pytest.mark.parametrize("name", ["bert", "pooled", "t5", "t5encoder", "llada"])
def test_what_generates_nothing_is_not_asked_to(ask, name, command):
    result = ask(FILES[name][0](), command)
    assert isinstance(result.exception, HarnessError)
    assert result.exception.outcome == 2
    assert "`harness pp-tg` measures" in str(result.exception)


@pytest.mark.parametrize("command", ["pp-tg --no-save", "sweep --no-save"])
def test_what_is_left_out_is_told_once(ask, command):
    result = ask(FILES["t5"][0](), command)
    assert result.stderr.count("tg128 is left out") == 1, "and then a worker is about to be started"


@pytest.mark.parametrize("name", FILES)
def test_inspect_shows_every_file_and_says_what_it_is(ask, name):
    result = ask(FILES[name][0](), "inspect")
    assert result.exception is None
    kind = FILES[name][1]
    assert ("this file " in result.output) is (kind != "TEXT")
    assert all(len(line) <= 80 for line in result.output.splitlines())


@pytest.mark.parametrize("down", [4, 36, 139, 31, 43])
def test_inspect_shows_the_size_of_a_foreign_type_by_the_room_that_it_has(ask, down):
    result = ask(llama(down), "inspect")
    name = f"({down})" if foreign_type(down).known_name else f"type {down}"
    (line,) = (line for line in result.output.splitlines() if name in line and "%" in line)
    assert "0.00 MiB" in line


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        ("pp-tg", ("-p", "300"), "256 learned positions and pp300 needs 300"),
        ("pp-tg", ("-d", "256"), "256 learned positions"),
        ("sweep", ("-n", "300"), "256 learned positions and tg300 needs 300"),
        ("run", ("--ctx", "300"), "256 learned positions and --ctx asks for 300"),
        ("overhead", ("--ctx", "128,300"), "256 learned positions and --ctx asks for 300"),
        ("predict --machine M4", ("--ctx", "300"), "256 learned positions and --ctx asks for 300"),
        ("predict --machine M4", ("--depth", "300"), "256 learned positions and --depth asks for 300"),
    ],
)
def test_no_command_asks_for_more_than_the_learned_positions(ask, command, arguments, words):
    result = ask(learned(), command, *arguments)
    assert isinstance(result.exception, HarnessError)
    assert words in str(result.exception)


def test_predict_takes_the_positions_for_its_context_where_none_is_asked_for(ask):
    assert ask(learned(), "predict --machine M4").exception is None


def test_predict_says_that_it_speaks_of_a_model_that_cannot_be_run_here(ask):
    result = ask(FILES["newer"][0](), "predict --machine M4")
    assert result.exception is None
    assert "of an architecture that this llama.cpp does not know" in " ".join(result.output.split())


def test_the_article_s_task_leaves_out_what_writes_nothing_and_says_why(tmp_path, monkeypatch):
    path = tmp_path / "x.gguf"
    path.write_bytes(FILES["bert"][0]().build(data=True))
    entry = load_catalog().find("llama3.2:1b")
    monkeypatch.setattr(reference, "find_files", lambda entry: iter([reference.Here(entry.name, path, 1000)]))
    here, (skipped,) = reference.choose_models([entry], 10**12)
    assert here == []
    assert (skipped.name, skipped.why) == ("llama3.2:1b", Skip.NO_TEXT)
    assert skipped.reason.startswith("x.gguf is an embedding model (bert): it generates no text")


@pytest.mark.parametrize("name", ["bert", "ollama", "mmproj"])
def test_a_model_of_ollamas_that_writes_nothing_is_refused(tmp_path, monkeypatch, name):
    blob = tmp_path / "blob"
    blob.write_bytes(FILES[name][0]().build(data=True))
    add(tmp_path / "store", "registry.ollama.ai/library/odd/latest", blob, how=shutil.copy)
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "store"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    result = CliRunner().invoke(cli, ["ollama", "odd", "--no-save"])
    assert isinstance(result.exception, HarnessError)
    assert result.exception.outcome == 2
    assert str(result.exception).startswith("odd ")
