"""Tables for people: plain for a terminal of 80 columns, Markdown for an issue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.records.cells import Record
from harness.records.statistics import Summary, joules_per_token, summarize
from harness.spec import RunSpec, defaults, parameters
from harness.speed.model_names import ModelNames, file_of
from harness.units import format_duration, format_mib, format_params, format_rate
from harness.untrusted import harmless
from harness.views import page
from harness.views.llama_bench import name_backends


def render_table(records: Sequence[Record]) -> str:
    """A plain table under a heading that says once what all rows share."""
    footnotes = _Footnotes()
    columns = _columns(records, footnotes)
    shared = {name: values[0] for name, values in columns.items() if name in _HOISTED and len(set(values)) == 1}
    lines = [page.heading([_HOISTED[name].format(value) for name, value in shared.items()])]
    lines += _preparation(records)
    rest = {name: values for name, values in columns.items() if name not in shared}
    body = page.table(_rows(rest), _alignment(rest))
    notes = [page.fill(note, rest="    ") for note in footnotes.lines()]
    energy = [page.fill(note) for note in _energy_notes(records)]
    return "\n".join([*filter(None, lines), "", body, *([""] if energy else []), *energy, *notes]) + "\n"


def describe_cell(content: object) -> str | None:
    """One line on a cell that was just measured, for whoever waits."""
    if not isinstance(content, Record):
        return None
    if content.failure is not None or not content.timed:
        return f"{content.asked.test}: failed"
    summary = summarize(content)
    interval = f" ({_interval(summary)})" if summary.rate_low is not None else ""
    return f"{content.asked.test}: {format_rate(summary.rate_tok_per_s)} t/s{interval}"


def render_markdown(records: Sequence[Record]) -> str:
    """llama-bench's table with the median, its interval and the number of repetitions; pastes into an issue."""
    footnotes = _Footnotes()
    columns = _columns(records, footnotes)
    body = page.table(_rows(columns), _alignment(columns), style="github")
    notes = footnotes.lines(separator="  ")
    told = [*notes, "", *_energy_notes(records), *_builds(records)]
    return "\n".join([body, *map(harmless.markdown, told)]) + "\n"


def _rows(columns: dict[str, list[str]]) -> list[dict[str, str]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


#: Columns that move into the heading where all rows agree, and how they read there.
_HOISTED = {
    "model": "{}",
    "size": "{}",
    "params": "{} params",
    "backend": "{}",
    "ngl": "-ngl {}",
    "threads": "{} threads",
}

_LEFT = {"model", "file", "backend", "test", "sm", "mmap"}


def _alignment(columns: dict[str, list[str]]) -> list[str]:
    return ["left" if name in _LEFT else "right" for name in columns]


class _Footnotes:
    """Numbers remarks in the order in which they appear; the same remark keeps its number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, texts: Sequence[str]) -> str:
        numbers = [self._numbers.setdefault(text, len(self._numbers) + 1) for text in texts]
        return "".join(f" [{number}]" for number in dict.fromkeys(numbers))

    def lines(self, separator: str = " ") -> list[str]:
        notes = [f"[{number}]{separator}{text}" for text, number in self._numbers.items()]
        return ["", *notes] if notes else []


def _columns(records: Sequence[Record], footnotes: _Footnotes) -> dict[str, list[str]]:
    """Every column by its heading: model, what varies, test, result."""
    shown = _varying(records)
    has_energy = any(joules_per_token(record) is not None for record in records)
    names = _file_names(records)
    table: dict[str, list[str]] = {}
    for record in records:
        row: dict[str, str] = {**_model_cells(record)}
        if names is not None:
            row["file"] = names.of(file_of(record))
        row |= {parameters()[name].heading: spell(getattr(record.asked, name)) for name in shown}
        row |= {"test": record.asked.test, **_result_cells(record, footnotes)}
        if has_energy:
            row["J/token"] = _spell_energy(record)
        for heading, value in row.items():
            table.setdefault(heading, []).append(value)
    return table


def _file_names(records: Sequence[Record]) -> ModelNames | None:
    """Names of the files, where llama.cpp's description is the same of several; None where it tells them apart."""
    files = [file for record in records if (file := file_of(record))]
    described: dict[str, set[str]] = {}
    for record, file in zip(records, files, strict=True):
        described.setdefault(record.model.description if record.model else "", set()).add(file.key)
    return ModelNames(files) if any(len(keys) > 1 for keys in described.values()) else None


def _model_cells(record: Record) -> dict[str, str]:
    model, build = record.model, record.build
    backend = name_backends(build.backends) if build else "?"
    if model is None:
        return {
            "model": record.asked.file_name,
            "size": "?",
            "params": "?",
            "backend": backend,
        }
    description = model.description + (" (synthetic)" if model.is_synthetic else "")
    return {
        "model": description,
        "size": format_mib(model.size_bytes),
        "params": format_params(model.n_params),
        "backend": backend,
    }


def _result_cells(record: Record, footnotes: _Footnotes) -> dict[str, str]:
    failure = record.failure
    if not record.timed or (failure is not None and failure.cause != "interrupted"):
        remark = f"{failure.phase}: {failure.message}" if failure else "nothing was measured"
        return {"t/s": "failed" + footnotes.mark([remark]), "95 % interval": "", "reps": ""}
    summary = summarize(record)
    rate = format_rate(summary.rate_tok_per_s) + footnotes.mark([caution.text for caution in summary.cautions])
    return {"t/s": rate, "95 % interval": _interval(summary), "reps": str(summary.n_samples)}


def _spell_energy(record: Record) -> str:
    joules = joules_per_token(record)
    return "" if joules is None else f"{joules:.3g}"


def _energy_notes(records: Sequence[Record]) -> list[str]:
    """Whose energy is in J/token: a processor's counter knows nothing of a card, and neither knows the rest of the machine."""
    found = [record.telemetry for record in records if record.telemetry and joules_per_token(record) is not None]
    sources = dict.fromkeys(power.source for telemetry in found for power in telemetry.power)
    shares = [telemetry.sampler_share for telemetry in found if telemetry.sampler_share]
    cost = f"; watching took {max(shares):.2%} of one CPU" if shares else ""
    return [f"J/token by {', '.join(sources)}{cost}"] if sources else []


def _interval(summary: Summary) -> str:
    if summary.rate_low is None or summary.rate_high is None:
        return "—"
    return f"{format_rate(summary.rate_low)} – {format_rate(summary.rate_high)}"


def _varying(records: Sequence[Record]) -> list[str]:
    """Parameters worth a column: those that differ from row to row or from the default, and threads or layers as llama-bench has it."""
    on_cpu = all(record.build is None or set(record.build.backends) <= {"CPU", "BLAS"} for record in records)
    always = {"n_threads"} if on_cpu else {"n_gpu_layers"}
    standard = defaults()
    shown = []
    for name, parameter in parameters().items():
        if parameter.scope == "test":
            continue
        values = {getattr(record.asked, name) for record in records}
        default = values if name == "n_threads" else {standard[name]}
        if name in always or len(values) > 1 or values != default:
            shown.append(name)
    return shown


def spell(value: Any) -> str:
    """A parameter's value as a table shows it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return "/".join(item if isinstance(item, str) else f"{item:g}" for item in value) or "auto"
    return str(value)


def spell_settings(spec: RunSpec, names: Sequence[str]) -> str:
    """Some parameters of a cell with their headings, ``nkvo on, type_k q8_0``."""
    return ", ".join(f"{heading(name)} {spell(getattr(spec, name))}" for name in names)


def heading(name: str) -> str:
    """A parameter's column heading."""
    return parameters()[name].heading or name.removeprefix("n_")


def _preparation(records: Sequence[Record]) -> list[str]:
    """How long it took to get ready, where the whole table shares one load."""
    loads = [record.load for record in records if record.load]
    if not loads or len({load.load_duration_ns for load in loads}) > 1:
        return []
    context_ns = max(load.context_duration_ns for load in loads)
    return [f"loaded in {format_duration(loads[0].load_duration_ns)}, context in {format_duration(context_ns)}"]


def _builds(records: Sequence[Record]) -> list[str]:
    lines = [
        f"build: {record.build.ggml_commit.split('-')[0]} (llama-cpp-python {record.build.llama_cpp_python}, "
        f"harness {record.harness_version}), {record.machine.cpu}, {record.machine.os.split()[0]}"
        for record in records
        if record.build
    ]
    return list(dict.fromkeys(lines))
