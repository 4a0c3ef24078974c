"""A search for the best count of layers in words: why this one, what it cost, how to ask other programs for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.records.cells import Device
from harness.records.failures import describe_reason
from harness.records.placements import PlacementResult
from harness.runs.search import Best, Goal
from harness.speed.offload import TOLERANCE, Blocks
from harness.views.values import BYTES, CHANGE, ROUND_SHARE, format_value

#: A bound on what an untried count may win is told up to this: a weaker one says nothing.
_TOLD_GAIN = 0.5


def describe_goal(goal: Goal) -> str:
    """What is to be fast, ``chat (512 prompt tokens and 256 answer tokens)``."""
    if goal.n_prompt + goal.n_gen == 1:
        return goal.name
    counts = {"prompt": goal.n_prompt, "answer": goal.n_gen}
    parts = [f"{count} {what} tokens" for what, count in counts.items() if count > 0]
    return f"{goal.name} ({' and '.join(parts)})"


def explain_best(best: Best, blocks: Blocks, devices: Sequence[Device], crossing_s: float | None) -> list[str]:
    """Why this count is the best: against its neighbours and the ends, what lies where, what spilled, what is left, what it cost."""
    reasons = [_compare(best), _describe_place(best, blocks)]
    if crossing_s is not None and crossing_s > 0 and best.best_n_gpu_layers:
        reasons.append(
            f"crossing to the devices and back costs {crossing_s * 1e3:.2f} ms a token, however many layers move"
        )
    reasons += [*_describe_memory(best, devices), *_describe_left_out(best), *_describe_confirmation(best)]
    return [*reasons, _describe_cost(best), *_describe_looks(best), f"stopped because {describe_stop(best)}"]


def describe_stop(best: Best) -> str:
    """Why a search ended."""
    if best.is_proven:
        return f"no untried count can be faster by more than {format_value(TOLERANCE, ROUND_SHARE)}"
    gain = best.next_gain
    told = f"might still win by up to {format_value(gain, ROUND_SHARE)}" if gain <= _TOLD_GAIN else "were not ruled out"
    return f"the time for a search was used up; {best.next_count} layers {told}"


def flag_lines(n_gpu_layers: int) -> list[str]:
    """How to ask three programs for a number of layers. num_gpu and n_gpu_layers count as llama.cpp's -ngl does."""
    return [
        f"llama.cpp         -ngl {n_gpu_layers}",
        f"Ollama            PARAMETER num_gpu {n_gpu_layers}",
        f"llama-cpp-python  n_gpu_layers={n_gpu_layers}",
    ]


def _describe_left_out(best: Best) -> Iterator[str]:
    reasons = {**best.skipped, **{count: describe_reason(failure) for count, failure in best.failed.items()}}
    for text, counts in _group_reasons(reasons).items():
        which = counts[0] if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        yield f"{which} layers were left out: {text}"
    if best.out_of_memory_from is not None and best.out_of_memory_from < max(best.counts):
        yield f"more than {best.out_of_memory_from} layers were left out: {best.out_of_memory_from} layers ran out of memory already"


def _describe_confirmation(best: Best) -> Iterator[str]:
    least = best.confirmed.get(best.best_n_gpu_layers)
    if least and len(best.confirmed) > 1:
        others = {count: cost for count, cost in best.confirmed.items() if count != best.best_n_gpu_layers}
        more = ", ".join(f"{count} {format_value(cost / least - 1, CHANGE)}" for count, cost in others.items())
        yield f"the best counts were loaded and measured again in turn, and there it is the fastest: {more} time"


def _describe_cost(best: Best) -> str:
    text = f"measured {len(best.measured)} of {best.n_counts} counts in {best.spent_s:.0f} s"
    if len(best.measured) < best.n_counts:
        text += (
            f", {format_value(best.cost_share, ROUND_SHARE)} of the {best.full_sweep_s:.0f} s that all would take "
            "(estimated by straight lines between the measured counts)"
        )
    if best.reused_s:
        text += f"; {best.reused_s:.0f} s of it were spent in the earlier run, by what its records say, so the share is a lower bound"
    return text


def _describe_looks(best: Best) -> list[str]:
    again: dict[int, list[int]] = {}
    for count, n in best.looks.items():
        if n > 1:
            again.setdefault(n, []).append(count)
    told = [f"measured were {', '.join(map(str, best.measured))}"] if len(best.measured) > 1 else []
    told += [f"loaded {n} times: {', '.join(map(str, sorted(counts)))}" for n, counts in sorted(again.items())]
    told += [f"by one repetition, clearly slower: {', '.join(map(str, best.quick))}"] if best.quick else []
    return ["; ".join(told)] if told else []


def _compare(best: Best) -> str:
    """Best against the ends, by the goal's cost."""
    results = {result.n_gpu_layers: result for result in best.results if result.speeds}
    here = _goal_cost(best.goal, results[best.best_n_gpu_layers])
    ends = [count for count in (min(results), max(results)) if count != best.best_n_gpu_layers]
    parts = [f"{_goal_cost(best.goal, results[count]) / here:.2f} times as fast as {count}" for count in ends]
    if not parts:
        return "it is the only count that was measured"
    return f"{best.best_n_gpu_layers} layers are {' and '.join(parts)}"


def _goal_cost(goal: Goal, result: PlacementResult) -> float:
    costs = ((goal.n_prompt, result.find("pp")), (goal.n_gen, result.find("tg")))
    return sum(weight * speed.token_s for weight, speed in costs if weight and speed)


def _describe_place(best: Best, blocks: Blocks) -> str:
    count = best.best_n_gpu_layers
    if count == 0 and not any(result.n_gpu_layers for result in best.results if result.speeds):
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


def _describe_memory(best: Best, devices: Sequence[Device]) -> Iterator[str]:
    memory = next(item.memory_bytes for item in best.results if item.n_gpu_layers == best.best_n_gpu_layers) or {}
    for device in devices:
        used = sum(memory.get(device.name, {}).values())
        if device.kind != "cpu" and used and device.memory_free_bytes is not None:
            left = format_value(max(device.memory_free_bytes - used, 0), BYTES)
            yield f"{device.name} holds {format_value(used, BYTES)}; {left} of what was free are left"


def _group_reasons(reasons: Mapping[int, str]) -> dict[str, list[int]]:
    """Counts by the words of their reason; where there are many, the first stands for all."""
    groups: dict[str, list[int]] = {}
    for count, text in sorted(reasons.items()):
        groups.setdefault(text, []).append(count)
    if len(groups) > 3:
        first, last = min(reasons), max(reasons)
        return {f"{reasons[first]} (the others likewise)": [first, last]}
    return groups
