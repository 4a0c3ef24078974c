"""Measured cells held against a machine's roof: the rate that its bandwidth or its arithmetic would allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.gguf.cost import prompt_roof_tok_per_s, roof_tok_per_s
from harness.records.cells import record_key
from harness.records.roofline import ARITHMETIC, READING, Roof
from harness.spec import RunSpec, find_varied
from harness.speed.rates import Measured

#: Above this share of the roof it is the roof that is wrong.
TOO_MUCH = 1.05

#: Parameters that have a place of their own beside a cell's test.
_SHOWN = ("n_threads", "n_depth", "n_gpu_layers")


@dataclass(frozen=True, slots=True)
class UnderRoof:
    """One cell against the roof of its device: bytes and operations a token, its rate, and the rate that the roof allows.

    varied names the parameters that tell it from others of its test; n_threads is None on a device that has none to choose.
    """

    model: str
    quantization: str
    is_synthetic: bool
    machine: str
    asked: RunSpec
    varied: tuple[str, ...]
    n_threads: int | None
    rate_tok_per_s: float
    bytes_per_token: float
    flops_per_token: float
    roof_tok_per_s: float

    @property
    def share(self) -> float:
        """Of the roof."""
        return self.rate_tok_per_s / self.roof_tok_per_s

    @property
    def n_prompt(self) -> int:
        """Tokens that share the reading; 0 where text was generated."""
        return self.asked.n_prompt

    @property
    def used_per_s(self) -> float:
        """Bytes a second that generating read, or operations a second that a prompt took."""
        return (self.flops_per_token if self.n_prompt else self.bytes_per_token) * self.rate_tok_per_s


def hold_against(measured: Sequence[Measured], roof: Roof) -> list[UnderRoof]:
    """Hold the generations and prompts of known models against a roof; the latest record of each cell."""
    found: dict[tuple[Any, ...], UnderRoof] = {}
    varied = tuple(name for name in find_varied(item.record.asked for item in measured) if name not in _SHOWN)
    for item in measured:
        is_tg, device = item.test_kind == "tg", _find_device(item, roof)
        best = roof.best(READING if is_tg else ARITHMETIC, device) if device else None
        if best is None or item.test_kind == "pp+tg" or (cost := item.cost()) is None:
            continue
        if not item.record.asked.serves_one_afresh:  # what is read is shared, or may have to be read again
            continue
        depth, resolved = item.mean_depth, item.record.resolved
        found[item.machine_label, record_key(item.record)] = UnderRoof(
            item.model,
            item.quantization or "?",
            item.is_synthetic,
            item.machine_label,
            item.record.asked,
            varied,
            resolved.n_threads if resolved and item.kind == "cpu" else None,
            item.summary.rate_tok_per_s,
            cost.bytes_per_token(depth),
            cost.flops_per_token(depth),
            roof_tok_per_s(cost, best.rate_per_s, depth)
            if is_tg
            else prompt_roof_tok_per_s(cost, best.rate_per_s, round(2 * depth)),
        )
    return list(found.values())


def _find_device(item: Measured, roof: Roof) -> str | None:
    for test in roof.tests:
        of_item = test.kind == "cpu" if item.kind == "cpu" else test.description == item.machine_label
        if test.work == READING and of_item:
            return test.device
    return None
