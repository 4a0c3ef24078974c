"""How the operating system sets what makes a machine steady: clocks, turbo, profile, battery, and which CPUs share a core.

Sources: Linux Documentation/admin-guide/pm/{cpufreq,intel_pstate,amd-pstate}.rst, Documentation/ABI/testing/sysfs-platform_profile;
cpufreq's ``boost`` of acpi-cpufreq and amd-pstate. macOS and Windows say whether the mains feed the machine, and nothing else of it.
"""

from __future__ import annotations

import re

from harness.host.cpu import find_efficiency_cpus, find_our_cpus
from harness.host.system import the_os
from harness.records.noise import Tuning

_CPUS = "/sys/devices/system/cpu"


def read_tuning() -> Tuning:
    """Read it; what this system does not say is None."""
    system, ours = the_os(), find_our_cpus()
    numbers = sorted(ours.numbers or ours.online) if system.platform == "linux" else []
    shared = _group_siblings(numbers)
    efficient = find_efficiency_cpus(system)
    cores = [group[0] for group in shared if group[0] not in efficient] or [group[0] for group in shared]
    return Tuning(
        governors=_each(numbers, "cpufreq/scaling_governor"),
        preferences=_each(numbers, "cpufreq/energy_performance_preference"),
        driver=next(iter(_each(numbers[:1], "cpufreq/scaling_driver")), None),
        is_turbo_on=_read_turbo(),
        profile=_word("/sys/firmware/acpi/platform_profile"),
        is_plugged_in=system.is_plugged_in(),
        quota=ours.quota,
        is_virtual=_is_virtual(),
        n_siblings=sum(len(group) for group in shared if len(group) > 1),
        core_cpus=tuple(cores),
    )


def _word(path: str) -> str | None:
    return (the_os().read(path) or "").strip() or None


def _each(numbers: list[int], name: str) -> tuple[str, ...]:
    found = (_word(f"{_CPUS}/cpu{number}/{name}") for number in numbers)
    return tuple(dict.fromkeys(filter(None, found)))


def _group_siblings(numbers: list[int]) -> list[list[int]]:
    """Our CPUs by the core that they lie on; a CPU of which nothing is said is a core of its own."""
    groups: dict[str, list[int]] = {}
    for number in numbers:
        folder = f"{_CPUS}/cpu{number}/topology"
        core = _word(f"{folder}/thread_siblings") or _word(f"{folder}/thread_siblings_list") or f"alone {number}"
        groups.setdefault(core, []).append(number)
    return list(groups.values())


def _read_turbo() -> bool | None:
    """intel_pstate says it the other way round than the others."""
    if (off := _word(f"{_CPUS}/intel_pstate/no_turbo")) in ("0", "1"):
        return off == "0"
    boost = _word(f"{_CPUS}/cpufreq/boost")
    return boost == "1" if boost in ("0", "1") else None


def _is_virtual() -> bool | None:
    """The processor's own flag, which hypervisors set for x86; None elsewhere."""
    text = the_os().read("/proc/cpuinfo") or ""
    match = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    return "hypervisor" in match[1].split() if match else None
