"""Sweeps over layers for people and programs: speeds and memory by placement, what the wire costs, flags for other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.records.placements import LayerRow, Speed
from harness.units import MIB, format_duration, format_rate
from harness.untrusted import harmless
from harness.views import page as pages
from harness.views.cells import heading, spell

#: The order of causes in tables.
_CAUSES = ("model", "kv", "recurrent", "compute", "output")


@dataclass(frozen=True, slots=True)
class Page:
    """What stands around the rows: a heading of facts that all rows share, and remarks under them."""

    heading: Sequence[str]
    notes: Sequence[str] = ()


def render_rows(rows: Sequence[LayerRow], page: Page, *, form: str = "simple") -> str:
    """The table of speeds, the table of memory, then remarks; `form` is ``simple`` or ``github``."""
    notes = _Notes()
    is_page = form == "simple"
    title = pages.heading(page.heading) if is_page else harmless.markdown(" · ".join(page.heading))
    parts = [title, "", _table([_speed_cells(row, rows, notes) for row in rows], form)]
    parts += _memory_tables(rows, form)
    if any((row.memory or {}).get("CPU", {}).get("model") and row.n_gpu_layers for row in rows):
        page = Page(
            page.heading, (*page.notes, "CPU model is the mapped span of the file; it may hold what was offloaded too")
        )
    lines = [*notes.lines(), *page.notes]
    parts += [""] * bool(lines) + [wrap(line) if is_page else harmless.markdown(line) for line in lines]
    return "\n".join(parts) + "\n"


def wrap(line: str) -> str:
    """Fold a sentence to the page's width, its later lines indented."""
    return pages.fill(line, rest="    ")


def _table(rows: Sequence[Mapping[str, str]], form: str) -> str:
    return pages.table(rows, "r", style=form)


def _speed_cells(row: LayerRow, rows: Sequence[LayerRow], notes: _Notes) -> dict[str, str]:
    cells = name_row(row)
    tests = list(dict.fromkeys(speed.test for item in rows for speed in item.speeds))
    lost = _tell_loss(row, rows)
    own = {speed.test: speed for speed in row.speeds}
    word = "skipped" if row.skipped else "failed" if row.failure else "—"
    for test in tests or [""]:
        speed = own.get(test)
        remarks = (
            [(caution.code, caution.text) for caution in speed.cautions] if speed else [(lost, lost)] if lost else []
        )
        text = format_rate(speed.rate_tok_per_s) if speed else word
        cells[f"{test} t/s".strip()] = text + notes.mark(remarks)
    cells["load"] = "" if row.load_duration_ns is None else format_duration(row.load_duration_ns)
    if any(speed.joules_per_token is not None for item in rows for speed in item.speeds):
        for test in tests:
            cells[f"J/{test[:2]}"] = _joules(own.get(test))
    return cells


def _tell_loss(row: LayerRow, rows: Sequence[LayerRow]) -> str | None:
    """Why a placement has no speed, said once for all that lack it for the same reason."""
    reason = row.failure or row.skipped
    if reason is None:
        return None
    alike = [_label(item) for item in rows if (item.failure or item.skipped) == reason]
    return f"{', '.join(alike if len(alike) <= 4 else [*alike[:2], f'… {alike[-1]}'])}: {reason}"


def _joules(speed: Speed | None) -> str:
    return "" if speed is None or speed.joules_per_token is None else f"{speed.joules_per_token:.3g}"


class _Notes:
    """Remarks, numbered by kind: of those that differ only in their figures, the one with the largest stands for all."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}

    def mark(self, remarks: Sequence[tuple[str, str]]) -> str:
        for kind, text in remarks:
            self._texts.setdefault(kind, []).append(text)
        numbers = sorted({list(self._texts).index(kind) + 1 for kind, _ in remarks})
        return f" [{','.join(map(str, numbers))}]" if numbers else ""

    def lines(self) -> list[str]:
        return [
            f"[{number}] {'at worst: ' if len(set(texts)) > 1 else ''}{max(texts)}"
            for number, texts in enumerate(self._texts.values(), start=1)
        ]


def name_row(row: LayerRow) -> dict[str, str]:
    """The swept parameters by their headings."""
    return {heading(name): spell(value) for name, value in row.varied.items()}


def _label(row: LayerRow) -> str:
    first, *rest = row.varied.items()
    return ", ".join([spell(first[1]), *(f"{heading(name)} {spell(value)}" for name, value in rest)])


def _memory_tables(rows: Sequence[LayerRow], form: str) -> list[str]:
    """Memory by device and cause: one table, or one for each device where that is too wide for the page."""
    known = [row for row in rows if row.memory]
    devices = sorted({device for row in known for device in row.memory or {}}, key=lambda name: (name == "CPU", name))
    if not devices:
        return []
    text = _table([_memory_cells(row, known, devices) for row in known], form)
    texts = [text]
    if form == "simple" and max(map(len, text.splitlines())) > pages.width():
        texts = [_table([_memory_cells(row, known, [device]) for row in known], form) for device in devices]
    return ["", "memory in MiB, by device and cause", *(line for text in texts for line in ("", text))]


def _memory_cells(row: LayerRow, rows: Sequence[LayerRow], devices: Sequence[str]) -> dict[str, str]:
    cells = name_row(row)
    for device in devices:
        used = {cause for item in rows for cause in (item.memory or {}).get(device, {})}
        for cause in (name for name in _CAUSES if name in used):
            size = (row.memory or {}).get(device, {}).get(cause)
            cells[f"{device}\n{cause}"] = "" if size is None else f"{size / MIB:.1f}"
    return cells


def export_rows(rows: Sequence[LayerRow]) -> list[dict[str, Any]]:
    """Rows as plain JSON values; what is not known is null, what this machine cannot tell is left out."""
    return [_export_row(row) for row in rows]


def _export_row(row: LayerRow) -> dict[str, Any]:
    speeds = {
        speed.test: {
            "rate_tok_per_s": round(speed.rate_tok_per_s, 6),
            "ci95_low_tok_per_s": speed.rate_low,
            "ci95_high_tok_per_s": speed.rate_high,
            "repetitions": speed.n_samples,
            **({} if speed.joules_per_token is None else {"joules_per_token": speed.joules_per_token}),
            "warnings": [caution.text for caution in speed.cautions],
        }
        for speed in row.speeds
    }
    return {
        "n_gpu_layers": row.n_gpu_layers,
        **{name: value for name, value in row.varied.items() if name != "n_gpu_layers"},
        "tests": speeds,
        "load_duration_ns": row.load_duration_ns,
        "layers_by_device": None if row.layers_by_device is None else dict(row.layers_by_device),
        "memory_bytes": None if row.memory is None else {device: dict(causes) for device, causes in row.memory.items()},
        **({} if row.sampler_share is None else {"sampler_share_of_a_cpu": row.sampler_share}),
        "failure": row.failure,
        "skipped": row.skipped,
    }


def describe_wire(
    endpoint: str, sent: float, received: float, round_trips: float, token_s: float | None, crossing_s: float | None
) -> str:
    """What one token costs on the network, in a sentence; crossing_s is None where the rows could not tell it."""
    text = (
        f"network to {endpoint}: a token sends {sent / 1e3:.1f} kB, receives {received / 1e3:.1f} kB and waits for "
        f"{round_trips:.1f} answers (counted in a run of its own)"
    )
    if token_s is None or crossing_s is None:
        return text + "."
    if crossing_s <= 0:
        return text + "; its time cannot be told from noise."
    share = crossing_s / token_s
    return (
        text
        + f"; crossing takes {format_duration(crossing_s * 1e9)} of {format_duration(token_s * 1e9)} ({share:.0%})."
    )


def flag_lines(n_gpu_layers: int) -> list[str]:
    """How to ask three programs for a number of layers. num_gpu and n_gpu_layers count as llama.cpp's -ngl does."""
    return [
        f"llama.cpp         -ngl {n_gpu_layers}",
        f"Ollama            PARAMETER num_gpu {n_gpu_layers}",
        f"llama-cpp-python  n_gpu_layers={n_gpu_layers}",
    ]
