"""Time `harness --help` against `python -c "import click"`, in interleaved pairs: .venv/bin/python scripts/startup.py [PAIRS]"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import time

from harness.records.statistics import median, median_interval

COMMANDS = {
    "harness --help": [str(pathlib.Path(sys.executable).with_name("harness")), "--help"],
    "import click": [sys.executable, "-c", "import click"],
}


def run_once(command: list[str]) -> int:
    start = time.perf_counter_ns()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter_ns() - start


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    times: dict[str, list[int]] = {name: [] for name in COMMANDS}
    for _ in range(pairs):
        for name, command in COMMANDS.items():
            times[name].append(run_once(command))
    ratios = [ours / theirs for ours, theirs in zip(*times.values(), strict=True)]
    interval = median_interval(ratios)
    for name, durations in times.items():
        print(f"{name}: median {median(durations) / 1e6:.1f} ms of {pairs}")
    bounds = f" [{interval.low:.2f}, {interval.high:.2f}]" if interval else ""
    print(f"ratio: {median(ratios):.2f}{bounds}")


if __name__ == "__main__":
    main()
