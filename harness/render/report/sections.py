"""The sections of the report, in their order: one function each, from the material to parts.

A new kind of record is one function here and one line in `SECTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.record import Machine, Record, machine_key, record_key
from harness.render.figure import PALETTE, new_figure
from harness.render.report.answers import show_predictions, show_published, show_roofline
from harness.render.report.ledgers import show_memory, show_token_time
from harness.render.report.material import Material
from harness.render.report.parts import Cell, Chart, Facts, Footnotes, Part, Points, Prose, Table
from harness.render.report.picture import plain
from harness.render.table import spell_settings
from harness.spec import find_varied
from harness.stats import Summary, median, median_interval, summarize
from harness.text_run import TextRun, rate
from harness.units import format_duration, format_gb, format_mib, format_params, format_rate

#: More bars than this in one picture cannot be read; the table has all of them.
MAX_BARS = 24


# --- in words ---------------------------------------------------------------------------------------------------------


def tell_summary(material: Material) -> Sequence[Part]:
    """The whole in a few sentences."""
    records = material.records
    sentences = [_count_things(material)]
    sentences += [text for kind in ("pp", "tg") if (text := _tell_best(material, kind))]
    distrusted = sum(any(caution.distrust for caution in summarize(record).cautions) for record in records)
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
    names = {_file_name(record) for record in material.records} | {
        run.model.file_name for run in material.texts if run.model
    }
    things = {"measured cell": len(material.records), "written text": len(material.texts)}
    counted = " and ".join(_number(count, noun) for noun, count in things.items() if count)
    where = _number(len(material.machines), "machine")
    if not counted:
        return f"There are {_number(len(material.lines), 'line')} of other kinds from {where}, and no measured cell."
    return f"This page shows {counted} of {_number(len(names), 'model')} on {where}."


def _tell_best(material: Material, kind: str) -> str | None:
    """The quickest record of pure prompt processing or generation, with its interval and what it was."""
    wanted = [record for record in material.records if record.asked.kind == kind and not record.failure]
    if not wanted:
        return None
    best = max(wanted, key=lambda record: summarize(record).rate_tok_per_s)
    summary = summarize(best)
    what = "Prompts went in at up to" if kind == "pp" else "Text came out at up to"
    interval = _interval(summary)
    between = f" (95 % interval {interval})" if interval != "—" else " (too few repetitions for an interval)"
    where = f" on {material.machine_name(best.machine)}" if len(material.machines) > 1 else ""
    doubt = "; not to be trusted" if any(caution.distrust for caution in summary.cautions) else ""
    return (
        f"{what} {format_rate(summary.rate_tok_per_s)} tokens/s{between}: {best.asked.test}, {_model_name(best)}, "
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
    records = [record for record in material.records if record.command != "sweep"]
    if not records:
        return []
    footnotes = Footnotes()
    several = len(material.machines) > 1
    settings = _find_settings(records, "n_threads", "n_gpu_layers", "n_depth")
    rows = [_speed_row(material, record, footnotes, several, settings) for record in records]
    headers = ["model", "size", "test", "threads", "layers", "t/s", "95 % interval", "reps", "when"]
    if settings:
        headers.insert(5, "settings")
    table = Table(["machine", *headers] if several else headers, rows, footnotes.texts())
    charts: list[Part] = []
    for kind, title in (("pp", "Prompt processing"), ("tg", "Text generation")):
        pure = [record for record in records if record.asked.kind == kind]
        # Of what was measured again, the latest bar: the table has them all.
        chosen = list({record_key(record): record for record in pure}.values())
        if chosen:
            charts.append(_speed_chart(material, chosen[-MAX_BARS:], title))
    return [*charts, table]


def _find_settings(records: Sequence[Record], *shown: str) -> list[str]:
    """The parameters that tell records apart and have no column of their own."""
    return [name for name in find_varied(record.asked for record in records) if name not in shown]


def _speed_row(
    material: Material, record: Record, footnotes: Footnotes, several: bool, settings: Sequence[str]
) -> list[Cell | str]:
    summary = summarize(record)
    size = record.model.size_bytes if record.model else None
    row: list[Cell | str] = [
        _model_name(record),
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
        record.time_utc[:16].replace("T", " "),
    ]
    if settings:
        row.insert(5, spell_settings(record.asked, settings))
    return [material.machine_name(record.machine), *row] if several else row


def _layers(record: Record) -> str:
    """What really ran where it is known: layers by device."""
    if record.resolved and record.resolved.layers_by_device:
        return " + ".join(f"{count} {device}" for device, count in record.resolved.layers_by_device.items())
    return "all" if record.asked.n_gpu_layers < 0 else str(record.asked.n_gpu_layers)


def _speed_chart(material: Material, records: Sequence[Record], title: str) -> Chart:
    labels = [_bar_label(material, record, records) for record in records]
    summaries = [summarize(record) for record in records]

    def draw(theme: str) -> Any:
        figure, axis = new_figure(8.0, 0.75 + 0.3 * len(records), theme=theme)
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


def _bar_label(material: Material, record: Record, others: Sequence[Record]) -> str:
    """What tells this bar from the others: model, test, and what else differs."""
    parts = [_shorten(_model_name(record), 34), record.asked.test]
    if len({other.asked.n_threads for other in others}) > 1:
        parts.append(f"{record.asked.n_threads} threads")
    if len({_layers(other) for other in others}) > 1:
        parts.append(_layers(record))
    if settings := _find_settings(others, "n_threads", "n_gpu_layers", "n_depth"):
        parts.append(spell_settings(record.asked, settings))
    if len(material.machines) > 1:
        parts.append(_shorten(material.machine_name(record.machine), 24))
    return " · ".join(parts)


# --- layers on the GPU ------------------------------------------------------------------------------------------------


def show_layers(material: Material) -> Sequence[Part]:
    """Every placement that a sweep measured, and what else differs in nothing but the layers on the GPU; as one line each."""
    groups: dict[tuple[Any, ...], dict[int, Record]] = {}
    for record in material.records:
        key = record_key(record, but=("n_gpu_layers",))
        groups.setdefault(key, {})[record.asked.n_gpu_layers] = record
    curves = [
        [cells[count] for count in sorted(cells)]
        for cells in groups.values()
        if len(cells) > 1 or any(record.command == "sweep" for record in cells.values())
    ]
    if not curves:
        return []
    settings = _find_settings([record for curve in curves for record in curve], "n_gpu_layers", "n_depth")
    several = len(material.machines) > 1
    rows = [_layer_row(material, record, settings, several) for curve in curves for record in curve]
    headers = ["model", "test", "-ngl", *["settings"] * bool(settings), "t/s", "95 % interval", "what ran"]
    return [*_layer_charts(curves, settings), Table(["machine", *headers] if several else headers, rows)]


def _layer_row(material: Material, record: Record, settings: Sequence[str], several: bool) -> list[Cell | str]:
    summary, layers = summarize(record), record.asked.n_gpu_layers
    return [
        *[material.machine_name(record.machine)] * several,
        _model_name(record),
        record.asked.test,
        Cell("all" if layers < 0 else str(layers), 1e9 if layers < 0 else layers),
        *[spell_settings(record.asked, settings)] * bool(settings),
        Cell(format_rate(summary.rate_tok_per_s), summary.rate_tok_per_s),
        _interval(summary),
        _layers(record),
    ]


def _layer_charts(curves: Sequence[Sequence[Record]], settings: Sequence[str]) -> list[Chart]:
    charts = []
    for kind, title in (("pp", "Prompt processing"), ("tg", "Text generation")):
        chosen = [curve for curve in curves if len(curve) > 1 and curve[0].asked.kind == kind]
        if chosen:
            charts.append(_layer_chart(chosen, title, settings))
    return charts


def _layer_chart(curves: Sequence[Sequence[Record]], title: str, settings: Sequence[str]) -> Chart:
    def draw(theme: str) -> Any:
        from harness.render.figure import add_legend

        figure, axis = new_figure(theme=theme)
        for at, curve in enumerate(curves):
            known = [(place, summarize(record)) for record in curve if (place := _offloaded(record)) is not None]
            points = sorted(known, key=lambda point: point[0])
            first = curve[0]
            parts = (f"{_model_name(first)} {first.asked.test}", spell_settings(first.asked, settings))
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
    rows = [_text_row(run, footnotes) for run in material.texts]
    headers = ("model", "PP t/s", "TG t/s", "load", "first token", "total", "tokens", "ended", "when")
    means = (
        "PP and TG are what Ollama calls prompt eval rate and eval rate; sampling and the way of the text are in them. The first "
        "token's decode counts as the prompt's, so TG is a little too good for short texts."
    )
    return [Prose([means]), Table(headers, rows, footnotes.texts())]


def _text_row(run: TextRun, footnotes: Footnotes) -> list[Cell | str]:
    figures = run.figures
    texts = [caution.text for caution in run.warnings] + ([run.failure.message] if run.failure else [])
    return [
        (run.model.file_name if run.model else "—") + footnotes.mark(texts),
        _rate_cell(figures.prompt_eval_rate_tok_per_s),
        _rate_cell(figures.eval_rate_tok_per_s),
        _duration_cell(figures.load_duration_ns),
        _duration_cell(figures.first_token_ns),
        _duration_cell(figures.total_duration_ns),
        f"{figures.prompt_eval_count or 0} + {figures.eval_count or 0}",
        run.finish,
        run.time_utc[:16].replace("T", " "),
    ]


def show_ollama(material: Material) -> Sequence[Part]:
    """Comparisons with an Ollama server."""
    rows = []
    for line in material.of("ollama-comparison"):
        pairs = [(turn["ollama"], turn["direct"]["figures"]) for turn in line.values["rounds"] if turn.get("ollama")]
        for name, field in (("PP", "prompt_eval"), ("TG", "eval")):
            theirs = [rate(ollama[f"{field}_count"], ollama[f"{field}_duration_ns"]) for ollama, _ in pairs]
            ours = [rate(direct[f"{field}_count"], direct[f"{field}_duration_ns"]) for _, direct in pairs]
            both = [(a, b) for a, b in zip(theirs, ours, strict=True) if a and b]
            if both:
                rows.append(_ollama_row(line.values, name, both))
    headers = ("model", "", "Ollama", "Ollama t/s", "harness t/s", "harness / Ollama", "rounds", "when")
    means = "The same file, prompts, context, threads and layers, by turns, through an Ollama server and directly."
    return [Prose([means]), Table(headers, rows)] if rows else []


def _ollama_row(values: Mapping[str, Any], name: str, pairs: Sequence[tuple[float, float]]) -> list[Cell | str]:
    theirs, ours = median([a for a, _ in pairs]), median([b for _, b in pairs])
    ratios = [b / a for a, b in pairs]
    interval = median_interval(ratios)
    between = f" [{interval.low:.2f} – {interval.high:.2f}]" if interval else ""
    return [
        values["task"]["name"],
        name,
        str(values["ollama_version"]),
        Cell(format_rate(theirs), theirs),
        Cell(format_rate(ours), ours),
        Cell(f"{median(ratios):.2f}{between}", median(ratios)),
        Cell(str(len(pairs)), len(pairs)),
        str(values["time_utc"])[:16].replace("T", " "),
    ]


def show_parity(material: Material) -> Sequence[Part]:
    """Comparisons with llama-bench, by scripts/parity."""
    rows: list[list[Cell | str]] = [
        [
            str(line.values["model"]),
            str(line.values["test"]),
            Cell(format_rate(line.values["harness_tok_per_s"]), line.values["harness_tok_per_s"]),
            Cell(format_rate(line.values["llama_bench_tok_per_s"]), line.values["llama_bench_tok_per_s"]),
            Cell(f"{line.values['ratio_median']:.4f}", line.values["ratio_median"]),
            f"{line.values['ratio_low']:.4f} – {line.values['ratio_high']:.4f}"
            if line.values.get("ratio_low")
            else "—",
            str(line.values["time_utc"])[:16].replace("T", " "),
        ]
        for line in material.of("parity")
    ]
    headers = ("model", "test", "harness t/s", "llama-bench t/s", "ratio", "95 % interval", "when")
    means = "harness and llama-bench, from the same source, run alternately, compared pair by pair. Above 1, harness was faster."
    return [Prose([means]), Table(headers, rows)] if rows else []


# --- trouble and method -----------------------------------------------------------------------------------------------


def list_failures(material: Material) -> Sequence[Part]:
    """Cells that have no result, and why."""
    rows = [
        [
            _model_name(record),
            record.asked.test,
            record.failure.phase,
            record.failure.message,
            record.failure.log[-1] if record.failure.log else "",
        ]
        for record in material.failures
        if record.failure
    ]
    return [Table(("model", "test", "phase", "what happened", "last words"), rows)] if rows else []


def list_warnings(material: Material) -> Sequence[Part]:
    """Every caution once with the number of figures that it qualifies, and what could not be read."""
    counts: dict[tuple[str, bool], int] = {}
    cautions = [caution for record in material.records for caution in summarize(record).cautions]
    cautions += [caution for run in material.texts for caution in run.warnings]
    found = [(caution.text, caution.distrust) for caution in cautions]
    # A ledger, and a roof, count as one figure each.
    for kind, field in (("time-ledger", "cautions"), ("roofline", "warnings")):
        told = [caution for line in material.of(kind) for caution in line.values.get(field, ())]
        found += [(str(caution["text"]), bool(caution["distrust"])) for caution in told]
    for key in found:
        counts[key] = counts.get(key, 0) + 1
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
    versions = sorted({str(line.values.get("harness_version") or "?") for line in material.lines})
    facts = Facts([("records", ", ".join(material.files)), ("written by harness", ", ".join(versions))])
    return [Prose(texts), facts]


# --- small things -----------------------------------------------------------------------------------------------------


def _number(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def _file_name(record: Record) -> str:
    return record.model.file_name if record.model else record.asked.file_name


def _is_synthetic(record: Record) -> bool:
    return record.model is not None and record.model.is_synthetic


def _model_name(record: Record) -> str:
    """llama.cpp's description with the number of parameters; the file's name where it was never loaded; synthetic ones marked."""
    if record.model is None:
        return _file_name(record)
    name = f"{record.model.description}, {format_params(record.model.n_params)}"
    return f"{name} (synthetic)" if record.model.is_synthetic else name


def _interval(summary: Summary) -> str:
    if summary.rate_low is None or summary.rate_high is None:
        return "—"
    return f"{format_rate(summary.rate_low)} – {format_rate(summary.rate_high)}"


def _rate_cell(value: float | None) -> Cell | str:
    return "—" if value is None else Cell(format_rate(value), value)


def _duration_cell(duration_ns: int | None) -> Cell | str:
    return "—" if duration_ns is None else Cell(format_duration(duration_ns), duration_ns)


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
