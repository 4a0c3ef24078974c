"""Devices for people: what llama.cpp can compute on, the CPU's features, and what it was built for."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.records.cells import Build
from harness.units import format_mib
from harness.views import page


def render_devices(
    build: Build,
    backend_of: Mapping[str, str],
    notes: Sequence[str],
    *,
    compiled: Sequence[str],
    driver: str | None,
    build_flags: str | None,
) -> str:
    """A table of devices, the build under it, and what is to be said about missing cards."""
    rows = [
        {
            "device": device.name,
            "backend": backend_of.get(device.name, "?").partition("[")[0],
            "kind": device.kind,
            "free": _memory(device.memory_free_bytes),
            "total": _memory(device.memory_total_bytes),
            "description": device.description,
        }
        for device in build.devices
    ]
    table = page.table(rows, "lllrrl")
    facts = [
        f"llama.cpp {build.ggml_commit.split('-')[0]}, ggml {build.ggml_version}, llama-cpp-python {build.llama_cpp_python}",
        f"built for: {', '.join(compiled)}" + (f" ({build_flags})" if build_flags else ""),
        f"CPU features: {' '.join(cpu_features(build.system_info)) or 'none reported'}",
    ]
    if driver:
        facts.append(f"NVIDIA driver: {driver}")
    wrapped = [page.fill(fact) for fact in facts]
    told = [page.fill(note, rest="") for note in notes]
    return "\n".join([table, "", *wrapped, *([""] if told else []), *told]) + "\n"


def export_devices(
    build: Build,
    backend_of: Mapping[str, str],
    absence: Mapping[str, Any] | None,
    *,
    compiled: Sequence[str],
    driver: str | None,
    build_flags: str | None,
) -> dict[str, Any]:
    """The same as plain JSON values; no_gpu is null where there is one."""
    return {
        "devices": [{**dataclasses.asdict(device), "backend": backend_of.get(device.name)} for device in build.devices],
        "build": {
            "llama_cpp_python": build.llama_cpp_python,
            "ggml_version": build.ggml_version,
            "ggml_commit": build.ggml_commit,
            "backends": list(compiled),
            "cpu_features": cpu_features(build.system_info),
            "flags": build_flags,
            "system_info": build.system_info,
        },
        "nvidia_driver": driver,
        "no_gpu": dict(absence) if absence else None,
    }


def cpu_features(system_info: str) -> list[str]:
    """The features that are on, from llama.cpp's own line (``CPU : SSE3 = 1 | AVX2 = 1 | … | REPACK = 1``)."""
    cpu = re.search(r"\bCPU\s*:\s*(.*)", system_info)
    part = re.split(r"\|\s*\w+\s*:", cpu[1])[0] if cpu else ""
    return [name for name, value in re.findall(r"(\w+)\s*=\s*(\d+)", part) if value != "0"]


def _memory(size_bytes: int | None) -> str:
    return "?" if size_bytes is None else format_mib(size_bytes)
