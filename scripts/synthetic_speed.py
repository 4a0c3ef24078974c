"""Is a synthetic model as fast as the real one? .venv/bin/python scripts/synthetic_speed.py [PAIRS]

Measures the embedded model and its synthetic twin alternately, and prints the ratio of their speeds pair by pair.
"""

from __future__ import annotations

import sys

from parity import compare, run

from harness.views import page

REAL, SYNTHETIC = "smollm2:135m:q4_1", "synth:smollm2:135m:q4_1"


def measure(reference: str) -> dict[str, dict[str, object]]:
    options = ["-p", "128", "-n", "32", "-r", "6", "-o", "json", "--no-save"]
    return run([sys.executable, "-m", "harness", "pp-tg", "-m", reference, *options])


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    measure(SYNTHETIC)  # writes the file, and warms the page cache
    runs = []
    for pair in range(pairs):
        order = (REAL, SYNTHETIC) if pair % 2 else (SYNTHETIC, REAL)
        found = {reference: measure(reference) for reference in order}
        runs.append((found[SYNTHETIC], found[REAL]))
    rows = []
    for test in runs[0][0]:
        result = compare([(synthetic[test], real[test]) for synthetic, real in runs])
        bounds = f"{result['ratio_low']:.3f} – {result['ratio_high']:.3f}"
        rates = [f"{result[f'{name}_tok_per_s']:.2f}" for name in ("harness", "llama_bench")]
        rows.append([test, *rates, f"{result['ratio_median']:.3f}", bounds])
    heads = ["test", "synthetic t/s", "real t/s", "ratio", "95 % interval"]
    print(page.table([dict(zip(heads, row, strict=True)) for row in rows], "l"))


if __name__ == "__main__":
    main()
