"""Kill real sweeps at random moments, see what is left of them, and have each go on to its end.

    .venv/bin/python scripts/kill_sweeps.py [--kills 100] [--jobs 2] [--minutes 9] [--seed 1] [--fresh] [--others 3]

A sweep of ten cells of the embedded model runs once undisturbed. Then it runs again and again, each time killed: the parent, its
worker, both, or the process group as a terminal does it, by any of HOW, at a moment drawn between its start and its end, or a moment
after it told a result, where records are written. Afterwards each cell that was told must be in the journal and every line that was
there must still be; no process may be left; the exit code must be the right one; and `--resume` must measure each missing cell once
and no other. With `--others` the other commands that measure are killed too, so often each, and what they keep is noted.

What each kill came to is kept as it goes (`.cache/kill-sweeps/`), so that a run that was cut off goes on. It says nothing about speed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil
from figures import RELIABILITY_FOLDER, ROOT, Figure, keep

from harness.records.cells import Record
from harness.records.journal import read_records

RAW = ROOT / ".cache" / "kill-sweeps" / "kills.jsonl"

SWEEP = ("sweep", "-t", "1", "-ngl", "0-4", "-p", "16", "-n", "4", "-r", "2")
N_CELLS = 10

#: Other commands that measure, short ones of each.
OTHERS = {
    "pp-tg": ("pp-tg", "-t", "1", "-p", "16,32", "-n", "4", "-r", "6"),
    "ab": ("ab", "-p", "16", "-n", "4", "--max-time", "20", "--", "-t", "1", "--", "-t", "2"),
    "tune": ("tune", "--time", "20", "-c", "512"),
    "score": ("score",),
    "noise": ("noise", "--time", "10"),
    "quality": ("quality", "-ctk", "f16,q8_0", "-c", "64", "--chunks", "4"),
    "speculate": ("speculate", "-m", "smollm2:135m", "--draft", "smollm2:135m", "-t", "1"),
    "token-time": ("token-time", "-t", "1"),
    "roofline": ("roofline",),
    "overhead": ("overhead",),
    "run": ("run", "-t", "1", "--max-tokens", "64", "--temp", "0", "Once"),
}

#: Whom and how: the signals in turn, with a pause between two.
HOW = {
    "parent SIGTERM": ("parent", (signal.SIGTERM,)),
    "parent SIGKILL": ("parent", (signal.SIGKILL,)),
    "parent SIGHUP": ("parent", (signal.SIGHUP,)),
    "group Ctrl-C": ("group", (signal.SIGINT,)),
    "group Ctrl-C twice": ("group", (signal.SIGINT, signal.SIGINT)),
    "group Ctrl-C, SIGTERM": ("group", (signal.SIGINT, signal.SIGTERM)),
    "worker SIGTERM": ("worker", (signal.SIGTERM,)),
    "worker SIGKILL": ("worker", (signal.SIGKILL,)),
    "worker SIGHUP": ("worker", (signal.SIGHUP,)),
    "worker SIGSTOP, SIGKILL": ("worker", (signal.SIGSTOP, signal.SIGKILL)),
    "both SIGKILL": ("both", (signal.SIGKILL,)),
    "both SIGTERM": ("both", (signal.SIGTERM,)),
}

#: A process that ends because its parent went has so long for it.
GRACE_S = 5.0

#: Another command whose worker was killed may go on for so long.
GOES_ON_S = 8.0


@dataclass
class Kill:
    """One command that was killed: what was wrong, by kind; an empty list is as it should be. n_kept of n_cells were there."""

    number: int
    command: str
    how: str
    after_s: float
    exit_code: int | None = None
    n_kept: int = 0
    n_lost: int = 0
    n_orphans: int = 0
    is_wrong_resume: bool = False
    wrong: list[str] = field(default_factory=list)


@dataclass
class Child:
    """A command of harness in a process group of its own, marked so that whatever it starts is found again."""

    words: Sequence[str]
    folder: pathlib.Path

    def __post_init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self.begun_s = time.monotonic()
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "HARNESS_RESULTS": str(self.folder / "results"), "KILL_SWEEPS": self.mark,
            "XDG_CONFIG_HOME": str(self.folder / "config"),
        }  # fmt: skip
        with open(self.folder / "out", "wb") as out, open(self.folder / "err", "wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "harness", *self.words],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, start_new_session=True,
            )  # fmt: skip

    @property
    def told(self) -> str:
        return (self.folder / "err").read_text(encoding="utf-8", errors="replace")

    @property
    def is_over(self) -> bool:
        return self.process.poll() is not None

    def workers(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def wait(self, limit_s: float = 120.0) -> int | None:
        """The exit code; None where it hangs, which ends it."""
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None

    def end_after(self, limit_s: float) -> None:
        """Press Ctrl-C where it is still going on then."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(limit_s)
            return
        os.killpg(self.process.pid, signal.SIGINT)

    def orphans(self) -> list[psutil.Process]:
        """What it started and is still there after a moment of grace; they are ended."""
        deadline = time.monotonic() + GRACE_S
        while (left := list(self._marked())) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        return left

    def _marked(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("KILL_SWEEPS") == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    yield process


def kill(child: Child, how: str, draw: random.Random) -> None:
    """Kill it; a worker is waited for as long as the command runs."""
    whom, signals = HOW[how]
    workers: list[psutil.Process] = []
    while whom in ("worker", "both") and not child.is_over and not (workers := child.workers()):
        time.sleep(0.005)
    targets = [child.process] if whom in ("parent", "group") else [*workers]
    if whom == "both":
        targets.append(child.process)  # type: ignore[arg-type]
        draw.shuffle(targets)
    for place, number in enumerate(signals):
        if place:
            time.sleep(draw.choice((0.0, 0.001, 0.01, 0.1, 0.5)))
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if whom == "group" and not child.is_over:
                os.killpg(child.process.pid, number)
            elif whom != "group":
                for target in targets:
                    target.send_signal(number)


def journals(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted((folder / "results").rglob("*.jsonl"))


def read_bytes(paths: Sequence[pathlib.Path]) -> bytes:
    return b"".join(path.read_bytes() for path in paths)


def cell_of(record: Record) -> tuple[int, str]:
    return record.asked.n_gpu_layers, record.asked.test


def good_cells(paths: Sequence[pathlib.Path]) -> Counter[tuple[int, str]]:
    return Counter(cell_of(record) for record in read_records(paths, lambda _: None) if record.failure is None)


def told_cells(text: str) -> set[tuple[int, str]]:
    """The cells whose result was told: ``ngl 3: pp16 58.11 t/s, tg4 8.598 t/s``."""
    found = re.findall(r"^ngl (\d+): (.*)$", text, re.MULTILINE)
    return {(int(count), test) for count, line in found for test in re.findall(r"(\w+) [\d.,]+ t/s", line)}


def damaged_lines(data: bytes) -> int:
    """Lines that are no JSON, the last one aside where it has no end."""
    n = 0
    for line in data.split(b"\n")[:-1]:
        try:
            json.loads(line)
        except ValueError:
            n += 1
    return n


def wrong_exit(child: Child, how: str, code: int | None, is_complete: bool, is_early: bool) -> str | None:
    """What is wrong with an exit code."""
    whom, signals = HOW[how]
    if code is None:
        return "hangs"
    over = {0, 5} if is_complete else set()
    if whom == "worker":
        allowed = {0, 3, 5, 130}
    elif signals[0] == signal.SIGKILL:
        allowed = {-9, 3, *over}
    else:
        # Before the first lines of harness run, and after everything has been said, a signal does what it does to any program.
        ends = {-number for number in signals} if is_early or is_complete else set()
        allowed = {130, *over, *ends, *({1} if is_early else set())}
    return None if code in allowed else f"exit code {code}"


def wrong_words(text: str, is_early: bool) -> Iterator[str]:
    if "Traceback" in text and not (is_early and not re.search(r"harness/(?!__main__|__init__|host/interrupt)", text)):
        yield "a traceback"
    if "Exception ignored" in text:
        yield "an ignored exception"
    if "please report" in text:
        yield "an unknown error"


def observe(child: Child, result: Kill, draw: random.Random, is_aimed: bool) -> bytes:
    """Wait for the moment and kill; the journal as it was just before."""
    if is_aimed:
        wanted = draw.randint(1, 5)
        while not child.is_over and len(re.findall("^ngl ", child.told, re.MULTILINE)) < wanted:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.03))
    else:
        time.sleep(max(child.begun_s + result.after_s - time.monotonic(), 0))
    result.after_s = round(time.monotonic() - child.begun_s, 3)
    before = read_bytes(journals(child.folder))
    kill(child, result.how, draw)
    return before


@dataclass(frozen=True, slots=True)
class Left:
    """What a command that was killed left: its journals and all that is in them; is_early: it was killed before it had any."""

    paths: Sequence[pathlib.Path]
    data: bytes
    is_early: bool


def look(child: Child, result: Kill, before: bytes) -> Left:
    """Wait for its end, and judge what any command leaves: no process, every line that was there before, none that is damaged."""
    result.exit_code = child.wait()
    result.n_orphans = len(child.orphans())
    paths = journals(child.folder)
    data = read_bytes(paths)
    if not data.startswith(before[: before.rfind(b"\n") + 1]):
        result.wrong.append("lines that were there are gone")
        result.n_lost += 1
    if damaged_lines(data):
        result.wrong.append("a damaged line that is not the last")
    return Left(paths, data, not paths and result.after_s < 1.0)


def judge_end(child: Child, result: Kill, left: Left, is_complete: bool) -> None:
    """Judge its exit code and its last words."""
    if said := wrong_exit(child, result.how, result.exit_code, is_complete, left.is_early):
        result.wrong.append(said)
    result.wrong += wrong_words(child.told, left.is_early)


def kill_sweep(number: int, seed: int, takes_s: float, folder: pathlib.Path) -> Kill:
    """One sweep, killed, looked at, and gone on with."""
    draw = random.Random(f"{seed} {number}")
    how = list(HOW)[number % len(HOW)]
    result = Kill(number, "sweep", how, draw.uniform(0, 1.1 * takes_s))
    child = Child(SWEEP, folder)
    before = observe(child, result, draw, is_aimed=draw.random() < 0.4)
    left = look(child, result, before)
    good = good_cells(left.paths)
    result.n_kept = len(good)
    if lost := told_cells(child.told) - set(good):
        result.wrong.append(f"told and not kept: {sorted(lost)}")
        result.n_lost += len(lost)
    judge_end(child, result, left, len(good) == N_CELLS)
    _resume(result, left, good, folder)
    return result


def _resume(result: Kill, left: Left, good: Counter[tuple[int, str]], folder: pathlib.Path) -> None:
    """Go on with it, and see whether exactly what is missing is measured."""
    child = Child((*SWEEP, *(("--resume", str(left.paths[-1])) if left.paths else ())), folder)
    code = child.wait()
    after = journals(folder)
    found, everything = good_cells(after), read_bytes(after)
    trouble = []
    if code not in (0, 5):
        trouble.append(f"going on ends with {code}")
    if len(found) != N_CELLS or set(found.values()) != {1}:
        trouble.append(f"going on has {len(found)} cells, measured {sorted(set(found.values()))} times")
    if not everything.startswith(left.data):
        trouble.append("going on changed what was there")
    if left.data and not left.data.endswith(b"\n") and "the line is skipped" not in child.told:
        trouble.append("half a line is not told of")
    if any(good[cell] and found[cell] != good[cell] for cell in good):
        trouble.append("a cell was measured again")
    trouble += wrong_words(child.told, False)
    result.n_orphans += len(child.orphans())
    result.is_wrong_resume = bool(trouble)
    result.wrong += trouble


def kill_other(number: int, name: str, seed: int, folder: pathlib.Path) -> Kill:
    """Another command, killed and looked at."""
    draw = random.Random(f"{seed} {name} {number}")
    how = draw.choice(list(HOW))
    result = Kill(number, name, how, draw.uniform(0.3, 8.0))
    child = Child(OTHERS[name], folder)
    before = observe(child, result, draw, is_aimed=False)
    if HOW[how][0] == "worker":  # the command goes on, some for minutes: it is ended in order
        child.end_after(GOES_ON_S)
    left = look(child, result, before)
    result.n_kept = left.data.count(b"\n")
    # Whether it was over cannot be seen from its cells here: a death by the signal itself is right after the last word only.
    is_complete = result.exit_code in (0, 5) or "kept in" in child.told
    judge_end(child, result, left, is_complete)
    return result


def undisturbed(folder: pathlib.Path) -> float:
    """How long the sweep takes by itself.

    Raises
    ------
    RuntimeError : it does not even end well then.
    """
    child = Child(SWEEP, folder)
    code = child.wait()
    cells = good_cells(journals(folder))
    if code not in (0, 5) or len(cells) != N_CELLS or told_cells(child.told) != set(cells):
        raise RuntimeError(f"the undisturbed sweep ends with {code} and {len(cells)} cells:\n{child.told}")
    return time.monotonic() - child.begun_s


def count(kills: Sequence[Kill]) -> dict[str, Figure]:
    """The figures of the page."""
    sweeps = [one for one in kills if one.command == "sweep"]
    return {
        "kills.sweeps": Figure(len(sweeps)),
        "kills.cells_lost": Figure(sum(one.n_lost for one in kills), n=sum(one.n_kept + one.n_lost for one in kills)),
        "kills.wrong_resumes": Figure(sum(one.is_wrong_resume for one in sweeps), n=len(sweeps)),
        "kills.orphans": Figure(sum(one.n_orphans for one in kills), n=len(kills)),
        "kills.wrong": Figure(sum(bool(one.wrong) for one in kills), n=len(kills)),
    }


def summarize(kills: Sequence[Kill]) -> dict[str, Any]:
    """What else is worth keeping: where the kills hit, by whom and how, what was wrong, and what other commands kept."""
    sweeps = [one for one in kills if one.command == "sweep"]
    others = [one for one in kills if one.command != "sweep"]
    return {
        "sweep": " ".join(SWEEP),
        "kills_by_how": Counter(one.how for one in sweeps),
        "kills_by_cells_on_disk": {str(n): hits for n, hits in sorted(Counter(one.n_kept for one in sweeps).items())},
        "exit_codes_by_how": {
            how: Counter(str(one.exit_code) for one in sweeps if one.how == how) for how in HOW
        },
        "wrong": [asdict(one) for one in kills if one.wrong],
        "others": [asdict(one) for one in others],
    }  # fmt: skip


def read_kills() -> list[Kill]:
    if not RAW.exists():
        return []
    return [Kill(**json.loads(line)) for line in RAW.read_text(encoding="utf-8").splitlines()]


def describe(one: Kill) -> str:
    what = f"{one.command} {one.number}: {one.how} after {one.after_s:.2f} s, {one.n_kept} kept, exit {one.exit_code}"
    return f"{what}: {'; '.join(one.wrong) or 'as it should be'}"


def make(job: tuple[int, str], seed: int, takes_s: float) -> Kill:
    number, command = job
    with tempfile.TemporaryDirectory(prefix="kill-sweeps-") as name:
        folder = pathlib.Path(name)
        if command == "sweep":
            return kill_sweep(number, seed, takes_s, folder)
        return kill_other(number, command, seed, folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--others", type=int, default=3, metavar="N", help="kill each other command so often")
    parser.add_argument("--only", choices=OTHERS, action="append", help="of the other commands, these")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=9.0, help="begin none after so long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fresh", action="store_true", help="forget what there is")
    parser.add_argument("--out", type=pathlib.Path, default=RELIABILITY_FOLDER)
    asked = parser.parse_args()
    if asked.fresh:
        shutil.rmtree(RAW.parent, ignore_errors=True)
    RAW.parent.mkdir(parents=True, exist_ok=True)
    kills = read_kills()
    made = {(one.number, one.command) for one in kills}
    wanted = [(number, "sweep") for number in range(asked.kills)]
    wanted += [(number, name) for number in range(asked.others) for name in asked.only or OTHERS]
    with tempfile.TemporaryDirectory(prefix="kill-sweeps-") as name:
        takes_s = undisturbed(pathlib.Path(name))
    print(f"undisturbed {takes_s:.1f} s; {len(made)} kills are there already", flush=True)
    deadline = time.monotonic() + 60 * asked.minutes

    def work(job: tuple[int, str]) -> Kill | None:
        return None if time.monotonic() > deadline else make(job, asked.seed, takes_s)

    with ThreadPoolExecutor(asked.jobs) as pool, RAW.open("a", encoding="utf-8") as file:
        for one in pool.map(work, [job for job in wanted if job not in made]):
            if one is not None:
                kills.append(one)
                file.write(json.dumps(asdict(one)) + "\n")
                file.flush()
                print(describe(one), flush=True)
    figures = count(kills)
    for name, figure in figures.items():
        print(f"{name}: {figure.value:g} of {figure.n}")
    command = ["scripts/kill_sweeps.py", "--kills", str(asked.kills), "--others", str(asked.others)]
    print(f"kept in {keep('kill-sweeps', figures, summarize(kills), folder=asked.out, command=command)}")
    return 1 if any(one.wrong for one in kills) or len(kills) < len(wanted) else 0


if __name__ == "__main__":
    sys.exit(main())
