"""The memory ledger as tables of 80 columns, as Markdown, and as data."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.memory.forecast import COMPUTE, HOST, KV, MAPPED, OUTPUT, RECURRENT, REPACKED
from harness.memory.ledger import CardFit, Fit, Forecast, Measurement, Report, Row, make_ledger
from harness.memory.resident import UNREAD, UNTOUCHED
from harness.records.kinds import OVERHEAD_SCHEMA
from harness.spec import cell_key
from harness.units import MIB, format_gb
from harness.untrusted import harmless
from harness.views import page

#: Of what was asked: the model has a field of its own, and n_ctx is prompt, generation and depth together.
_SAID_ELSEWHERE = ("model", "n_gen", "n_depth")


def render_table(report: Report) -> str:
    """The ledger, or the contexts that were asked for, for a terminal."""
    return _lay_out(report, "simple")


def render_markdown(report: Report) -> str:
    """The same for an issue."""
    return _lay_out(report, "github")


def _lay_out(report: Report, style: str) -> str:
    sections = [_tell(_show_heading(report), style)]
    if len(report.forecasts) > 1:
        sections.append(_show_contexts(report, style))
    else:
        sections += [_show_ledger(report, style), _tell(_show_account(report), style)]
        if report.measurement:
            sections.append(_show_steps(report.measurement, style))
    sections += [_tell(_show_fits(report), style), _tell(_show_remarks(report), style)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _tell(text: str, style: str) -> str:
    """Sentences, which in Markdown may begin no markup."""
    return text if style == "simple" else "\n".join(harmless.markdown(line) for line in text.split("\n"))


def _show_heading(report: Report) -> str:
    subject, spec = report.subject, report.forecast.spec
    synthetic = " (synthetic)" if subject.is_synthetic else ""
    shape = f"{subject.architecture}, {subject.n_layers} layers"
    context = ""
    if len(report.forecasts) == 1:
        trained = f" of {subject.n_ctx_train}" if subject.n_ctx_train else ""
        context = f"context {spec.n_ctx}{trained}"
    flash = {True: "on", False: "off", None: spec.flash_attn}[
        report.measurement.flash_attn if report.measurement else report.forecast.flash_attn
    ]
    return "\n".join(
        [
            page.fill(f"{subject.label}{synthetic}"),
            page.heading([shape, subject.file_type or "", f"file {format_gb(subject.file_bytes)}"]),
            page.heading(
                [context, f"K {spec.type_k}, V {spec.type_v}", f"n_ubatch {spec.n_ubatch}", f"flash attention {flash}"]
            ),
        ]
    )


def _mib(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f"{size_bytes / MIB:.2f}"


def _percent(share: float | None, digits: int = 2) -> str:
    return "" if share is None else f"{100 * share:.{digits}f} %"


def _make_table(columns: Mapping[str, Sequence[str]], style: str, n_left: int = 1) -> str:
    """Lay columns out; those that are empty throughout are left out."""
    shown = {name: list(values) for name, values in columns.items() if any(values)}
    rows = [dict(zip(shown, row, strict=True)) for row in zip(*shown.values(), strict=True)]
    return page.table(rows, "l" * n_left + "r", style=style, air=0)


# --- one context ------------------------------------------------------------------------------------------------------


def _show_ledger(report: Report, style: str) -> str:
    rows = make_ledger(report.forecast, report.measurement)
    several = len({row.device for row in rows}) > 1
    lines = [
        (
            row.cause,
            row.device if several else "",
            row.predicted_bytes,
            row.measured_bytes,
            row.error,
            row.resident_bytes,
        )
        for row in rows
    ]
    lines += _total_lines(report, rows, several)
    columns: dict[str, list[str]] = {
        "MiB": [cause for cause, *_ in lines],
        "device": [device for _, device, *_ in lines],
        "predicted": [_mib(line[2]) for line in lines],
        "measured": [_mib(line[3]) for line in lines],
        "error": [_percent(line[4]) for line in lines],
        "in memory": [_mib(line[5]) for line in lines],
    }
    return _make_table(columns, style, n_left=2 if several else 1)


_Line = tuple[str, str, int | None, int | None, float | None, int | None]


def _total_lines(report: Report, rows: Sequence[Row], several: bool) -> list[_Line]:
    """What the lines add up to, for the host."""
    measured, host = report.measurement, HOST if several else ""
    lines: list[_Line] = []
    if measured:
        lines.append(("= growth", host, None, measured.account.growth_bytes, None, measured.account.growth_bytes))
        interpreter = measured.interpreter_bytes
        lines.append(
            ("the interpreter before", host, report.forecast.interpreter_bytes, interpreter, None, interpreter)
        )
    totals = total_bytes(report)
    predicted, allocated = totals["predicted_bytes"], totals["measured_bytes"]
    error = predicted / allocated - 1 if predicted and allocated else None
    lines.append(("= process, all touched", host, predicted, allocated, error, totals["resident_bytes"]))
    return lines


def total_bytes(report: Report) -> dict[str, int | None]:
    """The whole process in host memory: predicted, allocated (once every page was touched), and resident now; None if unknown."""
    measured = report.measurement
    allocated = resident = None
    if measured:
        rows = make_ledger(report.forecast, measured)
        corrections = (UNREAD, UNTOUCHED)
        allocated = measured.interpreter_bytes + sum(
            row.measured_bytes or 0 for row in rows if row.device == HOST and row.cause not in corrections
        )
        resident = measured.resident_bytes
    predicted = report.forecast.on(HOST) if report.forecast.lines else None
    return {"predicted_bytes": predicted, "measured_bytes": allocated, "resident_bytes": resident}


def _show_account(report: Report) -> str:
    """Say in words how well the ledger adds up and what the lines below the buffers mean."""
    measured = report.measurement
    if measured is None:
        return page.fill(f"not measured: {report.failure}", rest=" " * 14) if report.failure else ""
    account = measured.account
    lines = []
    if account.explained_share is None:
        lines.append(
            "This OS does not tell mappings apart: the growth is known, its causes are llama.cpp's word alone."
        )
    else:
        lines.append(
            f"{_percent(account.explained_share)} of the growth of resident memory is explained; "
            f"{_mib(abs(account.unexplained_bytes or 0))} MiB are not."
        )
    corrections = {share.cause: -share.size_bytes for share in account.corrections}
    if (untouched := corrections.get(UNTOUCHED, 0)) > 0:
        lines.append(f"{_mib(untouched)} MiB are allocated and not in memory yet: nothing was written there so far.")
    if (unread := corrections.get(UNREAD, 0)) > MIB // 2:
        lines.append(f"{_mib(unread)} MiB of the mapped file are not in memory, or not in this process's.")
    last = measured.grown[-1]
    if last.uss_bytes is not None:
        lines.append(f"{_mib(last.rss_bytes - last.uss_bytes)} MiB are shared with other processes (RSS less USS).")
    if last.swap_bytes:
        lines.append(f"{_mib(last.swap_bytes)} MiB are in swap.")
    return "\n".join(page.fill(line, rest="") for line in lines)


def _show_steps(measured: Measurement, style: str) -> str:
    readings = measured.readings
    grown = [0, *(after.rss_bytes - before.rss_bytes for before, after in zip(readings, readings[1:], strict=False))]
    columns: dict[str, list[str]] = {
        "after (MiB)": [reading.step for reading in readings],
        "resident": [_mib(reading.rss_bytes) for reading in readings],
        "change": [f"{change / MIB:+.2f}" if change else "" for change in grown],
        "of files": [_mib(reading.file_bytes) for reading in readings],
        "anonymous": [_mib(reading.anonymous_bytes) for reading in readings],
        "PSS": [_mib(reading.pss_bytes) for reading in readings],
        "USS": [_mib(reading.uss_bytes) for reading in readings],
    }
    tables = [_make_table(columns, style), *_show_devices(measured, style)]
    notes = ["after: context and model were freed."] if any(item.step == "after" for item in readings) else []
    if all(reading.pss_bytes is None for reading in readings):
        notes.append("This OS does not tell PSS, the share of shared pages.")
    return "\n".join([*tables, *(page.fill(note, rest="") for note in notes)])


def _show_devices(measured: Measurement, style: str) -> list[str]:
    """Show what each device has free, and what NVML says that this process has of it, after each step."""
    readings = [reading for reading in measured.readings if reading.devices]
    columns: dict[str, list[str]] = {"after (MiB)": [reading.step for reading in readings]}
    for name in dict.fromkeys(device.name for reading in readings for device in reading.devices):
        by_step = [next((item for item in reading.devices if item.name == name), None) for reading in readings]
        columns[f"{name} free"] = [_mib(item.free_bytes) if item else "" for item in by_step]
        columns[f"{name} ours"] = [_mib(item.process_bytes) if item else "" for item in by_step]
    return ["", _make_table(columns, style), ""] if readings else []


# --- several contexts -------------------------------------------------------------------------------------------------


def _show_contexts(report: Report, style: str) -> str:
    forecasts = report.forecasts
    columns: dict[str, list[str]] = {"context": [str(forecast.n_ctx) for forecast in forecasts]}
    for name, causes in _CONTEXT_COLUMNS.items():
        columns[name] = [_mib(_sum(forecast, causes)) for forecast in forecasts]
    columns["process"] = [_mib(_process(forecast)) for forecast in forecasts]
    columns["total MiB"] = [_mib(sum(forecast.on(device) for device in forecast.devices)) for forecast in forecasts]
    columns["fits"] = [_fits(report, forecast) for forecast in forecasts]
    lines = [_make_table(columns, style, n_left=0)]
    if (slope := report.context_slope) is not None:
        lines.append("")
        lines.append(page.fill(f"Each further token of context takes {slope:.0f} bytes.", rest=""))
        lines.append(page.fill("All of this is predicted; a single --ctx is measured as well.", rest=""))
    return "\n".join(lines)


def _fits(report: Report, forecast: Forecast) -> str:
    """Whether a context fits this machine's memory and every device in it."""
    sizes = {fit.device: fit.total_bytes for fit in report.fits}
    if None in sizes.values():
        return ""
    return "yes" if all(forecast.on(device) <= (size or 0) for device, size in sizes.items()) else "no"


_CONTEXT_COLUMNS: dict[str, tuple[str, ...]] = {
    "weights": ("weights mapped", "weights copied"),
    "repacked": (REPACKED,),
    "KV cache": (KV, RECURRENT),
    "compute": (COMPUTE, OUTPUT),
}


def _sum(forecast: Forecast, causes: Sequence[str]) -> int | None:
    sizes = [line.size_bytes for line in forecast.lines if line.cause in causes]
    return sum(sizes) if sizes else None


def _process(forecast: Forecast) -> int | None:
    if forecast.interpreter_bytes is None:
        return None
    return forecast.interpreter_bytes + sum(share.size_bytes for share in forecast.runtime)


# --- fits and remarks -------------------------------------------------------------------------------------------------


def _show_fits(report: Report) -> str:
    lines = [_tell_fit(fit) for fit in report.fits]
    if len(report.forecasts) > 1:
        lines = ["with the smallest of these contexts:", *lines]
    if saved := _sum(report.forecast, (REPACKED,)):
        lines.append(
            f"  {format_gb(saved)} of it are a second copy of weights; --mmap off keeps one copy, --repack off the file's"
        )
    if mapped := _sum(report.forecast, (MAPPED,)):
        lines.append(f"  {format_gb(mapped)} of it are pages of the file, which the OS may drop and read again")
    lines += [line for card in report.cards for line in _tell_card(card)]
    return "\n".join(page.fill(line) for line in lines)


def _tell_fit(fit: Fit) -> str:
    name = "this machine" if fit.device == HOST else fit.device
    need = f"{'more than ' if fit.is_partial else ''}{format_gb(fit.needed_bytes)} needed"
    if fit.total_bytes is None:
        return f"{name}: {need}; its memory cannot be read"
    free = "" if fit.free_bytes in (None, fit.total_bytes) else f", {format_gb(fit.free_bytes or 0)} free"
    if not fit.fits:
        verdict = f"{format_gb(fit.needed_bytes - fit.total_bytes)} too much"
    else:
        verdict = "fits" if fit.fits_now is not False else "fits, but not beside what else is in it now"
        verdict = "may fit" if fit.is_partial else verdict
    return f"{name}: {need} of {format_gb(fit.total_bytes)}{free}: {verdict}"


def _tell_card(card: CardFit) -> list[str]:
    how_many = f"all {card.n_layers}" if card.n_fitting == card.n_layers else f"{card.n_fitting} of {card.n_layers}"
    at_most, at_least = ("at most ", "more than ") if card.compute_bytes is None else ("", "")
    lines = [
        f"{card.device}: {at_most}{how_many} layers fit (-ngl {card.n_fitting}); all need {at_least}{format_gb(card.needed_bytes)}"
    ]
    if card.n_fitting:
        parts = [
            f"weights {format_gb(card.price.device_weights_bytes)}",
            f"cache {format_gb(card.price.device_cache_bytes)}",
            "compute not known" if card.compute_bytes is None else f"compute up to {format_gb(card.compute_bytes)}",
        ]
        if card.context_bytes:
            parts.append(f"CUDA's context {format_gb(card.context_bytes)}")
        lines.append("  " + ", ".join(parts))
    return lines


def _show_remarks(report: Report) -> str:
    remarks = dict.fromkeys((*report.remarks, *(remark for item in report.forecasts for remark in item.remarks)))
    return "\n".join(page.fill(f"[{number}] {remark}", rest="    ") for number, remark in enumerate(remarks, start=1))


# --- data -------------------------------------------------------------------------------------------------------------


def export_report(report: Report) -> dict[str, Any]:
    """The report as plain data in base units: what ``-o json`` prints and what a journal keeps; None is not known or not measured.

    ``ledger`` has the lines of the first context: cause, device, predicted_bytes, measured_bytes (what llama.cpp allocated, or what
    the OS says of the rest), resident_bytes, error. Measured lines of device ``CPU`` add up to ``resident_growth_bytes``, as long as
    the OS tells mappings apart: what is allocated but not in memory is taken back by negative lines.
    """
    measured = report.measurement
    account = measured.account if measured else None
    spec = report.forecast.spec
    return {
        "schema": OVERHEAD_SCHEMA,
        "kind": "overhead",
        "model": report.subject.label,
        "origin": report.subject.origin,
        "is_synthetic": report.subject.is_synthetic,
        "architecture": report.subject.architecture,
        "file_type": report.subject.file_type,
        "file_bytes": report.subject.file_bytes,
        "n_layers": report.subject.n_layers,
        "n_ctx_train": report.subject.n_ctx_train,
        "n_ctx": spec.n_ctx,
        "asked": dict(cell_key(spec, but=_SAID_ELSEWHERE)),
        "flash_attn": measured.flash_attn if measured else report.forecast.flash_attn,
        "load_mode": measured.load_mode if measured else None,
        "layers_by_device": measured.layers_by_device if measured else None,
        "ledger": [_export_row(row) for row in make_ledger(report.forecast, measured)],
        "resident_growth_bytes": account.growth_bytes if account else None,
        "explained_bytes": account.explained_bytes if account else None,
        "explained_share": account.explained_share if account else None,
        "unexplained_bytes": account.unexplained_bytes if account else None,
        "totals": total_bytes(report),
        "steps": [_export_step(reading) for reading in measured.readings] if measured else [],
        "fits": [_export_fit(fit) for fit in report.fits],
        "cards": [_export_card(card) for card in report.cards],
        "contexts": [_export_forecast(item) for item in report.forecasts],
        "context_slope_bytes_per_token": report.context_slope,
        "failure": report.failure,
        "warnings": list(
            dict.fromkeys((*report.remarks, *(text for item in report.forecasts for text in item.remarks)))
        ),
    }


def _export_row(row: Row) -> dict[str, Any]:
    return {
        "cause": row.cause,
        "device": row.device,
        "predicted_bytes": row.predicted_bytes,
        "measured_bytes": row.measured_bytes,
        "resident_bytes": row.resident_bytes,
        "error": row.error,
    }


def _export_step(reading: Any) -> dict[str, Any]:
    names = ("step", "rss_bytes", "pss_bytes", "uss_bytes", "swap_bytes", "anonymous_bytes", "file_bytes")
    devices = [
        {name: getattr(item, name) for name in ("name", "free_bytes", "total_bytes", "process_bytes")}
        for item in reading.devices
    ]
    return {**{name: getattr(reading, name) for name in names}, "devices": devices}


def _export_fit(fit: Fit) -> dict[str, Any]:
    return {
        "device": fit.device,
        "needed_bytes": fit.needed_bytes,
        "free_bytes": fit.free_bytes,
        "total_bytes": fit.total_bytes,
        "fits": fit.fits,
        "fits_now": fit.fits_now,
        "is_lower_bound": fit.is_partial,
    }


def _export_card(card: CardFit) -> dict[str, Any]:
    return {
        "device": card.device,
        "memory_bytes": card.memory_bytes,
        "n_layers": card.n_layers,
        "n_layers_fitting": card.n_fitting,
        "used_bytes": card.used_bytes,
        "needed_bytes": card.needed_bytes,
        "weights_bytes": card.price.device_weights_bytes,
        "kv_cache_bytes": card.price.device_cache_bytes,
        "compute_bytes_at_most": card.compute_bytes,
        "driver_context_bytes": card.context_bytes,
        "host_bytes": card.host_bytes,
    }


def _export_forecast(forecast: Forecast) -> dict[str, Any]:
    return {
        "n_ctx": forecast.n_ctx,
        "by_device": {device: forecast.on(device) for device in forecast.devices},
        "lines": [
            {"cause": line.cause, "device": line.device, "buffer": line.buffer, "size_bytes": line.size_bytes}
            for line in forecast.lines
        ],
        "process_bytes": _process(forecast),
    }


def render_csv(report: Report) -> str:
    """The ledger's lines, or one line a context where several were asked for."""
    stream = io.StringIO()
    if len(report.forecasts) > 1:
        rows = [
            {"n_ctx": item.n_ctx, **{f"{name}_bytes": _sum(item, causes) for name, causes in _CSV_COLUMNS.items()},
             "process_bytes": _process(item), "total_bytes": sum(item.on(device) for device in item.devices)}
            for item in report.forecasts
        ]  # fmt: skip
    else:
        rows = [_export_row(row) for row in make_ledger(report.forecast, report.measurement)]
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: harmless.csv_cell(value) if isinstance(value, str) else value for name, value in row.items()}
        for row in rows
    )
    return stream.getvalue()


_CSV_COLUMNS = {"_".join(name.lower().split()): causes for name, causes in _CONTEXT_COLUMNS.items()}


def render_json(report: Report) -> str:
    """The whole report."""
    return harmless.json_text(export_report(report)) + "\n"


#: The formats that ``-o`` takes, by name.
FORMATS: dict[str, Callable[[Report], str]] = {
    "table": render_table,
    "md": render_markdown,
    "csv": render_csv,
    "json": render_json,
}
