"""Ctrl-C once, twice and three times: what is measured is kept before anybody is heard, and nothing hangs for ever."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from harness.errors import Outcome
from harness.host import interrupt

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

ROOT = pathlib.Path(__file__).parent.parent

#: Up to where a command begins to run, and how a child sends itself a signal.
BEGIN = (
    "import harness.host.interrupt as i, os, signal, time\n"
    "i.leave_at_once(); i.raise_in_command()\n"
    "def press(number=signal.SIGINT): os.kill(os.getpid(), number); time.sleep(0)\n"
)


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BEGIN + code], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


@pytest.mark.parametrize("second", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_second_does_not_cut_off_what_the_first_has_begun(second):
    done = run(f"try:\n press()\nexcept KeyboardInterrupt:\n press(signal.{second})\n print('kept')\n")
    assert (done.returncode, done.stdout) == (0, "kept\n")
    assert done.stderr == "harness: ending; what was measured is being kept. Once more ends it at once.\n"


def test_the_third_ends_it_at_once():
    done = run("try:\n press()\nexcept KeyboardInterrupt:\n press()\n press()\n time.sleep(60)\n")
    assert done.returncode == Outcome.INTERRUPTED
    assert done.stderr.splitlines()[-1] == "harness: interrupted."


def test_one_that_comes_while_a_record_is_written_is_raised_behind_it():
    done = run(
        "try:\n with i.Held():\n  press()\n  print('written')\n print('lost')\nexcept KeyboardInterrupt: print('heard')\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "written\nheard\n", "")


def test_three_end_what_hangs_while_a_record_is_written():
    done = run("with i.Held():\n press(); press(); press()\n time.sleep(60)\n")
    assert (done.returncode, done.stderr) == (Outcome.INTERRUPTED, "harness: interrupted.\n")


def test_none_is_raised_while_one_is_minded_and_a_record_is_written():
    done = run("try:\n press()\nexcept KeyboardInterrupt:\n with i.Held(): press()\n print('kept')\n")
    assert (done.returncode, done.stdout) == (0, "kept\n")


def test_after_the_last_word_it_ends_as_interrupted_whatever_the_signal():
    done = run("i.end_quietly()\npress(signal.SIGTERM)\ntime.sleep(60)\n")
    assert (done.returncode, done.stderr) == (Outcome.INTERRUPTED, "")


def test_in_a_script_of_somebody_else_it_waits_too():
    """There the handler is Python's own, and stays so."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), interrupt.Held():
            os.kill(os.getpid(), signal.SIGINT)
            written = True
        assert written
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_of_somebody_else_is_left_alone():
    before, heard = signal.getsignal(signal.SIGINT), []
    signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        with interrupt.Held():
            os.kill(os.getpid(), signal.SIGINT)
            assert heard == [1]
    finally:
        signal.signal(signal.SIGINT, before)
