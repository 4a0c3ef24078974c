"""A sweep of two thousand tiny cells, and the memory of the process that holds them: its peak, and what the second half adds.

    .venv/bin/python scripts/long_sweep.py [--cells 2000] [--no-keep]

`harness pp-tg` measures the embedded model with one or two generated tokens, one repetition each, over settings that cost nothing.
While it runs, the resident memory of the parent is read five times a second beside the number of lines in its journal; the worker,
which holds the model, does not count. Takes about four minutes on two cores, and says nothing about speed.
"""

from __future__ import annotations

import argparse
import bisect
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import psutil
from figures import RELIABILITY_FOLDER, ROOT, Figure, keep

#: What varies: tokens, batch size, and how hard threads wait; their product is the number of cells.
N_GEN, N_BATCH, MOST_POLL = 2, 10, 100


def command_of(n_cells: int, results: pathlib.Path) -> list[str]:
    """A sweep of so many cells, rounded up to a whole number of `N_GEN` * `N_BATCH`."""
    n_poll = min(-(-n_cells // (N_GEN * N_BATCH)), MOST_POLL)
    axes = ["-n", f"1-{N_GEN}", "-b", f"64-{63 + N_BATCH}", "--poll", f"0-{n_poll - 1}"]
    manner = ["-p", "0", "-t", "1", "-ub", "64", "-r", "1", "--no-warmup", "--results", str(results), "-o", "csv"]
    return [sys.executable, "-m", "harness", "pp-tg", *axes, *manner]


def watch(words: list[str], results: pathlib.Path) -> tuple[list[tuple[int, float]], int]:
    """(lines in the journal, MiB of the parent) five times a second, and the exit code."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    seen: list[tuple[int, float]] = []
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as run:
        parent, read, n_lines = psutil.Process(run.pid), 0, 0
        while run.poll() is None:
            for journal in results.rglob("*.jsonl"):
                with open(journal, "rb") as file:
                    file.seek(read)
                    new = file.read()
                    read, n_lines = read + len(new), n_lines + new.count(b"\n")
            try:
                seen.append((n_lines, parent.memory_info().rss / 2**20))
            except psutil.Error:  # it has just ended
                break
            time.sleep(0.2)
        return seen, run.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--no-keep", action="store_true", help="show the figures, and keep none")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = pathlib.Path(folder)
        words = command_of(asked.cells, results)
        seen, exit_code = watch(words, results)
    n_cells, peak = seen[-1][0], max(mib for _, mib in seen)
    counts = [count for count, _ in seen]
    # The table of all of them, which is made at the end, is in the peak and not in the growth.
    half, end = (seen[bisect.bisect_left(counts, count)][1] for count in (n_cells // 2, n_cells))
    print(f"{n_cells} cells, exit code {exit_code}: peak {peak:.1f} MiB, the second half added {end - half:.1f} MiB")
    steps = [seen[bisect.bisect_left(counts, n_cells * part // 10)] for part in range(11)]
    if not asked.no_keep:
        figures = {
            "scale.cells": Figure(n_cells),
            "scale.parent_peak_mib": Figure(round(peak, 1)),
            "scale.parent_growth_mib": Figure(round(end - half, 1)),
        }
        details = {"exit_code": exit_code, "mib_by_cells": [(count, round(mib, 1)) for count, mib in steps]}
        print(keep("long_sweep", figures, details, folder=RELIABILITY_FOLDER))
    else:
        print(*(f"{count}: {mib:.1f} MiB" for count, mib in steps), sep="\n")


if __name__ == "__main__":
    main()
