"""The worker's job ``serve``: lend devices to other machines by llama.cpp's own RPC, until the process ends."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Sequence
from typing import Any

from harness.codec import encode
from harness.errors import NativeError
from harness.host.memory import available_memory_bytes
from harness.host.rpc import split_endpoint
from harness.native import bindings
from harness.native.jobs import Emit
from harness.native.rpc_guard import CAN_GUARD, Guard
from harness.records.cells import Device


def run(runtime: Any, request: dict[str, Any], emit: Emit) -> None:
    """Serve `request`'s devices (names; all GPUs, else the CPU, where there are none) at its endpoint with its n_threads.

    Emits ``serving`` just before the port is opened; where that can be seen ``open`` once it is, ``cut`` for each client that was
    hung up on, and ``useless`` where another process should take this one's place, which cannot be stopped. Returns only where the
    port could not be opened.

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
    lent = [device for name in names for device in devices if device.name == name]
    _keep_within_memory(lent)
    emit("serving", {"devices": [encode(device) for device in lent], "says_open": CAN_GUARD})
    if CAN_GUARD:
        host, port = split_endpoint(request["endpoint"])
        on_open, on_cut = (lambda: emit("open", {})), (lambda why: emit("cut", {"why": why}))
        Guard(host, port, on_open, on_cut, lambda: emit("useless", {})).start()
    listed = (ctypes.c_void_p * len(pointers))(*pointers)
    start_server(request["endpoint"].encode(), None, request["n_threads"], len(pointers), listed)
    raise NativeError(f"llama.cpp cannot listen on {request['endpoint']}; choose another --port or --host.")


def _keep_within_memory(lent: Sequence[Device]) -> None:
    """Have the system refuse what a client announces beyond the memory there is, rather than end this or another program for it.

    Not with a card: its driver takes addresses as if they were memory. Source: RLIMIT_DATA of getrlimit(2); recv_msg in ggml-rpc.cpp
    fills a buffer of any size that is announced.
    """
    if sys.platform != "linux" or any(device.kind != "cpu" for device in lent):
        return
    import resource

    with contextlib.suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (available_memory_bytes(), most))
