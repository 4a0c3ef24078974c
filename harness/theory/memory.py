"""What a model takes in memory, by cause and by device, from its header alone: weights, second copies, caches and states.

Pure arithmetic, the same that llama.cpp does when it loads. Compute and output buffers depend on the graph; they come from a dry run
(`harness.native.dry_run`). The rules are those of llama.cpp 0c1e570 (in llama-cpp-python 0.3.36).
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.errors import HarnessError
from harness.spec import RunSpec
from harness.theory.attention import Attention, count_layers, describe_attention, loaded_tensors, round_context
from harness.theory.gguf import Header, Tensor
from harness.theory.repack import OUTPUT_FIRST, CpuFeatures, Layout, find_layout, is_matrix_product, output_duplicate
from harness.theory.settings import read_count, read_per_layer
from harness.theory.tensor_types import tensor_type

#: Causes, in the order in which a ledger lists them.
MAPPED, COPIED, REPACKED, KV, RECURRENT, COMPUTE, OUTPUT = (
    "weights mapped", "weights copied", "weights repacked", "KV cache", "recurrent state", "compute buffer", "output buffer",
)  # fmt: skip
BUFFER_CAUSES = (MAPPED, COPIED, REPACKED, KV, RECURRENT, COMPUTE, OUTPUT)

#: What the host's memory is called as a device.
HOST = "CPU"

#: Source: ggml/src/ggml-impl.h TENSOR_ALIGNMENT.
_CPU_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class Line:
    """Bytes that one cause takes on one device; buffer is llama.cpp's name of it (``CPU_REPACK``)."""

    cause: str
    device: str
    buffer: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class DeviceRules:
    """How a device's backend stores weights.

    alignment and row_elements are what a tensor's bytes, and a quantized tensor's first dimension, are rounded up to. has_host_buffer:
    it offers pinned host memory, which llama.cpp prefers to repacking for the layers that stay on the CPU. maps_file: weights stay
    in the mapped file (unified memory). memory_bytes is what the device has free, None where it does not say.
    """

    name: str
    alignment: int = 128
    row_elements: int = 1
    has_host_buffer: bool = True
    maps_file: bool = False
    maps_by_default: bool = True
    memory_bytes: int | None = None


def device_rules(name: str, kind: str = "gpu", memory_bytes: int | None = None) -> DeviceRules:
    """Look up a device's rules by the name that ggml gives it: ``CUDA0``, ``MTL0``, ``Vulkan0``, ``RPC0``, ….

    Source: ggml-cuda.cu ggml_backend_cuda_buffer_type_get_alignment, …_get_alloc_size (MATRIX_ROW_PADDING 512);
    ggml-metal.cpp, ggml-rpc.cpp, ggml-vulkan.cpp device props.
    """
    if name.startswith(("CUDA", "ROCm", "MUSA")):
        by_default = kind != "igpu"
        return DeviceRules(name, 128, 512, maps_by_default=by_default, memory_bytes=memory_bytes)
    if name.startswith(("MTL", "Metal")):
        return DeviceRules(name, 32, has_host_buffer=False, maps_file=True, memory_bytes=memory_bytes)
    if name.startswith("RPC"):  # a server that runs ggml's CPU backend; a GPU's there rounds up a little more
        return DeviceRules(name, _CPU_ALIGNMENT, has_host_buffer=False, memory_bytes=memory_bytes)
    return DeviceRules(name, maps_by_default=kind != "igpu", memory_bytes=memory_bytes)


@dataclass(frozen=True, slots=True)
class Host:
    """The machine for which memory is predicted. features is None where the CPU's are not known, which leaves repacking unknown."""

    features: CpuFeatures | None
    devices: tuple[DeviceRules, ...] = ()
    splits: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Gap:
    """A cause that could not be worked out, or only in part, and why in a sentence."""

    cause: str
    reason: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """Lines that add up to a device's share, and what could not be worked out."""

    lines: tuple[Line, ...]
    gaps: tuple[Gap, ...] = ()

    @property
    def remarks(self) -> tuple[str, ...]:
        return tuple(gap.reason for gap in self.gaps)

    def on(self, device: str) -> int:
        return sum(line.size_bytes for line in self.lines if line.device == device)

    def of(self, cause: str, device: str | None = None) -> int:
        return sum(line.size_bytes for line in self.lines if line.cause == cause and device in (None, line.device))


# --- where layers go --------------------------------------------------------------------------------------------------


def place_layers(n_layers: int, n_gpu_layers: int, splits: Sequence[float]) -> tuple[int | None, ...]:
    """Say on which device each layer runs, the output layer last; None is the CPU.

    Parameters
    ----------
    n_gpu_layers : layers to offload, the output layer is the first to go; negative is all
    splits       : one share a device, any unit (llama.cpp takes the free memory where the user says nothing); () is no device

    Source: llama-model.cpp load_tensors, get_layer_buft_list (in single precision, as there).
    """
    if n_gpu_layers < 0:
        n_gpu_layers = n_layers + 1
    on_device = min(n_gpu_layers, n_layers + 1) if splits else 0
    first = max(n_layers + 1 - n_gpu_layers, 0)
    bounds = _cumulate(splits)
    placed: list[int | None] = []
    for layer in range(n_layers + 1):
        if layer < first or layer - first >= on_device:
            placed.append(None)
        else:
            placed.append(bisect_right(bounds, _single((layer - first) / on_device)))
    return tuple(placed)


def _cumulate(splits: Sequence[float]) -> list[float]:
    total, bounds = 0.0, []
    for share in splits:
        total = _single(total + _single(share))
        bounds.append(total)
    # A device without free memory has the same bound as the one before it, and so gets no layer.
    return [_single(bound / total) if total else 1.0 for bound in bounds]


def _single(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


# --- weights ----------------------------------------------------------------------------------------------------------

_BLOCK = re.compile(r"blk\.([0-9]{1,4})\..+")
_INPUT = ("token_embd.weight", "position_embd.weight", "token_types.weight", "per_layer_token_embd.weight")
#: Tensors outside the blocks that llama.cpp keeps with the first layer, and those that each layer shares.
#: Source: src/llama-arch.cpp LLM_TENSOR_INFOS, LLM_TENSOR_LAYER_REPEATING.
_FIRST_LAYER = ("token_embd_norm", "per_layer_model_proj", "per_layer_proj_norm")
_EXPERTS = re.compile(r"blk\.([0-9]{1,4})\.ffn_(up|down|gate|gate_up)_(ch|)exps")
_SHARED = ("rope_freqs", "rope_factors_long", "rope_factors_short")


@dataclass(frozen=True, slots=True)
class _Use:
    """One use of a tensor: by which layers (None: by the input, always on the CPU), and how a CPU would lay it out."""

    tensor: Tensor
    layers: tuple[int, ...] | None
    layout: Layout | None
    is_copy: bool = False  # another use of bytes that are in memory already


def _list_uses(header: Header, features: CpuFeatures | None, n_layers: int) -> list[_Use]:
    everywhere = tuple(range(n_layers))
    uses = []
    for tensor in loaded_tensors(header):
        layers = _find_layers(tensor.name, n_layers, everywhere)
        uses.append(_Use(tensor, layers, None if features is None else find_layout(tensor, features)))
    if duplicate := output_duplicate(header):
        layout = None if features is None else find_layout(duplicate, features)
        uses.append(_Use(duplicate, (n_layers,), layout, is_copy=header.architecture not in OUTPUT_FIRST))
    return uses


def _find_layers(name: str, n_layers: int, everywhere: tuple[int, ...]) -> tuple[int, ...] | None:
    if match := _BLOCK.fullmatch(name):
        return (min(int(match[1]), n_layers - 1),)
    if name in _INPUT:
        return None
    if name.startswith(_FIRST_LAYER):
        return (0,)
    return everywhere if name.startswith(_SHARED) else (n_layers,)


class WeightPlan:
    """A model's weights, prepared so that many placements can be priced quickly."""

    def __init__(self, header: Header, host: Host) -> None:
        self.n_layers = count_layers(header)
        self._host = host
        # llama.cpp asks for a device's pinned memory before it asks for repacking, and with a mapped file takes neither.
        takes_host_buffer = any(device.has_host_buffer for device in host.devices)
        self._uses = _list_uses(header, None if takes_host_buffer else host.features, self.n_layers)

    def price(self, spec: RunSpec, placement: Sequence[int | None]) -> list[Line]:
        """Add up the weights' buffers under a placement.

        Source: llama-model-loader.cpp create_tensor, get_mapping_range; llama-model.cpp load_tensors, make_cpu_buft_list.
        """
        mapped = spec.mmap != "off" and not (
            spec.mmap == "auto" and any(not device.maps_by_default for device in self._host.devices)
        )
        on_cpu: list[Tensor] = []
        on_device: dict[int, list[Tensor]] = {}
        repacked: dict[str, int] = {}
        for use in self._uses:
            stays = use.layers is None or _is_kept_back(use.tensor.name, spec.n_cpu_moe)
            homes = {None} if stays else {placement[layer] for layer in use.layers or ()}
            for home in homes:
                if home is not None:
                    on_device.setdefault(home, []).append(use.tensor)
                elif spec.repack and use.layout is not None:
                    size = _pad(use.layout.size_bytes, _CPU_ALIGNMENT)
                    repacked[use.layout.buffer] = repacked.get(use.layout.buffer, 0) + size
                elif not use.is_copy:  # a second use of a tensor that is there already costs nothing
                    on_cpu.append(use.tensor)
        return [
            *_price_host(on_cpu, mapped, self._host),
            *(Line(REPACKED, HOST, buffer, size) for buffer, size in repacked.items()),
            *(line for home, tensors in on_device.items() for line in _price_device(tensors, self._host.devices[home], mapped)),
        ]  # fmt: skip


def _is_kept_back(name: str, n_cpu_moe: int) -> bool:
    """Whether a tensor holds experts that -ncmoe keeps in host memory, where it is laid out as the CPU's layers are.

    Source: LLM_FFN_EXPS_REGEX in common/common.h; llama-model-loader.cpp create_tensor (buft_list_cpu for such overrides).
    """
    match = _EXPERTS.match(name)
    return match is not None and int(match[1]) < n_cpu_moe


def _price_host(tensors: Sequence[Tensor], mapped: bool, host: Host) -> Iterable[Line]:
    if not tensors:
        return
    if mapped:
        yield Line(MAPPED, HOST, "CPU_Mapped", _span_bytes(tensors))
        return
    size = sum(_pad(tensor.size_bytes, _CPU_ALIGNMENT) for tensor in tensors)
    pinned = next((device.name for device in host.devices if device.has_host_buffer), None)
    yield Line(COPIED, HOST, f"{pinned.rstrip('0123456789')}_Host" if pinned else "CPU", size)


def _price_device(tensors: Sequence[Tensor], device: DeviceRules, mapped: bool) -> Iterable[Line]:
    if mapped and device.maps_file:
        yield Line(MAPPED, device.name, f"{device.name}_Mapped", _span_bytes(tensors))
        return
    size = sum(_pad(_device_bytes(tensor, device), device.alignment) for tensor in tensors)
    yield Line(COPIED, device.name, device.name, size)


def _span_bytes(tensors: Sequence[Tensor]) -> int:
    """Measure from the first byte to the last of some tensors in each file, with whatever lies between.

    Source: llama-model-loader.cpp get_mapping_range.
    """
    spans: dict[int, tuple[int, int]] = {}
    for tensor in tensors:
        first, last = spans.get(tensor.part, (tensor.offset, 0))
        spans[tensor.part] = (min(first, tensor.offset), max(last, tensor.offset + tensor.size_bytes))
    return sum(last - first for first, last in spans.values())


def _device_bytes(tensor: Tensor, device: DeviceRules) -> int:
    kind = tensor_type(tensor.type_name)
    short = -tensor.shape[0] % device.row_elements if tensor.shape else 0
    if kind.block_elements == 1 or not short:
        return tensor.size_bytes
    return tensor.size_bytes + short // kind.block_elements * kind.block_bytes


def _pad(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


# --- caches and states ------------------------------------------------------------------------------------------------


def price_cache(attention: Attention, spec: RunSpec, placement: Sequence[int | None], host: Host) -> list[Line]:
    """Add up caches and states by device; they lie where their layer runs unless they are kept on the host.

    Raises
    ------
    HarnessError : llama.cpp refuses the cache type, because its blocks do not divide a head.

    Source: llama-kv-cache.cpp, llama-memory-recurrent.cpp (offload, model.dev_layer).
    """
    sizes: dict[tuple[str, str], int] = {}

    def add(cause: str, layer: int, *parts: int) -> None:
        home = None if spec.no_kv_offload else placement[layer]
        device = HOST if home is None else host.devices[home].name
        alignment = _CPU_ALIGNMENT if home is None else host.devices[home].alignment
        sizes[cause, device] = sizes.get((cause, device), 0) + sum(_pad(part, alignment) for part in parts)

    for layer in attention.layers or ():
        cells = attention.cells(layer, spec)
        add(KV, layer.layer, *(row * cells for row in attention.row_bytes(layer, spec)))
    for state in attention.states:
        add(RECURRENT, state.layer, *state.parts_bytes)
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
    used = max(read_per_layer(header, "expert_used_count", read_count(header, "block_count") or 0) or [1], default=1)
    largest = 0
    for tensor in loaded_tensors(header):
        if len(tensor.shape) > 1 and is_matrix_product(tensor) and tensor_type(tensor.type_name).block_elements > 1:
            rows = n_tokens * (max(used, 1) if "ffn_down_exps" in tensor.name else 1)
            largest = max(largest, rows * tensor.shape[0] * 34 // 32)
    if n_cells is not None:
        heads = read_per_layer(header, "attention.head_count", read_count(header, "block_count") or 0) or [0]
        largest = max(largest, round_context(n_cells) * n_tokens * max(heads, default=0) * 2)
    return largest


# --- the whole --------------------------------------------------------------------------------------------------------


def predict_memory(header: Header, spec: RunSpec, host: Host) -> Prediction:
    """Predict every buffer that follows from the header: weights, their second copies, caches and states.

    Raises
    ------
    HarnessError : a setting of the header is none that llama.cpp would take.
    """
    host = _use_devices(spec, host)
    plan = WeightPlan(header, host)
    placement = place_layers(plan.n_layers, spec.n_gpu_layers, _splits(spec, host))
    lines, gaps = plan.price(spec, placement), []
    if spec.split_mode in ("row", "tensor") and len(host.devices) > 1:
        said = f"weights by device: {spec.split_mode} splits are not worked out, layers are shown as whole"
        gaps.append(Gap(COPIED, said))
    if host.features is None:
        gaps.append(Gap(REPACKED, "repacked weights: what this CPU repacks is not known here"))
    elif name := host.features.unknown_layouts:
        said = f"repacked weights: this llama.cpp was built with {name.title()}, whose layouts are not known here"
        gaps.append(Gap(REPACKED, said))
    attention = describe_attention(header)
    try:
        lines += price_cache(attention, spec, placement, host)
        if attention.layers is None:
            gaps.append(Gap(KV, f"KV cache: {attention.reason}"))
    except HarnessError as error:
        gaps.append(Gap(KV, f"KV cache: {error}"))
    return Prediction(tuple(lines), tuple(gaps))


def _use_devices(spec: RunSpec, host: Host) -> Host:
    """Leave the main GPU alone where the model is not to be split. Source: llama.cpp, "if using single GPU mode"."""
    if spec.split_mode != "none" or not host.devices:
        return host
    return replace(host, devices=host.devices[spec.main_gpu : spec.main_gpu + 1], splits=())


def _splits(spec: RunSpec, host: Host) -> tuple[float, ...]:
    """The devices' shares: as the user says, else as much as each has free. Source: llama-model.cpp load_tensors."""
    if not host.devices:
        return ()
    if any(spec.tensor_split):
        return (*spec.tensor_split, *(0.0,) * len(host.devices))[: len(host.devices)]
    if host.splits:
        return host.splits
    return tuple(float(device.memory_bytes or 1) for device in host.devices)


@dataclass(frozen=True, slots=True)
class LayerPrice:
    """What n_gpu_layers layers take of one device and leave to the host, in bytes; compute buffers are not in it."""

    n_gpu_layers: int
    device_weights_bytes: int
    device_cache_bytes: int
    host_bytes: int

    @property
    def device_bytes(self) -> int:
        return self.device_weights_bytes + self.device_cache_bytes


def price_layers(header: Header, spec: RunSpec, host: Host, device: DeviceRules) -> tuple[LayerPrice, ...]:
    """Price every number of layers on one device, from none to all with the output layer.

    Raises
    ------
    HarnessError : as `predict_memory`; the cache of this architecture is not known, or it cannot have this type.
    """
    alone = replace(host, devices=(device,), splits=(1.0,))
    plan, attention = WeightPlan(header, alone), describe_attention(header)
    if attention.layers is None:
        raise HarnessError(f"the cache of {header.architecture} is not known: {attention.reason}")
    prices = []
    for n_gpu_layers in range(plan.n_layers + 2):
        placement = place_layers(plan.n_layers, n_gpu_layers, (1.0,))
        weights = Prediction(tuple(plan.price(spec, placement)))
        cache = Prediction(tuple(price_cache(attention, spec, placement, alone)))
        prices.append(
            LayerPrice(n_gpu_layers, weights.on(device.name), cache.on(device.name), weights.on(HOST) + cache.on(HOST))
        )
    return tuple(prices)


def count_fitting_layers(prices: Sequence[LayerPrice], memory_bytes: int, fixed_bytes: int) -> int:
    """Count the layers that fit into a card's memory beside what it needs anyway.

    Parameters
    ----------
    memory_bytes : the card's memory
    fixed_bytes  : compute buffer and driver context, taken as soon as one layer is there
    """
    fitting = [price.n_gpu_layers for price in prices if price.device_bytes + fixed_bytes <= memory_bytes]
    return max(fitting, default=0) if fixed_bytes <= memory_bytes else 0
