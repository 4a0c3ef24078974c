"""How many CPUs are ours, how many threads to take where nobody says, and what the processor is called."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from dataclasses import dataclass

from harness.host import cgroup
from harness.host.arm_parts import name_arm_core
from harness.host.cgroup import parse_cpu_list
from harness.host.system import OperatingSystem, the_os

_CPUS = "/sys/devices/system/cpu"


@dataclass(frozen=True, slots=True)
class Ours:
    """The CPUs that this process may use.

    numbers are those of the CPUs, None where the OS keeps no set of them; set_by says what made the set smaller than the machine:
    ``affinity`` or ``cpuset``, None where nothing did. quota is a control group's, in CPUs' worth of time. online are all of the
    machine's CPUs that are switched on, empty where the OS does not list them.
    """

    numbers: frozenset[int] | None
    set_by: str | None
    quota: float | None
    n_online: int
    online: frozenset[int] = frozenset()

    @property
    def count(self) -> int:
        """CPUs that may run something of this process at the same moment."""
        return self.n_online if self.numbers is None else len(self.numbers)

    @property
    def bound(self) -> str | None:
        """What bounds the CPU time: ``affinity``, ``cpuset`` or ``cgroup quota``; None where the whole machine is ours."""
        return "cgroup quota" if self.quota is not None and self.quota < self.count else self.set_by


@dataclass(frozen=True, slots=True)
class Threads:
    """How many threads to run, and what decided it: ``physical cores``, ``performance cores``, or a bound of `Ours`."""

    count: int
    source: str

    def source_of(self, n_asked: int | None) -> str:
        """What decided a number of threads that was asked for, or that is this one where none was."""
        return self.source if n_asked is None else "asked"


def find_our_cpus(those: Collection[int] = ()) -> Ours:
    """Read what bounds this process just now; or threads that have those CPUs, where the one that asks has others."""
    system = the_os()
    online = parse_cpu_list(system.read(f"{_CPUS}/online"))
    n_online = len(online) or system.count_cpus(logical=True) or 1
    numbers, set_by = frozenset(those) or system.affinity(), None
    if numbers and online:
        numbers = numbers & online or numbers
    if numbers and len(numbers) < n_online:
        # The kernel's answer has both in it; the cpuset's own list tells whether the process was bound further.
        cpuset = cgroup.read_cpuset()
        set_by = "cpuset" if cpuset is not None and cpuset & (online or cpuset) == numbers else "affinity"
    return Ours(numbers or None, set_by, cgroup.read_cpu_quota(), n_online, online)


def choose_threads() -> Threads:
    """As many threads as llama.cpp takes by itself on a machine that is all ours; no more than cores are ours where it is not.

    llama.cpp knows no bound but the machine's, and its threads then wait for each other on CPUs that they share, or are held back.

    Source: llama.cpp common/common.cpp, common_cpu_get_num_math.
    """
    ours, rule = find_our_cpus(), _apply_llama_rule(the_os())
    if ours.set_by is not None and ours.numbers is not None:
        cores = _count_cores(the_os(), ours.numbers)
        if cores < rule.count:
            rule = Threads(cores, ours.set_by)
    if ours.quota is not None and ours.quota < rule.count:
        rule = Threads(max(int(ours.quota), 1), "cgroup quota")
    return rule


def count_physical_cores() -> int:
    """Physical cores, of whatever kind, whose time is ours: what a machine is filed under."""
    ours = find_our_cpus()
    physical = count_cores_of(ours)
    if ours.quota is not None:
        physical = min(physical, max(int(ours.quota), 1))
    return physical


def count_cores_of(ours: Ours) -> int:
    """Physical cores of CPUs that are ours, however little time a quota leaves us on them."""
    system = the_os()
    physical = system.count_cpus(logical=False) or system.count_cpus(logical=True) or 1
    if ours.numbers is not None and ours.set_by is not None:
        physical = min(physical, _count_sets(system, ours.numbers))
    return physical


def _apply_llama_rule(system: OperatingSystem) -> Threads:
    """What common_cpu_get_num_math gives, which sees the whole machine."""
    n_online = system.count_cpus(logical=True) or 1
    if system.platform == "darwin":
        for name, source in (("perflevel0.physicalcpu", "performance cores"), ("physicalcpu", "physical cores")):
            if (told := system.sysctl(f"hw.{name}")).isdecimal() and int(told) > 0:
                return Threads(int(told), source)
    elif system.platform == "linux":
        efficient = find_efficiency_cpus(system)
        if efficient and system.arch == "x86_64" and (count := _count_every_other(n_online, efficient)):
            return Threads(count, "performance cores")
        if cores := len(set(_read_siblings(system).values())):
            if system.arch.startswith("ppc"):
                cores *= min(max(n_online // cores, 1), 2)
            return Threads(cores, "physical cores")
    elif cores := system.count_cpus(logical=False) or 0:
        return Threads(cores, "physical cores")
    return Threads(n_online if n_online <= 4 else n_online // 2, "physical cores")


def _count_every_other(n_online: int, efficient: frozenset[int]) -> int:
    """Performance cores as cpu_count_math_cpus counts them: the CPU behind each is taken for its second thread, whatever it is."""
    count = number = 0
    while number < n_online:
        if number not in efficient:
            count += 1
            number += 1
        number += 1
    return count


def _count_cores(system: OperatingSystem, numbers: frozenset[int]) -> int:
    """Physical cores among some CPUs; of a hybrid processor the performance cores, unless none of them is there."""
    efficient = find_efficiency_cpus(system) if system.arch == "x86_64" else frozenset()
    return _count_sets(system, numbers - efficient or numbers)


def _count_sets(system: OperatingSystem, numbers: frozenset[int]) -> int:
    """Physical cores among some CPUs; one that no system knows of is a core of its own."""
    sets = _read_siblings(system)
    return len({sets.get(number, str(number)) for number in numbers})


def find_efficiency_cpus(system: OperatingSystem) -> frozenset[int]:
    """CPUs of the efficient kind of a hybrid processor of Intel's, which Linux lists as an event source of their own.

    llama.cpp asks the processor itself (CPUID leaf 1AH, core type 20H "Atom"), from each CPU in turn. Source: Linux
    arch/x86/events/intel/core.c (hybrid_pmu_type_map: cpu_atom; cpu_lowpower for those outside the ring).
    """
    return frozenset().union(
        *(parse_cpu_list(system.read(f"/sys/devices/{name}/cpus")) for name in ("cpu_atom", "cpu_lowpower"))
    )


@functools.lru_cache(maxsize=4)
def _read_siblings(system: OperatingSystem) -> dict[int, str]:
    """By CPU the mask of those that share its core; llama.cpp stops at the first CPU without one, and so does this."""
    found: dict[int, str] = {}
    while mask := system.read(f"{_CPUS}/cpu{len(found)}/topology/thread_siblings"):
        found[len(found)] = mask.strip()
    return found


def read_cpu_name() -> str:
    """What the processor is called, as its maker or the board's says; never empty."""
    system = the_os()
    if system.platform == "linux":
        text = system.read("/proc/cpuinfo") or ""
        match = re.search(r"^(?:model name|Model|Hardware|cpu model|cpu|machine)\t*\s*:\s*(.+)$", text, re.MULTILINE)
        name = match[1].strip() if match else ""
        if system.arch in ("aarch64", "arm64", "armv7l", "armv8l"):
            name = name_arm_core(text, system.read) or name
        return name or system.arch or "unknown processor"
    if system.platform == "darwin":
        return system.sysctl("machdep.cpu.brand_string") or "Apple"
    return " ".join(system.processor().split()) or system.arch or "unknown processor"


#: llama.cpp's names of vector instructions (ggml-cpu.cpp ggml_backend_cpu_get_features) by those of Linux's /proc/cpuinfo, of the
#: sysctl of Macs with Apple's processors, and of those with Intel's.
_LINUX_FEATURES = {
    "avx": "AVX", "avx2": "AVX2", "fma": "FMA", "f16c": "F16C", "avx_vnni": "AVX_VNNI", "avx512f": "AVX512",
    "avx512_vnni": "AVX512_VNNI", "avx512_bf16": "AVX512_BF16", "amx_int8": "AMX_INT8",
    "asimd": "NEON", "asimddp": "DOTPROD", "i8mm": "MATMUL_INT8", "sve": "SVE", "vxe": "VXE",
}  # fmt: skip
_APPLE_FEATURES = {"FEAT_DotProd": "DOTPROD", "FEAT_I8MM": "MATMUL_INT8"}
_INTEL_MAC_FEATURES = {"AVX1.0": "AVX", "AVX2": "AVX2", "FMA": "FMA", "F16C": "F16C", "AVX512F": "AVX512"}


def read_cpu_features() -> tuple[str, ...]:
    """Vector instructions that the CPU has, by llama.cpp's names, sorted; empty where the OS does not tell (Windows).

    Quick, for what needs no engine: llama_print_system_info says what a build was compiled for, whatever the CPU has.
    """
    system, found = the_os(), set[str]()
    if system.platform == "linux":
        match = re.search(r"^(?:flags|Features|features)\s*:\s*(.+)$", system.read("/proc/cpuinfo") or "", re.MULTILINE)
        words = set(match[1].split()) if match else set()
        found = {name for word, name in _LINUX_FEATURES.items() if word in words}
    elif system.platform == "darwin" and system.arch == "arm64":
        names = _APPLE_FEATURES.items()
        found = {"NEON", *(name for word, name in names if system.sysctl(f"hw.optional.arm.{word}") == "1")}
    elif system.platform == "darwin":
        words = {*system.sysctl("machdep.cpu.features").split(), *system.sysctl("machdep.cpu.leaf7_features").split()}
        found = {name for word, name in _INTEL_MAC_FEATURES.items() if word in words}
    return tuple(sorted(found))


def read_cache_bytes() -> int | None:
    """The last-level caches of the CPUs that are ours, all together; None where the OS does not say."""
    system = the_os()
    if system.platform == "darwin":
        found = [told for name in ("l3cachesize", "l2cachesize") if (told := system.sysctl(f"hw.{name}")).isdecimal()]
        return next((int(told) for told in found if int(told) > 0), None)
    ours = find_our_cpus()
    caches: dict[tuple[int, str], int] = {}
    for number in ours.numbers or range(ours.n_online):
        folder = f"{_CPUS}/cpu{number}/cache/index"
        levels = [level.strip() for at in range(8) if (level := system.read(f"{folder}{at}/level"))]
        if levels:
            last = max(range(len(levels)), key=lambda at: int(levels[at]))
            size = re.fullmatch(r"(\d+)K\s*", system.read(f"{folder}{last}/size") or "")
            shared = system.read(f"{folder}{last}/shared_cpu_list") or str(number)
            caches[int(levels[last]), shared.strip()] = int(size[1]) * 1024 if size else 0
    deepest = max((level for level, _ in caches), default=0)
    return sum(size for (level, _), size in caches.items() if level == deepest) or None
