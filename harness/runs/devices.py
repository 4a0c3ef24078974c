"""What llama.cpp can compute on here, and why there is no GPU where there is none."""

from __future__ import annotations

import enum
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.errors import NativeError
from harness.host.rpc import check_servers
from harness.host.telemetry import Nvml
from harness.records.cells import Build
from harness.records.failures import describe_end
from harness.runs.session import Session
from harness.runs.worker import understand

#: PCI vendors of graphics cards. Source: the PCI ID database (pci-ids.ucw.cz).
_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}

#: Variables that hide cards from a backend, and the backend.
_HIDING = {
    "CUDA_VISIBLE_DEVICES": "CUDA",
    "GGML_VK_VISIBLE_DEVICES": "Vulkan",
    "HIP_VISIBLE_DEVICES": "ROCm",
    "ROCR_VISIBLE_DEVICES": "ROCm",
    "ONEAPI_DEVICE_SELECTOR": "SYCL",
}

#: How to compile the backend that suits a vendor's cards.
_REBUILD = {
    "NVIDIA": "-DGGML_CUDA=ON",
    "AMD": "-DGGML_VULKAN=ON",
    "Intel": "-DGGML_VULKAN=ON",
    "Apple": "-DGGML_METAL=ON",
}
_BACKEND = {"-DGGML_CUDA=ON": "CUDA", "-DGGML_VULKAN=ON": "Vulkan", "-DGGML_METAL=ON": "MTL"}

_GPU_BACKENDS = ("CUDA", "ROCm", "MUSA", "Vulkan", "MTL", "Metal", "SYCL", "OpenCL", "CANN", "WebGPU")


@dataclass(frozen=True, slots=True)
class Cards:
    """What the machine itself says of its graphics, beside llama.cpp.

    vendors are those of the display adapters; driver is NVIDIA's version where its library answers, driver_trouble why it does not;
    hiding holds the variables that are set and may hide cards.
    """

    vendors: tuple[str, ...] = ()
    driver: str | None = None
    driver_trouble: str | None = None
    hiding: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything that `harness devices` shows."""

    build: Build
    backend_of: Mapping[str, str]
    compiled: tuple[str, ...]
    cards: Cards
    build_flags: str | None

    @property
    def gpus(self) -> tuple[str, ...]:
        """Names of devices that layers can go to, RPC's among them."""
        return tuple(device.name for device in self.build.devices if device.is_gpu)


def survey_devices(rpc: Sequence[str] = (), command: Sequence[str] | None = None) -> Survey:
    """Ask llama.cpp, in a child, what it sees; RPC servers join in.

    Raises
    ------
    NativeError : an RPC server is missing, or llama.cpp cannot be started.
    """
    check_servers(rpc)
    with Session("devices", worker_command=command) as session:
        found = next(
            (event for event in session.ask("devices", {"rpc": list(rpc)}, 60) if event["event"] == "done"), None
        )
    if found is None:
        assert session.failure is not None, "a job ends with done or a failure"
        raise NativeError(describe_end(session.failure))
    return Survey(
        build=understand(Build, found["build"]), backend_of=found["backend_of"], compiled=tuple(found["compiled"]),
        cards=look_for_cards(), build_flags=_read_build_flags(),
    )  # fmt: skip


def look_for_cards() -> Cards:
    """Ask the operating system and NVIDIA's driver for graphics cards."""
    nvml = Nvml.open()
    try:
        return Cards(
            vendors=_find_vendors(),
            driver=nvml.driver if nvml.cards else None,
            driver_trouble=nvml.trouble,
            hiding={name: os.environ[name] for name in _HIDING if name in os.environ},
        )
    finally:
        nvml.close()


def _find_vendors() -> tuple[str, ...]:
    """Vendors of the display adapters on the PCI bus; Apple on its own machines."""
    if sys.platform == "darwin":
        return ("Apple",)
    found = []
    for folder in sorted(pathlib.Path("/sys/bus/pci/devices").glob("*")) if sys.platform == "linux" else ():
        try:
            kind = (folder / "class").read_text(encoding="ascii").strip()
            vendor = (folder / "vendor").read_text(encoding="ascii").strip()
        except OSError:
            continue
        if kind.startswith("0x03") and vendor in _VENDORS:  # class 03: display controllers
            found.append(_VENDORS[vendor])
    return tuple(dict.fromkeys(found))


def _read_build_flags() -> str | None:
    """The CMake flags that the set-up compiled with, where it left a note of them."""
    try:
        return pathlib.Path(sys.prefix, ".engine-flags").read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


class NoGpu(enum.Enum):
    """Why no layer can go to a card of this machine."""

    HIDDEN = "hidden"
    NO_CARD = "no-card"
    SILENT_DRIVER = "silent-driver"
    NOT_BUILT = "not-built"
    UNUSABLE = "unusable"


_REASONS = {
    NoGpu.HIDDEN: "{about} hides every card",
    NoGpu.NO_CARD: "{built}no graphics card was found in this machine",
    NoGpu.SILENT_DRIVER: "there is an NVIDIA card, but its driver does not answer ({about})",
    NoGpu.NOT_BUILT: "there is a card by {about}, but llama.cpp was built without support for it",
    NoGpu.UNUSABLE: "{built}found no card that it can use",
}


@dataclass(frozen=True, slots=True)
class Absence:
    """Why there is no card, and the one command that may change it. about is the variable with its value, the driver's trouble or the
    card's vendor; compiled are the backends for cards that llama.cpp was built for."""

    cause: NoGpu
    command: str | None = None
    about: str = ""
    compiled: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        built = f"llama.cpp was built for {', '.join(self.compiled)}, but " if self.compiled else ""
        return _REASONS[self.cause].format(about=self.about, built=built)


def explain_absence(survey: Survey) -> Absence | None:
    """Say why llama.cpp sees no card here; None where it sees one (a server's devices do not count)."""
    if any(not name.startswith("RPC") for name in survey.gpus):
        return None
    cards, compiled = survey.cards, tuple(name for name in survey.compiled if name.startswith(_GPU_BACKENDS))
    for name, value in (cards.hiding or {}).items():
        if value.strip() in ("", "-1", "none", "NoDevFiles") and _HIDING[name] in compiled:
            return Absence(NoGpu.HIDDEN, f"unset {name}", f"{name}={value}", compiled)
    vendors = cards.vendors or (("NVIDIA",) if cards.driver else ())
    if not vendors:
        return Absence(NoGpu.NO_CARD, compiled=compiled)
    vendor = next((name for name in ("NVIDIA", "Apple", "AMD", "Intel") if name in vendors), vendors[0])
    flag = _REBUILD[vendor]
    rebuild, is_built = (
        f"CMAKE_ARGS={flag} scripts/harness devices",
        any(n.startswith(_BACKEND[flag]) for n in compiled),
    )
    if vendor == "NVIDIA" and not cards.driver:
        why = cards.driver_trouble or "no reason given"
        return Absence(NoGpu.SILENT_DRIVER, "nvidia-smi" if is_built else rebuild, why, compiled)
    if not is_built:
        return Absence(NoGpu.NOT_BUILT, rebuild, vendor, compiled)
    return Absence(NoGpu.UNUSABLE, compiled=compiled)
