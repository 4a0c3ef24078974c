"""A search for the best count of layers in words: why this one, what it cost, how to ask other programs for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.records.cells import Device
from harness.records.placements import PlacementResult
from harness.runs.search import Best, Goal
from harness.speed.offload import Blocks
from harness.units import format_mib

#: A bound on what an untried count may win is told up to this: a weaker one says nothing.
_TOLD_GAIN = 0.5

def explain_best(best: Best, blocks: Blocks, devices: Sequence[Device], crossing_s: float | None) -> list[str]:
    """Why this count is the best: against its neighbours and the ends, what lies where, what spilled, what is left, what it cost."""
    reasons = [_compare(best), _describe_place(best, blocks)]
    if crossing_s is not None and crossing_s > 0 and best.best_n_gpu_layers:
        reasons.append(
            f"crossing to the devices and back costs {crossing_s * 1e3:.2f} ms a token, however many layers move"
        )
    reasons += _describe_memory(best, devices)
    for text, counts in _group_reasons({**best.skipped, **best.failed}).items():
        reasons.append(f"{_format_counts(counts)} layers were left out: {text}")
    if len(best.confirmed) > 1 and best.best_n_gpu_layers in best.confirmed:
        reasons.append(
            "the best counts were loaded and measured again in turn, and there it is the fastest: "
            + ", ".join(
                f"{count} +{cost / best.confirmed[best.best_n_gpu_layers] - 1:.1%}"
                for count, cost in best.confirmed.items()
                if count != best.best_n_gpu_layers
            )
            + " time"
        )
    reasons.append(
        f"measured {len(best.measured)} of {best.n_counts} counts in {best.spent_s:.0f} s"
        + (
            f", {best.cost_share:.0%} of the {best.full_sweep_s:.0f} s that all would take (estimated by straight lines between the "
            "measured counts)"
            if len(best.measured) < best.n_counts
            else ""
        )
        + (
            f"; {best.reused_s:.0f} s of it were spent in the earlier run, by what its records say, so the share is a lower bound"
            if best.reused_s
            else ""
        )
    )
    reasons += _describe_looks(best)
    reasons.append(f"stopped because {best.stopped}")
    return reasons


def _describe_looks(best: Best) -> list[str]:
    """Which counts were measured, and how often."""
    again: dict[int, list[int]] = {}
    for count, n in best.looks.items():
        if n > 1:
            again.setdefault(n, []).append(count)
    told = [f"measured were {', '.join(map(str, best.measured))}"] if len(best.measured) > 1 else []
    told += [f"loaded {n} times: {', '.join(map(str, sorted(counts)))}" for n, counts in sorted(again.items())]
    told += [f"by one repetition, clearly slower: {', '.join(map(str, best.quick))}"] if best.quick else []
    return ["; ".join(told)] if told else []


def _compare(best: Best) -> str:
    """Best against the slowest and the ends, by the goal's cost."""
    rows = {row.n_gpu_layers: row for row in best.rows if row.speeds}
    here = _goal_cost(best.goal, rows[best.best_n_gpu_layers])
    ends = [count for count in (min(rows), max(rows)) if count != best.best_n_gpu_layers]
    parts = [f"{_goal_cost(best.goal, rows[count]) / here:.2f} times as fast as {count}" for count in ends]
    return (
        f"{best.best_n_gpu_layers} layers are {' and '.join(parts)}"
        if parts
        else "it is the only count that was measured"
    )


def _goal_cost(goal: Goal, row: PlacementResult) -> float:
    costs = ((goal.n_prompt, row.find("pp")), (goal.n_gen, row.find("tg")))
    return sum(weight * speed.token_s for weight, speed in costs if weight and speed)


def _describe_place(best: Best, blocks: Blocks) -> str:
    count = best.best_n_gpu_layers
    if count == 0 and not any(row.n_gpu_layers for row in best.rows if row.speeds):
        return "everything stays on the CPU: no count with layers on a device was measured"
    if count == 0:
        return (
            "everything stays on the CPU: what a device saves on a layer is less than what getting there and back costs"
        )
    if count == blocks.max_gpu_layers:
        return f"all {blocks.n_layers} layers and the output layer are on the device"
    return (
        f"the output layer and the last {count - 1} of {blocks.n_layers} layers are on the device, the rest on the CPU"
    )


def _describe_memory(best: Best, devices: Sequence[Device]) -> list[str]:
    row = next(row for row in best.rows if row.n_gpu_layers == best.best_n_gpu_layers)
    texts = []
    for device in devices:
        used = sum((row.memory or {}).get(device.name, {}).values())
        if device.kind != "cpu" and used and device.memory_free_bytes is not None:
            left = device.memory_free_bytes - used
            texts.append(
                f"{device.name} holds {format_mib(used)}; {format_mib(max(left, 0))} of what was free are left"
            )
    return texts


def _group_reasons(reasons: Mapping[int, str]) -> dict[str, list[int]]:
    """Counts by the words of their reason, figures aside."""
    groups: dict[str, list[int]] = {}
    for count, text in sorted(reasons.items()):
        groups.setdefault(text, []).append(count)
    if len(groups) > 3:
        first, last = min(reasons), max(reasons)
        return {f"{reasons[first]} (the others likewise)": [first, last]}
    return groups


def _format_counts(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
