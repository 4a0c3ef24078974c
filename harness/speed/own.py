"""The machine in front of the user, predicted from its own roofline and records."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import UsageError
from harness.gguf.cost import Cost, roof_tok_per_s
from harness.speed.machines import KINDS, Machine, populate
from harness.speed.models import Estimate, Hardware, Point, estimate, fit, measured_belief
from harness.speed.prediction import Answer, Basis, PromptBasis, Question, name_models, place_layers, predict_prompt
from harness.speed.rates import Measured, speaks_for

#: Tokens from which a timed prompt tells of arithmetic: a shorter one takes about as long as reading the weights, however few tokens
#: share that.
SHORTEST_PROMPT = 128


@dataclass(frozen=True, slots=True)
class OwnMachine:
    """What this machine's records say of it. bandwidth is None where `harness roofline` never ran.

    bandwidth is the quickest reading of all, type_bandwidth that of the asked model's type. cautions are sentences about that run.
    """

    name: str
    kind: str
    measured: Sequence[Measured]
    bandwidth_bytes_per_s: float | None = None
    type_bandwidth_bytes_per_s: float | None = None
    flops_per_s: float | None = None
    cautions: tuple[str, ...] = ()


def predict_own(own: OwnMachine, question: Question, machines: Sequence[Machine]) -> Answer:
    """Answer for the machine in front of the user. Busy runs say nothing of the next one and are left out.

    Raises
    ------
    UsageError : there is neither a roofline nor a record to be trusted.
    """
    bad = [item for item in own.measured if item.summary.is_distrusted]
    codes = tuple(dict.fromkeys(c.cause.value for item in bad for c in item.summary.cautions if c.distrust))
    measured = [item for item in own.measured if not item.summary.is_distrusted]
    points = own_points(measured, question)
    bandwidth = own.type_bandwidth_bytes_per_s or own.bandwidth_bytes_per_s
    if bandwidth is None and not points:
        why = ", ".join(code.replace("-", " ") for code in codes)
        known = f"Of this machine there are only figures that are not to be trusted ({why})" if bad else ""
        raise UsageError(
            f"{known or 'Nothing is known of this machine yet'}: run `harness roofline` or `harness pp-tg` first, or name a --machine "
            "or a --bandwidth."
        )
    if bandwidth is None:
        bandwidth = max(point.cost.bytes_per_token(point.depth) / point.token_s for point in points)
    population = populate(machines, own.kind if own.kind in KINDS else "cpu")
    prior = dataclasses.replace(population, belief=measured_belief(population))
    belief = fit(Hardware(own.name, own.kind, bandwidth, tuple(points)), prior)
    device = (bandwidth, belief, prior.width(len(points)))
    rooms, shares, split = place_layers(own.kind, device, question, question.vram_bytes, machines)
    roofline = own.bandwidth_bytes_per_s
    defaults = [item for item in measured if item.test_kind == "pp" and item.is_default]
    prompts = [(item, cost) for item in defaults if (cost := item.cost()) is not None]
    pp, pp_basis = _predict_own_prompt(prompts, own.flops_per_s, question)
    return Answer(
        machine=own.name, kind=own.kind, bandwidth_bytes_per_s=roofline, cost=question.cost, n_ctx=question.n_ctx,
        n_depth=question.n_depth, tg=estimate(shares, prior.noise), pp=pp, pp_basis=pp_basis, rooms=rooms, split=split,
        basis=Basis(
            name_models(points), is_own=True, roofline_bytes_per_s=bandwidth if roofline else None, n_left_out=len(bad),
            left_out=codes, cautions=own.cautions,
        ),
        tg_roof_tok_per_s=roof_tok_per_s(question.cost, roofline, question.n_depth) if roofline else None,
        has_short_prompts=bool(prompts) and pp_basis in (PromptBasis.ROOFLINE_FLOPS, PromptBasis.NOT_TIMED),
    )  # fmt: skip


def own_points(measured: Sequence[Measured], question: Question | None = None) -> list[Point]:
    """One point a model, quantization and depth: the generation that speaks for it.

    A record of the very file that is asked about has the question's cost, where it does not say itself what a token costs.
    """
    groups: dict[tuple[str, str | None, int], list[Measured]] = {}
    costs: dict[int, Cost] = {}
    for item in measured:
        if item.test_kind != "tg" or not item.record.asked.serves_one_afresh:
            continue
        cost, model = item.cost(), item.record.model
        if cost is None and question and question.file_sha256 and model and question.file_sha256 == model.file_sha256:
            cost = question.cost
        if cost is not None:
            costs[id(item)] = cost
            groups.setdefault((item.model, item.quantization, item.record.asked.n_depth), []).append(item)
    speaking = [best for found in groups.values() if (best := speaks_for(found))]
    return [Point(costs[id(item)], 1 / item.summary.rate_tok_per_s, item.mean_depth) for item in speaking]


def _predict_own_prompt(
    prompts: Sequence[tuple[Measured, Cost]], roofline_flops_per_s: float | None, question: Question
) -> tuple[Estimate | None, PromptBasis]:
    """Prompt processing by the machine's own prompts; short ones are weights being read, and say nothing of its arithmetic."""
    long = [(item, cost) for item, cost in prompts if item.record.asked.n_prompt >= SHORTEST_PROMPT][-5:]
    rates = sorted(item.summary.rate_tok_per_s * cost.flops_per_token(item.mean_depth) for item, cost in long)
    if rates:
        return predict_prompt(question, rates[len(rates) // 2], PromptBasis.OWN_RECORDS)
    return predict_prompt(question, roofline_flops_per_s, PromptBasis.ROOFLINE_FLOPS)
