"""`harness fit`: what fits a memory, asked the other way: the largest context for each type of cache, layers and experts placed."""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from harness.errors import HarnessError, UsageError
from harness.events import OnEvent, Progress, ignore
from harness.gguf.anatomy import name_file_type
from harness.gguf.caches import CONTEXT_PAD
from harness.gguf.header import Header
from harness.gguf.model_kinds import Kind, Question, find_kind, may_be_asked, refuse, refuse_context
from harness.gguf.settings import read_count
from harness.host.memory import available_memory_bytes
from harness.memory.causes import HOST, Note, Part, Remark
from harness.memory.companions import Projector, describe_projector
from harness.memory.fit import CUDA_CONTEXT_BYTES, estimate_pipeline_bytes
from harness.memory.forecast import Forecast, Host, device_rules
from harness.memory.packing import FLOOR_N_CTX, Beside, Packer, Packing, Planned, Plans, Setting, Space, Wish
from harness.records.memory import Subject
from harness.runs.memory import Model, compute_on, estimate_compute, find_model, forecast, make_spec, note_untrained
from harness.runs.vocabulary import compare_vocabularies
from harness.sources.reference import Variant
from harness.sources.references import parse_reference
from harness.spec import MAX_TOKENS, RunSpec, Settings

#: The types of K and V that are looked at where none is asked for.
USUAL_TYPES = (("f16", "f16"), ("q8_0", "q8_0"), ("q4_0", "q4_0"))

#: Contexts up to this are planned from the start; beyond it llama.cpp's own bookkeeping takes more than a moment.
_PLANNED_AHEAD = 2**20

#: How often what was found is planned again, to be sure of it and of the next larger context.
_ROUNDS = 8

#: Quantizations of one model that are looked at, of which each costs a header.
MOST_VARIANTS = 40


class Bound(enum.Enum):
    """What bounds the context that is looked for."""

    ASKED = "asked"
    TRAINED = "trained"
    POSITIONS = "positions"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class FitRequest:
    """A model, and the memory that it is to fit.

    options are fields of `RunSpec` that were asked for. vram_bytes are the sizes of cards that are not here; without them the devices
    that are here count. ram_bytes is the host's memory, None for what is free here. spare_bytes are to be left free on each device; one
    is for all. variants are other quantizations of the model to be looked at, with the first of the cache types.
    """

    model: Model
    options: Settings = field(default_factory=dict)
    cache_types: tuple[tuple[str, str], ...] = USUAL_TYPES
    n_ctx: int | None = None
    vram_bytes: tuple[int, ...] = ()
    ram_bytes: int | None = None
    spare_bytes: tuple[int, ...] = ()
    projector: Projector | None = None
    draft: Model | None = None
    variants: tuple[Variant, ...] = ()


@dataclass(frozen=True, slots=True)
class CacheFit:
    """What fits with one type of K and V.

    packing is the largest context and its placement, or where nothing fits (then `Packing.fits` is false) what comes closest; None
    where llama.cpp refuses the types, for the trouble's reason. whole is the placement with the largest context that is looked for,
    where packing has a smaller one and that fits. curve has contexts with what all devices take of them, as packing places them; the
    host, where there are no devices. is_estimated says that llama.cpp did not plan what computing takes. n_layers_alone is how many
    layers fit on the devices in packing's context with all their experts, where packing keeps some back, for programs that cannot.
    """

    type_k: str
    type_v: str
    packing: Packing | None
    whole: Packing | None = None
    trouble: str | None = None
    is_estimated: bool = False
    curve: tuple[tuple[int, int], ...] = ()
    n_layers_alone: int | None = None

    @property
    def fits(self) -> bool:
        return self.packing is not None and self.packing.fits


@dataclass(frozen=True, slots=True)
class VariantFit:
    """What fits of one quantization; packing is None where its header cannot be had, for the trouble's reason."""

    variant: Variant
    file_bytes: int | None
    packing: Packing | None
    trouble: str | None = None
    is_asked: bool = False

    @property
    def fits(self) -> bool:
        return self.packing is not None and self.packing.fits


@dataclass(frozen=True, slots=True)
class Fitting:
    """What fits where. space has the memories; are_cards_here and is_host_here say whether they are this machine's, as free as now.

    most is the largest context that was looked for, and bound why it is no larger. difference says in what the draft has another
    vocabulary. one_copy is what fits of the first type where nothing else does and the file is read instead of mapped, so that weights
    which the CPU repacks are in memory once.
    """

    subject: Subject
    space: Space
    are_cards_here: bool
    is_host_here: bool
    most: int
    bound: Bound
    fits: tuple[CacheFit, ...]
    variants: tuple[VariantFit, ...] = ()
    projector: Projector | None = None
    draft: Subject | None = None
    difference: str | None = None
    one_copy: Packing | None = None
    notes: tuple[Note, ...] = ()
    asked: Settings = field(default_factory=dict)


# --- what is asked ----------------------------------------------------------------------------------------------------


def plan_fit(
    reference: str, options: Settings, *, cache_types: Sequence[tuple[str, str]] = (), n_ctx: int | None = None,
    vram_bytes: Sequence[int] = (), ram_bytes: int | None = None, spare_bytes: Sequence[int] = (), mmproj: str | None = None,
    draft: str | None = None, all_quants: bool = False, on_event: OnEvent = ignore,
) -> FitRequest:  # fmt: skip
    """Find the headers of what is asked about, without any weights.

    Raises
    ------
    UsageError   : there is no such model, or it is none; mmproj is no projector, draft no language model; options contradict others.
    HarnessError : a header cannot be read.
    """
    asked = parse_reference(reference)
    model = find_model(reference, weights=False, on_event=on_event)
    refuse(model.header, Question.MEMORY, model.label)
    refuse_context(model.header, n_ctx or 0, model.label, "--ctx")
    projector = None if mmproj is None else find_projector(mmproj)
    partner = None
    if draft is not None:
        partner = find_model(draft, weights=False, on_event=on_event)
        if not may_be_asked(partner.header, Question.TEXT):
            raise UsageError(
                f"{find_kind(partner.header).describe(partner.label)}; --draft takes a whole model of its own, smaller than -m."
            )
    variants: tuple[Variant, ...] = ()
    if all_quants or asked.is_open:
        try:
            variants = asked.list_variants()[:MOST_VARIANTS]
        except HarnessError:
            if all_quants:
                raise
    if all_quants and not variants:
        raise UsageError(
            f"{asked.shown} is one file; --all-quants takes a name of the catalog, hf:OWNER/REPO or synth:NAME."
        )
    types = tuple(cache_types) or USUAL_TYPES
    return FitRequest(
        model, options, types, n_ctx, tuple(vram_bytes), ram_bytes, tuple(spare_bytes), projector, partner,
        variants if len(variants) > 1 else (),
    )  # fmt: skip


def find_projector(reference: str) -> Projector:
    """Read a projector's header.

    Raises
    ------
    UsageError : it is something else.
    """
    asked = parse_reference(reference)
    found = asked.header()
    label = asked.label()
    if (kind := find_kind(found.header)).kind is not Kind.PROJECTOR:
        raise UsageError(
            f"{label} is {kind.kind.title} and no projector; --mmproj takes the file that is called mmproj-….gguf."
        )
    return describe_projector(found.header, label)


# --- what fits --------------------------------------------------------------------------------------------------------


def fit_model(request: FitRequest, on_event: OnEvent = ignore) -> Fitting:
    """Find what fits.

    Raises
    ------
    UsageError   : the options contradict each other, or -mg names no device.
    HarnessError : what the layers keep is not known.
    """
    model = request.model
    most, bound = _bound_context(request)
    cases = [_Case(request, types, most) for types in request.cache_types]
    able = [case for case in cases if case.trouble is None]
    if not able:
        raise UsageError(f"{cases[0].trouble}")
    on_event(Progress("dry run", 0, None))
    contexts = sorted({most, *(n for n in (256 * 2**power for power in range(20)) if n < most)})
    ahead = [n for n in contexts if n <= _PLANNED_AHEAD] or contexts[:1]
    planned = [(case, case.spec_at(n_ctx)) for case in able for n_ctx in ahead]
    forecasts, host = forecast(model, [spec for _, spec in planned])
    space, are_cards_here = _find_space(request, host, able[0].spec_at(ahead[0]))
    extras = _Extras(request, space, ahead, are_cards_here)
    for case in able:
        case.settle(model, space, extras, are_cards_here)
    for (case, spec), item in zip(planned, forecasts, strict=True):
        case.learn(spec, item)
    _search(model, able)
    fits = tuple(case.conclude() for case in cases)
    variants = tuple(_fit_variants(request, able[0], space, on_event))
    untrained = note_untrained(model, request.n_ctx or 0)
    notes = tuple(
        dict.fromkeys((*untrained, *model.notes, *extras.notes, *(note for item in forecasts for note in item.notes)))
    )
    one_copy = None if any(item.fits for item in fits) else able[0].fit_one_copy()
    difference = compare_vocabularies(model, request.draft) if request.draft else None
    return Fitting(
        _name_file(model), space, are_cards_here, request.ram_bytes is None, most, bound, fits, variants, request.projector,
        _name_file(request.draft) if request.draft else None, difference, one_copy, notes, request.options,
    )  # fmt: skip


def _name_file(model: Model) -> Subject:
    """What a model is, with its file's name where that is here."""
    return dataclasses.replace(model.subject, file_name=model.path.name if model.path else None)


def _bound_context(request: FitRequest) -> tuple[int, Bound]:
    header = request.model.header
    trained, positions = read_count(header, "context_length"), find_kind(header).n_positions
    if request.n_ctx is not None:
        return request.n_ctx, Bound.ASKED
    if positions is not None and positions <= (trained or positions):
        return positions, Bound.POSITIONS
    limit = MAX_TOKENS // request.options.get("n_parallel", 1)
    return (trained, Bound.TRAINED) if trained and trained <= limit else (limit, Bound.NONE)


def _find_space(request: FitRequest, host: Host, spec: RunSpec) -> tuple[Space, bool]:
    """The memory that there is, and whether its cards are this machine's."""
    room = request.ram_bytes or available_memory_bytes()
    cards = [device_rules(f"CUDA{number}", memory_bytes=size) for number, size in enumerate(request.vram_bytes)]
    devices = (Host(host.features, tuple(cards)) if cards else host).chosen(spec).devices
    spare = request.spare_bytes or (0,)
    if len(spare) not in (1, len(devices)) and devices:
        raise UsageError(
            f"-fitt names {len(spare)} devices and there are {len(devices)}; give one size for all, or one for each."
        )
    spare = spare * len(devices) if len(spare) == 1 else spare
    return Space(devices, room, host.features, spare if devices else ()), not cards


class _Extras:
    """What goes along with the model: bytes by device in a context of so many tokens."""

    def __init__(self, request: FitRequest, space: Space, contexts: Sequence[int], are_cards_here: bool) -> None:
        self._first = space.devices[0].name if space.devices else HOST
        self._projector = request.projector
        self.at = functools.cache(self._weigh)
        self._packer: Packer | None = None
        self.notes: tuple[Note, ...] = ()
        if (draft := request.draft) is None:
            return
        # As llama-server keeps it: of the same context for as many sequences, in f16.
        options = {name: value for name, value in request.options.items() if name == "n_parallel"}
        self._spec_at = functools.cache(lambda n_ctx: make_spec(draft, n_ctx, options))
        specs = [self._spec_at(n_ctx) for n_ctx in contexts]
        plans = Plans()
        for spec, item in zip(specs, forecast(draft, specs)[0], strict=True):
            working = _plan_working(draft, item, space, are_cards_here, is_draft=True)
            plans.add(Planned(spec.n_ctx_seq, working), Setting())
        self._packer = Packer(draft.header, space, lambda spec: Beside(plans.find(spec.n_ctx_seq, Setting())))
        self.notes = draft.notes

    def _weigh(self, n_ctx: int) -> dict[str, int]:
        """Bytes by device."""
        found: dict[str, int] = {}
        if self._projector is not None:
            found[self._first] = self._projector.total_bytes
        if self._packer is not None:
            for one in self._packer.weigh(self._spec_at(n_ctx)).taken:
                found[one.device] = found.get(one.device, 0) + one.total_bytes
        return found


def _plan_working(
    model: Model, item: Forecast, space: Space, are_cards_here: bool, *, is_draft: bool = False
) -> dict[str, int]:
    """What a forecast has beside weights and caches; of cards that are not here each may need all that is planned for computing.

    A draft computes in the same process, and its driver's context is there already.
    """
    planned = compute_on(item, None)
    estimated = planned if planned is not None else estimate_compute(model, item.n_ctx) or 0
    process = 0 if is_draft else item.runtime_bytes
    host = item.of(Part.COMPUTE, HOST) if planned is not None else estimated
    # Where llama.cpp plans a larger cache than follows from the header, it is right.
    more = sum(
        max((note.planned_bytes or 0) - (note.size_bytes or 0), 0) for note in item.notes if note.remark is Remark.PLAN_DIFFERS
    )  # fmt: skip
    working = {HOST: host + process + more}
    for device in space.devices:
        if are_cards_here:
            working[device.name] = (item.of(Part.COMPUTE, device.name) if planned is not None else estimated) + more
        else:
            working[device.name] = estimated + more + (0 if is_draft else CUDA_CONTEXT_BYTES)
    # Where nothing lies on a device, nothing is planned for it, which says nothing of other placements.
    return {name: size for name, size in working.items() if size or name == HOST}


def _place_as(spec: RunSpec, found: RunSpec) -> RunSpec:
    """A spec with the placement of another one."""
    names = ("n_gpu_layers", "n_cpu_moe", "tensor_split")
    return dataclasses.replace(spec, **{name: getattr(found, name) for name in names})


class _Case:
    """One type of K and V: what was planned for it so far, and what was found by that."""

    def __init__(self, request: FitRequest, types: tuple[str, str], most: int) -> None:
        self.types = types
        self.trouble: str | None = None
        self._request, self._most = request, most
        self._packing: Packing | None = None
        options = {**request.options, "type_k": types[0], "type_v": types[1]}
        self.spec_at = functools.cache(lambda n_ctx: make_spec(request.model, n_ctx, options))
        self._sure: Packing | None = None
        self._plans = Plans()
        self._is_estimated = False
        try:
            self.spec_at(most)
        except HarnessError as error:
            self.trouble = str(error)

    def settle(self, model: Model, space: Space, extras: _Extras, are_cards_here: bool) -> None:
        """Say what there is to be filled."""
        self._space, self._are_cards_here = space, are_cards_here
        self._packer = Packer(
            model.header, space, lambda spec: self._find_beside(spec, extras), self.spec_at(self._most)
        )
        asked, given = self._request.n_ctx, frozenset(self._request.options)
        self.wish = Wish(self.spec_at, self._most, asked or FLOOR_N_CTX, is_bound=asked is not None, given=given)

    def _find_beside(self, spec: RunSpec, extras: _Extras) -> Beside:
        working = self._plans.find(spec.n_ctx_seq, self._key(spec))
        if not self._are_cards_here and self._packer.is_pipelined(spec):
            more = estimate_pipeline_bytes(self._request.model.header, spec)
            working = {name: size + more for name, size in working.items()}
        return Beside(working, extras.at(spec.n_ctx_seq))

    def learn(self, spec: RunSpec, item: Forecast) -> None:
        """Take note of what was planned for a run."""
        working = _plan_working(self._request.model, item, self._space, self._are_cards_here)
        self._plans.add(Planned(spec.n_ctx_seq, working), self._key(spec))
        self._is_estimated |= compute_on(item, None) is None

    def _key(self, spec: RunSpec) -> Setting:
        """What a plan holds for: a placement on devices that are here, else any."""
        if not (self._are_cards_here and self._space.devices):
            return Setting()
        return Setting(self._packer.is_pipelined(spec), spec.load_key())

    def search(self) -> None:
        """Find what fits by what is known."""
        try:
            found = self._packer.find(self.wish) or self._packer.find_lacking(self.wish)
        except HarnessError as error:
            self.trouble = str(error)
            return
        self._packing = found
        if found.fits and self._plans.has(found.spec.n_ctx_seq, self._key(found.spec)):
            self._sure = found

    def list_unsure(self) -> list[RunSpec]:
        """The runs by which what was found stands or falls, and which were not planned yet."""
        if self._packing is None or self._is_estimated:
            return []
        found = self._packing.spec
        contexts = [found.n_ctx_seq, min((found.n_ctx_seq // CONTEXT_PAD + 1) * CONTEXT_PAD, self._most)]
        specs = [self._place(self.spec_at(n_ctx), found) for n_ctx in dict.fromkeys(contexts)]
        return [spec for spec in specs if not self._plans.has(spec.n_ctx_seq, self._key(spec))]

    def _place(self, spec: RunSpec, found: RunSpec) -> RunSpec:
        """A spec with the placement that was found, where llama.cpp can plan that: on devices that are here."""
        if self._key(found) == Setting():
            return spec
        return _place_as(spec, found)

    def conclude(self) -> CacheFit:
        """What was found."""
        if self.trouble is not None or self._packing is None:
            return CacheFit(*self.types, None, trouble=self.trouble)
        found = self._packing.spec
        if not self._plans.has(found.n_ctx_seq, self._key(found)):  # the rounds are over: what was planned stands
            self._packing = self._sure or self._packing
        whole = None
        if self._packing.fits and self._packing.spec.n_ctx_seq < self._most:
            whole = self._packer.place(self.spec_at(self._most), self.wish.given)
        return CacheFit(
            *self.types,
            self._packing,
            whole,
            None,
            self._is_estimated,
            tuple(self._draw(self._packing)),
            self._count_alone(found),
        )

    def _count_alone(self, found: RunSpec) -> int | None:
        """How many layers fit with all experts in the same context; None where none were kept back, or where that fits nowhere."""
        given = self.wish.given
        if not found.n_cpu_moe or found.override_tensors:
            return None
        bare = dataclasses.replace(
            found, n_cpu_moe=0, tensor_split=found.tensor_split if "tensor_split" in given else ()
        )
        alone = self._packer.place(bare, (given - {"n_gpu_layers"}) | {"n_cpu_moe"})
        return alone.n_layers_on_cards if alone is not None else None

    def _draw(self, packing: Packing) -> Iterator[tuple[int, int]]:
        for step in range(1, 33):
            n_ctx = max(self._most * step // 32 // CONTEXT_PAD * CONTEXT_PAD, min(CONTEXT_PAD, self._most))
            taken = self._packer.weigh(_place_as(self.spec_at(n_ctx), packing.spec)).taken
            yield n_ctx, sum(one.total_bytes for one in taken[:-1] or taken)

    def fit_one_copy(self) -> Packing | None:
        """What fits where the file is not mapped; None where nothing does, or where how it is loaded was asked for."""
        if self._space.devices or "load_mode" in self.wish.given:
            return None
        return self._packer.find(
            dataclasses.replace(
                self.wish, spec_at=lambda n_ctx: dataclasses.replace(self.spec_at(n_ctx), load_mode="none")
            )
        )

    def fit_other(self, header: Header) -> Packing:
        """What fits of another quantization of the same model, which computes with the same graph."""
        packer = Packer(header, self._space, self._packer.beside, self.spec_at(self._most))
        return packer.find(self.wish) or packer.find_lacking(self.wish)


def _search(model: Model, cases: Collection[_Case]) -> None:
    """Find what fits by what was planned, plan that and the next larger context, and look again until both are planned."""
    for _ in range(_ROUNDS):
        for case in cases:
            case.search()
        wanted = [(case, spec) for case in cases for spec in case.list_unsure()]
        if not wanted:
            return
        for key in dict.fromkeys(spec.load_key() for _, spec in wanted):
            same = [(case, spec) for case, spec in wanted if spec.load_key() == key]
            forecasts, _host = forecast(model, [spec for _, spec in same])
            for (case, spec), item in zip(same, forecasts, strict=True):
                case.learn(spec, item)
    for case in cases:
        case.search()


def _fit_variants(request: FitRequest, case: _Case, space: Space, on_event: OnEvent) -> Iterator[VariantFit]:
    """What fits of each quantization; a file that is larger than all memory together needs no header."""
    rooms = [space.host_bytes, *(device.memory_bytes for device in space.devices)]
    whole = None if None in rooms else sum(room or 0 for room in rooms)
    for number, variant in enumerate(request.variants):
        on_event(Progress(variant.text, number, len(request.variants)))
        if whole is not None and (variant.size_bytes or 0) > whole:
            yield VariantFit(variant, variant.size_bytes, None)
            continue
        try:
            found = parse_reference(variant.text).header()
            size = variant.size_bytes or found.file_bytes or found.header.size_bytes
            is_asked = name_file_type(found.header) == request.model.subject.file_type
            yield VariantFit(variant, size, case.fit_other(found.header), is_asked=is_asked)
        except HarnessError as error:
            yield VariantFit(variant, variant.size_bytes, None, str(error))
