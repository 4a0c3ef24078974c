"""Write the tables of docs/trust.md from what the scripts left in bench_results: the figures, and the verdicts of scripts/parity."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from figures import GOALS, ROOT, Figure, Goal, Results, read
from parity import FLOOR

from harness.evidence.medians import median
from harness.records.journal import find_journals, read_lines
from harness.records.parity import Parity
from harness.views.parity import describe_equality, name_test

RESULTS = ROOT / "bench_results"
PAGE = ROOT / "docs" / "trust.md"

#: What stands between these is written here; name is that of a table.
BEGIN, END = "<!-- {name} by scripts/trust_docs.py -->", "<!-- end of {name} -->"

NOT_MEASURED = "not measured yet"


def write_number(value: float, unit: str) -> str:
    """A figure with its unit."""
    match unit:
        case "share":
            return f"{value * 100:.3g} %"
        case "s":
            return f"{value:.3g} s"
        case _:
            return f"{value:.3g}"


def write_figure(figure: Figure, unit: str) -> str:
    """A figure, its interval and of how many it is."""
    text = write_number(figure.value, unit)
    if figure.low is not None and figure.high is not None:
        text += f" [{write_number(figure.low, unit)}, {write_number(figure.high, unit)}]"
    return text + (f" of {figure.n:,}" if figure.n is not None else "")


def write_bound(goal: Goal) -> str:
    """What is promised; empty where nothing is."""
    if goal.at_most is not None:
        return f"≤ {write_number(goal.at_most, goal.unit)}"
    return f"≥ {write_number(goal.at_least, goal.unit)}" if goal.at_least is not None else ""


def write_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown; its cells are Markdown already, and all of them ours."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows))


def list_figures(kept: dict[str, Results]) -> str:
    """The table of every promised figure."""
    found = {key: (figure, results) for results in kept.values() for key, figure in results.figures.items()}
    rows = []
    for key, goal in GOALS.items():
        if key not in found:
            rows.append((goal.about, write_bound(goal), NOT_MEASURED, "", ""))
            continue
        figure, results = found[key]
        is_met = {True: "yes", False: "no", None: ""}[goal.is_met(figure.value)]
        rows.append((goal.about, write_bound(goal), write_figure(figure, goal.unit), is_met, f"`{results.command}`"))
    return write_table(("figure", "goal", "found", "met", "by"), rows)


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
    for name, table in (("figures", list_figures(read(results / "trust"))), ("parity", list_parity(results))):
        begin, end = BEGIN.format(name=name), END.format(name=name)
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n\n{table}\n\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
