"""Where layers and experts go so that as much as possible fits: the largest context, the split over several cards, experts on the CPU.

Pure arithmetic over `harness.memory.forecast` and `harness.memory.placement`: every load is priced as llama.cpp would place it. As
llama.cpp's own fitting does, it first makes the context smaller, down to a floor, and only then leaves something on the CPU: of a model
with experts the experts of the first layers, which a token visits few of, and then whole layers.

Source: common/fit.cpp common_params_fit_impl (the order of its steps; fit_params_min_ctx in common/common.h is the floor).
"""

from __future__ import annotations

import functools
import itertools
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.errors import HarnessError
from harness.gguf.attention import describe_attention
from harness.gguf.caches import CONTEXT_PAD, Context
from harness.gguf.header import Header
from harness.gguf.settings import read_count
from harness.memory.causes import HOST
from harness.memory.fit import needed_in_host_memory
from harness.memory.forecast import DeviceRules, Host, Line, WeightPlan, price_kept
from harness.memory.overrides import check_overrides
from harness.memory.placement import deal_out
from harness.memory.repack import CpuFeatures
from harness.spec import RunSpec
from harness.units import MIB

#: The context below which layers are left on the CPU rather than tokens out of it. Source: common/common.h fit_params_min_ctx.
FLOOR_N_CTX = 4096

#: What llama.cpp's own fitting leaves free on each device. Source: common/common.h fit_params_target.
USUAL_SPARE_BYTES = 1024 * MIB


@dataclass(frozen=True, slots=True)
class Space:
    """The memory that there is: devices in llama.cpp's order, each with what it has free (memory_bytes), and the host's.

    host_bytes is None where nothing bounds it. spare_bytes is to be left free on each device; () is nothing.
    """

    devices: tuple[DeviceRules, ...]
    host_bytes: int | None
    features: CpuFeatures | None = None
    spare_bytes: tuple[int, ...] = ()

    @property
    def rooms_bytes(self) -> tuple[int | None, ...]:
        """What may be taken of each device."""
        spare = self.spare_bytes or (0,) * len(self.devices)
        free = [device.memory_bytes for device in self.devices]
        return tuple(None if size is None else max(size - kept, 0) for size, kept in zip(free, spare, strict=True))


@dataclass(frozen=True, slots=True)
class Beside:
    """What is taken beside weights and caches, in bytes by device.

    working is for computing, taken as soon as anything lies on the device, and of the host in any case; fixed is taken wherever layers
    go: a projector, a draft.
    """

    working: Mapping[str, int]
    fixed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Taken:
    """What is taken of one memory, and what there is of it; room_bytes is None where nobody knows or bounds it."""

    device: str
    weights_bytes: int
    cache_bytes: int
    working_bytes: int
    fixed_bytes: int
    room_bytes: int | None
    n_layers: int = 0  #: on a device; the output layer counts as one

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.cache_bytes + self.working_bytes + self.fixed_bytes

    @property
    def left_bytes(self) -> int | None:
        """What is left; below zero what is lacking."""
        return None if self.room_bytes is None else self.room_bytes - self.total_bytes

    @property
    def fits(self) -> bool:
        return self.left_bytes is None or self.left_bytes >= 0


@dataclass(frozen=True, slots=True)
class Packing:
    """A placement in a context, and what it takes: of the devices in their order, and of the host last."""

    spec: RunSpec
    taken: tuple[Taken, ...]

    @property
    def fits(self) -> bool:
        return all(one.fits for one in self.taken)

    @property
    def lacking_bytes(self) -> int:
        """What is lacking in all memories together."""
        return sum(-one.left_bytes for one in self.taken if one.left_bytes is not None and one.left_bytes < 0)

    @property
    def host(self) -> Taken:
        return self.taken[-1]

    @property
    def cards(self) -> tuple[Taken, ...]:
        return self.taken[:-1]

    @property
    def n_layers_on_cards(self) -> int:
        """Layers on all devices, the output layer counted as one."""
        return sum(card.n_layers for card in self.cards)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be found.

    spec_at makes the run in a context of so many tokens for each of its sequences. most is the largest context that is looked at, floor
    the smallest for which layers are left on the CPU, and is_bound says that none below it will do. given are the fields of `RunSpec`
    that were asked for and stay as they are.
    """

    spec_at: Callable[[int], RunSpec]
    most: int
    floor: int = FLOOR_N_CTX
    is_bound: bool = False
    given: frozenset[str] = frozenset()


class Packer:
    """A model's weights and caches, prepared so that many placements can be tried quickly.

    beside tells what a run takes beside them; working memory may grow with the context and must not shrink with it. overrides is a spec
    whose -ot and --no-host hold for all placements; None where none has any.

    Raises
    ------
    UsageError   : -ot names a buffer that no device has.
    HarnessError : what the layers keep is not known, or the header has settings that llama.cpp would not take.
    """

    def __init__(
        self, header: Header, space: Space, beside: Callable[[RunSpec], Beside], overrides: RunSpec | None = None
    ) -> None:
        self._header, self._space, self.beside = header, space, beside
        self._host = Host(space.features, space.devices)
        if overrides is not None:
            check_overrides(overrides, space.devices)
        self._plan = WeightPlan(header, self._host, overrides)
        self._attention = describe_attention(header)
        if self._attention.layers is None:
            raise HarnessError(f"the cache of {header.architecture} is not known: {self._attention.reason}")
        attention = self._attention
        self._list_kept = functools.cache(lambda context: tuple(attention.list_kept(context)))
        self._weights: dict[Hashable, list[Line]] = {}
        self.n_layers = self._plan.n_layers + 1  #: with the output layer
        self.has_experts = bool(read_count(header, "expert_count"))

    # --- one placement ------------------------------------------------------------------------------------------------

    def weigh(self, spec: RunSpec, placement: Sequence[int | None] | None = None) -> Packing:
        """What a spec takes of each memory, with its layers where llama.cpp puts them, or as the placement says.

        Raises
        ------
        HarnessError : llama.cpp refuses the cache type.
        """
        devices = self._space.devices
        if placement is None:
            placement = deal_out(self._plan.n_layers, spec, [device.memory_bytes for device in devices])
        weights = self._price_weights(spec, placement)
        cache = price_kept(self._list_kept(Context.of(spec)), spec, placement, self._host)
        beside, layers = self.beside(spec), Counter(placement)
        taken, rooms = [], self._space.rooms_bytes
        for index, device in enumerate(devices):
            own, kept = (
                sum(line.size_bytes for line in lines if line.device == device.name) for lines in (weights, cache)
            )
            fixed = beside.fixed.get(device.name, 0)
            working = beside.working.get(device.name, 0) if own or kept or fixed else 0
            taken.append(Taken(device.name, own, kept, working, fixed, rooms[index], layers[index]))
        kept = sum(line.size_bytes for line in cache if line.device == HOST)
        # Devices that compute in the host's memory take of it too, mapped pages but once.
        own = needed_in_host_memory([*weights, *cache], devices, self._header) - kept
        working, fixed = beside.working.get(HOST, 0), beside.fixed.get(HOST, 0)
        taken.append(Taken(HOST, own, kept, working, fixed, self._space.host_bytes))
        return Packing(spec, tuple(taken))

    def _price_weights(self, spec: RunSpec, placement: Sequence[int | None]) -> list[Line]:
        """The weights' buffers, which many contexts share: they are added up once for a placement."""
        key = (spec.n_cpu_moe, spec.repack, spec.load_mode, tuple(placement))
        if key not in self._weights:
            self._weights[key] = self._plan.price(spec, placement)
        return self._weights[key]

    def split(self, spec: RunSpec, given: frozenset[str] = frozenset()) -> Packing | None:
        """The spec with its layers shared out so that every device holds its part: as llama.cpp by itself would share them, where that
        will do. With several devices the split is stated, for what they have free is another figure tomorrow.

        None where no split does. What the host then takes is not looked at.
        """
        usual = self.weigh(spec)
        is_usual = all(card.fits for card in usual.cards)
        is_given = len(self._space.devices) < 2 or "tensor_split" in given or not usual.n_layers_on_cards
        if is_given:
            return usual if is_usual else None
        counts = [card.n_layers for card in usual.cards] if is_usual else self._fill(spec)
        if counts is None:
            return None
        found = self.weigh(replace(spec, tensor_split=tuple(map(float, counts))))
        return found if all(card.fits for card in found.cards) else None

    def _fill(self, spec: RunSpec) -> list[int] | None:
        """Layers for each device, filling the last one first, from the last layer down; None where some are left over.

        If any split fits, this one does: a device can only hold fewer of the layers before those that the later ones hold.
        """
        stop, counts = self.n_layers, [0] * len(self._space.devices)
        rest = self.count_on_cards(spec)
        for index in reversed(range(len(counts))):

            def holds(count: int, index: int = index, stop: int = stop) -> bool:
                """Whether a device holds so many layers before those that are placed already."""
                first = stop - count
                placement = [index if first <= layer < stop else None for layer in range(self.n_layers)]
                return self.weigh(spec, placement).taken[index].fits

            counts[index] = most(rest, holds)
            rest, stop = rest - counts[index], stop - counts[index]
        return None if rest else counts

    def count_on_cards(self, spec: RunSpec) -> int:
        """How many layers a spec asks to have on devices, the output layer counted as one."""
        asked = self.n_layers if spec.n_gpu_layers < 0 else spec.n_gpu_layers
        return min(asked, self.n_layers) if self._space.devices else 0

    def is_pipelined(self, spec: RunSpec) -> bool:
        """Whether llama.cpp has several devices work on several micro-batches at once.

        Source: llama-context.cpp (pipeline_parallel).
        """
        is_whole = self.count_on_cards(spec) == self.n_layers and spec.split_mode == "layer" and not spec.no_kv_offload
        return len(self._space.devices) > 1 and is_whole and not (spec.n_cpu_moe or spec.override_tensors)

    # --- the best one -------------------------------------------------------------------------------------------------

    def place(self, spec: RunSpec, given: frozenset[str] = frozenset()) -> Packing | None:
        """The placement with the most on the cards that fits all memories; None where none does."""
        found = self.fill_cards(spec, given)
        return found if found is not None and found.host.fits else None

    def fill_cards(self, spec: RunSpec, given: frozenset[str] = frozenset()) -> Packing | None:
        """The placement with the most on the cards, whatever that leaves to the host: everything, else all layers without the experts
        of as few of the first ones as will do, else as many layers as will do. None where what was given does not fit the cards."""
        whole = self.split(spec, given)
        if whole is not None or not self._space.devices:
            return whole or self.weigh(spec)
        on_cpu = spec.n_cpu_moe
        if self.has_experts and "n_cpu_moe" not in given:
            last, on_cpu = self.n_layers - 1, self.n_layers - 1
            kept = most(last, lambda count: self.split(replace(spec, n_cpu_moe=last - count), given) is not None)
            if (found := self.split(replace(spec, n_cpu_moe=last - kept), given)) is not None:
                return found
        if "n_gpu_layers" in given:
            return None
        bare = replace(spec, n_cpu_moe=on_cpu)
        count = most(self.n_layers, lambda count: self.split(replace(bare, n_gpu_layers=count), given) is not None)
        return self.split(replace(bare if count else spec, n_gpu_layers=count), given)

    def find(self, wish: Wish) -> Packing | None:
        """The largest context that fits, and its placement.

        With everything where it was asked to be (all layers on the cards) where that leaves the floor or more; else with the placement
        that has the most on the cards at the floor; else whatever context below it fits, if that will do. None where nothing does.

        Raises
        ------
        HarnessError : as `weigh`.
        """
        floor, given = min(wish.floor, wish.most), wish.given

        def stay(n_ctx: int, **placed: Any) -> Packing | None:
            found = self.split(replace(wish.spec_at(n_ctx), **placed), given)
            return found if found is not None and found.host.fits else None

        whole = self._largest(wish.most, stay)
        if whole is not None and whole.spec.n_ctx_seq >= floor:
            return whole
        start = self.place(wish.spec_at(floor), given)
        if start is None and wish.is_bound:
            return None
        if start is None:
            return whole or self._largest(floor, lambda n_ctx: self.place(wish.spec_at(n_ctx), given))
        names = ("n_gpu_layers", "n_cpu_moe")
        placed = {name: getattr(start.spec, name) for name in names}
        return self._largest(wish.most, functools.partial(stay, **placed)) or start

    def find_lacking(self, wish: Wish) -> Packing:
        """What is closest to fitting at the floor where nothing fits: the cards filled as far as can be, the rest left to the host."""
        spec = wish.spec_at(min(wish.floor, wish.most))
        return self.fill_cards(spec, wish.given) or self.weigh(spec)

    @staticmethod
    def _largest(limit: int, accept: Callable[[int], Packing | None]) -> Packing | None:
        """The largest context that is accepted, in the steps in which llama.cpp makes cells."""
        if (found := accept(limit)) is not None:
            return found
        steps = range(CONTEXT_PAD, limit, CONTEXT_PAD)
        count = most(len(steps), lambda count: accept(steps[count - 1]) is not None)
        return accept(steps[count - 1]) if count else None


def most(limit: int, holds: Callable[[int], bool]) -> int:
    """The largest count up to a limit that holds, of what no more holds once it does not; 0 where none does."""
    return bisect_right(range(1, limit + 1), 0, key=lambda count: 0 if holds(count) else 1)


# --- what computing takes, between contexts for which it was planned -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Planned:
    """What llama.cpp plans beside weights and caches in a context of so many tokens for each sequence: bytes by device."""

    n_ctx: int
    working: Mapping[str, int]


def plan_between(plans: Sequence[Planned], n_ctx: int) -> dict[str, int]:
    """What is taken in a context that lies between planned ones, on the dear side: as much as a straight line between them.

    What a graph takes is the largest of sums that each grow evenly with the context, so that its curve lies below its chords. Below the
    first plan it is that one's. A device counts by the plans that have it.

    Parameters
    ----------
    plans : with ascending contexts, the last no smaller than n_ctx
    """
    names = dict.fromkeys(itertools.chain.from_iterable(plan.working for plan in plans))
    return {
        name: _interpolate([(plan.n_ctx, plan.working[name]) for plan in plans if name in plan.working], n_ctx)
        for name in names
    }


def _interpolate(points: Sequence[tuple[int, int]], n_ctx: int) -> int:
    place = min(bisect_right(points, n_ctx, key=lambda point: point[0]), len(points) - 1)
    (first, low), (last, high) = points[max(place - 1, 0)], points[place]
    share = min(max((n_ctx - first) / (last - first), 0.0), 1.0) if last > first else 1.0
    return math.ceil(low * (1 - share) + high * share)


@dataclass(frozen=True, slots=True)
class Setting:
    """For what a plan holds: a placement, and its kind, whose plans are like each other."""

    kind: Hashable = None
    placement: Hashable = None


class Plans:
    """What was planned so far, by context and setting."""

    def __init__(self) -> None:
        self._working: dict[Setting, dict[int, Mapping[str, int]]] = {}
        self._merged: dict[Setting, list[Planned]] = {}

    def add(self, planned: Planned, setting: Setting) -> None:
        """Take note of a plan."""
        self._working.setdefault(setting, {})[planned.n_ctx] = planned.working
        self._merged.clear()

    def has(self, n_ctx: int, setting: Setting) -> bool:
        """Whether that very run was planned."""
        return n_ctx in self._working.get(setting, {})

    def find(self, n_ctx: int, setting: Setting) -> dict[str, int]:
        """What such a run takes: as planned, else on the dear side of what was planned for it and for others of its kind, and where
        there are none of that, of whatever kind."""
        if setting not in self._merged:
            like = [working for other, working in self._working.items() if other.kind == setting.kind]
            dearest: dict[int, dict[str, int]] = {}
            for plans in like or self._working.values():
                for n_planned, working in plans.items():
                    kept = dearest.setdefault(n_planned, {})
                    kept.update({name: max(size, kept.get(name, 0)) for name, size in working.items()})
            own = self._working.get(setting, {})
            self._merged[setting] = [Planned(n, {**dearest[n], **own.get(n, {})}) for n in sorted(dearest)]
        return plan_between(self._merged[setting], n_ctx)
