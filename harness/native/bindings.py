"""The C functions that llama_cpp does not declare; what it declares itself is held against `harness.native.versions`.

Three tiers meet at the native edge: this file declares, `engine` owns what it gets, `worker` decides what to do when it fails.
"""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp

from harness.errors import NativeError
from harness.native import versions

#: enum ggml_backend_dev_type of ggml-backend.h.
DEVICE_KINDS = {0: "cpu", 1: "gpu", 2: "igpu", 3: "accel"}

_MAX_THREADS = 512  # GGML_MAX_N_THREADS of ggml.h


class ThreadpoolParams(ctypes.Structure):
    """struct ggml_threadpool_params of ggml.h."""

    _fields_ = (
        ("cpumask", ctypes.c_bool * _MAX_THREADS),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    )


class BufferOverride(ctypes.Structure):
    """struct llama_model_tensor_buft_override of llama.h: tensors whose name matches go to a buffer type."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


class InitParams(ctypes.Structure):
    """struct ggml_init_params of ggml.h."""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


#: void ggml_backend_set_n_threads(ggml_backend_t, int), and ggml_backend_dev_get_extra_bufts, by ggml_backend_reg_get_proc_address.
SET_N_THREADS = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)
GET_EXTRA_BUFTS = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)

_MAX_DIMS, _MAX_SRC, _MAX_OP_PARAMS, _MAX_NAME = 4, 10, 64, 64


class Tensor(ctypes.Structure):
    """struct ggml_tensor of ggml.h; see `knows_layout`."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * _MAX_DIMS),
        ("nb", ctypes.c_size_t * _MAX_DIMS),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * (_MAX_OP_PARAMS // 4)),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * _MAX_SRC),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * _MAX_NAME),
    )


def knows_layout(lib: Any, node: int) -> bool:
    """Whether struct ggml_tensor is laid out as declared here, by what the library's own functions say of a tensor."""
    is_named = lib.ggml_get_name(node) - node == Tensor.name.offset
    return is_named and lib.ggml_get_data(node) == Tensor.from_address(node).data


_POINTER, _TEXT, _SIZE = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t

_P, _SIZES, _RANGE = (_POINTER,), ctypes.POINTER(_SIZE), (_POINTER, _POINTER, _SIZE, _SIZE)

#: Result and arguments, and the functions that have them.
_FUNCTIONS: tuple[tuple[Any, tuple[Any, ...], str], ...] = (
    (_SIZE, (), "ggml_backend_dev_count ggml_backend_reg_count ggml_tensor_overhead ggml_graph_overhead"),
    (_SIZE, _P, "ggml_backend_reg_dev_count ggml_nbytes ggml_backend_buffer_get_size"),
    (_TEXT, (), "ggml_commit ggml_version"),
    (_TEXT, _P, "ggml_backend_dev_name ggml_backend_dev_description ggml_backend_reg_name"),
    (_TEXT, _P, "ggml_op_desc ggml_backend_buffer_name ggml_backend_buft_name"),
    (ctypes.c_int, _P, "ggml_backend_dev_type ggml_backend_buffer_get_usage"),
    (ctypes.c_int, _P * 2, "ggml_backend_graph_compute"),
    (ctypes.c_bool, _P, "ggml_backend_buffer_is_host"),
    (ctypes.c_bool, _P * 2, "ggml_backend_dev_supports_op"),
    (_POINTER, (), "ggml_backend_cpu_buffer_type"),
    (_POINTER, _P, "ggml_new_graph ggml_get_name ggml_get_data ggml_backend_buffer_get_base"),
    (_POINTER, _P, "ggml_backend_dev_backend_reg ggml_backend_dev_buffer_type"),
    (_POINTER, _P * 2, "ggml_backend_alloc_ctx_tensors_from_buft"),
    (_POINTER, _P * 3, "ggml_mul_mat"),
    (_POINTER, (_SIZE,), "ggml_backend_dev_get ggml_backend_reg_get"),
    (_POINTER, (_TEXT,), "ggml_backend_reg_by_name"),
    (_POINTER, (_POINTER, _TEXT), "ggml_backend_dev_init ggml_backend_reg_get_proc_address"),
    (_POINTER, (_POINTER, _SIZE), "ggml_backend_buft_alloc_buffer"),
    (_POINTER, (_POINTER, ctypes.c_int, ctypes.c_int64, ctypes.c_int64), "ggml_new_tensor_2d"),
    (_POINTER, (InitParams,), "ggml_init"),
    (_POINTER, (ctypes.POINTER(ThreadpoolParams),), "ggml_threadpool_new"),
    (ThreadpoolParams, (ctypes.c_int,), "ggml_threadpool_params_default"),
    (
        None,
        _P,
        "ggml_threadpool_free ggml_threadpool_pause llama_detach_threadpool ggml_free ggml_backend_free ggml_backend_buffer_free",
    ),
    (None, _P, "ggml_backend_register ggml_backend_synchronize"),
    (None, _P * 2, "ggml_build_forward_expand"),
    (None, _P * 3, "llama_attach_threadpool"),
    (None, (_POINTER, _SIZES, _SIZES), "ggml_backend_dev_memory"),
    (None, _RANGE, "ggml_backend_tensor_set ggml_backend_tensor_get"),
)


def library() -> Any:
    """The functions of ggml and llama that llama_cpp lacks, declared on the handle of the libllama that is already loaded.

    A lookup through that handle also searches the libraries that libllama depends on, so it finds the very registry that libllama
    uses. Opening ``libggml.so`` by name would load a second copy (the wheel ships copies, not links) with a second, empty registry.

    Raises
    ------
    NativeError : this build has no such function.
    """
    lib = llama_cpp.llama_cpp._lib
    for result, arguments, names in _FUNCTIONS:
        for name in names.split():
            try:
                function = getattr(lib, name)
            except AttributeError:
                raise versions.refuse(llama_cpp, f"has no {name}, which harness calls") from None
            function.restype, function.argtypes = result, arguments
    return lib


def rpc_functions(lib: Any) -> tuple[Any, Any]:
    """(add_server, start_server) of the RPC backend that this process has loaded.

    They are asked of the registry itself, so they belong to the very library whose devices llama.cpp sees.

    Raises
    ------
    NativeError : llama.cpp was built without it, or with an older one.

    Source: ggml-rpc.h; ggml_backend_rpc_get_proc_address in ggml-rpc.cpp.
    """
    versions.check_rpc(llama_cpp.__version__)
    registry = lib.ggml_backend_reg_by_name(b"RPC")
    add, start = (
        registry and lib.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_rpc_" + name)
        for name in (b"add_server", b"start_server")
    )
    if not add or not start:
        raise NativeError(
            "This llama.cpp was built without RPC; rebuild it with `CMAKE_ARGS=-DGGML_RPC=ON scripts/harness devices`."
        )
    pointers = ctypes.POINTER(ctypes.c_void_p)
    arguments = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, pointers)
    return (
        ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)(add),
        ctypes.CFUNCTYPE(None, *arguments)(start),
    )
