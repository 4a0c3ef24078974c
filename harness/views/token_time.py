"""The time ledger as tables of 80 columns, and as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.records.token_time import (
    DISPATCH,
    PARTS,
    DepthFit,
    DepthLedger,
    Figure,
    Gap,
    LoadTime,
    TimeLedger,
    WholeToken,
)
from harness.units import format_duration, format_rate
from harness.views import page

#: What the parts of a token are called where people read them.
PART_NAMES = {
    "decode": "decode",
    "wait": "waiting for it",
    "logits": "finding the logits",
    "sampling": "sampling",
    "text": "token to text",
    DISPATCH: "Python between",
}

#: The steps from the bench's token to the application's.
STEP_NAMES = {
    "threads": "threads started anew for each token (no pool)",
    "decode": "the engine called from the application's loop",
    "sampling": "sampling, with the binding's default chain",
    "text": "tokens to text, all of it again each time",
    "python": "Python: batches, generators, chunks",
}


def export_ledger(ledger: TimeLedger) -> dict[str, Any]:
    """Turn the ledger into plain JSON values, with everything that follows from it."""
    return {
        "cache_type": ledger.cache_type,
        "roof_bytes_per_s": ledger.roof_bytes_per_s,
        "depths": [_export_depth(depth) for depth in ledger.depths],
        "depth_fits": [
            dataclasses.asdict(fit) | {"bandwidth_bytes_per_s": fit.bandwidth_bytes_per_s} for fit in ledger.fits
        ],
        "loads": [dataclasses.asdict(load) | {"ready_ns": load.ready_ns} for load in ledger.loads],
        "application": None if ledger.gap is None else _export_gap(ledger.gap),
        "logits_copy_ns": ledger.logits_copy_ns,
        "call_ns": ledger.call_ns,
        "dispatch_ns_per_token": ledger.dispatch_ns,
    }


def _export_depth(depth: DepthLedger) -> dict[str, Any]:
    observer = depth.observer
    return {
        "depth": depth.depth,
        "bare": dataclasses.asdict(depth.bare),
        "whole": [
            {
                "sampler": whole.sampler,
                "parts_ns": dict(whole.parts_ns),
                "total_ns": whole.total_ns,
                "n_blocks": whole.n_blocks,
            }
            for whole in depth.whole
        ],
        "operations": [dataclasses.asdict(operation) for operation in depth.operations],
        "observer": None if observer is None else dataclasses.asdict(observer) | {"cost_ns": observer.cost_ns},
    }


def _export_gap(gap: Gap) -> dict[str, Any]:
    values = dataclasses.asdict(gap) | {"steps_ns": dict(gap.steps_ns)}
    return values | {"bench_tok_per_s": 1e9 / gap.bench_ns, "completion_tok_per_s": 1e9 / gap.completion_ns}


_NO_ROOF = "What share of the memory's bandwidth these rates are is not known here: run `harness roofline` once, or give --roof."


def show_ledger(ledger: TimeLedger, label: str, facts: Sequence[str] = (), remarks: Sequence[str] = ()) -> str:
    """Lay the ledger out, at most 80 columns wide.

    Parameters
    ----------
    label   : what the user calls the model
    facts   : what the numbers hold for (threads, flash attention), one short phrase each
    remarks : what was left out and why, and what makes the numbers doubtful
    """
    title = f"Where a token's time goes: {label}"
    sections = [page.fill("; ".join([title, *facts]), rest="")]
    if ledger.depths:
        sections.append(_show_whole(ledger))
        sections += [_show_operations(depth, ledger) for depth in ledger.depths if depth.operations]
        if ledger.roof_bytes_per_s is None and any(depth.operations for depth in ledger.depths):
            sections.append(page.fill(_NO_ROOF, rest=""))
        if any(depth.observer for depth in ledger.depths):
            sections.append(_show_observer(ledger))
    if ledger.fits:
        sections.append(_show_fits(ledger.fits))
    if ledger.loads:
        sections.append(_show_loads(ledger.loads))
    if ledger.gap:
        sections.append(_show_gap(ledger, ledger.gap))
    sections += [page.fill(f"Note: {remark.rstrip('.')}.", rest="") for remark in remarks]
    return "\n\n".join(sections) + "\n"


def _table(heading: str, headers: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    text = page.table([dict(zip(headers, row, strict=True)) for row in rows], "lr")
    return "\n".join([heading, "", text, *(page.fill(note, rest="") for note in notes)])


def _show_whole(ledger: TimeLedger) -> str:
    """A token with everything around it, one column a depth."""
    columns = [{whole.sampler: whole for whole in depth.whole} for depth in ledger.depths]
    rows = []
    for part in (*PARTS, DISPATCH):
        rows.append([PART_NAMES[part], *(_duration(_part(column, "chain", part)) for column in columns)])
    rows.append(["= a whole token", *(_duration(_total(column, "chain")) for column in columns)])
    rows.append(["its rate, tok/s", *(_rate(_total(column, "chain")) for column in columns)])
    rows.append(["sampling, if greedy", *(_duration(_part(column, "greedy", "sampling")) for column in columns)])
    rows.append(["the bench's token", *(_duration(depth.bare.median_ns) for depth in ledger.depths)])
    rows.append(["  its interval, ms", *(_interval(depth.bare) for depth in ledger.depths)])
    bare = ledger.depths[0].bare
    note = (
        f"Medians of {bare.n_blocks} blocks ({bare.n_tokens} tokens). Sampling is top-k 40, top-p 0.95, temperature 0.8. The bench's "
        "token (tg) is decode and waiting alone, timed for itself."
    )
    notes = [note]
    if ledger.call_ns is not None and ledger.dispatch_ns is not None:
        notes.append(
            f"Python between is the loop and its clock; each call into C costs at least {_duration(ledger.call_ns)} more, inside the "
            f"parts, and the bench's own loop {_duration(ledger.dispatch_ns)} a token."
        )
    return _table("a generated token, by depth", ["", *(f"d{depth.depth}" for depth in ledger.depths)], rows, notes)


def _part(column: Mapping[str, WholeToken], sampler: str, part: str) -> float | None:
    return column[sampler].parts_ns[part] if sampler in column else None


def _total(column: Mapping[str, WholeToken], sampler: str) -> float | None:
    return column[sampler].total_ns if sampler in column else None


def _show_operations(depth: DepthLedger, ledger: TimeLedger) -> str:
    rows = []
    for operation in depth.operations:
        rows.append(
            [
                operation.role,
                str(operation.n_nodes or ""),
                _duration(operation.duration_ns),
                f"{operation.share:.1%}",
                "" if operation.touched_bytes is None else f"{operation.touched_bytes / 1e6:.2f}",
                "" if operation.bandwidth_bytes_per_s is None else f"{operation.bandwidth_bytes_per_s / 1e9:.2f}",
                "" if operation.roof_share is None else f"{operation.roof_share:.0%}",
            ]
        )
    headers = ["operation", "nodes", "time", "share", "MB read", "GB/s", "of roof"]
    touched = sum(operation.touched_bytes or 0 for operation in depth.operations)
    speed = f"{touched / depth.bare.median_ns:.2f}"
    total = ["= the bench's token", "", _duration(depth.bare.median_ns), "100.0%", f"{touched / 1e6:.2f}", speed]
    roof = ledger.roof_bytes_per_s
    rows.append([*total, f"{touched / depth.bare.median_ns * 1e9 / roof:.0%}" if roof else ""])
    if roof is None:
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    return _table(f"inside the decode at depth {depth.depth} ({ledger.cache_type} cache)", headers, rows)


def _show_observer(ledger: TimeLedger) -> str:
    rows, restless = [], False
    for depth in ledger.depths:
        if depth.observer is None:
            continue
        observer = depth.observer
        restless = restless or observer.cost_ns <= 0
        rows.append(
            [
                f"d{depth.depth}",
                _duration(observer.absent.median_ns),
                _duration(observer.declining.median_ns),
                _duration(observer.observing.median_ns),
                f"{observer.cost_ns / observer.absent.median_ns:+.0%}",
                str(observer.n_nodes),
                _duration(observer.inside_ns),
                f"{observer.scale:.2f}",
            ]
        )
    note = (
        "Nodes are watched one at a time, so nothing overlaps and nothing is fused. Each node's time was lowered by what watching adds "
        "to it (off each), and all together scaled to the token that nobody watched."
    )
    notes = [note, "Observing came out cheaper than not: the machine was restless, and the shares are doubtful."][
        : 1 + restless
    ]
    headers = ["", "absent", "declining", "watching", "cost", "nodes", "off each", "scale"]
    return _table("what observing costs, a token", headers, rows, notes)


def _show_fits(fits: Sequence[DepthFit]) -> str:
    rows = [
        [
            fit.cache_type,
            f"{fit.slope_ns:.1f}",
            "—" if fit.low_ns is None else f"{fit.low_ns:.1f} … {fit.high_ns:.1f}",
            str(fit.n_rounds),
            "?" if fit.bytes_per_token is None else f"{fit.bytes_per_token:,}",
            "" if fit.bandwidth_bytes_per_s is None else f"{fit.bandwidth_bytes_per_s / 1e9:.2f}",
            _duration(fit.intercept_ns),
        ]
        for fit in fits
    ]
    headers = ["cache", "ns", "95 % interval", "rounds", "bytes", "GB/s", "at depth 0"]
    return _table("what one more token in the cache adds to every token", headers, rows)


def _show_loads(loads: Sequence[LoadTime]) -> str:
    rows = [
        [
            f"{load.state}, mmap {load.mmap}",
            _duration(load.load_ns),
            _duration(load.context_ns),
            _duration(load.first_token_ns),
            _duration(load.second_token_ns),
            _duration(load.ready_ns),
            "?" if load.resident_share is None else f"{load.resident_share:.0%}",
            str(load.n),
        ]
        for load in loads
    ]
    headers = ["load", "model", "context", "1st token", "2nd", "ready", "in RAM", "n"]
    note = "In RAM: what of the file was in the system's memory before. Ready: model, context and first token."
    return _table("getting ready", headers, rows, [note])


def _show_gap(ledger: TimeLedger, gap: Gap) -> str:
    def row(name: str, duration_ns: float) -> list[str]:
        return [name, _duration(duration_ns), f"{duration_ns / gap.bench_ns:+.1%}"]

    rows = [["the bench's token", _duration(gap.bench_ns), f"{format_rate(1e9 / gap.bench_ns)} t/s"]]
    rows += [row(f"  + {STEP_NAMES[name]}", duration_ns) for name, duration_ns in gap.steps_ns.items()]
    rate = f"{format_rate(1e9 / gap.completion_ns)} t/s"
    rows.append(["= create_completion(stream=True)", _duration(gap.completion_ns), rate])
    headers = ["llama_cpp.Llama", "a token", "of the bench"]
    return _table("why an application is slower than the bench", headers, rows, list(_explain_gap(ledger, gap)))


def _explain_gap(ledger: TimeLedger, gap: Gap) -> Iterator[str]:
    yield (
        "The same prompt, threads, cache and flash attention; a step below zero is noise. "
        f"Tokens alone, without text (Llama.generate): {_duration(gap.generate_ns)}."
    )
    if gap.text_first_ns is not None and gap.text_last_ns is not None and gap.text_calls_per_token is not None:
        yield (
            f"Text is spelled {gap.text_calls_per_token:.1f} times a token, each time from the start of the completion: "
            f"{_duration(gap.text_first_ns)} a token in the first quarter, {_duration(gap.text_last_ns)} in the last."
        )
    if ledger.logits_copy_ns is not None:
        yield (
            f"The logits are not copied to numpy in this loop (only with logits_all or a logits processor); a copy would take "
            f"{_duration(ledger.logits_copy_ns)}."
        )


def _duration(duration_ns: float | None) -> str:
    if duration_ns is None:
        return ""
    return "-" + format_duration(-duration_ns) if duration_ns < 0 else format_duration(duration_ns)


def _rate(duration_ns: float | None) -> str:
    return "" if not duration_ns else format_rate(1e9 / duration_ns)


def _interval(figure: Figure) -> str:
    if figure.low_ns is None or figure.high_ns is None:
        return "—"
    return f"{figure.low_ns / 1e6:.3g} … {figure.high_ns / 1e6:.3g}"
