"""What llama.cpp did otherwise than its settings let expect, by what it said of itself: each with its figures, as a caution."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from harness.memory.causes import HOST
from harness.memory.forecast import device_rules
from harness.memory.placement import find_too_many_pieces
from harness.memory.repack import CpuFeatures, read_features
from harness.parsers import split_override
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Build, Machine, Record, Resolved
from harness.records.shared_parts import OncePerParts
from harness.spec import RunSpec, defaults


def find_fallbacks(record: Record) -> tuple[Caution, ...]:
    """What ran elsewhere or was left out in a cell; nothing of a cell that never ran."""
    return _fallbacks(record.asked, record.machine, record.resolved, record.build)


def _find(asked: RunSpec, machine: Machine, resolved: Resolved | None, build: Build | None) -> tuple[Caution, ...]:
    return () if resolved is None else tuple(_each_fallback(asked, machine, resolved, build))


#: Known again for lines of equal parts.
_fallbacks = OncePerParts(_find)


def _each_fallback(asked: RunSpec, machine: Machine, resolved: Resolved, build: Build | None) -> Iterator[Caution]:
    yield from _find_strays(asked, resolved)
    for missing in resolved.missing_kernels:
        yield Caution(
            CautionCause.NO_KERNEL, part=missing.operation, device=missing.device, other_part=missing.other_device
        )
    if resolved.is_unlocked:
        yield Caution(CautionCause.NOT_LOCKED)
    if asked.binds_threads and machine.os.startswith(("Darwin", "macOS")):
        yield Caution(CautionCause.MASK_IDLE)  # source: ggml_thread_apply_affinity in ggml-cpu.c
    if build is None:
        return
    if build.is_untried:
        yield Caution(CautionCause.UNTRIED_VERSION, part=build.llama_cpp_python)
    if left_out := find_left_out(machine.cpu_features, read_features(build.system_info)):
        yield Caution(CautionCause.LEFT_OUT, part=" and ".join(left_out))
    if device := _find_pinning(asked, resolved, build):
        yield Caution(CautionCause.NOT_REPACKED, device=device)
    if asked.poll != defaults()["poll"] and read_features(build.system_info).has("OPENMP"):
        yield Caution(CautionCause.POLL_IDLE)


#: Vector instructions that make a difference: what each is called, and what it rests on.
_VECTORS = {
    "AVX": ("AVX", "SSE3"), "AVX2": ("AVX2", "AVX"), "FMA": ("FMA", "AVX2"), "F16C": ("F16C", "AVX2"),
    "AVX512": ("AVX-512", "AVX2"), "AVX512_VNNI": ("AVX-512 VNNI", "AVX512"), "AVX512_BF16": ("AVX-512 BF16", "AVX512"),
    "AMX_INT8": ("AMX", "AVX512"), "AVX_VNNI": ("AVX-VNNI", "AVX2"), "DOTPROD": ("dot products (DOTPROD)", "NEON"),
    "MATMUL_INT8": ("matrix products (I8MM)", "NEON"), "SVE": ("SVE", "NEON"),
}  # fmt: skip


def find_left_out(of_cpu: Collection[str], of_build: CpuFeatures) -> list[str]:
    """What of a CPU's vector instructions a build does not use, by their names for people.

    What rests on something that the build does not use either goes without saying, and so does everything of another architecture
    or of a build that lists nothing.
    """
    return [
        title
        for name, (title, base) in _VECTORS.items()
        if name in of_cpu and not of_build.has(name) and of_build.has(base)
    ]


def _find_strays(spec: RunSpec, resolved: Resolved) -> Iterator[Caution]:
    """Operations elsewhere than their layers, by the device that they ran on; only their number of pieces where nobody could look."""
    for device in dict.fromkeys(stray.device for stray in resolved.strays):
        there = [stray for stray in resolved.strays if stray.device == device]
        yield Caution(
            CautionCause.RAN_ELSEWHERE,
            part=", ".join(stray.operation for stray in there),
            other_part=device,
            n_layers=max(stray.n_layers for stray in there),
            size_bytes=sum(stray.copied_bytes for stray in there),
        )
    expected = find_too_many_pieces(spec, resolved.layers_by_device, resolved.n_graph_splits)
    if not resolved.strays and expected is not None:
        yield Caution(CautionCause.MORE_PIECES, n_pieces=resolved.n_graph_splits, n_expected=expected)


def _find_pinning(spec: RunSpec, resolved: Resolved, build: Build) -> str | None:
    """The device whose pinned memory holds weights that the CPU would have repacked; None where there is none.

    Source: llama-model.cpp make_cpu_buft_list (a host buffer comes before the CPU's own layouts).
    """
    if not spec.repack or spec.no_host or resolved.repacked_bytes or not read_features(build.system_info).has_repack:
        return None
    devices = [device for device in resolved.layers_by_device if device != HOST]
    pinning = next((device for device in devices if device_rules(device).has_host_buffer), None)
    is_on_host = (
        HOST in resolved.layers_by_device
        or spec.n_cpu_moe
        or any(split_override(text)[1] == HOST for text in spec.override_tensors)
    )
    return pinning if is_on_host else None
