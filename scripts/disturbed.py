"""Does every command notice that it is disturbed? .venv/bin/python scripts/disturbed.py [--times 2]

Runs each measuring command by itself and beside a busy loop on every core, by turns, and tells the verdict on what it kept and the code
that it ended with: beside the loops it should be "not to be trusted" and 5. Results go to bench_results/trust/disturbed.json.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

from figures import keep, share_of

from harness.codec import encode
from harness.errors import Outcome
from harness.host.cpu import find_our_cpus
from harness.host.machine import describe_machine
from harness.records.cautions import describe_caution
from harness.records.journal import read_lines
from harness.records.journal_files import find_journals
from harness.records.statistics import Digest
from harness.records.verdict import Trust, judge_all

#: Each command as it is asked here: small, for what is tried is whether it notices.
COMMANDS = {
    "pp-tg": ("pp-tg", "-p", "64", "-n", "16", "-r", "6"),
    "token-time": ("token-time", "-r", "6", "--tokens", "4"),
    "roofline": ("roofline",),
    "run": ("run", "smollm2:135m", "Why is the sky blue?", "--max-tokens", "64"),
    "ab": ("ab", "-p", "0", "-n", "16", "--max-time", "10", "--", "--", "-ctk", "q8_0"),
    "noise": ("noise", "--time", "20"),
    "overhead": ("overhead", "-c", "1024"),
}

#: What these measure is no time: bytes are the same however busy the processors are, so that nothing has to be noticed.
NO_TIME = {"overhead"}

#: Ends when the process that started it, whose number it is told, is gone, however that ended.
LOOP = """import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(10**6):
        pass
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one run said: its exit code, and the gravest verdict on its records with the reasons; None: they say nothing."""

    command: str
    is_disturbed: bool
    exit_code: int
    trust: Trust | None
    reasons: tuple[str, ...]
    took_s: float

    @property
    def is_caught(self) -> bool:
        """Whether nobody can take its figures for good ones."""
        return self.exit_code == Outcome.NOT_TRUSTED.value and self.trust is Trust.NOT_TRUSTED


@contextlib.contextmanager
def busy_loops(n_loops: int) -> Iterator[None]:
    """As many loops as there are CPUs, which do nothing but run."""
    loops = [subprocess.Popen([sys.executable, "-c", LOOP, str(os.getpid())]) for _ in range(n_loops)]
    try:
        time.sleep(1)
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def look(name: str, *, is_disturbed: bool) -> Seen:
    """Run a command, and judge what it kept."""
    with tempfile.TemporaryDirectory() as folder:
        asked, start = COMMANDS[name], time.monotonic()
        command = [sys.executable, "-m", "harness", asked[0], "--results", folder, *asked[1:]]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        took_s = time.monotonic() - start
        if done.returncode not in (Outcome.OK.value, Outcome.NOT_TRUSTED.value):
            sys.exit(f"disturbed: {' '.join(command)} ended with {done.returncode}:\n{done.stderr.decode()[-1000:]}")
        journals = find_journals((), pathlib.Path(folder))
        entries = [line.content for line in read_lines(journals, sys.exit)]
    verdict = judge_all(entry for entry in entries if entry is not None and not isinstance(entry, Digest))
    reasons = tuple(map(describe_caution, verdict.reasons)) if verdict else ()
    return Seen(name, is_disturbed, done.returncode, verdict.trust if verdict else None, reasons, took_s)


def write_line(seen: Seen) -> str:
    """A run in a line, and its reasons in one each."""
    beside = "beside busy loops" if seen.is_disturbed else "by itself"
    trust = seen.trust.value if seen.trust else "no verdict"
    lines = [f"{seen.command:10} {beside:17} {trust:17} exit {seen.exit_code}  {seen.took_s:.0f} s"]
    return "\n".join([*lines, *(f"    {reason}" for reason in seen.reasons)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--times", type=int, default=2, help="Runs of each command beside the loops, and by itself. [2]"
    )
    parser.add_argument("--only", choices=COMMANDS, action="append", help="These commands alone; nothing is kept then.")
    options = parser.parse_args()
    seen = []
    for _ in range(options.times):
        for name in options.only or COMMANDS:
            seen.append(look(name, is_disturbed=False))
            print(write_line(seen[-1]), flush=True)
            with busy_loops(find_our_cpus().count):
                seen.append(look(name, is_disturbed=True))
            print(write_line(seen[-1]), flush=True)
    timed = [one for one in seen if one.command not in NO_TIME]
    alone, disturbed = ([one for one in timed if one.is_disturbed is beside] for beside in (False, True))
    n_caught, n_trusted = sum(one.is_caught for one in disturbed), sum(not one.is_caught for one in alone)
    print(
        f"\nbeside the loops {n_caught} of {len(disturbed)} are not to be trusted; by themselves {n_trusted} of {len(alone)} are"
    )
    if not options.only:
        figures = {
            "disturbed.not_trusted": share_of(n_caught, len(disturbed)),
            "disturbed.trusted_alone": share_of(n_trusted, len(alone)),
        }
        print(f"kept in {keep('disturbed', figures, [encode(one) for one in seen], describe_machine())}")


if __name__ == "__main__":
    main()
