"""Run harness and llama-bench in pairs until it is known whether they are equal (started by scripts/parity)."""

from __future__ import annotations

import contextlib
import json
import math
import pathlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import click
from tqdm import tqdm

from harness import spec
from harness.cli.options import MAX_S, Number, seed_option
from harness.cli.progress import displayed
from harness.errors import HarnessError
from harness.evidence.medians import median
from harness.host.cpu import choose_threads
from harness.host.machine import describe_machine, machine_slug
from harness.records.cells import Machine
from harness.records.journal import Journal, utc_now
from harness.records.parity import Parity, open_test
from harness.runs.asking import find_file
from harness.views.formats import render
from harness.views.parity import describe_parity, name_test

#: The goal of the project: the ratio is never below this.
FLOOR = 0.99

Rows = dict[str, dict[str, Any]]


def run_program(command: list[str]) -> str:
    """Run one program and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 5):  # 5: measured on a busy machine; the pairs and their interval deal with that
        raise click.ClickException(f"{pathlib.Path(command[0]).name} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def run(command: list[str]) -> Rows:
    """Run one tool and return its rows by test."""
    return {spec.name_test(row["n_prompt"], row["n_gen"]): row for row in json.loads(run_program(command))}


def compare(
    test: str, pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]], model: str, machine: Machine, **drawn: Any
) -> Parity:
    """The record of one test: raw samples of both tools, pair by pair; drawn is what a sequential comparison has besides."""
    first = pairs[0][0]
    return Parity(
        utc_now(), machine, pathlib.Path(model).name, test, first["n_prompt"] + first["n_gen"],
        tuple(tuple(ours["samples_ns"]) for ours, _ in pairs), tuple(tuple(theirs["samples_ns"]) for _, theirs in pairs),
        first["model_type"], first["n_threads"], first["build_commit"], n_depth=first["n_depth"], **drawn,
    )  # fmt: skip


@dataclass(slots=True)
class Found:
    """The pairs of one test so far, and who went first in each."""

    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    harness_first: list[bool] = field(default_factory=list)


@dataclass(frozen=True)
class Tools:
    """What both are asked: the options that they share, and how each is started."""

    llama_bench: str
    shared: Sequence[str]
    lengths: dict[str, tuple[int, int]]  #: prompt and generated tokens of each test

    def measure(self, tests: Sequence[str], *, harness_first: bool) -> tuple[Rows, Rows]:
        """One pair: the rows of harness, and of llama-bench, each from a process of its own that measures some of the tests."""
        n_prompt, n_gen = (max(self.lengths[test][place] for test in tests) for place in (0, 1))
        options = [*self.shared, "-p", str(n_prompt), "-n", str(n_gen), "-o", "json"]
        commands = [
            [sys.executable, "-m", "harness", "pp-tg", *options, "--no-interleave", "--warmup", "--no-save"],
            [self.llama_bench, *options],
        ]
        if harness_first:
            return run(commands[0]), run(commands[1])
        theirs = run(commands[1])
        return run(commands[0]), theirs


def decide(tools: Tools, margin: float, max_time_s: float, seed: int) -> dict[str, Found]:
    """Measure pairs until each test's answer is known or the time is up; a test whose answer is known is left out of further pairs.

    Ctrl-C ends it: what is measured counts.
    """
    chance, start, longest = random.Random(seed), time.monotonic(), 0.0
    tests, found = {name: open_test(margin) for name in tools.lengths}, {name: Found() for name in tools.lengths}
    with (
        contextlib.suppress(KeyboardInterrupt),
        tqdm(desc="pairs", unit=" pairs", disable=not sys.stderr.isatty()) as bar,
    ):
        while left := [name for name, test in tests.items() if not test.is_over]:
            began = time.monotonic()
            if longest and began - start + longest > max_time_s:
                break
            harness_first = chance.random() < 0.5
            ours, theirs = tools.measure(left, harness_first=harness_first)
            for name in left:
                found[name].pairs.append((ours[name], theirs[name]))
                found[name].harness_first.append(harness_first)
                tests[name].add(math.log(median(theirs[name]["samples_ns"]) / median(ours[name]["samples_ns"])))
            longest = max(longest, time.monotonic() - began)
            bar.update()
    return {name: item for name, item in found.items() if item.pairs}


@contextlib.contextmanager
def _as_one_sentence() -> Iterator[None]:
    try:
        yield
    except HarnessError as error:
        raise click.UsageError(str(error)) from None


@click.command()
@click.option("--llama-bench", hidden=True)
@click.option("--only-check", is_flag=True, hidden=True, help="End once the options are read.")
@click.option(
    "-m",
    "--gguf",
    "--model",
    "model",
    default=None,
    help="A file, or any other reference to a model. [the embedded model]",
)
@click.option("-p", "n_prompt", default=512, type=click.IntRange(0), help="Prompt tokens; 0 for none. [512]")
@click.option("-n", "n_gen", default=128, type=click.IntRange(0), help="Generated tokens; 0 for none. [128]")
@click.option("-d", "n_depth", default=0, type=click.IntRange(0), help="Tokens in the cache before. [0]")
@click.option("-r", "repetitions", default=3, type=click.IntRange(1), help="Repetitions in each run. [3]")
@click.option("-t", "n_threads", default=None, type=click.IntRange(1), help="Threads. [physical cores]")
@click.option("--margin", default=0.01, type=Number(0.001, 1), help="The share within which both are equal. [0.01]")
@click.option(
    "--max-time", "max_time_s", default=480.0, type=Number(0, MAX_S), help="Seconds after which no pair is begun. [480]"
)
@seed_option
@click.option("--results", default="bench_results", help="Folder for the result. [bench_results]")
def main(model: str | None, llama_bench: str | None, only_check: bool, **options: Any) -> None:
    """Run both tools in pairs, in random order within each, with the same threads, batches, tests and repetitions, until it is known
    whether they are equal within the margin: at 8 to 320 pairs, or when the time is up. A ratio below 0.99 ends with 1."""
    lengths = {f"pp{options['n_prompt']}": (options["n_prompt"], 0), f"tg{options['n_gen']}": (0, options["n_gen"])}
    lengths = {name: length for name, length in lengths.items() if any(length)}
    if not lengths:
        raise click.UsageError("Nothing is to be measured: give -p or -n above 0.")
    with _as_one_sentence(), displayed() as on_event:
        path = str(find_file(model, on_event))
    if only_check or llama_bench is None:
        return
    shared = ["-m", path, "-r", str(options["repetitions"]), "-d", str(options["n_depth"])]
    shared += ["-t", str(options["n_threads"] or choose_threads().count)]
    found = decide(Tools(llama_bench, shared, lengths), options["margin"], options["max_time_s"], options["seed"])
    if not found:
        sys.exit(130)
    machine = describe_machine()
    records = [
        compare(test, one.pairs, path, machine, margin=options["margin"], harness_first=tuple(one.harness_first))
        for test, one in found.items()
    ]
    sys.exit(report(records, pathlib.Path(options["results"])))


def report(records: Sequence[Parity], results: pathlib.Path) -> int:
    """Print what was found and file it; 1 where harness is below the floor."""
    for record in records:
        click.echo(f"{name_test(record)}: ratios " + " ".join(f"{ratio:.3f}" for ratio in record.ratios))
    click.echo("\n" + render(describe_parity(records), "table"))
    machine = records[0].machine
    with Journal(results / machine_slug(machine), "parity") as journal:
        for record in records:
            journal.append(record)
    click.echo(f"kept in {journal.path}", err=True)
    below = [record for record in records if median(record.ratios) < FLOOR]
    for record in below:
        click.echo(f"parity: {name_test(record)} is below llama-bench: ratio {median(record.ratios):.4f}", err=True)
    return 1 if below else 0


if __name__ == "__main__":
    main()
