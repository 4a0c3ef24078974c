"""Write the tables of docs/trust.md from what the scripts left in bench_results: the figures, and the verdicts of scripts/parity."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from figures import FOLDER, GOALS, ROOT, Figure, Goal, Results, read

PAGE = ROOT / "docs" / "trust.md"

#: What stands between these is written here.
BEGIN, END = "<!-- figures by scripts/trust_docs.py -->", "<!-- end of the figures -->"

NOT_MEASURED = "not measured yet"


def write_number(value: float, unit: str) -> str:
    """A figure with its unit."""
    match unit:
        case "share":
            return f"{value * 100:.3g} %"
        case "s":
            return f"{value:.3g} s"
        case _:
            return f"{value:g}"


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


def render(text: str, folder: pathlib.Path = FOLDER) -> str:
    """The page with its figures."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{list_figures(read(folder))}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
