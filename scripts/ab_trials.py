"""How often is `harness ab` wrong, and what does it find? .venv/bin/python scripts/ab_trials.py [--aa 200] [--three 50] [--one 50]

Runs real comparisons of a small cell with itself: as it is, and with B made 3 % and 1 % slower inside the timed region
(HARNESS_TEST_SLOWDOWN_B), all in one random order, so that an hour in which the machine is restless meets every kind alike. Each has a
worker of its own and ends by its own test or after its time (`LIMITS_S`); after --minutes no other is begun. Every decision is a line
of bench_results/trust/ab-trials.ndjson as soon as it is made; started again, it goes on where it was, and with --report it only counts.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from figures import FOLDER, Figure, keep, share_of

import harness
from harness.codec import decode, encode
from harness.errors import HarnessError
from harness.evidence.medians import median
from harness.evidence.sequential import Decision
from harness.host.machine import describe_machine
from harness.records.ab import Ab
from harness.records.verdict import judge
from harness.runs.ab import SLOWDOWNS, Arm
from harness.views import page

#: What is compared: tokens and threads of the embedded model. One thread leaves a core to whatever else the machine does.
CELL: dict[str, Any] = {"n_prompt": 0, "n_gen": 8, "n_threads": 1}

#: Kind → the share by which B is slower, and how long its pairs may take, in s: what is small takes longer to find.
SLOWER = {"aa": 0.0, "three": 0.03, "one": 0.01}
LIMITS_S = {"aa": 4.0, "three": 6.0, "one": 10.0}
TITLES = {"aa": "A with A", "three": "B 3 % slower", "one": "B 1 % slower"}

RAW = FOLDER / "ab-trials.ndjson"


@dataclass(frozen=True, slots=True)
class Trial:
    """One comparison: what was injected, what was decided, and how long all of it took with the worker's start."""

    kind: str
    number: int  #: of its kind, from 0: the seed of its order
    decision: str  #: of `Decision`, or failed
    stop: str
    n_pairs: int
    repetitions: int  #: of a block
    pairs_s: float
    total_s: float
    ratio: float | None = None  #: B's time over A's
    low: float | None = None
    high: float | None = None
    trust: str | None = None
    time_utc: str = ""


def run(kind: str, number: int) -> Trial:
    """Make one comparison."""
    os.environ[SLOWDOWNS[Arm.B]] = str(SLOWER[kind])
    begun = time.monotonic()
    (record,) = harness.ab(max_time_s=LIMITS_S[kind], seed=number, **CELL)
    return describe(kind, number, record, time.monotonic() - begun)


def describe(kind: str, number: int, record: Ab, total_s: float) -> Trial:
    """A comparison as a line."""
    test, verdict = harness.replay(record), judge(record)
    ratio = test.ratio
    return Trial(
        kind, number, "failed" if record.failure else test.decision.value, record.stop.value, len(record.pairs),
        max((len(block.timed) for block in record.blocks if not block.is_trial), default=0), record.elapsed_ns / 1e9, total_s,
        ratio.value if ratio else None, ratio.low if ratio else None, ratio.high if ratio else None,
        verdict.trust.value if verdict else None, record.time_utc,
    )  # fmt: skip


def read(path: pathlib.Path) -> list[Trial]:
    """Every comparison that was made so far; a line that was cut off is left out."""
    trials = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            trials.append(decode(Trial, json.loads(line)))
        except ValueError:
            continue
    return trials


def plan(wanted: dict[str, int], done: Sequence[Trial]) -> list[tuple[str, int]]:
    """The comparisons that are still to be made, in a random order that does not depend on those that were."""
    every = [(kind, number) for kind, count in wanted.items() for number in range(count)]
    random.Random(0).shuffle(every)
    made = {(trial.kind, trial.number) for trial in done}
    return [one for one in every if one not in made]


def is_hit(trial: Trial) -> bool:
    """Whether it saw a difference between equal arms, or the one that there was."""
    if trial.kind == "aa":
        return trial.decision in (Decision.FASTER.value, Decision.SLOWER.value)
    return trial.decision == Decision.SLOWER.value


def count(trials: Sequence[Trial]) -> dict[str, Figure]:
    """The figures of the page."""
    figures = {}
    for kind, share, seconds in (
        ("aa", "ab.false_alarms", "ab.median_s_of_aa"),
        ("three", "ab.found_3_percent", "ab.median_s_of_3_percent"),
        ("one", "ab.found_1_percent", "ab.median_s_of_1_percent"),
    ):
        own = [trial for trial in trials if trial.kind == kind and trial.decision != "failed"]
        timed = own if kind == "aa" else [trial for trial in own if is_hit(trial)]
        if own:
            figures[share] = share_of(sum(map(is_hit, own)), len(own))
        if timed:
            figures[seconds] = Figure(median([trial.total_s for trial in timed]), n=len(timed))
    return figures


def make_table(trials: Sequence[Trial]) -> str:
    """A row a kind, as Markdown."""
    heads = (
        "compared",
        "runs",
        "saw a difference",
        "95 % interval",
        "no difference",
        "undecided",
        "other",
        "time",
        "pairs",
        "not trusted",
    )
    rows = []
    for kind, title in TITLES.items():
        own = [trial for trial in trials if trial.kind == kind]
        if not own:
            continue
        told = Counter(trial.decision for trial in own)
        share = share_of(sum(map(is_hit, own)), len(own))
        others = sum(told.values()) - sum(map(is_hit, own)) - told["no_difference"] - told["undecided"]
        rows.append([
            title, str(len(own)), f"{share.value:.1%}", f"{share.low:.1%} – {share.high:.1%}", str(told["no_difference"]),
            str(told["undecided"]), str(others), f"{median([trial.total_s for trial in own]):.1f} s",
            f"{median([trial.n_pairs for trial in own]):g}", str(sum(trial.trust == "not-to-be-trusted" for trial in own)),
        ])  # fmt: skip
    return page.markdown(heads, rows, "l" + "r" * (len(heads) - 1))


def report(trials: Sequence[Trial]) -> None:
    """Print the table, and leave it and the figures beside the lines."""
    if not trials:
        return
    table = make_table(trials)
    print(table)
    head = f"`{' '.join(f'{name}={value}' for name, value in CELL.items())}`, limits of {LIMITS_S}; medians of time and pairs.\n\n"
    (FOLDER / "ab-trials.md").write_text(f"{head}{table}\n", encoding="utf-8")
    details: dict[str, Any] = {
        "cell": CELL, "limits_s": LIMITS_S, "injected": SLOWER,
        "decisions": {kind: Counter(one.decision for one in trials if one.kind == kind) for kind in SLOWER},
        "median_pairs": {kind: median(n) for kind in SLOWER if (n := [one.n_pairs for one in trials if one.kind == kind])},
    }  # fmt: skip
    print(f"kept in {keep('ab-trials', count(trials), details, describe_machine())}", file=sys.stderr)


def main() -> int:
    """Make the comparisons that are missing, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind, usual in (("aa", 200), ("three", 50), ("one", 50)):
        parser.add_argument(
            f"--{kind}",
            type=int,
            default=usual,
            metavar="N",
            help=f"{TITLES[kind].replace(chr(37), chr(37) * 2)}: so many. [{usual}]",
        )
    parser.add_argument("--minutes", type=float, default=30.0, metavar="M", help="Begin none after so long. [30]")
    parser.add_argument("--report", action="store_true", help="Measure nothing, and count what there is.")
    parser.add_argument("--fresh", action="store_true", help="Forget what there is.")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        RAW.unlink(missing_ok=True)
    todo = [] if options.report else plan({kind: getattr(options, kind) for kind in SLOWER}, read(RAW))
    begun = time.monotonic()
    try:
        for place, (kind, number) in enumerate(todo, 1):
            if time.monotonic() - begun > 60 * options.minutes:
                print(f"{len(todo) - place + 1} are left; start it again to go on.", file=sys.stderr)
                break
            try:
                trial = run(kind, number)
            except HarnessError as error:  # it is made another time
                print(f"{place}/{len(todo)} {TITLES[kind]}: {error}", file=sys.stderr)
                continue
            with RAW.open("a", encoding="utf-8") as file:
                file.write(json.dumps(encode(trial)) + "\n")
            told = f"{TITLES[kind]}: {trial.decision}, {trial.n_pairs} pairs, {trial.total_s:.1f} s"
            print(f"{place}/{len(todo)} {told}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; start it again to go on.", file=sys.stderr)
    report(read(RAW))
    return 0


if __name__ == "__main__":
    sys.exit(main())
