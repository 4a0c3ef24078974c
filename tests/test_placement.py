"""Which devices get layers, as llama.cpp chooses them: order, -dev, -sm and -mg, in one place for everybody."""

from __future__ import annotations

import dataclasses

import pytest

from harness.errors import UsageError
from harness.memory.causes import Cause
from harness.memory.fit import check_placement
from harness.memory.forecast import Forecast, Host, list_rules, predict_memory
from harness.memory.placement import choose_devices, deal_out, shares_host_memory
from harness.records.cells import Device
from harness.runs.cells import Plan
from harness.runs.memory import find_fits, fit_cards
from harness.runs.placements import Sweeper
from harness.spec import RunSpec
from harness.speed.offload import describe_blocks
from harness.units import GIB, MIB

from .shapes import catalog_header


def device(name, kind="gpu", free=GIB, total=None):
    return Device(name, f"a {name}", kind, free, free if total is None else total)


CPU = device("CPU", "cpu", 64 * GIB)
CARDS = [device("CUDA0"), device("CUDA1")]


def spec(**changes):
    return RunSpec("m", n_prompt=512, **changes)


def names(there, **changes):
    return [item.name for item in choose_devices(there, spec(**changes))]


def test_servers_come_first_and_integrated_graphics_only_where_there_is_no_card():
    mixed = [CPU, device("CUDA0"), device("RPC0"), device("Vulkan0", "igpu"), device("BLAS", "accel")]
    assert names(mixed) == ["RPC0", "CUDA0"]
    assert names([CPU, device("Vulkan0", "igpu"), device("RPC0")]) == ["RPC0", "Vulkan0"]
    assert names([CPU]) == []


def test_integrated_graphics_that_two_backends_see_count_once():
    assert names([device("CUDA0", "igpu"), device("Vulkan0", "igpu")]) == ["CUDA0"]
    assert names([device("Vulkan0", "igpu"), device("Vulkan1", "igpu")]) == ["Vulkan0", "Vulkan1"]


def test_named_devices_keep_their_order():
    assert names([CPU, *CARDS], devices=("CUDA1", "CUDA0")) == ["CUDA1", "CUDA0"]
    assert names([CPU, *CARDS], devices=("none",)) == []


def test_the_main_card_is_one_of_those_that_were_chosen():
    assert names(CARDS, split_mode="none", main_gpu=1) == ["CUDA1"]
    assert names(CARDS, devices=("CUDA1", "CUDA0"), split_mode="none", main_gpu=1) == ["CUDA0"]
    assert names([CPU], split_mode="none", main_gpu=7) == [], "without a card there is nothing to choose from"
    with pytest.raises(UsageError, match=r"-mg 2 names no device; with -sm none it is one of 0 CUDA0, 1 CUDA1\."):
        names(CARDS, split_mode="none", main_gpu=2)
    assert names(CARDS, main_gpu=7) == ["CUDA0", "CUDA1"], "llama.cpp looks at -mg with -sm none only"


def test_layers_go_by_what_is_free_or_by_what_was_asked():
    assert deal_out(9, spec(), [GIB, 3 * GIB]) == (0,) * 3 + (1,) * 7
    assert deal_out(9, spec(tensor_split=(1.0, 1.0)), [GIB, 3 * GIB]) == (0,) * 5 + (1,) * 5
    assert deal_out(9, spec(tensor_split=(1.0,)), [GIB, GIB]) == (0,) * 10, "a share that is not given is none"
    assert deal_out(9, spec(), []) == (None,) * 10


@pytest.fixture(scope="module")
def eight():
    return catalog_header("llama3.1:8b:q4_0")


@pytest.mark.parametrize("main_gpu", [0, 1])
def test_the_sweep_and_the_ledger_count_the_same_bytes_of_the_main_card(eight, main_gpu, monkeypatch):
    """An 8B model on the second of two cards of 1 GiB: 4.12 GiB, for the sweep's check as for the ledger."""
    asked = spec(split_mode="none", main_gpu=main_gpu)
    devices = [CPU, *CARDS]
    sweeper = Sweeper(
        Plan("sweep", None), keep=None, on_step=None, blocks=describe_blocks(eight), devices=devices
    )  # nothing is measured
    placement = sweeper.predict(asked)
    name = f"CUDA{main_gpu}"
    host = Host(None, list_rules(devices))
    ledger = predict_memory(eight, asked, host).on(name)
    assert placement.needed_bytes == {name: ledger}
    assert ledger / GIB == pytest.approx(4.12, abs=0.15)
    assert not placement.fits
    assert f"cannot fit on {name}: weights and cache need" in placement.reason
    forecast = Forecast(asked.n_ctx, predict_memory(eight, asked, host).lines)
    model = type("Model", (), {"header": eight, "label": "eight"})
    assert {fit.device: fit.needed_bytes for fit in find_fits(model, asked, forecast, host)}[name] == ledger
    assert [card.device for card in fit_cards(model, asked, forecast, host, None)] == [name]


def test_memory_that_is_shared_has_to_hold_both(eight):
    """Integrated graphics of 16 GiB that say they have 12 free: the model fits them, and not beside what the host needs."""
    shared = [device("Vulkan0", "igpu", 12 * GIB, 16 * GIB)]
    assert shares_host_memory(shared[0])
    assert shares_host_memory(device("MTL0"))
    assert not shares_host_memory(device("CUDA0"))
    half = spec(n_gpu_layers=16)
    assert check_placement(eight, half, list_rules(shared), host_bytes=8 * GIB).fits
    found = check_placement(eight, half, list_rules(shared), host_bytes=4 * GIB)
    assert not found.fits
    assert found.reason.startswith("cannot fit on the memory that it shares with the CPU: both together need ")
    card = [device("CUDA0", "gpu", 12 * GIB)]
    assert check_placement(eight, half, list_rules(card), host_bytes=4 * GIB).fits, "a card has its own"


def test_what_a_shared_device_takes_is_the_machines(eight, monkeypatch):
    devices = list_rules([CPU, device("MTL0", "gpu", 12 * GIB, 16 * GIB)])
    host = Host(None, devices)
    asked = spec(n_gpu_layers=-1, load_mode="none")
    forecast = Forecast(asked.n_ctx, predict_memory(eight, asked, host).lines)
    model = type("Model", (), {"header": eight, "label": "eight"})
    machine, graphics = find_fits(model, asked, forecast, host)
    assert graphics.needed_bytes == forecast.on("MTL0") > 4 * GIB
    assert (graphics.free_bytes, graphics.total_bytes) == (12 * GIB, 16 * GIB)
    assert machine.needed_bytes == forecast.on("CPU") + forecast.on("MTL0")
    mapped = dataclasses.replace(asked, load_mode="mmap", n_gpu_layers=16)
    lines = predict_memory(eight, mapped, host).lines
    (machine, _) = find_fits(model, mapped, Forecast(mapped.n_ctx, lines), host)
    whole = sum(tensor.size_bytes for tensor in eight.tensors)
    cache = sum(line.size_bytes for line in lines if line.cause is Cause.KV)
    assert machine.needed_bytes <= whole + cache + MIB, "a page of the file is there once, whoever looks at it"
