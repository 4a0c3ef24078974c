"""llama.cpp in this process: a runtime, a loaded model, and a session that `harness.native.measure` can time.

Each class owns what it gets from C and frees it once; nothing here decides what a failure means for the run.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import llama_cpp
import psutil

from harness.errors import NativeError, UsageError
from harness.gguf.split import list_parts
from harness.gguf.types import tensor_type
from harness.host.rpc import check_servers
from harness.host.scheduling import free_threads, read_cpus, set_priority
from harness.native import batches, bindings, sequences, versions
from harness.native.buffer_overrides import list_overrides
from harness.native.log import (
    Tape,
    read_buffers,
    read_flash_attention,
    read_layers,
    read_load_mode,
    read_missing_kernels,
    read_splits,
    read_unlocked,
)
from harness.native.threads import Threads, check_mask, list_threads
from harness.native.wheels import is_prebuilt, read_wheel_tag
from harness.records.cells import Build, Device, Model, Resolved
from harness.records.native_errors import explain
from harness.spec import RunSpec

# enum llama_split_mode, llama_flash_attn_type of llama.h; ggml_numa_strategy of ggml-cpu.h.
_SPLIT_MODES = {"none": 0, "layer": 1, "row": 2, "tensor": 3}
_FLASH_MODES = {"auto": -1, "off": 0, "on": 1}
_NUMA_STRATEGIES = {"disabled": 0, "distribute": 1, "isolate": 2, "numactl": 3}

#: RPC servers that have greeted must have told their devices and memory by then.
ATTACH_TIMEOUT_S = 20.0


class Runtime:
    """The library itself: initialised once a process, with its log on tape."""

    def __init__(self, *, log_to_stderr: bool = True) -> None:
        versions.check_binding(llama_cpp)
        self.lib = bindings.library()
        package = pathlib.Path(llama_cpp.__file__).parent
        self._wheel_tag = read_wheel_tag(package)
        self._is_prebuilt = is_prebuilt(self._wheel_tag, getattr(llama_cpp.llama_cpp, "_base_path", package / "lib"))
        self.tape = Tape(to_stderr=log_to_stderr)
        #: RPC servers whose devices this process knows; ggml cannot forget them.
        self.rpc: tuple[str, ...] = ()
        self.give_up: Callable[[str], None] | None = None  # says a sentence and ends the process, from any thread
        #: What was asked of this process once and for all: its strategy for NUMA and its priority; None before the first model.
        self.nature: tuple[str, int] | None = None
        self.cpus, self._is_bound = read_cpus(), False  #: those that this process may use
        llama_cpp.llama_backend_init()

    def describe(self) -> Build:
        """Version, commit, compiled-in features and devices of what is loaded."""
        lib = self.lib
        return Build(
            llama_cpp_python=llama_cpp.__version__,
            ggml_version=lib.ggml_version().decode(),
            ggml_commit=lib.ggml_commit().decode(),
            system_info=llama_cpp.llama_print_system_info().decode().strip(" |"),
            backends=tuple(self._backend_names()),
            devices=tuple(device for _, device in self.list_devices()),
            wheel_tag=self._wheel_tag,
            is_prebuilt=self._is_prebuilt,
            is_untried=not versions.is_tried(llama_cpp.__version__),
        )

    def _backend_names(self) -> list[str]:
        """Registered backends; RPC only where it has a device. Source: test::get_backend in llama-bench.cpp."""
        lib = self.lib
        registries = [lib.ggml_backend_reg_get(i) for i in range(lib.ggml_backend_reg_count())]
        names = [(lib.ggml_backend_reg_name(reg).decode(), lib.ggml_backend_reg_dev_count(reg)) for reg in registries]
        return [name for name, n_devices in names if not name.startswith("RPC") or n_devices]

    def list_devices(self) -> list[tuple[int, Device]]:
        """Everything that ggml sees, each with its handle."""
        pointers = [self.lib.ggml_backend_dev_get(index) for index in range(self.lib.ggml_backend_dev_count())]
        return [(pointer, self._device(pointer)) for pointer in pointers]

    def _device(self, pointer: int) -> Device:
        lib, free, total = self.lib, ctypes.c_size_t(), ctypes.c_size_t()
        lib.ggml_backend_dev_memory(pointer, ctypes.byref(free), ctypes.byref(total))
        return Device(
            name=lib.ggml_backend_dev_name(pointer).decode(),
            description=lib.ggml_backend_dev_description(pointer).decode("utf-8", "replace"),
            kind=bindings.DEVICE_KINDS.get(lib.ggml_backend_dev_type(pointer), "unknown"),
            memory_free_bytes=free.value or None,
            memory_total_bytes=total.value or None,
        )

    def attach_rpc(self, endpoints: Sequence[str]) -> None:
        """Make sure that the devices of these servers, and of no others, are known; costs a greeting each time.

        Raises
        ------
        NativeError : a server is missing or of another version, this llama.cpp has no RPC, or the process knows other servers.
        """
        if self.rpc and self.rpc != tuple(endpoints):
            raise NativeError(f"This process already uses the devices of {', '.join(self.rpc)}; start a new one.")
        if not endpoints:
            return
        add_server, _ = bindings.rpc_functions(self.lib)
        check_servers(endpoints)
        if self.rpc:
            return
        with self._limit_wait(endpoints):
            for endpoint in endpoints:
                registry = add_server(endpoint.encode())
                if not registry:
                    raise NativeError(f"The RPC server at {endpoint} has no devices; start it with --device.")
                self.lib.ggml_backend_register(registry)
            self.rpc = tuple(endpoints)
            self.list_devices()  # asks each of them for its memory

    @contextlib.contextmanager
    def _limit_wait(self, endpoints: Sequence[str]) -> Iterator[None]:
        """End this process by `give_up`, where there is one, if servers do not answer in time: ggml itself waits for ever."""
        if self.give_up is None:
            yield
            return
        sentence = f"{', '.join(endpoints)} greeted and then gave no answer within {ATTACH_TIMEOUT_S:g} s; start the RPC server again."
        timer = threading.Timer(ATTACH_TIMEOUT_S, self.give_up, (sentence,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def find_devices(self, names: Sequence[str], *, with_cpu: bool = False) -> list[int]:
        """Pointers of devices by name.

        Raises
        ------
        UsageError : there is no such device, with the names of those that there are.
        """
        known = {device.name: pointer for pointer, device in self.list_devices() if with_cpu or device.kind != "cpu"}
        for name in names:
            if name not in known:
                there = f"there are {', '.join(known)}" if known else "there are none; `harness devices` says why"
                raise UsageError(f"There is no device {name} to use; {there}.")
        return [known[name] for name in names]

    def free_on_cards(self) -> int | None:
        """Free memory of all devices that layers can go to, in bytes; None where there are none or none of them says."""
        free = [device.memory_free_bytes for _, device in self.list_devices() if device.kind != "cpu"]
        known = [size for size in free if size is not None]
        return sum(known) if known else None

    def settle(self, spec: RunSpec) -> None:
        """Make this process what a spec needs of it, which cannot be taken back: a strategy for NUMA, a priority.

        Raises
        ------
        NativeError : the system does not allow the priority, or the process was made another one.

        Source: llama_bench in llama-bench.cpp (llama_numa_init, set_process_priority).
        """
        nature = spec.numa, spec.priority
        if self.nature == nature:
            return
        if self.nature is not None:
            raise NativeError("This process has another priority or strategy for NUMA already; start a new one.")
        if reason := set_priority(spec.priority):
            raise NativeError(
                f"The system does not allow --prio {spec.priority} ({reason}); run as somebody who may raise priorities, or leave "
                "it out.",
                reason=reason,
            )
        llama_cpp.llama_numa_init(_NUMA_STRATEGIES[spec.numa])
        self.nature = nature

    def bind(self, spec: RunSpec) -> None:
        """Before a cell computes: have threads that an earlier cell kept to some CPUs use all of ours again, where it asks for none.

        Threads of OpenMP are everybody's and keep what they were bound to; without it each pool has its own, and only the main thread
        goes from one to another. Source: ggml-cpu.c ggml_graph_compute, ggml_threadpool_new_impl.
        """
        if self._is_bound and not spec.binds_threads:
            free_threads(self.cpus, all_threads=b"OPENMP = 1" in llama_cpp.llama_print_system_info())
        self._is_bound = spec.binds_threads

    def make_pool(self, threads: Threads) -> Any:
        """Threads that several contexts can share; None where they cannot be had."""
        return make_pool(self.lib, threads)

    def pause_pool(self, pool: Any) -> None:
        """Have its threads sleep until the next graph; without it they spin on for a while."""
        self.lib.ggml_threadpool_pause(pool)

    def free_pool(self, pool: Any) -> None:
        self.lib.ggml_threadpool_free(pool)

    def load(self, spec: RunSpec) -> LoadedModel:
        self.settle(spec)
        self.attach_rpc(spec.rpc)
        return LoadedModel(self, spec)


def make_pool(lib: Any, threads: Threads) -> Any:
    """A pool of threads as llama-bench makes them; None where it cannot be had."""
    parameters = lib.ggml_threadpool_params_default(threads.count)
    parameters.poll, parameters.prio, parameters.strict_cpu = threads.poll, threads.priority, threads.is_strict
    for cpu in threads.cpus:
        parameters.cpumask[cpu] = True
    return lib.ggml_threadpool_new(ctypes.byref(parameters))


def _refusal(what: str, tape: Tape) -> NativeError:
    """The error for what llama.cpp would not do, with the reason that its log gives."""
    said = explain(tape.lines)
    reason = said.text if said else tape.last_error() or "the log gives no reason"
    return NativeError(f"llama.cpp {what}: {reason}.", reason=reason, trouble=said.trouble if said else None)


class LoadedModel:
    """A model with the load parameters of a spec.

    Raises
    ------
    NativeError : llama.cpp refused the file, with the reason from its log.
    """

    def __init__(self, runtime: Runtime, spec: RunSpec) -> None:
        self.runtime = runtime
        self._file = spec.model
        runtime.tape.rewind()
        parameters = self._parameters(spec)
        start = time.perf_counter_ns()
        self.pointer = llama_cpp.llama_model_load_from_file(os.fsencode(spec.model), parameters)
        self.load_duration_ns = time.perf_counter_ns() - start
        if not self.pointer:
            raise _refusal(f"cannot load {os.path.basename(spec.model)}", runtime.tape)
        self.log = tuple(runtime.tape.lines)

    def _parameters(self, spec: RunSpec) -> Any:
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = spec.n_gpu_layers
        parameters.split_mode = _SPLIT_MODES[spec.split_mode]
        parameters.main_gpu = spec.main_gpu
        versions.set_load_mode(parameters, spec.load_mode)
        parameters.no_host, parameters.use_extra_bufts = spec.no_host, spec.repack
        n_devices = llama_cpp.llama_max_devices()
        if len(spec.tensor_split) > n_devices:
            raise NativeError(f"-ts names {len(spec.tensor_split)} devices, llama.cpp takes {n_devices}; name fewer.")
        self._split = (ctypes.c_float * n_devices)(*spec.tensor_split)
        parameters.tensor_split = self._split
        if spec.devices:
            self._devices = self._list_devices(spec.devices)
            parameters.devices = ctypes.cast(self._devices, ctypes.c_void_p)
        if spec.n_cpu_moe or spec.override_tensors:
            self._overrides = list_overrides(self.runtime, spec)
            parameters.tensor_buft_overrides = ctypes.cast(self._overrides, ctypes.c_void_p)
        return parameters

    def _list_devices(self, names: Sequence[str]) -> Any:
        """A NULL-terminated list, empty for ``none``. Source: parse_devices_arg in llama-bench.cpp."""
        pointers = [] if tuple(names) == ("none",) else self.runtime.find_devices(names)
        return (ctypes.c_void_p * (len(pointers) + 1))(*pointers, None)

    def open(self, spec: RunSpec, pools: Pools | None = None) -> Session:
        return Session(self, spec, pools=pools)

    def describe(self) -> Model:
        text = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self.pointer, text, 256)
        return Model(
            file_name=os.path.basename(self._file),
            description=text.value.decode("utf-8", "replace"),
            size_bytes=llama_cpp.llama_model_size(self.pointer),
            n_params=llama_cpp.llama_model_n_params(self.pointer),
            file_size_bytes=sum(map(os.path.getsize, list_parts(self._file))),
        )

    def close(self) -> None:
        if self.pointer:
            llama_cpp.llama_model_free(self.pointer)
            self.pointer = None


#: Threads of single tokens, and those of batches, None where they are the same.
Pools = tuple[Any, Any | None]


class Session:
    """A context with its threads: the Engine of `harness.native.measure`.

    pools are another session's, which it then shares: the threads of a second one would spin while the first computes. eval_callback
    is asked before each node of a graph; whoever gives it keeps it alive. n_rs_seq is how many tokens a recurrent state can be taken
    back, where the architecture has that (`llama_n_rs_seq` says).

    Raises
    ------
    NativeError : the context could not be made (memory, cache type, flash attention), with the reason from the log.
    """

    def __init__(
        self,
        model: LoadedModel,
        spec: RunSpec,
        *,
        pools: Pools | None = None,
        eval_callback: Any = None,
        n_rs_seq: int = 0,
    ) -> None:
        self._model, self._spec, self._lib = model, spec, model.runtime.lib
        check_mask(spec, model.runtime.cpus)
        tape = model.runtime.tape
        tape.rewind()
        parameters = self._parameters(spec)
        if eval_callback is not None:
            parameters.cb_eval = eval_callback
        parameters.n_rs_seq = n_rs_seq
        start = time.perf_counter_ns()
        self.context = llama_cpp.llama_init_from_model(model.pointer, parameters)
        self.context_duration_ns = time.perf_counter_ns() - start
        if not self.context:
            raise _refusal(f"cannot make a context of {spec.n_ctx} tokens", tape)
        self.log = tuple(tape.lines)
        self._own_pools: list[Any] = []
        self.pools = pools or self._make_pools()
        self._lib.llama_attach_threadpool(self.context, *self.pools)
        self.vocab = llama_cpp.llama_model_get_vocab(model.pointer)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self._random = random.Random(spec.seed)
        if self.n_vocab < 1:
            self.close()
            raise NativeError("This model has no vocabulary to draw tokens from; take one that has.")
        # An encoder's graph is run by a function of its own; llama_decode of such a model wants the text encoded before.
        has_encoder = llama_cpp.llama_model_has_encoder(model.pointer)
        self._decode = llama_cpp.llama_encode if has_encoder else llama_cpp.llama_decode
        self._synchronize = llama_cpp.llama_synchronize

    @staticmethod
    def _parameters(spec: RunSpec) -> Any:
        """Source: to_llama_cparams in llama-bench.cpp; for several sequences main in batched-bench.cpp."""
        assert spec.n_threads is not None, "threads are filled in before a spec reaches the engine"
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = spec.n_ctx
        parameters.n_batch, parameters.n_ubatch = spec.n_batch, spec.n_ubatch
        parameters.n_threads = spec.n_threads
        parameters.n_threads_batch = spec.n_threads_of_batch
        parameters.type_k = tensor_type(spec.type_k).type_id
        parameters.type_v = tensor_type(spec.type_v).type_id
        parameters.offload_kqv, parameters.op_offload = not spec.no_kv_offload, not spec.no_op_offload
        parameters.flash_attn_type = _FLASH_MODES[spec.flash_attn]
        parameters.swa_full = spec.swa_full
        parameters.n_seq_max, parameters.kv_unified = spec.n_parallel, spec.kv_unified
        parameters.embeddings = spec.embeddings
        return parameters

    def _make_pools(self) -> Pools:
        """Threads for the context's whole life; without them, ggml makes and joins some at each decode."""
        single, batch = list_threads(self._spec)
        return self._make_pool(single), batch and self._make_pool(batch)

    def _make_pool(self, threads: Threads) -> Any:
        pool = make_pool(self._lib, threads)
        if not pool:
            self.close()
            raise NativeError(f"llama.cpp cannot start {threads.count} threads; ask for fewer with -t.")
        self._own_pools.append(pool)
        return pool

    # What harness.native.measure asks for.

    def prompt_batches(self, n_tokens: int) -> Sequence[Any]:
        n_prompts = self._n_read
        if n_prompts == 1:
            return batches.cut(self.random_tokens(n_tokens), self._spec.n_batch)
        return batches.join_prompts(self._draw(n_prompts * n_tokens), n_prompts, self._spec.n_batch)

    def token_batches(self, n_tokens: int) -> Sequence[Any]:
        n_sequences = self._spec.n_parallel
        if n_sequences == 1:
            return batches.cut(self.random_tokens(n_tokens), 1)
        return batches.join_steps(self._draw(n_sequences * n_tokens), n_sequences)

    def share(self) -> None:
        sequences.copy_first(self.context, self._spec.n_parallel, self._step, is_unified=self._spec.kv_unified)

    def go_back(self, n_tokens: int) -> bool:
        return sequences.go_back(self.context, n_tokens, swa_full=self._spec.swa_full)

    @property
    def forgets_in_state(self) -> bool:
        return sequences.forgets_in_state(self.context, swa_full=self._spec.swa_full)

    def _step(self) -> None:
        """Compute one token of the first sequence."""
        self.decode(batches.cut(self.random_tokens(1), 1)[0])
        self.synchronize()

    def decode(self, batch: Any) -> None:
        if self._decode(self.context, batch) != 0:
            raise _refusal(f"refused to decode {batch.n_tokens} tokens", self._model.runtime.tape)

    def synchronize(self) -> None:
        self._synchronize(self.context)

    def clear(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), False)

    def save_state(self) -> Any:
        return sequences.save(self.context, self._n_read)

    def restore_state(self, state: Any) -> bool:
        return sequences.restore(self.context, state)

    @property
    def _n_read(self) -> int:
        """The sequences that read a prompt of their own."""
        return 1 if self._spec.is_prompt_shared else self._spec.n_parallel

    def random_tokens(self, n_tokens: int) -> Any:
        """BOS where the model wants one, then random ids. Source: test_prompt and test_gen in llama-bench.cpp."""
        tokens = (llama_cpp.llama_token * n_tokens)(*self._draw(n_tokens))
        if n_tokens and llama_cpp.llama_vocab_get_add_bos(self.vocab):
            tokens[0] = llama_cpp.llama_vocab_bos(self.vocab)
        return tokens

    def _draw(self, n_tokens: int) -> list[int]:
        return self._random.choices(range(self.n_vocab), k=n_tokens)

    # What the record asks for.

    def describe(self) -> Resolved:
        """What really runs, from the context and the log."""
        context, lines = self.context, self._model.log + self.log
        buffers, (of_token, of_batch) = read_buffers(lines), read_splits(self.log)
        return Resolved(
            n_ctx=llama_cpp.llama_n_ctx(context),
            n_batch=llama_cpp.llama_n_batch(context),
            n_ubatch=llama_cpp.llama_n_ubatch(context),
            n_threads=llama_cpp.llama_n_threads(context),
            n_threads_batch=llama_cpp.llama_n_threads_batch(context),
            flash_attn=read_flash_attention(self.log),
            load_mode=read_load_mode(self._model.log),
            layers_by_device=read_layers(self._model.log),
            repacked_bytes=sum(item.size_bytes for item in buffers if item.buffer.endswith("_REPACK")),
            buffers=buffers,
            n_graph_splits=of_token,
            n_graph_splits_batch=of_batch,
            missing_kernels=read_missing_kernels(self.log),
            is_unlocked=read_unlocked(self._model.log),
        )

    def close(self) -> None:
        if self.context:
            llama_cpp.llama_free(self.context)
            self.context = None
        while self._own_pools:
            self._lib.ggml_threadpool_free(self._own_pools.pop())


def resident_bytes() -> int:
    """Resident memory of this process."""
    return psutil.Process().memory_info().rss
