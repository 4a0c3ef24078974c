"""Records as a file to be handed on, and such files of others as rows of the table of machines.

What goes into a file is chosen value by value (`records.share`); nothing is taken over because it happens to be in a record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from harness.catalog import Catalog
from harness.records.cells import Build, Machine, machine_key
from harness.records.share import Share, SharedBuild, SharedMachine, SharedSpeed
from harness.records.trust import Trust
from harness.spec import RunSpec, cell_key, defaults, parameters
from harness.speed.rates import USUAL_TESTS, Measured, count_layers, is_shared, name_host, speaks_for
from harness.speed.standings import MachineRow, Standing, name_columns
from harness.units import GIB

#: Systems and processors by the names that kernels give themselves; a release of one's own may carry a name.
_OS = re.compile(r"(Linux|Darwin|macOS|Windows|FreeBSD)(?:\D{0,3}(\d+(?:\.\d+){0,2}))?")
_ARCHITECTURES = {"x86_64", "amd64", "AMD64", "arm64", "aarch64", "ARM64", "riscv64", "ppc64le", "s390x", "i686"}
_VERSION, _COMMIT = re.compile(r"\d+(?:\.\d+){0,3}"), re.compile(r"[0-9a-f]{7,40}")
_FEATURE = re.compile(r"\b([A-Z][A-Z0-9_]{1,24}) = 1\b")
_BACKEND = re.compile(r"[A-Za-z][A-Za-z0-9]{0,15}")

#: Digits of a rate that are handed on.
_DIGITS = 5


def make_share(measured: Iterable[Measured], harness_version: str) -> Share:
    """What others may know of one's cells: for each machine, model and test with its settings the record that speaks for it."""
    groups: dict[tuple[Any, ...], list[Measured]] = {}
    for item in measured:
        record = item.record
        key = (
            machine_key(record.machine),
            name_device(item),
            _name_model(item),
            item.quantization,
            cell_key(record.asked, but={"model"}),
        )
        groups.setdefault(key, []).append(item)
    machines: dict[SharedMachine, int] = {}
    builds: dict[SharedBuild, int] = {}
    speeds = []
    for items in groups.values():
        if (best := speaks_for(items)) is not None:
            machine = machines.setdefault(_share_machine(best.record.machine), len(machines))
            build = best.record.build
            speeds.append(
                _share_speed(
                    best, machine, None if build is None else builds.setdefault(_share_build(build), len(builds))
                )
            )
    return Share(_match(_VERSION, harness_version), tuple(machines), tuple(builds), tuple(speeds))


def _share_machine(machine: Machine) -> SharedMachine:
    found = _OS.match(machine.os)
    os = " ".join(filter(None, found.groups())) if found else ""
    arch = machine.arch if machine.arch in _ARCHITECTURES else ""
    memory_bytes = max(round(machine.memory_bytes / GIB), 1) * GIB
    return SharedMachine(machine.cpu, machine.n_cores_physical, machine.n_cores_logical, memory_bytes, os, arch)


def _share_build(build: Build) -> SharedBuild:
    # A server's backend has its address in its name.
    backends = tuple(dict.fromkeys(_match(_BACKEND, name.partition("[")[0]) for name in build.backends))
    versions = _match(_VERSION, build.llama_cpp_python), _match(_VERSION, build.ggml_version)
    features = tuple(dict.fromkeys(_FEATURE.findall(build.system_info)))
    return SharedBuild(*versions, _match(_COMMIT, build.commit), tuple(filter(None, backends)), features)


def _match(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.match(text)
    return found[0] if found else ""


def _share_speed(item: Measured, machine: int, build: int | None) -> SharedSpeed:
    record, summary, asked = item.record, item.summary, item.record.asked
    low, high = summary.interval or (None, None)
    return SharedSpeed(
        machine, _name_model(item), asked.test, asked.kind, _round(summary.rate_tok_per_s), summary.n_samples,
        summary.verdict.trust, record.time_utc[:10], build, low and _round(low), high and _round(high), item.quantization,
        record.model.size_bytes if record.model else None, record.model.n_params if record.model else None,
        item.is_synthetic, item.is_default, asked.n_depth, asked.n_threads, name_device(item), _share_settings(asked),
    )  # fmt: skip


def _round(rate: float) -> float:
    return float(f"{rate:.{_DIGITS}g}")


def _name_model(item: Measured) -> str:
    """The catalog's name, or llama.cpp's description: a file's own name may be anybody's business."""
    return item.entry.name if item.entry else item.record.model.description if item.record.model else ""


def name_device(item: Measured) -> str | None:
    """What held layers besides the CPU; of another machine only that it is one."""
    _, names = count_layers(item.record)
    if not names:
        return None
    build = item.record.build
    said = {device.name: device.description for device in build.devices} if build else {}
    cards = dict.fromkeys("RPC server" if name.startswith("RPC") else said.get(name, "GPU") for name in names)
    return " + ".join([*cards, *["CPU"] * is_shared(item.record)])


def _share_settings(asked: RunSpec) -> dict[str, Any]:
    """Settings that are not as usual: numbers, switches and the words that their options know; of lists of texts the length."""
    found: dict[str, Any] = {}
    for name, usual in defaults().items():
        value = getattr(asked, name)
        if value == usual or name in ("n_threads", "n_depth"):
            continue
        if isinstance(value, str):
            if _is_word(name, value):
                found[name] = value
        elif isinstance(value, tuple):
            is_numbers = all(isinstance(item, int | float) for item in value)
            found[name] = "/".join(f"{item:g}" for item in value) if is_numbers else len(value)
        else:
            found[name] = value
    return found


def _is_word(name: str, value: str) -> bool:
    """Whether an option takes a word, and means nothing else by it."""
    try:
        return value in parameters()[name].parse(value)
    except ValueError:
        return False


# --- files of others --------------------------------------------------------------------------------------------------


def shared_rows(share: Share, file_name: str, test_kind: str, catalog: Catalog | None = None) -> list[MachineRow]:
    """A row for each machine of a file: of each model the speed that speaks for it, of one user with an empty cache.

    Of a model of which the file has several quantizations, each but the catalog's usual one has a cell of its own, as in one's own
    rows. test_kind is tg or pp.
    """
    speeds = [speed for speed in share.speeds if speed.test_kind == test_kind and _is_plain(speed)]
    entries = catalog.entries if catalog else {}
    usual = {name: entries[name].default_quantization for name in {speed.model for speed in speeds} & entries.keys()}
    names = name_columns(((speed.model, speed.quantization) for speed in speeds), usual)
    groups: dict[tuple[str, str], dict[str, list[SharedSpeed]]] = {}
    for speed in speeds:
        label = speed.device or name_host(_as_machine(share.machines[speed.machine]))
        row = groups.setdefault((label, "gpu" if speed.device else "cpu"), {})
        row.setdefault(names[speed.model, speed.quantization], []).append(speed)
    return [
        MachineRow(
            label, kind, False, {model: _stand(max(reversed(speeds), key=_voice)) for model, speeds in models.items()},
            shared_in=file_name,
        )
        for (label, kind), models in groups.items()
    ]  # fmt: skip


def _is_plain(speed: SharedSpeed) -> bool:
    """As `standings.measured_rows` has it: settings name what is not as usual."""
    return speed.n_depth == 0 and not {"n_parallel", "n_prefix"} & speed.settings.keys()


def _as_machine(machine: SharedMachine) -> Machine:
    return Machine(
        machine.cpu,
        machine.n_cores_physical,
        machine.n_cores_logical,
        machine.memory_bytes,
        machine.os,
        machine.arch,
        "",
    )


def _voice(speed: SharedSpeed) -> tuple[bool, bool, bool, int]:
    """As `rates.speaks_for` has it."""
    return (speed.trust is not Trust.NOT_TRUSTED, speed.is_default, speed.test in USUAL_TESTS, speed.n_samples)


def _stand(speed: SharedSpeed) -> Standing:
    remarks = ["not to be trusted, says who shared it"] * (speed.trust is Trust.NOT_TRUSTED)
    remarks += ["not with default settings"] * (not speed.is_default)
    low, high = speed.rate_low_tok_per_s, speed.rate_high_tok_per_s
    interval = None if low is None or high is None else (low, high)
    return Standing(
        speed.rate_tok_per_s, speed.quantization, speed.is_synthetic, interval, speed.test, speed.day, tuple(remarks)
    )


def join_rows(shares: Sequence[tuple[str, Share]], test_kind: str, catalog: Catalog | None = None) -> list[MachineRow]:
    """The rows of several files, each by the name of its file."""
    return [row for name, share in shares for row in shared_rows(share, name, test_kind, catalog)]
