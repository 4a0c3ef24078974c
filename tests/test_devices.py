"""What there is to compute on, and the reason where there is no card."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest

from harness.errors import NativeError
from harness.records.cells import Build, Device
from harness.runs.devices import Absence, Cards, NoGpu, Survey, explain_absence, survey_devices
from harness.views.devices import describe_devices, list_cpu_features
from harness.views.formats import render

from .rpc_server import rpc_server
from .test_cli import harness

BUILD = Build(
    "0.3.36", "0.25.3", "0c1e570", "CPU : AVX2 = 1 | AVX512 = 0 | REPACK = 1 | CUDA : ARCHS = 890 | ", ("CPU",), ()
)


def survey(compiled=("CPU", "RPC"), devices=(), **cards):
    build = dataclasses.replace(BUILD, devices=(Device("CPU", "a CPU", "cpu", 1 << 34, 1 << 34), *devices))
    return Survey(build, {"CPU": "CPU"}, compiled, Cards(**cards), None)


RTX = Device("CUDA0", "NVIDIA GeForce RTX 3070", "gpu", 7 << 30, 8 << 30)
REMOTE = Device("RPC0", "192.168.1.7:50052", "gpu", 7 << 30, 8 << 30)


@pytest.mark.parametrize(
    ("seen", "reason", "command"),
    [
        (survey(), "no graphics card was found in this machine", None),
        (survey(devices=(REMOTE,)), "no graphics card was found in this machine", None),
        (
            survey(vendors=("NVIDIA",), driver="555.42"),
            "there is a card by NVIDIA, but llama.cpp was built without support for it",
            "CMAKE_ARGS=-DGGML_CUDA=ON scripts/harness devices",
        ),
        (
            survey(vendors=("AMD",)),
            "there is a card by AMD, but llama.cpp was built without support for it",
            "CMAKE_ARGS=-DGGML_VULKAN=ON scripts/harness devices",
        ),
        (
            survey(("CPU", "CUDA"), vendors=("NVIDIA",), driver_trouble="Driver Not Loaded"),
            "there is an NVIDIA card, but its driver does not answer (Driver Not Loaded)",
            "nvidia-smi",
        ),
        (
            survey(("CPU", "CUDA"), vendors=("NVIDIA",), driver="555", hiding={"CUDA_VISIBLE_DEVICES": ""}),
            "CUDA_VISIBLE_DEVICES= hides every card",
            "unset CUDA_VISIBLE_DEVICES",
        ),
        (
            survey(("CPU", "Vulkan"), vendors=("AMD",), hiding={"GGML_VK_VISIBLE_DEVICES": "-1"}),
            "GGML_VK_VISIBLE_DEVICES=-1 hides every card",
            "unset GGML_VK_VISIBLE_DEVICES",
        ),
        (survey(("CPU", "CUDA")), "llama.cpp was built for CUDA, but no graphics card was found in this machine", None),
        (
            survey(("CPU", "CUDA"), vendors=("NVIDIA",), driver="555", hiding={"CUDA_VISIBLE_DEVICES": "0"}),
            "llama.cpp was built for CUDA, but found no card that it can use",
            None,
        ),
    ],
)
def test_the_reason_for_no_card(seen, reason, command):
    absence = explain_absence(seen)
    assert (absence.reason, absence.command) == (reason, command)


def test_where_there_is_a_card_nothing_is_missing():
    assert explain_absence(survey(("CPU", "CUDA"), devices=(RTX,), vendors=("NVIDIA",), driver="555")) is None


def test_features_that_are_on_are_named_and_those_of_other_backends_are_not():
    assert list_cpu_features(BUILD.system_info) == ["AVX2", "REPACK"]
    assert list_cpu_features("nothing known") == []


def test_the_page_fits_eighty_columns():
    long = dataclasses.replace(RTX, description="A card whose name goes on and on and on for more than a line can take")
    seen = survey(("CPU", "CUDA"), devices=(long,), driver="555.42")
    seen = dataclasses.replace(seen, backend_of={"CPU": "CPU", "CUDA0": "CUDA"}, build_flags="-DGGML_CUDA=ON")
    text = render(describe_devices(seen, Absence(NoGpu.SILENT_DRIVER, "a command", "x " * 90)), "table")
    assert max(map(len, text.splitlines())) <= 80
    words = (
        "CUDA0",
        "7.00 GiB",
        "8.00 GiB",
        "NVIDIA driver 555.42",
        "built for CPU, CUDA (-DGGML_CUDA=ON)",
        "No GPU: there is an NVIDIA card",
    )
    assert all(word in " ".join(text.split()) for word in words)


@pytest.mark.engine
def test_the_real_devices_with_a_server(tmp_path):
    if os.name == "nt":
        pytest.skip("the server is ended by POSIX signals")
    with rpc_server() as served:
        code, out, _ = harness("devices", "--rpc", served.endpoint, "-o", "json")
    assert code == 0
    found = json.loads(out)
    assert {device["name"]: device["backend"] for device in found["devices"]}.items() >= {
        "CPU": "CPU",
        "RPC0": "RPC",
    }.items()
    remote = next(device for device in found["devices"] if device["name"] == "RPC0")
    assert remote["memory_total_bytes"] > 0
    assert found["build"]["ggml_commit"]
    assert "RPC" in found["build"]["backends"]
    with pytest.raises(NativeError, match="No RPC server can be reached"):
        survey_devices([served.endpoint])


@pytest.mark.engine
def test_the_table_says_why_there_is_no_card():
    code, out, _ = harness("devices")
    assert code == 0
    assert "CPU features" in out
    assert max(map(len, out.splitlines())) <= 80
    if "  gpu  " not in out and "  igpu " not in out:
        assert "No GPU: " in out
