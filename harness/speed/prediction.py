"""Questions about models and machines that are not at hand, answered from published figures and from one's own records."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.catalog import Catalog, Entry
from harness.errors import UsageError
from harness.gguf.cost import Cost, cost_of_shape, cost_of_size, prompt_roof_tok_per_s, roof_tok_per_s
from harness.gguf.header import Header
from harness.gguf.shapes import compute_header
from harness.memory.fit import (
    CUDA_CONTEXT_BYTES,
    METAL_SHARE_LARGE,
    CardFit,
    Need,
    estimate_compute_bytes,
    fit_layers,
    metal_limit_bytes,
    need_in_memory,
    price_layers,
    rough_prices,
)
from harness.memory.forecast import device_rules
from harness.spec import RunSpec
from harness.speed import published
from harness.speed.models import (
    Device,
    Estimate,
    Hardware,
    Point,
    Population,
    Share,
    average_machine,
    estimate,
    fit,
    learn_population,
    measured_belief,
    split_shares,
)
from harness.speed.rates import Measured, speaks_for

KINDS = ("cpu", "gpu", "apple")

#: Ollama's context in 2024, and what the article's figures are predicted for.
ARTICLE_CTX = 2048

#: Tokens from which a timed prompt tells of arithmetic: a shorter one takes about as long as reading the weights, however few tokens
#: share that.
SHORTEST_PROMPT = 128

#: A prompt reaches this share of what a large matrix product does, give or take; assumed where no prompt was timed.
PROMPT_SHARE, PROMPT_SPREAD = 0.8, 0.25


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine with figures, as this module knows it.

    hardware.points are models that it held whole; spilled those that it did not, with the seconds a token. family is what must be
    left out together (all variants of a chip). vram_bytes is None where memory is shared. prompt_flops_per_s is known where prompts
    were timed.
    """

    hardware: Hardware
    family: str
    vram_bytes: int | None = None
    spilled: tuple[Point, ...] = ()
    prompt_flops_per_s: float | None = None
    cautions: tuple[str, ...] = ()


def article_cost(catalog: Catalog, name: str) -> Cost:
    """The cost of one of the article's models in the quantization that Ollama's bare name stood for then."""
    entry = catalog.find(name)
    return cost_of_shape(entry.shape, entry.default_quantization, entry.name)


def known_machines(catalog: Catalog) -> list[Machine]:
    """Every published machine: the article's fifteen, other readings of two of them, and Apple's line."""
    return [*_article_machines(catalog), *_other_readings(), *_apple_machines()]


def _other_readings() -> list[Machine]:
    """Machines of which only a bandwidth is known: what an ambiguous name of the article's may mean instead."""
    named = {machine.name for machine in published.load_machines()}
    return [
        Machine(Hardware(name, peak.kind, peak.bandwidth_bytes_per_s), name.split(" (")[0], peak.vram_bytes)
        for name, peak in published.load_bandwidths().items()
        if name not in named and peak.kind != "apple"
    ]


def _article_machines(catalog: Catalog) -> list[Machine]:
    costs = {name: article_cost(catalog, name) for name in published.ARTICLE_MODELS}
    machines = []
    for row in published.load_machines():
        peak = published.load_bandwidths()[row.name]
        held: list[Point] = []
        spilled: list[Point] = []
        for name, rate in row.rates_tok_per_s.items():
            if rate is None:
                continue
            point = Point(costs[name], 1 / rate)
            (held if _holds(costs[name], peak.vram_bytes) else spilled).append(point)
        caution = published.CAUTIONS.get(row.name)
        machines.append(
            Machine(
                Hardware(row.name, row.kind, peak.bandwidth_bytes_per_s, tuple(held)),
                row.name,
                peak.vram_bytes,
                tuple(spilled),
                cautions=(caution,) if caution else (),
            )
        )
    return machines


def _holds(cost: Cost, vram_bytes: int | None) -> bool:
    if vram_bytes is None:
        return True
    found = fit_card(Question(cost, n_ctx=ARTICLE_CTX), vram_bytes)
    return found.n_fitting == found.n_layers


def fit_card(question: Question, vram_bytes: int) -> CardFit:
    """Count the layers that go on a card that is not here: by the model's header, or roughly where only its size is known."""
    cost, header = question.cost, question.header
    prices = rough_prices(cost, question.n_ctx)
    if header is not None and cost.cache is not None:
        spec = RunSpec(cost.name, n_prompt=question.n_ctx, type_k=question.type_k, type_v=question.type_v)
        prices = price_layers(header, spec, device_rules("CUDA0"))
    return fit_layers(prices, None, vram_bytes, question.compute_bytes, CUDA_CONTEXT_BYTES)


@functools.cache
def _llama_7b() -> Mapping[str, Cost]:
    return {kind: cost_of_shape(published.LLAMA_7B, kind, "LLaMA 7B") for kind in ("F16", "Q8_0", "Q4_0")}


def _apple_machines() -> list[Machine]:
    machines = []
    for chip in published.load_apple_chips():
        points = [Point(_llama_7b()[kind], 1 / rate) for kind, rate in chip.tg_tok_per_s.items() if rate]
        prompt = chip.pp_tok_per_s["Q4_0"]
        machines.append(
            Machine(
                Hardware(chip.name, "apple", chip.bandwidth_bytes_per_s, tuple(points)),
                chip.chip,
                prompt_flops_per_s=prompt and prompt * _llama_7b()["Q4_0"].flops_per_token(256),
            )
        )
    return machines


def populate(machines: Sequence[Machine], kind: str, without: str = "") -> Population:
    """What the machines of a kind have in common, all but one family."""
    return _learn(tuple(m.hardware for m in machines if m.hardware.kind == kind and m.family != without))


@functools.lru_cache(maxsize=64)
def _learn(hardware: tuple[Hardware, ...]) -> Population:
    return learn_population(hardware)


def find_machine(machines: Sequence[Machine], name: str) -> list[Machine]:
    """The machines that a name means: itself, or all variants of a chip.

    Raises
    ------
    UsageError : there is none, with the nearest names.
    """
    wanted = _squeeze(name)
    for by in (lambda m: m.hardware.name, lambda m: m.family):
        found = [machine for machine in machines if _squeeze(by(machine)) == wanted]
        if found:
            return found
    # "M4 Max 40" is enough of "M4 Max 40-core GPU"; but an RTX 3070 is no RTX 3070 Ti.
    apple = [machine for machine in machines if machine.hardware.kind == "apple"]
    found = [machine for machine in apple if wanted and _squeeze(machine.hardware.name).startswith(wanted)]
    if len({machine.family for machine in found}) == 1:
        return found
    names = {_squeeze(machine.family): machine.family for machine in machines}
    near = [names[key] for key in difflib.get_close_matches(wanted, names, n=3, cutoff=0.3)]
    near = list(dict.fromkeys([*(machine.family for machine in found), *near]))[:4]
    hint = f"the nearest are {', '.join(near)}" if near else "harness table lists them"
    raise UsageError(f"No published figures for a machine {name!r}; {hint}, or give its --bandwidth and --kind.")


def _squeeze(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


@dataclass(frozen=True, slots=True)
class Room:
    """Whether a model fits: what it needs, what there is, what is left (negative if it does not), and how many layers a card takes.

    n_layers_gpu is None without a card of its own memory; it counts the output matrix as one more.
    """

    need: Need
    limit_bytes: int
    what: str
    n_layers_gpu: int | None = None

    @property
    def left_bytes(self) -> int:
        return self.limit_bytes - self.need.total_bytes

    @property
    def fits(self) -> bool:
        return self.left_bytes >= 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found about one model on one machine; None is what cannot be said."""

    machine: str
    kind: str
    bandwidth_bytes_per_s: float | None
    basis: str
    cost: Cost
    n_ctx: int
    n_depth: int
    tg: Estimate | None
    tg_roof_tok_per_s: float | None
    pp: Estimate | None
    pp_basis: str
    rooms: tuple[Room, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A model's cost, and how it would run: context, depth, a card's memory, the machine's memory, operations a second.

    header is the model's where there is more than a size; layers are then counted by it, with a cache of these types.
    file_sha256 is that of the file that was asked about, where it lies here. plan_compute tells what llama.cpp plans for computing, in
    bytes, None where it cannot; it is asked only where that matters, for it takes a second.
    """

    cost: Cost
    n_ctx: int = 4096
    n_depth: int = 0
    vram_bytes: int | None = None
    memory_bytes: int | None = None
    flops_per_s: float | None = None
    host: str | None = None
    header: Header | None = None
    type_k: str = "f16"
    type_v: str = "f16"
    file_sha256: str | None = None
    plan_compute: Callable[[], int | None] | None = None

    @property
    def compute_bytes(self) -> int:
        """What computing needs: as llama.cpp plans it, else estimated."""
        planned = self.plan_compute() if self.plan_compute else None
        return planned or estimate_compute_bytes(self.cost, self.n_ctx, self.header)


def predict_for(machine: Machine, question: Question, machines: Sequence[Machine], basis: str = "") -> Answer:
    """Answer a question for one machine, calibrated by its own figures where it has any (but the question's own among them)."""
    hardware, cost = machine.hardware, question.cost
    population = populate(machines, hardware.kind, without=machine.family)
    known = tuple(point for point in hardware.points if not _is_same(point.cost, cost))
    belief = fit(dataclasses.replace(hardware, points=known), population)
    vram = question.vram_bytes or machine.vram_bytes
    device = (hardware.bandwidth_bytes_per_s, belief, population.width(len(known)))
    rooms, shares, notes = _place(hardware.kind, device, question, vram, machines)
    bandwidth = hardware.bandwidth_bytes_per_s
    whole = len(shares) == 1 and shares[0].bandwidth_bytes_per_s == bandwidth
    roof = roof_tok_per_s(cost, bandwidth, question.n_depth) if whole else None
    pp, pp_basis = predict_prompt(question, machine.prompt_flops_per_s, "prompts timed on it")
    return Answer(
        machine=hardware.name,
        kind=hardware.kind,
        bandwidth_bytes_per_s=bandwidth,
        basis=basis or _tell_basis(known, population),
        cost=cost,
        n_ctx=question.n_ctx,
        n_depth=question.n_depth,
        tg=_cap(estimate(shares, population.noise), roof),
        tg_roof_tok_per_s=roof,
        pp=pp if whole else None,
        pp_basis=pp_basis if whole else "not worked out for a model on two devices",
        rooms=rooms,
        notes=(*machine.cautions, *notes),
    )


def _cap(found: Estimate, roof: float | None) -> Estimate:
    """Nothing is quicker than reading at the stated bandwidth."""
    if roof is None or found.high_tok_per_s <= roof:
        return found
    return Estimate(min(found.rate_tok_per_s, roof), found.low_tok_per_s, roof)


def _is_same(known: Cost, asked: Cost) -> bool:
    return (known.name, known.quantization) == (asked.name, asked.quantization) and bool(known.name)


def _tell_basis(known: Sequence[Point], population: Population) -> str:
    others = f"what {population.n_machines} published machines of its kind have in common"
    if not known:
        return f"its bandwidth, and {others}"
    names = dict.fromkeys(f"{point.cost.name} {point.cost.quantization}" for point in known)
    return f"its figures for {', '.join(names)}; else {others}"


def _place(
    kind: str, device: Device, question: Question, vram_bytes: int | None, machines: Sequence[Machine]
) -> tuple[tuple[Room, ...], list[Share], tuple[str, ...]]:
    """Where the layers go, what is left there, and the shares of a token's time."""
    cost, depth = question.cost, question.n_depth
    whole = [Share(cost.n_layers, cost.bytes_per_token(depth), *device)]
    rooms: list[Room] = []
    notes: list[str] = []
    if question.memory_bytes:
        rooms.append(_room_in_memory(question, question.memory_bytes, kind))
        if not rooms[0].fits:
            notes.append("it does not fit; the rates are what it would do if it did")
    if vram_bytes is None or kind != "gpu":
        return tuple(rooms), whole, tuple(notes)
    card = fit_card(question, vram_bytes)
    n_layers, full = card.n_fitting, card.full
    cache = full.device_cache_bytes if cost.cache is not None else None
    need = Need(full.device_weights_bytes, cache, card.compute_bytes or 0, card.context_bytes)
    rooms.insert(0, Room(need, vram_bytes, "VRAM", n_layers))
    if n_layers == card.n_layers:
        return tuple(rooms), whole, ()
    cpu, name = _find_host(question.host, machines)
    notes.append(f"{n_layers} of {card.n_layers} layers on the card (the output layer is one), the rest on {name}")
    return tuple(rooms), split_shares(cost, n_layers, depth, device, cpu), tuple(notes)


def _room_in_memory(question: Question, memory_bytes: int, kind: str) -> Room:
    need = need_in_memory(question.cost, question.n_ctx, question.compute_bytes)
    if kind != "apple":
        return Room(need, memory_bytes, "memory")
    share = "3/4" if metal_limit_bytes(memory_bytes) >= METAL_SHARE_LARGE * memory_bytes * 0.999 else "2/3"
    return Room(need, metal_limit_bytes(memory_bytes), f"{share} of the memory, Metal's default")


def _find_host(name: str | None, machines: Sequence[Machine]) -> tuple[Device, str]:
    """The processor that takes what a card cannot: a named one, or an average of the published ones."""
    population = populate(machines, "cpu")
    if name is not None:
        host = find_machine(machines, name)[0].hardware
        return (host.bandwidth_bytes_per_s, fit(host, population), population.width(len(host.points))), host.name
    processors = [machine.hardware for machine in machines if machine.hardware.kind == "cpu"]
    return (
        *average_machine(processors, population),
        population.width(0),
    ), "an average published CPU (name one with --host)"


def predict_prompt(question: Question, flops_per_s: float | None, basis: str) -> tuple[Estimate | None, str]:
    """Prompt processing from an arithmetic rate: that of timed prompts, or of --flops."""
    n_prompt = 512
    if question.flops_per_s:
        middle = PROMPT_SHARE * prompt_roof_tok_per_s(question.cost, question.flops_per_s, n_prompt)
        return _spread(middle, PROMPT_SPREAD), f"{PROMPT_SHARE:.0%} of the stated FLOP/s (assumed)"
    if flops_per_s:
        return _spread(prompt_roof_tok_per_s(question.cost, flops_per_s, n_prompt), 0.15), basis
    return None, "no prompt was timed on it and bandwidth does not decide it; give --flops"


def _spread(rate: float, spread: float) -> Estimate:
    return Estimate(rate, rate / math.exp(spread), rate * math.exp(spread))


def predict_by_bandwidth(
    kind: str, bandwidth_bytes_per_s: float, question: Question, machines: Sequence[Machine]
) -> Answer:
    """Answer from a bandwidth alone, as for an unseen machine of a kind."""
    hardware = Hardware(f"{kind} at {bandwidth_bytes_per_s / 1e9:g} GB/s", kind, bandwidth_bytes_per_s)
    return predict_for(Machine(hardware, ""), question, machines)


@dataclass(frozen=True, slots=True)
class OwnMachine:
    """What this machine's records say of it. bandwidth is None where `harness roofline` never ran.

    bandwidth is the quickest reading of all, type_bandwidth that of the asked model's type.
    """

    name: str
    kind: str
    measured: Sequence[Measured]
    bandwidth_bytes_per_s: float | None = None
    type_bandwidth_bytes_per_s: float | None = None
    flops_per_s: float | None = None
    cautions: tuple[str, ...] = ()


def predict_own(own: OwnMachine, question: Question, machines: Sequence[Machine]) -> Answer:
    """Answer for the machine in front of the user, from its own roofline and records.

    Raises
    ------
    UsageError : neither is there.
    """
    own, left_out = _trusted(own)
    points = own_points(own.measured, question)
    bandwidth = own.type_bandwidth_bytes_per_s or own.bandwidth_bytes_per_s
    if bandwidth is None and not points:
        known = f"Of this machine there are only figures that are not to be trusted ({left_out})" if left_out else ""
        raise UsageError(
            f"{known or 'Nothing is known of this machine yet'}: run `harness roofline` or `harness pp-tg` first, or name a --machine "
            "or a --bandwidth."
        )
    population = populate(machines, own.kind if own.kind in KINDS else "cpu")
    if bandwidth is None:
        bandwidth = max(point.cost.bytes_per_token(point.depth) / point.token_s for point in points)
    prior = dataclasses.replace(population, belief=measured_belief(population))
    hardware = Hardware(own.name, own.kind, bandwidth, tuple(points))
    belief = fit(hardware, prior)
    device = (bandwidth, belief, prior.width(len(points)))
    rooms, shares, notes = _place(own.kind, device, question, question.vram_bytes, machines)
    names = ", ".join(dict.fromkeys(f"{point.cost.name} {point.cost.quantization}" for point in points))
    said = (
        [f"what harness roofline read of the nearest type ({bandwidth / 1e9:.1f} GB/s)"]
        if own.bandwidth_bytes_per_s
        else []
    )
    said += [f"its own records of {names}"] if names else []
    pp, pp_basis = _own_prompt(own, question)
    return Answer(
        own.name, own.kind, own.bandwidth_bytes_per_s, " and ".join(said), question.cost, question.n_ctx, question.n_depth,
        estimate(shares, prior.noise),
        roof_tok_per_s(question.cost, own.bandwidth_bytes_per_s, question.n_depth) if own.bandwidth_bytes_per_s else None,
        pp, pp_basis, rooms, (*own.cautions, *([f"left out: {left_out}"] if left_out else []), *notes),
    )  # fmt: skip


def _trusted(own: OwnMachine) -> tuple[OwnMachine, str]:
    """A machine without the figures that are not to be trusted, and what these are, in words: busy runs say nothing of the next one."""
    bad = [item for item in own.measured if item.summary.is_distrusted]
    why = dict.fromkeys(c.code.replace("-", " ") for item in bad for c in item.summary.cautions if c.distrust)
    told = f"{len(bad)} record{'s' if len(bad) > 1 else ''} not to be trusted ({', '.join(why)})" if bad else ""
    return dataclasses.replace(own, measured=[item for item in own.measured if not item.summary.is_distrusted]), told


def own_points(measured: Sequence[Measured], question: Question | None = None) -> list[Point]:
    """One point a model, quantization and depth: the generation that speaks for it.

    A record of the very file that is asked about has the question's cost, where it does not say itself what a token costs.
    """
    groups: dict[tuple[str, str | None, int], list[tuple[Measured, Cost]]] = {}
    for item in measured:
        cost = _cost_of(item, question)
        if item.test_kind == "tg" and cost is not None:
            key = (item.model, item.quantization, item.record.asked.n_depth)
            groups.setdefault(key, []).append((item, cost))
    points = []
    for found in groups.values():
        best = speaks_for([item for item, _ in found])
        points += [
            Point(cost, 1 / item.summary.rate_tok_per_s, item.mean_depth) for item, cost in found if item is best
        ]
    return points


def _cost_of(item: Measured, question: Question | None) -> Cost | None:
    if (cost := item.cost()) is not None or question is None or item.record.model is None:
        return cost
    is_same = question.file_sha256 is not None and question.file_sha256 == item.record.model.file_sha256
    return question.cost if is_same else None


def _own_prompt(own: OwnMachine, question: Question) -> tuple[Estimate | None, str]:
    """Prompt processing by the machine's own prompts; short ones are weights being read, and say nothing of its arithmetic."""
    prompts = [item for item in own.measured if item.test_kind == "pp" and item.is_default and item.cost() is not None]
    rates = []
    for item in [item for item in prompts if item.record.asked.n_prompt >= SHORTEST_PROMPT][-5:]:
        cost = item.cost()
        assert cost is not None
        rates.append(item.summary.rate_tok_per_s * cost.flops_per_token(item.mean_depth))
    if question.flops_per_s is not None:
        return predict_prompt(question, None, "")
    if rates:
        middle = sorted(rates)[len(rates) // 2]
        return predict_prompt(question, middle, "its own records of prompts; a larger model's reach more")
    found, basis = predict_prompt(dataclasses.replace(question, flops_per_s=own.flops_per_s), None, "")
    basis = "80% of the FLOP/s that harness roofline measured (assumed)" if own.flops_per_s else basis
    return found, basis + (f"; its own prompts have fewer than {SHORTEST_PROMPT} tokens" if prompts else "")


def cost_of_entry(
    entry: Entry, quantization: str, type_k: str = "f16", type_v: str = "f16"
) -> tuple[Cost, tuple[str, ...]]:
    """The cost of a model of the catalog, with remarks where its layout is only partly known.

    A vision model counts as a text model with its cross-attention blocks as if they were common ones (they have the same matrices),
    and the rest of its published parameters, the encoder, in F16.
    """
    whole = published.PUBLISHED_PARAMETERS.get(entry.name)
    if whole is None:
        return cost_of_shape(entry.shape, quantization, entry.name, type_k, type_v), ()
    text = cost_of_shape(
        dataclasses.replace(entry.shape, architecture="llama"), quantization, entry.name, type_k, type_v
    )
    encoder_bytes = 2 * (whole - text.n_params)
    cost = dataclasses.replace(
        text,
        size_bytes=text.size_bytes + encoder_bytes,
        memory_bytes=text.memory_bytes + encoder_bytes,
        n_params=whole,
        is_estimate=True,
    )
    return cost, (
        f"text part worked out as {entry.shape.block_count} common blocks; the other {(whole - text.n_params) / 1e9:.1f} B "
        f"parameters, the vision encoder, in F16 ({encoder_bytes / 1e9:.1f} GB, not read while generating)",
        f"{entry.refused}" if entry.refused else "",
    )


def header_of_entry(entry: Entry, quantization: str) -> Header | None:
    """The header by which layers of a model of the catalog are counted; None for a vision model, whose layout is only partly known."""
    if published.PUBLISHED_PARAMETERS.get(entry.name) is not None:
        return None
    return compute_header(entry.shape, quantization, entry.name)


def cost_by_size(catalog: Catalog, size_bytes: int) -> Cost:
    """A dense model of which only the size is known, as if it were a Q4_0 of Llama's family."""
    names = ("llama3.2:1b", "llama3.2:3b", "llama3.1:8b", "llama3.1:70b", "llama3.1:405b")
    like = [cost_of_shape(catalog.find(name).shape, "Q4_0", name) for name in names]
    return cost_of_size(size_bytes, like)
