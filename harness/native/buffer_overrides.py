"""Tensors that go elsewhere than their layer, as llama.cpp is told of them: -ot by their names, -ncmoe by their experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.gguf.roles import EXPERT_STACK
from harness.memory.causes import HOST
from harness.memory.overrides import refuse_buffer
from harness.memory.placement import choose_devices
from harness.native import bindings
from harness.parsers import split_override
from harness.spec import MAX_LAYERS, RunSpec


def list_overrides(runtime: Any, spec: RunSpec) -> Any:
    """What goes elsewhere than its layer, NULL-terminated: tensors by name, then the experts of the first layers; the first match wins.

    runtime is a `harness.native.engine.Runtime`.

    Raises
    ------
    UsageError : there is no such buffer type.

    Source: to_llama_mparams in llama-bench.cpp; LLM_FFN_EXPS_REGEX and llm_ffn_block_regex in common/common.h.
    """
    named = list(map(split_override, spec.override_tensors))
    targets = _find_buffers(runtime, spec, [buffer for _, buffer in named])
    cpu = runtime.lib.ggml_backend_cpu_buffer_type()
    experts = [rf"blk\.{layer}\.{EXPERT_STACK}" for layer in range(min(spec.n_cpu_moe, MAX_LAYERS))]
    listed = [
        *zip([pattern.pattern for pattern, _ in named], targets, strict=True),
        *((pattern, cpu) for pattern in experts),
    ]
    overrides = (bindings.BufferOverride * (len(listed) + 1))()
    for override, (pattern, buffer) in zip(overrides, listed, strict=False):
        override.pattern, override.buffer_type = pattern.encode(), buffer
    return overrides


def _find_buffers(runtime: Any, spec: RunSpec, names: Sequence[str]) -> list[int]:
    """Buffer types by name, ``CPU`` or ``RPC0[127.0.0.1:50052]``, or by their device's, ``RPC0``.

    They are the CPU's, and those of devices that the spec's model uses: llama.cpp aborts over a weight that none of its backends reads.

    Raises
    ------
    UsageError : there is no such buffer type, with the names of those that there are.

    Source: parse_cmd_params in llama-bench.cpp.
    """
    devices = runtime.list_devices()
    used = {HOST, *(device.name for device in choose_devices([device for _, device in devices], spec))}
    known, by_device = {}, {}
    for pointer, device in devices:
        if device.name in used and (buffer := runtime.lib.ggml_backend_dev_buffer_type(pointer)):
            known[runtime.lib.ggml_backend_buft_name(buffer).decode()] = by_device[device.name] = buffer
    found = {**by_device, **known}
    for name in names:
        if name not in found:
            raise refuse_buffer(name, list(known))
    return [found[name] for name in names]
