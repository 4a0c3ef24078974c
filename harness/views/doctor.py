"""What a report of a fault needs, as a Document: it names no user, host or folder."""

from __future__ import annotations

import re

from harness.runs.devices import Survey
from harness.runs.doctor import Examination
from harness.views.devices import describe_binding, list_cpu_features
from harness.views.document import Cell, Column, Document, Figure, KeyFigures, Line, Prose, Section, Table
from harness.views.values import BYTES, LIST


def describe_examination(found: Examination) -> Document:
    """Versions, the machine, the build of llama.cpp, and what is missing or does not start."""
    machine = found.machine
    facts = [
        Figure("harness", "harness", found.harness_version),
        Figure("python", "Python", machine.python),
        Figure("system", "system", f"{machine.os}, {machine.arch}"),
        Figure("cpu", "CPU", machine.cpu),
        Figure("n_cores", "cores", machine.n_cores_physical),
        Figure("memory", "memory", machine.memory_limit_bytes or machine.memory_bytes, BYTES),
        Figure("bound", "CPUs are limited by", machine.cpus_bound),
        *(_show_build(found.survey) if found.survey else ()),
        Figure("variables", "variables that are set", found.variables or None, LIST),
    ]
    columns = [Column("name", "package"), Column("version")]
    rows: list[Line] = [[name, Cell(version, instead="not installed")] for name, version in found.packages.items()]
    sections = [Section("", [KeyFigures(facts), Table("packages", columns, rows), Prose([_READY])])]
    missing = [name for name, version in found.packages.items() if version is None]
    warnings = [f"{name} is not installed, and harness requires it." for name in missing]
    return Document("doctor", 1, "", sections, [*warnings, *([found.trouble] if found.trouble else [])])


_READY = "For a report of a fault: paste this, the command, and what it printed. Nothing here names a user, a host or a folder."


def _show_build(survey: Survey) -> list[Figure]:
    build = survey.build
    devices = tuple(f"{device.name} ({device.description})" for device in build.devices)
    return [
        *describe_binding(build),
        Figure("ggml_commit", "llama.cpp", build.ggml_commit),
        Figure("ggml_version", "ggml", build.ggml_version),
        Figure("built_for", "built for", survey.compiled, LIST),
        Figure("build_flags", "built with", _without_folders(survey.build_flags) if survey.build_flags else None),
        Figure("cpu_features", "CPU features", tuple(list_cpu_features(build.system_info)) or None, LIST),
        Figure("devices", "devices", devices or None, LIST),
        Figure("nvidia_driver", "NVIDIA driver", survey.cards.driver),
    ]


def _without_folders(flags: str) -> str:
    """CMake's flags; of a value that names a folder the name of the flag alone."""
    return re.sub(r"(-D[\w:]+=)\S*[/\\]\S*", r"\1…", flags)
