"""Is a synthetic model as fast as the real one? .venv/bin/python scripts/synthetic_speed.py [PAIRS]

Measures the embedded model and its synthetic twin alternately, and prints the ratio of their speeds pair by pair.
"""

from __future__ import annotations

import sys
from typing import Any

from parity import compare, run

from harness.evidence.medians import median
from harness.host.machine import describe_machine
from harness.records.parity import Parity
from harness.views import page

REAL, SYNTHETIC = "smollm2:135m:q4_1", "synth:smollm2:135m:q4_1"


def measure(reference: str) -> dict[str, dict[str, Any]]:
    options = ["-p", "128", "-n", "32", "-r", "6", "-o", "json", "--no-save"]
    return run([sys.executable, "-m", "harness", "pp-tg", "-m", reference, *options])


def make_row(one: Parity) -> list[str]:
    """A test, both medians, the median ratio and its interval, written out."""
    figures = (one.harness_tok_per_s, one.llama_bench_tok_per_s)
    interval = f"{found.low:.3f} – {found.high:.3f}" if (found := one.interval) else ""
    return [one.test, *(f"{figure:.2f}" for figure in figures), f"{median(one.ratios):.3f}", interval]


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    measure(SYNTHETIC)  # writes the file, and warms the page cache
    runs = []
    for pair in range(pairs):
        order = (REAL, SYNTHETIC) if pair % 2 else (SYNTHETIC, REAL)
        found = {reference: measure(reference) for reference in order}
        runs.append((found[SYNTHETIC], found[REAL]))
    machine = describe_machine()
    pairs_of = {test: [(synthetic[test], real[test]) for synthetic, real in runs] for test in runs[0][0]}
    rows = [make_row(compare(test, found, SYNTHETIC, machine)) for test, found in pairs_of.items()]
    heads = ["test", "synthetic t/s", "real t/s", "ratio", "95 % interval"]
    print(page.table(heads, rows, "l" * len(heads)))


if __name__ == "__main__":
    main()
