"""Costs by placement, and a search on a simulated card: what lies where decides, and the search finds the best place there is."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random

import pytest

from harness.catalog import Shape
from harness.gguf.shapes import compute_header
from harness.memory.fit import check_placement
from harness.memory.forecast import device_rules
from harness.records.cells import Device, Sample
from harness.records.tuning import Work
from harness.runs.tune_races import Tuner
from harness.runs.tune_space import Room, choose_base, list_factors
from harness.spec import RunSpec
from harness.speed.placed import CardAndHost, PlacedModel
from harness.units import NS_PER_S

#: A hundredth of a card of 8 GB and its host, for a model that is as much smaller than those people run there.
MACHINE = CardAndHost(4.48e9, 0.2e12, 0.5e9, 6e9, 0.24e9, 15e-6, n_cores=8, n_threads_full=5)
SHAPE = Shape(
    architecture="qwen3moe", block_count=6, embedding_length=512, feed_forward_length=256, head_count=8, head_count_kv=2, head_dim=64,
    vocab_size=4096, context_length=4096, tied_embeddings=False, rope_freq_base=1e6, rms_norm_eps=1e-6, expert_count=32,
    expert_used_count=4,
)  # fmt: skip
HEADER = compute_header(SHAPE, "Q4_0", "small")
MODEL = PlacedModel(HEADER, MACHINE)
WORK = Work("chat", 512, 256, 1024, 4096)


def spec_of(**settings) -> RunSpec:
    return RunSpec("m.gguf", n_prompt=512, n_gen=256, n_depth=1024, **{"n_threads": 8, **settings})


def work_s(spec: RunSpec) -> float:
    return WORK.n_prompt * MODEL.prompt_token_s(spec, WORK.n_prompt) + WORK.n_gen * MODEL.token_s(spec, WORK.n_depth)


# ---- the costs -------------------------------------------------------------------------------------------------------


def test_a_token_takes_what_reading_its_weights_takes():
    """On one device it is bytes over bandwidth."""
    read_bytes = MODEL._cost.bytes_per_token(0)
    assert MODEL.token_s(spec_of(n_gpu_layers=0), 0) == pytest.approx(read_bytes / 0.5e9)
    assert MODEL.token_s(spec_of(), 0) == pytest.approx(read_bytes / 4.48e9 + 2 * 15e-6)


def test_fewer_threads_than_take_the_bandwidth_are_slower_and_too_many_too():
    times = [MODEL.token_s(spec_of(n_gpu_layers=0, n_threads=count), 0) for count in (1, 4, 5, 8, 16)]
    assert times[0] > times[1] > times[2] == times[3] < times[4]


def test_experts_on_the_host_cost_their_bytes_and_two_crossings_a_layer():
    whole, kept = spec_of(), spec_of(n_cpu_moe=2)
    moved = sum(
        read for _, layer, is_experts, read, _ in MODEL._weights if is_experts and layer is not None and layer < 2
    )
    slower = MODEL.token_s(kept, 0) - MODEL.token_s(whole, 0)
    assert slower == pytest.approx(moved / 0.5e9 - moved / 4.48e9 + 2 * 2 * 15e-6)
    same = spec_of(override_tensors=(r"blk\.(0|1)\.ffn_.*_exps=CPU",))
    assert MODEL.token_s(same, 0) == MODEL.token_s(kept, 0)


def test_the_first_sign_divides_a_pattern_from_its_buffer():
    kept = spec_of(n_cpu_moe=2)
    named = spec_of(n_cpu_moe=2, override_tensors=("exps=CUDA0=CPU",))
    assert MODEL.token_s(named, 0) == MODEL.token_s(spec_of(), 0) < MODEL.token_s(kept, 0)


def test_a_large_batch_brings_the_hosts_weights_to_the_card():
    small, large = spec_of(n_cpu_moe=6, n_ubatch=128), spec_of(n_cpu_moe=6, n_ubatch=512)
    assert MODEL.prompt_token_s(large, 512) < MODEL.prompt_token_s(small, 512)
    stays = spec_of(n_cpu_moe=6, n_ubatch=512, no_op_offload=True)
    assert MODEL.prompt_token_s(stays, 512) != MODEL.prompt_token_s(large, 512)


# ---- a search on it --------------------------------------------------------------------------------------------------


class SimulatedCard:
    """Has blocks measured by the model of costs, with scatter and a slow drift, on a clock of its own."""

    def __init__(self, seed: int) -> None:
        self.now_s, self._chance = 0.0, random.Random(seed)

    def clock(self) -> float:
        return self.now_s

    def measure_block(self, spec: RunSpec):
        samples = []
        for _ in range(spec.repetitions or 1):
            token_s = MODEL.token_s(spec, spec.n_depth) if spec.n_gen else MODEL.prompt_token_s(spec, spec.n_prompt)
            drift = 1 + 0.02 * math.sin(self.now_s / 30)
            took_s = token_s * spec.n_tokens * drift * math.exp(self._chance.gauss(0, 0.01))
            self.now_s += took_s + 0.05
            samples.append(Sample(round(took_s * NS_PER_S), None, (), is_warmup=False))
        return samples


def test_the_placement_that_is_found_is_within_three_percent_of_the_best():
    """Every placement that fits into a card of two thirds of the model is enumerated, and the search, which tries few, finds as good a
    one."""
    size = sum(tensor.size_bytes for tensor in HEADER.tensors)
    card = Device("CUDA0", "a card", "gpu", round(0.66 * size), size)
    rules = [device_rules(card.name, card.kind, card.memory_free_bytes, card.memory_total_bytes)]

    def fits(spec: RunSpec) -> bool:
        return check_placement(HEADER, dataclasses.replace(spec, n_prompt=1, n_gen=1, n_depth=1022), rules).fits

    room = Room(n_threads=8, n_cpus=16, n_layers=7, devices=(card,), has_experts=True, has_openmp=True, fits=fits)
    base = choose_base(spec_of(), room)
    assert base is not None
    machine = SimulatedCard(seed=3)
    tuner = Tuner(base, WORK, room, machine, machine.clock, list_factors())
    tuner.run()
    found = _found(tuner)
    others = [
        dataclasses.replace(found, n_gpu_layers=layers, n_cpu_moe=kept)
        for layers, kept in itertools.product(range(8), range(7))
    ]
    best = min((spec for spec in others if fits(spec)), key=work_s)
    assert work_s(found) <= 1.03 * work_s(best)
    assert work_s(base) > 1.1 * work_s(found)


def _found(tuner: Tuner) -> RunSpec:
    from .test_tune import record_of

    return record_of(tuner).found
