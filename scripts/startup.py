"""Time commands that load no model against `python -c "import click"`, in turn: .venv/bin/python scripts/startup.py [ROUNDS]"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile
import time

from harness.records.statistics import median, median_interval
from harness.sources.model_file import default_model

HARNESS = str(pathlib.Path(sys.executable).with_name("harness"))
RECORDED = pathlib.Path(__file__).parent.parent / "tests" / "recorded" / "pp-tg.jsonl"
N_RECORDS = 10_000


def list_commands(folder: pathlib.Path) -> dict[str, list[str]]:
    """What is timed, by what it is called; the first is what the others are compared with."""
    return {
        "import click": [sys.executable, "-c", "import click"],
        "import harness": [sys.executable, "-c", "import harness"],
        "harness --help": [HARNESS, "--help"],
        "harness inspect FILE": [HARNESS, "inspect", str(default_model())],
        "harness predict": [HARNESS, "predict", "-m", "llama3.1:8b:q4_0", "--machine", "M4 Pro"],
        f"harness table, {N_RECORDS:,} records": [HARNESS, "table", str(write_records(folder))],
    }


def write_records(folder: pathlib.Path) -> pathlib.Path:
    """A journal of cells that differ in depth, layers, machine and day."""
    cells = [json.loads(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]
    path = folder / "20260101T000000Z-pp-tg.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for at in range(N_RECORDS):
            cell = cells[at % len(cells)]
            asked = {**cell["asked"], "n_depth": at % 49, "n_gpu_layers": at % 3}
            machine = {**cell["machine"], "n_cores_physical": 1 + at % 2}
            day = {"time_utc": f"2026-11-{1 + at % 28:02}T00:00:00Z"}
            file.write(json.dumps({**cell, "asked": asked, "machine": machine, **day}) + "\n")
    return path


def main() -> None:
    """Time each command once a round, and print medians and their ratios to the first."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    with tempfile.TemporaryDirectory() as folder:
        commands = list_commands(pathlib.Path(folder))
        times: dict[str, list[int]] = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                start = time.perf_counter_ns()
                subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
                times[name].append(time.perf_counter_ns() - start)
    base = next(iter(times.values()))
    for name, durations in times.items():
        ratios = [ours / theirs for ours, theirs in zip(durations, base, strict=True)]
        bounds = f" [{found.low:.2f}, {found.high:.2f}]" if (found := median_interval(ratios)) else ""
        print(f"{name:32} {median(durations) / 1e6:8.1f} ms  {median(ratios):6.2f} x import click{bounds}")


if __name__ == "__main__":
    main()
