"""Facts about the host, and how busy it is."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass

from harness.host_os import the_os
from harness.record import Caution, Machine
from harness.theory.repack import CpuFeatures


def describe_machine() -> Machine:
    """Collect what identifies the hardware; no host name, user name or path."""
    system = the_os()
    return Machine(
        cpu=_cpu_name(),
        n_cores_physical=count_physical_cores(),
        n_cores_logical=system.count_cpus(logical=True) or 1,
        memory_bytes=total_memory_bytes(),
        os=system.name,
        arch=system.arch,
        python=platform.python_version(),
    )


def machine_slug(machine: Machine) -> str:
    """A folder name for the machine: its CPU, cores and memory, in lower-case letters, digits and dashes."""
    memory_gib = round(machine.memory_bytes / 1024**3)
    text = f"{machine.cpu}-{machine.n_cores_physical}c-{memory_gib}g".lower()
    text = re.sub(r"\((r|tm)\)|\bcpu\b|@.*?ghz|\bprocessor\b", " ", text)
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


def count_physical_cores() -> int:
    """Physical cores that this process may use; logical ones where the OS does not tell them apart."""
    system = the_os()
    physical = system.count_cpus(logical=False) or system.count_cpus(logical=True) or 1
    allowed = system.affinity()
    return physical if allowed is None else max(min(physical, len(allowed)), 1)


def available_memory_bytes() -> int:
    """Memory that can be taken without swapping, as the OS estimates it."""
    return the_os().memory_bytes()[1]


def total_memory_bytes() -> int:
    """All of this machine's memory."""
    return the_os().memory_bytes()[0]


#: llama.cpp's names of CPU features that decide what is repacked, by those of Linux's /proc/cpuinfo and of macOS's sysctl.
_LINUX_FEATURES = {
    "avx2": "AVX2", "avx512f": "AVX512", "avx512_vnni": "AVX512_VNNI", "amx_int8": "AMX_INT8",
    "asimd": "NEON", "asimddp": "DOTPROD", "i8mm": "MATMUL_INT8", "vxe": "VXE",
}  # fmt: skip
_MACOS_FEATURES = {"FEAT_DotProd": "DOTPROD", "FEAT_I8MM": "MATMUL_INT8"}


def read_cpu_features() -> CpuFeatures | None:
    """Read the CPU's features by the OS, as an llama.cpp that was built here would use them; None where the OS does not tell.

    Quick, for what needs no engine; llama_print_system_info says what a build really has. SVE and RISC-V vectors are left out, for
    their length is not told here.

    Source: ggml-cpu is compiled with -march=native (GGML_NATIVE) and with repacking (GGML_CPU_REPACK) by default.
    """
    system = the_os()
    if system.platform == "linux":
        match = re.search(r"^(?:flags|Features|features)\s*:\s*(.+)$", system.read("/proc/cpuinfo") or "", re.MULTILINE)
        words = set(match[1].split()) if match else set()
        if not words or words & {"sve"} or system.arch.startswith("riscv"):
            return None
        return CpuFeatures(frozenset({"REPACK", *(name for word, name in _LINUX_FEATURES.items() if word in words)}))
    if system.platform == "darwin" and system.arch == "arm64":
        found = {
            name for feature, name in _MACOS_FEATURES.items() if system.sysctl(f"hw.optional.arm.{feature}") == "1"
        }
        return CpuFeatures(frozenset({"REPACK", "NEON", *found}))
    return None


def _cpu_name() -> str:
    system = the_os()
    if system.platform == "linux":
        match = re.search(
            r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", system.read("/proc/cpuinfo") or "", re.MULTILINE
        )
        return match[1].strip() if match else system.arch
    if system.platform == "darwin":
        return system.sysctl("machdep.cpu.brand_string") or "Apple"
    return system.processor() or system.arch


def count_oom_kills() -> int | None:
    """How often the kernel has killed for memory since boot; None where it does not tell. Source: proc(5), /proc/vmstat oom_kill."""
    match = re.search(r"^oom_kill (\d+)$", the_os().read("/proc/vmstat") or "", re.MULTILINE)
    return int(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class LoadReading:
    """CPU seconds used so far: by everybody, by this process, and stolen by the hypervisor; and the wall clock they belong to."""

    wall_s: float
    busy_s: float
    own_s: float
    stolen_s: float


def read_load(wall_s: float) -> LoadReading:
    """Read the counters that `judge_load` compares; costs about 0.1 ms and belongs outside every timed region."""
    times = the_os().cpu_times()
    return LoadReading(
        wall_s, sum(one.busy_s for one in times), the_os().own_cpu_s(), sum(one.stolen_s for one in times)
    )


#: Busy CPUs beyond the machine's own that make a number suspect, and those that make it worthless.
CROWDED_CPUS, HOPELESS_CPUS = 0.10, 0.50


def judge_load(before: LoadReading, after: LoadReading, n_threads: int, n_cpus: int) -> tuple[Caution, ...]:
    """Say whether other work competed for the CPUs between two readings.

    Others do no harm while idle CPUs remain for them; what counts is by how many CPUs the demand exceeded the machine.
    """
    wall_s = after.wall_s - before.wall_s
    if wall_s < 0.05:  # the counters tick in hundredths of a second
        return ()
    others = (after.busy_s - before.busy_s - (after.own_s - before.own_s)) / wall_s
    stolen = (after.stolen_s - before.stolen_s) / wall_s
    cautions = []
    excess = others + n_threads - n_cpus
    if others > 0 and excess > CROWDED_CPUS:
        text = f"busy machine: other processes used {others:.1f} of {n_cpus} CPUs while {n_threads} threads ran here"
        cautions.append(Caution("busy-machine", text, distrust=excess > HOPELESS_CPUS))
    if stolen > CROWDED_CPUS * n_threads / n_cpus:
        text = f"the hypervisor took {stolen:.1f} CPUs away while this was measured"
        cautions.append(Caution("cpu-stolen", text, distrust=stolen > HOPELESS_CPUS))
    return tuple(cautions)
