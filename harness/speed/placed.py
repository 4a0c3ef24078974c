"""How long a token takes where its weights lie on a card and on a processor, from bytes, bandwidths and arithmetic.

A model of costs for placements that nobody has measured, and the machine that stands in where one is searched without a card. A
generated token reads each weight that it visits from where that lies; a prompt's tokens share the reading, so there arithmetic counts,
or, where llama.cpp brings the host's weights to the card for a large batch, the bus that they cross. Each change of place costs time
of its own. What is left out: overlapping of copies, caches of the processor, and what a driver does beside.

Sources: residence of layers and experts: `harness.memory.placement`, LLM_FFN_EXPS_REGEX in llama.cpp's common/common.h; that matrices
of the host are brought to the card for 32 tokens and more: ggml_backend_cuda_device_offload_op in ggml-cuda.cu.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.gguf.cost import Cost, cost_of_header, read_weights
from harness.gguf.header import Header
from harness.gguf.roles import find_role
from harness.memory.overrides import Home, find_home
from harness.memory.placement import deal_out
from harness.parsers import split_override
from harness.spec import RunSpec

#: Tokens of a batch from which on weights of the host are computed on a card.
OFFLOADED_BATCH = 32


@dataclass(frozen=True, slots=True)
class CardAndHost:
    """A machine with one card, in bytes and operations a second and in seconds.

    Threads share the host's bandwidth, of which one alone takes host_bytes_per_s / n_threads_full; beyond its cores they are in each
    other's way. crossing_s is what it takes from one place to the other, once.
    """

    card_bytes_per_s: float
    card_flops: float
    host_bytes_per_s: float
    host_flops: float
    bus_bytes_per_s: float
    crossing_s: float
    n_cores: int
    n_threads_full: int  #: that take all of the host's bandwidth

    def host_share(self, n_threads: int, *, computes: bool) -> float:
        """What so many threads make of the host's bandwidth, or of its arithmetic, as a share."""
        full = self.n_cores if computes else self.n_threads_full
        crowd = max(1.0, n_threads / self.n_cores) ** 0.5
        return min(1.0, n_threads / full) / crowd


@dataclass(frozen=True)
class PlacedModel:
    """A model whose tokens are priced by placement on a machine. Its first device is the card; what no layer has lies on the host."""

    header: Header
    machine: CardAndHost

    def token_s(self, spec: RunSpec, n_depth: int) -> float:
        """Seconds of one generated token with n_depth tokens in the cache."""
        homes = self._homes(spec)
        card = self._bytes_on_card(homes)
        host = self._cost.read_bytes - card
        cached = self._cost.bytes_per_token(n_depth) - self._cost.read_bytes
        on_card = 0.0 if spec.no_kv_offload else self._share_of_layers(spec)
        rate = self.machine.host_bytes_per_s * self.machine.host_share(spec.n_threads or 1, computes=False)
        reading = (card + on_card * cached) / self.machine.card_bytes_per_s + (host + (1 - on_card) * cached) / rate
        return reading + self._count_crossings(homes) * self.machine.crossing_s

    def prompt_token_s(self, spec: RunSpec, n_prompt: int) -> float:
        """Seconds of one token of a prompt of n_prompt tokens."""
        homes = self._homes(spec)
        share = self._bytes_on_card(homes) / self._cost.read_bytes
        flops = self._cost.flops_per_prompt_token(n_prompt)
        n_batch = min(spec.n_ubatch, n_prompt)
        threads = spec.n_threads_of_batch or 1
        crossing_s = self._count_crossings(homes) * self.machine.crossing_s / n_batch
        if share and not spec.no_op_offload and n_batch >= OFFLOADED_BATCH:
            brought_s = self._host_bytes(homes) / self.machine.bus_bytes_per_s / n_batch
            return flops / self.machine.card_flops + brought_s + crossing_s
        rate = self.machine.host_flops * self.machine.host_share(threads, computes=True)
        return flops * (share / self.machine.card_flops + (1 - share) / rate) + crossing_s

    @cached_property
    def _cost(self) -> Cost:
        return cost_of_header(self.header, "", "")

    @cached_property
    def _weights(self) -> tuple[tuple[str, int | None, bool, float, int], ...]:
        """(name, layer or None for the output, whether it is experts', bytes that a token reads, bytes in all) of each weight."""
        return tuple(
            (
                read.tensor.name,
                read.block,
                find_role(read.tensor.name).is_expert,
                float(read.size_bytes),
                read.tensor.size_bytes,
            )
            for read in read_weights(self.header)
        )

    def _homes(self, spec: RunSpec) -> tuple[bool, ...]:
        """Whether each of the weights lies on the card."""
        layers = [home is not None for home in deal_out(self._cost.n_layers, spec, (1,))]
        named = tuple(map(split_override, spec.override_tensors))

        def lies_on_card(name: str, layer: int | None, is_experts: bool) -> bool:
            home = find_home(name, named, ())
            if home is not Home.ITS_LAYER:
                return home is Home.ELSEWHERE  # which is the card: there is nothing else
            if is_experts and layer is not None and layer < spec.n_cpu_moe:
                return False
            return layers[-1 if layer is None else layer]

        return tuple(lies_on_card(name, layer, is_experts) for name, layer, is_experts, _, _ in self._weights)

    def _bytes_on_card(self, homes: Sequence[bool]) -> float:
        """Bytes that one token reads on the card; the others of its bytes lie on the host."""
        return sum(read for (*_, read, _), home in zip(self._weights, homes, strict=True) if home)

    def _host_bytes(self, homes: Sequence[bool]) -> float:
        """All bytes of weights on the host that a batch visits: with many tokens, every expert."""
        return sum(size for (*_, size), home in zip(self._weights, homes, strict=True) if not home)

    def _share_of_layers(self, spec: RunSpec) -> float:
        layers = deal_out(self._cost.n_layers, spec, (1,))[:-1]
        return sum(home is not None for home in layers) / len(layers)

    def _count_crossings(self, homes: Sequence[bool]) -> int:
        """How often a token goes from one place to the other, from the embeddings on the host to the logits there."""
        places = [False]
        attention: dict[int | None, bool] = {}
        experts: dict[int | None, bool] = {}
        for (_, layer, is_experts, _, _), home in zip(self._weights, homes, strict=True):
            (experts if is_experts else attention).setdefault(layer, home)
        for layer in range(self._cost.n_layers):
            places += [attention.get(layer, False), experts.get(layer, attention.get(layer, False))]
        places += [attention.get(None, False), False]
        return sum(one != other for one, other in zip(places, places[1:], strict=False))
