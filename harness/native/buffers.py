"""Where llama.cpp's buffers lie: found on the tensors of a graph as it is computed, since no other function gives their addresses."""

from __future__ import annotations

import ctypes

import llama_cpp

from harness.host.process_memory import count_resident_bytes
from harness.memory.causes import CACHE_CAUSES, HOST, Cause
from harness.memory.resident import NativeBuffer, cause_of_log, device_of_buffer
from harness.native.bindings import Tensor, knows_layout
from harness.native.engine import LoadedModel, Session
from harness.records.cells import Buffer, group_servers
from harness.spec import RunSpec

#: enum ggml_backend_buffer_usage of ggml-backend.h.
_USAGE_WEIGHTS, _USAGE_COMPUTE = 1, 2


def _is_of(seen: Cause | None, cause: Cause) -> bool:
    """Whether a buffer that was seen may be one of the log; which kind of cache it is, only the log says."""
    return seen is cause or (seen is Cause.KV and cause in CACHE_CAUSES.values() and cause is not Cause.RECURRENT)


class WatchedSession(Session):
    """A session that notes, for each tensor of the graphs that it computes, which buffer it lies in.

    The callback declines every node, so llama.cpp computes as it would without one.
    """

    def __init__(self, model: LoadedModel, spec: RunSpec) -> None:
        self._runtime, self._native = model.runtime, model.runtime.lib
        self._seen: dict[int, str] = {}  # pointer of a buffer → name of a tensor in it
        self._layout_is_known: bool | None = None
        self._callback = llama_cpp.ggml_backend_sched_eval_callback(self._watch)
        super().__init__(model, spec, eval_callback=self._callback)

    def _watch(self, node: int, ask: bool, _user_data: object) -> bool:
        if self._layout_is_known is None:
            self._layout_is_known = knows_layout(self._native, node)
        if self._layout_is_known:
            tensor = Tensor.from_address(node)
            self._note(tensor)
            for source in tensor.src:
                if source:
                    self._note(Tensor.from_address(source))
        return not ask

    def _note(self, tensor: Tensor) -> None:
        if tensor.buffer and (tensor.buffer not in self._seen or tensor.name.startswith(b"cache_")):
            self._seen[tensor.buffer] = tensor.name.decode("utf-8", "replace")

    def locate(self, logged: tuple[Buffer, ...]) -> tuple[NativeBuffer, ...]:
        """Say of each buffer of the log how much of it is in memory, as far as its address was seen.

        Buffers are told apart by cause, device and the 0.01 MiB of their logged size.
        """
        ranges = [*self._seen_ranges(), *self._output_range(logged)]
        servers = group_servers([device for _, device in self._runtime.list_devices()])
        found = []
        for buffer in logged:
            cause, device = cause_of_log(buffer.cause, buffer.buffer), device_of_buffer(buffer.buffer, servers)
            resident, size = None, buffer.size_bytes
            for item in ranges:
                if device == HOST and _is_of(item[0], cause) and abs(item[2] - buffer.size_bytes) <= 0.006 * 1024**2:
                    ranges.remove(item)
                    # An output buffer's own size is not to be had: the log's is taken.
                    size = item[2]
                    resident = None if cause == Cause.MAPPED else count_resident_bytes(item[1], item[2])
                    break
            found.append(NativeBuffer(cause, device, buffer.buffer, size, resident))
        return tuple(found)

    def _seen_ranges(self) -> list[tuple[Cause | None, int, int]]:
        """(cause, address, size) of the host buffers that were seen."""
        lib, ranges = self._native, []
        for pointer, tensor_name in self._seen.items():
            if lib.ggml_backend_buffer_is_host(pointer) or self._name(pointer).endswith(("_REPACK", "AMX")):
                start, size = lib.ggml_backend_buffer_get_base(pointer), lib.ggml_backend_buffer_get_size(pointer)
                ranges.append((self._cause(pointer, tensor_name), start or 0, size))
        return ranges

    def _name(self, pointer: int) -> str:
        name: bytes = self._native.ggml_backend_buffer_name(pointer)
        return name.decode()

    def _cause(self, pointer: int, tensor_name: str) -> Cause | None:
        usage = self._native.ggml_backend_buffer_get_usage(pointer)
        if usage == _USAGE_WEIGHTS:
            return cause_of_log("model", self._name(pointer))
        if usage == _USAGE_COMPUTE:
            return Cause.COMPUTE
        if tensor_name.startswith(("cache_r", "cache_s", "cache_ple")):
            return Cause.RECURRENT
        return Cause.KV if tensor_name.startswith("cache_") else None

    def _output_range(self, buffers: tuple[Buffer, ...]) -> list[tuple[Cause | None, int, int]]:
        """The buffer of the logits, which begins with them. Source: llama-context.cpp output_reserve."""
        logged = [item for item in buffers if item.cause == "output"]
        logits = llama_cpp.llama_get_logits(self.context)
        if not logged or not logits:
            return []
        return [(Cause.OUTPUT, ctypes.cast(logits, ctypes.c_void_p).value or 0, logged[-1].size_bytes)]
