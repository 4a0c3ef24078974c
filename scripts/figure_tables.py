"""The tables of docs/trust.md and docs/reliability.md: goals beside what the scripts left in bench_results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from figures import Figure, Goal, Results

#: What stands between these is written here; name is that of a table.
BEGIN, END = "<!-- {name} by a script -->", "<!-- end of {name} -->"

NOT_MEASURED = "not measured yet"


def write_number(value: float, unit: str) -> str:
    """A figure with its unit."""
    match unit:
        case "share":
            return f"{value * 100:.3g} %"
        case "s":
            return f"{value:.3g} s"
        case "MiB":
            return f"{value:.0f} MiB"
        case "count":
            return f"{value:,.0f}"
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
    """A table of Markdown; its cells are Markdown already, and all of them ours. A bar ends a cell even where it stands in code."""
    lines = (heads, ["---"] * len(heads), *rows)
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def list_figures(kept: Mapping[str, Results], goals: Mapping[str, Goal]) -> str:
    """The table of every promised figure, in the order of its goals."""
    found = {key: (figure, results) for results in kept.values() for key, figure in results.figures.items()}
    rows = []
    for key, goal in goals.items():
        if key not in found:
            rows.append((goal.about, write_bound(goal), NOT_MEASURED, "", ""))
            continue
        figure, results = found[key]
        is_met = {True: "yes", False: "no", None: ""}[goal.is_met(figure.value)]
        rows.append((goal.about, write_bound(goal), write_figure(figure, goal.unit), is_met, f"`{results.command}`"))
    return write_table(("figure", "goal", "found", "met", "by"), rows)


def fill(text: str, tables: Mapping[str, str]) -> str:
    """A page with its tables, each between its two marks."""
    for name, table in tables.items():
        begin, end = BEGIN.format(name=name), END.format(name=name)
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n\n{table}\n\n{end}{rest.partition(end)[2]}"
    return text
