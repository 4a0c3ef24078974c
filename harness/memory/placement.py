"""Where a model's layers go: which devices llama.cpp uses, in its order, and which of them gets which layer.

The rules are those of llama.cpp 0c1e570 (in llama-cpp-python 0.3.36). Everybody hands in all devices that there are; -dev, -sm and -mg
are applied here and nowhere else.
"""

from __future__ import annotations

import itertools
import struct
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from harness.errors import UsageError
from harness.memory.causes import HOST
from harness.spec import RunSpec


class AnyDevice(Protocol):
    """A device by ggml's name and kind: cpu, gpu, igpu or accel."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...


Device = TypeVar("Device", bound=AnyDevice)


def is_remote(device: AnyDevice) -> bool:
    """Whether a device is behind an RPC server, which ggml names RPC0, RPC1, …"""
    return device.name.startswith("RPC")


def shares_host_memory(device: AnyDevice) -> bool:
    """Whether a device computes in the host's own memory: integrated graphics, and Apple's, which ggml counts as a card.

    Source: ggml-vulkan.cpp, ggml-cuda.cu (device type IGPU); ggml-metal-device.m (MTLDevice.hasUnifiedMemory).
    """
    return device.kind == "igpu" or device.name.startswith(("MTL", "Metal"))


def choose_devices(devices: Sequence[Device], spec: RunSpec) -> tuple[Device, ...]:
    """The devices that llama.cpp gives layers to, in its order: the named ones (-dev), else servers, then cards, and integrated ones of
    one backend only where there is no card; with -sm none the main one of them alone.

    Raises
    ------
    UsageError : -mg names none of them, which llama.cpp refuses too.

    Source: llama_prepare_model_devices in src/llama.cpp.
    """
    if spec.devices:
        known = {device.name: device for device in devices if device.kind in ("gpu", "igpu", "accel")}
        chosen = [known[name] for name in spec.devices if name in known]
    else:
        cards = [device for device in devices if device.kind == "gpu"]
        remote = [device for device in cards if is_remote(device)]
        local = [device for device in cards if not is_remote(device)]
        chosen = [*remote, *(local or _of_one_backend([device for device in devices if device.kind == "igpu"]))]
    if spec.split_mode != "none" or not chosen:
        return tuple(chosen)
    if spec.main_gpu >= len(chosen):
        names = ", ".join(f"{number} {device.name}" for number, device in enumerate(chosen))
        raise UsageError(f"-mg {spec.main_gpu} names no device; with -sm none it is one of {names}.")
    return (chosen[spec.main_gpu],)


def _of_one_backend(devices: Sequence[Device]) -> list[Device]:
    """Integrated graphics that several backends see count once: those of the first backend."""
    backends = [device.name.rstrip("0123456789") for device in devices]
    return [device for device, backend in zip(devices, backends, strict=True) if backend == backends[0]]


def deal_out(n_layers: int, spec: RunSpec, free_bytes: Sequence[int | None]) -> tuple[int | None, ...]:
    """Say on which of the chosen devices each layer runs, by -ngl and -ts or what each has free; see `place_layers`.

    Source: llama-model.cpp load_tensors.
    """
    splits = tuple(float(size or 1) for size in free_bytes)
    if any(spec.tensor_split):
        splits = (*spec.tensor_split, *(0.0,) * len(splits))[: len(splits)]
    return place_layers(n_layers, spec.n_gpu_layers, splits)


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
    sums = [*itertools.accumulate(map(_single, splits), lambda total, share: _single(total + share))]
    # A device without free memory has the same bound as the one before it, and so gets no layer.
    bounds = [_single(bound / sums[-1]) if sums[-1] else 1.0 for bound in sums]
    return tuple(
        bisect_right(bounds, _single((layer - first) / on_device)) if 0 <= layer - first < on_device else None
        for layer in range(n_layers + 1)
    )


def count_pieces(spec: RunSpec, layers_by_device: Mapping[str, int]) -> int | None:
    """Pieces that a token's work falls into by where its layers lie; None where that is not known: with tensors put elsewhere, or with
    layers that devices share.

    The embeddings and the layers of the CPU are one, those of each device another; a cache in host memory has attention computed there,
    in the middle of each of its layers. llama.cpp 0c1e570 logs 2 for SmolLM2's 30 layers on a device, 62 with -nkvo, 20 for 10 layers.
    """
    if spec.override_tensors or spec.n_cpu_moe or spec.split_mode in ("row", "tensor"):
        return None
    on_devices = {device: count for device, count in layers_by_device.items() if device != HOST}
    n_repeating = max(sum(on_devices.values()) - 1, 0)  # the output layer attends to nothing
    return 1 + len(on_devices) + 2 * n_repeating * spec.no_kv_offload


def find_too_many_pieces(spec: RunSpec, layers_by_device: Mapping[str, int], n_found: int | None) -> int | None:
    """How many pieces the places of layers explain, where a token's work was cut into more; None where it was not, or nobody knows."""
    n_expected = count_pieces(spec, layers_by_device)
    is_more = n_expected is not None and n_found is not None and n_found > n_expected
    return n_expected if is_more else None


def _single(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])
