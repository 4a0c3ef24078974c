"""What is free when a model is tuned: which settings there are to choose from on a machine, with which values, and what cannot matter.

A factor is one setting, or some that belong together. Factors are in the order in which they are raced: first where the weights lie,
then what changes most, and last what seldom changes anything. Each is raced against the settings that the races before it came to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from harness.errors import HarnessError
from harness.memory.packing import most
from harness.memory.placement import is_remote
from harness.records.cells import Device
from harness.records.tuning import LeftOut, Part, Quality, Why
from harness.spec import RunSpec, Settings

BOTH, PROMPT, GENERATION = frozenset(Part), frozenset({Part.PROMPT}), frozenset({Part.GENERATION})

#: Micro-batches that are tried, in tokens.
MICRO_BATCHES = (64, 128, 256, 512, 1024, 2048)

#: Shares of the usual number of threads that are tried.
THREAD_SHARES = (0.25, 0.5, 0.75)

#: How long idle threads may spin, as llama.cpp counts it.
POLLS = (0, 50, 100)

#: Caches that are tried where answers may become a little worse.
CACHES = ("q8_0", "q4_0")

#: Shares of the layers that fit on a card which are tried beside all of these.
LAYER_SHARES = (0.9, 0.75)


@dataclass(frozen=True, slots=True)
class Room:
    """What a model and a machine leave to choose.

    n_threads is the usual number; n_cpus counts CPUs that are ours, core_cpus is one of each core, n_nodes memory that is equally near;
    devices are those that layers can go to. n_layers counts the output layer; has_openmp says that ggml's threads are OpenMP's;
    longest_prompt is what prompts are measured by, in tokens, None where that is the whole one. fits says whether settings have room in
    memory, for the whole context that was asked for.
    """

    n_threads: int
    n_cpus: int
    n_layers: int
    core_cpus: tuple[int, ...] = ()
    n_nodes: int = 1
    devices: tuple[Device, ...] = ()
    has_experts: bool = False
    has_repacked: bool = True
    has_openmp: bool = False
    longest_prompt: int | None = None
    fits: Callable[[RunSpec], bool] = field(default=lambda _spec: True)


@dataclass(frozen=True, slots=True)
class Factor:
    """Settings that are raced together: which of them, which parts of the work they act on, the values beside the incumbent's, and why
    they are not raced where that is so. A race has no more rounds than most_rounds; one of batches is measured by long prompts."""

    settings: tuple[str, ...]
    parts: frozenset[Part]
    propose: Callable[[Room, RunSpec], Sequence[Settings]]
    hinder: Callable[[Room, RunSpec], Why | None] = lambda _room, _spec: None
    most_rounds: int = 12
    costs_quality: bool = False
    is_of_batches: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """A factor's candidates, the incumbent first, and what was left out of it."""

    candidates: tuple[RunSpec, ...]
    left_out: tuple[LeftOut, ...] = ()


def choose_base(spec: RunSpec, room: Room) -> RunSpec | None:
    """llama.cpp's defaults, with as many layers on the devices as fit; None where nothing fits."""
    if room.fits(spec):
        return spec
    if not room.devices:
        return None
    count = most_layers(spec, room)
    return None if count is None else dataclasses.replace(spec, n_gpu_layers=count)


def most_layers(spec: RunSpec, room: Room) -> int | None:
    """How many layers fit on the devices at the most; None where even none does not fit."""
    counts = range(room.n_layers + 1)
    n_fitting = most(len(counts), lambda n: room.fits(dataclasses.replace(spec, n_gpu_layers=counts[n - 1])))
    return counts[n_fitting - 1] if n_fitting else None


def least_experts(spec: RunSpec, room: Room) -> int | None:
    """Of how few layers the experts must stay on the CPU so that all else fits on the devices; None where all are too few."""
    kept, whole = range(room.n_layers - 1, -1, -1), dataclasses.replace(spec, n_gpu_layers=-1)
    n_fitting = most(len(kept), lambda n: room.fits(dataclasses.replace(whole, n_cpu_moe=kept[n - 1])))
    return kept[n_fitting - 1] if n_fitting else None


def list_factors() -> tuple[Factor, ...]:
    """Every factor, in the order in which they are raced."""
    return _FACTORS


def lay_out(factor: Factor, room: Room, incumbent: RunSpec, quality: Quality) -> Field:
    """The candidates of a factor here: those that fit into memory and do not contradict the incumbent's other settings."""
    why = Why.QUALITY if factor.costs_quality and quality is Quality.KEEP else factor.hinder(room, incumbent)
    if why is not None:
        return Field((incumbent,), (LeftOut(factor.settings, why),))
    candidates, too_large = [incumbent], []
    for settings in factor.propose(room, incumbent):
        try:
            spec = dataclasses.replace(incumbent, **settings)
        except HarnessError:  # it contradicts what was found before
            continue
        if spec in candidates:
            continue
        if room.fits(spec):
            candidates.append(spec)
        else:
            too_large.append(", ".join(str(value) for value in settings.values()))
    left_out = [LeftOut(factor.settings, Why.NO_FIT, tuple(too_large))] if too_large else []
    return Field(tuple(candidates), tuple(left_out))


# --- where the weights lie --------------------------------------------------------------------------------------------


def _place(room: Room, spec: RunSpec) -> list[Settings]:
    whole: Settings = {"n_gpu_layers": -1, "n_cpu_moe": 0}
    if room.fits(dataclasses.replace(spec, **whole)):
        # A device of the host's own memory, or one behind a network, may be slower than the processor.
        is_near = all(device.kind == "gpu" and not is_remote(device) for device in room.devices)
        return [whole] if is_near else [whole, {"n_gpu_layers": 0, "n_cpu_moe": 0}]
    found: list[Settings] = []
    if room.has_experts and (kept := least_experts(spec, room)) is not None:
        n_blocks = room.n_layers - 1
        counts = {kept, kept + 1, kept + 3, (kept + n_blocks + 1) // 2, n_blocks}
        found += [{"n_gpu_layers": -1, "n_cpu_moe": count} for count in sorted(counts) if count <= n_blocks]
    most = most_layers(dataclasses.replace(spec, n_cpu_moe=0), room)
    if most:
        counts = {most, *(round(share * most) for share in LAYER_SHARES)}
        found += [{"n_gpu_layers": count, "n_cpu_moe": 0} for count in sorted(counts, reverse=True)]
    return found


def _split(room: Room, spec: RunSpec) -> list[Settings]:
    alone: list[Settings] = [
        {"split_mode": "none", "main_gpu": number, "tensor_split": ()} for number in range(len(room.devices))
    ]
    even = (1.0,) * len(room.devices)
    first = (2.0, *even[1:])
    shares: list[Settings] = [{"split_mode": "layer", "tensor_split": split} for split in (even, first)]
    return [*alone, *shares, {"split_mode": "row", "tensor_split": ()}]


def _without_devices(room: Room, _spec: RunSpec) -> Why | None:
    return None if room.devices else Why.NO_DEVICE


def _with_one_device(room: Room, spec: RunSpec) -> Why | None:
    return _without_devices(room, spec) or (Why.ONE_DEVICE if len(room.devices) < 2 else None)


def _with_all_on_devices(room: Room, spec: RunSpec) -> Why | None:
    is_whole = spec.n_gpu_layers < 0 or spec.n_gpu_layers >= room.n_layers
    return _without_devices(room, spec) or (Why.ALL_ON_DEVICES if is_whole and not spec.n_cpu_moe else None)


def _all_on_cards(room: Room, spec: RunSpec) -> bool:
    return _with_all_on_devices(room, spec) is Why.ALL_ON_DEVICES


# --- threads ----------------------------------------------------------------------------------------------------------


def _count_threads(room: Room) -> list[int]:
    usual = room.n_threads
    counts = {max(1, round(share * usual)) for share in THREAD_SHARES} | {max(1, usual - 1), usual, room.n_cpus}
    return sorted(counts, reverse=True)


def _threads(room: Room, spec: RunSpec) -> list[Settings]:
    """Of generation alone: those of prompts stay what they are."""
    counts = [count for count in _count_threads(room) if count != spec.n_threads]
    return [{"n_threads": count, "n_threads_batch": spec.n_threads_of_batch} for count in counts]


def _threads_batch(room: Room, spec: RunSpec) -> list[Settings]:
    return [{"n_threads_batch": count} for count in _count_threads(room) if count != spec.n_threads_of_batch]


def _on_one_cpu(room: Room, _spec: RunSpec) -> Why | None:
    return Why.ONE_CPU if room.n_cpus < 2 else None


def _affinity(room: Room, spec: RunSpec) -> list[Settings]:
    """A CPU of its own for each thread, one of each core."""
    mask = hex(sum(1 << cpu for cpu in room.core_cpus))
    return [{"cpu_mask": mask, "cpu_strict": True}] if room.core_cpus else []


def _at_others_cost(_room: Room, _spec: RunSpec) -> Why | None:
    """Threads that go before all others help only where there are others, who then wait."""
    return Why.OTHERS


def _with_openmp(room: Room, spec: RunSpec) -> Why | None:
    return Why.NO_EFFECT if room.has_openmp else _on_one_cpu(room, spec)


# --- batches, attention, the rest ----------------------------------------------------------------------------------------


def _micro_batches(room: Room, spec: RunSpec) -> list[Settings]:
    """Those that cut the prompts which are measured otherwise than the incumbent's does."""
    longest = room.longest_prompt or spec.n_prompt
    told = [min(spec.n_ubatch, longest)]
    found: list[Settings] = []
    for size in MICRO_BATCHES:
        if min(size, longest) not in told:
            told.append(min(size, longest))
            found.append({"n_ubatch": size, "n_batch": max(spec.n_batch, size)})
    return found


def _with_short_tests(room: Room, spec: RunSpec) -> Why | None:
    """Whether prompts had to be so short for lack of time that all micro-batches cut them alike."""
    longest = room.longest_prompt or spec.n_prompt
    return Why.NO_TIME if longest < spec.n_prompt and not _micro_batches(room, spec) else None


def _with_short_prompt(room: Room, spec: RunSpec) -> Why | None:
    if spec.n_prompt <= spec.n_batch:
        return Why.SHORT_PROMPT
    return Why.NO_TIME if (room.longest_prompt or spec.n_prompt) <= spec.n_batch else None


def _switch(name: str) -> Callable[[Room, RunSpec], list[Settings]]:
    return lambda _room, spec: [{name: not getattr(spec, name)}]


def _one_of(name: str, *values: object) -> Callable[[Room, RunSpec], list[Settings]]:
    return lambda _room, _spec: [{name: value} for value in values]


def _caches(room: Room, spec: RunSpec) -> list[Settings]:
    flash = "auto" if spec.flash_attn == "off" else spec.flash_attn
    return [{"type_k": kind, "type_v": kind, "flash_attn": flash} for kind in CACHES]


def _with_nothing_repacked(room: Room, spec: RunSpec) -> Why | None:
    if _all_on_cards(room, spec):
        return Why.ALL_ON_DEVICES
    return None if room.has_repacked else Why.NOTHING_REPACKED


def _on_one_node(room: Room, _spec: RunSpec) -> Why | None:
    return Why.ONE_NODE if room.n_nodes < 2 else None


_FACTORS = (
    Factor(("n_gpu_layers", "n_cpu_moe"), BOTH, _place, _without_devices),
    Factor(("split_mode", "main_gpu", "tensor_split"), BOTH, _split, _with_one_device),
    Factor(("n_threads", "n_threads_batch"), GENERATION, _threads, _on_one_cpu),
    Factor(("n_threads_batch",), PROMPT, _threads_batch, _on_one_cpu),
    Factor(("n_ubatch", "n_batch"), PROMPT, _micro_batches, _with_short_tests, is_of_batches=True),
    Factor(("flash_attn",), BOTH, _one_of("flash_attn", "off")),
    Factor(("repack",), BOTH, _switch("repack"), _with_nothing_repacked, most_rounds=8),
    Factor(("type_k", "type_v"), BOTH, _caches, costs_quality=True),
    Factor(("no_op_offload",), PROMPT, _switch("no_op_offload"), _with_all_on_devices, most_rounds=8),
    Factor(("no_host",), BOTH, _switch("no_host"), _with_all_on_devices, most_rounds=8),
    Factor(("no_kv_offload",), BOTH, _switch("no_kv_offload"), _with_all_on_devices, most_rounds=8),
    Factor(("poll",), GENERATION, _one_of("poll", *POLLS), _with_openmp, most_rounds=8),
    Factor(("cpu_mask", "cpu_strict"), BOTH, _affinity, _on_one_cpu, most_rounds=8),
    Factor(("n_batch",), PROMPT, _one_of("n_batch", 4096), _with_short_prompt, most_rounds=8, is_of_batches=True),
    Factor(("load_mode",), BOTH, _one_of("load_mode", "none"), most_rounds=8),
    Factor(("numa",), BOTH, _one_of("numa", "distribute", "isolate"), _on_one_node, most_rounds=6),
    Factor(("priority",), BOTH, _switch("priority"), _at_others_cost),
)  # fmt: skip
