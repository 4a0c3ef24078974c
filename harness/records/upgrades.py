"""What older lines lack: each kind's steps from one schema to the next. Journals of every edition are read for ever."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.memory.causes import HOST, Cause, Part
from harness.records.cautions import CautionCause

Upgrade = Callable[[Mapping[str, Any]], Mapping[str, Any]]


#: Causes whose sentence follows from them and the worker's end.
_SAID_BY_CAUSE = ("segmentation fault", "bus error", "illegal instruction", "out of memory", "killed", "exit")
#: Causes of cautions, which were called codes.
_CODES = frozenset(cause.value for cause in CautionCause)


def _without_sentence(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The sentence of every failure was stored."""
    failure = values.get("failure")
    if not failure or failure["cause"] not in _SAID_BY_CAUSE:
        return values
    return {**values, "failure": {**failure, "message": None}}


def _cautions_of_codes(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Every caution had its sentence, and its cause was called code."""
    warnings = [
        {**item, "cause": item["code"] if item["code"] in _CODES else "sentence", "said": item["text"]}
        for item in values.get("warnings") or ()
    ]
    return {**values, "warnings": warnings} if warnings else values


def _comparison_1(values: Mapping[str, Any]) -> Mapping[str, Any]:
    rounds = [{**turn, "direct": _cautions_of_codes(turn["direct"])} for turn in values["rounds"]]
    return {**_cautions_of_codes(values), "rounds": rounds}


def _parity_1(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The number of tokens was in the test's name alone."""
    return {**values, "n_tokens": int(values["test"].lstrip("pgt"))}


def _memory_of_rows(line: Mapping[str, Any]) -> dict[str, Any]:
    """overhead 2 of 1: readings, buffers and forecasts again out of the ledger's rows, which were made of them."""
    asked, n_ctx, rows = dict(line.get("asked") or {}), line["n_ctx"], line["ledger"]
    asked = {"model": line.get("file_name") or line["model"], "n_prompt": min(512, n_ctx), **asked}
    asked["n_gen"] = min(1, max(n_ctx - asked["n_prompt"], 0))
    asked["n_depth"] = max(n_ctx - asked["n_prompt"] - asked["n_gen"], 0)
    model = {"label": line["model"], **{name: line.get(name) for name in (
        "origin", "architecture", "file_bytes", "n_layers", "n_ctx_train", "is_synthetic", "file_type", "file_name", "file_sha256"
    )}}  # fmt: skip
    contexts = line.get("contexts") or [{"n_ctx": n_ctx, "lines": _predicted(rows, is_buffer=True)}]
    forecasts = [{**item, "flash_attn": line.get("flash_attn")} for item in contexts]
    forecasts[0]["runtime"] = runtime = _predicted(rows, is_buffer=False)
    if (process := forecasts[0].get("process_bytes")) is not None:
        forecasts[0]["interpreter_bytes"] = process - sum(item["size_bytes"] for item in runtime)
    cards = [_card(card) for card in line.get("cards") or ()]
    failure = line.get("failure")
    return {
        **line, "asked": asked, "model": model, "forecasts": forecasts, "cards": cards,
        "notes": [{"remark": "text", "detail": text} for text in line.get("warnings") or ()],
        "measurement": _measured(line, rows) if line.get("steps") else None,
        "failure": None if failure is None else {"phase": "", "message": failure, "cause": "refused"},
    }  # fmt: skip


def _card(card: Mapping[str, Any]) -> dict[str, Any]:
    compute, context, count = card["compute_bytes_at_most"], card["driver_context_bytes"], card["n_layers_fitting"]
    price = {"device_weights_bytes": card["weights_bytes"], "device_cache_bytes": card["kv_cache_bytes"]}
    all_layers = card["needed_bytes"] - (compute or 0) - context  # not told apart
    return {
        **card, "device": None if context else card["device"], "n_fitting": count, "compute_bytes": compute,
        "context_bytes": context, "price": {"n_gpu_layers": count, **price},
        "full": {"n_gpu_layers": card["n_layers"], "device_weights_bytes": all_layers, "device_cache_bytes": 0},
    }  # fmt: skip


def _cause(row: Mapping[str, Any]) -> Cause:
    return {cause.value: cause for cause in Cause}[row["cause"]]


def _predicted(rows: Sequence[Mapping[str, Any]], *, is_buffer: bool) -> list[dict[str, Any]]:
    return [
        {"cause": row["cause"], "device": row["device"], "buffer": row["device"], "size_bytes": row["predicted_bytes"]}
        for row in rows
        if row["predicted_bytes"] is not None and _cause(row).is_buffer == is_buffer
    ]


def _measured(line: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Its maps were not kept; what they told is in the rows: those of buffers, those of the process, and what was taken back."""
    found = {_cause(row): row for row in rows if row["device"] == HOST and row["measured_bytes"] is not None}
    sizes = {cause: row["measured_bytes"] for cause, row in found.items()}
    buffers = [
        {"cause": row["cause"], "device": row["device"], "buffer": row["device"], "size_bytes": row["measured_bytes"],
         "resident_bytes": None if row["cause"] == Cause.MAPPED else row.get("resident_bytes")}
        for row in rows if row["measured_bytes"] is not None and _cause(row).is_buffer
    ]  # fmt: skip
    told = Cause.UNEXPLAINED in sizes
    return {
        "readings": [{"step": "", **step} for step in line["steps"]],
        "buffers": buffers,
        "runtime": [{"cause": c.value, "size_bytes": size} for c, size in sizes.items() if c.part is Part.PROCESS],
        "weights_resident_bytes": sizes.get(Cause.MAPPED, 0) + sizes.get(Cause.UNREAD, 0) if told else None,
        **{name: line.get(name) for name in ("flash_attn", "load_mode", "layers_by_device")},
    }  # fmt: skip


def _times_1(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Remarks and a failure of a time ledger were sentences, and warnings called cautions."""
    said = values.get("failure")
    return {
        **values,
        "remarks": [{"cause": "sentence", "said": text} for text in values.get("remarks") or ()],
        "failure": None if said is None else {"phase": "token-time", "cause": "exit", "message": said},
        "warnings": values.get("cautions"),
    }


#: By kind, in order: the first step makes schema 2 of schema 1. A kind that is not here is of schema 1 still. A step gets a whole
#: line of which nothing is checked yet; what it makes is checked by the fields of the kind's class. A field that was added needs no
#: step if it has a default, and one that went away none either: what a class does not know is not read.
UPGRADES: dict[str, tuple[Upgrade, ...]] = {
    "failure": (_without_sentence, _cautions_of_codes),
    "ollama-comparison": (_comparison_1,),
    "overhead": (_memory_of_rows,),
    "parity": (_parity_1,),
    "result": (_without_sentence, _cautions_of_codes),
    "roofline": (_cautions_of_codes,),
    "run": (_without_sentence, _cautions_of_codes),
    "time-ledger": (_times_1, _cautions_of_codes),
}

#: What the steps of measured cells are about: a line with none of these is the same in every schema (`quick_lines`).
CHANGED_OF_CELLS = ("failure", "warnings")
