"""Write the tables of docs/trust.md from what the scripts left in bench_results: the figures, and the verdicts of scripts/parity."""

from __future__ import annotations

import pathlib

from figure_tables import NOT_MEASURED, fill, list_figures, write_table
from figures import FOLDER, GOALS, RESULTS, ROOT, read
from parity import FLOOR

from harness.evidence.medians import median
from harness.records.journal import read_lines
from harness.records.journal_files import find_journals
from harness.records.parity import Parity
from harness.views.parity import describe_equality, name_test

PAGE = ROOT / "docs" / "trust.md"


def list_parity(results: pathlib.Path) -> str:
    """The table of every run of scripts/parity that decided by its pairs, in their order."""
    lines = read_lines(find_journals((), results), _complain, ("parity",))
    runs = [line.content for line in lines if isinstance(line.content, Parity) and line.content.margin is not None]
    found = [run for run in runs if run.reference == "llama-bench"]
    rows = [
        (
            one.model,
            name_test(one),
            f"{one.n_threads}",
            describe_equality(one),
            "yes" if is_goal_met(one) else "no",
            one.time_utc[:10],
        )
        for one in found
    ]
    if not rows:
        return NOT_MEASURED.capitalize() + "."
    return write_table(("model", "test", "threads", "verdict", "goal met", "day"), rows)


def is_goal_met(parity: Parity) -> bool:
    """The median ratio is at least 0.99, and its interval inside ± 2 %."""
    ratio = test.ratio if (test := parity.weighed) else None
    if ratio is None or (ends := ratio.ends) is None:
        return False
    return median(parity.ratios) >= FLOOR and ends[0] >= 1 / 1.02 and ends[1] <= 1.02


def _complain(sentence: str) -> None:
    raise ValueError(sentence)


def render(text: str, results: pathlib.Path = RESULTS) -> str:
    """The page with its tables."""
    tables = {"figures": list_figures(read(results / FOLDER.name), GOALS), "parity": list_parity(results)}
    return fill(text, tables)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
