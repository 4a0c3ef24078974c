"""Finds operations that run elsewhere than their layer, by letting llama.cpp compute one token and looking where each result lies.

A backend that has no kernel for an operation leaves it to the CPU, and what it reads and writes is carried there and back for each
token. llama.cpp's log tells only into how many pieces that cuts the work.

Source: ggml-backend.cpp ggml_backend_sched_split_graph (a copy that is carried is called ``device#name#number``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import llama_cpp

from harness.memory.causes import HOST
from harness.memory.resident import device_of_buffer
from harness.native.bindings import Tensor, knows_layout
from harness.native.engine import LoadedModel, Session
from harness.native.log import list_layers
from harness.records.cells import Stray, group_servers
from harness.spec import RunSpec

#: The layer in the name of a node: ``kqv_out-3``, ``cache_k_l3 (view)``.
_LAYER = re.compile(r"(?:-|_l)(\d+)(?: \(.*\))?$")

#: Operations that compute nothing.
_VIEWS = frozenset({"NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE"})


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a graph: the device that its result lies on, and what was carried there: names of originals, bytes, addresses."""

    name: str
    operation: str
    device: str
    carried: tuple[tuple[str, int, int], ...] = ()


def find_strays(model: LoadedModel, spec: RunSpec) -> tuple[Stray, ...]:
    """Compute a token of a small context with a spec's settings, and say which operations of layers of a device ran elsewhere.

    Raises
    ------
    NativeError : there is no memory for such a context.
    """
    small = dataclasses.replace(spec, n_prompt=0, n_gen=1, n_depth=0, n_prefix=0, n_parallel=1, is_prompt_shared=False)
    listener = _Listener(model.runtime)
    with contextlib.closing(Session(model, small, eval_callback=listener.callback)) as session:
        for batch in session.token_batches(1):
            session.decode(batch)
        session.synchronize()
    return sum_up(listener.nodes, list_layers(model.log))


def sum_up(nodes: Sequence[Node], layers: Mapping[int, str]) -> tuple[Stray, ...]:
    """Operations by kind and device, the dearest first; layers has each one's device."""
    kinds: dict[tuple[str, str], list[tuple[int, Node]]] = {}
    others: dict[int, tuple[str, int]] = {}  # what was carried to nodes that run where they should, by address
    for layer, node in _with_layers(nodes):
        if layer is not None and layers.get(layer, HOST) not in (HOST, node.device):
            kinds.setdefault((node.operation, node.device), []).append((layer, node))
        else:
            others |= {address: (_base(name), size) for name, size, address in node.carried}
    found = []
    for (operation, device), members in kinds.items():
        there = {address: size for _, node in members for _, size, address in node.carried}
        names = {_base(node.name) for _, node in members}
        back = sum(size for name, size in others.values() if name in names)
        n_layers = len({layer for layer, _ in members})
        found.append(Stray(operation, device, n_layers, sum(there.values()) + back))
    return tuple(sorted(found, key=lambda stray: (-stray.copied_bytes, -stray.n_layers, stray.operation)))


def _with_layers(nodes: Sequence[Node]) -> Iterator[tuple[int | None, Node]]:
    """Each node that computes something and its layer: the one in its name, or in that of the nodes before it."""
    layer: int | None = None
    for node in nodes:
        if node.name.startswith("result_"):
            layer = None
        elif match := _LAYER.search(node.name):
            layer = int(match[1])
        if node.operation not in _VIEWS:
            yield layer, node


def _base(name: str) -> str:
    """The name of a tensor without what its views add to it."""
    return name.split(" (")[0]


class _Listener:
    """The callback of one context, which declines every node, so that llama.cpp computes as it would without one."""

    def __init__(self, runtime: Any) -> None:
        self._lib = runtime.lib
        self._servers = group_servers([device for _, device in runtime.list_devices()])
        self._knows_layout: bool | None = None
        self.nodes: list[Node] = []
        self.callback = llama_cpp.ggml_backend_sched_eval_callback(self._take)

    def _take(self, pointer: int, ask: bool, _user_data: object) -> bool:
        if self._knows_layout is None:
            self._knows_layout = knows_layout(self._lib, pointer)
        if ask and self._knows_layout:
            self._note(pointer)
        return not ask

    def _note(self, pointer: int) -> None:
        tensor = Tensor.from_address(pointer)
        if not tensor.buffer:
            return
        device = device_of_buffer(self._lib.ggml_backend_buffer_name(tensor.buffer).decode(), self._servers)
        carried = []
        for source in filter(None, tensor.src):
            name = Tensor.from_address(source).name.decode("utf-8", "replace")
            if name.count("#") >= 2:
                carried.append((name.split("#")[1], self._lib.ggml_nbytes(source), source))
        operation = self._lib.ggml_op_desc(pointer).decode()
        self.nodes.append(Node(tensor.name.decode("utf-8", "replace"), operation, device, tuple(carried)))
