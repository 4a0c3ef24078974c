"""What the proofs of docs/trust.md came to: every figure that they promise, and how the scripts keep what they found.

A script hands `keep` its figures by the names of `GOALS`, with the command that made them and whatever else it saw; that becomes
``bench_results/trust/NAME.json``, which ends so and not in .jsonl because it is no journal. `scripts/trust_docs.py` writes the page's
table from these files.
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
FOLDER = ROOT / "bench_results" / "trust"


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that is promised: what it is, in which unit (share, s, count, ratio), and its bound where there is one."""

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


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: a share of 0…1, seconds, a ratio or a count; its 95 % interval, and of how many it is."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """What one script found. machine is None for simulations, details are whatever else the script saw."""

    command: str
    time_utc: UtcTime
    figures: Mapping[str, Figure]
    machine: Machine | None = None
    details: Any = None

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.figures) - set(GOALS)):
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
