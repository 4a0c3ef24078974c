"""Offloading by arithmetic: what moves, what fits, and a search that must find the best of simulated machines from few counts."""

from __future__ import annotations

import random

import pytest

from harness.catalog import Shape
from harness.memory.fit import check_placement
from harness.memory.forecast import device_rules
from harness.sources.gguf_file import read_file_header
from harness.sources.synthetic import ensure_synthetic
from harness.spec import RunSpec
from harness.speed.offload import (
    Point,
    choose_next,
    clamp_counts,
    describe_blocks,
    estimate_total,
)
from harness.units import MIB


@pytest.fixture(scope="module")
def blocks(model):
    return describe_blocks(read_file_header(model))


@pytest.mark.parametrize(("count", "model_mib", "kv_mib"), [(10, 47.71, 3.38), (20, 68.85, 7.12), (30, 89.99, 10.88), (31, 92.10, 11.25)])  # fmt: skip
def test_bytes_move_as_llama_cpp_moves_them(blocks, count, model_mib, kv_mib):
    """The figures that llama.cpp's log gave for layers of the embedded model on one RPC device, with a context of 512 tokens."""
    spec = RunSpec("m", n_gpu_layers=count, n_gen=512)
    need = check_placement(blocks.header, spec, [device_rules("RPC0")]).needed_bytes["RPC0"]
    assert need / MIB == pytest.approx(model_mib + kv_mib, abs=0.02)
    on_host = check_placement(
        blocks.header, RunSpec("m", n_gpu_layers=count, n_gen=512, no_kv_offload=True), [device_rules("RPC0")]
    )
    assert on_host.needed_bytes["RPC0"] / MIB == pytest.approx(model_mib, abs=0.02)


def test_work_grows_from_nothing_to_everything(blocks):
    work = [blocks.work(count) for count in range(32)]
    assert work[0] == 0
    assert work[31] == pytest.approx(1)
    assert all(earlier < later for earlier, later in zip(work, work[1:], strict=False))
    assert work[1] > 5 * (work[2] - work[1]), "the output layer goes first, and it is large"


def test_what_cannot_fit_is_said_with_its_figures(blocks):
    devices = [device_rules("CUDA0", memory_bytes=50 * MIB)]
    assert check_placement(blocks.header, RunSpec("m", n_gpu_layers=0, n_gen=1), devices).fits
    assert check_placement(blocks.header, RunSpec("m", n_gpu_layers=8, n_gen=1), devices).fits
    fit = check_placement(blocks.header, RunSpec("m", n_gpu_layers=-1, n_gen=1), devices)
    assert not fit.fits
    assert fit.reason == "cannot fit on CUDA0: weights and cache need 98 MiB of 50 free"


def test_a_planned_compute_buffer_counts_where_layers_are(blocks):
    devices, compute = [device_rules("CUDA0", memory_bytes=100 * MIB)], {"CUDA0": 40 * MIB, "CPU": 9 * MIB}
    assert check_placement(blocks.header, RunSpec("m", n_gpu_layers=-1, n_gen=1), devices).fits, "98 MiB without it"
    fit = check_placement(blocks.header, RunSpec("m", n_gpu_layers=-1, n_gen=1), devices, compute)
    assert fit.reason == "cannot fit on CUDA0: weights, cache and compute buffer need 138 MiB of 100 free"
    assert check_placement(
        blocks.header, RunSpec("m", n_gpu_layers=0, n_gen=1), [device_rules("CUDA0", memory_bytes=MIB)], compute
    ).fits


def test_layers_are_split_by_share_or_by_free_memory(blocks):
    spec = RunSpec("m", n_gpu_layers=31, n_gen=1, tensor_split=(3.0, 1.0))
    by_share = check_placement(blocks.header, spec, [device_rules("A"), device_rules("B")]).needed_bytes
    assert by_share["A"] > by_share["B"] > 0
    by_memory = check_placement(
        blocks.header,
        RunSpec("m", n_gpu_layers=31, n_gen=1),
        [device_rules("A", memory_bytes=100 * MIB), device_rules("B", memory_bytes=300 * MIB)],
    ).needed_bytes
    assert by_memory["A"] < by_memory["B"]


def test_experts_that_stay_need_no_room(tmp_path):
    shape = Shape("llama", 2, 256, 512, 4, 2, 64, 320, 512, False, 1e4, expert_count=4, expert_used_count=2)
    moe = describe_blocks(read_file_header(ensure_synthetic(shape, "Q8_0", tmp_path, name="moe")))
    devices = [device_rules("RPC0")]

    def need(n_cpu_moe):
        spec = RunSpec("m", n_gen=1, n_cpu_moe=n_cpu_moe, no_kv_offload=True)
        return check_placement(moe.header, spec, devices).needed_bytes["RPC0"]

    assert need(0) - need(1) == moe.expert_bytes[0] > 0
    assert need(1) - need(2) == moe.expert_bytes[1]
    assert need(2) == need(9)


def test_counts_are_clamped_and_those_beyond_are_named():
    assert clamp_counts((0, 8, 40, 99, -1), 31) == ((0, 8, 31), (40, 99))


# The search, on machines that are made up: milliseconds a token over 32 layers and an output layer as large as eight.

N = 33
WORK = {n: (8 + n - 1) / 40 if n else 0.0 for n in range(N + 1)}

MACHINES = {
    "a fast card": lambda n: 100 - 85 * WORK[n],
    "a card that spills after 20 layers and gets ever slower": lambda n: (
        100 - 85 * WORK[min(n, 20)] + 6 * max(n - 20, 0)
    ),
    "a card that spills early": lambda n: 100 - 85 * WORK[min(n, 4)] + 6 * max(n - 4, 0),
    "a jump at the spill point, then on": lambda n: 100 - 60 * WORK[n] + (30 if n > 22 else 0),
    "a small jump": lambda n: 100 - 85 * WORK[n] + (12 if n > 25 else 0),
    "a network that is not worth crossing": lambda n: 10 + (2 + 0.3 * WORK[n] if n else 0),
    "no difference": lambda n: 10,
    "a slow device": lambda n: 100 + 50 * WORK[n],
    "a dear crossing and a fast device": lambda n: 100 - 80 * WORK[n] + (15 if n else 0),
}


def search(machine, seed, noise):
    """(best count, measured counts) of a search with timings that scatter."""
    chance, points = random.Random(seed), {}
    while True:
        choice = choose_next(list(points.values()), range(N + 1), WORK)
        if choice.next_count is None:
            return min(points.values(), key=lambda point: point.cost_s).n_gpu_layers, sorted(points)
        assert choice.next_count not in points, "nothing is measured twice"
        value = machine(choice.next_count) * chance.gauss(1, noise)
        points[choice.next_count] = Point(choice.next_count, value, max(noise, 0.01))


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize(("noise", "within"), [(0, 0.03), (0.005, 0.03), (0.01, 0.06)])
def test_the_best_of_any_machine_is_found_from_few_counts(name, noise, within):
    """Within 3 % of the best (twice that where single timings scatter by 1 %), in every one of 100 runs."""
    machine = MACHINES[name]
    best = min(map(machine, range(N + 1)))
    lengths = []
    for seed in range(100 if noise else 1):
        found, measured = search(machine, seed, noise)
        assert machine(found) <= (1 + within) * best, (seed, found, measured)
        lengths.append(len(measured))
    assert max(lengths) <= 10
    assert sorted(lengths)[len(lengths) // 2] <= 8, "a quarter of 34 counts"


def test_a_straight_line_takes_three_counts():
    assert search(MACHINES["a fast card"], 0, 0) == (33, [0, 17, 33])


def test_counts_that_cannot_run_are_left_out():
    """20 is the most that loads: the caller takes the others out."""
    points, counts = {}, range(21)
    while (choice := choose_next(list(points.values()), counts, WORK)).next_count is not None:
        points[choice.next_count] = Point(choice.next_count, MACHINES["a fast card"](choice.next_count))
    assert min(points.values(), key=lambda point: point.cost_s).n_gpu_layers == 20
    assert max(points) == 20


def test_the_whole_sweep_is_estimated_by_straight_lines():
    work = {n: n / 4 for n in range(5)}
    assert estimate_total({0: 10.0, 4: 2.0}, range(5), work) == pytest.approx(10 + 8 + 6 + 4 + 2)
    assert estimate_total({2: 5.0}, range(5), work) == pytest.approx(25), "one measured count stands for all"


def test_no_count_is_an_error():
    with pytest.raises(ValueError, match="no count"):
        choose_next([], [], {})
