"""Watches llama.cpp compute a token, node by node, through the callback that its scheduler offers.

Watching costs: every node is computed on its own and waited for, so nothing is fused or overlapped. Nothing that is reported as a
speed may be timed with it on.

Source: ggml/src/ggml-backend.cpp ggml_backend_sched_compute_splits (the callback is asked before a node, and told after it).
"""

from __future__ import annotations

import ctypes
import time
from collections import Counter
from typing import Any

import llama_cpp

from harness.gguf.nodes import NAME_SEPARATOR, anonymize
from harness.native.bindings import Tensor, knows_layout

#: Operations that only relabel memory; asked about them, the observer declines, and they are computed with the next node.
_VIEWS = frozenset({"NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE"})


class Observer:
    """The callback of one context; `watch` switches it between observing and declining.

    Keep it alive as long as its context: a collected callback is a segmentation fault.
    """

    def __init__(self, lib: Any) -> None:
        self._lib = lib
        self.callback = llama_cpp.ggml_backend_sched_eval_callback(self._take)
        self._knows_layout: bool | None = None
        self._names: dict[int, str | None] = {}
        self._first_tensor = self._start_ns = 0
        self._observing = False
        self.forget()

    def forget(self) -> None:
        """Start the count of a token anew."""
        self.node_ns: Counter[str] = Counter()
        self.node_count: Counter[str] = Counter()
        self.first_ns = self.last_ns = 0

    def watch(self, on: bool) -> None:
        self._observing = on

    def _take(self, tensor: int, ask: bool, _user_data: object) -> bool:
        if not self._observing:
            return not ask
        if not ask:
            end_ns = time.perf_counter_ns()
            name = self._names[tensor]
            assert name is not None
            self.node_ns[name] += end_ns - self._start_ns
            self.node_count[name] += 1
            self.last_ns = end_ns
            return True
        if not self.first_ns:
            self.first_ns = time.perf_counter_ns()
            # A graph that was built anew begins elsewhere, and what lies at the old addresses is something else.
            if tensor != self._first_tensor:
                self._first_tensor = tensor
                self._names.clear()
        try:
            name = self._names[tensor]
        except KeyError:
            name = self._names[tensor] = self._name(tensor)
        if name is None:
            return False
        self._start_ns = time.perf_counter_ns()
        return True

    def _name(self, tensor: int) -> str | None:
        """Operation, node and the two things that it reads, without layer numbers; None for a view."""
        op = self._lib.ggml_op_desc(tensor).decode()
        if op in _VIEWS:
            return None
        if self._knows_layout is None:
            self._knows_layout = knows_layout(self._lib, tensor)
        sources = Tensor.from_address(tensor).src[:2] if self._knows_layout else ()
        parts = [op, self._text(tensor), *(self._text(source) if source else "" for source in sources)]
        return NAME_SEPARATOR.join(map(anonymize, parts))

    def _text(self, tensor: int) -> str:
        return ctypes.string_at(self._lib.ggml_get_name(tensor)).decode("utf-8", "replace")
