"""Sections of ledgers: where a model's memory goes, and where a generated token's time goes."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness.record import machine_key
from harness.render.plot_ledger import draw_kept_ledger
from harness.render.plot_time import draw_token_time
from harness.render.report.material import Line, Material
from harness.render.report.parts import Cell, Chart, Facts, Part, Prose, Table
from harness.render.time_ledger import PART_NAMES, STEP_NAMES
from harness.spec import RunSpec, cell_key
from harness.theory.time_ledger import DISPATCH, PARTS, DepthLedger, Gap, TimeLedger, WholeToken, build_ledger
from harness.units import format_duration, format_rate

#: What an overhead record asked for by name, and how the page calls it; told only where it is not the usual.
_ASKED = (
    ("type_k", "K cache", "f16"), ("type_v", "V cache", "f16"), ("repack", "repacking", True), ("mmap", "mmap", "auto"),
    ("n_batch", "n_batch", 2048), ("n_ubatch", "n_ubatch", 512),
)  # fmt: skip


# --- memory -----------------------------------------------------------------------------------------------------------


def show_memory(material: Material) -> Sequence[Part]:
    """Memory ledgers: each line of each one, and what the process took in all; of the same question the latest answer."""
    lines, n_older = _latest(material, "overhead")
    parts: list[Part] = []
    for line in lines:
        parts += _show_one_memory(material, line.values)
    means = "What a model takes, cause by cause: predicted from its header, allocated by llama.cpp, and how much of it was in memory."
    return [Prose([means, *_tell_older(n_older)]), *parts] if parts else []


def _show_one_memory(material: Material, values: Mapping[str, Any]) -> list[Part]:
    facts = [*_where(material, values), ("context", f"{values['n_ctx']} tokens"), *_asked(values)]
    if values.get("failure"):
        facts.append(("failed", str(values["failure"])))
    names = ("predicted", "measured", "resident")
    rows: list[list[Cell | str]] = [
        [str(row["cause"]), str(row["device"]), *(_bytes_cell(row[f"{name}_bytes"]) for name in names)]
        for row in values["ledger"]
    ]
    totals = values.get("totals") or {}
    remarks = []
    if steps := values.get("steps"):
        before = steps[0]["rss_bytes"]  # the ledger is about what came after
        rows.append(["Python, before all that", "CPU", *(_bytes_cell(before) for _ in names)])
        remarks = ["In all, allocated: once every page was touched; what is not in memory yet is not taken off."]
    rows.append(["in all", "host", *(_bytes_cell(totals.get(f"{name}_bytes")) for name in names)])
    chart = Chart(
        lambda theme: draw_kept_ledger(values, theme=theme),
        f"Memory of {values['model']}; the table below has its figures",
    )
    table = Table(
        ("what", "where", "predicted", "allocated", "resident"),
        rows,
        remarks=[*remarks, *(str(text) for text in values.get("warnings", ()))],
    )
    drawn = any(row[f"{name}_bytes"] for row in values["ledger"] for name in names)
    return [Facts(facts, _title(values["model"], values.get("is_synthetic"))), *([chart] if drawn else []), table]


def _where(material: Material, values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The machine, where the page has several, and when."""
    from harness.record import Machine, read

    machine = read(Machine, values["machine"])
    named = [("machine", material.machine_name(machine))] if len(material.machines) > 1 else []
    return [*named, *([("when", _minute(values["time_utc"]))] if values.get("time_utc") else [])]


def _asked(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    asked = values.get("asked") or {}
    placed = values.get("layers_by_device")
    layers = asked.get("n_gpu_layers")
    if placed:
        facts = [("layers", " + ".join(f"{count} on {device}" for device, count in placed.items()))]
    else:
        facts = [("layers on the GPU", "all that fit" if layers is None or layers < 0 else str(layers))]
    if (flash := values.get("flash_attn")) is not None:
        facts.append(("flash attention", "on" if flash else "off"))
    told = [(title, asked[name]) for name, title, usual in _ASKED if name in asked and asked[name] != usual]
    return facts + [(title, {True: "on", False: "off"}.get(value, str(value))) for title, value in told]


def _bytes_cell(size: int | None) -> Cell | str:
    return "—" if size is None else Cell(f"{size / 1024**2:.1f} MiB", size)


# --- time -------------------------------------------------------------------------------------------------------------


def show_token_time(material: Material) -> Sequence[Part]:
    """Time ledgers: a token by its parts and operations, what the cache and an application add, and loading."""
    lines, n_older = _latest(material, "time-ledger")
    parts: list[Part] = []
    for line in lines:
        ledger = build_ledger(line.values, roof_bytes_per_s=line.values.get("roof_bytes_per_s"))
        parts += [_time_facts(material, line.values, ledger), *_show_one_time(line.values, ledger)]
    means = (
        "Where the time of a generated token goes: measured part by part, and inside the decode node by node, brought down to the "
        "token that nobody watched. Figures are medians."
    )
    return [Prose([means, *_tell_older(n_older)]), *parts] if parts else []


def _show_one_time(values: Mapping[str, Any], ledger: TimeLedger) -> list[Part]:
    drawn = [depth for depth in ledger.depths if depth.operations]
    parts: list[Part] = []
    if drawn:
        label = _title(_model_name(values), values["model"].get("is_synthetic"))
        draw = functools.partial(_draw_time, ledger, label)
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
    remarks = [*values.get("remarks", ()), *(caution["text"] for caution in values.get("cautions", ()))]
    return [*parts, Prose([f"Note: {str(text).rstrip('.')}." for text in remarks])] if remarks else parts


def _draw_time(ledger: TimeLedger, label: str, theme: str) -> Any:
    return draw_token_time(ledger, label, theme=theme)


def _time_facts(material: Material, values: Mapping[str, Any], ledger: TimeLedger) -> Facts:
    spec, resolved = values["asked"]["spec"], values.get("resolved") or {}
    facts = [*_where(material, values), ("threads", str(spec["n_threads"])), ("cache", ledger.cache_type)]
    if resolved.get("flash_attn") is not None:
        facts.append(("flash attention", "on" if resolved["flash_attn"] else "off"))
    if resolved.get("layers_by_device"):
        layers = resolved["layers_by_device"].items()
        facts.append(("layers", " + ".join(f"{count} on {device}" for device, count in layers)))
    if ledger.roof_bytes_per_s:
        facts.append(("roof", f"{ledger.roof_bytes_per_s / 1e9:.1f} GB/s"))
    if values.get("failure"):
        facts.append(("failed", str(values["failure"])))
    return Facts(facts, _title(_model_name(values), values["model"].get("is_synthetic")))


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


def _show_operations(depths: Sequence[DepthLedger], ledger: TimeLedger) -> Table:
    rows: list[list[Cell | str]] = []
    for depth in depths:
        for one in depth.operations:
            speed, share = one.bandwidth_bytes_per_s, one.roof_share
            rows.append(
                [
                    Cell(f"{depth.depth:,}", depth.depth),
                    one.role,
                    Cell(str(one.n_nodes), one.n_nodes) if one.n_nodes else "—",
                    _ns(one.duration_ns),
                    Cell(f"{one.share:.1%}", one.share),
                    "—" if one.touched_bytes is None else Cell(f"{one.touched_bytes / 1e6:.2f}", one.touched_bytes),
                    "—" if speed is None else Cell(f"{speed / 1e9:.2f}", speed),
                    *([] if not ledger.roof_bytes_per_s else ["—" if share is None else Cell(f"{share:.0%}", share)]),
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


def _show_cache(ledger: TimeLedger) -> Table:
    rows: list[list[Cell | str]] = []
    for fit in ledger.fits:
        between = "—" if fit.low_ns is None else f"{fit.low_ns:,.1f} – {fit.high_ns:,.1f} ns"
        size, speed = fit.bytes_per_token, fit.bandwidth_bytes_per_s
        rows.append(
            [
                fit.cache_type,
                _ns(fit.slope_ns),
                between,
                "—" if size is None else Cell(f"{size:,}", size),
                "—" if speed is None else Cell(f"{speed / 1e9:.2f}", speed),
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


def _show_loads(ledger: TimeLedger) -> Table:
    rows: list[list[Cell | str]] = [
        [
            f"{load.state}, mmap {load.mmap}",
            *map(_ns, (load.load_ns, load.context_ns, load.first_token_ns, load.second_token_ns, load.ready_ns)),
            "—" if load.resident_share is None else Cell(f"{load.resident_share:.0%}", load.resident_share),
            Cell(str(load.n), load.n),
        ]
        for load in ledger.loads
    ]
    notes = ["In RAM: what of the file was in the system's memory before. Ready: model, context and first token."]
    return Table(("load", "model", "context", "first token", "second", "ready", "in RAM", "times"), rows, remarks=notes)


def _show_gap(gap: Gap) -> Table:
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
    return Cell(sign + format_duration(abs(duration_ns)), duration_ns)


# --- both -------------------------------------------------------------------------------------------------------------


def _latest(material: Material, kind: str) -> tuple[list[Line], int]:
    """Of each machine, model and question the latest line, in the order of the files, and how many older ones there are."""
    lines = material.of(kind)
    found = {_question(line): line for line in sorted(lines, key=lambda line: str(line.values.get("time_utc") or ""))}
    kept = {id(line) for line in found.values()}
    return [line for line in lines if id(line) in kept], len(lines) - len(kept)


def _question(line: Line) -> tuple[Any, ...]:
    """What a ledger was about: two of the same are one, made again. A ledger of time says what it asked beside its cell."""
    model = line.values["model"]
    name = model if isinstance(model, str) else model.get("file_sha256") or model.get("file_name")
    asked = dict(line.values.get("asked") or {})
    spec = RunSpec.from_dict({"model": "", "n_prompt": 1, **asked.pop("spec", asked)})
    rest = {key: value for key, value in asked.items() if key not in RunSpec.__dataclass_fields__}
    context = line.values.get("n_ctx")
    return (machine_key(line.machine), name, context, cell_key(spec, but=("model",)), json.dumps(rest, sort_keys=True))


def _tell_older(count: int) -> list[str]:
    if not count:
        return []
    return [
        f"The latest of each is shown; {count} older {'one of the same is' if count == 1 else 'ones of the same are'} left out."
    ]


def _model_name(values: Mapping[str, Any]) -> str:
    return str(values["model"]["file_name"])


def _title(name: str, is_synthetic: Any) -> str:
    return f"{name} (synthetic)" if is_synthetic else name


def _minute(time_utc: str) -> str:
    return str(time_utc)[:16].replace("T", " ")
