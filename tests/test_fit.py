"""What fits is counted in one place: the same layers by whichever command is asked, with one denominator."""

from __future__ import annotations

import dataclasses
import json
import re
import time

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.gguf.cost import cost_of_header
from harness.gguf.header import Header, Tensor
from harness.memory.causes import HOST, Cause
from harness.memory.fit import (
    CUDA_CONTEXT_BYTES,
    check_placement,
    estimate_compute_bytes,
    fit_layers,
    is_compute_known,
    left_to_host,
    price_layers,
    rough_prices,
)
from harness.memory.forecast import Host, device_rules, predict_memory
from harness.memory.repack import CpuFeatures
from harness.runs.dry_run import run_dry
from harness.runs.memory import account_memory, find_model, make_request, make_spec
from harness.runs.session import Session
from harness.sources.user_catalog import load_catalog
from harness.spec import RunSpec
from harness.speed.prediction import Question, cost_of_entry, fit_card, header_of_entry, place_layers
from harness.units import GIB, parse_size

from .shapes import small_header

CATALOG = load_catalog()


def run(*arguments):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def ask(name, n_ctx=2048, **settings):
    entry, quantization = CATALOG.split(name)
    cost, _ = cost_of_entry(entry, quantization)
    return Question(cost, n_ctx=n_ctx, header=header_of_entry(entry, quantization), **settings)


@pytest.mark.parametrize("gib", [1, 2, 4, 5, 6, 8, 24])
@pytest.mark.parametrize("name", ["llama3.1:8b:q4_0", "llama3.1:70b:q4_0", "llama3.2:1b:q4_0"])
def test_predict_and_the_sweeps_check_draw_the_line_at_the_same_layer(name, gib):
    """What `predict --vram` counts fits by the sweep's check, and one layer more does not."""
    question = ask(name)
    card = fit_card(question, gib * GIB)
    compute, spec = card.compute_bytes, RunSpec("m", n_prompt=question.n_ctx)
    room = gib * GIB - CUDA_CONTEXT_BYTES
    devices = [device_rules("CUDA0", memory_bytes=room)]

    def fits(count):
        asked = dataclasses.replace(spec, n_gpu_layers=count)
        return check_placement(question.header, asked, devices, {"CUDA0": compute}).fits

    assert card.n_layers == question.cost.n_layers + 1
    assert not card.n_fitting or fits(card.n_fitting)
    assert card.n_fitting == card.n_layers or not fits(card.n_fitting + 1)


def test_an_8b_model_on_4_gib_has_its_output_layer_first():
    """21 by one function and 23 by another, once: the output matrix goes first, and is as large as two layers."""
    question = ask("llama3.1:8b:q4_0", n_ctx=4096)
    prices = price_layers(question.header, RunSpec("m", n_prompt=4096), device_rules("CUDA0"))
    assert prices[1].device_weights_bytes > 3 * (prices[3].device_weights_bytes - prices[2].device_weights_bytes)
    exact = fit_card(question, 4 * GIB).n_fitting
    rough = fit_card(dataclasses.replace(question, header=None), 4 * GIB).n_fitting
    assert abs(exact - rough) <= 1


@pytest.mark.parametrize("size", ["8GB", "8 GiB", "8g", "8GiB"])
def test_a_card_of_8_gb_has_8_gib(size):
    assert parse_size(size, memory=True) == 8 * GIB
    answer = json.loads(
        run("predict", "-m", "llama3.1:70b:q4_0", "--machine", "RTX 3070 Ti", "--vram", size, "-o", "json")
    )
    assert answer["memory"][0]["limit_bytes"] == 8 * GIB


def test_sizes_of_files_stay_decimal_and_a_bare_number_is_refused():
    assert parse_size("20GB") == 20 * 10**9
    for option, value, meant in (("--size", "20", "20GB"), ("--bandwidth", "273", "273GB/s"), ("--vram", "8", "8GB")):
        result = CliRunner().invoke(cli, ["predict", option, value])
        assert result.exit_code == 2
        assert f"did you mean {meant}?" in " ".join(result.output.split())


@pytest.mark.engine
def test_one_card_has_one_layer_count_whoever_is_asked():
    """`predict`, `predict --vram`, `overhead --vram`: the same layers of the same number of layers, on a card of 8 GB."""
    options = ("-m", "llama3.1:70b:q4_0", "--ctx", "2048")
    said = [
        run("predict", *options, "--machine", "RTX 3070 Ti"),
        run("predict", *options, "--machine", "RTX 3070 Ti", "--vram", "8GB"),
        run("overhead", *options, "--predict-only", "--vram", "8GB"),
    ]
    found = [re.findall(r"(\d+)\s+of\s+(\d+)\s+layers", text) for text in said]
    assert {pair for pairs in found for pair in pairs} == {found[0][0]}
    assert found[0][0][1] == "81"


@pytest.mark.engine
@pytest.mark.parametrize("name", ["llama3.2:1b:q4_0", "llama3.1:8b:q4_0", "llama3.1:70b:q4_0", "llama3.1:405b:q4_0"])
def test_the_estimate_of_computing_is_what_a_dry_run_plans(name):
    model = find_model(f"synth:{name}", weights=False)
    request = make_request(model, [2048], {}, predict_only=True, vram_bytes=8 * GIB)
    report = account_memory(request, Session("overhead"))
    cost = cost_of_header(model.header, "Q4_0", name)
    assert estimate_compute_bytes(cost, 2048, model.header) == pytest.approx(report.cards[-1].compute_bytes, rel=0.001)


def test_the_rough_path_offloads_the_output_first_too():
    cost = ask("llama3.1:8b:q4_0").cost
    prices = rough_prices(cost, 2048)
    assert [price.n_gpu_layers for price in prices] == list(range(34))
    assert prices[0].device_bytes == 0
    assert prices[1].device_bytes == cost.output_bytes
    assert prices[-1].device_weights_bytes == pytest.approx(cost.memory_bytes - cost.input_bytes, rel=1e-6)
    assert fit_layers(prices, "a card", cost.output_bytes, 0).n_fitting == 1


@pytest.mark.parametrize("name", ["llama", "mixtral", "gemma3", "qwen3"])
@pytest.mark.parametrize("device", ["CUDA0", "MTL0", "RPC0"])
@pytest.mark.parametrize(
    "changes", [{}, {"no_kv_offload": True}, {"n_cpu_moe": 2}, {"load_mode": "mmap"}, {"load_mode": "none"}]
)
def test_the_ladder_of_prices_is_what_each_placement_takes(name, device, changes):
    header, rules = small_header(name), device_rules(device)
    spec = RunSpec("m", n_prompt=512, **changes)
    host = Host(None, (rules,))
    for price in price_layers(header, spec, rules):
        asked = dataclasses.replace(spec, n_gpu_layers=price.n_gpu_layers)
        found = predict_memory(header, asked, host)
        assert price.device_bytes == found.on(device)
        assert left_to_host(header, spec, host, rules, price.n_gpu_layers) == found.on(HOST)


def many_tensors(n_layers, n_tensors):
    """A header of so many tensors in so many layers."""
    header = small_header("llama")
    tensors = [
        Tensor(f"blk.{i % n_layers}.ffn_x{i}.weight", (256, 32), 2, "Q4_0", i * 4608, 4608) for i in range(n_tensors)
    ]
    metadata = {**header.metadata, "llama.block_count": n_layers}
    return dataclasses.replace(header, metadata=metadata, tensors=(*header.tensors[:1], *tensors))


def count_reads(header: Header, monkeypatch) -> int:
    """How often pricing every count of layers looks at a tensor."""
    seen = 0
    from harness.memory import forecast as memory

    plain = memory._weigh

    def counting(tensor, device):
        nonlocal seen
        seen += 1
        return plain(tensor, device)

    monkeypatch.setattr(memory, "_weigh", counting)
    assert len(price_layers(header, RunSpec("m", n_prompt=512), device_rules("CUDA0"))) > 2
    return seen


def test_pricing_every_count_looks_at_each_tensor_once(monkeypatch):
    header = many_tensors(512, 5000)
    assert count_reads(header, monkeypatch) <= 2 * len(header.tensors)


def test_pricing_many_tensors_grows_no_faster_than_they_do():
    def took(n_tensors):
        header = many_tensors(512, n_tensors)
        start = time.perf_counter()
        predict_memory(header, RunSpec("m", n_prompt=512), Host(None, (device_rules("CUDA0"),)))
        return time.perf_counter() - start

    took(500)
    assert took(16_000) < 24 * max(took(2_000), 0.01), "8 times as many may take 3 times as long as that"


def test_predict_counts_the_copy_that_a_cpu_makes_of_weights_as_overhead_does():
    features = CpuFeatures(frozenset({"AVX2", "REPACK"}))
    question = ask("llama3.1:8b:q4_0", n_ctx=4096, memory_bytes=64 * GIB, features=features)
    (room,), _, _ = place_layers("cpu", (50e9, None, 1.0), question, None, ())
    found = predict_memory(question.header, RunSpec("m", n_prompt=4096), Host(features))
    assert room.need.repacked_bytes == pytest.approx(found.of(Cause.REPACKED), rel=1e-4)
    assert room.need.repacked_bytes > 3 * GIB
    kept = room.need.total_bytes - room.need.compute_bytes
    assert kept == pytest.approx(sum(line.size_bytes for line in found.lines), rel=0.005)
    elsewhere = dataclasses.replace(question, features=None)
    assert place_layers("cpu", (50e9, None, 1.0), elsewhere, None, ())[0][0].need.repacked_bytes == 0


@pytest.mark.engine
@pytest.mark.parametrize(
    "name",
    ["llama3.2:3b", "llama3.1:405b", "qwen2.5:7b", "qwen3:30b", "smollm3:3b", "granite4:micro"],
)
def test_where_computing_is_known_no_dry_run_would_say_otherwise(name):
    model = find_model(f"synth:{name}:q4_0", weights=False)
    assert is_compute_known(model.header, "f16", "f16")
    contexts = (512, 4096, 32768, 131072)
    dry = run_dry(model.files, [make_spec(model, n_ctx, {}) for n_ctx in contexts])
    cost = cost_of_header(model.header, "Q4_0", name)
    for index, n_ctx in enumerate(contexts):
        planned = sum(dry.compute_bytes(index).values())
        assert estimate_compute_bytes(cost, n_ctx, model.header) == pytest.approx(planned, rel=0.0005)
    assert not is_compute_known(model.header, "q8_0", "f16")


def test_no_dry_run_is_made_where_computing_is_known():
    asked = []
    question = ask("llama3.1:8b:q4_0", n_ctx=4096, plan_compute=lambda: asked.append(1))
    assert question.compute_bytes > 0
    assert not asked
    assert dataclasses.replace(question, type_k="q8_0").compute_bytes > 0
    assert asked == [1]
