"""Where a generated token's time goes, as a document."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from harness.codec import encode
from harness.records.cautions import CautionCause
from harness.records.failures import describe_end
from harness.records.time_doubts import find_time_doubts
from harness.records.time_ledger import (
    DISPATCH,
    DepthFit,
    DepthLedger,
    Gap,
    LoadTime,
    Operation,
    TimeLedger,
    make_time_ledger,
)
from harness.records.token_time import Remark, TimeRecord
from harness.records.verdict import judge
from harness.units import format_count, format_duration, format_gb
from harness.views.document import Cell, Column, Document, Figure, KeyFigures, Line, Picture, Prose, Row, Section, Table
from harness.views.figures.token_time import draw_token_time
from harness.views.values import (
    BANDWIDTH,
    BYTES_ALONE,
    CHANGE,
    DURATION,
    FILE,
    INTERVAL,
    MB,
    NS,
    RATE,
    RATIO,
    ROUND_SHARE,
    SETTING,
    SHARE,
    Unit,
    format_layers,
    format_value,
)  # fmt: skip
from harness.views.verdict import MARK, MARK_MEANS, with_verdict

#: What is not to be trusted: names of figures (`records.time_doubts`) and the depth at which, None where there is only one.
_Doubted = Collection[tuple[str, int | None]]

#: What the parts of a token are called where people read them.
_PART_NAMES = {
    "decode": "decode",
    "wait": "waiting for it",
    "logits": "finding the logits",
    "sampling": "sampling",
    "text": "token to text",
    DISPATCH: "Python between",
}

#: The steps from the bench's token to the application's.
_STEP_NAMES = {
    "threads": "threads started anew each time (no pool)",
    "decode": "the engine called from its loop",
    "sampling": "sampling, by the binding's default",
    "text": "tokens to text, all of it again each time",
    "python": "Python: batches, generators, chunks",
}

_NO_ROOF = "What share of the memory's bandwidth these rates are is not known here: run `harness roofline` once, or give --roof."
_RESTLESS = "Observing came out cheaper than not: the machine was restless, and the shares are doubtful."


def describe_token_time(record: TimeRecord, label: str) -> Document:
    """Everything that a time ledger says; label is what the user calls the model."""
    ledger = make_time_ledger(record)
    doubted = _find_doubted(record, ledger)
    taken_apart = [depth for depth in ledger.depths if depth.operations]
    picture = Picture(
        lambda theme: draw_token_time(ledger, label, theme=theme), "A generated token's time by operation and depth"
    )
    sections = [Section("", [_state_facts(record, ledger), *([picture] if taken_apart else [])])]
    if ledger.depths:
        sections.append(Section("a generated token, by depth", [_show_whole(ledger, doubted)]))
        sections += [_show_operations(depth, ledger, doubted) for depth in taken_apart]
    if taken_apart:
        sections.append(Section("what observing costs, a token", [_show_observer(taken_apart, doubted)]))
    if ledger.fits:
        sections.append(
            Section("what one more token in the cache adds to every token", [_show_fits(ledger.fits, doubted)])
        )
    if ledger.loads:
        sections.append(Section("getting ready", [_show_loads(ledger.loads, doubted)]))
    if ledger.gap:
        sections.append(
            Section("why an application is slower than the bench", [_show_gap(ledger, ledger.gap, doubted)])
        )
    if doubted:
        sections.append(Section("", [Prose([MARK_MEANS])]))
    failure = [describe_end(record.failure)] if record.failure else []
    warnings = [*map(describe_remark, record.remarks), *(caution.text for caution in record.warnings), *failure]
    document = Document(
        "token-time", 1, f"Where a token's time goes: {label}", sections, warnings,
        {"model": record.model, "asked": record.asked, "resolved": record.resolved, "machine": record.machine}, "operations",
    )  # fmt: skip
    return with_verdict(document, judge(record))


#: Doubts that name no part, by the figure that they are about.
_ABOUT = {
    CautionCause.WATCHING_DEAR: "observing",
    CautionCause.WATCHING_CHEAP: "observing",
    CautionCause.PARTS_MISS_WHOLE: "observing",
    CautionCause.DEEPER_IS_CHEAPER: "bare",
    CautionCause.WARM_SLOWER: "warm",
}


def _find_doubted(record: TimeRecord, ledger: TimeLedger) -> set[tuple[str, int | None]]:
    grave = [doubt for doubt in find_time_doubts(record, ledger) if doubt.distrust]
    names = [(doubt, name) for doubt in grave for name in (_ABOUT.get(doubt.cause), doubt.part, doubt.other_part)]
    return {(name, doubt.depth) for doubt, name in names if name}


def _mark(doubted: _Doubted, depth: int | None, *names: str) -> str:
    return MARK if any((name, depth) in doubted for name in names) else ""


#: What was left out, by its cause; the figures are a remark's.
_REMARKS = {
    "beyond training": "depth {depth} is left out: the model was trained for {limit_tokens} tokens",
    "beyond memory": "depth {depth} is left out: its caches take {needed} and {free} of memory are free",
    "cache refused": "no {cache_type} cache: {said}",
    "not cold": "{n_left_out} of {n_asked} cold loads are left out: up to {share} of the file stayed in memory when the system was "
    "asked to forget it (another process may use it)",
    "cold unknown": "whether the file left memory before the cold loads could not be checked here",
    "no application": "no application to compare with: {said}",
    "interrupted": "interrupted: what was measured until then is shown",
    "sentence": "{said}",
}


def describe_remark(remark: Remark) -> str:
    """What was left out, as a sentence."""
    sizes = {"needed": format_gb(remark.needed_bytes or 0), "free": format_gb(remark.free_bytes or 0)}
    return _REMARKS[remark.cause].format_map(
        {**encode(remark), **sizes, "share": format_value(remark.share or 0, ROUND_SHARE)}
    )


def _state_facts(record: TimeRecord, ledger: TimeLedger) -> KeyFigures:
    n_threads, resolved = record.asked.spec.n_threads, record.resolved
    layers = resolved.layers_by_device if resolved else {}
    figures = [
        Figure("n_threads", "", n_threads, phrase="{} thread" if n_threads == 1 else "{} threads"),
        Figure("cache_type", "", ledger.cache_type, phrase="{} cache"),
        Figure("flash_attn", "flash attention", resolved.flash_attn if resolved else None, SETTING),
        Figure("layers", "", format_layers(layers, " layers on ") or None),
        Figure("repacked", "", (resolved and resolved.repacked_bytes) or None, FILE, "{} of weights repacked"),
        Figure("roof", "roof", ledger.roof_bytes_per_s, BANDWIDTH),
        Figure("weights", "", "random weights" if record.model.is_synthetic else None, phrase="synthetic: {}"),
        Figure("logits_copy", "", ledger.logits_copy_ns, DURATION, is_shown=False),
        Figure("call", "", ledger.call_ns, DURATION, is_shown=False),
        Figure("dispatch_ns_per_token", "", ledger.dispatch_ns, is_shown=False),
    ]
    return KeyFigures(figures, in_line=True)


def _show_whole(ledger: TimeLedger, doubted: _Doubted) -> Table:
    """A token with everything around it, one column a depth."""
    bare = [depth.bare for depth in ledger.depths]
    whole = [_wholes(depth) for depth in ledger.depths]
    chains = [one.get("chain", {}) for one in whole]
    greedy = [one.get("greedy", {}).get("sampling") for one in whole]
    totals = [chain.get("all") for chain in chains]

    def row(
        name: str, values: Sequence[float | None], unit: Unit = DURATION, about: str = "", *, is_total: bool = False, depth: int = 0
    ) -> Row:  # fmt: skip
        marks = [_mark(doubted, one.depth, about) for one in ledger.depths]
        cells = [Cell(value, unit, mark=mark) for value, mark in zip(values, marks, strict=True)]
        return Row([name, *cells], is_total, depth)

    rows = [
        row(name, [chain.get(part) for chain in chains], about="chain" if part == "decode" else "")
        for part, name in _PART_NAMES.items()
    ]
    rows += [
        row("a whole token", totals, about="chain", is_total=True),
        row("its rate", [1e9 / total if total else None for total in totals], RATE, "chain", depth=1),
        row("sampling, if greedy", greedy, about="greedy"),
        row("the bench's token", [figure.median_ns for figure in bare], about="bare"),
    ]
    if any(figure.low_ns is not None for figure in bare):
        rows.append(row("95 % interval from", [figure.low_ns for figure in bare], depth=1))
        rows.append(row("to", [figure.high_ns for figure in bare], depth=1))
    notes = [
        f"Medians of {format_count(bare[0].n_blocks, 'block')} ({format_count(bare[0].n_tokens, 'token')}). "
        "Sampling is top-k 40, top-p 0.95, temperature 0.8. The bench's token (tg) is decode and waiting alone, timed for itself."
    ]
    if ledger.call_ns is not None and ledger.dispatch_ns is not None:
        notes.append(
            f"Python between is the loop and its clock; each call into C costs at least {format_duration(ledger.call_ns)} more, inside "
            f"the parts, and the bench's own loop {format_duration(ledger.dispatch_ns)} a token."
        )
    columns = [Column("part", " "), *(Column(f"d{depth.depth}", unit=DURATION) for depth in ledger.depths)]
    return Table("parts", columns, rows, notes)


def _wholes(depth: DepthLedger) -> dict[str, dict[str, float]]:
    """The parts of a whole token and all of them together, by sampler."""
    return {whole.sampler: {**whole.parts_ns, "all": whole.total_ns} for whole in depth.whole}


def _show_operations(depth: DepthLedger, ledger: TimeLedger, doubted: _Doubted) -> Section:
    touched, roof = sum(one.touched_bytes or 0 for one in depth.operations), ledger.roof_bytes_per_s
    speed = touched / depth.bare.median_ns * 1e9

    def mark(one: Operation) -> str:
        return _mark(doubted, depth.depth, one.role, "observing", "bare")

    columns = [
        Column("depth", is_shown=False, of=lambda _: depth.depth), Column("operation", of=lambda one: one.role),
        Column("n_nodes", "nodes", of=lambda one: one.n_nodes or None),
        Column("duration", "time", DURATION, of=lambda one: Cell(one.duration_ns, mark=mark(one))),
        Column("observed", unit=DURATION, is_shown=False), Column("share", unit=SHARE), Column("touched", "MB read", MB),
        Column("bandwidth", "GB/s", BANDWIDTH,
               of=lambda one: Cell(one.bandwidth_bytes_per_s, mark=mark(one) if one.bandwidth_bytes_per_s else "")),
        Column("roof_share", "of roof", SHARE),
    ]  # fmt: skip
    share = roof and speed / roof
    total: Line = [depth.depth, "the bench's token", None, depth.bare.median_ns, None, 1.0, touched, speed, share]
    table = Table.of("operations", depth.operations, columns, missing="", totals=[Row(total, is_total=True)])
    prose = [Prose([_NO_ROOF])] if roof is None and depth is ledger.depths[-1] else []
    return Section(f"inside the decode at depth {depth.depth} ({ledger.cache_type} cache)", [table, *prose])


def _show_observer(depths: Sequence[DepthLedger], doubted: _Doubted) -> Table:
    notes = [
        "Nodes are watched one at a time, so nothing overlaps and nothing is fused. Each node's time was lowered by what watching adds "
        "to it (off each), and all together scaled to the token that nobody watched."
    ]
    seen = [(depth.depth, depth.observer) for depth in depths if depth.observer]
    if any(observer.cost_ns <= 0 for _, observer in seen):
        notes.append(_RESTLESS)
    columns = [
        Column("depth", of=lambda one: one[0]),
        Column("absent", unit=DURATION, of=lambda one: one[1].absent.median_ns),
        Column("declining", unit=DURATION, of=lambda one: one[1].declining.median_ns),
        Column("watching", unit=DURATION, of=lambda one: one[1].observing.median_ns),
        Column(
            "cost",
            unit=CHANGE,
            of=lambda one: Cell(
                one[1].cost_ns / one[1].absent.median_ns, mark=_mark(doubted, one[0], "observing", "bare")
            ),
        ),
        Column("n_nodes", "nodes", of=lambda one: one[1].n_nodes),
        Column("inside", "off each", DURATION, of=lambda one: one[1].inside_ns),
        Column("scale", unit=RATIO, of=lambda one: one[1].scale),
    ]
    return Table.of("observer", seen, columns, notes)


def _show_fits(fits: Sequence[DepthFit], doubted: _Doubted) -> Table:
    doubt = "Below zero: the machine was restless, and nothing can be said."

    def slope(fit: DepthFit) -> Cell:
        interval = None if fit.low_ns is None or fit.high_ns is None else (fit.low_ns, fit.high_ns)
        return Cell(fit.slope_ns, interval=interval, mark=_mark(doubted, None, f"slope {fit.cache_type}"))

    columns = [
        Column("cache_type", "cache"),
        Column("slope", "ns", NS, interval=INTERVAL, of=slope),
        Column("n_rounds", "rounds"), Column("cached_token", "bytes", BYTES_ALONE, of=lambda fit: fit.bytes_per_token),
        Column("bandwidth", "GB/s", BANDWIDTH), Column("intercept", "at depth 0", DURATION),
    ]  # fmt: skip
    return Table.of("depth_fits", fits, columns, [doubt] if any(fit.slope_ns < 0 for fit in fits) else [], missing="?")


def _show_loads(loads: Sequence[LoadTime], doubted: _Doubted) -> Table:
    def mark(load: LoadTime, name: str) -> str:
        return _mark(doubted, None, name) if load.state == "warm" else ""

    columns = [
        Column("state", "load"), Column("mmap"),
        Column("load", "model", DURATION, of=lambda one: Cell(one.load_ns, mark=mark(one, "warm"))),
        Column("context", unit=DURATION), Column("first_token", "1st token", DURATION),
        Column("second_token", "2nd", DURATION,
               of=lambda one: Cell(one.second_token_ns, mark=mark(one, f"second mmap {one.mmap}"))),
        Column("ready", unit=DURATION), Column("resident_share", "in RAM", SHARE), Column("n"),
    ]  # fmt: skip
    notes = ["In RAM: what of the file was in the system's memory before. Ready: model, context and first token."]
    return Table.of("loads", loads, columns, notes, missing="?")


def _show_gap(ledger: TimeLedger, gap: Gap, doubted: _Doubted) -> Table:
    bench = Cell(gap.bench_ns, mark=_mark(doubted, None, "application bench"))
    rows: list[Line] = [["the bench's token", bench, None, 1e9 / gap.bench_ns]]
    rows += [
        [f"+ {_STEP_NAMES[name]}", Cell(ns, mark=_mark(doubted, None, f"step {name}")), ns / gap.bench_ns, None]
        for name, ns in gap.steps_ns.items()
    ]
    rows.append(["create_completion(stream=True)", gap.completion_ns, None, 1e9 / gap.completion_ns])
    columns = [
        Column("step", "llama_cpp.Llama"), Column("duration", "a token", DURATION), Column("change", "of the bench", CHANGE),
        Column("rate", "t/s", RATE),
    ]  # fmt: skip
    return Table("application", columns, rows, list(_explain_gap(ledger, gap)), missing="")


def _explain_gap(ledger: TimeLedger, gap: Gap) -> Iterator[str]:
    yield (
        "The same prompt, threads, cache and flash attention; a step below zero is noise. "
        f"Tokens alone, without text (Llama.generate): {format_duration(gap.generate_ns)}."
    )
    if gap.text_first_ns is not None and gap.text_last_ns is not None and gap.text_calls_per_token is not None:
        yield (
            f"Text is spelled {gap.text_calls_per_token:.1f} times a token, each time from the start of the completion: "
            f"{format_duration(gap.text_first_ns)} a token in the first quarter, {format_duration(gap.text_last_ns)} in the last."
        )
    if ledger.logits_copy_ns is not None:
        yield (
            "The logits are not copied to numpy in this loop (only with logits_all or a logits processor); a copy would take "
            f"{format_duration(ledger.logits_copy_ns)}."
        )
