"""The part of `harness.api` that is about settings to be found."""

from __future__ import annotations

from typing import Any

from harness.api import Model, open_session, refer
from harness.arguments import read_single
from harness.events import OnEvent, ignore
from harness.records.tuning import Quality, TuneRecord
from harness.runs import asking
from harness.runs import tune as tuning
from harness.runs.tuned import take_settings
from harness.spec import Settings
from harness.views import paste
from harness.views.tune import asked_of


def tune(
    model: Model | None = None,
    *,
    purpose: str = "chat",
    n_ctx: int | None = None,
    is_quality_kept: bool = True,
    vram_bytes: int | None = None,
    max_time_s: float = 300.0,
    seed: int = 0,
    goes_on_anyway: bool = False,
    cell_timeout_s: float | None = None,
    results: Model | None = None,
    on_event: OnEvent = ignore,
    **settings: Any,
) -> TuneRecord | None:
    """Look for the settings that are fast here, as ``harness tune`` does, without keeping them for ``--tuned``.

    Parameters
    ----------
    purpose         : ``chat``, ``rag``, ``batch`` or ``coding``
    n_ctx           : context in tokens that has to have room; None: the usual one, or what the purpose needs
    is_quality_kept : False lets a quantized cache take part
    vram_bytes      : memory of each device that may be used
    max_time_s      : for the whole search
    goes_on_anyway  : on a machine that is too noisy, too
    settings        : fields of `harness.RunSpec` that are given and not searched, one value each

    Returns
    -------
    `TuneRecord.chosen` has the settings: `TuneRecord.found` where `TuneRecord.is_proven`, else `TuneRecord.base`, llama.cpp's defaults.
    None where nothing was measured.
    """
    request = tuning.TuneRequest(
        str(asking.find_file(refer(model), on_event)), purpose, n_ctx, Quality.KEEP if is_quality_kept else Quality.ALLOW, vram_bytes,
        max_time_s, seed=seed, settings=read_single(settings), cell_timeout_s=cell_timeout_s, goes_on_anyway=goes_on_anyway,
    )  # fmt: skip
    with open_session("tune", results, on_event) as session:
        return tuning.tune(request, session)


def take_tuned(model: Model | None = None, *, on_event: OnEvent = ignore) -> Settings:
    """The settings that ``harness tune`` has kept for a model, as ``--tuned`` takes them: ``harness.measure(**harness.take_tuned())``.

    Returns
    -------
    Fields of `harness.RunSpec`; none where nothing was tuned, or for another build, file or machine, which on_event is told.
    """
    return take_settings(asking.find_file(refer(model), on_event), (), on_event)


def write_lines(record: TuneRecord) -> dict[str, list[str]]:
    """What other programs are told to run a model as a search found best: lines by program, as ``harness tune`` prints them."""
    found: dict[str, list[str]] = {}
    for pasted in paste.write_lines(asked_of(record, record.chosen)):
        found.setdefault(pasted.program, []).extend(pasted.lines)
    return found
