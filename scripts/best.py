"""Hold `harness sweep --best` against the full sweep: sweeps over every count before and after the searches, all on the same devices.

python scripts/best.py [--runs 5] [--sweeps 2] [--out bench_results/…/best.json] -- -m MODEL --rpc 127.0.0.1:50052 -n 32 -r 5

Everything after -- goes to both commands; -p 0 is added, for the goal is text generation. Timed from outside, start of Python included.

Two figures judge a choice. The naive one holds it against the fastest row of the first sweep: that row is the largest of many noisy
medians, so that even the true best seems to lose against it. The fair one holds the median rate of the chosen count over all sweeps and
searches against the median of the count whose median over all of them is largest; its interval is a bootstrap over the loads (each row
of a sweep, each row of a search is one).
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import statistics
import subprocess
import sys
import time
from typing import Any

Rates = dict[int, list[float]]

#: Resampled tables for an interval, and the share of them that it covers.
RESAMPLES, CONFIDENCE = 2000, 0.95


def run(*arguments: str) -> tuple[dict[str, Any], float]:
    """(what `harness sweep -o json` found, wall time in s)."""
    start = time.monotonic()
    command = [sys.executable, "-m", "harness", "sweep", *arguments, "-p", "0", "-o", "json", "--no-traffic"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 5):
        sys.exit(f"best: {' '.join(command)} ended with {done.returncode}")
    return json.loads(done.stdout), time.monotonic() - start


def read_rates(found: dict[str, Any]) -> dict[int, float]:
    """Tokens per second by count."""
    return {row["n_gpu_layers"]: row["speeds"][0]["rate_tok_per_s"] for row in found["rows"] if row["speeds"]}


def fair_loss(chosen: int, rates: Rates, counts: list[int]) -> float:
    """How far the chosen count's median rate lies behind the largest median of all counts, relative."""
    medians = {count: statistics.median(rates[count]) for count in counts}
    return 1 - medians[chosen] / max(medians.values())


def fair_interval(chosen: int, rates: Rates, counts: list[int]) -> tuple[float, float]:
    """The interval of the loss against the count that is best by its median, by resampling the loads of those two.

    The rival stays the same in every resampling: choosing the largest anew would put the noise back that this figure is to be free of.
    """
    rival = max(counts, key=lambda count: statistics.median(rates[count]))
    if rival == chosen:
        return 0.0, 0.0
    chance = random.Random(0)
    losses = sorted(1 - _resample(rates[chosen], chance) / _resample(rates[rival], chance) for _ in range(RESAMPLES))
    cut = int(RESAMPLES * (1 - CONFIDENCE) / 2)
    return losses[cut], losses[-1 - cut]


def _resample(values: list[float], chance: random.Random) -> float:
    return statistics.median(chance.choices(values, k=len(values)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--sweeps", type=int, default=2, help="Full sweeps: half of them before the searches, the rest after."
    )
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args()
    rates: Rates = {}
    sweeps: list[tuple[dict[int, float], float]] = []
    searches: list[tuple[dict[str, Any], float]] = []
    n_first = (options.sweeps + 1) // 2
    model = ""
    for step in range(options.sweeps + options.runs):
        is_search = n_first <= step < n_first + options.runs
        found, took_s = run(*options.arguments, *(["--best"] if is_search else []))
        model = found["model"]
        for count, rate in read_rates(found).items():
            rates.setdefault(count, []).append(rate)
        if is_search:
            searches.append((found, took_s))
            print(
                f"--best: {found['best_n_gpu_layers']} after {len(found['measured'])} counts, "
                f"{sum(found['looks'].values())} loads, in {took_s:.1f} s",
                flush=True,
            )
        else:
            sweeps.append((read_rates(found), took_s))
            print(f"full sweep: {len(found['rows'])} counts in {took_s:.1f} s", flush=True)
    values = judge(model, rates, sweeps, searches)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def judge(
    model: str, rates: Rates, sweeps: list[tuple[dict[int, float], float]], searches: list[tuple[dict[str, Any], float]]
) -> dict[str, Any]:
    """Print both figures of every search and give everything for a file."""
    full_s = statistics.mean(took_s for _, took_s in sweeps)
    first = sweeps[0][0]
    # A count that only one sweep could measure is no fair rival.
    counts = sorted(count for count in first if all(count in found for found, _ in sweeps))
    fastest = max(counts, key=lambda count: statistics.median(rates[count]))
    drifts = [
        max(found[count] for found, _ in sweeps) / min(found[count] for found, _ in sweeps) - 1 for count in counts
    ]
    print(
        f"best by its median over everything: {fastest} layers with {statistics.median(rates[fastest]):.2f} t/s; a count differs "
        f"between sweeps by {statistics.median(drifts):.1%} (median), {max(drifts):.1%} at the most"
    )
    runs = []
    for found, took_s in searches:
        chosen = found["best_n_gpu_layers"]
        low, high = fair_interval(chosen, rates, counts)
        runs.append(
            {
                "best_n_gpu_layers": chosen,
                "measured_counts": found["measured"],
                "looks": found["looks"],
                "cost_share_stated": found["cost_share"],
                "cost_share_timed": took_s / full_s,
                "naive_loss": 1 - first[chosen] / max(first.values()),
                "fair_loss": fair_loss(chosen, rates, counts),
                "fair_loss_low": low,
                "fair_loss_high": high,
            }
        )
        last = runs[-1]
        print(
            f"{chosen} layers: {last['fair_loss']:.1%} behind the best (95 %: {low:.1%} to {high:.1%}), {last['naive_loss']:.1%} "
            f"behind the first sweep's maximum; {took_s / full_s:.0%} of a sweep's time, {found['cost_share']:.0%} by its own account"
        )
    kept = sum(entry["fair_loss"] <= 0.03 and entry["cost_share_timed"] <= 0.25 for entry in runs)
    print(f"{kept} of {len(runs)} within 3 % of the best at 25 % of the cost or less")
    return {
        "model": model,
        "full_sweeps_s": [took_s for _, took_s in sweeps],
        "rates_tok_per_s": {str(count): values for count, values in sorted(rates.items())},
        "fastest": fastest,
        "drift_between_sweeps": {"median": statistics.median(drifts), "max": max(drifts)},
        "runs": runs,
    }


if __name__ == "__main__":
    main()
