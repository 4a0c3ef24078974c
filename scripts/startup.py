"""Time harness against `python -c "import click"`, in turns: .venv/bin/python scripts/startup.py [ROUNDS]

Prints the median of each command, and its ratio to `import click` with a 95 % interval. `table` reads 10,000 records that are made
for it in a temporary folder.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from harness.evidence.medians import median, median_interval
from harness.host.machine import describe_machine, machine_slug
from harness.sources.model_file import default_model

CLICK = "import click"
HARNESS = [sys.executable, "-m", "harness"]
RECORDED = pathlib.Path(__file__).parent.parent / "tests" / "recorded" / "pp-tg.jsonl"
N_RECORDS = 10_000


def write_records(results: pathlib.Path) -> None:
    """A journal of this machine with copies of recorded cells, ten thousand of them."""
    machine = describe_machine()
    folder = results / machine_slug(machine)
    folder.mkdir(parents=True)
    lines = [json.loads(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]
    here = dataclasses.asdict(machine)
    with open(folder / "20260101T000000Z-pp-tg.jsonl", "w", encoding="utf-8") as file:
        for number in range(N_RECORDS):
            line = lines[number % len(lines)]
            file.write(json.dumps({**line, "machine": here, "asked": {**line["asked"], "seed": number}}) + "\n")


def run_once(command: list[str], results: pathlib.Path) -> int:
    """Nanoseconds that a command takes, with its interpreter."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HARNESS_RESULTS": str(results)}
    start = time.perf_counter_ns()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)
    return time.perf_counter_ns() - start


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as folder:
        results = pathlib.Path(folder)
        write_records(results)
        commands = {
            CLICK: [sys.executable, "-c", CLICK],
            "harness --help": [*HARNESS, "--help"],
            "harness inspect FILE": [*HARNESS, "inspect", str(default_model())],
            "harness predict": [*HARNESS, "predict", "--bandwidth", "40GB/s", "--memory", "24GiB"],
            "harness predict -m llama3.1:8b -ctk q8_0": [
                *HARNESS, "predict", "-m", "llama3.1:8b", "--bandwidth", "40GB/s", "--memory", "24GiB", "-ctk", "q8_0",
            ],
            f"harness table ({N_RECORDS:,} records)": [*HARNESS, "table"],
        }  # fmt: skip
        times: dict[str, list[int]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                times[name].append(run_once(command, results))
    print(f"{'medians of ' + str(rounds):42}        ms   × {CLICK}")
    for name, durations in times.items():
        ratios = [ours / theirs for ours, theirs in zip(durations, times[CLICK], strict=True)]
        interval = median_interval(ratios)
        bounds = f"  [{interval.low:.2f}, {interval.high:.2f}]" if interval else ""
        print(f"{name:42}  {median(durations) / 1e6:8.1f}  {median(ratios):6.2f}{bounds}")


if __name__ == "__main__":
    main()
