"""Run harness and llama-bench alternately and compare them pair by pair (started by scripts/parity)."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import click
from tqdm import tqdm

from harness.host.cpu import choose_threads
from harness.host.machine import describe_machine, machine_slug
from harness.records.statistics import Interval, median, median_interval
from harness.sources.model_file import default_model
from harness.views import page

#: The goal of the project: no slower than llama-bench within the interval, and never below this.
FLOOR = 0.98


def run(command: list[str]) -> dict[str, dict[str, Any]]:
    """Run one tool and return its rows by test."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 5):  # 5: measured on a busy machine; the pairs and their interval deal with that
        raise click.ClickException(f"{pathlib.Path(command[0]).name} failed:\n{done.stderr[-2000:]}")
    return {f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}": row for row in json.loads(done.stdout)}


def rate(row: dict[str, Any]) -> float:
    """Tokens per second by the median repetition, for both tools alike."""
    return (row["n_prompt"] + row["n_gen"]) * 1e9 / median(row["samples_ns"])


def compare(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Summarise one test: both medians over all pairs, the ratio of each pair, its median and interval."""
    ratios = [rate(ours) / rate(theirs) for ours, theirs in pairs]
    interval = median_interval(ratios) or Interval(float("nan"), float("nan"), 0.0)
    return {
        "harness_tok_per_s": median([rate(ours) for ours, _ in pairs]),
        "llama_bench_tok_per_s": median([rate(theirs) for _, theirs in pairs]),
        "ratio_median": median(ratios),
        "ratio_low": interval.low,
        "ratio_high": interval.high,
        "ratio_level": interval.level,
        "ratios": ratios,
        "harness_samples_ns": [ours["samples_ns"] for ours, _ in pairs],
        "llama_bench_samples_ns": [theirs["samples_ns"] for _, theirs in pairs],
    }


@click.command()
@click.option("--llama-bench", hidden=True)
@click.option("--only-check", is_flag=True, hidden=True, help="End once the options are read.")
@click.option("-m", "--gguf", "--model", "model", default=None, help="GGUF file. [the embedded model]")
@click.option("--pairs", default=12, type=click.IntRange(6), help="Pairs of runs. [12]")
@click.option("-p", "n_prompt", default=512, help="Prompt tokens. [512]")
@click.option("-n", "n_gen", default=128, help="Generated tokens. [128]")
@click.option("-r", "repetitions", default=3, help="Repetitions in each run. [3]")
@click.option("-t", "n_threads", default=None, type=int, help="Threads. [physical cores]")
@click.option("--results", default="bench_results", help="Folder for the result. [bench_results]")
def main(
    llama_bench: str,
    only_check: bool,
    model: str | None,
    pairs: int,
    n_prompt: int,
    n_gen: int,
    repetitions: int,
    n_threads: int | None,
    results: str,
) -> None:
    """Run both tools alternately with the same threads, batches and tests, and print the ratio of their medians."""
    path = model or str(default_model())
    if not os.path.isfile(path):
        raise click.UsageError(f"There is no model {path}.")
    if only_check or llama_bench is None:
        return
    shared = ["-m", path, "-p", str(n_prompt), "-n", str(n_gen), "-r", str(repetitions)]
    shared += ["-t", str(n_threads or choose_threads().count), "-o", "json"]
    tools = {
        "harness": [sys.executable, "-m", "harness", "pp-tg", *shared, "--no-save"],
        "llama-bench": [llama_bench, *shared],
    }
    runs: dict[str, list[dict[str, dict[str, Any]]]] = {name: [] for name in tools}
    for pair in tqdm(range(pairs), desc="pairs", disable=not sys.stderr.isatty()):
        # Who goes first alternates, so that a drift of the machine favours nobody.
        for name in list(tools) if pair % 2 else reversed(tools):
            runs[name].append(run(tools[name]))
    report(path, repetitions, runs, pathlib.Path(results))


def report(
    path: str, repetitions: int, runs: dict[str, list[dict[str, dict[str, Any]]]], results: pathlib.Path
) -> None:
    """Print the comparison, ratio by ratio, and file it."""
    machine = describe_machine()
    now = datetime.datetime.now(datetime.timezone.utc)
    rows, lines = [], []
    for test in runs["harness"][0]:
        pairs = [(ours[test], theirs[test]) for ours, theirs in zip(runs["harness"], runs["llama-bench"], strict=True)]
        result = compare(pairs)
        first = pairs[0][0]
        lines.append(
            {
                "schema": 1, "kind": "parity", "time_utc": now.strftime("%Y-%m-%dT%H:%M:%SZ"), "test": test,
                "model": os.path.basename(path), "model_type": first["model_type"], "n_threads": first["n_threads"],
                "repetitions": repetitions, "build_commit": first["build_commit"], "machine": first["machine"], **result,
            }
        )  # fmt: skip
        rows.append(
            [
                test, f"{result['harness_tok_per_s']:.2f}", f"{result['llama_bench_tok_per_s']:.2f}",
                f"{result['ratio_median']:.4f}", f"{result['ratio_low']:.4f} – {result['ratio_high']:.4f}",
            ]
        )  # fmt: skip
        click.echo(f"{test}: ratios " + " ".join(f"{ratio:.3f}" for ratio in result["ratios"]))
    first = runs["harness"][0][next(iter(runs["harness"][0]))]
    heading = ["test", "harness t/s", "llama-bench t/s", "ratio", "95 % interval"]
    table = page.table([dict(zip(heading, row, strict=True)) for row in rows], "l", style="github")
    click.echo(
        f"\n{first['model_type']}, {first['n_threads']} threads, {machine.cpu}, {len(runs['harness'])} pairs\n\n{table}\n"
    )
    folder = results / machine_slug(machine)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{now.strftime('%Y%m%dT%H%M%SZ')}-parity.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    click.echo(f"kept in {file}", err=True)
    for line in lines:
        if line["ratio_high"] < 1 or line["ratio_median"] < FLOOR:
            click.echo(f"parity: {line['test']} is below llama-bench: ratio {line['ratio_median']:.4f}", err=True)


if __name__ == "__main__":
    main()
