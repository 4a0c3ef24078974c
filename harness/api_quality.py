"""The part of `harness.api` that is about how well models predict a text."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from harness.api import Model, Values, open_session, refer
from harness.arguments import read_axes
from harness.events import OnEvent, ignore
from harness.records.quality import QualityRecord
from harness.runs import quality


def measure_quality(
    model: Model | Sequence[Model] | None = None,
    *,
    base: Model | None = None,
    text: Model | None = None,
    n_ctx: int = quality.WINDOW_TOKENS,
    n_chunks: int | None = None,
    results: Model | None = None,
    on_event: OnEvent = ignore,
    **settings: Values,
) -> list[QualityRecord]:
    """Have models predict a text, as ``harness quality`` does; `harness.find_figures` says what a record's windows come to.

    Parameters
    ----------
    base     : the model that all are compared with, with the usual cache; by default the first of several
    text     : a file; by default the text that comes with harness
    n_ctx    : tokens of a window, of which the second half is scored
    n_chunks : windows at the most, by default as many as the text has
    settings : fields of `harness.RunSpec`, one value each or several, as in `measure`

    Returns
    -------
    A record for every combination, the base's first. One that llama.cpp refused has a ``failure``.
    """
    models = [model] if model is None or isinstance(model, str | os.PathLike) else list(model)
    request = quality.plan_quality(
        [name for one in models if (name := refer(one))], read_axes(settings), on_event, base=refer(base),
        text=None if text is None else pathlib.Path(text), n_ctx=n_ctx, n_chunks=n_chunks,
    )  # fmt: skip
    with open_session("quality", results, on_event) as session:
        return quality.measure_quality(request, session)
