"""What reaches the terminal: nothing harmful, within its width, and a sentence where nobody reads or somebody interrupts."""

from __future__ import annotations

import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import unicodedata

import pytest

from harness.cli import terminal
from harness.errors import Outcome

from .gguf_bytes import llama_like

ROOT = pathlib.Path(__file__).parent.parent
HARNESS = [sys.executable, "-m", "harness"]

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals, shells and file names")
full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")

#: A command of each kind that answers without a model or a measurement.
QUICK = [
    ["--help"],
    ["pp-tg", "--help"],
    ["models"],
    ["models", "-o", "json"],
    ["table"],
    ["table", "-o", "csv"],
    ["predict", "-m", "llama3.1:8b:q4_0", "--bandwidth", "500GB/s"],
    ["predict", "-m", "llama3.1:8b:q4_0", "--bandwidth", "500GB/s", "-o", "json"],
    ["overhead", "-m", "llama3.1:8b:q4_0", "--ollama-2024", "--predict-only"],
]


def environment(**more):
    clean = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "HARNESS_DEBUG")}
    return {**clean, "PYTHONPATH": str(ROOT), "HARNESS_RESULTS": os.devnull + "-none", **more}


def run(*arguments, **options):
    options = {"capture_output": True, "text": True, "timeout": 120, "env": environment(), **options}
    return subprocess.run([*HARNESS, *arguments], **options)


def sentences(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("harness: ")]


# --- interrupts -------------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupt_at_any_early_moment_gives_no_traceback(number):
    """Neither the interpreter's own start nor the two lines that set the handler can be minded from Python; all that follows is."""
    rng = random.Random(number)
    begun = time.monotonic()
    run("models", "-o", "json")
    takes_s = time.monotonic() - begun
    ends = []
    for _ in range(12):
        process = subprocess.Popen(
            [*HARNESS, "models", "-o", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        time.sleep(rng.uniform(0, takes_s))
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        first = ("__init__.py", "__main__.py", "interrupt.py")
        files = re.findall(rf'File "{re.escape(str(ROOT / "harness"))}{re.escape(os.sep)}([^"]+)"', err.decode())
        ours = [name for name in files if name not in first]
        assert ours == [], err.decode()
        early = (1, -signal.SIGINT) if b"Traceback" in err else ()
        assert process.returncode in (0, 130, -number, *early), (process.returncode, err)
        if process.returncode == 130:
            assert b"harness: interrupted." in err
        ends.append(process.returncode)
        assert process.returncode != 0 or out
    assert set(ends) != {0}, "no interrupt came in time, so that nothing was tried"


def run_with_handler(code, number, handler):
    """Run code in a child that inherits this handler of a signal from whoever starts it."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=60,
        preexec_fn=lambda: signal.signal(number, handler),
    )  # fmt: skip


@posix
def test_before_a_command_runs_an_interrupt_ends_at_once():
    code = (
        "import harness.host.interrupt as i, os, signal\n"
        "i.leave_at_once()\n"
        "try:\n os.kill(os.getpid(), signal.SIGTERM)\n import time; time.sleep(30)\n"
        "except BaseException as error: print('an exception', error)\n"
    )
    done = run_with_handler(code, signal.SIGTERM, signal.SIG_DFL)
    assert (done.returncode, done.stdout, done.stderr) == (Outcome.INTERRUPTED, "", "harness: interrupted.\n")


@posix
def test_an_interrupt_that_python_loses_comes_again():
    code = (
        "import harness.host.interrupt as i, os, signal, time\n"
        "i.leave_at_once(); i.raise_in_command()\n"
        "class Cleared:\n"
        " def __del__(self): os.kill(os.getpid(), signal.SIGINT); time.sleep(0.01)\n"
        "try:\n Cleared()\n for _ in range(500): time.sleep(0.01)\n print('lost')\n"
        "except KeyboardInterrupt: print('heard')"
    )
    done = run_with_handler(code, signal.SIGINT, signal.SIG_DFL)
    assert (done.returncode, done.stdout, done.stderr) == (0, "heard\n", "")


@posix
def test_what_the_shell_switched_off_stays_off():
    code = (
        "import harness.host.interrupt as i, os, signal\n"
        "i.leave_at_once(); i.raise_in_command()\n"
        "os.kill(os.getpid(), signal.SIGHUP)\n"
        "print('goes on')"
    )
    done = run_with_handler(code, signal.SIGHUP, signal.SIG_IGN)
    assert (done.returncode, done.stdout) == (0, "goes on\n")


@posix
@pytest.mark.engine
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_request_to_end_keeps_and_says_what_is_measured(number, tmp_path):
    process = subprocess.Popen(
        [*HARNESS, "pp-tg", "-p", "8,256", "-n", "0", "-r", "40", "--results", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any(path.stat().st_size for path in tmp_path.rglob("*.jsonl")):
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "pp8" in out
    assert "kept in" in err
    assert "Traceback" not in err


# --- nobody reads -----------------------------------------------------------------------------------------------------


@full
@pytest.mark.parametrize("arguments", QUICK, ids=" ".join)
def test_a_full_disk_is_a_sentence_and_a_failure(arguments):
    with open("/dev/full", "w") as sink:
        done = run(*arguments, stdout=sink, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 1
    assert [line for line in sentences(done.stderr) if "no space left on device" in line]
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@posix
@pytest.mark.parametrize("arguments", QUICK, ids=" ".join)
def test_a_reader_that_has_had_enough_is_no_failure(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run(*arguments, stdout=writing, stderr=subprocess.PIPE, capture_output=False)
    finally:
        os.close(writing)
    assert done.returncode == 0
    assert [line for line in sentences(done.stderr) if "has gone" in line]
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@posix
@pytest.mark.parametrize("arguments", [["models"], ["table", "-o", "csv"]], ids=" ".join)
def test_a_stdout_that_is_closed_is_a_sentence_and_a_failure(arguments):
    shell = f'exec {shutil.which("env")} "$@" >&-'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *HARNESS, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        timeout=120,
    )
    assert done.returncode == 1
    assert [line for line in sentences(done.stderr) if "it is closed" in line]


@posix
def test_a_closed_stderr_keeps_the_answer():
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *HARNESS, "table"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        timeout=120,
    )
    assert done.returncode == 0
    assert "RTX 3070 Ti" in done.stdout


# --- names ------------------------------------------------------------------------------------------------------------

EVIL = b"m\xff\xfe\x1b[31m\xe2\x80\xae.gguf"


@pytest.fixture
def evil(tmp_path):
    """A model whose name is no UTF-8 and holds an escape sequence and a bidirectional mark."""
    path = os.fsencode(tmp_path) + b"/" + EVIL
    try:
        with open(path, "wb") as file:
            file.write(llama_like().build().replace("Tiny ü".encode(), b"\x1b[31m|<"))
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such name")
    return path


def harm_in(data: bytes) -> list[str]:
    text = data.decode("utf-8")
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t"]


@posix
@pytest.mark.parametrize(
    "arguments",
    [["inspect"], ["inspect", "-o", "json"], ["predict", "-m"], ["roofline", "-m"], ["overhead", "--predict-only", "-m"],
     ["overhead", "--predict-only", "-o", "csv", "-m"], ["overhead", "--predict-only", "-o", "md", "-m"],
     ["overhead", "--predict-only", "-o", "json", "-m"], ["inspect", "--no-such-option"]],
    ids=" ".join,
)  # fmt: skip
def test_a_name_from_a_stranger_reaches_the_terminal_harmless(arguments, evil):
    done = subprocess.run([*HARNESS, *arguments, evil], capture_output=True, env=environment(), timeout=120)
    assert harm_in(done.stdout) == []
    assert harm_in(done.stderr) == []
    assert b"Traceback" not in done.stderr
    assert b"please report" not in done.stderr


@posix
def test_a_missing_file_of_such_a_name_is_a_sentence():
    for command in (
        ["run", "-m"],
        ["pp-tg", "-m"],
        ["sweep", "-m"],
        ["inspect"],
        ["predict", "-m"],
        ["report"],
        ["synth"],
    ):
        done = subprocess.run(
            [*HARNESS, *command, b"/nowhere/" + EVIL], capture_output=True, env=environment(), timeout=120
        )
        assert done.returncode == 2, (command, done.stderr)
        assert harm_in(done.stdout + done.stderr) == []
        assert len(sentences(done.stderr.decode())) == 1


@posix
@pytest.mark.engine
def test_run_takes_a_file_whose_name_is_no_utf8(model, tmp_path):
    path = os.fsencode(tmp_path) + b"/" + EVIL
    try:
        os.symlink(model, path)
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such name")
    for more in ([], ["-o", "json"]):
        done = subprocess.run(
            [*HARNESS, "run", "-m", path, "--max-tokens", "4", "--results", str(tmp_path), *more, "Hello"],
            capture_output=True, env=environment(), timeout=120,
        )  # fmt: skip
        assert done.returncode in (0, 5), done.stderr
        assert harm_in(done.stdout + done.stderr) == []


# --- width ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "columns"), [("60", 60), ("100", 100), ("", 80), ("0", 80), ("wide", 80), ("-5", 80), ("²", 80)]
)
def test_columns_are_those_asked_for_else_80(monkeypatch, value, columns):
    monkeypatch.setenv("COLUMNS", value)
    monkeypatch.setattr(sys, "stdout", None)
    assert terminal.columns() == columns


@pytest.mark.parametrize("columns", [60, 120])
@pytest.mark.parametrize("arguments", [["models"], ["table"], QUICK[6], QUICK[8]], ids=" ".join)
def test_a_command_keeps_to_the_columns_asked_for(arguments, columns):
    done = run(*arguments, env=environment(COLUMNS=str(columns)))
    assert done.returncode in (0, 5)
    assert max(map(len, done.stdout.splitlines())) <= columns


@posix
@pytest.mark.parametrize("arguments", [["run", b"Caf\xe9"], ["run", "--system", b"Caf\xe9", "Hello"]])
def test_a_prompt_that_is_no_utf8_is_a_sentence(arguments):
    done = subprocess.run([*HARNESS, *arguments], capture_output=True, env=environment(), timeout=120)
    assert done.returncode == 2
    assert b"is not UTF-8 text" in done.stderr


def test_a_console_that_lacks_a_character_gets_another():
    done = run("table", env=environment(PYTHONIOENCODING="ascii", PYTHONUTF8="0"))
    assert done.returncode == 0
    assert "RTX 3070 Ti" in done.stdout


@full
@pytest.mark.engine
def test_what_is_measured_is_kept_when_nobody_can_be_shown_it(tmp_path):
    asked = ("pp-tg", "-p", "8", "-n", "0", "-r", "1", "--results", str(tmp_path))
    with open("/dev/full", "w") as sink:
        done = run(*asked, stdout=sink, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode in (1, 5)
    assert "kept in" in done.stderr
    assert "no space left on device" in done.stderr
    (journal,) = tmp_path.rglob("*.jsonl")
    assert journal.stat().st_size > 0


@posix
@pytest.mark.engine
@pytest.mark.parametrize("command", ["pp-tg", "run"])
@pytest.mark.parametrize("where", ["architecture", "tokenizer"])
def test_what_llama_cpp_says_of_a_header_is_harmless(command, where, tmp_path):
    """It repeats names of the header in its log, which a failure's sentence quotes."""
    made = llama_like().build()
    if where == "architecture":
        made = made.replace(b"llama", b"l\x1b[1m")
    else:
        made = made.replace(b"gpt2", b"\x1b[1m").replace(b"bert", b"\x1b[1m")
    path = tmp_path / "m.gguf"
    path.write_bytes(made)
    done = run(command, "-m", str(path), "--results", str(tmp_path), text=False)
    assert done.returncode in (2, 3)
    assert harm_in(done.stdout + done.stderr) == []
    assert sentences(done.stderr.decode())


def test_the_installed_program_starts_where_interrupts_are_minded():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'harness = "harness.__main__:main"' in text
    from harness.__main__ import main

    assert callable(main)
