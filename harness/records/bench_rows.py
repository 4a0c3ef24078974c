"""Rows of llama-bench's files, whichever format they came in, as measurements.

Fields and their values are those of test::get_fields and get_values in llama.cpp's tools/llama-bench/llama-bench.cpp, as `harness`
exports them too, with fields of its own behind. JSON holds every repetition; CSV and SQL only mean and deviation, and not of how many:
llama-bench repeats five times unless told otherwise (cmd_params_defaults.reps).

Of the deviations stddev_ts is read and stddev_ns is not: that one is computed in integers, whose sum of squares overflows as soon as
repetitions take some seconds (stdev in llama-bench.cpp).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.codec import Malformed, Positive, decode
from harness.records.bench_terms import FLASH_MODES, NO_OVERRIDES, USUAL
from harness.records.cautions import Caution, CautionCause
from harness.records.cells import Machine
from harness.records.measurements import Measurement, Subject, name_hardware
from harness.records.trust import Trust, Verdict
from harness.spec import LOAD_MODES, RunSpec, defaults, parameters

#: Repetitions of llama-bench where nobody asks for another number. Source: cmd_params_defaults in llama-bench.cpp.
USUAL_REPETITIONS = 5

#: A row by the names of its fields; from CSV and SQL every value is text.
Row = Mapping[str, Any]

#: What a row must have to be one of llama-bench's.
MARKS = frozenset({"n_prompt", "n_gen", "avg_ts", "build_commit"})

_FLASH_MODES = {theirs: ours for ours, theirs in FLASH_MODES.items()}


def is_row(values: Any) -> bool:
    """Whether it is a row of llama-bench's."""
    return isinstance(values, Mapping) and values.keys() >= MARKS


@dataclass(frozen=True, slots=True)
class _Row:
    """What is read of a row; a file of an older llama-bench lacks some of it."""

    n_prompt: int
    n_gen: int
    avg_ts: float
    build_commit: str
    stddev_ts: float = 0.0
    test_time: str = ""
    cpu_info: str = ""
    gpu_info: str = ""
    model_filename: str = ""
    model_type: str = ""
    model_size: int | None = None
    samples_ns: tuple[Positive, ...] = ()
    repetitions: int | None = None  # harness's own
    warnings: str = ""  # harness's own
    verdict: str = ""  # harness's own: a `Trust`


def read_row(row: Row) -> Measurement:
    """Read one row; values may be text, as CSV and SQL have them.

    Raises
    ------
    Malformed : a field is missing or of another type, or the figures cannot be a measurement's.
    UsageError : what it says was measured contradicts itself.
    """
    asked = row.get("asked")  # harness's JSON has all settings there
    merged = {**asked, **row} if isinstance(asked, Mapping) else row
    plain = {name: _plain(name, value) for name, value in merged.items()}
    read = decode(_Row, plain)
    if not read.avg_ts > 0 or read.stddev_ts < 0:
        raise Malformed(f"holds a speed of {read.avg_ts} ± {read.stddev_ts} t/s, which was not measured")
    spec = _read_spec(plain, read)
    kept = plain.get("model")
    sha256 = kept.get("file_sha256") if isinstance(kept, Mapping) else None
    machine = plain.get("machine")
    subject = Subject(
        spec,
        name_hardware(read.cpu_info, read.gpu_info),
        read.build_commit.split("-")[0],
        sha256 if isinstance(sha256, str) else None,
        read.model_size,
        read.model_type,
        decode(Machine, machine) if isinstance(machine, Mapping) else None,
        tuple((name, str(plain[name])) for name, usual in USUAL.items() if plain.get(name, usual) != usual),
    )
    samples = read.samples_ns
    # What harness exported says what qualified it, but not how much.
    distrust = read.verdict == Trust.NOT_TRUSTED.value
    verdict = Verdict.of(
        [Caution(CautionCause.SENTENCE, distrust=distrust, said=read.warnings)] if read.warnings else []
    )
    # A deviation of exactly 0 is what a single repetition has.
    known = len(samples) or read.repetitions or (None if read.stddev_ts else 1)
    return Measurement(subject, read.test_time, samples, read.avg_ts, read.stddev_ts, known, verdict)


def _read_spec(plain: Mapping[str, Any], read: _Row) -> RunSpec:
    values: dict[str, Any] = {name: plain[name] for name in parameters() if plain.get(name) not in (None, "")}
    if "flash_attn" in values:
        values["flash_attn"] = _FLASH_MODES.get(values["flash_attn"], values["flash_attn"])
    formerly = "dio" if plain.get("use_direct_io") else {1: "mmap", 0: "none"}.get(plain.get("use_mmap", -1), "auto")
    mode = plain.get("load_mode", formerly)
    values["load_mode"] = mode if mode in LOAD_MODES else "auto"
    overrides = plain.get("tensor_buft_overrides", NO_OVERRIDES)
    values["override_tensors"] = () if overrides == NO_OVERRIDES else tuple(str(overrides).split(";"))
    usual = defaults()
    for name, value in values.items():
        if isinstance(usual[name], bool):
            values[name] = bool(value)
        elif isinstance(usual[name], tuple) and name != "override_tensors":
            values[name] = _read_list(name, value)
    return decode(
        RunSpec,
        {**values, "model": read.model_filename, "n_prompt": read.n_prompt, "n_gen": read.n_gen, "repetitions": 1},
    )


def _read_list(name: str, value: Any) -> tuple[Any, ...]:
    """Devices, servers or shares: as text, ``CUDA0/RPC0`` or ``3.00/1.00``, where ``auto`` and ``0.00`` are no choice."""
    if not isinstance(value, str) or value in ("auto", "0.00"):
        return tuple(value) if isinstance(value, list) else ()
    parts = value.replace(",", "/").split("/")
    return tuple(map(float, parts)) if name == "tensor_split" else tuple(parts)


#: Fields whose text is text although it may look like a number.
_TEXTS = {
    "build_commit", "cpu_info", "gpu_info", "backends", "model_filename", "model_type", "cpu_mask", "devices", "tensor_split",
    "tensor_buft_overrides", "load_mode", "lazy_mode", "test_time", "type_k", "type_v", "split_mode", "rpc", "warnings",
}  # fmt: skip


def _plain(name: str, value: Any) -> Any:
    """A value as JSON would have it: numbers as numbers, truth as 0 or 1."""
    if isinstance(value, bool):
        return int(value)
    if not isinstance(value, str) or name in _TEXTS:
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value or None
