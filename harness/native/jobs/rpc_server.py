"""The worker's job ``serve``: lend devices to other machines by llama.cpp's own RPC, until the process ends."""

from __future__ import annotations

import ctypes
from typing import Any

from harness.codec import encode
from harness.errors import NativeError
from harness.native import bindings
from harness.native.jobs import Emit


def run(runtime: Any, request: dict[str, Any], emit: Emit) -> None:
    """Serve `request`'s devices (names; all GPUs, else the CPU, where there are none) at its endpoint with its n_threads.

    Emits ``serving`` just before the port is opened; returns only where it could not be.

    Raises
    ------
    NativeError : no RPC in this build, an unknown device, or the port could not be opened.

    Source: ggml_backend_rpc_start_server in ggml-rpc.cpp; get_devices in tools/rpc/rpc-server.cpp.
    """
    _, start_server = bindings.rpc_functions(runtime.lib)
    devices = [device for _, device in runtime.list_devices()]
    local = [device for device in devices if not device.name.startswith("RPC")]
    gpus = [device.name for device in local if device.is_gpu]
    names = request["devices"] or gpus or [device.name for device in local if device.kind == "cpu"]
    pointers = runtime.find_devices(names, with_cpu=True)
    emit("serving", {"devices": [encode(device) for name in names for device in devices if device.name == name]})
    listed = (ctypes.c_void_p * len(pointers))(*pointers)
    start_server(request["endpoint"].encode(), None, request["n_threads"], len(pointers), listed)
    raise NativeError(f"llama.cpp cannot listen on {request['endpoint']}; choose another --port or --host.")
