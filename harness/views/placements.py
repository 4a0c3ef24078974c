"""A sweep over placements as a Document: speeds and memory by placement, the best one and why, what the wire costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.codec import encode
from harness.records.cautions import Caution, CautionCause
from harness.records.failures import describe_failure, describe_reason
from harness.records.placements import PlacementResult, Speed
from harness.records.verdict import gravest_verdict
from harness.units import format_duration
from harness.views.document import Cell, Code, Column, Document, Picture, Prose, Section, Table
from harness.views.settings import format_setting, heading, setting_columns
from harness.views.values import (
    DURATION,
    ENERGY,
    INTERVAL,
    MIB_ALONE,
    RATE,
    ROUND_SHARE,
    format_layers,
    format_value,
    note_energy,
)
from harness.views.verdict import MARK, MARK_MEANS, describe_verdicts, plain_reasons

if TYPE_CHECKING:
    from harness.runs.network import Wire
    from harness.runs.placements import Sweep

#: The order of causes in tables.
_CAUSES = ("model", "kv", "recurrent", "compute", "output")


def describe_result(content: object) -> str | None:
    """One line on a placement that was just measured, for whoever waits."""
    if not isinstance(content, PlacementResult):
        return None
    name = ", ".join(f"{heading(name)} {format_setting(value)}" for name, value in content.varied.items())
    if reason := _find_reason(content):
        return f"{name}: {reason}"
    return f"{name}: " + ", ".join(f"{speed.test} {RATE.form(speed.rate_tok_per_s)} t/s" for speed in content.speeds)


def describe_sweep(sweep: Sweep) -> Document:
    """What a sweep or a search found."""
    from harness.views.figures.placements import draw_layers
    from harness.views.search import describe_goal, explain_best, flag_lines

    parts, best = list_title(sweep), sweep.best
    title = " · ".join(parts)
    notes = [*_energy_notes(sweep.results), *(_describe_wire(wire, sweep) for wire in sweep.wires)]
    if sweep.wire_failure:
        notes.append(f"what goes over the network could not be counted: {describe_failure(sweep.wire_failure)}")
    sections = list(describe_placements(sweep.results, title, notes).sections)
    reasons: list[str] = []
    if best:
        reasons = explain_best(best, sweep.blocks, sweep.devices, sweep.crossing_s)
        which = "best" if best.is_proven else "best of what was measured"
        text = f"{which} for {describe_goal(best.goal)}: {best.best_n_gpu_layers} layers"
        sections.append(Section(text, [Code(flag_lines(best.best_n_gpu_layers)), Prose(reasons, is_list=True)]))
    if any(result.speeds for result in sweep.results):
        count = best.best_n_gpu_layers if best else None
        drawn = " · ".join(parts[:2])
        picture = Picture(
            lambda theme: draw_layers(sweep.results, drawn, best=count, theme=theme), "Speeds and memory by placement"
        )
        sections.append(Section("", [picture]))
    judged = [(_name_speed(result, speed), speed) for result in sweep.results for speed in result.speeds]
    if judged:
        sections.append(Section("", [Prose([describe_verdicts(judged)])]))
    return Document("sweep", 1, title, sections, data=_plain_sweep(sweep, reasons))


def _name_speed(result: PlacementResult, speed: Speed) -> str:
    """What a figure is called in a sentence: ``ngl 4, tg128``."""
    first = next(iter(result.varied), "")
    return f"{heading(first)} {_label(result)}, {speed.test}" if first else speed.test


def describe_placements(
    results: Sequence[PlacementResult], title: str = "", notes: Sequence[str] = (), *, is_kept: bool = False
) -> Document:
    """The speeds and the memory of placements, without the question that they answer; kept ones with their intervals, and what ran."""
    memory = _memory_table(results)
    if any((result.memory_bytes or {}).get("CPU", {}).get("model") and result.n_gpu_layers for result in results):
        notes = [*notes, _MAPPED]
    sections = [Section("", [_speed_table(results, notes, is_kept)])] if results else []
    sections += [Section("memory in MiB, by device and cause", [memory])] if memory else []
    return Document("placements", 1, title, sections)


_MAPPED = "CPU model is the mapped span of the file; it may hold what was offloaded too"


def list_title(sweep: Sweep) -> list[str]:
    """What all rows share: file, devices, repetitions."""
    devices = [device.name for device in sweep.devices if device.is_gpu]
    parts = [sweep.file_name + (" (synthetic)" if sweep.is_synthetic else ""), ", ".join(devices) or "CPU only"]
    reps = {speed.n_samples for result in sweep.results for speed in result.speeds}
    if reps:
        parts.append(f"{'–'.join(map(str, sorted({min(reps), max(reps)})))} repetition{'s' if max(reps) > 1 else ''}")
    return parts


def _find_reason(result: PlacementResult) -> str | None:
    return describe_reason(result.failure) if result.failure else result.skipped


def _speed_table(results: Sequence[PlacementResult], notes: Sequence[str], is_kept: bool) -> Table:
    tests = list(dict.fromkeys(speed.test for result in results for speed in result.speeds))
    worst = _find_worst([caution for result in results for speed in result.speeds for caution in speed.cautions])
    columns = setting_columns(results[0].varied)
    columns += [
        Column(_plain_name(test), f"{test} t/s".strip(), RATE, interval=INTERVAL if is_kept else "")
        for test in tests or [""]
    ]
    columns.append(Column("load_duration", "load", DURATION))
    columns += [Column(f"{_plain_name(test)}_energy", f"J/{test[:2]}", ENERGY) for test in tests]
    columns.append(Column("layers", "what ran", is_shown=is_kept))
    rows = []
    for result in results:
        own = {speed.test: speed for speed in result.speeds}
        lost = _describe_loss(result, results)
        word = "skipped" if result.skipped else "failed" if result.failure else "—"
        rates = [_rate_cell(own.get(test), worst, Cell(instead=word, notes=lost), is_kept) for test in tests or [""]]
        energy = [speed.joules_per_token if (speed := own.get(test)) else None for test in tests]
        ran = format_layers(result.layers_by_device or {})
        rows.append([*result.varied.values(), *rates, result.load_duration_ns, *energy, ran or None])
    if any(speed.is_distrusted for result in results for speed in result.speeds):
        notes = [*notes, MARK_MEANS]
    return Table("rows", columns, rows, notes, missing="")


def _plain_name(test: str) -> str:
    return test.replace(" @ ", "_") or "rate"


def _rate_cell(speed: Speed | None, worst: Mapping[CautionCause, str], lost: Cell, is_kept: bool) -> Cell:
    if speed is None:
        return lost
    return Cell(
        speed.rate_tok_per_s,
        interval=speed.interval if is_kept else None,
        mark=MARK if speed.is_distrusted else "",
        notes=[worst[caution.cause] for caution in speed.cautions],
    )


def _find_worst(cautions: Sequence[Caution]) -> dict[CautionCause, str]:
    """Cautions by cause: of those that differ only in their figures, the one with the largest stands for all."""
    texts: dict[CautionCause, set[str]] = {}
    for caution in cautions:
        texts.setdefault(caution.cause, set()).add(caution.text)
    return {cause: ("at worst: " if len(found) > 1 else "") + max(found) for cause, found in texts.items()}


def _describe_loss(result: PlacementResult, results: Sequence[PlacementResult]) -> list[str]:
    """Why a placement has no speed, said once for all that lack it for the same reason."""
    reason = _find_reason(result)
    if reason is None:
        return []
    alike = [_label(item) for item in results if _find_reason(item) == reason]
    return [f"{', '.join(alike if len(alike) <= 4 else [*alike[:2], f'… {alike[-1]}'])}: {reason}"]


def _label(result: PlacementResult) -> str:
    first, *rest = result.varied.items()
    return ", ".join([format_setting(first[1]), *(f"{heading(name)} {format_setting(value)}" for name, value in rest)])


def _memory_table(results: Sequence[PlacementResult]) -> Table | None:
    known = [result for result in results if result.memory_bytes]
    used = {
        (name, cause) for result in known for name, causes in (result.memory_bytes or {}).items() for cause in causes
    }
    devices = sorted({name for name, _ in used}, key=lambda name: (name == "CPU", name))
    causes = [*_CAUSES, *sorted({cause for _, cause in used} - {*_CAUSES})]
    places = [(name, cause) for name in devices for cause in causes if (name, cause) in used]
    if not places:
        return None
    columns = [Column(f"{name}_{cause}", f"{name}\n{cause}", MIB_ALONE) for name, cause in places]
    rows = [
        [*result.varied.values(), *((result.memory_bytes or {}).get(name, {}).get(cause) for name, cause in places)]
        for result in known
    ]
    return Table("memory", [*setting_columns(known[0].varied), *columns], rows, missing="", is_for_people=True)


def _energy_notes(results: Sequence[PlacementResult]) -> list[str]:
    sources = (source for result in results for source in result.power_sources)
    return note_energy("J per token", sources, (result.sampler_share for result in results))


def _describe_wire(wire: Wire, sweep: Sweep) -> str:
    speed = next((result.find("tg") for result in sweep.results if result.n_gpu_layers == wire.n_gpu_layers), None)
    text = (
        f"network to {wire.endpoint} at -ngl {wire.n_gpu_layers}: a token sends {wire.sent_bytes_per_token / 1e3:.1f} kB, "
        f"receives {wire.received_bytes_per_token / 1e3:.1f} kB and waits for {wire.round_trips_per_token:.1f} answers "
        "(counted in a run of its own)"
    )
    if speed is None or sweep.crossing_s is None:
        return text + "."
    crossing, token = format_duration(sweep.crossing_s * 1e9), format_duration(speed.token_s * 1e9)
    return (
        f"{text}; crossing takes {crossing} of {token} ({format_value(sweep.crossing_s / speed.token_s, ROUND_SHARE)})."
    )


def _plain_sweep(sweep: Sweep, reasons: Sequence[str]) -> dict[str, Any]:
    """For programs: the results, and the best one's fields beside them."""
    best = sweep.best
    found: dict[str, Any] = {}
    if best:
        found = {item.name: getattr(best, item.name) for item in dataclasses.fields(best) if item.name != "results"}
        told = " ".join(f"{reason[0].upper()}{reason[1:]}." for reason in reasons)
        found |= {"is_proven": best.is_proven, "cost_share": round(best.cost_share, 4), "reason": told}
    verdict = gravest_verdict([speed.verdict for result in sweep.results for speed in result.speeds])
    return {
        **found,
        "trust": verdict.trust.value if verdict else None,
        "reasons": plain_reasons(verdict),
        "model": sweep.file_name,
        "is_synthetic": sweep.is_synthetic,
        "max_n_gpu_layers": sweep.blocks.max_gpu_layers,
        "rows": list(map(_plain_row, sweep.results)),
        "network": sweep.wires,
        "network_crossing_s_per_token": sweep.crossing_s if sweep.wires else None,
        "interrupted": sweep.is_interrupted,
    }


def _plain_row(result: PlacementResult) -> dict[str, Any]:
    """Its fields, and beside each caution's its sentence."""
    plain: dict[str, Any] = encode(result, keep_paths=True)
    for speed, row in zip(result.speeds, plain["speeds"], strict=True):
        row["cautions"] = [{**encode(caution), "text": caution.text} for caution in speed.cautions]
    return plain
