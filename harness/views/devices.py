"""What llama.cpp can compute on, the CPU's features, and what it was built for, as a Document."""

from __future__ import annotations

import re

from harness.records.cells import Build, Device
from harness.runs.devices import Absence, Survey
from harness.views.document import Cell, Code, Column, Document, Figure, KeyFigures, Prose, Section, Table
from harness.views.values import BYTES


def describe_devices(survey: Survey, absence: Absence | None) -> Document:
    """The devices, the build under them, and what is to be said about missing cards."""
    build = survey.build

    def backend(device: Device) -> Cell:
        return Cell(survey.backend_of.get(device.name, "").partition("[")[0] or None, instead="?")

    columns = [
        Column("name", "device"), Column("backend", of=backend), Column("kind"),
        Column("memory_free", "free", BYTES, of=lambda device: Cell(device.memory_free_bytes, instead="?")),
        Column("memory_total", "total", BYTES, of=lambda device: Cell(device.memory_total_bytes, instead="?")),
        Column("description", wraps=True),
    ]  # fmt: skip
    features = list_cpu_features(build.system_info)
    flags = f" ({survey.build_flags})" if survey.build_flags else ""
    facts = KeyFigures(
        [
            Figure("ggml_commit", "llama.cpp", build.commit),
            Figure("ggml_version", "ggml", build.ggml_version),
            *describe_binding(build),
            Figure("built_for", "built for", ", ".join(survey.compiled) + flags),
            Figure("features", "CPU features", " ".join(features) or "none reported"),
            Figure("nvidia_driver", "NVIDIA driver", survey.cards.driver),
            Figure("flags", "", survey.build_flags, is_shown=False),
            Figure("system_info", "", build.system_info, is_shown=False),
            Figure("backends", "", survey.compiled, is_shown=False),
            Figure("cpu_features", "", tuple(features), is_shown=False),
        ],
        name="build",
    )
    sections = [Section("", [Table.of("devices", build.devices, columns), facts])]
    if absence:
        sections.append(Section("", [Prose([f"No GPU: {absence.reason}."])]))
        sections += [Section("To change that:", [Code([absence.command])])] if absence.command else []
    return Document("devices", 1, "", sections, data={"no_gpu": absence})


def describe_binding(build: Build) -> list[Figure]:
    """The version of llama-cpp-python, and what is known of the wheel that it came in."""
    untried = ", never tried with this harness" if build.is_untried else ""
    made = "prebuilt" if build.is_prebuilt else None
    return [
        Figure("llama_cpp_python", "llama-cpp-python", build.llama_cpp_python + untried),
        Figure("wheel", "wheel", ", ".join(filter(None, (build.wheel_tag, made))) or None),
    ]


def list_cpu_features(system_info: str) -> list[str]:
    """The features that are on, from llama.cpp's own line (``CPU : SSE3 = 1 | AVX2 = 1 | … | REPACK = 1``)."""
    cpu = re.search(r"\bCPU\s*:\s*(.*)", system_info)
    part = re.split(r"\|\s*\w+\s*:", cpu[1])[0] if cpu else ""
    return [name for name, value in re.findall(r"(\w+)\s*=\s*(\d+)", part) if value != "0"]
