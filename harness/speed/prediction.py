"""Questions about models and machines that are not at hand, answered from published figures."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.catalog import Catalog, Entry
from harness.gguf.cost import Cost, cost_of_shape, cost_of_size, prompt_roof_tok_per_s, roof_tok_per_s
from harness.gguf.header import Header
from harness.gguf.model_kinds import FileKind
from harness.gguf.shapes import compute_header
from harness.memory.fit import (
    CUDA_CONTEXT_BYTES,
    METAL_LARGE_BYTES,
    CardFit,
    Need,
    estimate_compute_bytes,
    fit_layers,
    is_compute_known,
    metal_limit_bytes,
    need_in_memory,
    price_layers,
    rough_prices,
)
from harness.memory.forecast import device_rules
from harness.memory.repack import CpuFeatures, find_repacked_types
from harness.spec import DEFAULT_N_CTX, RunSpec
from harness.speed import published
from harness.speed.machines import Machine, find_machine, populate
from harness.speed.models import Device, Estimate, Hardware, Point, Share, average_machine, estimate, fit, split_shares

#: A prompt reaches this share of what a large matrix product does, give or take; assumed where no prompt was timed.
PROMPT_SHARE, PROMPT_SPREAD = 0.8, 0.25

#: Give or take, where prompts were timed.
TIMED_SPREAD = 0.15

#: Tokens of the prompt that is predicted.
N_PROMPT = 512


class Place(enum.Enum):
    """Memory that a model has to fit into."""

    VRAM = "vram"
    MEMORY = "memory"
    METAL_3_4 = "metal-3/4"  # what Metal gives of the memory by default
    METAL_2_3 = "metal-2/3"


class PromptBasis(enum.Enum):
    """What a predicted rate of prompts rests on, or why there is none."""

    PUBLISHED = "published-prompts"
    OWN_RECORDS = "own-records"
    STATED_FLOPS = "stated-flops"
    ROOFLINE_FLOPS = "roofline-flops"
    NOT_TIMED = "not-timed"
    TWO_DEVICES = "two-devices"


@dataclass(frozen=True, slots=True)
class Room:
    """Whether a model fits: what it needs, what there is, what is left (negative if it does not), and how many layers a card takes.

    n_layers_gpu is None without a card of its own memory; it counts the output matrix as one more.
    """

    need: Need
    limit_bytes: int
    place: Place
    n_layers_gpu: int | None = None

    @property
    def left_bytes(self) -> int:
        return self.limit_bytes - self.need.total_bytes

    @property
    def fits(self) -> bool:
        return self.left_bytes >= 0


@dataclass(frozen=True, slots=True)
class Split:
    """A model on a card and the processor beside it; host is None where an average one was taken."""

    n_layers_gpu: int
    n_layers: int
    host: str | None


@dataclass(frozen=True, slots=True)
class Basis:
    """What a rate of generation rests on.

    models are those whose figures are known of the machine, which is_own says are records here. n_machines counts the published
    machines of its kind that say the rest; None where they say nothing. roofline_bytes_per_s is what `harness roofline` read.
    left_out are causes of cautions, by which n_left_out records were not trusted; cautions are sentences of those who wrote the
    figures down.
    """

    models: tuple[str, ...] = ()
    is_own: bool = False
    n_machines: int | None = None
    roofline_bytes_per_s: float | None = None
    n_left_out: int = 0
    left_out: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found about one model on one machine; None is what cannot be said.

    has_short_prompts says that prompts were timed which are too short to tell of arithmetic.
    """

    machine: str
    kind: str
    bandwidth_bytes_per_s: float | None
    basis: Basis
    cost: Cost
    n_ctx: int
    n_depth: int
    tg: Estimate
    tg_roof_tok_per_s: float | None
    pp: Estimate | None
    pp_basis: PromptBasis
    rooms: tuple[Room, ...]
    split: Split | None = None
    has_short_prompts: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A model's cost, and how it would run: context, depth, a card's memory, the machine's memory, operations a second.

    header is the model's where there is more than a size; layers are then counted by it, with a cache of these types.
    file_sha256 is that of the file that was asked about, where it lies here. plan_compute tells what llama.cpp plans for computing, in
    bytes, None where it cannot; it is asked only where that matters, for it takes a while. features are those of
    this machine's CPU, None for another machine.
    """

    cost: Cost
    n_ctx: int = DEFAULT_N_CTX
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
    features: CpuFeatures | None = None

    @property
    def compute_bytes(self) -> int:
        """What computing needs: as llama.cpp plans it, else estimated."""
        is_known = self.header is not None and is_compute_known(self.header, self.type_k, self.type_v)
        planned = self.plan_compute() if self.plan_compute and not is_known else None
        return planned or estimate_compute_bytes(self.cost, self.n_ctx, self.header)


def fit_card(question: Question, vram_bytes: int) -> CardFit:
    """Count the layers that go on a card that is not here: by the model's header, or roughly where only its size is known."""
    cost, header = question.cost, question.header
    prices = rough_prices(cost, question.n_ctx)
    if header is not None and cost.cache is not None:
        spec = RunSpec(cost.name, n_prompt=question.n_ctx, type_k=question.type_k, type_v=question.type_v)
        prices = price_layers(header, spec, device_rules("CUDA0"))
    return fit_layers(prices, None, vram_bytes, question.compute_bytes, CUDA_CONTEXT_BYTES)


def predict_for(machine: Machine, question: Question, machines: Sequence[Machine]) -> Answer:
    """Answer a question for one machine, calibrated by its own figures where it has any (but the question's own among them)."""
    hardware, cost = machine.hardware, question.cost
    population = populate(machines, hardware.kind, without=machine.family)
    asked = (cost.name, cost.quantization)
    known = tuple(point for point in hardware.points if (point.cost.name, point.cost.quantization) != asked)
    belief = fit(dataclasses.replace(hardware, points=known), population)
    bandwidth = hardware.bandwidth_bytes_per_s
    device = (bandwidth, belief, population.width(len(known)))
    rooms, shares, split = place_layers(
        hardware.kind, device, question, question.vram_bytes or machine.vram_bytes, machines
    )
    tg, roof = estimate(shares, population.noise), None
    if not split:
        roof = roof_tok_per_s(cost, bandwidth, question.n_depth)
        if tg.high_tok_per_s > roof:  # nothing is quicker than reading at the stated bandwidth
            tg = Estimate(min(tg.rate_tok_per_s, roof), tg.low_tok_per_s, roof)
    pp, pp_basis = predict_prompt(question, machine.prompt_flops_per_s, PromptBasis.PUBLISHED)
    cautions = (machine.caution,) if machine.caution else ()
    return Answer(
        machine=hardware.name, kind=hardware.kind, bandwidth_bytes_per_s=bandwidth, cost=cost, n_ctx=question.n_ctx,
        n_depth=question.n_depth, basis=Basis(name_models(known), n_machines=population.n_machines, cautions=cautions),
        tg=tg, tg_roof_tok_per_s=roof, pp=None if split else pp, rooms=rooms, split=split,
        pp_basis=PromptBasis.TWO_DEVICES if split else pp_basis,
    )  # fmt: skip


def predict_by_bandwidth(
    kind: str, bandwidth_bytes_per_s: float, question: Question, machines: Sequence[Machine]
) -> Answer:
    """Answer from a bandwidth alone, as for an unseen machine of a kind."""
    hardware = Hardware(f"{kind} at {bandwidth_bytes_per_s / 1e9:g} GB/s", kind, bandwidth_bytes_per_s)
    return predict_for(Machine(hardware, ""), question, machines)


def name_models(points: Sequence[Point]) -> tuple[str, ...]:
    """The models of some figures, each once."""
    return tuple(dict.fromkeys(f"{point.cost.name} {point.cost.quantization}" for point in points))


def place_layers(
    kind: str, device: Device, question: Question, vram_bytes: int | None, machines: Sequence[Machine]
) -> tuple[tuple[Room, ...], list[Share], Split | None]:
    """What is left where the layers go, the shares of a token's time, and how they are dealt out if a card does not hold all."""
    cost, depth = question.cost, question.n_depth
    whole = [Share(cost.n_layers, cost.bytes_per_token(depth), *device)]
    rooms = (_room_in_memory(question, question.memory_bytes, kind),) if question.memory_bytes else ()
    if vram_bytes is None or kind != "gpu":
        return rooms, whole, None
    card = fit_card(question, vram_bytes)
    cache = card.full.device_cache_bytes if cost.cache is not None else None
    need = Need(card.full.device_weights_bytes, cache, card.compute_bytes or 0, card.context_bytes)
    rooms = (Room(need, vram_bytes, Place.VRAM, card.n_fitting), *rooms)
    if card.n_fitting == card.n_layers:
        return rooms, whole, None
    split = Split(card.n_fitting, card.n_layers, None)
    population = populate(machines, "cpu")
    if question.host is not None:
        host = find_machine(machines, question.host)[0].hardware
        cpu = (host.bandwidth_bytes_per_s, fit(host, population), population.width(len(host.points)))
        split = dataclasses.replace(split, host=host.name)
    else:
        processors = [machine.hardware for machine in machines if machine.hardware.kind == "cpu"]
        cpu = (*average_machine(processors, population), population.width(0))
    return rooms, split_shares(cost, card.n_fitting, depth, device, cpu), split


def _room_in_memory(question: Question, memory_bytes: int, kind: str) -> Room:
    repacked = 0
    if kind == "cpu" and question.features is not None and question.header is not None:
        repacked = sum(item.size_bytes for item in find_repacked_types(question.header, question.features))
    need = need_in_memory(question.cost, question.n_ctx, question.compute_bytes, repacked)
    if kind != "apple":
        return Room(need, memory_bytes, Place.MEMORY)
    place = Place.METAL_3_4 if memory_bytes >= METAL_LARGE_BYTES else Place.METAL_2_3
    return Room(need, metal_limit_bytes(memory_bytes), place)


def predict_prompt(
    question: Question, flops_per_s: float | None, basis: PromptBasis
) -> tuple[Estimate | None, PromptBasis]:
    """Prompt processing from an arithmetic rate: that of --flops where it is stated, else that which timed prompts reached or
    `harness roofline` measured, as basis says."""
    if question.flops_per_s:
        flops_per_s, basis = question.flops_per_s, PromptBasis.STATED_FLOPS
    if not flops_per_s:
        return None, PromptBasis.NOT_TIMED
    rate = prompt_roof_tok_per_s(question.cost, flops_per_s, N_PROMPT)
    if basis in (PromptBasis.STATED_FLOPS, PromptBasis.ROOFLINE_FLOPS):
        return _spread(PROMPT_SHARE * rate, PROMPT_SPREAD), basis
    return _spread(rate, TIMED_SPREAD), basis


def _spread(rate: float, spread: float) -> Estimate:
    return Estimate(rate, rate / math.exp(spread), rate * math.exp(spread))


@dataclass(frozen=True, slots=True)
class Encoder:
    """The part of a vision model that the catalog's shape has not: its parameters, and their bytes in F16, which no token reads.

    n_blocks counts the blocks of the text part, those that look at the image among them.
    """

    n_blocks: int
    n_params: int

    @property
    def size_bytes(self) -> int:
        return 2 * self.n_params


@dataclass(frozen=True, slots=True)
class Prediction:
    """One model on one machine or several, and what is to be known of how it was come to.

    encoder is what of a model is no text model, refused why llama.cpp cannot run it; file_kind says what a file is that is not simply
    a language model, label what it is called. header_note tells how the header was found, plan_trouble why llama.cpp did not plan
    the working memory, which then is estimated.
    """

    answers: tuple[Answer, ...]
    encoder: Encoder | None = None
    refused: str | None = None
    file_kind: FileKind | None = None
    label: str = ""
    header_note: str | None = None
    plan_trouble: str | None = None


def cost_of_entry(
    entry: Entry, quantization: str, type_k: str = "f16", type_v: str = "f16"
) -> tuple[Cost, Encoder | None]:
    """The cost of a model of the catalog, and what of it is no text model.

    A vision model counts as a text model with its cross-attention blocks as if they were common ones (they have the same matrices),
    and the rest of its published parameters, the encoder, in F16.
    """
    whole = published.PUBLISHED_PARAMETERS.get(entry.name)
    if whole is None:
        return cost_of_shape(entry.shape, quantization, entry.name, type_k, type_v), None
    shape = dataclasses.replace(entry.shape, architecture="llama")
    text = cost_of_shape(shape, quantization, entry.name, type_k, type_v)
    encoder = Encoder(entry.shape.block_count, whole - text.n_params)
    cost = dataclasses.replace(
        text,
        size_bytes=text.size_bytes + encoder.size_bytes,
        memory_bytes=text.memory_bytes + encoder.size_bytes,
        n_params=whole,
        is_estimate=True,
    )
    return cost, encoder


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
