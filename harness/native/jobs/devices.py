"""The worker's job ``devices``: everything that ggml sees, with what it was compiled for."""

from __future__ import annotations

from typing import Any

from harness.codec import encode
from harness.native.jobs import Emit


def run(runtime: Any, request: dict[str, Any], emit: Emit) -> None:
    """Emit the build and each device with its backend; `request` may name RPC servers as ``rpc``.

    Raises
    ------
    NativeError : an RPC server is missing.
    """
    runtime.attach_rpc(request.get("rpc") or ())
    lib = runtime.lib
    backends = {
        device.name: lib.ggml_backend_reg_name(lib.ggml_backend_dev_backend_reg(pointer)).decode()
        for pointer, device in runtime.list_devices()
    }
    registries = [lib.ggml_backend_reg_name(lib.ggml_backend_reg_get(i)) for i in range(lib.ggml_backend_reg_count())]
    emit(
        "done",
        {
            "build": encode(runtime.describe()),
            "backend_of": backends,
            "compiled": list(dict.fromkeys(name.decode().partition("[")[0] for name in registries)),
        },
    )
