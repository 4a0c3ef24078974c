"""What reading a hundred thousand records takes: CPU seconds and peak memory of `table`, `compare`, `history` and `report`.

    .venv/bin/python scripts/scale.py [--records 100000] [--shape same|different|files] [--only COMMAND] [--no-keep]

A journal is made of cells as `harness pp-tg` keeps them today, pp512 and tg128 by turns on several days and machines, six repetitions
each with what the operating system counted of it and the time of every token; a line has 5 to 12 kB. Each command runs once, in a
process of its own; CPU time is what the kernel counted, so that others at work matter little. Nothing is measured: durations are drawn.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from figures import RELIABILITY_FOLDER, ROOT, Figure, keep

SECONDS, MIB = 5.0, 500.0  #: what is aimed at

#: The same few cells measured again and again, in one file; each line another cell; the same in files of a thousand lines.
SHAPES = ("same", "different", "files")

#: The commands, with the journal in the place of {}; report's page goes nowhere.
COMMANDS = {
    "table": ("table", "--no-published", "{}"),
    "compare": ("compare", "{}", "{other}"),
    "history": ("history", "{}"),
    "report": ("report", "{}", "--no-predict", "-o", os.devnull),
}


def make_lines(n: int, shape: str) -> Iterator[dict[str, Any]]:
    """Lines of a journal: the cells of a real one with other times and durations. different: and each with settings of its own."""
    (path,) = (ROOT / "bench_results" / "amd-epyc-2c-24g").glob("20261128T144644Z-pp-tg.jsonl")
    cells = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    draw = random.Random(0)
    for number in range(n):
        cell = json.loads(json.dumps(cells[number % len(cells)]))
        cell["time_utc"] = f"2026-{1 + number // 28 % 12:02}-{1 + number % 28:02}T12:00:00Z"
        cell["machine"]["memory_bytes"] += 2**33 * (number // 2 % 4)
        cell["asked"]["n_threads"] = 1 + number // 8 % 4
        if shape == "different":
            make_different(cell, number)
        cell["samples"] = [sample for sample in cell["samples"] if not sample["is_warmup"]][:6]
        for sample in cell["samples"]:
            factor = draw.gauss(1.0, 0.005)
            sample["token_ns"] = [round(ns * factor) for ns in sample["token_ns"]]
            sample["duration_ns"] = sum(sample["token_ns"]) or round(sample["duration_ns"] * factor)
        yield cell


def make_different(cell: dict[str, Any], number: int) -> None:
    """Settings that no other cell has: of 50 models 2,000 cells each, by prompt or tokens, micro-batch, depth and threads."""
    asked, model = cell["asked"], number // 2 % 50
    asked["model"] = f"model-{model}.gguf"
    cell["model"].update(file_name=f"model-{model}.gguf", file_sha256=f"{model:064x}")
    cell["file_sha256"] = cell["model"]["file_sha256"]
    asked["n_prompt" if asked["n_prompt"] else "n_gen"] += number // 100 % 125
    asked["n_ubatch"] = 64 << number // 12_500 % 4
    asked["n_threads"] = 1 + number // 50_000
    cell["model"]["n_params"] += model


def write_journal(path: pathlib.Path, n: int, shape: str) -> None:
    """A journal of n lines; files: a folder of them, a thousand lines each."""
    lines = (json.dumps(line, separators=(",", ":")) + "\n" for line in make_lines(n, shape))
    if shape != "files":
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(lines)
        return
    path.mkdir()
    for number in range(-(-n // 1000)):
        name = f"2026{1 + number // 28 % 12:02}{1 + number % 28:02}T120000Z-pp-tg-{1 + number // 336}.jsonl"
        with open(path / name, "w", encoding="utf-8") as file:
            file.writelines(itertools.islice(lines, 1000))


def run(words: list[str]) -> dict[str, float | int]:
    """CPU seconds and peak MiB of a command, by what the kernel says of the child."""
    code = (
        "import os, resource, subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-m', 'harness', *sys.argv[1:]], stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss, done.returncode)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment, check=True
    )
    cpu_s, rss, status = done.stdout.split()
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return {"cpu_s": float(cpu_s), "peak_mib": int(rss) / scale, "exit_code": int(status)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--shape", choices=SHAPES, default=SHAPES[0], help="what of it is not the default is not kept")
    parser.add_argument("--no-keep", action="store_true", help="show the figures, and keep none")
    parser.add_argument("--only", choices=COMMANDS, action="append")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        one, other = pathlib.Path(folder) / "one.jsonl", pathlib.Path(folder) / "other.jsonl"
        write_journal(one, asked.records, asked.shape)
        write_journal(other, 200, SHAPES[0])
        size_mib = sum(path.stat().st_size for path in [one, *one.glob("*")]) / 2**20
        print(f"{asked.records} records, {size_mib:.0f} MiB; aimed at: {SECONDS:g} CPU-s, {MIB:g} MiB", flush=True)
        found = {}
        for name in asked.only or COMMANDS:
            words = [word.format(one, other=other) for word in COMMANDS[name]]
            found[name] = run(words)
            print(
                "{:8} {cpu_s:6.2f} CPU-s {peak_mib:6.0f} MiB  exit {exit_code}".format(name, **found[name]), flush=True
            )
    if not asked.no_keep and not asked.only:
        figures = {
            "scale.records": Figure(asked.records),
            **{f"scale.{name}_s": Figure(round(one["cpu_s"], 2)) for name, one in found.items()},
            "scale.peak_mib": Figure(round(max(one["peak_mib"] for one in found.values()))),
        }
        details = {"file_mib": round(size_mib), **found}
        print(keep("scale", figures, details, folder=RELIABILITY_FOLDER))


if __name__ == "__main__":
    main()
