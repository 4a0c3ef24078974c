"""What a generated token's time consists of: plan what is timed, and have a worker time it."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import harness
from harness.codec import encode
from harness.errors import UsageError
from harness.gguf.attention import describe_attention
from harness.gguf.caches import Context
from harness.gguf.header import Header
from harness.gguf.model_kinds import Question
from harness.gguf.reads import TokenReads, count_reads
from harness.gguf.settings import read_count
from harness.gguf.split import name_files
from harness.host.cpu import choose_threads
from harness.host.memory import available_memory_bytes
from harness.records.cells import Resolved
from harness.records.journal import utc_now
from harness.records.roofline import READING, Roof
from harness.records.token_time import (
    WARMUP_TOKENS,
    ApplicationTokens,
    Block,
    Copies,
    Remark,
    TimedLoad,
    TimedModel,
    TimePlan,
    TimeRecord,
)
from harness.runs.asking import read_for
from harness.runs.session import Session
from harness.runs.worker import understand
from harness.sources.model_file import hash_file
from harness.spec import RunSpec, Settings, defaults

#: Tokens in the cache at which a token is looked at unless told otherwise, and the type of a second cache.
DEPTHS, SECOND_CACHE = (0, 512, 2048, 8192), "q8_0"


@dataclass(frozen=True, slots=True)
class TimeRequest:
    """What is to be timed, by what is known without running it: what a token reads, and what was left out of the plan."""

    plan: TimePlan
    reads: TokenReads
    is_synthetic: bool = False
    remarks: tuple[Remark, ...] = ()


def plan_token_time(
    path: pathlib.Path,
    values: Settings | None = None,
    *,
    label: str = "",
    depths: Sequence[int] = DEPTHS,
    cache_types: Sequence[str] = (),
    rounds: int = 10,
    n_tokens: int = 8,
    with_load: bool = True,
    with_application: bool = True,
) -> TimeRequest:
    """Plan the timing of one file.

    Parameters
    ----------
    values      : fields of `RunSpec` that are not the usual
    label       : what the user calls the model
    depths      : tokens in the cache; those that the model or memory does not take are left out
    cache_types : the first is taken apart; empty: the type of K in values, and q8_0 beside it
    rounds      : blocks of each kind; an interval needs 6
    n_tokens    : timed in one block

    Raises
    ------
    UsageError : no depth is left, K and V have different types, or the file is no model that writes.
    """
    header, values = read_for(path, Question.TIME, label), dict(values or {})
    if cache_types and ("type_k" in values or "type_v" in values):
        raise UsageError("--caches says it all; leave out -ctk and -ctv.")
    own = values.get("type_k", defaults()["type_k"])
    if not cache_types:
        if values.get("type_v", own) != own:
            raise UsageError("The time ledger takes one type for K and V; give -ctk and -ctv the same.")
        # Without flash attention llama.cpp takes no quantized V.
        cache_types = tuple(dict.fromkeys((own, SECOND_CACHE))) if values.get("flash_attn") != "off" else (own,)
    free_bytes = available_memory_bytes() - header.size_bytes
    chosen, remarks = choose_depths(sorted(set(depths)), n_tokens, cache_types, header, free_bytes)
    if not chosen:
        raise UsageError(
            f"None of the depths {', '.join(map(str, depths))} fits into what the model was trained for and into free memory; "
            "give a smaller --depth."
        )
    values |= {"type_k": cache_types[0], "type_v": cache_types[0]}
    plan = TimePlan(
        RunSpec(str(path), n_gen=1, **values).with_threads(choose_threads().count),
        chosen,
        name_files(header, str(path)),
        rounds,
        n_tokens,
        tuple(cache_types),
        load_rounds=min(rounds, 3) if with_load else 0,
        application_tokens=32 if with_application else 0,
    )
    return TimeRequest(plan, count_reads(header, cache_types), header.is_synthetic, remarks)


def choose_depths(
    asked: Sequence[int], n_tokens: int, caches: Sequence[str], header: Header, free_bytes: int
) -> tuple[tuple[int, ...], tuple[Remark, ...]]:
    """Leave out what the model was not trained for and what memory cannot hold, with a remark for each.

    Each cache type is held twice (in its context and as a copy to go back to), the first one a third time for the observer.
    """
    trained = read_count(header, "context_length")
    attention = describe_attention(header)
    depths, remarks = [], []
    for depth in asked:
        n_ctx = depth + n_tokens + WARMUP_TOKENS
        held = [attention.size_bytes(Context(n_ctx, kind, kind)) for kind in (*caches, *caches, caches[0])]
        size = sum(known for known in held if known is not None)
        if trained is not None and n_ctx > trained:
            remarks.append(Remark("beyond training", depth=depth, limit_tokens=trained))
        elif None not in held and depth and size > free_bytes:
            remarks.append(Remark("beyond memory", depth=depth, needed_bytes=size, free_bytes=max(free_bytes, 0)))
        else:
            depths.append(depth)
    return tuple(depths), tuple(remarks)


#: Events of the worker that a record lists, by the name of the list.
_LISTED: dict[str, tuple[str, type[Any]]] = {
    "block": ("blocks", Block),
    "load": ("loads", TimedLoad),
    "application": ("applications", ApplicationTokens),
    "remark": ("remarks", Remark),
}


def measure_token_time(
    request: TimeRequest, session: Session, *, roof_bytes_per_s: float | None = None, roof: Roof | None = None
) -> TimeRecord:
    """Have a worker time it, and keep what came of it; a failure or Ctrl-C costs what was not measured by then.

    Parameters
    ----------
    roof_bytes_per_s : memory bandwidth to compare with
    roof             : what the machine did at best, where that is not given
    """
    plan, began = request.plan, utc_now()
    path = pathlib.Path(plan.spec.model)
    named = {
        "file_name": path.name,
        "file_sha256": hash_file(path, session.on_event),
        "is_synthetic": request.is_synthetic,
    }
    lists: dict[str, list[Any]] = {name: [] for name, _ in _LISTED.values()} | {"remarks": [*request.remarks]}
    model, done, copies = {}, {}, None
    with session.until_interrupted():
        for event in session.ask("token_time", encode(plan, keep_paths=True)):
            kind = event["event"]
            if kind in _LISTED:
                name, made = _LISTED[kind]
                lists[name].append(understand(made, event))
            elif kind == "phase":
                session.show(event["phase"], event["index"], event["count"])
            elif kind == "loaded":
                model = event["model"]
            elif kind == "copies":
                copies = understand(Copies, event)
            elif kind == "done":
                done = event
    if session.is_interrupted:
        lists["remarks"].append(Remark("interrupted"))
    resolved = understand(Resolved, done["resolved"]) if done else None
    record = TimeRecord(
        plan,
        understand(TimedModel, {**model, **named}),
        session.machine,
        began,
        harness.__version__,
        build=session.build,
        resolved=resolved,
        copies=copies,
        reads=request.reads,
        roof_bytes_per_s=roof_bytes_per_s or _find_roof(roof, resolved),
        failure=session.failure,
        blocks=tuple(lists["blocks"]),
        loads=tuple(lists["loads"]),
        applications=tuple(lists["applications"]),
        remarks=tuple(lists["remarks"]),
    )
    if record.blocks or record.loads or record.applications:
        session.keep(record)
    return record


def _find_roof(roof: Roof | None, resolved: Resolved | None) -> float | None:
    """The quickest reading of the one device that ran the model; None where there are several, or none was measured."""
    devices = [] if resolved is None else list(resolved.layers_by_device)
    best = roof.best(READING, devices[0]) if roof is not None and len(devices) == 1 else None
    return None if best is None else best.rate_per_s
