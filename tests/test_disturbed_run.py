"""A busy loop on every core of ours makes the verdict "not to be trusted" and the exit code 5: really, on this machine."""

import contextlib
import json
import subprocess
import sys

import pytest

from harness.host.cpu import find_our_cpus

pytestmark = pytest.mark.engine


@contextlib.contextmanager
def busy_loops():
    """One program on each CPU that is ours, until the block ends; each ends by itself when its parent dies or two minutes are over."""
    loop = "import os, time\nparent, end = os.getppid(), time.monotonic() + 120\n"
    loop += (
        "print(flush=True)\nwhile os.getppid() == parent and time.monotonic() < end:\n for _ in range(10**5): pass\n"
    )
    running = []
    try:
        for _ in range(find_our_cpus().count):
            running.append(subprocess.Popen([sys.executable, "-c", loop], stdout=subprocess.PIPE))
        for one in running:
            one.stdout.readline()  # it runs
        yield
    finally:
        for one in running:
            one.kill()
            one.communicate()


# A run as short as two tokens may fall into a scheduler's time slice or two, which nobody disturbs: then there is nothing to be seen.
@pytest.mark.parametrize("test", [("-p", "16", "-n", "2", "-r", "6"), ("-p", "0", "-n", "32", "-r", "2")])
def test_a_busy_loop_on_every_core_is_exit_5(results, model, test):
    with busy_loops():
        # A process of its own: what it started itself, and its children, are not others' to it.
        command = [sys.executable, "-m", "harness", "pp-tg", "-m", model, *test, "-o", "json", "--results", results]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 5, done.stderr
    cells = json.loads(done.stdout)
    assert {cell["verdict"] for cell in cells} == {"not-to-be-trusted"}
    assert "CPUs meanwhile" in done.stderr, "which program took most is told"
    assert not any(
        "python" in path.read_text(encoding="utf-8").split('"warnings"')[-1] for path in results.rglob("*.jsonl")
    )
