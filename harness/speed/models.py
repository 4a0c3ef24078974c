"""How fast will a model generate on a machine, from what is known of the machine and of others of its kind?

One token takes ``a · layers + bytes / (e · bandwidth)``: a is what a layer costs whatever its size (starting kernels, waiting for
threads), e the share of the stated bandwidth that is really had. Both differ from machine to machine, but not by orders of
magnitude. What machines of a kind have in common is learnt from the published ones (their mean and spread), and a machine's own
figures move it away from that: with none it is the population's, with one a compromise, with many its own. So the same formula
serves a bandwidth alone and a machine on which other models were timed.

Logarithms throughout: a and e are positive, and errors are ratios.

Source: linear hierarchical models with Gaussian priors, fitted by expectation maximisation (A. Gelman et al., Bayesian Data Analysis,
chapters 5 and 15); residuals weighted as P. J. Huber, Robust Statistics, so that one odd figure does not bend a machine.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.evidence.medians import quantile
from harness.gguf.cost import Cost

#: The intervals are meant to hold 9 of 10 figures; 1.645 standard deviations of a normal distribution.
LEVEL, _Z = 0.90, 1.645

#: Where every fit begins: 0.2 ms a layer, 60 % of the bandwidth; and how far machines of a kind may be from it before they were
#: looked at.
_START, _START_SPREAD = (math.log(0.2e-3), math.log(0.6)), (0.7, 0.35)

#: Huber's bound, in standard deviations.
_HUBER = 1.5

#: A spread is learnt as if one machine more had been seen with this one: a few machines that agree do not prove that all do.
_SPREAD_PRIOR = 0.2

#: One figure's own error (noise, unknown length of the answer, rounding to a digit), where fits begin and the least that is believed.
_NOISE_START, _NOISE_LEAST = 0.06, 0.03

#: With a bandwidth that was measured by ggml's own matrix-vector product the share had is near one: an assumption, not learnt.
MEASURED_EFFICIENCY, MEASURED_SPREAD = 0.85, 0.15


@dataclass(frozen=True, slots=True)
class Point:
    """A known figure: a model's cost and the seconds that one generated token took, with depth tokens in the cache."""

    cost: Cost
    token_s: float
    depth: float = 0.0


@dataclass(frozen=True, slots=True)
class Hardware:
    """A machine: its kind (cpu, gpu, apple), stated or measured bandwidth, and what is known of its speed."""

    name: str
    kind: str
    bandwidth_bytes_per_s: float
    points: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True)
class Belief:
    """Logarithms of seconds a layer (a) and of efficiency (e), with their variances and covariance."""

    log_a: float
    log_e: float
    var_a: float
    var_e: float
    cov: float = 0.0


@dataclass(frozen=True, slots=True)
class Population:
    """What machines of a kind have in common: the belief about one that was not seen, and the noise (sd, relative) of a figure.

    widths are how many standard deviations it takes to hold `LEVEL` of the population's own figures, each predicted without itself:
    of a machine with no other figure, and of one with some. Real errors have longer tails than a normal distribution.
    """

    belief: Belief
    noise: float
    n_machines: int
    widths: tuple[float, float] = (_Z, _Z)

    def width(self, n_known: int) -> float:
        """Standard deviations for a machine with so many known figures."""
        return self.widths[min(n_known, 1)]


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a model's layers and bytes (a token's) on one device, of which something is believed.

    width is how many standard deviations of that belief the interval is to hold.
    """

    n_layers: float
    n_bytes: float
    bandwidth_bytes_per_s: float
    belief: Belief
    width: float = _Z


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens per second, with the bounds that are meant to hold 9 of 10 figures."""

    rate_tok_per_s: float
    low_tok_per_s: float
    high_tok_per_s: float


def learn_population(machines: Sequence[Hardware]) -> Population:
    """Learn what machines of one kind have in common; those without figures do not count.

    Raises
    ------
    ValueError : there is no machine with a figure.
    """
    known = [machine for machine in machines if machine.points]
    if not known:
        raise ValueError("a population needs a machine with a figure")
    population = Population(Belief(*_START, *(spread**2 for spread in _START_SPREAD)), _NOISE_START, len(known))
    for _ in range(30):
        beliefs = [fit(machine, population) for machine in known]
        before, after = population.belief, _pool(beliefs)
        population = Population(after, _learn_noise(known, beliefs), len(known))
        if abs(before.log_a - after.log_a) + abs(before.log_e - after.log_e) < 1e-4:
            break
    return dataclasses.replace(population, widths=_learn_widths(known, population))


def _learn_widths(machines: Sequence[Hardware], population: Population) -> tuple[float, float]:
    """Predict every figure of the population without itself, and see how many standard deviations off 9 of 10 are.

    A machine without figures is predicted by the mean and spread of the others, a figure of a machine by the machine's other ones.
    """
    beliefs = [fit(machine, population) for machine in machines]
    unseen: list[float] = []
    seen: list[float] = []
    for index, machine in enumerate(machines):
        others = [belief for at, belief in enumerate(beliefs) if at != index]
        for number, point in enumerate(machine.points):
            rest = machine.points[:number] + machine.points[number + 1 :]
            if others:
                unseen.append(_standardize(machine, point, _pool(others), population.noise))
            if rest:
                belief = fit(dataclasses.replace(machine, points=rest), population)
                seen.append(_standardize(machine, point, belief, population.noise))
    return _quantile(unseen), _quantile(seen)


def _quantile(values: list[float]) -> float:
    """The least of the values that `LEVEL` of them do not exceed, and no less than a normal distribution's."""
    return max(quantile(values, LEVEL), _Z) if values else _Z


def _standardize(machine: Hardware, point: Point, belief: Belief, noise: float) -> float:
    total, variance = _add_up([_whole(machine, point, belief)], noise)
    return abs(math.log(point.token_s / total)) / math.sqrt(variance)


def _pool(beliefs: Sequence[Belief]) -> Belief:
    """What some machines have in common."""
    mean_a, var_a = _spread([(belief.log_a, belief.var_a) for belief in beliefs])
    mean_e, var_e = _spread([(belief.log_e, belief.var_e) for belief in beliefs])
    return Belief(mean_a, mean_e, var_a, var_e)


def _spread(estimates: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean of means; variance of means and of what is unknown in each, with one imagined machine more."""
    n = len(estimates)
    mean = sum(value for value, _ in estimates) / n
    total = sum((value - mean) ** 2 + variance for value, variance in estimates)
    return mean, (total + _SPREAD_PRIOR**2) / (n + 1)


def _learn_noise(machines: Sequence[Hardware], beliefs: Sequence[Belief]) -> float:
    """The median residual as a standard deviation (1.4826 of it, for a normal distribution), over the machines with more figures than
    unknowns, corrected for the two unknowns."""
    squares = []
    for machine, belief in zip(machines, beliefs, strict=True):
        n = len(machine.points)
        if n > 2:
            times = (sum(_times(_whole(machine, point, belief))) for point in machine.points)
            residuals = (math.log(point.token_s / time_s) for point, time_s in zip(machine.points, times, strict=True))
            squares += [residual**2 * n / (n - 2) for residual in residuals]
    middle = sorted(squares)[len(squares) // 2] if squares else None
    return _NOISE_START if middle is None else max(1.4826 * math.sqrt(middle), _NOISE_LEAST)


def fit(machine: Hardware, population: Population) -> Belief:
    """Move the population's belief towards a machine's own figures: Gauss and Newton's steps with Huber's weights."""
    prior, sigma = population.belief, population.noise
    log_a, log_e = prior.log_a, prior.log_e
    expected = [_times(_whole(machine, point, prior)) for point in machine.points]
    for _ in range(40):
        m11, m22, m12 = 1 / prior.var_a, 1 / prior.var_e, 0.0
        g1, g2 = (prior.log_a - log_a) / prior.var_a, (prior.log_e - log_e) / prior.var_e
        for point, (fixed, reading) in zip(machine.points, expected, strict=True):
            fixed, reading = fixed * math.exp(log_a - prior.log_a), reading * math.exp(prior.log_e - log_e)
            total = fixed + reading
            residual = math.log(point.token_s / total)
            weight = min(1.0, _HUBER * sigma / abs(residual)) if residual else 1.0
            weight /= sigma**2
            j1, j2 = fixed / total, -reading / total
            m11, m22, m12 = m11 + weight * j1 * j1, m22 + weight * j2 * j2, m12 + weight * j1 * j2
            g1, g2 = g1 + weight * j1 * residual, g2 + weight * j2 * residual
        determinant = m11 * m22 - m12 * m12
        step_a, step_e = (m22 * g1 - m12 * g2) / determinant, (m11 * g2 - m12 * g1) / determinant
        step_a, step_e = max(min(step_a, 0.5), -0.5), max(min(step_e, 0.5), -0.5)
        log_a, log_e = log_a + step_a, log_e + step_e
        if abs(step_a) + abs(step_e) < 1e-6:
            break
    return Belief(log_a, log_e, m22 / determinant, m11 / determinant, -m12 / determinant)


def _whole(machine: Hardware, point: Point, belief: Belief) -> Share:
    """A figure's model, whole on its machine."""
    cost = point.cost
    return Share(cost.n_layers, cost.bytes_per_token(point.depth), machine.bandwidth_bytes_per_s, belief, width=1.0)


def _times(share: Share) -> tuple[float, float]:
    """(seconds that the layers cost, seconds of reading) of one token."""
    reading = share.n_bytes / (math.exp(share.belief.log_e) * share.bandwidth_bytes_per_s)
    return math.exp(share.belief.log_a) * share.n_layers, reading


def measured_belief(population: Population) -> Belief:
    """What to believe of a machine whose bandwidth ggml itself measured, before any of its speeds is known."""
    belief = population.belief
    return Belief(belief.log_a, math.log(MEASURED_EFFICIENCY), belief.var_a, MEASURED_SPREAD**2)


def average_machine(machines: Sequence[Hardware], population: Population) -> tuple[float, Belief]:
    """Some machine of a kind, of which not even the bandwidth is known: (its bandwidth, the belief about it).

    The spread of bandwidths is in the belief about the efficiency.
    """
    beliefs = [(machine, fit(machine, population)) for machine in machines if machine.points]
    had = [belief.log_e + math.log(machine.bandwidth_bytes_per_s) for machine, belief in beliefs]
    mean, variance = _spread([(value, belief.var_e) for value, (_, belief) in zip(had, beliefs, strict=True)])
    return math.exp(mean), Belief(population.belief.log_a, 0.0, population.belief.var_a, variance)


def estimate(shares: Sequence[Share], noise: float) -> Estimate:
    """Add up the time of a token over the devices that it passes, and what is not known of it.

    Raises
    ------
    ValueError : there is no share.
    """
    if not shares:
        raise ValueError("a token passes at least one device")
    total, variance = _add_up(shares, noise)
    factor = math.exp(math.sqrt(variance))
    return Estimate(1 / total, 1 / (total * factor), factor / total)


def _add_up(shares: Sequence[Share], noise: float) -> tuple[float, float]:
    """(seconds a token, variance of their logarithm in units of the widths), by the first order of the error's propagation."""
    parts = [_times(share) for share in shares]
    total, variance = sum(map(sum, parts)), 0.0
    for share, (fixed, reading) in zip(shares, parts, strict=True):
        j1, j2, belief = fixed / total, -reading / total, share.belief
        own = j1 * j1 * belief.var_a + j2 * j2 * belief.var_e + 2 * j1 * j2 * belief.cov
        variance += share.width**2 * (own + (j1 - j2) * noise**2)
    return total, variance


#: A device as a share of a token's time takes it: bandwidth, belief, width.
Device = tuple[float, Belief, float]


def split_shares(cost: Cost, n_layers_gpu: int, depth: float, gpu: Device, cpu: Device) -> list[Share]:
    """Deal a model's layers out to a card and the processor beside it.

    n_layers_gpu counts the output matrix as one more, as llama.cpp does.
    """
    if n_layers_gpu > cost.n_layers:
        return [Share(cost.n_layers, cost.bytes_per_token(depth), *gpu)]
    per_layer = cost.block_bytes + (cost.bytes_per_token(depth) - cost.read_bytes) / cost.n_layers
    gpu_bytes = cost.output_bytes + (n_layers_gpu - 1) * per_layer if n_layers_gpu else 0.0
    rest = Share(cost.n_layers - n_layers_gpu, cost.bytes_per_token(depth) - gpu_bytes, *cpu)
    return [Share(n_layers_gpu, gpu_bytes, *gpu), rest] if n_layers_gpu else [rest]
