"""Run harness and llama-batched-bench in pairs until it is known whether they are equal (started by scripts/batched-parity)."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
from parity import FLOOR, Found, Rows, decide, run_program

from harness.cli.options import MAX_S, Number, seed_option
from harness.cli.progress import displayed
from harness.errors import HarnessError
from harness.evidence.medians import median
from harness.host.cpu import choose_threads
from harness.host.machine import describe_machine, machine_slug
from harness.parsers import parse_range
from harness.records.cells import Machine
from harness.records.journal import Journal, utc_now
from harness.records.parity import Parity
from harness.runs.asking import find_file
from harness.spec import RunSpec
from harness.units import NS_PER_S
from harness.views.formats import render
from harness.views.parity import describe_parity, name_test

#: The two tests that a run of both programs is of.
PROMPTS, GENERATION = "pp", "tg"


@dataclass(frozen=True)
class Tools:
    """What both are asked: so many sequences, each with a prompt and then tokens."""

    program: str
    cell: RunSpec
    repetitions: int
    lengths: tuple[str, ...] = (PROMPTS, GENERATION)

    @property
    def commands(self) -> tuple[list[str], list[str]]:
        """How each is started: harness with a whole untimed repetition before, llama-batched-bench with one more that is left out."""
        cell = self.cell
        pair, shared = f"{cell.n_prompt},{cell.n_gen}", ["-pps"] * cell.is_prompt_shared
        options = ["-m", cell.model, "-t", str(cell.n_threads), "-b", str(cell.n_batch), "-ub", str(cell.n_ubatch)]
        ours = [
            "-p",
            "0",
            "-n",
            "0",
            "-pg",
            pair,
            "-np",
            str(cell.n_parallel),
            "-r",
            str(self.repetitions),
            "-o",
            "json",
        ]
        prompts = ",".join([str(cell.n_prompt)] * (self.repetitions + 1))
        theirs = ["-npp", prompts, "-ntg", str(cell.n_gen), "-npl", str(cell.n_parallel), "-c", str(cell.n_ctx)]
        return (
            [
                sys.executable,
                "-m",
                "harness",
                "pp-tg",
                *options,
                *ours,
                *shared,
                "--no-interleave",
                "--warmup",
                "--no-save",
            ],
            [self.program, *options, *theirs, *shared, "--output-format", "jsonl"],
        )

    def measure(self, _tests: Sequence[str], *, harness_first: bool) -> tuple[Rows, Rows]:
        """One pair: both tests of harness, and of llama-batched-bench, each from a process of its own."""
        ours, theirs = self.commands
        if harness_first:
            return read_harness(run_program(ours)), read_batched_bench(run_program(theirs))
        found = read_batched_bench(run_program(theirs))
        return read_harness(run_program(ours)), found


def read_harness(text: str) -> Rows:
    """Prompts and generation apart, of the one test that has both."""
    [row] = json.loads(text)
    samples = {PROMPTS: row["samples_prompt_ns"], GENERATION: [sum(tokens) for tokens in row["samples_token_ns"]]}
    about = {name: row[name] for name in ("model_type", "build_commit")}
    return {test: {**about, "samples_ns": found} for test, found in samples.items()}


def read_batched_bench(text: str) -> Rows:
    """The rows of its JSONL, without the first one, which warmed up."""
    rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")][1:]
    return {
        test: {"samples_ns": [max(round(row[name] * NS_PER_S), 1) for row in rows]}
        for test, name in ((PROMPTS, "t_pp"), (GENERATION, "t_tg"))
    }


def compare(cell: RunSpec, test: str, found: Found, machine: Machine, margin: float) -> Parity:
    """The record of one test: raw samples of both programs, pair by pair."""
    first: dict[str, Any] = found.pairs[0][0]
    n_prompts = 1 if cell.is_prompt_shared else cell.n_parallel
    is_tg = test == GENERATION
    return Parity(
        utc_now(), machine, pathlib.Path(cell.model).name, f"tg{cell.n_gen}" if is_tg else f"pp{cell.n_prompt}",
        cell.n_parallel * cell.n_gen if is_tg else n_prompts * cell.n_prompt,
        tuple(tuple(ours["samples_ns"]) for ours, _ in found.pairs), tuple(tuple(theirs["samples_ns"]) for _, theirs in found.pairs),
        first["model_type"], cell.n_threads, first["build_commit"], n_depth=cell.n_prompt if is_tg else 0, margin=margin,
        harness_first=tuple(found.harness_first), reference="llama-batched-bench", n_parallel=cell.n_parallel,
        is_prompt_shared=cell.is_prompt_shared,
    )  # fmt: skip


def plan(model: str, n_parallel: str, n_prompt: int, n_gen: int, n_threads: int) -> list[RunSpec]:
    """Each number of sequences with prompts of their own, and the first of several with a shared one."""
    counts = parse_range(n_parallel)
    cells = [RunSpec(model, n_prompt=n_prompt, n_gen=n_gen, n_parallel=count, n_threads=n_threads) for count in counts]
    shared = [cell for cell in cells if cell.n_parallel > 1][:1]
    return cells + [
        RunSpec(
            model,
            n_prompt=n_prompt,
            n_gen=n_gen,
            n_parallel=cell.n_parallel,
            n_threads=n_threads,
            is_prompt_shared=True,
        )
        for cell in shared
    ]


@click.command()
@click.option("--llama-batched-bench", "program", hidden=True)
@click.option("--only-check", is_flag=True, hidden=True, help="End once the options are read.")
@click.option(
    "-m", "--gguf", "--model", "model", default=None, help="A file, or any other reference. [the embedded model]"
)
@click.option("-p", "n_prompt", default=128, type=click.IntRange(1), help="Prompt tokens of each sequence. [128]")
@click.option("-n", "n_gen", default=32, type=click.IntRange(1), help="Generated tokens of each sequence. [32]")
@click.option("-np", "n_parallel", default="4,8", help="Sequences at once; of the first, a shared prompt too. [4,8]")
@click.option("-r", "repetitions", default=2, type=click.IntRange(1), help="Repetitions in each run. [2]")
@click.option("-t", "n_threads", default=None, type=click.IntRange(1), help="Threads. [physical cores]")
@click.option("--margin", default=0.03, type=Number(0.001, 1), help="The share within which both are equal. [0.03]")
@click.option("--max-time", "max_time_s", default=330.0, type=Number(0, MAX_S), help="Seconds for all of it. [330]")
@seed_option
@click.option("--results", default="bench_results", help="Folder for the result. [bench_results]")
def main(program: str | None, model: str | None, only_check: bool, n_parallel: str, **options: Any) -> None:
    """Run both programs in pairs, in random order within each, with the same threads, batches and tests, until it is known whether
    they are equal within the margin. Each number of sequences is kept as soon as it is known. A ratio below 0.99 ends with 1."""
    try:
        with displayed() as on_event:
            path = str(find_file(model, on_event))
        n_threads = options["n_threads"] or choose_threads().count
        cells = plan(path, n_parallel, options["n_prompt"], options["n_gen"], n_threads)
    except (HarnessError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    if only_check or program is None:
        return
    machine, records = describe_machine(), []
    with Journal(pathlib.Path(options["results"]) / machine_slug(machine), "batched-parity") as journal:
        for cell in cells:
            tools: Any = Tools(program, cell, options["repetitions"])
            found = decide(tools, options["margin"], options["max_time_s"] / len(cells), options["seed"])
            for test, pairs in found.items():
                records.append(compare(cell, test, pairs, machine, options["margin"]))
                journal.append(records[-1])
                click.echo(f"{name_test(records[-1])}: ratios " + " ".join(f"{r:.3f}" for r in records[-1].ratios))
            if not found:  # Ctrl-C
                break
    sys.exit(report(records, journal.path))


def report(records: Sequence[Parity], path: pathlib.Path | None) -> int:
    """Print what was found; 1 where harness is below the floor, 130 where nothing was measured."""
    if not records:
        return 130
    click.echo("\n" + render(describe_parity(records), "table"))
    click.echo(f"kept in {path}", err=True)
    below = [record for record in records if median(record.ratios) < FLOOR]
    for record in below:
        click.echo(f"{name_test(record)} is below {record.reference}: ratio {median(record.ratios):.4f}", err=True)
    return 1 if below else 0


if __name__ == "__main__":
    main()
