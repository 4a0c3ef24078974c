"""How long until a speed is known within ± 2 %? .venv/bin/python scripts/time_to_precision.py --llama-bench FILE [--rounds 6]

Runs three programs by turns, in an order that is drawn anew in each round, on the same model and tests: `harness pp-tg` as it is (-r
auto), `harness pp-tg -r 10` one cell after the other, as it was before, and `llama-bench` with its five repetitions. Timed from
outside, from the start of the process to its end. Beside the time stands how close each test came: the larger distance from the median
to an end of its 95 % interval, as a share; of llama-bench, which prints mean and deviation, Student's t interval of the mean.

scripts/parity builds llama-bench, and says where. Results go to bench_results/trust/precision.json.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

import parity
from figures import Figure, keep, share_of

from harness.codec import encode
from harness.evidence.medians import median, median_interval
from harness.host.machine import describe_machine
from harness.records.journal import read_records
from harness.records.journal_files import find_journals
from harness.records.statistics import summarize
from harness.sources.model_file import default_model
from harness.views import page

#: What is called precise.
PRECISION = 0.02

PROGRAMS = {
    "auto": "harness pp-tg",
    "fixed": "harness pp-tg -r 10 --no-interleave --warmup",
    "llama_bench": "llama-bench",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a program: how long it took, and of each test how many repetitions there were and how close they came (None: it says
    nothing)."""

    program: str
    took_s: float
    repetitions: dict[str, int]
    half_widths: dict[str, float | None]

    @property
    def n_reached(self) -> int:
        """Tests whose interval lies within the precision."""
        return sum(width is not None and width <= PRECISION for width in self.half_widths.values())


def half_width_of_mean(samples: Sequence[float]) -> float | None:
    """Half of Student's 95 % interval of the mean, as a share of it; None for one sample."""
    if len(samples) < 2:
        return None
    from scipy.stats import t

    error = statistics.stdev(samples) / math.sqrt(len(samples))
    return float(t.ppf(0.975, len(samples) - 1)) * error / statistics.mean(samples)


def run_llama_bench(command: list[str]) -> Run:
    """llama-bench on the tests that the command names."""
    start = time.monotonic()
    rows = parity.run([*command, "-o", "json"])
    took_s = time.monotonic() - start
    widths = {test: half_width_of_mean(row["samples_ts"]) for test, row in rows.items()}
    return Run("llama_bench", took_s, {test: len(row["samples_ts"]) for test, row in rows.items()}, widths)


def run_harness(program: str, command: list[str]) -> Run:
    """harness on the same; what it kept says how close it came."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        done = subprocess.run([*command, "--results", folder], capture_output=True)
        took_s = time.monotonic() - start
        if done.returncode not in (0, 5):
            sys.exit(
                f"time_to_precision: {' '.join(command)} ended with {done.returncode}: {done.stderr.decode()[-500:]}"
            )
        records = read_records(find_journals((), pathlib.Path(folder)), sys.exit)
    widths: dict[str, float | None] = {}
    for record in records:
        found = summarize(record)
        ends = found.interval
        widths[record.asked.test] = max(abs(end / found.rate_tok_per_s - 1) for end in ends) if ends else None
    return Run(program, took_s, {record.asked.test: len(record.timed) for record in records}, widths)


def summarize_runs(runs: Sequence[Run]) -> dict[str, Figure]:
    """The figures: median times, the share of tests that came close enough, and the times of a round as ratios."""
    figures = {}
    by_program = {name: [run for run in runs if run.program == name] for name in PROGRAMS}
    for name, own in by_program.items():
        figures[f"precision.{name}_s"] = figure_of([run.took_s for run in own])
        figures[f"precision.{name}_reached"] = share_of(
            sum(run.n_reached for run in own), sum(len(run.half_widths) for run in own)
        )
    for other in ("fixed", "llama_bench"):
        pairs = zip(by_program["auto"], by_program[other], strict=True)
        figures[f"precision.auto_to_{other}"] = figure_of([ours.took_s / theirs.took_s for ours, theirs in pairs])
    return figures


def figure_of(values: Sequence[float]) -> Figure:
    """A median with its interval, of how many."""
    interval = median_interval(values)
    return Figure(median(values), interval.low if interval else None, interval.high if interval else None, len(values))


def write_row(run: Run) -> list[str]:
    """A run: its time, and of each test how many repetitions came how close."""
    widths = ["—" if width is None else f"{width * 100:.1f} %" for width in run.half_widths.values()]
    return [
        PROGRAMS[run.program],
        f"{run.took_s:.1f}",
        *(f"{n}: {width}" for n, width in zip(run.repetitions.values(), widths, strict=True)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-bench", required=True, help="The program; scripts/parity builds it.")
    parser.add_argument("--rounds", type=int, default=6, help="Runs of each program. [6]")
    parser.add_argument("-p", type=int, default=512, help="Prompt tokens. [512]")
    parser.add_argument("-n", type=int, default=128, help="Generated tokens. [128]")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the orders. [0]")
    parser.add_argument("--no-save", action="store_true", help="Keep nothing.")
    options = parser.parse_args()
    tests = ["-m", str(default_model()), "-p", str(options.p), "-n", str(options.n)]
    harness = [sys.executable, "-m", "harness", "pp-tg", *tests]
    runs: list[Run] = []
    chance = random.Random(options.seed)
    for _ in range(options.rounds):
        for name in chance.sample(list(PROGRAMS), len(PROGRAMS)):
            if name == "llama_bench":
                runs.append(run_llama_bench([options.llama_bench, *tests]))
            else:
                runs.append(run_harness(name, harness + PROGRAMS[name].split()[2:]))
        heads = ["program", "s", *(f"{test}: ±" for test in runs[-1].half_widths)]
        print(page.table(heads, list(map(write_row, runs[-3:])), "lr" + "r" * len(heads[2:])), flush=True)
    figures = summarize_runs(runs)
    for name, program in PROGRAMS.items():
        took, reached = figures[f"precision.{name}_s"], figures[f"precision.{name}_reached"]
        print(f"{program}: {took.value:.1f} s, {reached.value:.0%} of {reached.n} tests within ± {PRECISION:.0%}")
    if not options.no_save:
        command = [
            "scripts/time_to_precision.py",
            "--rounds",
            str(options.rounds),
            "-p",
            str(options.p),
            "-n",
            str(options.n),
        ]
        print(
            f"kept in {keep('precision', figures, [encode(run) for run in runs], describe_machine(), command=command)}"
        )


if __name__ == "__main__":
    main()
