"""Hold `harness sweep --best` against the full sweep: one sweep over every count, then five searches, all on the same devices.

python scripts/best.py [--runs 5] [--out bench_results/…/best.json] -- -m MODEL --rpc 127.0.0.1:50052 -n 32 -r 5

Everything after -- goes to both commands; -p 0 is added, for the goal is text generation. Timed from outside, start of Python included.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys
import time
from typing import Any


def run(*arguments: str) -> tuple[dict[str, Any], float]:
    """(what `harness sweep -o json` found, wall time in s)."""
    start = time.monotonic()
    command = [sys.executable, "-m", "harness", "sweep", *arguments, "-p", "0", "-o", "json", "--no-traffic"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 5):
        sys.exit(f"best: {' '.join(command)} ended with {done.returncode}")
    return json.loads(done.stdout), time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args()
    full, full_s = run(*options.arguments)
    rates = {
        row["n_gpu_layers"]: next(iter(row["tests"].values()))["rate_tok_per_s"] for row in full["rows"] if row["tests"]
    }
    fastest = max(rates, key=lambda count: rates[count])
    print(
        f"full sweep: {len(rates)} counts in {full_s:.1f} s, best {fastest} with {rates[fastest]:.2f} t/s", flush=True
    )
    found = []
    for _ in range(options.runs):
        best, best_s = run(*options.arguments, "--best")
        count = best["best_n_gpu_layers"]
        found.append(
            {
                "best_n_gpu_layers": count,
                "measured_counts": best["measured_counts"],
                "cost_share_stated": best["cost_share"],
                "cost_share_timed": best_s / full_s,
                "loss": 1 - rates[count] / rates[fastest],
            }
        )
        print(
            f"--best: {count} after {len(best['measured_counts'])} counts in {best_s:.1f} s ({best_s / full_s:.0%} of the sweep, "
            f"{best['cost_share']:.0%} by its own account); in the sweep it is {found[-1]['loss']:.1%} behind the best",
            flush=True,
        )
    if options.out:
        values = {
            "model": full["model"],
            "full_sweep_s": full_s,
            "rates_tok_per_s": rates,
            "fastest": fastest,
            "runs": found,
        }
        options.out.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
