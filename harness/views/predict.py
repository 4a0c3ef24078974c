"""Predictions as a table of 80 columns or as JSON, and the check of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from harness.gguf.blocks import describe_skipped
from harness.gguf.cost import Cost
from harness.speed.crosscheck import Bound, Check
from harness.speed.models import LEVEL, Estimate
from harness.speed.prediction import Answer, Room
from harness.units import format_gb, format_gib, format_rate
from harness.untrusted import harmless
from harness.views import page


def render_answers(answers: Sequence[Answer], remarks: Sequence[str] = ()) -> str:
    """One model on one machine or several: rates with their intervals, where it fits, and what that rests on."""
    first = answers[0]
    parts = [page.fill(_describe_model(first)), "", _rates(answers), ""]
    parts += _shared({a.machine: [_tell_room(room) for room in a.rooms] for a in answers})
    parts += _shared({a.machine: [f"tg from {a.basis}."] for a in answers if a.tg})
    parts += _shared({a.machine: [f"pp: {a.pp_basis}."] for a in answers if a.tg})
    said = (*(note for answer in answers for note in answer.notes), *remarks, *_qualify_cost(first.cost))
    notes = dict.fromkeys(note for note in said if note)
    parts += [page.fill(f"! {note}.") for note in notes]
    return "\n".join(parts) + "\n"


def _shared(sentences: dict[str, list[str]]) -> list[str]:
    """What is said of each machine; once where it is the same for all."""
    if len({tuple(said) for said in sentences.values()}) <= 1:
        return [page.fill(text) for text in next(iter(sentences.values()), [])]
    return [page.fill(f"{machine}: {text}") for machine, said in sentences.items() for text in said]


def _describe_model(answer: Answer) -> str:
    cost = answer.cost
    name = f"{cost.name} {cost.quantization}".strip() or "a dense model"
    read = f"a token reads {format_gb(round(cost.bytes_per_token(answer.n_depth)))}"
    depth = f" at depth {answer.n_depth}" if answer.n_depth else ""
    about = "about " if cost.is_estimate else ""
    return " · ".join([name, f"{about}{format_gb(cost.size_bytes)}", f"{read}{depth}", *_tell_cache(cost)])


def _tell_cache(cost: Cost) -> Iterator[str]:
    """What a token adds to the cache, up to the window and beyond it, and the state that layers keep instead."""
    if cost.cache is None:
        return
    cache, about = cost.cache, "about " if cost.is_estimate else ""
    if each := cost.kv_bytes_per_token:
        unbounded = _size(each - cache.windowed_bytes_per_token)
        beyond = f", {unbounded} beyond {cache.window_tokens}" if cache.windowed_bytes_per_token else ""
        yield f"cache {about}{_size(each)} a token{beyond}"
    if cache.state_bytes:
        yield f"state {format_gb(cache.state_bytes)}"


def _qualify_cost(cost: Cost) -> Iterator[str]:
    """What is not known of a model's cost, and what of its file no token reads."""
    if cost.cache_unknown:
        yield f"cache: {cost.cache_unknown}"
    if cost.skipped:
        yield describe_skipped(cost.skipped)


def _size(size_bytes: int) -> str:
    return f"{size_bytes} B" if size_bytes < 10 * 1024 and size_bytes % 1024 else f"{size_bytes / 1024:.0f} KiB"


def _rates(answers: Sequence[Answer]) -> str:
    rows = [
        {
            "machine": answer.machine,
            "tg t/s": format_rate(answer.tg.rate_tok_per_s) if answer.tg else "—",
            f"{LEVEL:.0%} interval": _interval(answer.tg),
            "roof": format_rate(answer.tg_roof_tok_per_s) if answer.tg_roof_tok_per_s else "—",
            "pp512 t/s": _round(answer.pp.rate_tok_per_s) if answer.pp else "—",
            "interval": _interval(answer.pp),
        }
        for answer in answers
    ]
    return page.table(rows, "lr")


def _interval(estimate: Estimate | None) -> str:
    return f"{_round(estimate.low_tok_per_s)} – {_round(estimate.high_tok_per_s)}" if estimate else "—"


def _round(rate: float) -> str:
    """Three digits: a prediction has no more."""
    return f"{rate:.0f}" if rate >= 100 else f"{rate:#.3g}"


def _tell_room(room: Room) -> str:
    need = room.need
    cache = f" + cache {format_gb(need.cache_bytes)}" if need.cache_bytes else ""
    cache = " + a cache that is not known" if need.cache_bytes is None else cache
    device = f" + driver {format_gb(need.device_bytes)}" if need.device_bytes else ""
    sums = f"weights {format_gb(need.weights_bytes)}{cache} + working memory {format_gb(need.compute_bytes)}{device}"
    limit = f"{format_gb(room.limit_bytes)} ({format_gib(room.limit_bytes)}, {room.what})"
    total = f"needs {format_gb(need.total_bytes)} ({sums}) of {limit}"
    if room.fits and need.cache_bytes is None:
        return f"{total}: fits without the cache, {format_gb(room.left_bytes)} left for that."
    if room.fits:
        return f"{total}: fits, {format_gb(room.left_bytes)} left."
    layers = f"; {room.n_layers_gpu} layers do" if room.n_layers_gpu is not None else ""
    return f"{total}: does not fit, {format_gb(-room.left_bytes)} too much{layers}."


def render_answers_json(answers: Sequence[Answer], remarks: Sequence[str] = ()) -> str:
    rows = [
        {
            **_plain(answer),
            "cost": _plain(answer.cost) | {"kv_bytes_per_token": answer.cost.kv_bytes_per_token},
            "bytes_per_token": answer.cost.bytes_per_token(answer.n_depth),
            "flops_per_token": answer.cost.flops_per_token(answer.n_depth),
            "interval_level": LEVEL,
            "rooms": [
                {**_plain(room), "total_bytes": room.need.total_bytes, "left_bytes": room.left_bytes, "fits": room.fits}
                for room in answer.rooms
            ],
            "notes": [note for note in (*answer.notes, *remarks, *_qualify_cost(answer.cost)) if note],
        }
        for answer in answers
    ]
    return harmless.json_text(rows) + "\n"


def _plain(value: Any) -> dict[str, Any]:
    return dataclasses.asdict(value)


def render_check(check: Check) -> str:
    """Medians with their bounds, the article's predictions, the worst misses with what is known of why."""
    parts = ["Every figure predicted without itself:", "", _bounds(check.bounds), ""]
    parts += ["The article's own predictions:", ""]
    for claim in check.claims:
        parts += [page.fill(f"{claim.subject}: {claim.said}")]
        parts += [page.fill(f"  → {claim.found}: {claim.verdict}."), page.fill(f"  $ {claim.command}", rest="    ")]
    parts += ["", "The worst misses, one a machine and model, and why:", ""]
    for miss in check.misses:
        trial = miss.trial
        known = f"{trial.n_known} others known" if trial.n_known else "bandwidth alone"
        rates = f"{format_rate(trial.predicted.rate_tok_per_s)} for {format_rate(trial.measured_tok_per_s)} t/s"
        head = f"{trial.error:+5.0%}  {trial.machine}, {trial.model} {trial.quantization}: {rates} ({known})"
        parts += [page.fill(head), page.fill(miss.reason, first=" " * 7, rest=" " * 7)]
    verdict = "All bounds are met." if check.is_met else "Not all bounds are met."
    return "\n".join([*parts, "", verdict]) + "\n"


def _bounds(bounds: Sequence[Bound]) -> str:
    rows = [
        {
            "what": bound.title,
            "figures": str(len(bound.trials)),
            "median error": f"{bound.median_error:.1%}",
            "bound": "—" if bound.promised is None else f"{bound.promised:.0%} {'met' if bound.is_met else 'MISSED'}",
            "in interval": f"{bound.inside_share:.0%}",
        }
        for bound in bounds
    ]
    rows = [{**row, "what": page.wrap(row["what"], 29)} for row in rows]
    table = page.table(rows, "lr")
    return f"{table}\n\nin interval: how many lay in their {LEVEL:.0%} interval"


def render_check_json(check: Check) -> str:
    values = dataclasses.asdict(check)
    for bound, found in zip(values["bounds"], check.bounds, strict=True):
        bound |= {"median_error": found.median_error, "is_met": found.is_met, "inside_share": found.inside_share}
        for trial, source in zip(bound["trials"], found.trials, strict=True):
            trial["error"] = source.error
    return harmless.json_text({**values, "is_met": check.is_met}) + "\n"
