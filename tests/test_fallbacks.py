"""What llama.cpp did elsewhere or left out is a footnote with its figures, by what it said of itself."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from harness.memory.placement import count_pieces, find_too_many_pieces
from harness.memory.repack import read_features
from harness.native import strays
from harness.native.log import read_missing_kernels, read_splits, read_unlocked
from harness.native.strays import Node, sum_up
from harness.records.cautions import CautionCause
from harness.records.cells import MissingKernel, Stray
from harness.records.fallbacks import find_fallbacks, find_left_out
from harness.records.kinds import read_line, to_json
from harness.records.statistics import summarize
from harness.spec import RunSpec

from .rpc_server import ROOT, rpc_server


def spec(**changes):
    return RunSpec("m", n_gen=8, n_threads=2, **changes)


# ---- the log ---------------------------------------------------------------------------------------------------------


def test_pieces_are_read_of_a_token_and_of_a_batch():
    """Lines of this llama.cpp's sched_reserve, and of an older one."""
    same = "sched_reserve: graph: nodes = 936, splits = 62, input objects = 4, input tensors = 6"
    two = "sched_reserve: graph (pp bs=512, tg bs=1): nodes = 1126 / 1094, splits = 63 / 2, input objects = 4 / 5, input tensors = 6 / 7"
    older = "llama_context: graph splits = 386 (with bs=512), 66 (with bs=1)"
    assert read_splits(["load_tensors: 3 splits", same]) == (62, 62)
    assert read_splits([same, two]) == (2, 63)
    assert read_splits([older]) == (66, 386)
    assert read_splits(["llama_context: graph splits = 2"]) == (2, 2)
    assert read_splits([]) == (None, None)


def test_a_kernel_that_is_missing_is_named_once():
    """Source: llama_context::resolve_fused_ops."""
    line = (
        "resolve_fused_ops: layer {} is assigned to device CUDA0 but Flash Attention is assigned to device CPU "
        "(usually due to missing support)"
    )
    lines = [line.format(0), line.format(1), "resolve_fused_ops: Flash Attention not supported, set to disabled"]
    assert read_missing_kernels(lines) == (MissingKernel("Flash Attention", "CUDA0", "CPU"),)
    assert read_missing_kernels(["load_tensors: layer   0 assigned to device CPU, is_swa = 0"]) == ()


def test_memory_that_could_not_be_locked_is_heard_of():
    """Source: llama_mlock::impl::raw_lock."""
    said = (
        "warning: failed to mlock 96580608-byte buffer (after previously locking 0 bytes): Cannot allocate memory\n"
        "Try increasing RLIMIT_MEMLOCK ('ulimit -l' as root)."
    )
    assert read_unlocked(["load_tensors: …", said])
    assert not read_unlocked(["load_tensors: loading model tensors, this can take a while... (load_mode = mlock)"])


# ---- what follows from where layers lie ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "changes", "pieces"),
    [
        # As llama.cpp 0c1e570 logs them for SmolLM2, which has 30 layers and the output.
        ({"CPU": 31}, {}, 1), ({"CPU": 30, "RPC0": 1}, {}, 2), ({"RPC0": 31}, {}, 2), ({"RPC0": 31}, {"no_kv_offload": True}, 62),
        ({"CPU": 21, "RPC0": 10}, {"no_kv_offload": True}, 20), ({"CPU": 31}, {"no_kv_offload": True}, 1),
        ({"CUDA0": 16, "CUDA1": 15}, {}, 3),
        ({"RPC0": 31}, {"override_tensors": ("exps=CPU",)}, None), ({"RPC0": 31}, {"n_cpu_moe": 3}, None),
        ({"CUDA0": 16, "CUDA1": 15}, {"split_mode": "row"}, None),
    ],
)  # fmt: skip
def test_pieces_follow_from_the_places_of_layers(layers, changes, pieces):
    assert count_pieces(spec(**changes), layers) == pieces
    assert find_too_many_pieces(spec(**changes), layers, pieces) is None
    assert find_too_many_pieces(spec(**changes), layers, (pieces or 0) + 1) == pieces
    assert find_too_many_pieces(spec(**changes), layers, None) is None


def test_one_token_of_one_user_is_looked_at(monkeypatch):
    """Whatever a cell's cache holds: what runs where does not depend on it, and memory may be short."""
    asked = []

    class Seen(Exception):
        pass

    def refuse(_model, small, **_more):
        asked.append(small)
        raise Seen

    monkeypatch.setattr(strays, "_Listener", lambda _runtime: SimpleNamespace(callback=None, nodes=[]))
    monkeypatch.setattr(strays, "Session", refuse)
    for changes in ({"n_prompt": 512, "n_prefix": 4096}, {"n_depth": 512, "n_parallel": 4, "is_prompt_shared": True}):
        with pytest.raises(Seen):
            strays.find_strays(SimpleNamespace(runtime=None), spec(type_k="q8_0", **changes))
    assert [(one.n_ctx, one.type_k) for one in asked] == [(1, "q8_0")] * 2


def test_what_ran_elsewhere_is_summed_up_by_operation_with_what_was_carried_both_ways():
    nodes = []
    for layer in (0, 1):
        nodes += [
            Node(f"attn_norm-{layer}", "RMS_NORM", "CUDA0"),
            Node(f"Qcur-{layer}", "ROPE", "CUDA0"),
            # The layer of a node without a name is that of the nodes before it.
            Node(
                f"node_{layer}7",
                "FLASH_ATTN_EXT",
                "CPU",
                ((f"Qcur-{layer}", 1000, 10 + layer), ("cache_k", 500, 20 + layer)),
            ),
            Node(f"node_{layer}7 (reshaped)", "RESHAPE", "CPU"),
            Node(
                f"kqv_out-{layer}",
                "MUL_MAT",
                "CUDA0",
                ((f"node_{layer}7 (reshaped)", 200, 30 + layer), ("inp_pos", 4, 99)),
            ),
        ]
    nodes.append(Node("result_output", "MUL_MAT", "CPU"))
    layers = {0: "CUDA0", 1: "CUDA0", 2: "CUDA0"}
    assert sum_up(nodes, layers) == (Stray("FLASH_ATTN_EXT", "CPU", 2, 2 * (1000 + 500 + 200)),)
    assert sum_up(nodes, {0: "CPU", 1: "CUDA0"}) == (Stray("FLASH_ATTN_EXT", "CPU", 1, 1700),)
    assert sum_up(nodes, {0: "CPU", 1: "CPU"}) == ()


# ---- footnotes -------------------------------------------------------------------------------------------------------


@pytest.fixture
def record(recorded):
    return next(item for item in recorded if item.asked.n_gen and not item.failure)


def with_(record, asked=None, system_info=None, **resolved):
    build = record.build if system_info is None else dataclasses.replace(record.build, system_info=system_info)
    return dataclasses.replace(
        record, asked=dataclasses.replace(record.asked, **(asked or {})), build=build,
        resolved=dataclasses.replace(record.resolved, **resolved),
    )  # fmt: skip


def causes(record):
    return [caution.cause for caution in find_fallbacks(record)]


def test_a_usual_cell_has_none(record):
    assert causes(record) == []
    assert causes(with_(record, n_graph_splits=1, n_graph_splits_batch=1)) == []


def test_strays_are_named_with_what_is_carried_for_them(record):
    strays = (Stray("FLASH_ATTN_EXT", "CPU", 28, 3 * 2**20), Stray("SET_ROWS", "CPU", 28, 2**20))
    found = with_(record, layers_by_device={"CUDA0": 29}, n_graph_splits=58, strays=strays)
    (caution,) = find_fallbacks(found)
    assert caution.text == (
        "FLASH_ATTN_EXT, SET_ROWS of 28 layers ran on CPU and not where the layers are: 4.00 MiB are carried for each token "
        "(`harness token-time` has what that takes)"
    )
    assert caution in summarize(found).cautions
    assert read_line(json.loads(json.dumps(to_json(found)))).content.resolved.strays == strays


def test_more_pieces_than_explained_are_said_where_nobody_could_look(record):
    (caution,) = find_fallbacks(with_(record, layers_by_device={"RPC0": 31}, n_graph_splits=62))
    assert (caution.cause, caution.n_pieces, caution.n_expected) == (CautionCause.MORE_PIECES, 62, 2)
    asked = {"no_kv_offload": True}
    assert causes(with_(record, asked, layers_by_device={"RPC0": 31}, n_graph_splits=62)) == [], "as it was asked for"


def test_a_kernel_that_is_missing_and_memory_that_is_not_locked(record):
    kernel = MissingKernel("Flash Attention", "CUDA0", "CPU")
    found = list(find_fallbacks(with_(record, missing_kernels=(kernel,), is_unlocked=True)))
    assert [caution.cause for caution in found] == [CautionCause.NO_KERNEL, CautionCause.NOT_LOCKED]
    assert found[0].text == "Flash Attention is off: CUDA0 has no kernel for it here, and it would have run on CPU"


REPACKING = "CPU : AVX2 = 1 | REPACK = 1"


@pytest.mark.parametrize(
    ("asked", "layers", "is_said"),
    [
        ({}, {"CPU": 10, "CUDA0": 21}, True), ({}, {"CUDA0": 31}, False), ({"n_cpu_moe": 4}, {"CUDA0": 31}, True),
        ({"override_tensors": ("exps=CPU",)}, {"CUDA0": 31}, True), ({"override_tensors": ("exps=CUDA1",)}, {"CUDA0": 31}, False),
        ({"no_host": True}, {"CPU": 10, "CUDA0": 21}, False), ({"repack": False}, {"CPU": 10, "CUDA0": 21}, False),
        ({}, {"CPU": 10, "RPC0": 21}, False), ({}, {"CPU": 10, "MTL0": 21}, False), ({}, {"CPU": 31}, False),
    ],
)  # fmt: skip
def test_weights_that_pinned_memory_keeps_from_being_repacked(record, asked, layers, is_said):
    found = with_(record, asked, REPACKING, layers_by_device=layers, repacked_bytes=0)
    assert (CautionCause.NOT_REPACKED in causes(found)) is is_said
    assert CautionCause.NOT_REPACKED not in causes(with_(found, repacked_bytes=5))
    assert CautionCause.NOT_REPACKED not in causes(with_(found, system_info="CPU : AVX2 = 1"))


#: Lines of llama_print_system_info: compiled with -march=native, with GGML_NATIVE=OFF, without AVX (as the ROCm wheels are), without
#: AVX2 (as the CUDA wheels are), and for an Apple processor.
_NATIVE = (
    "CPU : SSE3 = 1 | SSSE3 = 1 | AVX = 1 | AVX_VNNI = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | BMI2 = 1 | AVX512 = 1 | AVX512_VBMI = 1 | "
    "AVX512_VNNI = 1 | AVX512_BF16 = 1 | LLAMAFILE = 1 | OPENMP = 1 | REPACK = 1"
)
_PORTABLE = "CPU : SSE3 = 1 | SSSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | BMI2 = 1 | LLAMAFILE = 1 | OPENMP = 1 | REPACK = 1"
_NO_AVX = "CPU : SSE3 = 1 | SSSE3 = 1 | LLAMAFILE = 1 | REPACK = 1"
_NO_AVX2 = "CPU : SSE3 = 1 | SSSE3 = 1 | AVX = 1 | LLAMAFILE = 1 | REPACK = 1"
_APPLE = "CPU : NEON = 1 | ARM_FMA = 1 | FP16_VA = 1 | DOTPROD = 1 | LLAMAFILE = 1 | ACCELERATE = 1 | REPACK = 1"
_ZEN5 = ("AVX", "AVX2", "AVX512", "AVX512_BF16", "AVX512_VNNI", "AVX_VNNI", "F16C", "FMA")
_ZEN2 = ("AVX", "AVX2", "F16C", "FMA")


@pytest.mark.parametrize(
    ("of_cpu", "system_info", "expected"),
    [
        (_ZEN5, _NATIVE, []),
        (_ZEN5, _PORTABLE, ["AVX-512", "AVX-VNNI"]),
        (_ZEN5, _NO_AVX, ["AVX"]),
        (_ZEN5, _NO_AVX2, ["AVX2"]),
        (_ZEN2, _PORTABLE, []),
        (_ZEN2, _NO_AVX, ["AVX"]),
        ((*_ZEN5, "AMX_INT8"), _NATIVE, ["AMX"]),
        (("NEON", "DOTPROD", "MATMUL_INT8"), _APPLE, ["matrix products (I8MM)"]),
        (("NEON", "DOTPROD"), _APPLE, []),
        (("NEON", "DOTPROD"), _NATIVE, []),
        (_ZEN5, _APPLE, []),
        (_ZEN5, "", []),
        ((), _PORTABLE, []),
    ],
)
def test_what_a_build_leaves_out_of_what_the_cpu_has(of_cpu, system_info, expected):
    assert find_left_out(of_cpu, read_features(system_info)) == expected


def test_a_portable_build_is_a_footnote(record):
    portable = with_(record, system_info=_PORTABLE)
    assert causes(portable) == [], "a record that does not say what the CPU has"
    portable = dataclasses.replace(
        portable, machine=dataclasses.replace(record.machine, cpu_features=(*_ZEN2, "AVX512"))
    )
    (caution,) = find_fallbacks(portable)
    assert caution in summarize(portable).cautions
    assert caution.text == "this build of llama.cpp does not use AVX-512, which this CPU has"
    assert not caution.distrust, "it is how fast this build is"


def test_a_version_that_was_never_tried_is_a_footnote(record):
    build = dataclasses.replace(record.build, llama_cpp_python="0.4.1", is_untried=True)
    (caution,) = find_fallbacks(dataclasses.replace(record, build=build))
    assert caution.text == "harness was never tried with llama-cpp-python 0.4.1, which is laid out as one that was"


def test_a_mask_is_nothing_to_macos(record):
    mac = dataclasses.replace(record, machine=dataclasses.replace(record.machine, os="Darwin 24.1.0"))
    assert causes(with_(mac, {"cpu_mask": "0x3"})) == [CautionCause.MASK_IDLE]
    assert causes(with_(record, {"cpu_mask": "0x3"})) == causes(mac) == []


def test_spinning_is_not_openmps(record):
    assert causes(with_(record, {"poll": 0}, "CPU : OPENMP = 1")) == [CautionCause.POLL_IDLE]
    assert causes(with_(record, {"poll": 0}, "CPU : AVX2 = 1")) == []


# ---- for real --------------------------------------------------------------------------------------------------------

#: A cache in host memory is written there for layers of a device, and read from there by the device: counted, not asked for by name.
CHILD = """
import json, sys
from harness.codec import encode
from harness.native.engine import Runtime
from harness.native.strays import find_strays
from harness.spec import RunSpec
runtime, found = Runtime(log_to_stderr=False), []
for values in json.load(sys.stdin):
    spec = RunSpec.from_dict(values)
    model = runtime.load(spec)
    session = model.open(spec)
    found.append([session.describe().n_graph_splits, [encode(stray) for stray in find_strays(model, spec)]])
    session.close()
    model.close()
json.dump(found, sys.stdout)
"""


@pytest.mark.skipif(os.name == "nt", reason="the server is ended by POSIX signals")
def test_a_token_over_rpc_tells_what_ran_elsewhere(model):
    with rpc_server() as server:
        base = RunSpec(model, n_prompt=32, n_threads=1, rpc=(server.endpoint,))
        specs = [
            base,
            dataclasses.replace(base, no_kv_offload=True),
            dataclasses.replace(base, override_tensors=("blk.3.ffn_down=CPU",)),
        ]
        done = subprocess.run(
            [sys.executable, "-c", CHILD], input=json.dumps([one.to_dict() for one in specs]), capture_output=True, text=True,
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    usual, cache, down = json.loads(done.stdout)
    assert usual == [2, []]
    assert cache[0] == 62
    (written,) = cache[1]
    assert (written["operation"], written["device"], written["n_layers"]) == ("SET_ROWS", "CPU", 30)
    # 192 values of K and of V come as f32, and the whole cache of 256 cells goes to the device as f16.
    assert written["copied_bytes"] == 30 * 2 * (192 * 4 + 256 * 192 * 2)
    # The input of 1536 values and the result of 576.
    assert down == [4, [{"operation": "MUL_MAT", "device": "CPU", "n_layers": 1, "copied_bytes": 4 * (1536 + 576)}]]
