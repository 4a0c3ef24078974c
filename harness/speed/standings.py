"""Machines beside each other, model by model: published figures, and of one's own records the ones that speak."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.catalog import Catalog
from harness.errors import HarnessError
from harness.evidence.medians import median
from harness.gguf.cost import cost_of_shape
from harness.records.cautions import CautionCause
from harness.spec import RunSpec
from harness.speed.published import ARTICLE_MODELS, CAUTIONS, FIGURE_CAUTIONS, load_machines
from harness.speed.rates import Measured, speaks_for


@dataclass(frozen=True, slots=True)
class Standing:
    """One rate of a model on a machine.

    quantization is None where it is not known; test and time_utc are None for a published one, which has no interval either. remarks
    are sentences about its worth.
    """

    rate_tok_per_s: float
    quantization: str | None
    is_synthetic: bool = False
    interval: tuple[float, float] | None = None
    test: str | None = None
    time_utc: str | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MachineRow:
    """One machine, published, measured here or by others, with its rates by model; caution is about all of them.

    shared_in is the name of the file that others shared it in.
    """

    machine: str
    kind: str
    is_published: bool
    cells: Mapping[str, Standing]
    caution: str | None = None
    shared_in: str | None = None


def published_rows(catalog: Catalog) -> list[MachineRow]:
    """The article's rows, in its order; the catalog says what each bare name stood for."""
    rows = []
    for machine in load_machines():
        cells = {}
        for model, rate in machine.rates_tok_per_s.items():
            if rate is not None:
                caution = FIGURE_CAUTIONS.get((machine.name, model))
                entry = catalog.entries.get(model)
                cells[model] = Standing(
                    rate, entry.ollama_2024 if entry else None, remarks=(caution,) if caution else ()
                )
        rows.append(MachineRow(machine.name, machine.kind, True, cells, CAUTIONS.get(machine.name)))
    return rows


def _is_plain(asked: RunSpec) -> bool:
    """Whether it began with an empty cache and served one user."""
    return asked.n_depth == 0 and asked.serves_one_afresh


def name_columns(
    found: Iterable[tuple[str, str | None]], usual: Mapping[str, str]
) -> dict[tuple[str, str | None], str]:
    """What the column of each model and quantization is called: of several of a model each but the usual one has its own."""
    pairs = dict.fromkeys(found)
    counts = collections.Counter(model for model, _ in pairs)
    return {
        (model, quantization): model
        if counts[model] == 1 or quantization in (usual.get(model), None)
        else f"{model} {quantization}"
        for model, quantization in pairs
    }


def measured_rows(measured: Sequence[Measured], test_kind: str) -> list[MachineRow]:
    """A row for each machine (each set of devices) in the records; its cell is the record that speaks for it (`speaks_for`).

    Where there is none, the latest with an empty cache and other settings, which a remark says. Of a model of which several
    quantizations were measured, each but the usual one has a cell of its own. test_kind is tg or pp.
    """
    measured = [item for item in measured if item.test_kind == test_kind and _is_plain(item.record.asked)]
    usual = {item.model: item.entry.default_quantization for item in measured if item.entry}
    names = name_columns(((item.model, item.quantization) for item in measured), usual)
    groups: dict[tuple[str, str], dict[str, list[Measured]]] = {}
    for item in measured:
        groups.setdefault((item.machine_label, item.kind), {}).setdefault(
            names[item.model, item.quantization], []
        ).append(item)
    return [
        MachineRow(
            label, kind, False, {model: _stand(best) for model, items in models.items() if (best := speaks_for(items))}
        )
        for (label, kind), models in groups.items()
    ]


def _stand(item: Measured) -> Standing:
    summary = item.summary
    remarks = [caution.text for caution in summary.cautions if caution.cause is not CautionCause.FEW_SAMPLES]
    if not item.is_default:
        remarks.append("not with default settings")
    asked, when = item.record.asked.test, item.record.time_utc
    return Standing(
        summary.rate_tok_per_s, item.quantization, item.is_synthetic, summary.interval, asked, when, tuple(remarks)
    )


def sort_rows(rows: Sequence[MachineRow], by: str = "speed") -> list[MachineRow]:
    """Sort: ``speed`` (fastest first: a machine's mean distance from each model's median, in the logarithm), ``given`` or a model's
    name."""
    if by == "given":
        return list(rows)
    if by != "speed":
        return sorted(rows, key=lambda row: -row.cells[by].rate_tok_per_s if by in row.cells else 0.0)
    rates: dict[str, list[float]] = {}
    for row in rows:
        for model, cell in row.cells.items():
            rates.setdefault(model, []).append(cell.rate_tok_per_s)
    middle = {model: median(values) for model, values in rates.items() if len(values) > 1}

    def score(row: MachineRow) -> float:
        logs = [math.log(cell.rate_tok_per_s / middle[model]) for model, cell in row.cells.items() if model in middle]
        return -sum(logs) / len(logs) if logs else -math.inf  # nothing to compare it by: it comes first

    return sorted(rows, key=score)


def list_models(rows: Sequence[MachineRow]) -> list[str]:
    """The article's models first, then whatever else was measured; only those with a figure."""
    found = dict.fromkeys(model for row in rows for model in row.cells)
    return [model for model in ARTICLE_MODELS if model in found] + [m for m in found if m not in ARTICLE_MODELS]


def order_least(rows: Sequence[MachineRow]) -> list[str]:
    """The models in the order in which they are left out where there is no room: the last first, those that somebody measured here
    after all others, and none that is all that some row has as long as there is another."""
    rest, order = list_models(rows), []
    own = {model for row in rows if not row.is_published for model in row.cells}
    while rest:
        least = min(reversed(rest), key=lambda model: (_is_all(model, rest, rows), model in own))
        order.append(least)
        rest.remove(least)
    return order


def _is_all(model: str, models: Sequence[str], rows: Sequence[MachineRow]) -> bool:
    return any(model in row.cells and not any(m in row.cells for m in models if m != model) for row in rows)


def size_models(
    rows: Sequence[MachineRow], measured: Sequence[Measured], catalog: Catalog | None
) -> dict[tuple[str, str | None], int]:
    """Bytes of the weights of each model and quantization in the rows: of the measured file, else by the catalog's shape."""
    sizes: dict[tuple[str, str | None], int] = {}
    for model, quantization in {(name, cell.quantization) for row in rows for name, cell in row.cells.items()}:
        entry = catalog.entries.get(model) if catalog else None
        if entry is not None and quantization is not None:
            try:
                sizes[model, quantization] = cost_of_shape(entry.shape, quantization).size_bytes
            except HarnessError:
                continue
    return sizes | {(i.model, i.quantization): i.record.model.size_bytes for i in measured if i.record.model}
