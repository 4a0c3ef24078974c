"""The part of `harness.api` that is about what fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.api import Model, refer
from harness.arguments import read_single
from harness.events import OnEvent, ignore
from harness.runs.fit import Fitting, fit_model, plan_fit
from harness.sources.model_file import DEFAULT_MODEL


def fit(
    model: Model | None = None,
    *,
    cache_types: Sequence[str | tuple[str, str]] = (),
    n_ctx: int | None = None,
    vram_bytes: int | Sequence[int] = (),
    ram_bytes: int | None = None,
    spare_bytes: int | Sequence[int] = (),
    mmproj: Model | None = None,
    draft: Model | None = None,
    all_quants: bool = False,
    on_event: OnEvent = ignore,
    **settings: Any,
) -> Fitting:
    """Find the largest context that fits for each type of cache, and where layers and experts go, as ``harness fit`` does.

    Parameters
    ----------
    cache_types : of K and V: one name for both, or a pair; f16, q8_0 and q4_0 unless told
    n_ctx       : context in tokens; None is the largest that fits, no more than the model was trained for
    vram_bytes  : sizes of cards; without any the devices that are here count
    ram_bytes   : host memory; None is what is free here
    spare_bytes : to be left free on each device; one figure is for all
    mmproj      : a projector that goes with it
    draft       : a model that guesses for it
    all_quants  : look at every quantization of the model, as is done where its name leaves that open
    settings    : fields of `harness.RunSpec`, one value each; they stay as they are

    Returns
    -------
    `Fitting.fits` has a row a type: ``packing.spec`` with n_ctx, n_gpu_layers, n_cpu_moe and tensor_split, ``packing.taken`` what each
    memory gives; `Fitting.variants` a row a quantization.
    """
    types = [(kind, kind) if isinstance(kind, str) else kind for kind in cache_types]
    for type_k, type_v in types:
        read_single({"type_k": type_k, "type_v": type_v})
    request = plan_fit(
        refer(model) or DEFAULT_MODEL, read_single(settings), cache_types=types, n_ctx=n_ctx, vram_bytes=_list_sizes(vram_bytes),
        ram_bytes=ram_bytes, spare_bytes=_list_sizes(spare_bytes), mmproj=refer(mmproj), draft=refer(draft),
        all_quants=all_quants, on_event=on_event,
    )  # fmt: skip
    return fit_model(request, on_event)


def _list_sizes(sizes: int | Sequence[int]) -> tuple[int, ...]:
    return (sizes,) if isinstance(sizes, int) else tuple(sizes)
