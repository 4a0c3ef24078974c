"""The table and the picture of docs/quality.md: the embedded model, quantized anew, beside itself with its weights in F16.

    PYTHONPATH=. .venv/bin/python scripts/quality_table.py [--chunks 24] [--no-speed]

The embedded file is Q4_1. Written as F16 it has the same weights to a bit or two; what Q8_0, Q5_K, Q4_K, Q3_K and Q2_K lose is what
they lose of that. The records go where those of every command go, the picture to ``bench_results/pictures/quality.png``.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tempfile

import click
from perplexity_parity import quantize

from harness.sources.model_file import default_model

#: llama.h's LLAMA_FTYPE of each.
FILE_TYPES = {"F16": 1, "Q8_0": 7, "Q5_K_M": 17, "Q4_K_M": 15, "Q3_K_M": 12, "Q2_K": 10}

PICTURE = pathlib.Path("bench_results") / "pictures" / "quality.png"


@click.command()
@click.option("--chunks", "n_chunks", default=24, type=click.IntRange(1), help="Windows of 256 tokens. [24]")
@click.option("--speed/--no-speed", "with_speed", default=True, help="Time each too. [on]")
@click.option("--plot", default=str(PICTURE), help="The picture.")
def main(n_chunks: int, with_speed: bool, plot: str) -> None:
    """Make the files, and have harness quality read the text that comes with it through all of them."""
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        files = {name: pathlib.Path(folder) / f"SmolLM2-135M.{name}.gguf" for name in FILE_TYPES}
        for name, file_type in FILE_TYPES.items():
            quantize(default_model(), files[name], file_type)
        base, *others = files.values()
        models = [word for path in others for word in ("-m", str(path))]
        options = ["-c", "256", "--chunks", str(n_chunks), "--plot", plot, *(["--speed"] if with_speed else [])]
        done = subprocess.run([sys.executable, "-m", "harness", "quality", *models, "--base", str(base), *options])
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
