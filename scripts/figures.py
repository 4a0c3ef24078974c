"""What the proofs of docs/trust.md and docs/reliability.md came to: every promised figure, and how scripts keep what they found.

A script hands `keep` its figures by the names of `GOALS`, with the command that made them and whatever else it saw; that becomes
``bench_results/PAGE/NAME.json``, which ends so and not in .jsonl because it is no journal. `scripts/trust_docs.py` and
`scripts/reliability_docs.py` write the pages' tables from these files.
"""

from __future__ import annotations

import json
import math
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.codec import UtcTime, decode, encode
from harness.records.cells import Machine
from harness.records.journal import utc_now

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "bench_results"
FOLDER = RESULTS / "trust"
RELIABILITY_FOLDER = RESULTS / "reliability"


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that is promised: what it is, in which unit (share, s, MiB, count, ratio), and its bound where there is one."""

    about: str
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    def is_met(self, value: float) -> bool | None:
        """Whether a value keeps within the bound; None: there is none."""
        if self.at_most is None and self.at_least is None:
            return None
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)


#: Every figure of the table, in its order. A new one is one line here.
GOALS = {
    # scripts/trust_simulation.py: of the simulated distributions the worst one
    "coverage.median_interval": Goal("how often a median's 95 % interval holds it, simulated", "share", at_least=0.95),
    "coverage.ratio_interval": Goal("how often a ratio's 95 % interval holds it, simulated", "share", at_least=0.95),
    "false_alarms.compare": Goal("equal samples between which `compare` sees a difference, simulated", "share", at_most=0.05),
    "false_alarms.sequential": Goal("equal settings between which the sequential test sees one, simulated", "share", at_most=0.05),
    "false_alarms.change_points": Goal("steady histories in which `history` finds a change, simulated", "share", at_most=0.05),
    # scripts/ab_trials.py
    "ab.false_alarms": Goal("real runs of `harness ab` with A against A that see a difference", "share", at_most=0.05),
    "ab.found_3_percent": Goal("runs that find an injected slow-down of 3 %", "share", at_least=0.9),
    "ab.found_1_percent": Goal("runs that find an injected slow-down of 1 %", "share", at_least=0.6),
    "ab.median_s_of_aa": Goal("time of a run with A against A, the median", "s"),
    "ab.median_s_of_3_percent": Goal("time until 3 % is found, the median", "s"),
    "ab.median_s_of_1_percent": Goal("time until 1 % is found, the median", "s"),
    # scripts/disturbed.py
    "disturbed.not_trusted": Goal("runs beside busy loops that are not to be trusted (exit 5)", "share", at_least=1),
    "disturbed.trusted_alone": Goal("the same by themselves, that are trusted", "share"),
    # scripts/time_to_precision.py
    "precision.auto_s": Goal("time of `harness pp-tg` (`-r auto`), from start to end, the median", "s"),
    "precision.fixed_s": Goal("time of `harness pp-tg -r 10 --no-interleave --warmup`, as before", "s"),
    "precision.llama_bench_s": Goal("time of `llama-bench`, five repetitions", "s"),
    "precision.auto_to_fixed": Goal("time of `-r auto` over that of `-r 10`", "ratio", at_most=1),
    "precision.auto_to_llama_bench": Goal("time of `-r auto` over that of `llama-bench`", "ratio", at_most=1),
    "precision.auto_reached": Goal("tests within ± 2 % after `-r auto`", "share"),
    "precision.fixed_reached": Goal("tests within ± 2 % after `-r 10`", "share"),
    "precision.llama_bench_reached": Goal("tests within ± 2 % after llama-bench's five (mean, Student's t)", "share"),
}  # fmt: skip

#: The same of docs/reliability.md. Those of `scripts/proven_by_tests.py` count the cases of the test files that it names.
RELIABILITY = {
    # scripts/fuzz-header
    "headers.mutations": Goal("spoilt headers through the reader, inspect, predict and overhead", "count", at_least=100_000),
    "headers.wrong": Goal("of them, answered by anything but a result or one sentence", "count", at_most=0),
    "headers.slowest_s": Goal("CPU time of the slowest of them", "s", at_most=1),
    "headers.peak_mib": Goal("memory that the hungriest of them took", "MiB", at_most=100),
    "headers.worker_mutations": Goal("spoilt files through the worker and llama.cpp itself", "count", at_least=1_000),
    "headers.worker_wrong": Goal("of them, not answered by a result or one sentence", "count", at_most=0),
    # scripts/kill_sweeps.py
    "kills.sweeps": Goal("sweeps killed at a random moment: parent, worker or both, by any signal", "count", at_least=100),
    "kills.cells_lost": Goal("finished cells that were lost by it", "count", at_most=0),
    "kills.wrong_resumes": Goal("resumed sweeps that measured a cell again or left one out", "count", at_most=0),
    "kills.orphans": Goal("processes left behind", "count", at_most=0),
    "kills.wrong": Goal("kills of any command that measures, after which anything at all was not as it should be", "count", at_most=0),
    # scripts/proven_by_tests.py
    "storage.wrong": Goal("full disk, read-only folder, two writers, clock set back: what lost a record", "count", at_most=0),
    "pipes.wrong": Goal("commands that `| head -1` makes print a traceback or end wrongly", "count", at_most=0),
    "workers.wrong": Goal("ways for a worker to end that give anything but one failure", "count", at_most=0),
    "network.wrong": Goal("faults of a hub by stages, not answered by one sentence in time", "count", at_most=0),
    "rpc.wrong": Goal("attacks on an RPC server after which it does not serve, or does not say why", "count", at_most=0),
    "text.wrong": Goal("places in which strangers' text is not neutral", "count", at_most=0),
    "privacy.wrong": Goal("outputs that tell a planted mark", "count", at_most=0),
    "compatibility.wrong": Goal("other versions, builds and systems that get a wrong figure or a traceback", "count", at_most=0),
    "release.wrong": Goal("what a wheel, an sdist or a promise is said to hold, and does not", "count", at_most=0),
    # scripts/rpc_attacks.py
    "rpc.back_s": Goal("time until an attacked RPC server serves again, the longest", "s", at_most=1),
    # scripts/long_sweep.py
    "scale.cells": Goal("cells of one sweep", "count", at_least=2_000),
    "scale.parent_peak_mib": Goal("the parent's memory in it, at most", "MiB", at_most=100),
    "scale.parent_growth_mib": Goal("of that, what the second half of the cells adds", "MiB"),
    # scripts/scale.py
    "scale.records": Goal("records read by `table`, `compare`, `history` and `report`", "count", at_least=100_000),
    "scale.table_s": Goal("CPU time of `table` over them", "s", at_most=5),
    "scale.compare_s": Goal("CPU time of `compare`", "s", at_most=5),
    "scale.history_s": Goal("CPU time of `history`", "s", at_most=5),
    "scale.report_s": Goal("CPU time of `report`", "s", at_most=5),
    "scale.peak_mib": Goal("memory of the hungriest of the four", "MiB", at_most=500),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: a share of 0…1, seconds, a ratio or a count; its 95 % interval, and of how many it is."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """What one script found, for either page. machine is None for simulations, details are whatever else the script saw."""

    command: str
    time_utc: UtcTime
    figures: Mapping[str, Figure]
    machine: Machine | None = None
    details: Any = None

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.figures) - set(GOALS) - set(RELIABILITY)):
            raise ValueError(f"scripts/figures.py has no figure {', '.join(unknown)}")


def share_of(n_hits: int, n: int) -> Figure:
    """A share with its 95 % interval.

    Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika 26
    (1934): quantiles of the beta distribution; its coverage is never below its claim.
    """
    from scipy.stats import beta

    low = float(beta.ppf(0.025, n_hits, n - n_hits + 1)) if n_hits else 0.0
    high = float(beta.ppf(0.975, n_hits + 1, n - n_hits)) if n_hits < n else 1.0
    return Figure(n_hits / n, low, high, n)


def keep(
    name: str,
    figures: Mapping[str, Figure],
    details: Any = None,
    machine: Machine | None = None,
    folder: pathlib.Path = FOLDER,
    command: Sequence[str] | None = None,
) -> pathlib.Path:
    """Write a script's results to ``folder/name.json`` and say where; command is the one that runs here unless it is given.

    A script whose parts are run one by one keeps each in a file of its own.
    """
    results = Results(shlex.join(command or _this_command()), utc_now(), figures, machine, details)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(_finite(encode(results)), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _this_command() -> list[str]:
    script = pathlib.Path(sys.argv[0]).resolve()
    return [script.relative_to(ROOT).as_posix() if script.is_relative_to(ROOT) else script.name, *sys.argv[1:]]


def _finite(value: Any) -> Any:
    """JSON has no infinities and no not-a-number: they become null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read(folder: pathlib.Path = FOLDER) -> dict[str, Results]:
    """Everything that is kept, by the name of its file."""
    return {
        path.stem: decode(Results, json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(folder.glob("*.json"))
    }
