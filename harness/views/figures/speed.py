"""Pictures of speeds: by machine, size, bandwidth, depth and time, and of the models' published accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.errors import UsageError
from harness.gguf.cost import cost_of_shape
from harness.records.cells import record_key
from harness.spec import find_varied
from harness.speed.published import (
    FIGURE_CAUTIONS,
    LLAMA_7B,
    Accuracy,
    load_accuracy,
    load_apple_chips,
    load_bandwidths,
    load_machines,
)
from harness.speed.rates import Measured
from harness.speed.standings import MachineRow, list_models
from harness.views.figures.style import (
    PALETTE,
    THEMES,
    add_legend_below,
    new_figure,
    number_alike,
    set_log,
    set_title,
    shorten,
)
from harness.views.settings import format_settings
from harness.views.values import format_layers

#: Marks that tell series apart where colours run out or are not seen.
MARKS = "osD^vPX*"

#: Marks of the user's own machines, none of which a published one has in the same picture.
OWN_MARKS = "*PX<>p"


def draw_machines(rows: Sequence[MachineRow], test_kind: str, theme: str = "light") -> Any:
    """One line a machine, one mark a model, on a logarithmic axis; measured machines stand out."""
    models = list_models(rows)[: len(PALETTE)]
    figure, axis = new_figure(8.0, 1.6 + 0.31 * len(rows), theme=theme)
    set_log(axis, "x")
    back, ink = THEMES[theme].background, THEMES[theme].ink
    for number, model in enumerate(models):
        points = [
            (row.cells[model], place, row.is_published)
            for place, row in enumerate(reversed(rows))
            if model in row.cells
        ]
        colour, look = PALETTE[number], {"marker": MARKS[number % len(MARKS)], "zorder": 3}
        axis.scatter([], [], s=60, color=colour, label=model, **look)
        axis.scatter(
            [cell.rate_tok_per_s for cell, _, _ in points], [place for _, place, _ in points],
            s=[60 if published else 110 for _, _, published in points],
            facecolors=[back if cell.is_synthetic else colour for cell, _, _ in points],
            edgecolors=[colour if cell.is_synthetic or published else ink for cell, _, published in points],
            linewidths=[2.0 if cell.is_synthetic else 1.4 for cell, _, _ in points], **look,
        )  # fmt: skip
    labels = [row.machine if row.is_published else f"» {row.machine}" for row in reversed(rows)]
    axis.set_yticks(range(len(rows)), [shorten(label, 30) for label in labels])
    for text, row in zip(axis.get_yticklabels(), reversed(rows), strict=True):
        text.set_fontweight("normal" if row.is_published else "bold")
    axis.set_ylim(-0.7, len(rows) - 0.3)
    what = "generated" if test_kind == "tg" else "prompt"
    is_synthetic = any(cell.is_synthetic for row in rows for cell in row.cells.values())
    x = f"{what} tokens a second" + ("; hollow: a synthetic model" if is_synthetic else "")
    set_title(axis, f"{what.capitalize()} tokens a second by machine and model", theme, x=x)
    add_legend_below(figure, [axis], theme, 3 if len(models) > 2 else len(models))
    return figure


def draw_sizes(rows: Sequence[MachineRow], sizes: Mapping[tuple[str, str | None], int], theme: str = "light") -> Any:
    """Speed against size, both logarithmic; a straight line fitted for each machine of which several models are known.

    Figures of models that a card could not hold are hollow and not fitted.

    sizes gives the bytes of a model in a quantization; a cell without one is left out.
    """
    import numpy as np

    figure, axis = new_figure(8.0, 5.6, theme=theme)
    set_log(axis, "x", "y")
    ordered = sorted(rows, key=lambda row: not row.is_published)
    shown = n_own = 0
    for row in ordered:
        points = sorted(
            (sizes[model, cell.quantization] / 1e9, cell.rate_tok_per_s, (row.machine, model) in FIGURE_CAUTIONS)
            for model, cell in row.cells.items()
            if (model, cell.quantization) in sizes
        )
        if not points:
            continue
        held = np.array([(size, rate) for size, rate, spilled in points if not spilled])
        spilled = [(size, rate) for size, rate, spilled in points if spilled]
        size, rate = held.T
        own = not row.is_published
        n_own += own
        colour = THEMES[theme].ink if own else PALETTE[shown % len(PALETTE)]
        line = "-" if shown < len(PALETTE) or own else "--"
        mark = OWN_MARKS[(n_own - 1) % len(OWN_MARKS)] if own else MARKS[(shown // len(PALETTE)) * 2 + shown % 2]
        if len(size) > 1:
            slope, height = np.polyfit(np.log(size), np.log(rate), 1)
            ends = np.array([size[0], size[-1]])
            axis.plot(ends, np.exp(height) * ends**slope, line, color=colour, linewidth=2.6 if own else 1.4)
        axis.plot(
            size, rate, mark, color=colour, markersize=13 if own else 6, label=("» " if own else "") + row.machine,
            zorder=4 if own else 3,
        )  # fmt: skip
        for at in spilled:  # not in the fit: a part of it ran elsewhere
            axis.plot(*at, mark, color=colour, markersize=7, fillstyle="none", zorder=3)
        shown += not own
    x, y = "size of the weights in GB (10⁹ bytes)", "generated tokens a second"
    set_title(axis, "Speed against size; hollow: partly on a CPU, not in the fit", theme, x=x, y=y)
    add_legend_below(figure, [axis], theme, 4)
    return figure


def draw_bandwidth(theme: str = "light") -> Any:
    """Prompt processing and text generation against memory bandwidth, Apple's chips by quantization, others' 8b beside them."""
    costs = {kind: cost_of_shape(LLAMA_7B, kind) for kind in ("Q4_0", "Q8_0", "F16")}
    chips, bandwidths = load_apple_chips(), load_bandwidths()
    figure, axes = new_figure(10.0, 5.2, theme=theme, ncols=2)
    prompts, tokens = axes
    for axis in axes:
        set_log(axis, "x", "y")
    # The quantizations' prompts are nearly equally quick: large hollow marks behind small full ones.
    for number, (kind, size, fill) in enumerate((("F16", 10, "none"), ("Q8_0", 7, "none"), ("Q4_0", 4, "full"))):
        for axis, name in ((prompts, "pp_tok_per_s"), (tokens, "tg_tok_per_s")):
            pairs = [(chip.bandwidth_bytes_per_s / 1e9, rate) for chip in chips if (rate := getattr(chip, name)[kind])]
            axis.plot(
                *zip(*pairs, strict=True), MARKS[2 - number], color=PALETTE[2 - number], markersize=size, fillstyle=fill,
                markeredgewidth=1.5, label=f"Apple, LLaMA 7B {kind}",
            )  # fmt: skip
        ends = [60e9, 1000e9]
        tokens.plot(
            [end / 1e9 for end in ends], [end / costs[kind].read_bytes for end in ends], ":",
            color=PALETTE[2 - number], linewidth=1.4, label=f"reading {kind} alone (roof)",
        )  # fmt: skip
    cards = [one for one in load_machines() if one.kind == "gpu" and one.rates_tok_per_s["llama3.1:8b"]]
    for number, card in enumerate(cards):
        tokens.plot(
            bandwidths[card.name].bandwidth_bytes_per_s / 1e9, card.rates_tok_per_s["llama3.1:8b"],
            "Xv^P*<>p"[number % 8], color=PALETTE[3], markersize=8, linestyle="none",
            label=f"{card.name}, llama3.1:8b Q4_0",
        )  # fmt: skip
    x = "memory bandwidth in GB/s"
    set_title(prompts, "Prompts of 512 tokens: arithmetic decides", theme, x=x, y="tokens a second")
    set_title(tokens, "Generation: bandwidth decides", theme, x=x)
    add_legend_below(figure, [tokens], theme, 3)
    return figure


def draw_accuracy(theme: str = "light") -> Any:
    """Published scores by benchmark and model; only benchmarks that several models were given, each under its full name."""
    by_name: dict[str, list[Accuracy]] = {}
    for score in load_accuracy():
        shots = "" if score.shots is None else f", {score.shots} shots"
        by_name.setdefault(f"{score.benchmark}{shots}", []).append(score)
    shared = {name: found for name, found in by_name.items() if len({item.model for item in found}) > 1}
    models = list(dict.fromkeys(score.model for found in shared.values() for score in found))
    names = sorted(shared, key=lambda name: sum(item.score for item in shared[name]) / len(shared[name]))
    figure, axis = new_figure(8.0, 1.8 + 0.3 * len(names), theme=theme)
    for place, name in enumerate(names):
        values = [item.score for item in shared[name]]
        axis.plot([min(values), max(values)], [place, place], color=THEMES[theme].grid, linewidth=3, zorder=1)
    for number, model in enumerate(models):
        points = [
            (item.score, names.index(name)) for name, found in shared.items() for item in found if item.model == model
        ]
        axis.plot(
            *zip(*points, strict=True), MARKS[number % len(MARKS)], color=PALETTE[number % len(PALETTE)], markersize=8,
            label=model, zorder=3,
        )  # fmt: skip
    axis.set_yticks(range(len(names)), names)
    axis.set_xlim(0, 100)
    axis.set_ylim(-0.7, len(names) - 0.3)
    x = "score in percent, as the models' publishers gave it (Meta's model cards)"
    set_title(axis, "Published accuracy by benchmark and model", theme, x=x)
    add_legend_below(figure, [axis], theme, 3)
    return figure


def draw_depth(measured: Sequence[Measured], theme: str = "light") -> Any:
    """Speed against the tokens that are already in the cache, from records at several depths.

    Raises
    ------
    UsageError : there are no records at two depths.
    """
    series = {key: depths for key, depths in depth_series(measured).items() if len(depths) > 1}
    if not series:
        raise UsageError("No model was measured at two depths; run `harness pp-tg -d 0,1024,4096` first.")
    kinds = _kinds(series)
    width_in = 5.0 * len(kinds) if len(kinds) > 1 else 8.0
    figure, axes = new_figure(width_in, 4.6, theme=theme, ncols=len(kinds), squeeze=False)
    points = {key: list(depths.items()) for key, depths in series.items()}
    _draw_series(figure, axes[0], points, theme, x="tokens already in the cache")
    return figure


_Points = Sequence[tuple[Any, Measured]]


def _kinds(series: Iterable[tuple[str, str]]) -> list[str]:
    return sorted({kind for kind, _ in series})


def _draw_series(
    figure: Any, axes: Sequence[Any], series: Mapping[tuple[str, str], _Points], theme: str, x: str = ""
) -> None:
    """A panel for prompts and one for generation, with a line for each series."""
    for axis, kind in zip(axes, _kinds(series), strict=True):
        for number, ((found, name), points) in enumerate(series.items()):
            if found == kind:
                _plot_intervals(axis, points, name, number)
        axis.set_ylim(0, axis.get_ylim()[1] * 1.04)
        set_title(axis, f"{'Prompts' if kind == 'pp' else 'Generation'}, tokens a second", theme, x=x)
    add_legend_below(figure, axes, theme)


def depth_series(measured: Sequence[Measured]) -> dict[tuple[str, str], dict[int, Measured]]:
    """The latest record at each depth, by (kind of test, what tells the series from the others)."""
    found = _same_cells(measured, but=("n_depth",)).items()
    return {key: dict(sorted({item.record.asked.n_depth: item for item in items}.items())) for key, items in found}


def _same_cells(measured: Sequence[Measured], but: Sequence[str] = ()) -> dict[tuple[str, str], list[Measured]]:
    """Pure prompts and pure generation by cell and by what ran, as (kind of test, a name that no other series has)."""
    pure = [item for item in measured if item.test_kind != "pp+tg"]
    named = ("n_threads", "type_k", "type_v", "n_depth")
    settings = [name for name in find_varied(item.record.asked for item in pure) if name not in named]
    groups: dict[tuple[Any, ...], list[Measured]] = {}
    for item in pure:
        groups.setdefault((_place(item), *record_key(item.record, but=but)), []).append(item)
    names = []
    for items in groups.values():
        asked = items[0].record.asked
        test = f"pp{asked.n_prompt}" if asked.n_prompt else f"tg{asked.n_gen}"
        model = f"{items[0].model} {items[0].quantization or ''}".strip() + ("*" if items[0].is_synthetic else "")
        cache = f"{asked.type_k}/{asked.type_v}"
        threads = f"{asked.n_threads} threads{'' if cache == 'f16/f16' else f', cache {cache}'}"
        told = [f"{model} {test}", threads, _place(items[0])]
        names.append(", ".join(filter(None, [*told, format_settings(asked, settings)])))
    return {(items[0].test_kind, name): items for items, name in zip(groups.values(), number_alike(names), strict=True)}


def _place(item: Measured) -> str:
    """The machine, with the layers on each device where several share them."""
    resolved = item.record.resolved
    layers = resolved.layers_by_device if resolved else {}
    return f"{item.machine_label}, {format_layers(layers)}" if len(layers) > 1 else item.machine_label


def _plot_intervals(axis: Any, points: _Points, name: str, number: int) -> None:
    """A line through rates with their 95 % intervals; a rate without one has no bar."""
    rates = [item.summary.rate_tok_per_s for _, item in points]
    low = [rate - (item.summary.rate_low or rate) for rate, (_, item) in zip(rates, points, strict=True)]
    high = [(item.summary.rate_high or rate) - rate for rate, (_, item) in zip(rates, points, strict=True)]
    axis.errorbar(
        [place for place, _ in points], rates, yerr=[[max(v, 0) for v in low], [max(v, 0) for v in high]],
        fmt=MARKS[number % len(MARKS)] + "-", color=PALETTE[number % len(PALETTE)], capsize=3, markersize=6, label=name,
    )  # fmt: skip


def draw_history(measured: Sequence[Measured], theme: str = "light") -> Any:
    """Speed over time, of each model, test and machine that was measured more than once.

    Raises
    ------
    UsageError : nothing was measured twice.
    """
    flat = [item for item in measured if item.record.asked.n_depth == 0]
    series = {key: found for key, found in _same_cells(flat).items() if len(found) > 1}
    if not series:
        raise UsageError("Nothing was measured twice yet; each `harness pp-tg` adds to the history.")
    busiest = sorted(series, key=lambda key: -len(series[key]))[: len(PALETTE)]
    times = {key: sorted(((_time(item), item) for item in series[key]), key=lambda point: point[0]) for key in busiest}
    n_kinds = len(_kinds(times))
    figure, axes = new_figure(8.0, 2.6 * n_kinds + 1.2, theme=theme, nrows=n_kinds, squeeze=False, sharex=True)
    _draw_series(figure, axes[:, 0], times, theme)
    _format_times(axes[-1][0], theme)
    return figure


def _time(item: Measured) -> Any:
    import numpy as np

    return np.datetime64(item.record.time_utc.removesuffix("Z"))


def _format_times(axis: Any, theme: str) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=2, maxticks=7)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axis.xaxis.get_offset_text().set_color(THEMES[theme].ink)
    axis.set_xlabel("time (UTC)")
