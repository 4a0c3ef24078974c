"""Tensors that -ot puts elsewhere lie there in every account of memory; a buffer that there is not is refused before anything is loaded."""

from __future__ import annotations

import dataclasses
import re

import pytest

from harness.errors import UsageError
from harness.memory.causes import HOST, Cause
from harness.memory.fit import left_to_host, price_layers
from harness.memory.forecast import Host, device_rules, list_rules, predict_memory
from harness.memory.repack import read_features
from harness.records.cells import Device
from harness.spec import RunSpec

from .shapes import small_header

CARD = device_rules("CUDA0", memory_bytes=10**12)
ONE = Host(None, (CARD,))
EXPERTS = r"blk\.\d+\.ffn_.*_exps=CPU"


def spec(*overrides, **changes):
    return RunSpec("m", n_prompt=512, override_tensors=overrides, **changes)


def total(header, pattern):
    return sum(tensor.size_bytes for tensor in header.tensors if re.search(pattern, tensor.name))


def weights(header, asked, host=ONE):
    lines = predict_memory(header, asked, host).lines
    found = {HOST: 0, **dict.fromkeys((device.name for device in host.devices), 0)}
    for line in lines:
        if line.cause in (Cause.COPIED, Cause.MAPPED):
            found[line.device] += line.size_bytes
    return found


@pytest.mark.parametrize("mode", ["none", "mmap", "mlock", "mmap+mlock", "dio", "auto"])
def test_experts_by_pattern_are_experts_by_count(mode):
    header = small_header("qwen3moe")
    by_count = predict_memory(header, spec(n_cpu_moe=99, load_mode=mode), ONE)
    by_name = predict_memory(header, spec(EXPERTS, load_mode=mode), ONE)
    assert by_name.lines == by_count.lines
    assert by_name.on("CUDA0") < predict_memory(header, spec(load_mode=mode), ONE).on("CUDA0")


def test_what_is_put_elsewhere_is_missed_where_its_layer_is():
    header = small_header("mixtral")
    usual, moved = weights(header, spec(load_mode="none")), weights(header, spec(EXPERTS, load_mode="none"))
    experts = total(header, "_exps")
    assert moved[HOST] - usual[HOST] == pytest.approx(experts, rel=1e-3)
    assert usual["CUDA0"] - moved["CUDA0"] == pytest.approx(experts, rel=1e-2)


def test_a_tensor_of_the_cpu_goes_to_a_card():
    header = small_header("untied")
    usual = weights(header, spec(n_gpu_layers=0, load_mode="none"))
    moved = weights(header, spec("token_embd=CUDA0", n_gpu_layers=0, load_mode="none"))
    size = total(header, "token_embd")
    assert usual["CUDA0"] == 0
    assert moved["CUDA0"] == pytest.approx(size, rel=1e-2)
    assert usual[HOST] - moved[HOST] == pytest.approx(size, rel=1e-3)


def test_embeddings_that_are_the_output_too_are_on_a_card_once():
    header = small_header("llama")
    usual, moved = weights(header, spec(load_mode="none")), weights(header, spec("token_embd=CUDA0", load_mode="none"))
    assert moved["CUDA0"] == usual["CUDA0"], "the output was there already"
    assert usual[HOST] - moved[HOST] == pytest.approx(total(header, "token_embd"), rel=1e-3)


def test_the_first_pattern_that_is_found_decides_and_experts_by_count_come_last():
    header = small_header("mixtral")
    kept = weights(header, spec("exps=CUDA0", "exps=CPU", n_cpu_moe=99, load_mode="none"))
    assert kept == weights(header, spec(load_mode="none"))
    assert weights(header, spec("exps=CPU", "exps=CUDA0", load_mode="none")) == weights(
        header, spec(n_cpu_moe=99, load_mode="none")
    )


def test_what_is_put_into_host_memory_may_be_repacked():
    header, features = small_header("qwen3moe"), read_features("AVX2 = 1 | AVX512 = 1 | REPACK = 1")
    server = Host(features, (device_rules("RPC0"),))
    lines = predict_memory(header, spec(EXPERTS), server).lines
    (repacked,) = [line.size_bytes for line in lines if line.cause is Cause.REPACKED]
    assert repacked == pytest.approx(total(header, "_exps"), rel=1e-2)
    pinned = Host(features, (CARD,))
    assert not [
        line
        for line in predict_memory(header, spec(EXPERTS, load_mode="none"), pinned).lines
        if line.cause is Cause.REPACKED
    ]
    past = predict_memory(header, spec(EXPERTS, load_mode="none", no_host=True), pinned).lines
    assert [line.size_bytes for line in past if line.cause is Cause.REPACKED] == [repacked]
    assert {line.buffer for line in past if line.device == HOST and line.cause is Cause.COPIED} == {HOST}


@pytest.mark.parametrize(
    "overrides", [(EXPERTS,), ("token_embd=CUDA0",), ("exps=CUDA1",), ("attn=CPU", "output=CUDA0")]
)
@pytest.mark.parametrize("mode", ["none", "mmap"])
def test_the_ladder_of_prices_knows_them(overrides, mode):
    header, asked = small_header("mixtral"), spec(*overrides, load_mode=mode)
    two = Host(None, (CARD, device_rules("CUDA1", memory_bytes=10**12)))
    for price in price_layers(header, asked, CARD):
        placed = dataclasses.replace(asked, n_gpu_layers=price.n_gpu_layers, tensor_split=(1.0, 0.0))
        found = predict_memory(header, placed, two)
        assert price.device_bytes == found.on("CUDA0")
        assert left_to_host(header, asked, ONE, CARD, price.n_gpu_layers) == found.on(HOST)


def test_a_server_numbers_its_own_buffers():
    devices = [Device(f"RPC{at}", end, "gpu", 1, 1) for at, end in enumerate(["a:1", "a:1", "b:2"])]
    assert [rules.buffer for rules in list_rules(devices)] == ["RPC0[a:1]", "RPC1[a:1]", "RPC0[b:2]"]
    header, host = small_header("mixtral"), Host(None, list_rules(devices))
    by_buffer = predict_memory(header, spec("exps=RPC0[b:2]", load_mode="none"), host)
    assert by_buffer.lines == predict_memory(header, spec("exps=RPC2", load_mode="none"), host).lines
    assert by_buffer.on("RPC2") > 2 * by_buffer.on("RPC1")


def test_a_buffer_that_there_is_not_is_refused_with_those_that_there_are():
    header = small_header("mixtral")
    with pytest.raises(UsageError, match=r"There is no buffer type CUDA7 to put tensors into; there are CPU, CUDA0\."):
        predict_memory(header, spec("exps=CUDA7"), ONE)
    with pytest.raises(UsageError, match="there are CPU"):
        predict_memory(header, spec("exps=CUDA0", devices=("none",)), ONE)
