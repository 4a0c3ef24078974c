"""Run harness and llama-bench alternately and compare them pair by pair (started by scripts/parity)."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import click
from tqdm import tqdm

from harness.evidence.medians import median
from harness.host.cpu import choose_threads
from harness.host.machine import describe_machine, machine_slug
from harness.records.cells import Machine
from harness.records.journal import Journal, utc_now
from harness.records.parity import Parity
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


def compare(test: str, pairs: list[tuple[dict[str, Any], dict[str, Any]]], model: str, machine: Machine) -> Parity:
    """The record of one test: raw samples of both tools, pair by pair."""
    first = pairs[0][0]
    return Parity(
        utc_now(), machine, os.path.basename(model), test, first["n_prompt"] + first["n_gen"],
        tuple(tuple(ours["samples_ns"]) for ours, _ in pairs), tuple(tuple(theirs["samples_ns"]) for _, theirs in pairs),
        first["model_type"], first["n_threads"], first["build_commit"],
    )  # fmt: skip


def make_row(one: Parity, digits: int = 4) -> list[str]:
    """A test, both medians, the median ratio and its interval, written out."""
    figures = (one.harness_tok_per_s, one.llama_bench_tok_per_s)
    interval = f"{found.low:.{digits}f} – {found.high:.{digits}f}" if (found := one.interval) else ""
    return [one.test, *(f"{figure:.2f}" for figure in figures), f"{median(one.ratios):.{digits}f}", interval]


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
    report(path, runs, pathlib.Path(results))


def report(path: str, runs: dict[str, list[dict[str, dict[str, Any]]]], results: pathlib.Path) -> None:
    """Print the comparison, ratio by ratio, and file it."""
    machine = describe_machine()
    records = []
    for test in runs["harness"][0]:
        pairs = [(ours[test], theirs[test]) for ours, theirs in zip(runs["harness"], runs["llama-bench"], strict=True)]
        records.append(compare(test, pairs, path, machine))
        click.echo(f"{test}: ratios " + " ".join(f"{ratio:.3f}" for ratio in records[-1].ratios))
    first = records[0]
    click.echo(f"\n{first.model_type}, {first.n_threads} threads, {machine.cpu}, {len(first.ratios)} pairs\n")
    heads = ("test", "harness t/s", "llama-bench t/s", "ratio", "95 % interval")
    click.echo(page.markdown(heads, [make_row(one) for one in records], "l" * len(heads)) + "\n")
    with Journal(results / machine_slug(machine), "parity") as journal:
        for record in records:
            journal.append(record)
    click.echo(f"kept in {journal.path}", err=True)
    for record in records:
        if median(record.ratios) < FLOOR or ((found := record.interval) and found.high < 1):
            click.echo(f"parity: {record.test} is below llama-bench: ratio {median(record.ratios):.4f}", err=True)


if __name__ == "__main__":
    main()
