"""Prove by simulation what harness/evidence promises: scripts/trust_simulation.py [--quick]

Draws samples whose truth is known and counts how often the intervals hold it and how often a decision is false. Prints a table, and
leaves it in bench_results/trust/ as simulation.md and simulation.json. About two minutes on one core; --quick takes a twentieth of the
draws and keeps nothing. The seeds are fixed: the same version gives the same table.
"""

from __future__ import annotations

import collections
import math
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click
import numpy
from figures import FOLDER, Figure, Goal, keep, share_of

from harness.evidence.change_points import find_change_points
from harness.evidence.drift import count_warmups
from harness.evidence.medians import median, median_interval
from harness.evidence.sequential import Decision, SequentialTest
from harness.evidence.stopping import bound_median, next_look
from harness.evidence.two_samples import compare_samples
from harness.runs.rounds import CellState
from harness.spec import RunSpec
from harness.units import NS_PER_S

#: A function from a random source and a shape to durations around 1.
Draw = Callable[[Any, tuple[int, ...]], Any]

PRECISION, MOST_REPETITIONS = 0.02, 192

#: Which set of draws: the first set chose the constants of harness/evidence, so that another one has to judge them.
ROUND = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One proportion: how many of n draws did what `about` says, which bound is promised, and its key in the table of proofs."""

    part: str
    about: str
    noise: str
    hits: int
    n: int
    at_most: float | None = None
    at_least: float | None = None
    typical: str = ""  #: how many repetitions, pairs or ms that took
    figure: str | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the bound holds; None: nothing is promised."""
        return Goal("", "share", self.at_most, self.at_least).is_met(self.hits / self.n)


def normal(deviation: float) -> Draw:
    return lambda chance, shape: 1 + deviation * chance.standard_normal(shape)


def two_states(share: float, apart: float = 0.05, deviation: float = 0.003) -> Draw:
    return lambda chance, shape: (
        (1 + apart * (chance.random(shape) < share)) * (1 + deviation * chance.standard_normal(shape))
    )


def skewed(scale: float) -> Draw:
    return lambda chance, shape: 1 + scale * chance.lognormal(0, 1, shape)


def spiky(share: float) -> Draw:
    return lambda chance, shape: (
        1 + 0.008 * chance.standard_normal(shape) + (chance.random(shape) < share) * chance.exponential(0.3, shape)
    )


def heavy(scale: float) -> Draw:
    return lambda chance, shape: 1 + scale * chance.standard_t(2, shape).clip(-30, 300)


def autocorrelated(deviation: float, memory: float = 0.5) -> Draw:
    def draw(chance: Any, shape: tuple[int, ...]) -> Any:
        steps = chance.standard_normal(shape)
        for place in range(1, shape[-1]):
            steps[..., place] = memory * steps[..., place - 1] + math.sqrt(1 - memory**2) * steps[..., place]
        return 1 + deviation * steps

    return draw


NOISES: dict[str, Draw] = {
    "normal, 0.5 %": normal(0.005),
    "normal, 2 %": normal(0.02),
    "normal, 5 %": normal(0.05),
    "skewed (log-normal)": skewed(0.02),
    "heavy tails (t, 2 degrees)": heavy(0.01),
    "spikes in 10 %": spiky(0.1),
    "two states, 70 : 30": two_states(0.3),
    "two states, 60 : 40": two_states(0.4),
    "two states, 50 : 50": two_states(0.5),
}

WARM_UPS: dict[str, Callable[[Any], Any]] = {
    "decay of 20 % over 2": lambda k: 0.2 * numpy.exp(-k / 2),
    "decay of 10 % over 3": lambda k: 0.1 * numpy.exp(-k / 3),
    "decay of 5 % over 5": lambda k: 0.05 * numpy.exp(-k / 5),
    "first three 5 % slower": lambda k: 0.05 * (k < 3),
}


def source(*what: object) -> Any:
    """A random source of its own for each row: rows do not change when others are added."""
    return numpy.random.default_rng(zlib.crc32(repr((ROUND, what)).encode()))


def true_median(draw: Draw) -> float:
    return float(numpy.median(draw(source("median"), (2_000_001,))))


def holds(samples: Any, ranks: tuple[float, float], true: float) -> Any:
    """Which of the sorted samples' order statistics enclose the truth."""
    return (samples[:, int(ranks[0])] <= true) & (true <= samples[:, int(ranks[1])])


def simulate_fixed(trials: int) -> Iterator[Row]:
    """Coverage of a median's interval where the number of repetitions was fixed."""
    for name, draw in NOISES.items():
        hits, true = 0, true_median(draw)
        for n in (6, 10, 20, 40):
            interval = median_interval(range(n))  # of the ranks, which depend on n alone
            assert interval is not None
            hits += int(holds(numpy.sort(draw(source("fixed", name, n), (trials, n))), interval.ends, true).sum())
        yield Row(
            "-r N",
            "interval holds the median",
            name,
            hits,
            4 * trials,
            at_least=0.95,
            figure="coverage.median_interval",
        )


def simulate_stopping(trials: int) -> Iterator[Row]:
    """The same with -r auto: stopped at the first look at which the interval is narrow, or after MOST_REPETITIONS."""
    for name, draw in NOISES.items():
        values, true = draw(source("auto", name), (trials, MOST_REPETITIONS)), true_median(draw)
        is_held, is_narrow, n_taken, n = (
            numpy.zeros(trials, bool),
            numpy.zeros(trials, bool),
            numpy.zeros(trials, int),
            0,
        )
        while (n := next_look(n)) <= MOST_REPETITIONS:
            interval = bound_median(range(n))
            assert interval is not None
            samples = numpy.sort(values[:, :n])
            low, high, middle = (
                samples[:, int(interval.low)],
                samples[:, int(interval.high)],
                numpy.median(samples, axis=1),
            )
            is_open = n_taken == 0
            is_narrow |= is_open & (numpy.maximum(middle - low, high - middle) <= PRECISION * middle)
            ends = is_open & (is_narrow if n < MOST_REPETITIONS else True)
            is_held[ends], n_taken[ends] = holds(samples, interval.ends, true)[ends], n
        typical = f"median {int(numpy.median(n_taken))}, mean {n_taken.mean():.0f} repetitions, ± 2 % in {is_narrow.mean():.0%}"
        hits = int(is_held.sum())
        yield Row(
            "-r auto", "interval holds the median", name, hits, trials, None, 0.95, typical, "coverage.median_interval"
        )


def repeat(values: list[float]) -> tuple[list[float], int]:
    """What -r auto keeps of values that are to come, and how many it takes: warm-ups left out, looked at when enough are kept."""
    cell = CellState(RunSpec("simulated.gguf", n_gen=1, precision=PRECISION))
    while not cell.is_over and (n := len(cell.durations_ns)) < MOST_REPETITIONS:
        cell.add([round(value * NS_PER_S) for value in values[n : cell.n_wanted]], 0.0, 0.0)
    return [duration / NS_PER_S for duration in cell.kept_ns], len(cell.durations_ns)


def simulate_whole(trials: int) -> Iterator[Row]:
    """Coverage of what -r auto reports with warm-ups sought: steady samples, and such that do warm up."""
    part = "-r auto, warm-up sought"
    steady = [(name, draw, lambda k: 0 * k) for name, draw in NOISES.items()]
    warming = [
        (f"{warm_up}, normal, {deviation:.1%}", normal(deviation), shape)
        for warm_up, shape in WARM_UPS.items()
        for deviation in (0.003, 0.01)
    ]
    for name, draw, shape in [*steady, *warming]:
        chance, true, hits, near, off, n_taken = source("whole", name), true_median(draw), 0, 0, list[float](), 0
        drift = shape(numpy.arange(2 * MOST_REPETITIONS))
        for _ in range(trials):
            kept, n = repeat((draw(chance, drift.shape) + drift).tolist())
            interval = bound_median(kept)
            assert interval is not None
            hits += interval.low <= true <= interval.high
            off.append(abs(median(kept) / true - 1))
            near += off[-1] <= PRECISION
            n_taken += n
        told = f"mean {n_taken / trials:.0f} repetitions, median off by {median(off):.2%}"
        if name in NOISES:
            yield Row(
                part, "interval holds the median", name, hits, trials, None, 0.95, told, "coverage.median_interval"
            )
        else:
            yield Row(part, "interval holds the last level", name, hits, trials, typical=told)
            yield Row(part, "median within ± 2 % of the last level", name, near, trials)


def simulate_warm_ups(trials: int) -> Iterator[Row]:
    """How often a warm-up is seen where there is none, and where there is one."""
    for name, draw in {**NOISES, "autocorrelated, 0.5": autocorrelated(0.01)}.items():
        bound = None if name.startswith("auto") else 0.05
        hits = sum(
            count_warmups(row) > 0
            for n in (6, 12, 24, 48)
            for row in draw(source("steady", name, n), (trials, n)).tolist()
        )
        yield Row("warm-up", "seen where there is none", name, hits, 4 * trials, at_most=bound)
    for name, shape in WARM_UPS.items():
        for n in (6, 12, 24):
            rows = normal(0.01)(source("warm", name, n), (trials, n)) + shape(numpy.arange(n))
            counts = [count_warmups(row) for row in rows.tolist()]
            hits = sum(count > 0 for count in counts)
            yield Row(
                "warm-up",
                f"seen in {n} repetitions",
                f"{name}, normal, 1 %",
                hits,
                trials,
                typical=f"mean {numpy.mean(counts):.1f} left out",
            )


def simulate_compare(trials: int) -> Iterator[Row]:
    """compare: false alarms, coverage of the ratio, power."""
    sizes = ((4, 4), (6, 6), (10, 10), (6, 24))
    names = (
        "normal, 2 %",
        "skewed (log-normal)",
        "heavy tails (t, 2 degrees)",
        "spikes in 10 %",
        "two states, 60 : 40",
    )
    for name in names:
        chance, alarms, hits = source("compare", name), 0, 0
        for n_a, n_b in sizes:
            for _ in range(trials):
                found = compare_samples(NOISES[name](chance, (n_a,)).tolist(), NOISES[name](chance, (n_b,)).tolist())
                alarms += found.p is not None and found.p <= 0.05
                hits += (
                    found.ratio is not None
                    and found.ratio.low is not None
                    and found.ratio.low <= 1 <= (found.ratio.high or 0)
                )
        n = trials * len(sizes)
        yield Row("compare", "equal, called different", name, alarms, n, at_most=0.05, figure="false_alarms.compare")
        yield Row("compare", "interval holds the ratio", name, hits, n, at_least=0.95, figure="coverage.ratio_interval")
    for name, deviation, n in (
        ("3 % apart", 0.01, 6),
        ("3 % apart", 0.02, 10),
        ("3 % apart", 0.02, 30),
        ("1 % apart", 0.01, 30),
    ):
        yield _compare_pairs(
            f"{name}, {n} and {n}",
            "different, called so",
            normal(deviation),
            normal(deviation),
            n,
            n,
            trials,
            1 + float(name[0]) / 100,
        )
    for n_a, n_b in ((6, 30), (30, 6), (10, 10)):
        yield _compare_pairs(
            f"normal, {n_a} of 2 %, {n_b} of 6 %",
            "equal, called different",
            normal(0.02),
            normal(0.06),
            n_a,
            n_b,
            trials,
        )
    for name in (*names, "normal, 0.5 %", "two states, 70 : 30"):
        chance, alarms, hits = source("both", name), 0, 0
        for _ in range(trials):
            a, b = (repeat(NOISES[name](chance, (2 * MOST_REPETITIONS,)).tolist())[0] for _ in range(2))
            found = compare_samples(a, b, has_looked=True)
            alarms += found.p is not None and found.p <= 0.05
            assert found.ratio is not None
            hits += (found.ratio.low or 0) <= 1 <= (found.ratio.high or 0)
        about = f"both -r auto, {name}"
        yield Row(
            "compare", "equal, called different", about, alarms, trials, at_most=0.05, figure="false_alarms.compare"
        )
        yield Row(
            "compare", "interval holds the ratio", about, hits, trials, at_least=0.95, figure="coverage.ratio_interval"
        )


def _compare_pairs(name: str, about: str, a: Draw, b: Draw, n_a: int, n_b: int, trials: int, ratio: float = 1) -> Row:
    chance, hits = source("pairs", name), 0
    for _ in range(trials):
        found = compare_samples(a(chance, (n_a,)).tolist(), (ratio * b(chance, (n_b,))).tolist())
        hits += found.p is not None and found.p <= 0.05
    return Row("compare", about, name, hits, trials)


def either_way(draw: Draw) -> Draw:
    """What lies beyond 1, to either side: which block of a pair comes first is drawn."""
    return lambda chance, shape: 1 + chance.choice((-1, 1), shape) * (draw(chance, shape) - 1)


#: What the ratios of pairs of blocks differ by, beside the true one.
PAIR_NOISES: dict[str, Draw] = {
    "normal, 1 %": normal(0.01),
    "normal, 2 %": normal(0.02),
    "normal, 5 %": normal(0.05),
    "heavy tails (t, 2 degrees)": heavy(0.008),
    "skewed, order drawn": either_way(lambda chance, shape: 1 + 0.01 * chance.exponential(1, shape)),
    "drift of 0.2 % a block, order drawn": either_way(
        lambda chance, shape: 1.002 + 0.01 * chance.standard_normal(shape)
    ),
    "autocorrelated, 0.5": autocorrelated(0.01),
}


def simulate_sequential(trials: int) -> Iterator[Row]:
    """ab: false alarms, false all-clears, power, pairs needed. The margin is 1 %."""
    for name, draw in PAIR_NOISES.items():
        is_promised = not name.startswith("auto")
        found, missed, pairs = _run_tests(draw, 1.0, trials)
        wrong = found[Decision.FASTER] + found[Decision.SLOWER]
        told = f"median {median(pairs):.0f} pairs; no difference in {found[Decision.NO_DIFFERENCE] / trials:.0%}"
        bound, figure = (0.05, "false_alarms.sequential") if is_promised else (None, None)
        yield Row("ab", "equal, called different", name, wrong, trials, at_most=bound, typical=told, figure=figure)
        yield Row("ab", "an interval at any look misses", name, missed, trials, at_most=bound)
    for name, draw in PAIR_NOISES.items():
        is_promised = not name.startswith("auto")
        for ratio in (1.01, 1.03):
            if name == "normal, 5 %" and ratio < 1.02:
                continue  # takes hundreds of pairs; said in docs/trust.md
            found, _, pairs = _run_tests(draw, ratio, trials)
            told = f"median {median(pairs):.0f}, mean {numpy.mean(pairs):.0f} pairs"
            goal = (0.6 if ratio < 1.02 else 0.9) if is_promised else None
            yield Row(
                "ab",
                f"{ratio - 1:.0%} slower, called so",
                name,
                found[Decision.SLOWER],
                trials,
                at_least=goal,
                typical=told,
            )
            if ratio < 1.02:
                bound = 0.05 if is_promised else None
                yield Row(
                    "ab", "1 % slower, called no difference", name, found[Decision.NO_DIFFERENCE], trials, at_most=bound
                )


def _run_tests(draw: Draw, ratio: float, trials: int) -> tuple[collections.Counter[Decision], int, list[int]]:
    """Decisions, how many tests had an interval that missed, and the pairs that each took."""
    chance, found, missed, pairs = source("ab", ratio, trials), collections.Counter[Decision](), 0, list[int]()
    for _ in range(trials):
        test, has_missed, seen = SequentialTest(0.01), False, None
        for value in numpy.log(ratio * draw(chance, (320,))).tolist():
            test.add(value)
            if test.ratio is not seen:
                seen = test.ratio
                has_missed |= seen is not None and seen.low is not None and not seen.low <= ratio <= (seen.high or 0)
            if test.is_over:
                break
        found[test.decision] += 1
        missed += has_missed
        pairs.append(len(test.log_ratios))
    return found, missed, pairs


def simulate_changes(trials: int) -> Iterator[Row]:
    """history: false alarms in steady series, and steps that are found where they are."""
    # Only ranks count, and those of all independent noises are alike: one promise for all of them together.
    steady = {
        name: NOISES[name] for name in ("normal, 2 %", "skewed (log-normal)", "spikes in 10 %", "two states, 60 : 40")
    }
    alarms = 0
    for name, draw in {**steady, "autocorrelated, 0.5": autocorrelated(0.01)}.items():
        series = (row for n in (12, 20, 40) for row in draw(source("history", name, n), (trials, n)).tolist())
        hits = sum(find_change_points(row) != [] for row in series)
        alarms += hits if name in steady else 0
        yield Row("history", "steady, called changed", name, hits, 3 * trials)
    n = 3 * trials * len(steady)
    yield Row(
        "history",
        "steady, called changed",
        "the first four",
        alarms,
        n,
        at_most=0.05,
        figure="false_alarms.change_points",
    )
    for about, sizes, levels, goal in (
        ("5 % from the 11th of 20", (10, 10), (1, 1.05), 0.9),
        ("2 % from the 11th of 20", (10, 10), (1, 1.02), None),
        ("5 % in the last 3 of 20", (17, 3), (1, 1.05), None),
        ("5 % for 10 of 30, then back", (10, 10, 10), (1, 1.05, 1), 0.9),
        ("5 % for 6 of 86, then back", (40, 6, 40), (1, 1.05, 1), None),
    ):
        level = numpy.repeat(levels, sizes)
        places = numpy.cumsum(sizes)[:-1].tolist()
        rows = (level * normal(0.01)(source("steps", about), (trials, len(level)))).tolist()
        answers = [find_change_points(row) for row in rows]
        near = sum(all(any(abs(one - place) <= 1 for one in answer) for place in places) for answer in answers)
        more = sum(len(answer) > len(places) for answer in answers)
        yield Row(
            "history",
            "found within one record",
            f"{about}, normal, 1 %",
            near,
            trials,
            at_least=goal,
            typical=f"more than that in {more / trials:.0%}",
        )


def summarize(rows: Iterable[Row]) -> dict[str, Figure]:
    """The figures of the table of proofs: of each, that of the noise with which it is worst."""
    figures: dict[str, Figure] = {}
    for row in rows:
        if row.figure is None:
            continue
        share, worst = share_of(row.hits, row.n), figures.get(row.figure)
        if worst is None or (share.value > worst.value if row.at_most is not None else share.value < worst.value):
            figures[row.figure] = share
    return figures


def write_table(rows: Sequence[Row]) -> str:
    """All rows as Markdown."""
    lines = [
        "| part | what | noise | share | 95 % | draws | promised | met | |",
        "|---|---|---|--:|---|--:|---|---|---|",
    ]
    for row in rows:
        share = share_of(row.hits, row.n)
        bound = (
            f"≤ {row.at_most:.0%}"
            if row.at_most is not None
            else f"≥ {row.at_least:.0%}"
            if row.at_least is not None
            else ""
        )
        met = {True: "yes", False: "no", None: ""}[row.is_met]
        lines.append(
            f"| {row.part} | {row.about} | {row.noise} | {share.value:.2%} | {share.low:.2%} – {share.high:.2%} | {row.n:,} "
            f"| {bound} | {met} | {row.typical} |"
        )
    return "\n".join(lines) + "\n"


#: Each part, and how many draws a row of it takes.
PARTS: tuple[tuple[Callable[[int], Iterator[Row]], int], ...] = (
    (simulate_fixed, 20_000), (simulate_stopping, 40_000), (simulate_whole, 3_000), (simulate_warm_ups, 2_000),
    (simulate_compare, 2_000), (simulate_sequential, 1_000), (simulate_changes, 1_000),
)  # fmt: skip


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="A twentieth of the draws, and nothing is kept.")
@click.option("--out", type=click.Path(path_type=pathlib.Path), help="Folder for simulation.md and simulation.json.")
def main(quick: bool, out: pathlib.Path | None) -> None:
    rows = [row for part, trials in PARTS for row in part(trials // 20 if quick else trials)]
    table = write_table(rows)
    click.echo(table)
    folder = out or (None if quick else FOLDER)
    if folder is not None:
        path = keep("simulation", summarize(rows), [asdict(row) for row in rows], folder=folder)
        path.with_suffix(".md").write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
