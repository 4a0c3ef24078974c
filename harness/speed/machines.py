"""The published machines as predictions know them: each with its figures, found by name."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.catalog import Catalog
from harness.errors import UsageError
from harness.gguf.cost import Cost, cost_of_shape
from harness.memory.fit import CUDA_CONTEXT_BYTES, estimate_compute_bytes, fit_layers, rough_prices
from harness.speed import published
from harness.speed.model_names import squeeze
from harness.speed.models import Hardware, Point, Population, learn_population

KINDS = ("cpu", "gpu", "apple")

#: Ollama's context in 2024, and what the article's figures are predicted for.
ARTICLE_CTX = 2048


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine with figures.

    hardware.points are models that it held whole; spilled those that it did not, with the seconds a token. family is what must be
    left out together (all variants of a chip). vram_bytes is None where memory is shared. prompt_flops_per_s is known where prompts
    were timed.
    """

    hardware: Hardware
    family: str
    vram_bytes: int | None = None
    spilled: tuple[Point, ...] = ()
    prompt_flops_per_s: float | None = None

    @property
    def caution(self) -> str | None:
        """What was published of its figures' worth."""
        return published.CAUTIONS.get(self.hardware.name)


def article_cost(catalog: Catalog, name: str) -> Cost:
    """The cost of one of the article's models in the quantization that Ollama's bare name stood for then."""
    entry = catalog.find(name)
    return cost_of_shape(entry.shape, entry.default_quantization, entry.name)


def known_machines(catalog: Catalog) -> list[Machine]:
    """Every published machine: the article's fifteen, other readings of two of them (only a bandwidth), and Apple's line."""
    costs = {name: article_cost(catalog, name) for name in published.ARTICLE_MODELS}
    bandwidths = published.load_bandwidths()
    machines = []
    for row in published.load_machines():
        peak = bandwidths[row.name]
        points = [Point(costs[name], 1 / rate) for name, rate in row.rates_tok_per_s.items() if rate is not None]
        held = tuple(point for point in points if _holds(point.cost, peak.vram_bytes))
        hardware = Hardware(row.name, row.kind, peak.bandwidth_bytes_per_s, held)
        spilled = tuple(point for point in points if point not in held)
        machines.append(Machine(hardware, row.name, peak.vram_bytes, spilled))
    named = {machine.hardware.name for machine in machines}
    machines += [
        Machine(Hardware(name, peak.kind, peak.bandwidth_bytes_per_s), name.split(" (")[0], peak.vram_bytes)
        for name, peak in bandwidths.items()
        if name not in named and peak.kind != "apple"
    ]
    return machines + [_apple_machine(chip) for chip in published.load_apple_chips()]


def _holds(cost: Cost, vram_bytes: int | None) -> bool:
    if vram_bytes is None:
        return True
    compute = estimate_compute_bytes(cost, ARTICLE_CTX)
    found = fit_layers(rough_prices(cost, ARTICLE_CTX), None, vram_bytes, compute, CUDA_CONTEXT_BYTES)
    return found.n_fitting == found.n_layers


@functools.cache
def _llama_7b() -> Mapping[str, Cost]:
    return {kind: cost_of_shape(published.LLAMA_7B, kind, "LLaMA 7B") for kind in ("F16", "Q8_0", "Q4_0")}


def _apple_machine(chip: published.AppleChip) -> Machine:
    points = tuple(Point(_llama_7b()[kind], 1 / rate) for kind, rate in chip.tg_tok_per_s.items() if rate)
    prompt = chip.pp_tok_per_s["Q4_0"]
    return Machine(
        Hardware(chip.name, "apple", chip.bandwidth_bytes_per_s, points),
        chip.chip,
        prompt_flops_per_s=prompt and prompt * _llama_7b()["Q4_0"].flops_per_token(256),
    )


def populate(machines: Sequence[Machine], kind: str, without: str = "") -> Population:
    """What the machines of a kind have in common, all but one family."""
    return _learn(tuple(m.hardware for m in machines if m.hardware.kind == kind and m.family != without))


_learn = functools.lru_cache(maxsize=64)(learn_population)


def find_machine(machines: Sequence[Machine], name: str) -> list[Machine]:
    """The machines that a name means: itself, or all variants of a chip.

    Raises
    ------
    UsageError : there is none, with the nearest names.
    """
    wanted = squeeze(name)
    for name_of in (lambda m: m.hardware.name, lambda m: m.family):
        if found := [machine for machine in machines if squeeze(name_of(machine)) == wanted]:
            return found
    # "M4 Max 40" is enough of "M4 Max 40-core GPU"; but an RTX 3070 is no RTX 3070 Ti.
    apple = [machine for machine in machines if machine.hardware.kind == "apple"]
    found = [machine for machine in apple if wanted and squeeze(machine.hardware.name).startswith(wanted)]
    if len({machine.family for machine in found}) == 1:
        return found
    names = {squeeze(machine.family): machine.family for machine in machines}
    near = [names[key] for key in difflib.get_close_matches(wanted, names, n=3, cutoff=0.3)]
    near = list(dict.fromkeys([*(machine.family for machine in found), *near]))[:4]
    hint = f"the nearest are {', '.join(near)}" if near else "harness table lists them"
    raise UsageError(f"No published figures for a machine {name!r}; {hint}, or give its --bandwidth and --kind.")
