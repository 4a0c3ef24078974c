"""llama-bench's own formats, field by field, with ours behind them: JSON, JSONL, CSV and SQL.

Order, names and types are those of test::get_fields, get_field_type and get_values in llama.cpp's tools/llama-bench/llama-bench.cpp.
These fields hold what was asked, as llama-bench's do, so that rows of both tools pair in scripts/compare-llama-bench.py; what really
ran stands in the fields after them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from harness.codec import encode
from harness.evidence.medians import mean, standard_deviation
from harness.records.bench_terms import FLASH_MODES, NO_OVERRIDES, OWN_TABLE, TABLE, USUAL
from harness.records.cells import Record, is_measured, name_devices
from harness.records.statistics import joules_per_token, summarize, token_times
from harness.spec import RunSpec, name_test, parameters
from harness.units import NS_PER_S
from harness.untrusted import harmless

#: The settings that llama-bench's own fields say.
_BENCH_SETTINGS = {
    "n_gpu_layers", "split_mode", "main_gpu", "tensor_split", "n_cpu_moe", "override_tensors", "devices", "load_mode", "no_host",
    "repack", "n_batch", "n_ubatch", "type_k", "type_v", "no_kv_offload", "flash_attn", "embeddings", "no_op_offload", "n_threads",
    "cpu_mask", "cpu_strict", "poll", "n_depth",
}  # fmt: skip
#: Of a record, what follows in JSON as it is kept.
_KEPT = ("schema", "harness_version", "threads_source", "asked", "resolved", "load", "machine", "build", "model")


def bench_fields(record: Record) -> dict[str, Any]:
    """llama-bench's 42 fields of a measured record, in its order and with its types."""
    spec, build, model = record.asked, record.build, record.model
    assert build is not None, "a measured record knows its build"
    assert model is not None, "a measured record knows its model"
    durations = [sample.duration_ns for sample in record.timed]
    rates = [spec.n_tokens * NS_PER_S / duration for duration in durations]
    cpu_info, gpu_info = name_devices(build.devices)
    return {
        "build_commit": build.commit,
        "build_number": 0,  # llama.cpp's count of commits is not in the library
        "cpu_info": cpu_info,
        "gpu_info": gpu_info,
        "backends": name_backends(build.backends),
        "model_filename": spec.model,
        "model_type": model.description,
        "model_size": model.size_bytes,
        "model_n_params": model.n_params,
        **_asked(spec, "n_batch", "n_ubatch", "n_threads", "cpu_mask", "cpu_strict", "poll"),
        **_asked(spec, "type_k", "type_v", "n_gpu_layers", "n_cpu_moe", "split_mode", "main_gpu", "no_kv_offload"),
        "flash_attn": FLASH_MODES.get(spec.flash_attn),  # a record of strangers may say anything
        "devices": "/".join(spec.devices) or "auto",
        "tensor_split": "/".join(f"{share:.2f}" for share in spec.tensor_split or (0.0,)),
        "tensor_buft_overrides": ";".join(spec.override_tensors) or NO_OVERRIDES,
        "load_mode": spec.load_mode,
        **_usual("lazy_mode"),
        "embeddings": spec.embeddings,
        "no_op_offload": int(spec.no_op_offload),
        "no_host": spec.no_host,
        "repack": spec.repack,
        **_usual("fit_target", "fit_min_ctx"),
        **_asked(spec, "n_prompt", "n_gen", "n_depth"),
        "test_time": record.time_utc,
        "avg_ns": int(mean(durations)),
        "stddev_ns": int(standard_deviation(durations)),
        "avg_ts": round(mean(rates), 6),
        "stddev_ts": round(standard_deviation(rates), 6),
    }


def _usual(*names: str) -> dict[str, Any]:
    return {name: USUAL[name] for name in names}


def _asked(spec: RunSpec, *names: str) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in names}


def name_backends(names: Sequence[str]) -> str:
    """Source: test::get_backend in llama-bench.cpp, which names RPC once, whatever the number of servers."""
    local = [name for name in names if name != "CPU" and not name.startswith("RPC")]
    remote = ["RPC"] * any(name.startswith("RPC") for name in names)
    return ",".join(local + remote) or "CPU"


def harness_fields(record: Record) -> dict[str, Any]:
    """Our own scalar fields: the median and what surrounds it. None where there is nothing to say."""
    summary = summarize(record)
    tokens, resolved, load = token_times(record), record.resolved, record.load
    return {
        "median_ns": round(summary.median_ns),
        "median_ts": round(summary.rate_tok_per_s, 6),
        "ci95_low_ts": None if summary.rate_low is None else round(summary.rate_low, 6),
        "ci95_high_ts": None if summary.rate_high is None else round(summary.rate_high, 6),
        "repetitions": summary.n_samples,
        "seen_warmups": summary.n_seen_warmups,
        "undisturbed": summary.n_undisturbed,
        "undisturbed_ts": summary.undisturbed_rate_tok_per_s and round(summary.undisturbed_rate_tok_per_s, 6),
        "verdict": summary.verdict.trust.value,
        "token_p50_ns": tokens and round(tokens.p50_ns),
        "token_p95_ns": tokens and round(tokens.p95_ns),
        "token_p99_ns": tokens and round(tokens.p99_ns),
        "time_to_first_token_ns": tokens and round(tokens.first_ns),
        "load_duration_ns": load and load.load_duration_ns,
        "context_duration_ns": load and load.context_duration_ns,
        "dispatch_ns_per_token": record.dispatch_ns_per_token,
        "repacked_bytes": resolved and resolved.repacked_bytes,
        "is_synthetic": record.model.is_synthetic if record.model else None,
        "warnings": "; ".join(caution.text for caution in summary.cautions),
    }


def _other_settings(record: Record) -> dict[str, Any]:
    """The settings that llama-bench has no field for."""
    values = {name: getattr(record.asked, name) for name in parameters() if name not in _BENCH_SETTINGS}
    return {name: ",".join(map(str, value)) if isinstance(value, tuple) else value for name, value in values.items()}


def _energy_fields(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The column of energy, for each record; no column where nothing measured it."""
    joules = [joules_per_token(record) for record in records]
    return [{"joules_per_token": value} if any(item is not None for item in joules) else {} for value in joules]


def _object(record: Record) -> dict[str, Any]:
    """One JSON object: llama-bench's fields and arrays, ours, then the whole record."""
    timed = record.timed
    rates = [round(record.asked.n_tokens * NS_PER_S / sample.duration_ns, 6) for sample in timed]
    whole = encode(record)
    if whole["model"]["cost"] is None:  # of a record of before
        del whole["model"]["cost"]
    return {
        **bench_fields(record),
        "samples_ns": [sample.duration_ns for sample in timed],
        "samples_ts": rates,
        **harness_fields(record),
        **_energy_fields([record])[0],
        "samples_prompt_ns": [sample.prompt_ns for sample in timed],
        "samples_token_ns": [list(sample.token_ns) for sample in timed],
        **{key: whole[key] for key in _KEPT},
        **({} if whole.get("telemetry") is None else {"telemetry": whole["telemetry"]}),
    }


def render_json(records: Sequence[Record]) -> str:
    """One JSON array, an object a cell that was measured."""
    return harmless.json_text([_object(record) for record in _measured(records)]) + "\n"


def render_jsonl(records: Sequence[Record]) -> str:
    """An object a line."""
    return "".join(harmless.json_text(_object(record), indent=None) + "\n" for record in _measured(records))


def flat_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """A row a measured cell, of plain values by column: llama-bench's, then ours."""
    measured = _measured(records)
    return [
        {**bench_fields(record), **harness_fields(record), **_other_settings(record), **energy}
        for record, energy in zip(measured, _energy_fields(measured), strict=True)
    ]


def render_csv(records: Sequence[Record]) -> str:
    """One heading line, every field quoted, booleans as 0 and 1: as llama-bench writes it."""
    text = io.StringIO()
    rows = flat_rows(records)
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    text.writelines([",".join(rows[0]) + "\n"] if rows else [])
    for row in rows:
        writer.writerow(harmless.csv_cell(v) if isinstance(v, str) else _as_text(v) for v in row.values())
    return text.getvalue()


def render_sql(records: Sequence[Record]) -> str:
    """llama-bench's table untouched, so that both tools can fill one database, and ours beside it, joined by test_time and test."""
    measured = _measured(records)
    if not measured:
        return ""
    # A table has the same columns whatever measured it.
    ours = [
        {
            "test_time": r.time_utc,
            "test": _bench_test(r.asked),
            **harness_fields(r),
            "joules_per_token": joules_per_token(r),
        }
        | _other_settings(r)
        for r in measured
    ]
    tables = {TABLE: list(map(bench_fields, measured)), OWN_TABLE: ours}
    text = [_create_table(name, rows[0]) for name, rows in tables.items()]
    text += [
        _insert(name, row)
        for both in zip(*tables.values(), strict=True)
        for name, row in zip(tables, both, strict=True)
    ]
    return "\n".join(text) + "\n"


def _bench_test(spec: RunSpec) -> str:
    """The test by what llama-bench's table knows of it, so that both rows are found again."""
    return name_test(spec.n_prompt, spec.n_gen, spec.n_depth)


def _create_table(name: str, row: dict[str, Any]) -> str:
    columns = ",\n".join(f"  {field} {_sql_type(field, row[field])}" for field in row)
    return f"CREATE TABLE IF NOT EXISTS {name} (\n{columns}\n);\n"


def _sql_type(field: str, value: Any) -> str:
    if isinstance(value, str):
        return "TEXT"
    return "REAL" if field.endswith("_ts") or field == "joules_per_token" else "INTEGER"


def _insert(table: str, row: dict[str, Any]) -> str:
    values = ", ".join("NULL" if value is None else harmless.sql_text(_as_text(value)) for value in row.values())
    return f"INSERT INTO {table} ({', '.join(row)}) VALUES ({values});"


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _measured(records: Sequence[Record]) -> list[Record]:
    """The records that have a number; a failed cell has none to compare and is told on stderr and in the journal."""
    return [record for record in records if is_measured(record) and record.model and record.build]
