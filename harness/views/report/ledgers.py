"""Sections of ledgers: where a model's memory goes, and where a generated token's time goes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from harness.records.cells import machine_key
from harness.records.kinds import TimeLine, TimeRecord
from harness.records.memory import MemoryRecord
from harness.records.token_time import DISPATCH, PARTS, DepthLedger, Gap, TimeLedger, WholeToken
from harness.spec import cell_key
from harness.units import format_duration, format_rate
from harness.views.figures.memory import draw_ledger
from harness.views.figures.token_time import draw_token_time
from harness.views.memory import describe_note
from harness.views.report.material import Material
from harness.views.report.parts import Cell, Chart, Facts, Part, Prose, Table, text_cell
from harness.views.token_time import PART_NAMES, STEP_NAMES

Content = TypeVar("Content")

#: What an overhead record asked for by name, and how the page calls it; told only where it is not the usual.
_ASKED = (
    ("type_k", "K cache", "f16"), ("type_v", "V cache", "f16"), ("repack", "repacking", True), ("mmap", "mmap", "auto"),
    ("n_batch", "n_batch", 2048), ("n_ubatch", "n_ubatch", 512),
)  # fmt: skip


# --- memory -----------------------------------------------------------------------------------------------------------


def show_memory(material: Material) -> Sequence[Part]:
    """Memory ledgers: each line of each one, and what the process took in all; of the same question the latest answer."""
    lines, n_older = _latest(material.contents(MemoryRecord), _memory_question)
    parts: list[Part] = []
    for line in lines:
        parts += _show_one_memory(material, line)
    means = "What a model takes, cause by cause: predicted from its header, allocated by llama.cpp, and how much of it was in memory."
    return [Prose([means, *_tell_older(n_older)]), *parts] if parts else []


def _show_one_memory(material: Material, line: MemoryRecord) -> list[Part]:
    facts = [*_where(material, line), ("context", f"{line.forecast.n_ctx} tokens"), *_asked(line)]
    if line.failure:
        facts.append(("failed", line.failure.sentence))
    names = ("predicted_bytes", "measured_bytes", "resident_bytes")
    rows: list[list[Cell | str]] = [
        [row.cause, row.device, *(_bytes_cell(getattr(row, name)) for name in names)] for row in line.ledger
    ]
    remarks = []
    if line.measurement:
        before = line.measurement.interpreter_bytes  # the ledger is about what came after
        rows.append(["Python, before all that", "CPU", *(_bytes_cell(before) for _ in names)])
        remarks = ["In all, allocated: once every page was touched; what is not in memory yet is not taken off."]
    rows.append(["in all", "host", *(_bytes_cell(getattr(line.totals, name)) for name in names)])
    chart = Chart(
        lambda theme: draw_ledger(line, theme=theme),
        f"Memory of {material.model_name(line)}; the table below has its figures",
    )
    table = Table(
        ("what", "where", "predicted", "allocated", "resident"),
        rows,
        remarks=[*remarks, *map(describe_note, line.all_notes)],
    )
    drawn = any(getattr(row, name) for row in line.ledger for name in names)
    return [Facts(facts, material.model_name(line)), *([chart] if drawn else []), table]


def _where(material: Material, line: MemoryRecord | TimeLine) -> list[tuple[str, str]]:
    """The machine, where the page has several, and when."""
    named = [("machine", material.machine_name(line.machine))] if len(material.machines) > 1 else []
    return [*named, *([("when", _minute(line.time_utc))] if line.time_utc else [])]


def _asked(line: MemoryRecord) -> list[tuple[str, str]]:
    layers = line.asked.n_gpu_layers
    layers_by_device = line.measurement and line.measurement.layers_by_device
    if layers_by_device:
        facts = [("layers", " + ".join(f"{count} on {device}" for device, count in layers_by_device.items()))]
    else:
        facts = [("layers on the GPU", "all that fit" if layers < 0 else str(layers))]
    if line.flash_attn is not None:
        facts.append(("flash attention", "on" if line.flash_attn else "off"))
    told = [(title, value) for name, title, usual in _ASKED if (value := getattr(line.asked, name)) != usual]
    return facts + [(title, {True: "on", False: "off"}.get(value, str(value))) for title, value in told]


def _bytes_cell(size: int | None) -> Cell | str:
    return "—" if size is None else text_cell(f"{size / 1024**2:.1f} MiB", size)


# --- time -------------------------------------------------------------------------------------------------------------


def show_token_time(material: Material) -> Sequence[Part]:
    """Time ledgers: a token by its parts and operations, what the cache and an application add, and loading."""
    found, n_older = _latest(material.contents(TimeRecord), _time_question)
    parts: list[Part] = []
    for one in found:
        parts += [_time_facts(material, one), *_show_one_time(one, material.model_name(one))]
    means = (
        "Where the time of a generated token goes: measured part by part, and inside the decode node by node, brought down to the "
        "token that nobody watched. Figures are medians."
    )
    return [Prose([means, *_tell_older(n_older)]), *parts] if parts else []


def _show_one_time(found: TimeRecord, name: str) -> list[Part]:
    line, ledger = found.line, found.ledger
    drawn = [depth for depth in ledger.depths if depth.operations]
    parts: list[Part] = []
    if drawn:
        draw = functools.partial(_draw_time, ledger, name)
        parts.append(Chart(draw, "A generated token's time by operation and depth; the tables below have the figures"))
    if ledger.depths:
        parts += _show_whole(ledger)
    if drawn:
        parts.append(_show_operations(drawn, ledger))
    if ledger.fits:
        parts.append(_show_cache(ledger))
    if ledger.loads:
        parts.append(_show_loads(ledger))
    if ledger.gap:
        parts.append(_show_gap(ledger.gap))
    remarks = [*line.remarks, *(caution.text for caution in line.cautions)]
    return [*parts, Prose([f"Note: {text.rstrip('.')}." for text in remarks])] if remarks else parts


def _draw_time(ledger: TimeLedger, label: str, theme: str) -> Any:
    return draw_token_time(ledger, label, theme=theme)


def _time_facts(material: Material, found: TimeRecord) -> Part:
    line, ledger = found.line, found.ledger
    facts = [*_where(material, line), ("threads", str(line.asked.spec.n_threads)), ("cache", ledger.cache_type)]
    if line.resolved is not None and line.resolved.flash_attn is not None:
        facts.append(("flash attention", "on" if line.resolved.flash_attn else "off"))
    if line.resolved is not None and line.resolved.layers_by_device:
        layers = line.resolved.layers_by_device.items()
        facts.append(("layers", " + ".join(f"{count} on {device}" for device, count in layers)))
    if ledger.roof_bytes_per_s:
        facts.append(("roof", f"{ledger.roof_bytes_per_s / 1e9:.1f} GB/s"))
    if line.failure:
        facts.append(("failed", line.failure))
    return Facts(facts, material.model_name(found))


def _show_whole(ledger: TimeLedger) -> list[Part]:
    """A token with everything around it, one column a depth; what adds up to it first, then what to hold it against."""
    columns = [{whole.sampler: whole for whole in depth.whole} for depth in ledger.depths]
    rows: list[list[Cell | str]] = [
        [PART_NAMES[part], *(_ns(_part(column.get("chain"), part)) for column in columns)]
        for part in (*PARTS, DISPATCH)
    ]
    totals = [column["chain"].total_ns if "chain" in column else None for column in columns]
    rows.append(["= a whole token", *map(_ns, totals)])
    rows.append(["sampling, if greedy", *(_ns(_part(column.get("greedy"), "sampling")) for column in columns)])
    rows.append(["the bench's token (tg)", *(_ns(depth.bare.median_ns) for depth in ledger.depths)])
    rows.append(["  its 95 % interval", *(_interval(depth) for depth in ledger.depths)])
    bare = ledger.depths[0].bare
    note = (
        f"{bare.n_blocks} blocks of each kind. Sampling is top-k 40, top-p 0.95, temperature 0.8. The bench's token is decode and "
        "waiting alone, timed for itself."
    )
    headers = ("a token, by tokens in the cache", *(f"{depth.depth:,}" for depth in ledger.depths))
    return [Table(headers, rows, remarks=[note])]


def _part(whole: WholeToken | None, name: str) -> float | None:
    return None if whole is None else whole.parts_ns[name]


def _interval(depth: DepthLedger) -> str:
    bare = depth.bare
    if bare.low_ns is None or bare.high_ns is None:
        return "—"
    return f"{format_duration(bare.low_ns)} – {format_duration(bare.high_ns)}"


def _show_operations(depths: Sequence[DepthLedger], ledger: TimeLedger) -> Part:
    rows: list[list[Cell | str]] = []
    for depth in depths:
        for one in depth.operations:
            speed, share = one.bandwidth_bytes_per_s, one.roof_share
            rows.append(
                [
                    text_cell(f"{depth.depth:,}", depth.depth),
                    one.role,
                    text_cell(str(one.n_nodes), one.n_nodes) if one.n_nodes else "—",
                    _ns(one.duration_ns),
                    text_cell(f"{one.share:.1%}", one.share),
                    "—"
                    if one.touched_bytes is None
                    else text_cell(f"{one.touched_bytes / 1e6:.2f}", one.touched_bytes),
                    "—" if speed is None else text_cell(f"{speed / 1e9:.2f}", speed),
                    *(
                        []
                        if not ledger.roof_bytes_per_s
                        else ["—" if share is None else text_cell(f"{share:.0%}", share)]
                    ),
                ]
            )
    headers = ["in the cache", "operation", "nodes", "time", "share", "MB read", "GB/s"]
    watched = [depth.observer for depth in depths if depth.observer]
    costs = ", ".join(f"{one.cost_ns / one.absent.median_ns:+.0%}" for one in watched)
    notes = [f"Watching made a token dearer by {costs}; that is taken off, node by node and then in proportion."]
    if any(one.cost_ns <= 0 for one in watched):
        notes.append(
            "Watching came out cheaper than not watching: the machine was restless, and the shares are doubtful."
        )
    return Table([*headers, "of the roof"] if ledger.roof_bytes_per_s else headers, rows, remarks=notes)


def _show_cache(ledger: TimeLedger) -> Part:
    rows: list[list[Cell | str]] = []
    for fit in ledger.fits:
        between = "—" if fit.low_ns is None else f"{fit.low_ns:,.1f} – {fit.high_ns:,.1f} ns"
        size, speed = fit.bytes_per_token, fit.bandwidth_bytes_per_s
        rows.append(
            [
                fit.cache_type,
                _ns(fit.slope_ns),
                between,
                "—" if size is None else text_cell(f"{size:,}", size),
                "—" if speed is None else text_cell(f"{speed / 1e9:.2f}", speed),
                _ns(fit.intercept_ns),
            ]
        )
    headers = ("cache", "one more cached token adds", "95 % interval", "its bytes", "GB/s", "a token at depth 0")
    notes = (
        ["Below zero: the machine was restless, and nothing can be said."]
        if any(f.slope_ns < 0 for f in ledger.fits)
        else []
    )
    return Table(headers, rows, remarks=notes)


def _show_loads(ledger: TimeLedger) -> Part:
    rows: list[list[Cell | str]] = [
        [
            f"{load.state}, mmap {load.mmap}",
            *map(_ns, (load.load_ns, load.context_ns, load.first_token_ns, load.second_token_ns, load.ready_ns)),
            "—" if load.resident_share is None else text_cell(f"{load.resident_share:.0%}", load.resident_share),
            text_cell(str(load.n), load.n),
        ]
        for load in ledger.loads
    ]
    notes = ["In RAM: what of the file was in the system's memory before. Ready: model, context and first token."]
    return Table(("load", "model", "context", "first token", "second", "ready", "in RAM", "times"), rows, remarks=notes)


def _show_gap(gap: Gap) -> Part:
    steps = [(f"+ {STEP_NAMES[name]}", ns) for name, ns in gap.steps_ns.items()]
    rows: list[list[Cell | str]] = [["the bench's token", _ns(gap.bench_ns), f"{format_rate(1e9 / gap.bench_ns)} t/s"]]
    rows += [[name, _ns(ns), f"{ns / gap.bench_ns:+.1%}"] for name, ns in steps]
    rate = f"{format_rate(1e9 / gap.completion_ns)} t/s"
    rows.append(["= create_completion(stream=True)", _ns(gap.completion_ns), rate])
    notes = ["The same prompt, threads, cache and flash attention; a step below zero is noise."]
    return Table(("an application with llama_cpp.Llama", "a token", "of the bench"), rows, remarks=notes)


def _ns(duration_ns: float | None) -> Cell | str:
    if duration_ns is None:
        return "—"
    sign = "−" if duration_ns < 0 else ""
    return text_cell(sign + format_duration(abs(duration_ns)), duration_ns)


# --- both -------------------------------------------------------------------------------------------------------------


def _latest(found: Sequence[Content], question: Callable[[Content], Any]) -> tuple[list[Content], int]:
    """Of the same question the latest answer, in the order of the files, and how many older ones there are."""
    latest = {question(one): one for one in found}
    kept = {id(one) for one in latest.values()}
    return [one for one in found if id(one) in kept], len(found) - len(kept)


def _memory_question(line: MemoryRecord) -> tuple[Any, ...]:
    """What a ledger was about: two of the same are one, made again."""
    return (machine_key(line.machine), line.model.label, line.forecast.n_ctx, cell_key(line.asked, but=("model",)))


def _time_question(found: TimeRecord) -> tuple[Any, ...]:
    """As `_memory_question`; a ledger of time says what it asked beside its cell."""
    model = found.line.model.file_sha256 or found.line.model.file_name
    return (machine_key(found.line.machine), model, cell_key(found.line.asked.spec, but=("model",)), found.plan)


def _tell_older(count: int) -> list[str]:
    if not count:
        return []
    return [
        f"The latest of each is shown; {count} older {'one of the same is' if count == 1 else 'ones of the same are'} left out."
    ]


def _minute(time_utc: str) -> str:
    return str(time_utc)[:16].replace("T", " ")
