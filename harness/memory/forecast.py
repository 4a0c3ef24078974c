"""What a model takes in memory, by cause and by device, from its header alone: weights, second copies, caches and states.

Pure arithmetic, the same that llama.cpp does when it loads. Compute and output buffers depend on the graph; they come from a dry run
(`harness.native.jobs.dry_run`). The rules are those of llama.cpp 0c1e570 (in llama-cpp-python 0.3.36).
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from harness.codec import Signed
from harness.errors import HarnessError
from harness.gguf.attention import describe_attention
from harness.gguf.blocks import count_layers, loaded_tensors
from harness.gguf.caches import Attention, Kept, round_context
from harness.gguf.header import Header, Tensor
from harness.gguf.roles import FFN_DOWN, TOKEN_EMBEDDING, Place, Role, find_role
from harness.gguf.settings import read_count, read_per_layer
from harness.gguf.types import pad, tensor_type
from harness.memory.causes import CACHE_CAUSES, HOST, Cause, Note, Part, Remark
from harness.memory.overrides import Home, check_overrides, find_home
from harness.memory.placement import AnyDevice, choose_devices, deal_out, is_remote
from harness.memory.repack import OUTPUT_FIRST, CpuFeatures, Layout, find_layout, is_matrix_product, output_duplicate
from harness.parsers import split_override
from harness.spec import RunSpec

#: Source: ggml/src/ggml-impl.h TENSOR_ALIGNMENT.
_CPU_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class Line:
    """Bytes that one cause takes on one device; buffer is llama.cpp's name of it (``CPU_REPACK``)."""

    cause: Cause
    device: str
    buffer: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class DeviceRules:
    """How a device's backend stores weights.

    alignment and row_elements are what a tensor's bytes, and a quantized tensor's first dimension, are rounded up to. has_host_buffer:
    it offers pinned host memory, which llama.cpp prefers to repacking for the layers that stay on the CPU. maps_file: weights stay
    in the mapped file (unified memory). memory_bytes is what the device has free, total_bytes all of it; None where it does not say.
    kind is ggml's: gpu, igpu or accel. buffer is ggml's name of its buffers, where that is not the device's.
    """

    name: str
    alignment: int = 128
    row_elements: int = 1
    has_host_buffer: bool = True
    maps_file: bool = False
    maps_by_default: bool = True
    memory_bytes: int | None = None
    total_bytes: int | None = None
    kind: str = "gpu"
    buffer: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "buffer", self.buffer or self.name)


def device_rules(
    name: str, kind: str = "gpu", memory_bytes: int | None = None, total_bytes: int | None = None, buffer: str = ""
) -> DeviceRules:
    """Look up a device's rules by the name that ggml gives it: ``CUDA0``, ``MTL0``, ``Vulkan0``, ``RPC0``, ….

    Source: ggml-cuda.cu ggml_backend_cuda_buffer_type_get_alignment, …_get_alloc_size (MATRIX_ROW_PADDING 512);
    ggml-metal.cpp, ggml-rpc.cpp, ggml-vulkan.cpp device props.
    """
    own = next((rules for names, rules in _BACKENDS.items() if name.startswith(names)), {})
    told: dict[str, Any] = {"kind": kind, "memory_bytes": memory_bytes, "total_bytes": total_bytes, "buffer": buffer}
    return DeviceRules(name, **{"maps_by_default": kind != "igpu", **told, **own})


#: What a backend does unlike most. RPC's servers run ggml's CPU backend; a GPU's there rounds up a little more.
_BACKENDS: dict[tuple[str, ...], dict[str, Any]] = {
    ("CUDA", "ROCm", "MUSA"): {"row_elements": 512},
    ("MTL", "Metal"): {"alignment": 32, "has_host_buffer": False, "maps_file": True, "maps_by_default": True},
    ("RPC",): {"alignment": _CPU_ALIGNMENT, "has_host_buffer": False, "maps_by_default": True},
}


class DeviceFacts(AnyDevice, Protocol):
    """What ggml says of a device, as `harness.records.cells.Device` holds it."""

    @property
    def description(self) -> str: ...
    @property
    def memory_free_bytes(self) -> int | None: ...
    @property
    def memory_total_bytes(self) -> int | None: ...


def list_rules(devices: Iterable[DeviceFacts]) -> tuple[DeviceRules, ...]:
    """The rules of all devices but the CPU, in ggml's order.

    Buffers behind a server are numbered there: ``RPC0[10.0.0.2:50052]`` is what the device RPC1 has. Source: ggml-rpc.cpp
    ggml_backend_rpc_buffer_type.
    """
    found, n_behind = [], Counter[str]()
    for device in devices:
        buffer = ""
        if is_remote(device):
            buffer = f"RPC{n_behind[device.description]}[{device.description}]"
            n_behind[device.description] += 1
        if device.kind != "cpu":
            sizes = device.memory_free_bytes, device.memory_total_bytes
            found.append(device_rules(device.name, device.kind, *sizes, buffer))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Host:
    """The machine for which memory is predicted, with all its devices but the CPU, of which `harness.memory.placement` chooses.

    features is None where the CPU's are not known, which leaves repacking unknown.
    """

    features: CpuFeatures | None
    devices: tuple[DeviceRules, ...] = ()

    def chosen(self, spec: RunSpec) -> Host:
        """The same machine with only the devices that llama.cpp would use, in its order.

        Raises
        ------
        UsageError : as `choose_devices`.
        """
        return replace(self, devices=choose_devices(self.devices, spec))


@dataclass(frozen=True, slots=True)
class Share:
    """What one cause contributes to resident memory, in bytes; negative where it takes back what another line counts too much."""

    cause: Cause
    size_bytes: Signed


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one context would take: llama.cpp's buffers, and the process around them (empty where no dry run was made)."""

    n_ctx: int
    lines: tuple[Line, ...]  #: llama.cpp's buffers
    runtime: tuple[Share, ...] = ()  #: the process around them
    interpreter_bytes: int | None = None
    flash_attn: bool | None = None
    notes: tuple[Note, ...] = ()

    def on(self, device: str) -> int:
        """All bytes on a device; in host memory with the process itself."""
        size = sum(line.size_bytes for line in self.lines if line.device == device)
        return size + self.runtime_bytes if device == HOST else size

    def of(self, kind: Cause | Part, device: str | None = None) -> int:
        """What a cause takes, or all causes of a part; the process with its interpreter."""
        if kind is Part.PROCESS:
            return 0 if self.interpreter_bytes is None else self.runtime_bytes
        return sum(
            line.size_bytes
            for line in self.lines
            if (line.cause is kind or line.cause.part is kind) and device in (None, line.device)
        )

    @property
    def runtime_bytes(self) -> int:
        """The process around llama.cpp's buffers."""
        return sum(share.size_bytes for share in self.runtime) + (self.interpreter_bytes or 0)

    @property
    def total_bytes(self) -> int:
        return sum(map(self.on, self.devices))

    @property
    def is_whole(self) -> bool:
        """Whether weights, cache and compute buffers are all known; a model without a cache has none to know."""
        return bool(self.of(Cause.COMPUTE)) and not any(note.remark.is_gap for note in self.notes)

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((HOST, *(line.device for line in self.lines))))


# --- weights ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Use:
    """One use of a tensor, and how a CPU would lay it out."""

    tensor: Tensor
    layout: Layout | None
    is_copy: bool  # another use of bytes that are in memory already


def _find_layers(role: Role, n_layers: int) -> tuple[int, ...] | None:
    """The layers that use a tensor; None for the input, which is always on the CPU."""
    if role.place is Place.OWN_LAYER:
        return (min(role.block or 0, n_layers - 1),)
    everywhere = tuple(range(n_layers))
    places = {Place.INPUT: None, Place.FIRST_LAYER: (0,), Place.EVERY_LAYER: everywhere, Place.OUTPUT: (n_layers,)}
    return places[role.place]


@dataclass(frozen=True, slots=True)
class _Sum:
    """What some tensors take in host memory or on a device: bytes copied and padded, or the spans that are mapped, by file."""

    copied_bytes: int = 0
    spans: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def mapped_bytes(self) -> int:
        """From the first byte to the last in each file, with whatever lies between.

        Source: llama-model-loader.cpp get_mapping_range.
        """
        return sum(last - first for first, last in self.spans.values())


def _weigh(tensor: Tensor, device: DeviceRules | None) -> _Sum:
    """What a tensor takes as a device stores it; None is host memory."""
    kind, size = tensor_type(tensor.type_name), tensor.size_bytes
    if device is not None and kind.block_elements > 1 and tensor.shape:
        size += -tensor.shape[0] % device.row_elements // kind.block_elements * kind.block_bytes
    padded = pad(size, _CPU_ALIGNMENT if device is None else device.alignment)
    return _Sum(padded, {tensor.part: (tensor.offset, tensor.offset + tensor.size_bytes)})


def _join(sums: Iterable[_Sum]) -> _Sum:
    copied, spans = 0, dict[int, tuple[int, int]]()
    for item in sums:
        copied += item.copied_bytes
        for part, (first, last) in item.spans.items():
            begin, end = spans.get(part, (first, last))
            spans[part] = (min(begin, first), max(end, last))
    return _Sum(copied, spans)


class _Group:
    """Tensors that always lie together: of one layer, of all layers, of the input, the experts of a layer, or what -ot put elsewhere.

    layers is None for the input, which is on the CPU unless it is put elsewhere. Sums are made once, so that many placements can be
    priced quickly.
    """

    def __init__(self, layers: tuple[int, ...] | None, expert_layer: int | None, home: int | Home | None) -> None:
        self.layers, self.expert_layer, self.home = layers, expert_layer, home
        self.uses: list[_Use] = []
        self._sums: dict[tuple[DeviceRules | None, bool], _Sum] = {}

    def weigh(self, device: DeviceRules | None, *, repack: bool = False) -> _Sum:
        """What it takes on a device; in host memory (None) a second use of what is there costs nothing, what is repacked is apart."""
        if (device, repack) not in self._sums:
            kept = (use for use in self.uses if device or not (use.is_copy or (repack and use.layout)))
            self._sums[device, repack] = _join(_weigh(use.tensor, device) for use in kept)
        return self._sums[device, repack]

    @functools.cached_property
    def repacked(self) -> Counter[str]:
        """Bytes of second copies, by buffer."""
        found: Counter[str] = Counter()
        for layout in filter(None, (use.layout for use in self.uses)):
            found[layout.buffer] += pad(layout.size_bytes, _CPU_ALIGNMENT)
        return found

    def homes(self, spec: RunSpec, placement: Sequence[int | None]) -> set[int | None]:
        """The devices at hand that hold these tensors; what is put into host memory is laid out as the CPU's layers are.

        Source: LLM_FFN_EXPS_REGEX in common/common.h; llama-model-loader.cpp create_tensor (buft_list_cpu for such overrides).
        """
        if self.home is Home.ELSEWHERE:
            return set()
        if self.home is not Home.ITS_LAYER:
            return {self.home}
        if self.layers is None or (self.expert_layer is not None and self.expert_layer < spec.n_cpu_moe):
            return {None}
        return {placement[layer] for layer in self.layers}


class WeightPlan:
    """A model's weights, prepared so that many placements can be priced quickly; host has the devices that were chosen.

    overrides is a spec whose -ot and --no-host hold for all that are priced; None where none has any.
    """

    def __init__(self, header: Header, host: Host, overrides: RunSpec | None = None) -> None:
        self.n_layers = count_layers(header)
        self._host = host
        is_pinned = overrides is None or not overrides.no_host
        named = () if overrides is None else tuple(map(split_override, overrides.override_tensors))
        # llama.cpp asks for a device's pinned memory before it asks for repacking, and with a mapped file takes neither.
        self._pinned = next((item.name for item in host.devices if item.has_host_buffer and is_pinned), None)
        features = None if self._pinned else host.features
        groups: dict[tuple[Any, int | None, int | Home | None], _Group] = {}
        duplicate = output_duplicate(header)
        for tensor in filter(None, (*loaded_tensors(header), duplicate)):
            role = find_role(tensor.name)
            # llama.cpp asks for the output by the name that is in the file.
            home = find_home(TOKEN_EMBEDDING if tensor is duplicate else tensor.name, named, host.devices)
            layout = None if features is None else find_layout(tensor, features)
            use = _Use(tensor, layout, tensor is duplicate and header.architecture not in OUTPUT_FIRST)
            if use.is_copy and isinstance(home, int):
                continue  # both uses were put on the same device
            key = (_find_layers(role, self.n_layers), role.block if role.is_stack else None, home)
            groups.setdefault(key, _Group(*key)).uses.append(use)
        self._groups = list(groups.values())

    def price(self, spec: RunSpec, placement: Sequence[int | None]) -> list[Line]:
        """Add up the weights' buffers under a placement.

        Source: llama-model-loader.cpp create_tensor, get_mapping_range; llama-model.cpp load_tensors, make_cpu_buft_list.
        """
        sums: dict[int | None, list[_Sum]] = {None: []}
        repacked: Counter[str] = Counter()
        for group in self._groups:
            for home in group.homes(spec, placement):
                device, is_repacked = (
                    None if home is None else self._host.devices[home],
                    spec.repack and home is None,
                )
                sums.setdefault(home, []).append(group.weigh(device, repack=is_repacked))
                repacked.update(group.repacked if is_repacked else {})
        mapped = self.is_mapped(spec)
        on_host = _join(sums.pop(None))
        lines = [self._line(None, on_host, mapped)] if on_host.spans else []
        lines += [Line(Cause.REPACKED, HOST, buffer, size) for buffer, size in repacked.items()]
        return lines + [
            self._line(self._host.devices[home], _join(found), mapped)
            for home, found in sums.items()
            if home is not None
        ]

    def _line(self, device: DeviceRules | None, found: _Sum, mapped: bool) -> Line:
        """What is stored as it is, on a device or (None) in host memory, which may be a device's pinned one."""
        name = device.name if device else HOST
        if mapped and (device is None or device.maps_file):
            return Line(Cause.MAPPED, name, f"{name}_Mapped", found.mapped_bytes)
        buffer = name if device or not self._pinned else f"{self._pinned.rstrip('0123456789')}_Host"
        return Line(Cause.COPIED, name, buffer, found.copied_bytes)

    def grow(self, spec: RunSpec) -> list[int]:
        """What every number of layers takes of the first device alone, from none to all with the output layer, which goes first."""
        device, mapped = self._host.devices[0], self.is_mapped(spec)
        entering: list[list[_Sum]] = [[] for _ in range(self.n_layers + 2)]
        for group in self._groups:
            if group.homes(spec, (0,) * (self.n_layers + 1)) == {0}:
                is_moved = group.home is not Home.ITS_LAYER  # what was put there is there without any layer
                entering[0 if is_moved else self.n_layers + 1 - max(group.layers or ())].append(group.weigh(device))
        sizes, found = [], _Sum()
        for sums in entering:
            found = _join([found, *sums])
            sizes.append(found.mapped_bytes if mapped and device.maps_file else found.copied_bytes)
        return sizes

    def is_mapped(self, spec: RunSpec) -> bool:
        """Whether the file is mapped. Source: llama.cpp, the default of load_mode by the devices' properties."""
        by_default, mode = all(device.maps_by_default for device in self._host.devices), spec.load_mode
        return mode in ("mmap", "mmap+mlock") or (mode == "auto" and by_default)


# --- caches and states ------------------------------------------------------------------------------------------------


def price_cache(attention: Attention, spec: RunSpec, placement: Sequence[int | None], host: Host) -> list[Line]:
    """Add up caches and states by device; they lie where their layer runs unless they are kept on the host.

    Raises
    ------
    HarnessError : llama.cpp refuses the cache type, because its blocks do not divide a head.

    Source: llama-kv-cache.cpp, llama-memory-recurrent.cpp (offload, model.dev_layer).
    """
    return price_kept(attention.list_kept(spec), spec, placement, host)


def price_kept(layers: Iterable[Kept], spec: RunSpec, placement: Sequence[int | None], host: Host) -> list[Line]:
    """As `price_cache`, where it is known already what each layer keeps: that is the same wherever it lies."""
    sizes: Counter[tuple[Cause, str]] = Counter()
    for kept in layers:
        home = None if spec.no_kv_offload else placement[kept.layer]
        device, alignment = HOST, _CPU_ALIGNMENT
        if home is not None:
            device, alignment = host.devices[home].name, host.devices[home].alignment
        sizes[CACHE_CAUSES[kept.keeping], device] += kept.size_bytes(alignment)
    if max(sizes.values(), default=0) >= 2**63:
        raise HarnessError("the header's settings make a cache larger than 2^63 bytes; download the model again")
    return [Line(cause, device, device, size) for (cause, device), size in sizes.items()]


# --- decoding ----------------------------------------------------------------------------------------------------------


def work_bytes(header: Header, spec: RunSpec, *, n_cells: int | None = None) -> int:
    """Estimate what computing a full micro-batch takes beside the compute buffer: the largest matrix product's inputs, converted.

    Those of a matrix are quantized; without flash attention the scores of all heads are halved to f16 for their product with V, and
    grow with the tokens that are looked at. Exact for these products; tiled products and flash attention may take some hundred KiB a
    thread more.

    Parameters
    ----------
    n_cells : tokens looked at where flash attention is off, rounded up to 256; None with flash attention

    Source: ggml-cpu.c ggml_graph_plan, GGML_OP_MUL_MAT and _ID; repack.cpp work_size (rows of Q8_0, Q8_1 or Q8_K: at most 36/32 byte);
    llama-graph.cpp build_attn_mha; llama-kv-cache.cpp get_n_kv (the padding).
    """
    n_tokens = min(spec.n_ctx, spec.n_batch, spec.n_ubatch)
    n_blocks, largest = read_count(header, "block_count") or 0, 0
    used = max(read_per_layer(header, "expert_used_count", n_blocks) or (), default=1)
    for tensor in loaded_tensors(header):
        if len(tensor.shape) > 1 and is_matrix_product(tensor) and tensor_type(tensor.type_name).block_elements > 1:
            role = find_role(tensor.name)
            rows = n_tokens * (max(used, 1) if role.is_stack and role.work == FFN_DOWN else 1)
            largest = max(largest, rows * tensor.shape[0] * 34 // 32)
    if n_cells is not None:
        heads = read_per_layer(header, "attention.head_count", n_blocks) or ()
        largest = max(largest, round_context(n_cells) * n_tokens * max(heads, default=0) * 2)
    return largest


# --- the whole --------------------------------------------------------------------------------------------------------


def predict_memory(header: Header, spec: RunSpec, host: Host) -> Forecast:
    """Predict every buffer that follows from the header: weights, their second copies, caches and states.

    Raises
    ------
    UsageError   : -mg names no device, or -ot no buffer of one.
    HarnessError : a setting of the header is none that llama.cpp would take.
    """
    host = host.chosen(spec)
    check_overrides(spec, host.devices)
    plan = WeightPlan(header, host, spec)
    placement = deal_out(plan.n_layers, spec, [device.memory_bytes for device in host.devices])
    lines, notes = plan.price(spec, placement), []
    if spec.split_mode in ("row", "tensor") and len(host.devices) > 1:
        notes.append(Note(Remark.SPLIT_WITHIN_LAYERS, Cause.COPIED, spec.split_mode))
    if host.features is None:
        notes.append(Note(Remark.REPACKING_UNKNOWN, Cause.REPACKED))
    elif name := host.features.unknown_layouts:
        notes.append(Note(Remark.LAYOUTS_UNKNOWN, Cause.REPACKED, name))
    attention = describe_attention(header)
    try:
        lines += price_cache(attention, spec, placement, host)
        if attention.layers is None:
            notes.append(Note(Remark.CACHE_UNKNOWN, Cause.KV, attention.reason))
    except HarnessError as error:
        notes.append(Note(Remark.CACHE_UNKNOWN, Cause.KV, str(error)))
    return Forecast(spec.n_ctx, tuple(lines), notes=tuple(notes))
