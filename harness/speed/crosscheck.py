"""The predictions held against what was measured: every published figure, predicted without itself, and what the article predicted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.catalog import Catalog
from harness.gguf.cost import cost_of_shape
from harness.gguf.layout import tensor_table
from harness.memory.fit import metal_limit_bytes
from harness.records.statistics import median
from harness.speed.models import LEVEL, Estimate, Point
from harness.speed.prediction import (
    ARTICLE_CTX,
    Answer,
    Machine,
    Question,
    article_cost,
    cost_by_size,
    cost_of_entry,
    find_machine,
    known_machines,
    predict_by_bandwidth,
    predict_for,
)
from harness.units import GIB, format_gb


@dataclass(frozen=True, slots=True)
class Trial:
    """One published figure and what would have been predicted without it. n_known counts the machine's other figures that were used."""

    machine: str
    kind: str
    model: str
    quantization: str
    n_known: int
    is_split: bool
    measured_tok_per_s: float
    predicted: Estimate

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted.rate_tok_per_s / self.measured_tok_per_s - 1

    @property
    def is_inside(self) -> bool:
        return self.predicted.low_tok_per_s <= self.measured_tok_per_s <= self.predicted.high_tok_per_s


@dataclass(frozen=True, slots=True)
class Bound:
    """A promise about the median error of some trials, as a share; None where the trials are only told."""

    title: str
    trials: tuple[Trial, ...]
    promised: float | None

    @property
    def median_error(self) -> float:
        return median([abs(trial.error) for trial in self.trials])

    @property
    def is_met(self) -> bool | None:
        return None if self.promised is None else self.median_error <= self.promised

    @property
    def inside_share(self) -> float:
        """How many of the figures lay in their interval, which should be `LEVEL`."""
        return sum(trial.is_inside for trial in self.trials) / len(self.trials)


@dataclass(frozen=True, slots=True)
class Miss:
    """A trial that went far wrong, and what is known of why."""

    trial: Trial
    reason: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One of the article's predictions: what it said, what comes out here, and the command that says so."""

    subject: str
    said: str
    found: str
    verdict: str
    command: str


@dataclass(frozen=True, slots=True)
class Check:
    """All of it: bounds with their trials, the article's predictions, the worst misses."""

    bounds: tuple[Bound, ...]
    claims: tuple[Claim, ...]
    misses: tuple[Miss, ...]
    level: float = LEVEL

    @property
    def is_met(self) -> bool:
        return all(bound.is_met is not False for bound in self.bounds)


def check_predictions(catalog: Catalog) -> Check:
    """Predict every published figure without itself, and answer the article's own predictions.

    Nothing that is used for a figure was learnt from it: what machines of a kind have in common is learnt without the whole machine
    (and all variants of its chip), and a machine's own figures are used without the one in question.
    """
    machines = known_machines(catalog)
    article = [machine for machine in machines if machine.hardware.kind != "apple"]
    apple = [machine for machine in machines if machine.hardware.kind == "apple"]
    known = _try_all(article, machines, use_others=True)
    alone = _try_all(article, machines, use_others=False)
    bounds = (
        Bound("a model on a machine of which other models are known", known, 0.10),
        Bound("Apple's line from bandwidth alone", _try_all(apple, machines, use_others=False), 0.10),
        Bound("the article's machines from bandwidth alone", alone, 0.25),
        Bound("Apple's line, other quantizations of the chip known", _try_all(apple, machines, use_others=True), None),
    )
    return Check(bounds, tuple(_answer_claims(catalog, machines)), _find_misses((*known, *alone)))


def _try_all(chosen: Sequence[Machine], machines: Sequence[Machine], *, use_others: bool) -> tuple[Trial, ...]:
    trials = []
    for machine in chosen:
        for point in (*machine.hardware.points, *machine.spilled):
            others = tuple(other for other in machine.hardware.points if other is not point) if use_others else ()
            if use_others and not others:
                continue
            trials.append(_try(machine, point, others, machines))
    return tuple(trials)


def _try(machine: Machine, point: Point, others: tuple[Point, ...], machines: Sequence[Machine]) -> Trial:
    """Predict one figure as `harness predict` would, had it never been published."""
    stripped = dataclasses.replace(
        machine, hardware=dataclasses.replace(machine.hardware, points=others), spilled=(), cautions=()
    )
    answer = predict_for(stripped, Question(point.cost, n_ctx=ARTICLE_CTX), machines)
    assert answer.tg is not None
    return Trial(
        machine=machine.hardware.name,
        kind=machine.hardware.kind,
        model=point.cost.name,
        quantization=point.cost.quantization,
        n_known=len(others),
        is_split=point in machine.spilled,
        measured_tok_per_s=1 / point.token_s,
        predicted=answer.tg,
    )


#: What is known of machines whose figures lie far off. A prediction is not corrected by it.
_REASONS: dict[str, str] = {
    "GTX 960": "an old card without fast half-precision or int8 arithmetic; if it had 2 GB, even 1b and 3b did not fit whole",
    "M1000M": "an old card without fast half-precision or int8 arithmetic; if it had 2 GB, even 1b and 3b did not fit whole",
    "i7-13700T": "89.6 GB/s is DDR5's; with DDR4 it would be 51.2, as its speeds suggest",
    "RTX A6000 Ada": "an ambiguous card: 1b and 70b are too fast for an RTX A6000, 8b too slow for an RTX 6000 Ada",
    "Ryzen AI 9 HX 370": "120 GB/s is for LPDDR5X-7500; with DDR5-5600 it would be 89.6",
    "X Elite X1E78100": "another architecture (Arm) and soldered memory",
    "RTX 4050 Laptop": "only its bandwidth is known, and two old cards pull down what is expected of one",
}

_CELL_REASONS: dict[tuple[str, str], str] = {
    ("E5-2696 v3", "llama3.1:70b"): "0.18 t/s is a third of what its other figures lead to (NUMA? too little memory?)",
}


def _find_misses(trials: Sequence[Trial], count: int = 12) -> tuple[Miss, ...]:
    """The worst trials by ratio, one a machine and model (the one that knew most), each with its reason."""
    worst: dict[tuple[str, str], Trial] = {}
    for trial in trials:  # those that knew other models come first
        worst.setdefault((trial.machine, trial.model), trial)
    ordered = sorted(worst.values(), key=lambda trial: -abs(math.log(1 + trial.error)))
    return tuple(Miss(trial, _reason(trial)) for trial in ordered[:count])


def _reason(trial: Trial) -> str:
    if (trial.machine, trial.model) in _CELL_REASONS:
        return _CELL_REASONS[trial.machine, trial.model]
    if trial.is_split:
        return "did not fit the card: the rest ran on a processor that is not named, here an average one"
    if trial.machine in _REASONS:
        return _REASONS[trial.machine]
    if trial.machine == "E5-2696 v3":
        return "68 GB/s needs four filled channels; it has a third of it"
    if trial.kind == "gpu" and trial.model == "qwen2.5:0.5b":
        return "so small that what a layer costs decides, and what sampling costs on the host"
    return "no reason known"


def _answer_claims(catalog: Catalog, machines: Sequence[Machine]) -> list[Claim]:
    answers: list[Callable[[Catalog, Sequence[Machine]], Claim]] = [
        _claim_m4_pro_7b, _claim_m4_pro_8b, _claim_3060_ti, _claim_20_gb, _claim_70b, _claim_48_gb, _claim_405b, _claim_vision,
        _claim_split,
    ]  # fmt: skip
    return [answer(catalog, machines) for answer in answers]


def _format(estimate: Estimate) -> str:
    digits = 2 if estimate.rate_tok_per_s < 2 else 1
    low, high = (f"{value:.{digits}f}" for value in (estimate.low_tok_per_s, estimate.high_tok_per_s))
    return f"{estimate.rate_tok_per_s:.{digits}f} t/s [{low}, {high}]"


def _verdict(estimate: Estimate, said: float, roof: float | None = None) -> str:
    if roof is not None and said > roof:
        return f"not possible: reading alone allows {roof:.1f} t/s"
    error = estimate.rate_tok_per_s / said - 1
    if not estimate.low_tok_per_s <= said <= estimate.high_tok_per_s:
        return f"outside the interval; what comes out is {_compare(error)}"
    return "agrees" if abs(error) <= 0.15 else f"inside a wide interval; what comes out is {_compare(error)}"


def _compare(error: float) -> str:
    return f"{abs(error):.0%} {'more' if error > 0 else 'less'}"


def _without(machines: Sequence[Machine], family: str) -> list[Machine]:
    return [machine for machine in machines if machine.family != family]


def _at_m4_pro(catalog: Catalog, machines: Sequence[Machine], question: Question) -> tuple[Answer, Estimate]:
    """By bandwidth alone, the M4 Pro's own figures left out."""
    answer = predict_by_bandwidth("apple", 273e9, question, _without(machines, "M4 Pro"))
    assert answer.tg is not None
    return answer, answer.tg


def _claim_m4_pro_7b(catalog: Catalog, machines: Sequence[Machine]) -> Claim:
    from harness.speed.published import LLAMA_7B

    answer, tg = _at_m4_pro(catalog, machines, Question(cost_of_shape(LLAMA_7B, "Q4_0", "LLaMA 7B")))
    measured = [
        1 / point.token_s
        for machine in find_machine(machines, "M4 Pro")
        for point in machine.hardware.points
        if point.cost.quantization == "Q4_0"
    ]
    return Claim(
        "LLaMA 7B Q4_0 on an M4 Pro", "50 t/s", _format(tg),
        f"{_verdict(tg, 50, answer.tg_roof_tok_per_s)}; measured {' and '.join(f'{rate:.1f}' for rate in measured)}",
        "harness predict --size 3.83GB --bandwidth 273GB/s --kind apple",
    )  # fmt: skip


def _claim_m4_pro_8b(catalog: Catalog, machines: Sequence[Machine]) -> Claim:
    answer, tg = _at_m4_pro(catalog, machines, Question(article_cost(catalog, "llama3.1:8b")))
    return Claim(
        "llama3.1:8b Q4_0 on an M4 Pro", "50 t/s", _format(tg), _verdict(tg, 50, answer.tg_roof_tok_per_s),
        "harness predict -m llama3.1:8b:q4_0 --bandwidth 273GB/s --kind apple",
    )  # fmt: skip


def _claim_3060_ti(catalog: Catalog, machines: Sequence[Machine]) -> Claim:
    _, tg = _at_m4_pro(catalog, machines, Question(article_cost(catalog, "llama3.1:8b")))
    return Claim(
        "that is an RTX 3060 Ti's speed", "60.2 t/s", _format(tg),
        f"{_verdict(tg, 60.2)}; the card reads 448 GB/s, the M4 Pro 273",
        "harness predict -m llama3.1:8b:q4_0 --machine 'M4 Pro'",
    )  # fmt: skip


def _claim_20_gb(catalog: Catalog, machines: Sequence[Machine]) -> Claim:
    answer, tg = _at_m4_pro(catalog, machines, Question(cost_by_size(catalog, 20 * 10**9)))
    return Claim(
        "a model of 20 GB on an M4 Pro", "20 t/s", _format(tg), _verdict(tg, 20, answer.tg_roof_tok_per_s),
        "harness predict --size 20GB --machine 'M4 Pro'",
    )  # fmt: skip


def _claim_70b(catalog: Catalog, machines: Sequence[Machine]) -> Claim:
    answer, tg = _at_m4_pro(catalog, machines, Question(article_cost(catalog, "llama3.1:70b")))
    return Claim(
        "llama3.1:70b Q4_0 on an M4 Pro", "9 t/s", _format(tg), _verdict(tg, 9, answer.tg_roof_tok_per_s),
        "harness predict -m llama3.1:70b:q4_0 --machine 'M4 Pro' --memory 48GiB",
    )  # fmt: skip


def _claim_48_gb(catalog: Catalog, machines: Sequence[Machine]) -> Claim:
    question = Question(article_cost(catalog, "llama3.1:70b"), n_ctx=ARTICLE_CTX, memory_bytes=48 * GIB)
    answer, _ = _at_m4_pro(catalog, machines, question)
    room, limit = answer.rooms[-1], metal_limit_bytes(48 * GIB)
    whole = 48 * GIB - room.need.total_bytes
    return Claim(
        "70b Q4_0 in a Mac of 48 GB", "not sure if 43 GB fit",
        f"needs {format_gb(room.need.total_bytes)}, Metal gives {format_gb(limit)} by default",
        "not by default" + (f"; with the limit raised {format_gb(whole)} are left for all else" if whole > 0 else ""),
        "harness predict -m llama3.1:70b:q4_0 --machine 'M4 Pro' --memory 48GiB",
    )  # fmt: skip


def _claim_405b(catalog: Catalog, machines: Sequence[Machine]) -> Claim:
    size = sum(tensor.size_bytes for tensor in tensor_table(catalog.find("llama3.1:405b").shape, "Q4_0"))
    return Claim(
        "llama3.1:405b in Q4_0", "some 200 GB", format_gb(size), f"{size / 200e9 - 1:.0%} more; too large for 128 GB all the same",
        "harness predict -m llama3.1:405b:q4_0 --machine 'M4 Max 40' --memory 128GiB",
    )  # fmt: skip


def _claim_vision(catalog: Catalog, machines: Sequence[Machine]) -> Claim:
    cost, _ = cost_of_entry(catalog.find("llama3.2-vision:11b"), "Q4_K_M")
    card = find_machine(machines, "RTX 3070 Ti")[0]
    room = predict_for(card, Question(cost, n_ctx=ARTICLE_CTX), machines).rooms[0]
    verdict = (
        f"fits, {format_gb(room.left_bytes)} left"
        if room.fits
        else f"does not quite fit ({format_gb(-room.left_bytes)} too much, by this estimate)"
    )
    return Claim(
        "llama3.2-vision:11b in 8 GB of VRAM", "will probably be used",
        f"needs about {format_gb(room.need.total_bytes)} of {format_gb(room.limit_bytes)}", verdict,
        "harness predict -m llama3.2-vision:11b --machine 'RTX 3070 Ti' --ctx 2048",
    )  # fmt: skip


def _claim_split(catalog: Catalog, machines: Sequence[Machine]) -> Claim:
    answer = predict_for(
        find_machine(machines, "RTX 3070 Ti")[0],
        Question(article_cost(catalog, "llama3.1:70b"), n_ctx=ARTICLE_CTX),
        machines,
    )
    assert answer.tg is not None
    layers = answer.rooms[0].n_layers_gpu
    return Claim(
        f"70b on a card of 8 GB ({layers} of 81 layers on it)", "0.65 to 0.71 t/s", _format(answer.tg),
        _verdict(answer.tg, 0.68), "harness predict -m llama3.1:70b:q4_0 --machine 'RTX 3070 Ti' --ctx 2048",
    )  # fmt: skip
