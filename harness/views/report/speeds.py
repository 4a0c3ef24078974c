"""Chapters of measured cells: speeds, and layers on the GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from harness.records.cells import record_key
from harness.records.placements import make_result
from harness.records.statistics import Digest, speaking
from harness.spec import find_varied
from harness.views.cells import describe_cells
from harness.views.document import Document, Picture, Section
from harness.views.figures.placements import draw_layers
from harness.views.figures.users import find_series, show_series
from harness.views.placements import describe_placements
from harness.views.report.frame import explained
from harness.views.report.material import Material
from harness.views.settings import format_settings

#: More rows than these nobody reads, and a browser sorts them no more.
MOST_ROWS = 2000


def show_speeds(material: Material) -> Sequence[Document]:
    """Every measured cell but those of sweeps, which have a chapter of their own; of very many the ones that speak for each."""
    cells = [cell for cell in material.cells if cell.record.command != "sweep"]
    if not cells:
        return []
    shown = _choose(cells) if len(cells) > MOST_ROWS else cells
    document = describe_cells(shown, name_of=material.model_name, is_kept=True)
    if len(shown) < len(cells):
        counts = f"Of {len(cells):,} measured cells {len(shown):,} are shown"
        said = f"{counts}: of each the record that speaks for it, the latest. `harness history` has all."
        return explained([said], [document])
    return [document]


def _choose(cells: Sequence[Digest]) -> list[Digest]:
    """Of each cell the record that speaks for it, in their order; the latest of too many."""
    same: dict[Any, list[Digest]] = {}
    for cell in cells:
        same.setdefault(record_key(cell.record), []).append(cell)
    spoken = {id(speaking(group)) for group in same.values()}
    return [cell for cell in cells if id(cell) in spoken][-MOST_ROWS:]


def show_users(material: Material) -> Sequence[Document]:
    """What several users get at once, where cells differ in nothing but their number; sweeps show theirs themselves."""
    series = find_series(material.cells, material.model_name)
    if not series:
        return []
    return [Document("users", 1, "", [Section("", [show_series(series)])])]


def show_layers(material: Material) -> Sequence[Document]:
    """Every placement that a sweep measured, and what else differs in nothing but the layers on the GPU; the latest last."""
    groups: dict[tuple[Any, ...], list[Digest]] = {}
    for cell in material.cells:
        key = record_key(cell.record, but=("n_gpu_layers", "n_prompt", "n_gen"))
        groups.setdefault(key, []).append(cell)
    chosen = sorted(filter(_is_sweep, groups.values()), key=lambda cells: cells[-1].record.time_utc)
    settings = [name for name in find_varied(c.record.asked for cells in chosen for c in cells) if name not in _SHOWN]
    return [_show_placements(material, cells, settings) for cells in chosen]


#: Parameters that a table of placements shows by itself.
_SHOWN = ("n_gpu_layers", "n_prompt", "n_gen", "n_depth")


def _is_sweep(cells: Sequence[Digest]) -> bool:
    by_test: dict[str, set[int]] = {}
    for asked in {id(cell.record.asked): cell.record.asked for cell in cells}.values():
        by_test.setdefault(asked.test, set()).add(asked.n_gpu_layers)
    return any(len(counts) > 1 for counts in by_test.values()) or any(cell.record.command == "sweep" for cell in cells)


def _show_placements(material: Material, cells: Sequence[Digest], settings: Sequence[str]) -> Document:
    placements: dict[int, dict[str, list[Digest]]] = {}
    for cell in cells:
        placements.setdefault(cell.record.asked.n_gpu_layers, {}).setdefault(cell.record.asked.test, []).append(cell)
    results = [
        make_result([best for found in tests.values() if (best := speaking(found))], ["n_gpu_layers"])
        for _, tests in sorted(placements.items())
    ]
    record = cells[0].record
    machine = material.machine_name(record.machine) if len(material.machines) > 1 else ""
    parts = [material.model_name(record), machine, format_settings(record.asked, settings)]
    title = " · ".join(filter(None, parts))
    picture = Picture(lambda theme: draw_layers(results, title, theme=theme), "Speeds and memory by layers on the GPU")
    tables = describe_placements(results, title, is_kept=True)
    return dataclasses.replace(tables, sections=[Section("", [picture]), *tables.sections])
