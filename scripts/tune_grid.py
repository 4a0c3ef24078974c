"""Hold `harness tune` against the full grid of the same settings, and on a simulated card against every placement.

python scripts/tune_grid.py [--only MODEL …] [--grid-time 110] [--out bench_results/tune]      three models, about 10 minutes
python scripts/tune_grid.py --simulated [--seeds 10] [--time 300]                             an 8 GB card, a minute
python scripts/tune_grid.py --show                                                            what is printed for such a card

A model's grid is every combination of the values that `harness tune` itself would race here (its factors, laid out at the defaults),
measured by the same short tests: prompts over the settings that prompts depend on, tokens over those of tokens, in rounds through all
cells in random order, as many as the time allows and at least one; the first few by their medians are measured once more. The search
is then given less than a quarter of the time that the grid took. At the end the defaults, the search's pick and the grid's best are
measured in turn, so that the figures do not rest on the least of many noisy medians; ratios are intervals of paired differences
(`harness.evidence.sequential`).

On the simulated card costs come from bytes and bandwidths (`harness.speed.placed`), with scatter and drift on each measurement. Every
pair of -ngl and -ncmoe that fits is priced without noise, and the search's pick is held against the cheapest. Each seed is another
machine: its bandwidths and arithmetic are drawn, and from the second on what other programs have taken of the card.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import math
import pathlib
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from harness.errors import HarnessError
from harness.events import ignore
from harness.evidence.sequential import SequentialTest
from harness.gguf.cost import cost_of_header
from harness.gguf.header import Header
from harness.gguf.settings import read_count
from harness.gguf.shapes import compute_header
from harness.host.cpu import choose_threads
from harness.host.telemetry import Station
from harness.memory.fit import CUDA_CONTEXT_BYTES, check_placement, estimate_compute_bytes
from harness.memory.forecast import device_rules
from harness.records.cells import Device, Sample
from harness.records.tuning import Part, Quality, ShortTests, TuneRecord, Work, replay_confirmation, short_test, work_ns
from harness.runs.asking import find_file, read_for
from harness.runs.cells import facts_in, plan_in
from harness.runs.devices import survey_devices
from harness.runs.session import Session
from harness.runs.tune import Bench, Question, TuneRequest, _Engine, make_room, plan_work, tune
from harness.runs.tune_races import BlockFailed, Tuner
from harness.runs.tune_space import Room, choose_base, lay_out, list_factors
from harness.sources.user_catalog import load_catalog
from harness.spec import RunSpec, find_varied
from harness.speed.placed import CardAndHost, PlacedModel
from harness.units import GIB, NS_PER_S
from harness.views.formats import render
from harness.views.tune import describe_tuning, gain_of

ROOT = pathlib.Path(__file__).parent.parent
MODELS = ("smollm2:135m", "synth:qwen3:0.6b:q8_0", "synth:llama3.2:1b:q4_0")

#: The search's share of the grid's time: below the quarter that it may take, as it may go on a little for what it has begun.
SHARE = 0.17

#: Turns of the comparison at the end, and the least that its interval needs.
MOST_TURNS, LEAST_TURNS = 24, 8

#: Of the grid so many of the best are measured once more, so often.
FINALISTS, FINAL_TURNS = 6, 4


# --- the grid ----------------------------------------------------------------------------------------------------------


def list_axes(room: Room, base: RunSpec) -> list[tuple[frozenset[Part], list[dict[str, Any]]]]:
    """What each factor of the search may be here: (the parts it acts on, its values as fields of `RunSpec`, the defaults' first)."""
    axes = []
    for factor in list_factors():
        laid = lay_out(factor, room, base, Quality.KEEP)
        if len(laid.candidates) > 1:
            axes.append(
                (factor.parts, [{name: getattr(spec, name) for name in factor.settings} for spec in laid.candidates])
            )
    return axes


def combine(axes: Sequence[tuple[frozenset[Part], list[dict[str, Any]]]], base: RunSpec, part: Part) -> list[RunSpec]:
    """Every combination that can tell apart what one part takes; contradictions are left out."""
    cells: dict[RunSpec, RunSpec] = {}
    for settings in itertools.product(*(values for parts, values in axes if part in parts)):
        with contextlib.suppress(HarnessError):
            spec = dataclasses.replace(base, **{name: value for values in settings for name, value in values.items()})
            cells.setdefault(_cell(spec, part), spec)
    return list(cells.values())


def _cell(spec: RunSpec, part: Part) -> RunSpec:
    """What a part's test depends on: a prompt's threads are n_threads_batch's, and a token's n_threads'."""
    if part is Part.PROMPT:
        return dataclasses.replace(spec, n_threads=spec.n_threads_of_batch, n_threads_batch=None)
    return dataclasses.replace(spec, n_threads_batch=None, n_ubatch=512, n_batch=2048)


def measure_grid(
    engine: _Engine, cells: Sequence[tuple[Part, RunSpec]], tests: ShortTests, limit_s: float, chance: random.Random
) -> tuple[dict[tuple[Part, RunSpec], list[float]], int, float]:
    """(durations in s of each cell by its rounds, rounds, seconds in all). In a round cells that share a load follow each other."""
    found: dict[tuple[Part, RunSpec], list[float]] = defaultdict(list)
    failed: set[tuple[Part, RunSpec]] = set()
    begun_s, n_rounds, round_s = time.monotonic(), 0, 0.0
    while not n_rounds or time.monotonic() - begun_s + round_s < limit_s:
        started_s = time.monotonic()
        loads = list({spec.load_key() for _, spec in cells})
        chance.shuffle(loads)
        for load in loads:
            same = [cell for cell in cells if cell[1].load_key() == load and cell not in failed]
            for cell in chance.sample(same, len(same)):
                try:
                    samples = engine.measure_block(short_test(cell[1], cell[0], tests))
                except BlockFailed:
                    failed.add(cell)
                    continue
                found[cell] += [sample.duration_ns / NS_PER_S for sample in samples if not sample.is_warmup]
        n_rounds, round_s = n_rounds + 1, time.monotonic() - started_s
    return found, n_rounds, time.monotonic() - begun_s


def rank_grid(
    axes: Sequence[tuple[frozenset[Part], list[dict[str, Any]]]], base: RunSpec, found: dict[tuple[Part, RunSpec], list[float]],
    work: Work, tests: ShortTests,
) -> list[RunSpec]:  # fmt: skip
    """The combinations of all axes, by what their parts together took, the medians of their cells."""
    costs = {
        cell: work_ns([round(1e9 * value) for value in values], cell[0], work, tests) for cell, values in found.items()
    }
    by_cell = {part: {_cell(spec, part): cost for (kind, spec), cost in costs.items() if kind is part} for part in Part}
    ranked = {}
    for settings in itertools.product(*(values for _, values in axes)):
        with contextlib.suppress(HarnessError):
            spec = dataclasses.replace(base, **{name: value for values in settings for name, value in values.items()})
            ranked[spec] = sum(by_cell[part].get(_cell(spec, part), math.inf) for part in Part)
    return sorted(ranked, key=lambda spec: ranked[spec])


def find_best(
    engine: _Engine, ranked: Sequence[RunSpec], work: Work, tests: ShortTests, chance: random.Random
) -> RunSpec:
    """The best of a grid: its first few measured once more, since the least of many noisy figures is mostly luck."""
    arms = {str(place): spec for place, spec in enumerate(ranked[:FINALISTS])}
    costs = compare(engine, arms, work, tests, 0.0, chance, FINAL_TURNS)
    return arms[min(costs, key=lambda name: statistics.median(costs[name]))]


def compare(
    engine: _Engine,
    arms: dict[str, RunSpec],
    work: Work,
    tests: ShortTests,
    limit_s: float,
    chance: random.Random,
    least_turns: int = LEAST_TURNS,
) -> dict[str, list[float]]:
    """The work's time in s of each arm, by turns in random order."""
    costs: dict[str, list[float]] = {name: [] for name in arms}
    begun_s = time.monotonic()
    while min(map(len, costs.values())) < MOST_TURNS:
        if min(map(len, costs.values())) >= least_turns and time.monotonic() - begun_s > limit_s:
            break
        for name in chance.sample(sorted(arms), len(arms)):
            parts = {part: engine.measure_block(short_test(arms[name], part, tests, 2)) for part in Part}
            seconds = {part: [s.duration_ns for s in samples if not s.is_warmup] for part, samples in parts.items()}
            costs[name].append(sum(work_ns(values, part, work, tests) for part, values in seconds.items()) / NS_PER_S)
    return costs


def judge_ratio(one: Sequence[float], other: Sequence[float]) -> dict[str, float | int | None]:
    """one's time over the other's, with its interval, by pairs of the same turn."""
    test = SequentialTest(margin=1e-6)
    test.replay((math.log(a / b) for a, b in zip(one, other, strict=True)), is_last=True)
    ratio = test.ratio
    assert ratio is not None
    return {"ratio": ratio.value, "low": ratio.low, "high": ratio.high, "pairs": len(test.log_ratios)}


def list_changes(spec: RunSpec, base: RunSpec) -> dict[str, Any]:
    """The settings that differ."""
    return {name: getattr(spec, name) for name in find_varied((base, spec))}


def run_model(reference: str, grid_s: float, seed: int) -> dict[str, Any]:
    """The grid, the search, and the comparison for one model."""
    path = str(find_file(None if reference == MODELS[0] else reference, ignore))
    chance = random.Random(seed)
    with Session("tune") as session, contextlib.closing(Station()) as station:
        header = read_for(path, Question.MEASURE)
        work = plan_work("chat", None, read_count(header, "context_length"))
        request = TuneRequest(path, goes_on_anyway=True, seed=seed, max_time_s=SHARE * grid_s)
        asked = RunSpec(path, n_prompt=work.n_prompt, n_gen=work.n_gen, n_depth=work.n_depth, seed=seed)
        asked = asked.with_threads(choose_threads().count)
        room = make_room(request, header, survey_devices(()), asked, work.n_ctx)
        base = choose_base(asked, room)
        assert base is not None, "the model does not fit"
        facts = facts_in(session)(pathlib.Path(path))
        with contextlib.closing(_Engine(Bench(plan_in(session, station, None)), facts, None)) as engine:
            tests = find_tests(engine, base, work, room, SHARE * grid_s)
            axes = list_axes(dataclasses.replace(room, longest_prompt=tests.n_prompt), base)
            cells = [(part, spec) for part in Part for spec in combine(axes, base, part)]
            tell(f"{reference}: {math.prod(len(values) for _, values in axes)} combinations, {len(cells)} cells")
            found, n_rounds, took_s = measure_grid(engine, cells, tests, grid_s, chance)
            begun_s = time.monotonic()
            best = find_best(engine, rank_grid(axes, base, found, work, tests), work, tests, chance)
            took_s += time.monotonic() - begun_s
        tell(f"{reference}: grid of {n_rounds} rounds in {took_s:.0f} s; best {list_changes(best, base)}")
        record = tune(dataclasses.replace(request, max_time_s=SHARE * took_s), session)
        assert record is not None
        pick = record.chosen
        tell(f"{reference}: searched for {record.elapsed_ns / NS_PER_S:.0f} s; found {list_changes(pick, base)}")
        with contextlib.closing(_Engine(Bench(plan_in(session, station, None)), facts, None)) as engine:
            costs = compare(engine, {"defaults": base, "pick": pick, "grid": best}, work, tests, 0.3 * took_s, chance)
    return {
        "model": reference, "seed": seed, "work": dataclasses.asdict(work), "tests": dataclasses.asdict(tests),
        "combinations": math.prod(len(values) for _, values in axes), "cells": len(cells), "rounds": n_rounds,
        "grid_s": took_s, "tune_s": record.elapsed_ns / NS_PER_S, "time_share": record.elapsed_ns / NS_PER_S / took_s,
        "pick": list_changes(pick, base), "found": list_changes(record.found, base), "grid_best": list_changes(best, base),
        "told_gain": _told_gain(record), "gain": judge_ratio(costs["defaults"], costs["pick"]),
        "room": judge_ratio(costs["defaults"], costs["grid"]), "pick_over_best": judge_ratio(costs["pick"], costs["grid"]),
        "costs_s": costs,
    }  # fmt: skip


def find_tests(engine: _Engine, base: RunSpec, work: Work, room: Room, max_time_s: float) -> ShortTests:
    """The short tests that the search would cut for so much time, with the prompts that tell how they are cut into batches."""
    tuner = Tuner(base, work, room, engine, time.monotonic, list_factors(), max_time_s=max_time_s)
    tuner._find_tests()
    assert tuner.long_tests is not None
    return tuner.long_tests


def _told_gain(record: TuneRecord) -> dict[str, float | None] | None:
    gain = gain_of(replay_confirmation(record).ratio)
    return {"gain": gain.value, "low": gain.low, "high": gain.high} if gain and gain.ends else None


# --- the simulated card -------------------------------------------------------------------------------------------------

#: A card as the RTX 3070 (published: 448 GB/s, 20 TFLOPS) on PCIe 4.0 x16, in a host with 8 cores and two channels of DDR5; and by how
#: much the card, the host and the bus of a seed may be slower or faster (as exponents of e).
CARD = CardAndHost(448e9, 20e12, 60e9, 0.6e12, 24e9, 15e-6, n_cores=8, n_threads_full=5)
SPREAD = 0.5

#: What other programs may have taken of the card.
MOST_TAKEN_BYTES = 2 * GIB

#: What a load takes: reading the card's part of a file that the system has in memory.
LOAD_S = 6.0
CARD_MODEL, CARD_QUANTIZATION, CARD_CTX = "qwen3:30b", "Q4_K_M", 8192


class SimulatedCard:
    """Has blocks measured by the model of costs: each repetition scatters, and all drift slowly."""

    def __init__(self, model: PlacedModel, seed: int, scatter: float = 0.01) -> None:
        self.now_s, self.n_blocks = 0.0, 0
        self._model, self._scatter, self._chance = model, scatter, random.Random(seed)
        self._loaded: object = None

    def clock(self) -> float:
        return self.now_s

    def measure_block(self, spec: RunSpec) -> Sequence[Sample]:
        """The repetitions of one cell, on a clock of its own; a load takes reading the file."""
        self.n_blocks += 1
        if self._loaded != spec.load_key():
            self._loaded, self.now_s = spec.load_key(), self.now_s + LOAD_S
        samples = []
        for number in range(1 + (spec.repetitions or 1)):
            token_s = price_token(self._model, spec)
            took_s = (
                token_s
                * spec.n_tokens
                * (1 + 0.02 * math.sin(self.now_s / 40))
                * math.exp(self._chance.gauss(0, self._scatter))
            )
            self.now_s += took_s + 0.01
            samples.append(Sample(max(round(took_s * NS_PER_S), 1), None, (), is_warmup=number == 0))
        return samples


def price_token(model: PlacedModel, spec: RunSpec) -> float:
    """Seconds of a token of a test, without noise."""
    return (
        model.token_s(spec, spec.n_depth)
        if spec.n_gen and not spec.n_prompt
        else model.prompt_token_s(spec, spec.n_prompt)
    )


def price_work(model: PlacedModel, spec: RunSpec, work: Work) -> float:
    """Seconds of the whole work, without noise."""
    return work.n_prompt * model.prompt_token_s(spec, work.n_prompt) + work.n_gen * model.token_s(spec, work.n_depth)


def make_card_room(header: Header, taken_bytes: int) -> Room:
    """What an 8 GB card of which others have taken something leaves to choose, with a host that holds the whole model."""
    free = 8 * GIB - CUDA_CONTEXT_BYTES - taken_bytes
    card = Device("CUDA0", "a simulated card", "gpu", free, 8 * GIB)
    rules = [device_rules(card.name, card.kind, free, 8 * GIB)]
    cost, tokens = cost_of_header(header, "", ""), CARD_CTX - 2

    @functools.cache
    def fits(spec: RunSpec) -> bool:
        whole = dataclasses.replace(spec, n_prompt=1, n_gen=1, n_depth=tokens)
        computed = round(estimate_compute_bytes(cost, CARD_CTX, header) * max(1.0, spec.n_ubatch / 512))
        return check_placement(header, whole, rules, {card.name: computed}).fits

    n_layers = cost.n_layers + 1
    return Room(8, 16, n_layers, tuple(range(0, 16, 2)), 1, (card,), has_experts=True, has_openmp=True, fits=fits)


def simulate(seeds: Iterable[int], max_time_s: float) -> Iterator[dict[str, Any]]:
    """A search for each seed, held against every placement that fits."""
    shape = load_catalog().find(CARD_MODEL).shape
    assert shape is not None
    header = compute_header(shape, CARD_QUANTIZATION, CARD_MODEL)
    work = plan_work("chat", CARD_CTX, None)
    asked = RunSpec(CARD_MODEL, n_prompt=work.n_prompt, n_gen=work.n_gen, n_depth=work.n_depth, n_threads=8)
    for seed in seeds:
        chance = random.Random(seed)
        model = PlacedModel(header, draw_card(chance))
        room = make_card_room(header, round(chance.uniform(0, MOST_TAKEN_BYTES)) if seed else 0)
        base = choose_base(asked, room)
        assert base is not None
        machine = SimulatedCard(model, seed)
        tuner = Tuner(base, work, room, machine, machine.clock, list_factors(), max_time_s=max_time_s, seed=seed)
        tuner.run()
        record = record_of(tuner, work)
        found = record.chosen
        placements = [
            dataclasses.replace(found, n_gpu_layers=layers, n_cpu_moe=kept)
            for layers, kept in itertools.product(range(room.n_layers + 1), range(room.n_layers))
        ]
        fitting = [spec for spec in placements if room.fits(spec)]
        best = min(fitting, key=lambda spec: price_work(model, spec, work))
        seconds = {
            name: price_work(model, spec, work) for name, spec in (("base", base), ("pick", found), ("best", best))
        }
        yield {
            "seed": seed, "machine": dataclasses.asdict(model.machine),
            "simulated_s": machine.now_s, "blocks": machine.n_blocks, "stop": tuner.stop.value, "seconds": seconds,
            "gain": seconds["base"] / seconds["pick"], "pick_over_best": seconds["pick"] / seconds["best"],
            "defaults": {"n_gpu_layers": base.n_gpu_layers, "n_cpu_moe": base.n_cpu_moe}, "pick": list_changes(found, base),
            "best": {"n_gpu_layers": best.n_gpu_layers, "n_cpu_moe": best.n_cpu_moe}, "placements": len(fitting),
            "text": render(describe_tuning(record), "table"),
        }  # fmt: skip


def draw_card(chance: random.Random) -> CardAndHost:
    """A machine like `CARD`, with other bandwidths and arithmetic."""
    names = ("card_bytes_per_s", "card_flops", "host_bytes_per_s", "host_flops", "bus_bytes_per_s", "crossing_s")
    return dataclasses.replace(
        CARD, **{name: getattr(CARD, name) * math.exp(chance.uniform(-SPREAD, SPREAD)) for name in names}
    )


def record_of(tuner: Tuner, work: Work) -> TuneRecord:
    """The record of a search on a machine that is not there."""
    from harness.host.machine import describe_machine
    from harness.records.journal import utc_now

    return tuner.fill(TuneRecord("tune", utc_now(), describe_machine(), "", tuner.base, work))


# --- the command --------------------------------------------------------------------------------------------------------


def tell(text: str) -> None:
    """Say how it goes."""
    print(text, file=sys.stderr, flush=True)


def show_row(row: dict[str, Any]) -> str:
    """A model's figures in a line."""
    spans = {
        name: "{ratio:.3f} [{low:.3f}, {high:.3f}]".format(**row[name]) for name in ("gain", "room", "pick_over_best")
    }
    return (
        f"{row['model']}: gain {spans['gain']}, room {spans['room']}, pick over the grid's best {spans['pick_over_best']}, "
        f"{row['time_share']:.0%} of the grid's time ({row['tune_s']:.0f} of {row['grid_s']:.0f} s)"
    )


def write_table(folder: pathlib.Path) -> str:
    """The kept figures of the models as Markdown."""
    lines = [
        "| model | room: the grid's best over the defaults | gain of the search's pick | the pick's time over the best's | time |",
        "|---|---|---|---|---|",
    ]
    for model in MODELS:
        path = _place_of(folder, model)
        if path.exists():
            row = json.loads(path.read_text(encoding="utf-8"))
            spans = [
                "{ratio:.3f} [{low:.3f}, {high:.3f}]".format(**row[name]) for name in ("room", "gain", "pick_over_best")
            ]
            lines.append(f"| {model} | {' | '.join(spans)} | {row['tune_s']:.0f} of {row['grid_s']:.0f} s |")
    return "\n".join(lines)


def _place_of(folder: pathlib.Path, model: str) -> pathlib.Path:
    return folder / f"{model.replace(':', '-').replace('.', '_')}.json"


def main() -> None:
    """Measure or simulate, and keep what was found as it goes."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--only", action="append", choices=MODELS, default=None)
    arguments.add_argument("--grid-time", type=float, default=110.0, dest="grid_s")
    arguments.add_argument("--simulated", action="store_true")
    arguments.add_argument("--table", action="store_true", help="write the kept figures of the models as Markdown")
    arguments.add_argument("--show", action="store_true", help="what harness tune would print, for the first seed")
    arguments.add_argument("--seeds", type=int, default=10)
    arguments.add_argument("--time", type=float, default=300.0, dest="time_s")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--out", type=pathlib.Path, default=ROOT / "bench_results" / "tune")
    asked = arguments.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.table:
        print(write_table(asked.out))
        return
    if asked.show:
        print(next(simulate([asked.seed], asked.time_s))["text"])
        return
    if asked.simulated:
        rows = [
            {name: value for name, value in row.items() if name != "text"}
            for row in simulate(range(asked.seeds), asked.time_s)
        ]
        facts = {
            "model": CARD_MODEL,
            "quantization": CARD_QUANTIZATION,
            "n_ctx": CARD_CTX,
            "time_s": asked.time_s,
            "load_s": LOAD_S,
        }
        keep(asked.out / "simulated.json", {"is_simulated": True, **facts, "rows": rows})
        for row in rows:
            print(f"seed {row['seed']}: {row['pick']} of {row['placements']} placements; best {row['best']}; "
                  f"pick over best {row['pick_over_best']:.3f}, gain {row['gain']:.2f}, {row['simulated_s']:.0f} s")  # fmt: skip
        worst, gain = max(row["pick_over_best"] for row in rows), statistics.median(row["gain"] for row in rows)
        print(f"pick over best: {worst:.3f} at the worst; gain: {gain:.2f} in the median")
        return
    for model in asked.only or MODELS:
        row = run_model(model, asked.grid_s, asked.seed)
        keep(_place_of(asked.out, model), row)
        print(show_row(row), flush=True)


def keep(path: pathlib.Path, values: dict[str, Any]) -> None:
    """Put figures into a file."""
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
