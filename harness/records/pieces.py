"""The pieces of work that a record was timed by, with what the operating system counted around each: samples to be judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from harness.records.cells import Conditions, Sample
from harness.records.ollama import DirectText
from harness.records.roofline import RoofTest
from harness.records.speculation import Speculation
from harness.records.text import TextRun
from harness.records.token_time import TimeRecord


def list_pieces(record: TimeRecord | RoofTest | TextRun | DirectText | Speculation) -> list[Sample]:
    """Blocks of tokens, loads and an application's tokens; timed runs; the prompt and the writing of a text; texts with a draft.

    Those of an older record have no conditions. A cold load is made to read its pages from the disk, which is no disturbance.
    """
    return [
        Sample(duration_ns, None, (), is_warmup=False, conditions=conditions)
        for duration_ns, conditions in _list_pieces(record)
        if duration_ns > 0
    ]


def _list_pieces(
    record: TimeRecord | RoofTest | TextRun | DirectText | Speculation,
) -> Iterator[tuple[int, Conditions | None]]:
    if isinstance(record, TimeRecord):
        for block in record.blocks:
            yield sum(block.token_ns), block.conditions
        for tokens in record.applications:
            yield sum(tokens.token_ns), tokens.conditions
        for load in record.loads:
            seen = load.conditions
            if seen is not None and load.state == "cold":
                seen = dataclasses.replace(seen, n_major_faults=None)
            yield load.load_ns + load.context_ns + load.first_token_ns + load.second_token_ns, seen
    elif isinstance(record, Speculation):
        for passage in record.passages:
            yield passage.duration_ns, passage.conditions
    elif isinstance(record, RoofTest):
        yield from zip(record.durations_ns, record.conditions or [None] * len(record.durations_ns), strict=False)
    else:
        figures = record.figures
        yield (figures.prompt_eval_duration_ns or 0) + (figures.eval_duration_ns or 0), record.conditions
