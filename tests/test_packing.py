"""Where layers and experts go: against every other placement of small models, and against those who count layers by themselves."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest

from harness.errors import HarnessError, UsageError
from harness.gguf.header import BytesSource, read_header
from harness.memory.causes import HOST
from harness.memory.fit import estimate_pipeline_bytes, fit_layers, price_layers
from harness.memory.forecast import Host, device_rules, predict_memory
from harness.memory.packing import Beside, Packer, Planned, Plans, Setting, Space, Wish, plan_between
from harness.memory.placement import place_layers
from harness.spec import RunSpec
from harness.units import GIB, MIB

from .shapes import small_header
from .test_same_answers import MODELS, make

WORKING = 3 * MIB


def spec_at(n_ctx, **changes):
    return RunSpec("m", n_prompt=n_ctx, **changes)


def pack(header, *cards, host_bytes=None, working=None, fixed=None):
    """A packer with cards of so many bytes."""
    devices = tuple(device_rules(f"CUDA{number}", memory_bytes=size) for number, size in enumerate(cards))
    taken = {device.name: WORKING for device in devices} | {HOST: 0} if working is None else working
    return Packer(header, Space(devices, host_bytes), lambda spec: Beside(taken, fixed or {}))


@pytest.mark.parametrize("name", ["llama", "mixtral", "gemma3", "qwen3moe"])
@pytest.mark.parametrize(
    "changes", [{}, {"n_gpu_layers": 2}, {"n_cpu_moe": 2}, {"no_kv_offload": True}, {"type_k": "q8_0"}]
)
def test_a_placement_takes_what_the_forecast_says(name, changes):
    header, spec = small_header(name), spec_at(1024, **changes)
    packing = pack(header, GIB, GIB).weigh(spec)
    rules = tuple(device_rules(f"CUDA{number}", memory_bytes=GIB) for number in range(2))
    found = predict_memory(header, spec, Host(None, rules))
    for one in packing.taken:
        assert one.weights_bytes + one.cache_bytes == found.on(one.device)
        is_used = one.device != HOST and found.on(one.device)
        assert one.working_bytes == (WORKING if is_used else 0)
    assert sum(card.n_layers for card in packing.cards) == packing.n_layers_on_cards


@pytest.mark.parametrize("name", MODELS)
def test_the_largest_context_fits_by_those_who_count_layers_and_the_next_one_does_not(name):
    header = read_header(BytesSource(MODELS[name].build()))
    rules = device_rules("CUDA0")

    def counts(n_ctx, room):
        return fit_layers(price_layers(header, spec_at(n_ctx), rules), None, room, WORKING)

    room = (counts(2048, 0).needed_bytes + counts(8192, 0).needed_bytes) // 2
    found = pack(header, room).find(Wish(spec_at, 8192, floor=256))
    n_ctx = found.spec.n_ctx
    if counts(8192, 0).needed_bytes == counts(2048, 0).needed_bytes:  # a state does not grow
        assert n_ctx == 8192
        return
    assert 2048 <= n_ctx < 8192
    assert n_ctx % 256 == 0
    assert counts(n_ctx, room).n_fitting == found.n_layers_on_cards == counts(n_ctx, room).n_layers
    assert counts(n_ctx + 256, room).n_fitting < counts(n_ctx + 256, room).n_layers
    assert found.cards[0].left_bytes == room - counts(n_ctx, room).used_bytes


def test_below_the_floor_layers_go_before_tokens_do_and_as_few_as_can_be():
    header = small_header("llama")
    prices = price_layers(header, spec_at(4096), device_rules("CUDA0"))
    room = prices[3].device_bytes + WORKING
    found = pack(header, room).find(Wish(spec_at, 4096))
    assert (found.spec.n_ctx, found.spec.n_gpu_layers) == (4096, 3)
    # What is left over goes to the context, with the same layers.
    longer = pack(header, room + MIB).find(Wish(spec_at, 16384))
    assert longer.spec.n_gpu_layers == 3
    assert longer.spec.n_ctx > 4096
    assert (
        pack(header, room + MIB).weigh(dataclasses.replace(longer.spec, n_prompt=longer.spec.n_ctx + 256)).fits is False
    )


@pytest.mark.parametrize("name", ["mixtral", "qwen3moe"])
def test_experts_of_as_few_layers_as_can_be_stay_on_the_cpu(name):
    header, wish = small_header(name), Wish(spec_at, 4096, floor=4096)
    whole = pack(header, GIB).weigh(spec_at(4096)).cards[0].total_bytes
    n_layers = pack(header, GIB).n_layers - 1
    for share in (0.95, 0.8, 0.6, 0.5, 0.4):
        packer = pack(header, round(whole * share))
        fitting = [n for n in range(n_layers + 1) if packer.weigh(spec_at(4096, n_cpu_moe=n)).fits]
        found = packer.find(wish)
        if fitting:
            assert (found.spec.n_cpu_moe, found.spec.n_gpu_layers) == (min(fitting), -1)
        else:
            assert found.spec.n_cpu_moe == n_layers
            assert 0 <= found.spec.n_gpu_layers <= n_layers


@pytest.mark.parametrize("seed", range(12))
def test_a_split_is_found_whenever_there_is_one(seed):
    """Against every way to share five layers out to two or three cards."""
    rng = random.Random(seed)
    header = small_header(rng.choice(["llama", "untied", "mixtral"]))
    spec = spec_at(2048, n_cpu_moe=rng.choice((0, 2)))
    whole = pack(header, GIB).weigh(spec).cards[0].total_bytes
    n_cards = rng.choice((2, 3))
    cards = [WORKING + round(whole * rng.uniform(0.1, 0.9)) for _ in range(n_cards)]
    packer = pack(header, *cards)
    n_layers = packer.n_layers
    found = packer.split(spec)
    ways = [way for way in itertools.product(range(n_layers + 1), repeat=n_cards) if sum(way) == n_layers]
    fitting = [way for way in ways if packer.weigh(dataclasses.replace(spec, tensor_split=way)).fits]
    assert (found is not None) == bool(fitting or packer.weigh(spec).fits)
    if found is not None and found.spec.tensor_split:
        assert tuple(map(int, found.spec.tensor_split)) in fitting


def test_a_split_by_counts_of_layers_gives_each_card_its_count():
    for counts in ((19, 30), (1, 48), (7, 0, 42), (16, 17, 16)):
        placed = place_layers(48, -1, tuple(map(float, counts)))
        assert [placed.count(number) for number in range(len(counts))] == list(counts)


def test_the_usual_split_is_kept_where_it_will_do_and_a_given_one_always():
    header, spec = small_header("llama"), spec_at(2048)
    usual = pack(header, GIB, GIB)
    assert [card.n_layers for card in usual.split(spec).cards] == [card.n_layers for card in usual.weigh(spec).cards]
    given = spec_at(2048, tensor_split=(1.0, 0.0))
    assert pack(header, WORKING, GIB).split(given, frozenset({"tensor_split"})) is None


def test_what_was_given_stays():
    header = small_header("mixtral")
    whole = pack(header, GIB).weigh(spec_at(4096)).cards[0].total_bytes
    given = Wish(lambda n: spec_at(n, n_gpu_layers=2), 4096, given=frozenset({"n_gpu_layers"}))
    assert pack(header, GIB).find(given).spec.n_gpu_layers == 2
    moe = Wish(lambda n: spec_at(n, n_cpu_moe=1), 4096, given=frozenset({"n_cpu_moe"}))
    found = pack(header, whole // 2).find(moe)
    assert found.spec.n_cpu_moe == 1
    assert found.spec.n_gpu_layers < 5


def test_the_host_bounds_it_too():
    header = small_header("llama")
    free = pack(header, host_bytes=None).weigh(spec_at(1024)).host.total_bytes
    bounded = pack(header, host_bytes=free)
    found = bounded.find(Wish(spec_at, 8192))
    assert found.spec.n_ctx == 1024
    assert found.host.left_bytes == 0
    assert bounded.find(Wish(spec_at, 2048, 2048, is_bound=True)) is None
    assert bounded.find(Wish(spec_at, 2048, 2048)).spec.n_ctx == 1024
    tight = pack(header, WORKING // 2, host_bytes=free // 2)
    assert tight.find(Wish(spec_at, 8192)) is None
    lacking = tight.find_lacking(Wish(spec_at, 8192))
    assert lacking.spec.n_gpu_layers == 0
    assert lacking.lacking_bytes == -lacking.host.left_bytes > 0


def test_a_projector_or_a_draft_counts_wherever_layers_are():
    header = small_header("llama")
    packer = pack(header, GIB, working={"CUDA0": 5, HOST: 7}, fixed={"CUDA0": 11})
    none = packer.weigh(spec_at(512, n_gpu_layers=0))
    assert (none.cards[0].total_bytes, none.cards[0].working_bytes, none.host.working_bytes) == (16, 5, 7)


def test_a_cache_that_is_not_known_is_refused():
    header = read_header(BytesSource(make("mamba").build()))
    with pytest.raises(HarnessError, match="is not known"):
        pack(header, GIB)


def test_between_two_plans_it_is_on_the_dear_side():
    plans = [Planned(1024, {HOST: 100}), Planned(2048, {HOST: 100, "CUDA0": 8}), Planned(4096, {HOST: 300, "CUDA0": 8})]
    assert plan_between(plans, 256) == {HOST: 100, "CUDA0": 8}
    assert plan_between(plans, 2048) == {HOST: 100, "CUDA0": 8}
    assert plan_between(plans, 3072) == {HOST: 200, "CUDA0": 8}
    assert plan_between(plans, 3073) == {HOST: 201, "CUDA0": 8}
    assert plan_between(plans, 4096) == {HOST: 300, "CUDA0": 8}
    assert plan_between(plans[:1], 9999) == {HOST: 100}


def test_what_is_to_be_left_free_bounds_a_device_and_does_not_change_how_layers_are_shared_out():
    header, spec = small_header("llama"), spec_at(2048)
    devices = tuple(device_rules(f"CUDA{number}", memory_bytes=GIB) for number in range(2))
    working = {"CUDA0": WORKING, "CUDA1": WORKING, HOST: 0}

    def packer(*spare):
        return Packer(header, Space(devices, None, spare_bytes=spare), lambda spec: Beside(working))

    free = packer().split(spec)
    kept = packer(GIB - 8 * MIB, GIB - 8 * MIB).split(spec)
    assert kept.spec.tensor_split == free.spec.tensor_split
    assert [card.room_bytes for card in kept.cards] == [8 * MIB, 8 * MIB]
    shifted = packer(GIB - WORKING, 0).split(spec)
    assert [card.n_layers for card in shifted.cards] == [0, 5]
    assert packer(GIB - WORKING, GIB - WORKING).split(spec) is None


def test_with_several_devices_the_split_is_stated():
    found = pack(small_header("llama"), GIB, 2 * GIB).split(spec_at(2048))
    assert sum(found.spec.tensor_split) == 5
    assert [card.n_layers for card in found.cards] == list(map(int, found.spec.tensor_split))


def test_plans_of_other_placements_count_on_the_dear_side_and_their_own_exactly():
    plans, a, b, c = Plans(), Setting(1, "a"), Setting(1, "b"), Setting(1, "c")
    plans.add(Planned(1024, {HOST: 10, "RPC0": 50}), a)
    plans.add(Planned(2048, {HOST: 20, "RPC0": 70}), a)
    plans.add(Planned(1024, {HOST: 30}), b)
    assert plans.find(1024, a) == {HOST: 10, "RPC0": 50}
    assert plans.find(1024, b) == {HOST: 30, "RPC0": 50}
    assert plans.find(1024, c) == {HOST: 30, "RPC0": 50}
    assert plans.find(1536, b) == {HOST: 25, "RPC0": 60}
    assert plans.has(1024, b)
    assert not plans.has(2048, b)
    # Those of another kind count only as long as there are none of its own.
    other = Setting(2, "d")
    assert plans.find(1024, other) == plans.find(1024, c)
    plans.add(Planned(1024, {HOST: 1, "RPC0": 2}), other)
    assert plans.find(4096, Setting(2, "e")) == {HOST: 1, "RPC0": 2}


#: MiB for computing that llama.cpp planned by itself and on the dearer of two devices behind RPC: model, tokens, width, window.
PIPELINED = (
    (19.5, 39.6, 4096, 512, None), (79.5, 279.6, 65536, 512, None), (527.1, 579.2, 4096, 2560, 1024),
    (522.1, 819.2, 65536, 2560, 1024), (266.5, 338.6, 4096, 4096, None), (266.5, 578.6, 65536, 4096, None),
    (414.4, 468.1, 4096, 2880, 128), (409.6, 708.1, 65536, 2880, 128), (504.0, 551.1, 4096, 2560, None),
)  # fmt: skip


@pytest.mark.parametrize(("alone", "dearer", "n_ctx", "n_embd", "window"), PIPELINED)
def test_several_devices_at_once_never_take_more_than_is_counted_for_them(alone, dearer, n_ctx, n_embd, window):
    settings = {"embedding_length": n_embd, **({"attention__sliding_window": window} if window else {})}
    header = read_header(BytesSource(make("gemma3" if window else "llama", 6, **settings).build()))
    counted = alone + estimate_pipeline_bytes(header, spec_at(n_ctx)) / MIB
    assert dearer <= counted <= dearer * 1.25


def test_when_several_devices_work_at_once():
    packer = pack(small_header("mixtral"), GIB, GIB)
    assert packer.is_pipelined(spec_at(1024))
    for changes in ({"n_gpu_layers": 4}, {"n_cpu_moe": 1}, {"no_kv_offload": True}, {"split_mode": "row"}):
        assert not packer.is_pipelined(spec_at(1024, **changes))
    assert not pack(small_header("mixtral"), GIB).is_pipelined(spec_at(1024))


def test_tensors_that_are_placed_by_name_stay_there():
    header = small_header("llama")
    spec = spec_at(1024, override_tensors=("ffn_.*=CPU",))
    devices = (device_rules("CUDA0", memory_bytes=GIB),)
    packer = Packer(header, Space(devices, None), lambda spec: Beside({}), spec)
    found = predict_memory(header, spec, Host(None, devices))
    packing = packer.weigh(spec)
    assert packing.cards[0].total_bytes == found.on("CUDA0")
    assert packing.cards[0].total_bytes < pack(header, GIB, working={}).weigh(spec_at(1024)).cards[0].total_bytes
    with pytest.raises(UsageError, match="no buffer type"):
        Packer(header, Space(devices, None), lambda spec: Beside({}), spec_at(1024, override_tensors=("a=ROCm7",)))
