"""What follows from putting layers on a device: which bytes move, and where the best count must lie.

llama.cpp counts the output layer as one of the layers and offloads it first, then the repeating layers from the last one down:
``-ngl 1`` moves the output layer alone, ``-ngl n_layers + 1`` everything.

Source: src/llama-model.cpp llama_model::load_tensors (i_gpu_start, act_gpu_layers, get_layer_buft_list).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.gguf.anatomy import Share, describe_model
from harness.gguf.blocks import count_layers
from harness.gguf.cost import read_weights
from harness.gguf.header import Header
from harness.gguf.roles import TOKEN_EMBEDDING


@dataclass(frozen=True, slots=True)
class Blocks:
    """A model as offloading sees it. layer_bytes[i] are the weights of layer i, expert_bytes[i] the experts' share of them, and
    read_bytes[i] what one token reads of them.

    output_bytes is what the output layer needs on a device: its own matrix, or a copy of the token embeddings where they are shared.
    """

    layer_bytes: tuple[int, ...]
    expert_bytes: tuple[int, ...]
    read_bytes: tuple[int, ...]
    output_bytes: int
    header: Header

    @property
    def n_layers(self) -> int:
        return len(self.layer_bytes)

    @property
    def max_gpu_layers(self) -> int:
        """The largest -ngl that changes anything: every layer and the output layer."""
        return self.n_layers + 1

    def work(self, n_gpu_layers: int) -> float:
        """Share (0…1) of the weights that a token reads which `n_gpu_layers` moves to the device."""
        moved = self._moved_layers(n_gpu_layers)
        total = sum(self.read_bytes) + self.output_bytes
        return (sum(self.read_bytes[i] for i in moved) + self.output_bytes * (n_gpu_layers > 0)) / max(total, 1)

    def work_by_count(self) -> dict[int, float]:
        """The same for every count."""
        return {count: self.work(count) for count in range(self.max_gpu_layers + 1)}

    def _moved_layers(self, n_gpu_layers: int) -> range:
        return range(max(self.n_layers + 1 - n_gpu_layers, 0), self.n_layers)


def describe_blocks(header: Header) -> Blocks:
    """Weigh a model's layers by its header.

    Raises
    ------
    HarnessError : the header has a value that llama.cpp would refuse too.
    """
    anatomy = describe_model(header)
    n_layers, skipped = count_layers(header), set(anatomy.attention.skipped)
    loaded = {layer.layer: layer for layer in anatomy.layers if layer.layer not in skipped}
    read = [0] * n_layers
    for weight in read_weights(header):
        if (block := weight.block) is not None and block < n_layers:
            read[block] += round(weight.size_bytes)
    embedding = header.find_tensor(TOKEN_EMBEDDING)
    shared = embedding.size_bytes if embedding and anatomy.tied_output else 0
    return Blocks(
        layer_bytes=tuple(loaded[i].size_bytes if i in loaded else 0 for i in range(n_layers)),
        expert_bytes=tuple(loaded[i].by_part.get("experts", 0) if i in loaded else 0 for i in range(n_layers)),
        read_bytes=tuple(read),
        output_bytes=anatomy.by_part.get("output", Share()).size_bytes + shared,
        header=header,
    )


def clamp_counts(counts: Sequence[int], max_gpu_layers: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(counts that differ in what they do, sorted; counts beyond the model, which mean all of it). -1 means all."""
    beyond = tuple(sorted({count for count in counts if count > max_gpu_layers}))
    real = {max_gpu_layers if count < 0 else min(count, max_gpu_layers) for count in counts}
    return tuple(sorted(real)), beyond


# The search for the best count.


#: No untried count may win by more than this when the search stops.
TOLERANCE = 0.03

#: Two timings of one thing differ by this much, relatively, unless the samples say otherwise.
NOISE = 0.01

#: What moving layers away from the CPU can save at the most, beside the time that their weights' share suggests: caches and
#: memory channels may serve the rest better.
_SAVING_SLACK = 1.1

#: A line that is drawn out further than its ends can bear proves nothing: the largest relative error at which it still does.
_WORST_PROOF = 0.10


@dataclass(frozen=True, slots=True)
class Point:
    """A measured count: seconds of the goal's unit of work, and how uncertain they are (relative standard error)."""

    n_gpu_layers: int
    cost_s: float
    noise: float = NOISE


@dataclass(frozen=True, slots=True)
class Choice:
    """What to measure next (None: nothing can win any more), and the least cost that an untried count could still have."""

    next_count: int | None
    bound_s: float


def choose_next(
    points: Sequence[Point], counts: Sequence[int], work: Mapping[int, float], tolerance: float = TOLERANCE
) -> Choice:
    """Decide which count to measure next, given what is measured.

    The cost over layers is taken as a line of the work that moved, broken at a few places (where memory spills, where a first
    layer makes every token cross the bus). A gap between two measured counts is closed when a line through points on one side
    hits the other side, for then it is part of that line. In an open gap nothing can be cheaper than both lines drawn into it, nor
    than its left end with the work of the moved layers done in no time at all. The gap's count with the lowest such bound is open
    until no bound is below the best measured cost by more than `tolerance`.

    Parameters
    ----------
    points    : measured counts, at least one cost each, any order
    counts    : every count that may be measured, sorted; those that failed are taken out by the caller
    work      : share of a token's work that each count moves, 0…1, growing with the count
    tolerance : what a win must exceed to be looked for, relative

    Raises
    ------
    ValueError : there is no count.
    """
    if not counts:
        raise ValueError("there is no count to choose from")
    measured = {point.n_gpu_layers: point for point in points if point.n_gpu_layers in set(counts)}
    for end in (counts[0], counts[-1]):
        if end not in measured:
            return Choice(end, 0.0)
    line = sorted(measured.values(), key=lambda point: point.n_gpu_layers)
    best = min(point.cost_s for point in line)
    open_gaps = []
    for index in range(len(line) - 1):
        inside = [count for count in counts if line[index].n_gpu_layers < count < line[index + 1].n_gpu_layers]
        if not inside or _is_explained(line, index, work):
            continue
        bound = min(_bound(line, index, count, work) for count in inside)
        if bound < (1 - tolerance) * best:
            open_gaps.append((bound, index, inside))
    if not open_gaps:
        doubt = _find_doubt(line, counts, work, tolerance)
        return Choice(doubt, best if doubt is None else best * (1 - tolerance))
    bound, index, inside = min(open_gaps)
    return Choice(_pick(line, index, inside, work), bound)


def _at(first: Point, second: Point, x: float, work: Mapping[int, float]) -> float:
    """The line through two points, at a share of work."""
    x1, x2 = work[first.n_gpu_layers], work[second.n_gpu_layers]
    return first.cost_s + (second.cost_s - first.cost_s) * (x - x1) / (x2 - x1)


def _hits(first: Point, second: Point, target: Point, work: Mapping[int, float]) -> bool:
    """Whether the line through two points hits a third within what their noise allows."""
    slack = _slack(first, second, target, work)
    if slack > (2 * _WORST_PROOF + NOISE) * target.cost_s:
        return False
    return abs(_at(first, second, work[target.n_gpu_layers], work) - target.cost_s) <= slack


def _slack(first: Point, second: Point, target: Point, work: Mapping[int, float]) -> float:
    """How far a third point may lie from the line through two for noise alone: twice the standard error, and some."""
    x1, x2, x = (work[point.n_gpu_layers] for point in (first, second, target))
    weight = (x - x1) / (x2 - x1)
    error = math.hypot(
        (1 - weight) * first.noise * first.cost_s, weight * second.noise * second.cost_s, target.noise * target.cost_s
    )
    return 2 * error + NOISE * target.cost_s


def _is_explained(line: Sequence[Point], index: int, work: Mapping[int, float]) -> bool:
    """Whether the gap after line[index] belongs to a line that goes on at one of its sides."""
    left, right = line[index], line[index + 1]
    before = index > 0 and _hits(line[index - 1], left, right, work)
    after = index + 2 < len(line) and _hits(line[index + 2], right, left, work)
    return before or after


def _find_doubt(
    line: Sequence[Point], counts: Sequence[int], work: Mapping[int, float], tolerance: float
) -> int | None:
    """An untried neighbour of the best count that may win: where two lines meet, noise can hide on which of them the best one is.

    The line through the best count and what lies beyond it promises more than `tolerance` at the neighbour, and the line of the
    neighbour's side hits the best count no better than by that promise.
    """
    index = min(range(len(line)), key=lambda i: line[i].cost_s)
    best = line[index]
    for beyond, near, far in ((index - 1, index + 1, index + 2), (index + 1, index - 1, index - 2)):
        if not (0 <= beyond < len(line) and 0 <= near < len(line) and 0 <= far < len(line)):
            continue
        place = counts.index(best.n_gpu_layers) + (1 if near > index else -1)
        neighbour = counts[place]
        if neighbour == line[near].n_gpu_layers:
            continue
        promise = 1 - _at(line[beyond], best, work[neighbour], work) / best.cost_s
        if promise > tolerance and _slack(line[far], line[near], best, work) > promise * best.cost_s:
            return neighbour
    return None


def _bound(line: Sequence[Point], index: int, count: int, work: Mapping[int, float]) -> float:
    """The least that a count inside the gap after line[index] can cost."""
    left, right, x = line[index], line[index + 1], work[count]
    rest = max(1 - work[line[0].n_gpu_layers], 1e-9)
    saved = _SAVING_SLACK * line[0].cost_s * (x - work[left.n_gpu_layers]) / rest
    physical = left.cost_s * (1 - 2 * left.noise) - saved
    drawn = 0.0  # with one side unknown nothing but physics holds in its part of the gap
    if 0 < index < len(line) - 2:
        drawn = min(_at(line[index - 1], left, x, work), _at(right, line[index + 2], x, work))
    return max(physical, drawn * (1 - 2 * left.noise), 0.0)


def _pick(line: Sequence[Point], index: int, inside: Sequence[int], work: Mapping[int, float]) -> int:
    """Where to measure inside a gap: where the lines of both sides cross, else in its middle."""
    middle = inside[len(inside) // 2]
    if 0 < index < len(line) - 2 and len(inside) > 2:
        left, right = (line[index - 1], line[index]), (line[index + 1], line[index + 2])
        falls = _at(*left, 1.0, work) - _at(*left, 0.0, work)
        rises = _at(*right, 1.0, work) - _at(*right, 0.0, work)
        if falls != rises:
            crossing = (_at(*right, 0.0, work) - _at(*left, 0.0, work)) / (falls - rises)
            nearest = min(inside, key=lambda count: abs(work[count] - crossing))
            if work[line[index].n_gpu_layers] < crossing < work[line[index + 1].n_gpu_layers]:
                return nearest
    return middle


def estimate_total(wall_s: Mapping[int, float], counts: Sequence[int], work: Mapping[int, float]) -> float:
    """Estimate what measuring every count would take, in s, from what some of them took: straight lines between those."""
    import numpy

    known = sorted(wall_s)
    at, of = ([work[count] for count in some] for some in (counts, known))
    return float(numpy.interp(at, of, [wall_s[count] for count in known]).sum())
