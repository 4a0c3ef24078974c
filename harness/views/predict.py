"""What a model would do on machines, and how far such predictions were off, as documents."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterator, Sequence

from harness.gguf.blocks import describe_skipped
from harness.gguf.model_kinds import Kind
from harness.gguf.settings import describe_untrained
from harness.speed.crosscheck import Bound, Check, RateClaim, SizeClaim, Trial, Verdict
from harness.speed.models import LEVEL, Estimate
from harness.speed.own import SHORTEST_PROMPT
from harness.speed.prediction import PROMPT_SHARE, Answer, Place, Prediction, PromptBasis, Room
from harness.speed.published import CAUTIONS, MISFITS
from harness.units import GIB, format_count, format_gb
from harness.views.document import Cell, Column, Document, Figure, KeyFigures, Prose, Section, Table, for_programs
from harness.views.values import BANDWIDTH, CHANGE, FILE, ROUND_RATE, ROUND_SHARE, SHARE, format_list, format_value

#: The heading of a column of intervals of predictions.
INTERVAL = f"{format_value(LEVEL, ROUND_SHARE)} interval"


def describe_prediction(prediction: Prediction) -> Document:
    """One model on one machine or several: rates with their intervals, where it fits, and what that rests on."""
    answers = prediction.answers
    cost = answers[0].cost
    return Document(
        "prediction",
        1,
        f"{cost.name} {cost.quantization}".strip() or "a dense model",
        [Section("", [_describe_cost(answers[0]), *_list_answers(answers, is_one_model=True)])],
        list(dict.fromkeys(_warn(prediction))),
        {
            "cost": cost,
            "n_ctx": answers[0].n_ctx,
            "n_depth": answers[0].n_depth,
            "basis": [a.basis for a in answers],
            "pp_basis": [a.pp_basis.value for a in answers],
            "interval_level": LEVEL,
        },
    )


def describe_answers(answers: Sequence[Answer]) -> Document:
    """Answers about several models on this machine."""
    doubts = dict.fromkeys(doubt for answer in answers for doubt in _list_doubts(answer))
    return Document("predictions", 1, "", [Section("", _list_answers(answers, is_one_model=False))], list(doubts))


def _list_answers(answers: Sequence[Answer], *, is_one_model: bool) -> list[Table]:
    """Rates, and memory where it is known; of one model, whose name stands above, or of any."""
    notes = [*_describe_shared(answers, _describe_basis), *_describe_shared(answers, _describe_prompts)]
    columns = [
        Column("model", is_shown=not is_one_model, of=_name),
        Column("size", unit=FILE, is_shown=not is_one_model, of=lambda a: Cell(a.cost.size_bytes, is_approximate=a.cost.is_estimate)),
        Column("machine"), *for_programs("kind"), *for_programs("bandwidth", unit=BANDWIDTH),
        Column("tg_rate", "tg t/s", ROUND_RATE, interval=INTERVAL, of=lambda a: _rate(a.tg)), Column("tg_roof", "roof", ROUND_RATE),
        Column("pp_rate", "pp512 t/s", ROUND_RATE, interval="interval", of=lambda a: _rate(a.pp)),
    ]  # fmt: skip
    rates = Table.of("answers", answers, columns, notes)
    alike = is_one_model and len({answer.rooms for answer in answers}) == 1
    rooms = [(answer, room) for answer in (answers[:1] if alike else answers) for room in answer.rooms]
    memory_notes = dict.fromkeys(filter(None, [_describe_limit(room) for _, room in rooms]))
    memory = Table.of("memory", rooms, _memory_columns(is_one_model, alike), list(memory_notes))
    return [rates, memory] if rooms else [rates]


def _describe_cost(answer: Answer) -> KeyFigures:
    cost, cache = answer.cost, answer.cost.cache
    each, windowed = cost.kv_bytes_per_token, cache.windowed_bytes_per_token if cache else 0
    depth = f" at depth {answer.n_depth}" if answer.n_depth else ""

    def about(name: str, value: float | None, phrase: str = "") -> Figure:
        return Figure(name, "", Cell(value or None, is_approximate=cost.is_estimate), FILE, phrase)

    window = f" beyond {cache.window_tokens}" if cache and windowed else ""
    read = round(cost.bytes_per_token(answer.n_depth))
    figures = [
        about("size", cost.size_bytes),
        Figure("read_per_token", "", read, FILE, f"a token reads {{}}{depth}"),
        Figure("flops_per_token", "", cost.flops_per_token(answer.n_depth), is_shown=False),
        about("kv_per_token", each, "cache {} a token"),
        about("kv_per_token_beyond_window", (each or 0) - windowed if windowed else None, f"{{}}{window}"),
        about("state", cache.state_bytes if cache else None, "state {}"),
    ]
    return KeyFigures(figures, in_line=True)


def _rate(estimate: Estimate | None) -> Cell:
    if estimate is None:
        return Cell()
    return Cell(estimate.rate_tok_per_s, interval=(estimate.low_tok_per_s, estimate.high_tok_per_s))


_PLACES = {Place.VRAM: "VRAM", Place.MEMORY: "memory", Place.METAL_3_4: "Metal", Place.METAL_2_3: "Metal"}
_METAL = {Place.METAL_3_4: (3, 4), Place.METAL_2_3: (2, 3)}


def _describe_limit(room: Room) -> str:
    """What share of a memory may be used, and what it is sold as where that is another figure."""
    part, of = _METAL.get(room.place, (1, 1))
    memory_bytes = round(room.limit_bytes * of / part)
    sold = f"what is sold as {memory_bytes / GIB:g} GB has {format_gb(memory_bytes)}" if memory_bytes % GIB == 0 else ""
    metal = f"Metal gives {part}/{of} of such a memory by default" if room.place in _METAL else ""
    return "; ".join(filter(None, [metal, sold]))


def _memory_columns(is_one_model: bool, is_for_all: bool) -> list[Column]:
    def need(name: str, title: str = "", left_out: int = 0) -> Column:
        needed = operator.attrgetter(f"need.{name}_bytes")
        return Column(name, title, FILE, left_out=left_out, of=lambda one: needed(one[1]) or None)

    def total(one: tuple[Answer, Room]) -> Cell:
        is_known = one[1].need.cache_bytes is not None
        return Cell(one[1].need.total_bytes, notes=() if is_known else ("the cache is not known, and not counted",))

    return [
        Column("model", is_shown=not is_one_model, of=lambda one: _name(one[0])),
        Column("machine", is_shown=is_one_model, of=lambda one: None if is_for_all else one[0].machine),
        Column("place", "in", of=lambda one: _PLACES[one[1].place]), Column("needed", unit=FILE, of=total),
        need("weights"), need("repacked", "", 4),
        Column("cache", unit=FILE, left_out=1, of=lambda one: Cell(one[1].need.cache_bytes, instead="?")),
        need("compute", "working\nmemory", 2), Column("driver", unit=FILE, left_out=3, of=lambda one: one[1].need.device_bytes or None),
        Column("limit", "there is", FILE, of=lambda one: one[1].limit_bytes),
        Column("left", unit=FILE, of=lambda one: one[1].left_bytes),
        Column("fits", of=lambda one: one[1].fits), Column("n_layers_gpu", is_shown=False, of=lambda one: one[1].n_layers_gpu),
    ]  # fmt: skip


def _name(answer: Answer) -> str:
    return f"{answer.cost.name} {answer.cost.quantization}".strip()


def _describe_shared(answers: Sequence[Answer], describe: Callable[[Answer], str]) -> Iterator[str]:
    """What is said of each machine; once where it is the same for all."""
    said = {answer.machine: describe(answer) for answer in answers}
    if len(set(said.values())) == 1:
        yield next(iter(said.values()))
    else:
        yield from (f"{machine}: {text}" for machine, text in said.items())


def _describe_basis(answer: Answer) -> str:
    basis = answer.basis
    models = ", ".join(basis.models)
    if basis.is_own:
        roofline = basis.roofline_bytes_per_s
        read = (
            f"what harness roofline read of the nearest type ({format_value(roofline, BANDWIDTH)})" if roofline else ""
        )
        return f"tg from {format_list([*filter(None, [read, models and f'its own records of {models}'])])}"
    others = f"what {basis.n_machines} published machines of its kind have in common"
    return f"tg from its figures for {models}; else {others}" if models else f"tg from its bandwidth, and {others}"


_PROMPTS = {
    PromptBasis.PUBLISHED: "prompts timed on it",
    PromptBasis.OWN_RECORDS: "its own records of prompts; a larger model's reach more",
    PromptBasis.STATED_FLOPS: f"{format_value(PROMPT_SHARE, ROUND_SHARE)} of the stated FLOP/s (assumed)",
    PromptBasis.ROOFLINE_FLOPS: f"{format_value(PROMPT_SHARE, ROUND_SHARE)} of the FLOP/s that harness roofline measured (assumed)",
    PromptBasis.NOT_TIMED: "no prompt was timed on it and bandwidth does not decide it; give --flops",
    PromptBasis.TWO_DEVICES: "not worked out for a model on two devices",
}


def _describe_prompts(answer: Answer) -> str:
    short = f"; its own prompts have fewer than {SHORTEST_PROMPT} tokens" if answer.has_short_prompts else ""
    return f"pp: {_PROMPTS[answer.pp_basis]}{short}"


def _warn(prediction: Prediction) -> Iterator[str]:
    """What makes it doubtful, or what was assumed."""
    answers, cost = prediction.answers, prediction.answers[0].cost
    for answer in answers:
        yield from _list_doubts(answer)
    if prediction.header_note:
        yield prediction.header_note
    if prediction.file_kind is not None and prediction.file_kind.kind is not Kind.TEXT:
        yield prediction.file_kind.describe(prediction.label)
    if encoder := prediction.encoder:
        yield (
            f"text part worked out as {encoder.n_blocks} common blocks; the other {encoder.n_params / 1e9:.1f} B parameters, the "
            f"vision encoder, in F16 ({format_gb(encoder.size_bytes)}, not read while generating)"
        )
    if prediction.refused:
        yield prediction.refused
    if not cost.name:
        yield f"taken as a dense Q4_0 of Llama's family: {cost.n_layers} layers, all bytes read for a token"
    if untrained := describe_untrained(cost.n_ctx_train, [answers[0].n_ctx]):
        yield untrained
    if prediction.plan_trouble:
        yield f"working memory is estimated: {prediction.plan_trouble}"
    if cost.cache_unknown:
        yield f"cache: {cost.cache_unknown}"
    if cost.skipped:
        yield describe_skipped(cost.skipped)


def _list_doubts(answer: Answer) -> Iterator[str]:
    basis, split = answer.basis, answer.split
    for caution in basis.cautions:
        yield f"while harness roofline ran: {caution}" if basis.is_own else caution
    if basis.n_left_out:
        why = ", ".join(code.replace("-", " ") for code in basis.left_out)
        yield f"left out: {format_count(basis.n_left_out, 'record')} not to be trusted ({why})"
    if split:
        host = split.host or "an average published CPU (name one with --host)"
        yield (
            f"{split.n_layers_gpu} of {split.n_layers} layers on the card (the output layer is one), the rest on {host}"
        )
        if answer.cost.has_experts:
            yield "with experts alone on the CPU and all else on the card it may be faster; harness fit says of how many layers"
    elif any(not room.fits and room.place is not Place.VRAM for room in answer.rooms):
        yield "it does not fit; the rates are what it would do if it did"


# --- the check --------------------------------------------------------------------------------------------------------


def describe_check(check: Check) -> Document:
    """Medians with their bounds, the article's predictions, the worst misses with what is known of why."""
    verdict = "All bounds are met." if check.is_met else "Not all bounds are met."
    commands = dict.fromkeys(claim.command for claim in check.claims)
    sections = [
        Section("Every figure predicted without itself:", [_list_bounds(check.bounds), Prose([verdict])]),
        Section("The article's own predictions:", [_list_claims(check.claims)]),
        Section("To see one of them:", [Prose([f"$ {command}" for command in commands])]),
        Section("The worst misses, one a machine and model, and why:", [_list_misses(check.misses)]),
    ]
    trials = {bound.title: bound.trials for bound in check.bounds}
    return Document(
        "prediction-check", 1, "", sections, data={"is_met": check.is_met, "level": LEVEL, "trials": trials}
    )


def _list_bounds(bounds: Sequence[Bound]) -> Table:
    columns = [
        Column("title", "what", wraps=True), Column("n_figures", "figures", of=lambda bound: len(bound.trials)),
        Column("median_error", unit=SHARE), Column("promised", "bound", SHARE), Column("is_met", "met"),
        Column("inside_share", "in interval", SHARE),
    ]  # fmt: skip
    return Table.of("bounds", bounds, columns, [f"in interval: how many lay in their {INTERVAL}"])


def _list_claims(claims: Sequence[RateClaim | SizeClaim]) -> Table:
    columns = [
        Column("subject", "what", wraps=True), Column("said", wraps=True),
        Column("found", f"found (t/s),\n{INTERVAL}", ROUND_RATE, of=_find),
        Column("verdict", is_shown=False, of=lambda claim: claim.verdict.value if isinstance(claim, RateClaim) else None),
        *for_programs("command"),
    ]  # fmt: skip
    return Table.of("claims", claims, columns)


def _list_misses(misses: Sequence[Trial]) -> Table:
    columns = [
        Column("error", unit=CHANGE), Column("machine"), Column("model", of=lambda miss: f"{miss.model} {miss.quantization}"),
        Column("predicted_rate", "predicted\nt/s", ROUND_RATE, of=lambda miss: miss.predicted.rate_tok_per_s),
        Column("measured_rate", "measured\nt/s", ROUND_RATE, of=lambda miss: miss.measured_tok_per_s),
        Column("n_known", "others\nknown", of=lambda miss: Cell(miss.n_known, notes=(_explain(miss),))),
    ]  # fmt: skip
    return Table.of("misses", misses, columns)


def _find(claim: RateClaim | SizeClaim) -> Cell:
    """What is found instead of what was said, and what that comes to."""
    if isinstance(claim, RateClaim):
        verdict = "; ".join(filter(None, [_judge_rate(claim), claim.remark, _describe_measured(claim)]))
        return dataclasses.replace(_rate(claim.found), notes=(verdict,))
    left = claim.limit_bytes - claim.need_bytes
    limit = format_gb(claim.limit_bytes)
    if not claim.whole_bytes:
        limit = f"the {limit} that are sold as {claim.limit_bytes / GIB:g} GB"
    verdict = f"fits in {limit}, {format_gb(left)} left" if left >= 0 else f"{format_gb(-left)} more than {limit}"
    if claim.whole_bytes:
        whole = claim.whole_bytes - claim.need_bytes
        verdict += f", Metal's default; with the limit raised {format_gb(whole)} are left for all else"
    return Cell(claim.need_bytes, FILE, notes=(verdict,), is_approximate=claim.is_estimate)


def _judge_rate(claim: RateClaim) -> str:
    change = f"{format_value(abs(claim.error), ROUND_SHARE)} {'more' if claim.error > 0 else 'less'}"
    return {
        Verdict.AGREES: "agrees",
        Verdict.IMPOSSIBLE: f"not possible: reading alone allows {format_value(claim.roof_tok_per_s, ROUND_RATE)}",
        Verdict.OUTSIDE: f"outside the interval; what comes out is {change}",
        Verdict.INSIDE: f"inside a wide interval; what comes out is {change}",
    }[claim.verdict]


def _describe_measured(claim: RateClaim) -> str:
    rates = [format_value(rate, ROUND_RATE, with_sign=False) for rate in claim.measured_tok_per_s]
    return f"measured {format_list(rates)}" if rates else ""


def _explain(trial: Trial) -> str:
    """What is known of why a figure lies far off. A prediction is not corrected by it."""
    if trial.is_split and trial.kind == "gpu":
        return "did not fit the card: the rest ran on a processor that is not named, here an average one"
    if reason := MISFITS.get(trial.machine) or CAUTIONS.get(trial.machine):
        return reason
    if trial.kind == "gpu" and trial.model == "qwen2.5:0.5b":
        return "so small that what a layer costs decides, and what sampling costs on the host"
    return "no reason known"
