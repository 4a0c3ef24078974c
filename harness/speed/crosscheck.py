"""The predictions held against what was measured: every published figure, predicted without itself, and what the article predicted."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.catalog import Catalog
from harness.evidence.medians import median
from harness.gguf.cost import Cost, cost_of_shape
from harness.speed.machines import ARTICLE_CTX, Machine, article_cost, find_machine, known_machines
from harness.speed.models import Estimate
from harness.speed.prediction import Answer, Question, cost_by_size, cost_of_entry, predict_by_bandwidth, predict_for
from harness.speed.published import LLAMA_7B
from harness.units import GIB


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


class Verdict(enum.Enum):
    """What a prediction says of a rate that the article gave."""

    AGREES = "agrees"
    INSIDE = "inside-a-wide-interval"
    OUTSIDE = "outside"
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, slots=True)
class RateClaim:
    """A rate that the article gave for what it had not measured, what comes out here, and the command that says so.

    said is how the article put it, remark what is known besides, measured what others measured since.
    """

    subject: str
    said: str
    said_tok_per_s: float
    found: Estimate
    command: str
    roof_tok_per_s: float | None = None
    measured_tok_per_s: tuple[float, ...] = ()
    remark: str = ""

    @property
    def error(self) -> float:
        """What is found over what was said, less one."""
        return self.found.rate_tok_per_s / self.said_tok_per_s - 1

    @property
    def verdict(self) -> Verdict:
        if self.roof_tok_per_s is not None and self.said_tok_per_s > self.roof_tok_per_s:
            return Verdict.IMPOSSIBLE
        if not self.found.low_tok_per_s <= self.said_tok_per_s <= self.found.high_tok_per_s:
            return Verdict.OUTSIDE
        return Verdict.AGREES if abs(self.error) <= 0.15 else Verdict.INSIDE


@dataclass(frozen=True, slots=True)
class SizeClaim:
    """Likewise of memory: what is needed of what there is. whole_bytes is all memory, where limit_bytes is the share of a default."""

    subject: str
    said: str
    need_bytes: int
    limit_bytes: int
    command: str
    whole_bytes: int | None = None
    is_estimate: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """All of it: bounds with their trials, the article's predictions, the worst misses."""

    bounds: tuple[Bound, ...]
    claims: tuple[RateClaim | SizeClaim, ...]
    misses: tuple[Trial, ...]

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
    return Check(bounds, _check_claims(catalog, machines), _find_misses((*known, *alone)))


def _try_all(chosen: Sequence[Machine], machines: Sequence[Machine], *, use_others: bool) -> tuple[Trial, ...]:
    """Predict each figure as `harness predict` would, had it never been published."""
    trials = []
    for machine in chosen:
        hardware = machine.hardware
        for point in (*hardware.points, *machine.spilled):
            others = tuple(other for other in hardware.points if other is not point) if use_others else ()
            if others or not use_others:
                stripped = dataclasses.replace(hardware, points=others)
                stripped_machine = dataclasses.replace(machine, hardware=stripped, spilled=())
                found = predict_for(stripped_machine, Question(point.cost, n_ctx=ARTICLE_CTX), machines).tg
                about = (hardware.name, hardware.kind, point.cost.name, point.cost.quantization, len(others))
                trials.append(Trial(*about, point in machine.spilled, 1 / point.token_s, found))
    return tuple(trials)


def _find_misses(trials: Sequence[Trial], count: int = 12) -> tuple[Trial, ...]:
    """The worst trials by ratio, one a machine and model: the one that knew most."""
    worst: dict[tuple[str, str], Trial] = {}
    for trial in trials:  # those that knew other models come first
        worst.setdefault((trial.machine, trial.model), trial)
    return tuple(sorted(worst.values(), key=lambda trial: -abs(math.log(1 + trial.error)))[:count])


#: What the article said of an M4 Pro, without having one: its memory bandwidth in bytes a second.
_M4_PRO = 273e9


def _check_claims(catalog: Catalog, machines: Sequence[Machine]) -> tuple[RateClaim | SizeClaim, ...]:
    """The article's predictions, in its order; those for an M4 Pro by bandwidth alone, the chip's own figures left out."""
    others = [machine for machine in machines if machine.family != "M4 Pro"]
    eight, seventy = article_cost(catalog, "llama3.1:8b"), article_cost(catalog, "llama3.1:70b")
    card = find_machine(machines, "RTX 3070 Ti")[0]

    def m4_pro(subject: str, rate: float, cost: Cost, options: str, **facts: Any) -> RateClaim:
        answer = predict_by_bandwidth("apple", _M4_PRO, Question(cost), others)
        roof = answer.tg_roof_tok_per_s
        return RateClaim(subject, f"{rate:g} t/s", rate, answer.tg, f"harness predict {options}", roof, **facts)

    def on_card(cost: Cost) -> Answer:
        return predict_for(card, Question(cost, n_ctx=ARTICLE_CTX), machines)

    question = Question(seventy, n_ctx=ARTICLE_CTX, memory_bytes=48 * GIB)
    mac = predict_by_bandwidth("apple", _M4_PRO, question, others).rooms[-1]
    huge = cost_of_shape(catalog.find("llama3.1:405b").shape, "Q4_0", "llama3.1:405b").size_bytes
    vision, split = on_card(cost_of_entry(catalog.find("llama3.2-vision:11b"), "Q4_K_M")[0]).rooms[0], on_card(seventy)
    rates = [
        1 / point.token_s
        for machine in find_machine(machines, "M4 Pro")
        for point in machine.hardware.points
        if point.cost.quantization == "Q4_0"
    ]
    on_mac = "-m llama3.1:70b:q4_0 --machine 'M4 Pro' --memory 48GiB"
    return (
        m4_pro(
            "LLaMA 7B Q4_0 on an M4 Pro", 50, cost_of_shape(LLAMA_7B, "Q4_0", "LLaMA 7B"),
            "--size 3.83GB --bandwidth 273GB/s --kind apple", measured_tok_per_s=tuple(rates),
        ),
        m4_pro(
            "llama3.1:8b Q4_0 on an M4 Pro", 50, eight, "-m llama3.1:8b:q4_0 --bandwidth 273GB/s --kind apple",
        ),
        m4_pro(
            "that is an RTX 3060 Ti's speed", 60.2, eight, "-m llama3.1:8b:q4_0 --machine 'M4 Pro'",
            remark="the card reads 448 GB/s, the M4 Pro 273",
        ),
        m4_pro(
            "a model of 20 GB on an M4 Pro", 20, cost_by_size(catalog, 20 * 10**9), "--size 20GB --machine 'M4 Pro'",
        ),
        m4_pro("llama3.1:70b Q4_0 on an M4 Pro", 9, seventy, on_mac),
        SizeClaim(
            "70b Q4_0 in a Mac of 48 GB", "not sure if 43 GB fit", mac.need.total_bytes, mac.limit_bytes,
            f"harness predict {on_mac}", whole_bytes=48 * GIB,
        ),
        SizeClaim(
            "llama3.1:405b in Q4_0", "some 200 GB, too large for 128 GB", huge, 128 * GIB,
            "harness predict -m llama3.1:405b:q4_0 --machine 'M4 Max 40' --memory 128GiB",
        ),
        SizeClaim(
            "llama3.2-vision:11b in 8 GB of VRAM", "will probably be used", vision.need.total_bytes, vision.limit_bytes,
            "harness predict -m llama3.2-vision:11b --machine 'RTX 3070 Ti' --ctx 2048", is_estimate=True,
        ),
        RateClaim(
            f"70b on a card of 8 GB ({split.rooms[0].n_layers_gpu} of 81 layers on it)", "0.65 to 0.71 t/s", 0.68, split.tg,
            "harness predict -m llama3.1:70b:q4_0 --machine 'RTX 3070 Ti' --ctx 2048",
        ),
    )  # fmt: skip
