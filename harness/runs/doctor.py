"""What a report of a fault needs: versions of everything that runs, what llama.cpp was built with, and which variables are set."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import harness
from harness.errors import NativeError, Outcome
from harness.host.machine import describe_machine
from harness.records.cells import Machine
from harness.runs.devices import Survey, survey_devices

#: The name under which harness is installed.
_DISTRIBUTION = "llamacpp-harness"

#: Beginnings of the names of variables that change what harness, llama.cpp or a driver does.
_PREFIXES = (
    "HARNESS_", "GGML_", "LLAMA_", "OLLAMA_", "HF_", "CUDA_", "HIP_", "ROCR_", "HSA_", "ONEAPI_", "VK_", "OMP_", "MALLOC_", "LD_",
    "DYLD_", "PYTHON",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Examination:
    """Everything that `harness doctor` shows.

    packages maps what harness requires to its version, None where it is not installed; variables are the names of those that are set,
    never what they are set to. survey is None where llama.cpp does not start, and trouble says why.
    """

    harness_version: str
    machine: Machine
    packages: Mapping[str, str | None]
    variables: tuple[str, ...]
    survey: Survey | None = None
    trouble: str | None = None

    @property
    def outcome(self) -> Outcome:
        """What became of the question."""
        return Outcome.NATIVE if self.trouble else Outcome.OK


def examine(command: Sequence[str] | None = None) -> Examination:
    """Look at this installation. llama.cpp is asked in a child, and what becomes of that is a part of the answer."""
    survey, trouble = None, None
    try:
        survey = survey_devices(command=command)
    except NativeError as error:
        trouble = str(error)
    return Examination(harness.__version__, describe_machine(), read_versions(), list_variables(), survey, trouble)


def read_versions() -> dict[str, str | None]:
    """What harness requires, with the versions that are installed; empty where harness itself is not installed.

    What only some versions of Python need is named where it is there.
    """
    try:
        required = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = {}
    for one in sorted(required):
        requirement, _, condition = one.partition(";")
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        version = _version_of(name)
        if "extra ==" not in condition and (version or not condition):
            found[name] = version
    return found


def _version_of(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def list_variables() -> tuple[str, ...]:
    """Names of the variables that are set and may matter."""
    return tuple(sorted(name for name in os.environ if name.startswith(_PREFIXES)))
