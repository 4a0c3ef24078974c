"""Speed over users: what all sequences get together, and what each of them gets, beside each other."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from harness.errors import UsageError
from harness.records.cells import Record, record_key
from harness.records.statistics import Digest, speaking
from harness.spec import NAMED_IN_TEST, find_varied
from harness.units import format_count
from harness.views.document import Picture
from harness.views.figures.style import PALETTE, add_legend_below, new_figure, number_alike, set_log, set_title
from harness.views.settings import format_settings

#: Marks that tell series apart where colours run out or are not seen.
_MARKS = "osD^vPX*"

#: Lines by what is timed (pp or tg) and by what tells them apart: of each number of sequences the cell that speaks.
Series = Mapping[tuple[str, str], Sequence[Digest]]

_TITLES = {"pp": "Prompts", "tg": "Generation", "pp+tg": "Prompt and generation"}


def find_series(cells: Sequence[Digest], name_of: Callable[[Record], str]) -> Series:
    """Cells of several numbers of sequences that differ in nothing else; name_of says what a model is called."""
    groups: dict[Any, dict[int, list[Digest]]] = {}
    has_shared = any(cell.record.asked.is_prompt_shared for cell in cells)
    for cell in cells:
        for key in _list_keys(cell.record, has_shared=has_shared):
            groups.setdefault(key, {}).setdefault(cell.record.asked.n_parallel, []).append(cell)
    lines = [
        [best for _, found in sorted(counts.items()) if (best := speaking(found))]
        for counts in groups.values()
        if len(counts) > 1
    ]
    firsts = [line[0].record for line in lines]
    varied = [name for name in find_varied(record.asked for record in firsts) if name not in NAMED_IN_TEST]
    several_models = len({name_of(record) for record in firsts}) > 1
    several_machines = len({record.machine.cpu for record in firsts}) > 1
    names = []
    for line in lines:
        record = line[-1].record
        parts = [name_of(record)] * several_models + [record.asked.name_test_without("n_parallel")]
        parts += [format_settings(record.asked, varied)] + [record.machine.cpu] * several_machines
        names.append(", ".join(filter(None, parts)))
    return {(line[-1].record.asked.kind, name): line for line, name in zip(lines, number_alike(names), strict=True)}


def _list_keys(record: Record, *, has_shared: bool) -> Iterator[Any]:
    """The lines that a cell is on: a single user's is the first of those with a shared prompt and of those without."""
    yield record_key(record, but=("n_parallel",))
    if has_shared and record.asked.n_parallel == 1:
        shared = dataclasses.replace(record, asked=dataclasses.replace(record.asked, is_prompt_shared=True))
        yield record_key(shared, but=("n_parallel",))


def draw_users(series: Series, theme: str = "light") -> Any:
    """A row of two panels for prompts, generation, and both as one test: tokens a second of all users, and of each.

    Raises
    ------
    UsageError : nothing was measured with two numbers of sequences.
    """
    if not series:
        raise UsageError("No model was measured with several users; run `harness pp-tg -np 1,2,4,8` first.")
    kinds = [kind for kind in _TITLES if any(kind == found for found, _ in series)]
    figure, axes = new_figure(8.0, 2.9 * len(kinds) + 0.6, theme=theme, nrows=len(kinds), ncols=2, squeeze=False)
    for (total, each), kind in zip(axes, kinds, strict=True):
        for number, ((found, name), line) in enumerate(series.items()):
            if found == kind:
                _draw_line(total, each, name, line, number)
        for axis, what in ((total, "of all users"), (each, "of each user")):
            set_log(axis, "x", subs=(1.0, 2.0, 4.0, 8.0))
            counts = sorted({one.record.asked.n_parallel for line in series.values() for one in line})
            axis.set_xticks(counts, [str(count) for count in counts])
            axis.set_ylim(0, axis.get_ylim()[1] * 1.04)
            set_title(axis, f"{_TITLES[kind]}, t/s {what}", theme, x="users at once")
    add_legend_below(figure, [axis for row in axes for axis in row], theme, 2)
    return figure


def _draw_line(total: Any, each: Any, name: str, line: Sequence[Digest], number: int) -> None:
    """One line in both panels, with the intervals of the medians."""
    counts = [one.record.asked.n_parallel for one in line]
    for axis, rates in (
        (total, [one.summary.rate_tok_per_s for one in line]),
        (each, [one.summary.sequence_rate_tok_per_s or 0.0 for one in line]),
    ):
        # The interval of a rate is as wide, as a share, whoever it is of.
        ends = [one.summary.interval or (one.summary.rate_tok_per_s,) * 2 for one in line]
        shares = [(low / one.summary.rate_tok_per_s, high / one.summary.rate_tok_per_s)
                  for (low, high), one in zip(ends, line, strict=True)]  # fmt: skip
        low = [max(rate * (1 - share[0]), 0) for rate, share in zip(rates, shares, strict=True)]
        high = [max(rate * (share[1] - 1), 0) for rate, share in zip(rates, shares, strict=True)]
        axis.errorbar(
            counts, rates, yerr=[low, high], fmt=_MARKS[number % len(_MARKS)] + "-", color=PALETTE[number % len(PALETTE)],
            capsize=3, markersize=6, label=name,
        )  # fmt: skip


def show_series(series: Series) -> Picture:
    """The picture with its words."""
    alt = f"Speed over users: {describe_series(series)}"
    return Picture(functools.partial(draw_users, series), alt, name="users")


def describe_series(series: Series) -> str:
    """The picture in words, for who does not see it."""
    return "; ".join(
        f"{name}: "
        + ", ".join(
            f"{format_count(one.record.asked.n_parallel, 'user')} {one.summary.rate_tok_per_s:.4g} t/s" for one in line
        )
        for (_, name), line in series.items()
    )
