"""The sections of the report, in their order: one function each, from the material to parts.

A new kind of record is one function here and one line in `SECTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.records.cells import Machine, Record, machine_key, record_key
from harness.records.failures import describe_failure
from harness.records.kinds import ComparisonLine, ParityLine, TimeRecord, Turn
from harness.records.roofline import Roof
from harness.records.statistics import Digest, Summary, median, median_interval, speaking
from harness.records.text import TextRun, rate
from harness.spec import find_varied
from harness.units import format_duration, format_gb, format_mib, format_rate
from harness.views.drawing import plain
from harness.views.figures.style import PALETTE, new_figure
from harness.views.report.answers import show_predictions, show_published, show_roofline
from harness.views.report.ledgers import show_memory, show_token_time
from harness.views.report.material import Material
from harness.views.report.parts import Cell, Chart, Facts, Footnotes, Part, Points, Prose, Table
from harness.views.settings import format_settings

#: More bars than this in one picture cannot be read; the table has all of them.
MAX_BARS = 24


# --- in words ---------------------------------------------------------------------------------------------------------


def tell_summary(material: Material) -> Sequence[Part]:
    """The whole in a few sentences."""
    records = material.records
    sentences = [_count_things(material)]
    sentences += [text for kind in ("pp", "tg") if (text := _tell_best(material, kind))]
    distrusted = sum(cell.summary.is_distrusted for cell in material.cells)
    if distrusted:
        are = "figure is" if distrusted == 1 else "figures are"
        sentences.append(f"{distrusted} {are} not to be trusted: the machine was busy, as the footnotes say.")
    if any(_is_synthetic(record) for record in records):
        sentences.append(
            "Figures of synthetic models, which have the shape of a real one and random weights, are marked: they tell speed, "
            "and nothing else."
        )
    if material.failures:
        sentences.append(f"{_number(len(material.failures), 'cell')} failed; they are listed under Failures.")
    return [Prose(sentences)]


def _count_things(material: Material) -> str:
    names = {material.model_name(record) for record in material.records}
    names |= {material.model_name(run) for run in material.texts if run.model}
    things = {"measured cell": len(material.records), "written text": len(material.texts)}
    counted = " and ".join(_number(count, noun) for noun, count in things.items() if count)
    where = _number(len(material.machines), "machine")
    if not counted:
        return f"There are {_number(len(material.lines), 'line')} of other kinds from {where}, and no measured cell."
    return f"This page shows {counted} of {_number(len(names), 'model')} on {where}."


def _tell_best(material: Material, kind: str) -> str | None:
    """The quickest record of pure prompt processing or generation, with its interval and what it was."""
    wanted = [cell for cell in material.cells if cell.record.asked.kind == kind and not cell.record.failure]
    if not wanted:
        return None
    # What is not to be trusted is told only where there is nothing else.
    quickest = max(wanted, key=lambda cell: (not cell.summary.is_distrusted, cell.summary.rate_tok_per_s))
    best, summary = quickest.record, quickest.summary
    what = "Prompts went in at up to" if kind == "pp" else "Text came out at up to"
    interval = _interval(summary)
    between = f" (95 % interval {interval})" if interval != "—" else " (too few repetitions for an interval)"
    where = f" on {material.machine_name(best.machine)}" if len(material.machines) > 1 else ""
    doubt = "; not to be trusted" if summary.is_distrusted else ""
    return (
        f"{what} {format_rate(summary.rate_tok_per_s)} tokens/s{between}: {best.asked.test}, {material.model_name(best)}, "
        f"{best.asked.n_threads} threads{_tell_devices(best)}{where}{doubt}."
    )


def _tell_devices(record: Record) -> str:
    """Where the layers were, unless all were on the CPU."""
    layers = record.resolved.layers_by_device if record.resolved else {}
    return "" if set(layers) <= {"CPU"} else f", layers: {_layers(record)}"


# --- machines ---------------------------------------------------------------------------------------------------------


def describe_machines(material: Material) -> Sequence[Part]:
    """Hardware, system and engine of each machine."""
    return [
        Facts(_machine_pairs(material, machine), material.machine_name(machine) if len(material.machines) > 1 else "")
        for machine in material.machines
    ]


def _machine_pairs(material: Material, machine: Machine) -> list[tuple[str, str]]:
    key = machine_key(machine)
    seen = [line.machine for line in material.lines if machine_key(line.machine) == key]
    builds = [record.build for record in material.records if record.build and machine_key(record.machine) == key]
    builds += [run.build for run in material.texts if run.build and machine_key(run.machine) == key]
    pairs = [
        ("CPU", machine.cpu),
        ("cores", f"{machine.n_cores_physical} physical, {machine.n_cores_logical} logical"),
        ("memory", f"{format_gb(machine.memory_bytes)}"),
    ]
    for text in dict.fromkeys(f"{one.os}, {one.arch}, Python {one.python}" for one in seen):
        pairs.append(("system", text))
    for text in dict.fromkeys(
        f"{build.ggml_commit.split('-')[0]} (ggml {build.ggml_version}, llama-cpp-python {build.llama_cpp_python}), "
        # Servers have addresses of their own, which are among the devices.
        f"{', '.join(dict.fromkeys(name.partition('[')[0] for name in build.backends))}"
        for build in builds
    ):
        pairs.append(("llama.cpp", text))
    for text in dict.fromkeys(build.system_info for build in builds):
        pairs.append(("compiled with", text))
    found = [device for build in builds for device in build.devices if device.kind != "cpu"]
    devices = {(device.name, device.description, device.memory_total_bytes) for device in found}
    for name, description, memory in sorted(devices, key=str):
        pairs.append((name, description + (f", {format_gb(memory)}" if memory else "")))
    return pairs


# --- speeds -----------------------------------------------------------------------------------------------------------


def show_speeds(material: Material) -> Sequence[Part]:
    """Every measured cell but those of sweeps, which have a section of their own, with its interval."""
    cells = [cell for cell in material.cells if cell.record.command != "sweep"]
    if not cells:
        return []
    footnotes = Footnotes()
    several = len(material.machines) > 1
    settings = _find_settings([cell.record for cell in cells], "n_threads", "n_gpu_layers", "n_depth")
    rows = [_speed_row(material, cell, footnotes, several, settings) for cell in cells]
    headers = ["model", "size", "test", "threads", "layers", "t/s", "95 % interval", "reps", "when"]
    if settings:
        headers.insert(5, "settings")
    table = Table(["machine", *headers] if several else headers, rows, footnotes.texts())
    charts: list[Part] = []
    for kind, title in (("pp", "Prompt processing"), ("tg", "Text generation")):
        pure = [cell for cell in cells if cell.record.asked.kind == kind]
        chosen = _speaking(pure)
        if chosen:
            charts.append(_speed_chart(material, chosen[-MAX_BARS:], title))
    return [*charts, table]


def _find_settings(records: Sequence[Record], *shown: str) -> list[str]:
    """The parameters that tell records apart and have no column of their own."""
    return [name for name in find_varied(record.asked for record in records) if name not in shown]


def _speaking(cells: Sequence[Digest]) -> list[Digest]:
    """One of each cell that was measured again, for a picture: the table has them all."""
    same: dict[Any, list[Digest]] = {}
    for cell in cells:
        same.setdefault(record_key(cell.record), []).append(cell)
    return [best for group in same.values() if (best := speaking(group)) is not None]


def _speed_row(
    material: Material, cell: Digest, footnotes: Footnotes, several: bool, settings: Sequence[str]
) -> list[Cell | str]:
    record, summary = cell.record, cell.summary
    size = record.model.size_bytes if record.model else None
    row: list[Cell | str] = [
        material.model_name(record),
        Cell(format_mib(size), size) if size else "—",
        record.asked.test,
        Cell(str(record.asked.n_threads), record.asked.n_threads),
        Cell(_layers(record), record.asked.n_gpu_layers),
        Cell(
            format_rate(summary.rate_tok_per_s) + footnotes.mark([caution.text for caution in summary.cautions]),
            summary.rate_tok_per_s,
        ),
        _interval(summary),
        Cell(str(summary.n_samples), summary.n_samples),
        _minute(record.time_utc),
    ]
    if settings:
        row.insert(5, format_settings(record.asked, settings))
    return [material.machine_name(record.machine), *row] if several else row


def _layers(record: Record) -> str:
    """What really ran where it is known: layers by device."""
    if record.resolved and record.resolved.layers_by_device:
        return " + ".join(f"{count} {device}" for device, count in record.resolved.layers_by_device.items())
    return "all" if record.asked.n_gpu_layers < 0 else str(record.asked.n_gpu_layers)


def _speed_chart(material: Material, cells: Sequence[Digest], title: str) -> Chart:
    labels = _bar_labels(material, [cell.record for cell in cells])
    summaries = [cell.summary for cell in cells]

    def draw(theme: str) -> Any:
        figure, axis = new_figure(8.0, 0.75 + 0.3 * len(cells), theme=theme)
        for at, summary in enumerate(summaries):
            axis.barh(at, summary.rate_tok_per_s, height=0.62, color=PALETTE[0])
            if summary.rate_low is not None and summary.rate_high is not None:
                axis.plot(
                    [summary.rate_low, summary.rate_high],
                    [at, at],
                    color=PALETTE[1],
                    linewidth=3,
                    solid_capstyle="butt",
                )
        axis.set_yticks(range(len(labels)), [plain(label) for label in labels])
        axis.invert_yaxis()
        axis.grid(False, axis="y")
        axis.set_xlim(left=0)
        axis.set_xlabel("tokens/s")
        return figure

    told = "; ".join(
        f"{label} {format_rate(summary.rate_tok_per_s)}" for label, summary in zip(labels, summaries, strict=True)
    )
    has_interval = any(summary.rate_low is not None for summary in summaries)
    how = " The orange line is the 95 % interval of the median." if has_interval else ""
    return Chart(draw, f"{title}: {told}", f"{title}, tokens/s.{how}")


def _bar_labels(material: Material, records: Sequence[Record]) -> list[str]:
    """What tells each bar from the others: model, test, and what else differs."""
    settings = _find_settings(records, "n_threads", "n_gpu_layers", "n_depth")
    threads_differ = len({record.asked.n_threads for record in records}) > 1
    layers_differ = len({_layers(record) for record in records}) > 1
    labels = []
    for record in records:
        parts = [_shorten(material.model_name(record), 34), record.asked.test]
        parts += [f"{record.asked.n_threads} threads"] * threads_differ
        parts += [_layers(record)] * layers_differ
        parts += [format_settings(record.asked, settings)] * bool(settings)
        parts += [_shorten(material.machine_name(record.machine), 24)] * (len(material.machines) > 1)
        labels.append(" · ".join(parts))
    return labels


# --- layers on the GPU ------------------------------------------------------------------------------------------------


def show_layers(material: Material) -> Sequence[Part]:
    """Every placement that a sweep measured, and what else differs in nothing but the layers on the GPU; as one line each."""
    groups: dict[tuple[Any, ...], dict[int, list[Digest]]] = {}
    for cell in material.cells:
        asked, key = cell.record.asked, record_key(cell.record, but=("n_gpu_layers",))
        groups.setdefault(key, {}).setdefault(asked.n_gpu_layers, []).append(cell)
    curves = [
        [best for count in sorted(counts) if (best := speaking(counts[count])) is not None]
        for counts in groups.values()
        if len(counts) > 1 or any(cell.record.command == "sweep" for cells in counts.values() for cell in cells)
    ]
    if not curves:
        return []
    settings = _find_settings([cell.record for curve in curves for cell in curve], "n_gpu_layers", "n_depth")
    several = len(material.machines) > 1
    rows = [_layer_row(material, cell, settings, several) for curve in curves for cell in curve]
    headers = ["model", "test", "-ngl", *["settings"] * bool(settings), "t/s", "95 % interval", "what ran"]
    charts = _layer_charts(material, curves, settings)
    return [*charts, Table(["machine", *headers] if several else headers, rows)]


def _layer_row(material: Material, cell: Digest, settings: Sequence[str], several: bool) -> list[Cell | str]:
    record, summary, layers = cell.record, cell.summary, cell.record.asked.n_gpu_layers
    return [
        *[material.machine_name(record.machine)] * several,
        material.model_name(record),
        record.asked.test,
        Cell("all" if layers < 0 else str(layers), 1e9 if layers < 0 else layers),
        *[format_settings(record.asked, settings)] * bool(settings),
        Cell(format_rate(summary.rate_tok_per_s), summary.rate_tok_per_s),
        _interval(summary),
        _layers(record),
    ]


def _layer_charts(material: Material, curves: Sequence[Sequence[Digest]], settings: Sequence[str]) -> list[Chart]:
    charts = []
    for kind, title in (("pp", "Prompt processing"), ("tg", "Text generation")):
        chosen = [curve for curve in curves if len(curve) > 1 and curve[0].record.asked.kind == kind]
        if chosen:
            charts.append(_layer_chart(material, chosen, title, settings))
    return charts


def _layer_chart(material: Material, curves: Sequence[Sequence[Digest]], title: str, settings: Sequence[str]) -> Chart:
    def draw(theme: str) -> Any:
        from harness.views.figures.style import add_legend

        figure, axis = new_figure(theme=theme)
        for at, curve in enumerate(curves):
            known = [(place, cell.summary) for cell in curve if (place := _offloaded(cell.record)) is not None]
            points = sorted(known, key=lambda point: point[0])
            first = curve[0].record
            parts = (f"{material.model_name(first)} {first.asked.test}", format_settings(first.asked, settings))
            axis.plot(
                [place for place, _ in points], [summary.rate_tok_per_s for _, summary in points], marker="o",
                color=PALETTE[at % len(PALETTE)], label=plain(" · ".join(_shorten(part, 50) for part in parts if part)),
            )  # fmt: skip
        axis.set_xlabel("layers that ran on a GPU or another machine")
        axis.set_ylabel(f"{title}, tokens/s")
        axis.set_ylim(bottom=0)
        add_legend(axis, theme=theme)
        return figure

    return Chart(draw, f"{title} by layers on the GPU; the table below has the figures")


def _offloaded(record: Record) -> int | None:
    """Layers that really ran on something else than the CPU."""
    if record.resolved is None:
        return None if record.asked.n_gpu_layers < 0 else record.asked.n_gpu_layers
    return sum(count for device, count in record.resolved.layers_by_device.items() if not device.startswith("CPU"))


# --- texts and Ollama -------------------------------------------------------------------------------------------------


def show_texts(material: Material) -> Sequence[Part]:
    """Texts that models wrote, with Ollama's figures."""
    if not material.texts:
        return []
    footnotes = Footnotes()
    rows = [_text_row(material, run, footnotes) for run in material.texts]
    headers = ("model", "PP t/s", "TG t/s", "load", "first token", "total", "tokens", "ended", "when")
    means = (
        "PP and TG are what Ollama calls prompt eval rate and eval rate; sampling and the way of the text are in them. The first "
        "token's decode counts as the prompt's, so TG is a little too good for short texts."
    )
    return [Prose([means]), Table(headers, rows, footnotes.texts())]


def _text_row(material: Material, run: TextRun, footnotes: Footnotes) -> list[Cell | str]:
    figures = run.figures
    texts = [caution.text for caution in run.warnings] + ([describe_failure(run.failure)] if run.failure else [])
    return [
        material.model_name(run) + footnotes.mark(texts),
        _rate_cell(figures.prompt_eval_rate_tok_per_s),
        _rate_cell(figures.eval_rate_tok_per_s),
        _duration_cell(figures.load_duration_ns),
        _duration_cell(figures.first_token_ns),
        _duration_cell(figures.total_duration_ns),
        f"{figures.prompt_eval_count or 0} + {figures.eval_count or 0}",
        run.finish,
        _minute(run.time_utc),
    ]


def show_ollama(material: Material) -> Sequence[Part]:
    """Comparisons with an Ollama server."""
    rows = []
    for line in material.contents(ComparisonLine):
        pairs = [(turn.ollama, turn.direct.figures) for turn in line.rounds if turn.ollama]
        for name, field in (("PP", "prompt_eval"), ("TG", "eval")):
            rates = [tuple(_turn_rate(turn, field) for turn in pair) for pair in pairs]
            both = [(theirs, ours) for theirs, ours in rates if theirs and ours]
            if both:
                rows.append(_ollama_row(line, name, both))
    headers = ("model", "", "Ollama", "Ollama t/s", "harness t/s", "harness / Ollama", "rounds", "when")
    means = "The same file, prompts, context, threads and layers, by turns, through an Ollama server and directly."
    return [Prose([means]), Table(headers, rows)] if rows else []


def _turn_rate(turn: Turn, field: str) -> float | None:
    return rate(getattr(turn, f"{field}_count"), getattr(turn, f"{field}_duration_ns"))


def _ollama_row(line: ComparisonLine, name: str, pairs: Sequence[tuple[float, float]]) -> list[Cell | str]:
    theirs, ours = median([a for a, _ in pairs]), median([b for _, b in pairs])
    ratios = [b / a for a, b in pairs]
    interval = median_interval(ratios)
    between = f" [{interval.low:.2f} – {interval.high:.2f}]" if interval else ""
    return [
        line.task.name,
        name,
        line.ollama_version or "—",
        Cell(format_rate(theirs), theirs),
        Cell(format_rate(ours), ours),
        Cell(f"{median(ratios):.2f}{between}", median(ratios)),
        Cell(str(len(pairs)), len(pairs)),
        _minute(line.time_utc),
    ]


def show_parity(material: Material) -> Sequence[Part]:
    """Comparisons with llama-bench, by scripts/parity."""
    rows: list[list[Cell | str]] = [
        [
            material.file_label(line.model),
            line.test,
            _rate_cell(line.harness_tok_per_s),
            _rate_cell(line.llama_bench_tok_per_s),
            Cell(f"{line.ratio_median:.4f}", line.ratio_median),
            f"{line.ratio_low:.4f} – {line.ratio_high:.4f}" if line.ratio_low and line.ratio_high else "—",
            _minute(line.time_utc),
        ]
        for line in material.contents(ParityLine)
    ]
    headers = ("model", "test", "harness t/s", "llama-bench t/s", "ratio", "95 % interval", "when")
    means = "harness and llama-bench, from the same source, run alternately, compared pair by pair. Above 1, harness was faster."
    return [Prose([means]), Table(headers, rows)] if rows else []


# --- trouble and method -----------------------------------------------------------------------------------------------


def list_failures(material: Material) -> Sequence[Part]:
    """Cells that have no result, and why."""
    rows = [
        [
            material.model_name(record),
            record.asked.test,
            record.failure.phase,
            describe_failure(record.failure),
            record.failure.log[-1] if record.failure.log else "",
        ]
        for record in material.failures
        if record.failure
    ]
    return [Table(("model", "test", "phase", "what happened", "last words"), rows)] if rows else []


def list_warnings(material: Material) -> Sequence[Part]:
    """Every caution once with the number of figures that it qualifies, and what could not be read."""
    counts: dict[tuple[str, bool], int] = {}
    cautions = [caution for cell in material.cells for caution in cell.summary.cautions]
    cautions += [caution for run in material.texts for caution in run.warnings]
    # A ledger, and a roof, count as one figure each.
    cautions += [caution for found in material.contents(TimeRecord) for caution in found.line.cautions]
    cautions += [caution for roof in material.contents(Roof) for caution in roof.warnings]
    for caution in cautions:
        counts[caution.text, caution.distrust] = counts.get((caution.text, caution.distrust), 0) + 1
    rows = [
        [text, "not to be trusted" if distrust else "with care", Cell(str(count), count)]
        for (text, distrust), count in sorted(counts.items(), key=lambda item: (not item[0][1], item[0][0]))
    ]
    parts: list[Part] = [Table(("warning", "take the figure", "figures"), rows)] if rows else []
    if material.troubles:
        parts.append(Points(material.troubles))
    return parts


def tell_method(material: Material) -> Sequence[Part]:
    """How the figures came about."""
    texts = []
    if material.records:
        repetitions = sorted({record.asked.repetitions for record in material.records})
        warm = all(record.asked.warmup for record in material.records)
        texts.append(
            "Speeds were measured as llama-bench measures them: random tokens, the cache cleared before each repetition, prompts in "
            "chunks of n_batch, one token a decode without sampling. ppN is a prompt of N tokens, tgN the generation of N, @ dN with N "
            f"tokens in the cache before. Repetitions: {', '.join(map(str, repetitions))}{', after a warm-up' if warm else ''}."
        )
        texts.append(
            "t/s is tokens divided by the median duration. The interval holds the true median with 95 % confidence and assumes nothing "
            "about the shape of the noise (order statistics; it needs six repetitions). Where two intervals overlap, do not call one "
            "faster."
        )
    if material.texts:
        texts.append(
            "Texts were written with the model's own chat template and sampled; their figures mean what those of ollama run --verbose "
            "mean. Records hold no prompt and no text unless that was asked for."
        )
    shown = {kind for section in SECTIONS.values() for kind in section[1]}
    others: dict[str, int] = {}
    for line in material.lines:
        if line.kind not in shown:
            others[line.kind] = others.get(line.kind, 0) + 1
    for kind, count in sorted(others.items()):
        texts.append(f"Not shown: {_number(count, 'line')} of kind {kind}, which this version has no section for.")
    versions = sorted({line.harness_version for line in material.lines if line.harness_version})
    facts = Facts([("records", ", ".join(material.files)), ("written by harness", ", ".join(versions) or "not said")])
    return [Prose(texts), facts]


# --- small things -----------------------------------------------------------------------------------------------------


def _number(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def _is_synthetic(record: Record) -> bool:
    return record.model is not None and record.model.is_synthetic


def _interval(summary: Summary) -> str:
    if summary.rate_low is None or summary.rate_high is None:
        return "—"
    return f"{format_rate(summary.rate_low)} – {format_rate(summary.rate_high)}"


def _rate_cell(value: float | None) -> Cell | str:
    return "—" if value is None else Cell(format_rate(value), value)


def _duration_cell(duration_ns: int | None) -> Cell | str:
    return "—" if duration_ns is None else Cell(format_duration(duration_ns), duration_ns)


def _minute(time_utc: str) -> str:
    return time_utc[:16].replace("T", " ")


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


#: Title → (the function that makes the section, the kinds of lines that it shows), in the order of the page; empty ones are left out.
SECTIONS: dict[str, tuple[Callable[[Material], Sequence[Part]], tuple[str, ...]]] = {
    "Summary": (tell_summary, ()),
    "Machine": (describe_machines, ()),
    "Speeds": (show_speeds, ("result",)),
    "Layers on the GPU": (show_layers, ("result",)),
    "Memory": (show_memory, ("overhead",)),
    "A token's time": (show_token_time, ("time-ledger",)),
    "Under the roof": (show_roofline, ("roofline",)),
    "Texts": (show_texts, ("run",)),
    "Beside Ollama": (show_ollama, ("ollama-comparison",)),
    "Beside llama-bench": (show_parity, ("parity",)),
    "Among published machines": (show_published, ()),
    "Predictions": (show_predictions, ()),
    "Failures": (list_failures, ("failure",)),
    "Warnings": (list_warnings, ()),
    "How it was measured": (tell_method, ()),
}
