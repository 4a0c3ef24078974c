"""The part of `harness.api` that is about figures to be compared and handed on: LocalScore's tests, and files without names."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from typing import Any

import harness
from harness.api import Model, open_session, refer
from harness.arguments import read_single
from harness.events import OnEvent, ignore, pass_remarks
from harness.records.cells import Record
from harness.records.share import Share
from harness.runs import score, share
from harness.sources.user_catalog import load_catalog
from harness.speed.rates import collect
from harness.speed.sharing import make_share


def measure_score(
    model: Model | None = None,
    *,
    repetitions: int = score.USUAL_REPETITIONS,
    is_quick: bool = False,
    budget_s: float | None = None,
    cell_timeout_s: float | None = None,
    results: Model | None = None,
    on_event: OnEvent = ignore,
    **settings: Any,
) -> list[Record]:
    """Run LocalScore's tests, as ``harness score`` does; `harness.score_cells` says what they come to.

    Parameters
    ----------
    repetitions    : of each test
    is_quick       : three of the nine, whose figure is not comparable
    budget_s       : no test is begun that would end later
    cell_timeout_s : bounds one test with its load
    settings       : fields of `harness.RunSpec`, one value each; flash_attn is off unless told
    """
    request = score.plan_score(
        refer(model), read_single(settings), on_event, repetitions=repetitions, is_quick=is_quick, budget_s=budget_s,
        cell_timeout_s=cell_timeout_s,
    )  # fmt: skip
    with open_session("score", results, on_event) as session:
        return score.measure_score(request, session)


def share_records(records: Iterable[Record]) -> Share:
    """What of measured cells others may know, as ``harness report --share`` has it; `harness.write_share` writes it as JSON."""
    return make_share(collect(records, load_catalog()), harness.__version__)


def read_shared(*paths: Model, on_event: OnEvent = ignore) -> dict[str, Share]:
    """Files that others shared, and those in folders, by their names; what cannot be believed is told to on_event and left out."""
    found, _ = share.read_shares([pathlib.Path(path) for path in paths], pass_remarks(on_event))
    return dict(found)
