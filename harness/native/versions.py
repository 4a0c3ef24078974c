"""Which llama-cpp-python is here, whether it is laid out as one that was tried, and what differs among those.

`check_binding` comes before anything is written into a struct or given to a function: it holds the binding's structs and signatures
against those that are known here, and the defaults that the library itself returns against both.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import platform
import re
from collections.abc import Mapping
from typing import Any

from harness.errors import NativeError

#: Versions that were built and run (docs/compatibility.md), oldest first; pyproject.toml asks for a version from the first to the last.
TRIED = ("0.3.32", "0.3.33", "0.3.34", "0.3.35", "0.3.36")

_KINDS: Mapping[str, Any] = {
    "p": ctypes.c_void_p, "i": ctypes.c_int, "u": ctypes.c_uint32, "f": ctypes.c_float, "b": ctypes.c_bool, "z": ctypes.c_size_t,
}  # fmt: skip

#: Fields by kind, in the order of llama.h; the newest layout first.
_MODEL_START = "p:devices p:tensor_buft_overrides i:n_gpu_layers i:split_mode"
_MODEL_MIDDLE = (
    "i:main_gpu p:tensor_split p:progress_callback p:progress_callback_user_data p:kv_overrides b:vocab_only"
)
_MODEL_END = "b:check_tensors b:use_extra_bufts b:no_host b:no_alloc"
_CONTEXT_START = "u:n_ctx u:n_batch u:n_ubatch u:n_seq_max u:n_rs_seq u:n_outputs_max"
_CONTEXT_END = (
    "i:n_threads i:n_threads_batch i:ctx_type i:rope_scaling_type i:pooling_type i:attention_type i:flash_attn_type "
    "f:rope_freq_base f:rope_freq_scale f:yarn_ext_factor f:yarn_attn_factor f:yarn_beta_fast f:yarn_beta_slow u:yarn_orig_ctx "
    "f:defrag_thold p:cb_eval p:cb_eval_user_data i:type_k i:type_v p:abort_callback p:abort_callback_data b:embeddings "
    "b:offload_kqv b:no_perf b:op_offload b:swa_full b:kv_unified p:samplers z:n_samplers p:ctx_other"
)
LAYOUTS: Mapping[str, tuple[str, ...]] = {
    "llama_model_params": (
        f"{_MODEL_START} i:load_mode i:lazy_mode {_MODEL_MIDDLE} {_MODEL_END} b:load_mtp",  # 0.3.36
        f"{_MODEL_START} i:load_mode {_MODEL_MIDDLE} {_MODEL_END} b:load_mtp",  # 0.3.35
        f"{_MODEL_START} {_MODEL_MIDDLE} b:use_mmap b:use_direct_io b:use_mlock {_MODEL_END}",
    ),
    "llama_context_params": (
        f"{_CONTEXT_START} u:n_outputs_max_per_seq {_CONTEXT_END}",  # since 0.3.35
        f"{_CONTEXT_START} {_CONTEXT_END}",
    ),
    "llama_batch": ("i:n_tokens p:token p:embd p:pos p:n_seq_id p:seq_id p:logits",),
    "llama_chat_message": ("p:role p:content",),
}

#: What llama_model_default_params and llama_context_default_params give in every version that was tried, but zeros and null pointers.
#: A field that is not where the binding has it reads as something else.
DEFAULTS: Mapping[str, Mapping[str, float]] = {
    "llama_model_params": {
        "n_gpu_layers": -1, "split_mode": 1, "load_mode": -1, "lazy_mode": 1, "use_mmap": 1, "use_extra_bufts": 1,
    },
    "llama_context_params": {
        "n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "n_outputs_max_per_seq": 1, "n_threads": 4,
        "n_threads_batch": 4, "rope_scaling_type": -1, "pooling_type": -1, "attention_type": -1, "flash_attn_type": -1,
        "yarn_ext_factor": -1, "yarn_attn_factor": -1, "yarn_beta_fast": -1, "yarn_beta_slow": -1, "defrag_thold": -1,
        "type_k": 1, "type_v": 1, "offload_kqv": 1, "no_perf": 1, "op_offload": 1, "swa_full": 1,
    },
}  # fmt: skip

#: Result and arguments of every function of llama_cpp that is called here: v nothing, s a struct by value, the others as in `LAYOUTS`,
#: with i for any integer of four bytes and z for one of eight.
SIGNATURES: Mapping[str, str] = {
    "bp": "llama_model_has_decoder llama_model_has_encoder llama_model_is_hybrid llama_model_is_recurrent llama_vocab_get_add_bos "
    "llama_vocab_get_add_eos",
    "bpi": "llama_vocab_is_eog",
    "bpiii": "llama_memory_seq_rm",
    "ip": "llama_model_n_ctx_train llama_model_n_swa llama_n_batch llama_n_ctx llama_n_rs_seq llama_n_threads llama_n_threads_batch "
    "llama_n_ubatch llama_vocab_bos llama_vocab_eos llama_vocab_n_tokens llama_vocab_type",
    "ipi": "llama_memory_seq_pos_max llama_memory_seq_pos_min",
    "ipipiib": "llama_token_to_piece",
    "ippi": "llama_sampler_sample",
    "ippipibb": "llama_tokenize",
    "ippz": "llama_model_desc",
    "ippzbpi": "llama_chat_apply_template",
    "ips": "llama_decode llama_encode",
    "p": "llama_print_system_info llama_sampler_init_greedy",
    "pf": "llama_sampler_init_temp",
    "pfz": "llama_sampler_init_top_p",
    "pi": "llama_sampler_init_dist llama_sampler_init_top_k",
    "pp": "llama_get_logits llama_get_memory llama_get_model llama_model_get_vocab",
    "ppi": "llama_get_logits_ith llama_vocab_get_text",
    "ppp": "llama_model_chat_template",
    "pps": "llama_init_from_model llama_model_load_from_file",
    "ps": "llama_sampler_chain_init",
    "s": "llama_context_default_params llama_model_default_params llama_sampler_chain_default_params",
    "siii": "llama_batch_init",
    "spi": "llama_batch_get_one",
    "v": "llama_backend_init",
    "vi": "llama_numa_init",
    "vp": "llama_free llama_model_free llama_sampler_free llama_synchronize",
    "vpb": "llama_memory_clear",
    "vpiiii": "llama_memory_seq_cp",
    "vpp": "llama_log_set llama_sampler_chain_add",
    "vs": "llama_batch_free",
    "z": "llama_max_devices",
    "zp": "llama_model_n_params llama_model_size",
    "zpi": "llama_state_seq_get_size",
    "zpii": "llama_state_seq_get_size_ext",
    "zppzi": "llama_state_seq_get_data llama_state_seq_set_data",
    "zppzii": "llama_state_seq_get_data_ext llama_state_seq_set_data_ext",
}

#: Names of llama_cpp that are no functions.
OTHER_NAMES = (
    "__version__ LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY Llama ggml_backend_sched_eval_callback llama_log_callback llama_seq_id "
    "llama_token"
)

#: enum llama_load_mode of llama.h; before 0.3.35 there were the flags use_mmap, use_mlock and use_direct_io instead.
_LOAD_MODES = {"auto": -1, "none": 0, "mmap": 1, "mlock": 2, "mmap+mlock": 3, "dio": 4}

#: Versions whose RPC is another than the one in which `harness.host.rpc` greets. Source: RPC_PROTO_MAJOR_VERSION of ggml-rpc.h, 4 up to
#: 0.3.34, 5 in 0.3.35 and 7 in 0.3.36.
_OLDER_RPC = TRIED[:-1]

#: More than any struct that a library may return, so that one with more fields than its binding's writes over nothing.
_ROOM = 4096


def import_binding() -> None:
    """Import llama_cpp, so that whoever imports it next finds it there.

    Raises
    ------
    NativeError : it is not installed, or its library cannot be loaded or lacks functions.
    """
    try:
        importlib.import_module("llama_cpp")
    except ModuleNotFoundError as error:
        if error.name != "llama_cpp":
            raise NativeError(f"llama-cpp-python needs {error.name}, which is not installed; {_advise()}.") from error
        raise NativeError(f"llama-cpp-python is not installed; {_advise()}.") from error
    # Its loader raises OSError, RuntimeError and FileNotFoundError, its declarations AttributeError where the library lacks a function.
    except Exception as error:
        raise NativeError(
            f"llama-cpp-python cannot load its llama.cpp: {_shorten(str(error))}; {_advise()}."
        ) from error


def check_binding(binding: Any) -> None:
    """Refuse a binding that is laid out as none that was tried, or whose library does not do as it says.

    Raises
    ------
    NativeError : version found, versions tried, and what to do.
    """
    if trouble := find_trouble(binding):
        raise refuse(binding, trouble)


def refuse(binding: Any, trouble: str) -> NativeError:
    """The error for a binding that cannot be used, by the end of a sentence."""
    version = getattr(binding, "__version__", "of an unknown version")
    return NativeError(f"llama-cpp-python {version} {trouble}; {_advise()}.")


def find_trouble(binding: Any) -> str | None:
    """What keeps a binding from being used, as the end of a sentence; None where it will do."""
    for name, layouts in LAYOUTS.items():
        if not hasattr(binding, name):
            return f"has no {name}"
        struct = getattr(binding, name)
        if describe_struct(struct) not in [describe_struct(make_struct(layout)) for layout in layouts]:
            return f"has another {name} than harness knows"
    for signature, names in SIGNATURES.items():
        for name in names.split():
            if not hasattr(binding, name):
                return f"has no {name}"
            if describe_function(getattr(binding, name)) != signature:
                return f"has another {name} than harness knows"
    if lost := next((name for name in OTHER_NAMES.split() if not hasattr(binding, name)), None):
        return f"has no {lost}"
    for name in DEFAULTS:
        struct = getattr(binding, name)
        data, n_written = read_defaults(getattr(binding, name.replace("_params", "_default_params")), struct)
        if field := find_misread(name, struct, data, n_written):
            return f"does not fit the llama.cpp that it loads (the default of {field} in {name} is read wrongly)"
    return None


def is_tried(version: str) -> bool:
    """Whether a version is one of those that were built and run, and not only laid out as one of them."""
    return version in TRIED


def _advise() -> str:
    """What was tried, and what to do: a library that the environment names is not the binding's own (llama_cpp.py)."""
    if os.environ.get("LLAMA_CPP_LIB_PATH"):
        return "take LLAMA_CPP_LIB_PATH out of the environment, so that it loads the library that it was built with"
    return f"harness was tried with {TRIED[0]} to {TRIED[-1]}: pip install llama-cpp-python=={TRIED[-1]}"


def _shorten(text: str) -> str:
    """One line, without the folders of the paths in it."""
    return re.sub(r"(?:[A-Za-z]:)?[^\s'\"]*[/\\](?=[^\s'\"]*)", "", " ".join(text.split())).rstrip(".")


def make_struct(layout: str) -> type[ctypes.Structure]:
    """A struct of a layout."""
    fields = [item.split(":") for item in layout.split()]
    return type("Known", (ctypes.Structure,), {"_fields_": [(name, _KINDS[kind]) for kind, name in fields]})


def describe_struct(struct: type[ctypes.Structure]) -> list[tuple[str, int, int, bool]]:
    """Name, offset and size in bytes, and whether it is a fraction, of each field."""
    return [
        (item[0], getattr(struct, item[0]).offset, getattr(struct, item[0]).size, item[1] is ctypes.c_float)
        for item in struct._fields_
    ]


def describe_function(function: Any) -> str:
    """The kinds of a ctypes function's result and arguments, as in `SIGNATURES`; "?" for what is none."""
    arguments = getattr(function, "argtypes", None)
    if not isinstance(arguments, (tuple, list)):
        return "?"
    return "".join(map(_describe_type, (function.restype, *arguments)))


def _describe_type(kind: Any) -> str:
    if kind is None:
        return "v"
    if issubclass(kind, ctypes.Structure):
        return "s"
    letter = getattr(kind, "_type_", None)
    if not isinstance(letter, str) or letter in "zZPO":
        return "p"
    if letter in "?fd":
        return {"?": "b", "f": "f", "d": "d"}[letter]
    return {1: "c", 2: "h", 4: "i", 8: "z"}[ctypes.sizeof(kind)]


def read_defaults(function: Any, struct: type[ctypes.Structure]) -> tuple[bytes, int | None]:
    """What a function returns by value, and how many bytes of it the library wrote; None where that cannot be told.

    On x86-64 the caller's address for a result of more than 16 bytes is an argument before all others, and the result is what lies
    there: System V ABI, AMD64 supplement, 3.2.3; Microsoft's x64 calling convention, "Return values". Other calling conventions have
    it elsewhere, so there the function is called as it is declared, with room for more than its binding knows of.
    """
    address = ctypes.cast(function, ctypes.c_void_p).value or 0
    if platform.machine().lower() in ("x86_64", "amd64") and ctypes.sizeof(ctypes.c_void_p) == 8:
        fill = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
        found = []
        for before in (b"\x00", b"\xff"):
            room = ctypes.create_string_buffer(before * _ROOM, _ROOM)
            fill(ctypes.addressof(room))
            found.append(room.raw)
        return found[0], max((at + 1 for at in range(_ROOM) if found[0][at] == found[1][at]), default=0)

    class Roomy(ctypes.Structure):
        _fields_ = (("struct", struct), ("room", ctypes.c_char * _ROOM))

    return bytes(ctypes.CFUNCTYPE(Roomy)(address)().struct), None


def find_misread(name: str, struct: type[ctypes.Structure], data: bytes, n_written: int | None) -> str | None:
    """The first field whose default is not the known one, or "a field behind the last" where the library's struct has another size."""
    values = struct.from_buffer_copy(data[: ctypes.sizeof(struct)])
    for field, *_ in struct._fields_:
        value = getattr(values, field)
        # Pointers and callbacks are null by default, whatever their type.
        number = value if isinstance(value, (int, float)) else int(bool(value))
        if number != DEFAULTS[name].get(field, 0):
            return field
    last = getattr(struct, struct._fields_[-1][0])
    if n_written is not None and not last.offset + last.size <= n_written <= ctypes.sizeof(struct):
        return "a field behind the last"
    return None


def check_rpc(version: str) -> None:
    """Refuse RPC to a version that speaks another one.

    Raises
    ------
    NativeError : version found, and what to do.
    """
    if version in _OLDER_RPC:
        raise NativeError(
            f"llama-cpp-python {version} speaks an older RPC than harness; leave out --rpc, or take the newer one: pip install "
            f"llama-cpp-python=={TRIED[-1]}."
        )


def set_load_mode(parameters: Any, mode: str) -> None:
    """Have a model read by one of `spec.LOAD_MODES`.

    Source: llama_model_params in llama.h; llama_model_loader in llama-model-loader.cpp, where direct I/O goes before mmap.
    """
    if hasattr(parameters, "load_mode"):
        parameters.load_mode = _LOAD_MODES[mode]
        return
    parameters.use_mmap = mode in ("auto", "mmap", "mmap+mlock")
    parameters.use_mlock = mode in ("mlock", "mmap+mlock")
    parameters.use_direct_io = mode == "dio"
